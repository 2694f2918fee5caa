//! From the kernel's refusals to answers.

use http::StatusCode;
use kit::Fault;
use rustix::io::Errno;

use crate::path::FilePath;

/// How to say that `act` (`read`, `write`, `remove`) failed on a path.
pub fn failed<E: Into<Cause>>(act: &str, path: &FilePath) -> impl Fn(E) -> Fault {
    move |error| refusal(act, &path.to_string(), error.into())
}

/// How to say that a file which the kernel makes up cannot be read: `/proc/self/mem` has nothing at
/// its beginning, and says so as a broken disk would.
pub fn unreadable(path: &FilePath, error: std::io::Error) -> Fault {
    match Errno::from_io_error(&error) {
        Some(Errno::IO | Errno::SRCH | Errno::FAULT) => Fault::forbidden(format!(
            "could not read {path}: the kernel makes it up, and does not give it out as a file"
        ))
        .code("SPECIAL_FILE"),
        _ => failed("read", path)(error),
    }
}

/// Why something failed.
#[derive(Debug)]
pub struct Cause(std::io::Error);

impl From<Errno> for Cause {
    fn from(error: Errno) -> Self {
        Cause(error.into())
    }
}

impl From<std::io::Error> for Cause {
    fn from(error: std::io::Error) -> Self {
        Cause(error)
    }
}

fn refusal(act: &str, path: &str, Cause(error): Cause) -> Fault {
    use StatusCode as S;
    let Some(errno) = Errno::from_io_error(&error) else {
        return Fault::internal(format!("could not {act} {path}: {error}"));
    };
    let (status, code, why) = match errno {
        Errno::NOENT => {
            return Fault::not_found(format!("no file or directory {path}")).code("NOT_FOUND");
        }
        Errno::NOTDIR if act == "read" => {
            return Fault::not_found(format!("no file or directory {path}; part of it is a file"))
                .code("NOT_FOUND");
        }
        Errno::NOTDIR => (
            S::CONFLICT,
            "NOT_A_DIRECTORY",
            "part of the path is a file, or a link that leads nowhere",
        ),
        Errno::ISDIR => (S::CONFLICT, "IS_A_DIRECTORY", "it is a directory"),
        Errno::EXIST => (S::CONFLICT, "EXISTS", "something of that name exists"),
        Errno::NOTEMPTY => (
            S::CONFLICT,
            "NOT_EMPTY",
            "the directory is not empty, or is being written to",
        ),
        Errno::BUSY => (S::CONFLICT, "BUSY", "it is in use, as a mount point is"),
        Errno::XDEV => (
            S::CONFLICT,
            "MOUNT_POINT",
            "it is, or holds, a mount point of another file system",
        ),
        Errno::TXTBSY => (S::CONFLICT, "BUSY", "it is a program that is running"),
        Errno::LOOP => (
            S::FORBIDDEN,
            "LINK",
            "too many links, or a link that only the kernel can follow",
        ),
        Errno::ACCESS | Errno::PERM => (
            S::FORBIDDEN,
            "NOT_ALLOWED",
            "the file system does not allow it",
        ),
        Errno::ROFS => (S::FORBIDDEN, "READ_ONLY", "the file system is read-only"),
        Errno::OPNOTSUPP | Errno::NXIO => (
            S::FORBIDDEN,
            "SPECIAL_FILE",
            "it is a device, a socket or a FIFO, not a regular file",
        ),
        Errno::NAMETOOLONG => (S::BAD_REQUEST, "NAME_TOO_LONG", "a name in it is too long"),
        Errno::INVAL => (
            S::BAD_REQUEST,
            "INVALID",
            "the file system does not take that name or operation",
        ),
        Errno::FBIG => (
            S::PAYLOAD_TOO_LARGE,
            "TOO_LARGE",
            "the file system takes no file that large",
        ),
        Errno::NOSPC => (
            S::INSUFFICIENT_STORAGE,
            "NO_SPACE",
            "the file system is full",
        ),
        Errno::DQUOT => (
            S::INSUFFICIENT_STORAGE,
            "NO_SPACE",
            "the disk quota is used up",
        ),
        Errno::AGAIN | Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
            return Fault::unavailable(format!("could not {act} {path} now; try again"))
                .retry_after(std::time::Duration::from_secs(1));
        }
        _ => {
            return Fault::internal(format!(
                "could not {act} {path}: {}",
                std::io::Error::from(errno)
            ));
        }
    };
    Fault::new(status, format!("could not {act} {path}: {why}")).code(code)
}
