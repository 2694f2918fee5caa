//! Whether a kit answers: its socket is opened the way the proxy opens it.
//!
//! The directory belongs to the container, which may have put anything in the socket's place. So
//! the name is opened without following links, must be a socket of the container's own users, and
//! only then is connected to, through its descriptor. Nothing is sent.

use std::path::Path;

use routes::table::{KIT_SOCKET, Owners};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::os::fd::{AsRawFd, OwnedFd};

/// Whether something accepts connections at the kit's socket in `directory`. Never blocks.
pub fn answers(directory: &Path, owners: Owners) -> bool {
    connection(directory, owners).is_ok_and(|found| found.is_some())
}

/// A connection to the kit's socket in `directory`, non-blocking; nothing where it is no socket of
/// the container's own. Never blocks.
pub fn connection(directory: &Path, owners: Owners) -> Result<Option<OwnedFd>, Errno> {
    let directory = open(
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let place = openat2(
        &directory,
        KIT_SOCKET,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    let facts = fstat(&place)?;
    if FileType::from_raw_mode(facts.st_mode) != FileType::Socket || !owners.contains(facts.st_uid)
    {
        return Ok(None);
    }
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    connect(&socket, &address)?;
    Ok(Some(socket))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn mine() -> Owners {
        Owners {
            base: rustix::process::geteuid().as_raw(),
            count: 1,
        }
    }

    #[test]
    fn only_a_listening_socket_of_its_owner_answers() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join(KIT_SOCKET);
        assert!(!answers(directory.path(), mine()), "nothing there");
        let listener = UnixListener::bind(&at).unwrap();
        assert!(answers(directory.path(), mine()));
        let other = Owners {
            base: mine().base + 1,
            count: 10,
        };
        assert!(!answers(directory.path(), other), "a stranger's socket");
        drop(listener);
        assert!(
            !answers(directory.path(), mine()),
            "left over by a listener that is gone"
        );
    }

    #[test]
    fn what_stands_in_the_socket_s_place_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let at = directory.path().join(KIT_SOCKET);
        let _listener = UnixListener::bind(outside.path().join("engine.sock")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("engine.sock"), &at).unwrap();
        assert!(!answers(directory.path(), mine()), "a link");
        std::fs::remove_file(&at).unwrap();
        std::fs::write(&at, b"").unwrap();
        assert!(!answers(directory.path(), mine()), "a file");
    }
}
