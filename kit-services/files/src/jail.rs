//! Paths that cannot leave the root.
//!
//! Every path is walked by the kernel from a descriptor of the root (`openat2` with
//! `RESOLVE_IN_ROOT`): absolute links and `..` stay below it as they do after a chroot, and no
//! link that is swapped in between can change that, since nothing is looked up twice by name.
//! What exists is held as [`Jailed`], a descriptor; what is to be made, moved or removed as
//! [`Place`], a descriptor of its directory and a name without a slash.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, chownat, fstat, mkdirat, open,
    openat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use crate::path::FilePath;

/// How often a walk is tried again when a rename somewhere made it uncertain (`EAGAIN`).
const WALKS: u32 = 256;
/// How many links at the end of a path are followed; the kernel's own bound.
const LINKS: u32 = 40;

/// Mode of a file that is new.
pub const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
/// Mode of a directory that is new.
pub const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// The directory that all paths are below.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// Opened on first use: a service that nobody calls holds nothing.
    dir: OnceLock<OwnedFd>,
}

/// Whether a link at the end of a path stands for itself or for what it points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    Follow,
    Keep,
}

/// Something below the root that exists.
#[derive(Debug)]
pub struct Jailed {
    fd: OwnedFd,
    pub stat: Stat,
}

/// A name in a directory below the root, whether or not something bears it.
#[derive(Debug)]
pub struct Place {
    pub dir: OwnedFd,
    pub name: Vec<u8>,
}

/// Who owns what a request makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Whoever owns the directory it is made in.
    Directory,
    /// This user and group.
    Ids { user: u32, group: u32 },
}

impl Root {
    pub fn new(path: PathBuf) -> Root {
        Root {
            path,
            dir: OnceLock::new(),
        }
    }

    fn dir(&self) -> Result<&OwnedFd, Errno> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = open(&self.path, flags, Mode::empty())?;
        Ok(self.dir.get_or_init(|| dir))
    }

    /// What is at this path.
    pub fn find(&self, path: &FilePath, links: Links) -> Result<Jailed, Errno> {
        let flags = match links {
            Links::Follow => OFlags::PATH,
            Links::Keep => OFlags::PATH | OFlags::NOFOLLOW,
        };
        Jailed::new(self.walk(path.bytes(), flags)?)
    }

    /// The directory and the name behind this path. With [`Links::Follow`], a link at its end is
    /// followed to the name it stands for, also where nothing has that name yet.
    ///
    /// Fails with `EISDIR` where the path can name nothing but a directory: the root, or what a
    /// link to `..` leads to.
    pub fn place(&self, path: &FilePath, links: Links) -> Result<Place, Errno> {
        let mut at = path.bytes().to_vec();
        for _ in 0..LINKS {
            let split = at.iter().rposition(|byte| *byte == b'/');
            let (parent, name) = match split {
                Some(slash) => (&at[..slash], &at[slash + 1..]),
                None => (&b""[..], &at[..]),
            };
            if matches!(name, b"" | b"." | b"..") {
                return Err(Errno::ISDIR);
            }
            let dir = self.walk(parent, OFlags::PATH | OFlags::DIRECTORY)?;
            if links == Links::Keep {
                return Ok(Place {
                    dir,
                    name: name.to_vec(),
                });
            }
            match readlinkat(&dir, name, Vec::new()) {
                Err(Errno::INVAL | Errno::NOENT) => {
                    return Ok(Place {
                        dir,
                        name: name.to_vec(),
                    });
                }
                Err(error) => return Err(error),
                Ok(target) if target.as_bytes().starts_with(b"/") => at = target.into_bytes(),
                Ok(target) => {
                    let mut next = parent.to_vec();
                    next.push(b'/');
                    next.extend_from_slice(target.as_bytes());
                    at = next;
                }
            }
        }
        Err(Errno::LOOP)
    }

    /// Hold a directory, making it and those above it where they are missing.
    pub fn directory(&self, path: &FilePath, owner: Owner) -> Result<OwnedFd, Errno> {
        let parts: Vec<&[u8]> = path.segments().collect();
        let mut known = parts.len();
        let mut dir = loop {
            match self.walk(
                &parts[..known].join(&b'/'),
                OFlags::PATH | OFlags::DIRECTORY,
            ) {
                Err(Errno::NOENT) if known > 0 => known -= 1,
                other => break other?,
            }
        };
        for part in &parts[known..] {
            dir = make_directory(dir.as_fd(), part, owner)?;
        }
        Ok(dir)
    }

    /// The path of what this descriptor holds, links resolved; none if it is gone or outside.
    pub fn path_of(&self, fd: impl AsFd) -> Option<FilePath> {
        let own = name_of(self.dir().ok()?.as_fd())?;
        let full = name_of(fd.as_fd())?;
        let rest = if own == b"/" {
            &full[..]
        } else {
            full.strip_prefix(&own[..])?
        };
        if !(rest.is_empty() || rest.starts_with(b"/")) {
            return None;
        }
        FilePath::from_bytes(rest).ok()
    }

    fn walk(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let root = self.dir()?;
        for _ in 0..WALKS {
            match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), within) {
                Err(Errno::AGAIN) => std::thread::yield_now(),
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }
}

impl Jailed {
    /// Hold what an O_PATH descriptor names.
    pub fn new(fd: OwnedFd) -> Result<Jailed, Errno> {
        let stat = fstat(&fd)?;
        Ok(Jailed { fd, stat })
    }

    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Open what is held. Only regular files and directories are: opening a device can do
    /// something, and opening a FIFO or reading it can wait for ever.
    pub fn open(&self, flags: OFlags) -> Result<File, Errno> {
        match self.kind() {
            FileType::RegularFile | FileType::Directory => {}
            _ => return Err(Errno::OPNOTSUPP),
        }
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // The descriptor is named through /proc since nothing else opens an O_PATH one again.
        Ok(File::from(open(self.proc_path(), flags, Mode::empty())?))
    }

    /// A path that names exactly what is held, for calls that take no descriptor.
    pub fn proc_path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// Change owner and group of what is held.
    pub fn chown(&self, user: Option<u32>, group: Option<u32>) -> Result<(), Errno> {
        chown(self.fd.as_fd(), user, group)
    }

    pub fn chmod(&self, mode: Mode) -> Result<(), Errno> {
        rustix::fs::chmod(self.proc_path(), mode)
    }
}

impl AsFd for Jailed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Place {
    /// What bears the name, a link itself included; none where nothing does.
    pub fn stat(&self) -> Result<Option<Stat>, Errno> {
        match statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Make a directory, or take the one that is there; a link is none.
pub fn make_directory(dir: BorrowedFd<'_>, name: &[u8], owner: Owner) -> Result<OwnedFd, Errno> {
    let made = match mkdirat(dir, name, DIRECTORY_MODE) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let new = openat(dir, name, flags, Mode::empty())?;
    if made {
        give(new.as_fd(), dir, owner)?;
    }
    Ok(new)
}

/// Give what was made in `dir` to whom it is due. Without privilege all stays our own.
pub fn give(new: BorrowedFd<'_>, dir: BorrowedFd<'_>, owner: Owner) -> Result<(), Errno> {
    let owner = if owner == Owner::Directory {
        owner_of(dir)?
    } else {
        owner
    };
    let Owner::Ids { user, group } = owner else {
        return Ok(());
    };
    let stat = fstat(new)?;
    if (stat.st_uid, stat.st_gid) == (user, group) {
        return Ok(());
    }
    chown(new, Some(user), Some(group))
}

/// Whose what is made in a directory is to be; says nothing new where we can give nothing away.
pub fn owner_of(dir: BorrowedFd<'_>) -> Result<Owner, Errno> {
    if !privileged() {
        return Ok(Owner::Directory);
    }
    let stat = fstat(dir)?;
    Ok(Owner::Ids {
        user: stat.st_uid,
        group: stat.st_gid,
    })
}

/// Whether this process may give files away.
pub fn privileged() -> bool {
    rustix::process::geteuid().is_root()
}

/// Open for reading a directory that is held by path only.
pub fn list(dir: impl AsFd) -> Result<OwnedFd, Errno> {
    openat(
        dir,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn chown(fd: BorrowedFd<'_>, user: Option<u32>, group: Option<u32>) -> Result<(), Errno> {
    let user = user.map(rustix::fs::Uid::from_raw);
    let group = group.map(rustix::fs::Gid::from_raw);
    chownat(fd, c"", user, group, AtFlags::EMPTY_PATH)
}

/// The path by which the kernel knows what a descriptor holds.
fn name_of(fd: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Some(readlinkat(CWD, link, Vec::new()).ok()?.into_bytes())
}
