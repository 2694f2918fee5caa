//! The files of the scripts. Every path is walked by the kernel from a descriptor of the root, and
//! no link is followed (`openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`): scripts run
//! as an ordinary user and own these files, the kit does not.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kit::Fault;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Uid, chownat,
    fchown, fstat, mkdirat, open, openat2, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::place::RelPath;

/// Largest file that is read or written as a whole.
pub const FILE_BYTES: u64 = 8 << 20;
/// Entries of a directory, or of a tree, that are listed.
pub const ENTRIES: usize = 10_000;
/// How often a walk is tried again where a rename elsewhere made it uncertain (`EAGAIN`).
const WALKS: u32 = 64;

/// The root of all scripts, and who owns what is made in it.
#[derive(Debug)]
pub struct Root {
    pub path: PathBuf,
    owner: Option<(Uid, Gid)>,
}

/// What an operation on files came to.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("could not {act} `{path}`")]
    Failed {
        act: &'static str,
        path: String,
        #[source]
        source: Errno,
    },
    #[error("`{path}` is larger than {FILE_BYTES} bytes")]
    TooLarge { path: String },
    #[error("`{path}` is not text in UTF-8")]
    NotText { path: String },
    #[error("there are more than {ENTRIES} entries below `{path}`; name a directory further down")]
    TooMany { path: String },
}

impl FileError {
    pub fn errno(&self) -> Option<Errno> {
        match self {
            FileError::Failed { source, .. } => Some(*source),
            _ => None,
        }
    }
}

impl From<FileError> for Fault {
    fn from(error: FileError) -> Fault {
        let FileError::Failed { act, path, source } = &error else {
            let code = match error {
                FileError::TooLarge { .. } => "FILE_TOO_LARGE",
                FileError::NotText { .. } => "NOT_TEXT",
                _ => "TOO_MANY_ENTRIES",
            };
            return match error {
                FileError::TooLarge { .. } => Fault::too_large(error.to_string()).code(code),
                _ => {
                    Fault::new(http::StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).code(code)
                }
            };
        };
        match *source {
            Errno::NOENT | Errno::NOTDIR => Fault::not_found(format!(
                "there is no `{path}`; list scripts with GET /api/v1/exec/scripts/list"
            ))
            .code("SCRIPT_NOT_FOUND"),
            Errno::LOOP | Errno::XDEV => Fault::forbidden(format!(
                "`{path}` is, or leads over, a symbolic link; scripts are plain files"
            ))
            .code("SYMLINK_REFUSED"),
            Errno::EXIST | Errno::NOTEMPTY => {
                Fault::conflict(format!("`{path}` is there already")).code("ALREADY_EXISTS")
            }
            Errno::ISDIR => {
                Fault::bad_request(format!("`{path}` is a directory")).code("IS_A_DIRECTORY")
            }
            Errno::NOSPC | Errno::DQUOT => Fault::new(
                http::StatusCode::INSUFFICIENT_STORAGE,
                format!("could not {act} `{path}`: the disk is full"),
            )
            .code("DISK_FULL"),
            other => Fault::internal(format!("could not {act} `{path}`: {other}")),
        }
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub kind: FileType,
    pub size: u64,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    pub changed: (i64, i64),
    pub inode: u64,
}

impl Facts {
    fn of(stat: &Stat) -> Facts {
        #[allow(clippy::unnecessary_cast, clippy::useless_conversion)] // types differ by platform
        Facts {
            kind: FileType::from_raw_mode(stat.st_mode),
            size: stat.st_size as u64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            inode: stat.st_ino as u64,
        }
    }
    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }
    pub fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }
    /// When it was last written (RFC 3339).
    pub fn modified_text(&self) -> String {
        time(self.modified)
    }
    /// When it was last replaced, renamed or changed otherwise (RFC 3339).
    pub fn changed_text(&self) -> String {
        time(self.changed)
    }
}

fn time((seconds, nanos): (i64, i64)) -> String {
    let nanos = i32::try_from(nanos).unwrap_or_default();
    jiff::Timestamp::new(seconds, nanos)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .round(jiff::Unit::Millisecond)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

/// One entry of a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub facts: Facts,
}

impl Root {
    pub fn new(path: PathBuf, owner: Option<(u32, u32)>) -> Root {
        Root {
            path,
            owner: owner.map(|(user, group)| (Uid::from_raw(user), Gid::from_raw(group))),
        }
    }

    /// Make the root where it is missing.
    pub fn make(&self) -> std::io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.path)?;
        if let Some((user, group)) = self.owner {
            chownat(
                CWD,
                &self.path,
                Some(user),
                Some(group),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        Ok(())
    }

    /// The absolute path of one below the root.
    pub fn absolute(&self, path: &RelPath) -> PathBuf {
        self.path.join(path.as_str())
    }

    fn top(&self) -> Result<OwnedFd, Errno> {
        open(
            &self.path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }

    fn walk(&self, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let top = self.top()?;
        let name = if path.is_root() { "." } else { path.as_str() };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            match openat2(&top, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if tries < WALKS => tries += 1,
                other => return other,
            }
        }
    }

    /// What is at this path; a link is refused.
    pub fn facts(&self, path: &RelPath) -> Result<Facts, FileError> {
        let fd = self
            .walk(path, OFlags::PATH)
            .map_err(failed("look at", path))?;
        let stat = fstat(&fd).map_err(failed("look at", path))?;
        Ok(Facts::of(&stat))
    }

    /// Whether a plain file is at this path, and which.
    pub fn file(&self, path: &RelPath) -> Option<Facts> {
        self.facts(path).ok().filter(Facts::is_file)
    }

    /// The bytes of a file, at most [`FILE_BYTES`].
    pub fn read(&self, path: &RelPath) -> Result<(Vec<u8>, Facts), FileError> {
        // not to wait for a pipe that nobody writes to
        let fd = self
            .walk(path, OFlags::RDONLY | OFlags::NONBLOCK)
            .map_err(failed("read", path))?;
        let facts = Facts::of(&fstat(&fd).map_err(failed("read", path))?);
        if facts.is_directory() {
            return Err(failed("read", path)(Errno::ISDIR));
        }
        if !facts.is_file() {
            return Err(failed("read", path)(Errno::NOENT));
        }
        if facts.size > FILE_BYTES {
            return Err(FileError::TooLarge {
                path: path.to_string(),
            });
        }
        let mut bytes = Vec::new();
        File::from(fd)
            .take(FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| failed("read", path)(errno(&error)))?;
        if bytes.len() as u64 > FILE_BYTES {
            return Err(FileError::TooLarge {
                path: path.to_string(),
            });
        }
        Ok((bytes, facts))
    }

    /// The text of a file.
    pub fn text(&self, path: &RelPath) -> Result<(String, Facts), FileError> {
        let (bytes, facts) = self.read(path)?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok((text, facts)),
            Err(_) => Err(FileError::NotText {
                path: path.to_string(),
            }),
        }
    }

    /// What is in a directory, by name. Names that are no UTF-8 cannot be asked for and are left out.
    pub fn list(&self, path: &RelPath) -> Result<Vec<Entry>, FileError> {
        let fd = self
            .walk(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(failed("list", path))?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&fd).map_err(failed("list", path))? {
            let entry = entry.map_err(failed("list", path))?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if matches!(name, "." | "..") {
                continue;
            }
            if entries.len() >= ENTRIES {
                return Err(FileError::TooMany {
                    path: path.to_string(),
                });
            }
            // it may be gone since
            if let Ok(stat) = statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                entries.push(Entry {
                    name: name.to_owned(),
                    facts: Facts::of(&stat),
                });
            }
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// Every file below a directory that is not the service's own, by path. No link is followed.
    pub fn walk_files(&self, path: &RelPath) -> Result<Vec<(RelPath, Facts)>, FileError> {
        let mut files = Vec::new();
        let mut seen = 0;
        let mut waiting = vec![path.clone()];
        while let Some(directory) = waiting.pop() {
            let entries = match self.list(&directory) {
                Ok(entries) => entries,
                // gone while we looked
                Err(error) if error.errno() == Some(Errno::NOENT) && directory != *path => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                seen += 1;
                if seen > ENTRIES {
                    return Err(FileError::TooMany {
                        path: path.to_string(),
                    });
                }
                let Ok(its) = RelPath::read(directory.join(&entry.name).as_str()) else {
                    continue;
                };
                if entry.facts.is_directory() {
                    waiting.push(its);
                } else if entry.facts.is_file() {
                    files.push((its, entry.facts));
                }
            }
        }
        files.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(files)
    }

    /// Make a directory with all above it.
    pub fn make_directory(&self, path: &RelPath) -> Result<(), FileError> {
        let mut at = RelPath::default();
        for name in path.names() {
            let parent = self
                .walk(&at, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(failed("make", path))?;
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    if let Some((user, group)) = self.owner {
                        chownat(
                            &parent,
                            name,
                            Some(user),
                            Some(group),
                            AtFlags::SYMLINK_NOFOLLOW,
                        )
                        .map_err(failed("make", path))?;
                    }
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(failed("make", path)(error)),
            }
            at = at.join(name);
        }
        Ok(())
    }

    /// Write a file whole or not at all. Whether one was there before.
    pub fn write(&self, path: &RelPath, bytes: &[u8], over: Over) -> Result<bool, FileError> {
        let fail = failed("write", path);
        if bytes.len() as u64 > FILE_BYTES {
            return Err(FileError::TooLarge {
                path: path.to_string(),
            });
        }
        let directory = self
            .walk(&path.parent(), OFlags::PATH | OFlags::DIRECTORY)
            .map_err(&fail)?;
        let before = statat(&directory, path.name(), AtFlags::SYMLINK_NOFOLLOW).ok();
        match before.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            None | Some(FileType::RegularFile) => {}
            Some(FileType::Directory) => return Err(fail(Errno::ISDIR)),
            Some(FileType::Symlink) => return Err(fail(Errno::LOOP)),
            Some(_) => return Err(fail(Errno::EXIST)),
        }
        let draft = format!(".{:016x}.draft", rand::random::<u64>());
        let made = rustix::fs::openat(
            &directory,
            draft.as_str(),
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::from_raw_mode(0o644),
        )
        .map_err(&fail)?;
        let done = (|| {
            if let Some((user, group)) = self.owner {
                fchown(&made, Some(user), Some(group))?;
            }
            let mut file = File::from(made);
            file.write_all(bytes).map_err(|error| errno(&error))?;
            file.sync_data().map_err(|error| errno(&error))?;
            let flags = match over {
                Over::Replace => RenameFlags::empty(),
                Over::Keep => RenameFlags::NOREPLACE,
            };
            renameat_with(&directory, draft.as_str(), &directory, path.name(), flags)
        })();
        if let Err(error) = done {
            // the draft is ours, whatever became of it
            let _ = unlinkat(&directory, draft.as_str(), AtFlags::empty());
            return Err(fail(error));
        }
        Ok(before.is_some())
    }

    /// Remove a file.
    pub fn remove(&self, path: &RelPath) -> Result<(), FileError> {
        let fail = failed("remove", path);
        let directory = self
            .walk(&path.parent(), OFlags::PATH | OFlags::DIRECTORY)
            .map_err(&fail)?;
        unlinkat(&directory, path.name(), AtFlags::empty()).map_err(fail)
    }

    /// Remove a directory with all that is in it. How many files were.
    pub fn remove_tree(&self, path: &RelPath) -> Result<usize, FileError> {
        let files = self.walk_files(path)?;
        for (file, _) in &files {
            self.remove(file)?;
        }
        let mut directories = vec![path.clone()];
        let mut at = 0;
        while at < directories.len() {
            let here = directories[at].clone();
            for entry in self.list(&here)? {
                if entry.facts.is_directory() {
                    directories.push(here.join(&entry.name));
                } else {
                    self.remove(&here.join(&entry.name))?;
                }
            }
            at += 1;
        }
        for directory in directories.iter().rev() {
            let parent = self
                .walk(&directory.parent(), OFlags::PATH | OFlags::DIRECTORY)
                .map_err(failed("remove", directory))?;
            unlinkat(&parent, directory.name(), AtFlags::REMOVEDIR)
                .map_err(failed("remove", directory))?;
        }
        Ok(files.len())
    }

    /// Give a file another path.
    pub fn rename(&self, from: &RelPath, to: &RelPath, over: Over) -> Result<(), FileError> {
        let open = |path: &RelPath| {
            self.walk(&path.parent(), OFlags::PATH | OFlags::DIRECTORY)
                .map_err(failed("move", path))
        };
        let (here, there) = (open(from)?, open(to)?);
        let flags = match over {
            Over::Replace => RenameFlags::empty(),
            Over::Keep => RenameFlags::NOREPLACE,
        };
        renameat_with(&here, from.name(), &there, to.name(), flags).map_err(failed("move", to))
    }
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Replace,
    Keep,
}

fn failed(act: &'static str, path: &RelPath) -> impl Fn(Errno) -> FileError + use<> {
    let path = path.to_string();
    move |source| FileError::Failed {
        act,
        path: path.clone(),
        source,
    }
}

fn errno(error: &std::io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::IO, Errno::from_raw_os_error)
}

/// Whether a program is there and may be run.
pub fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_not_followed_and_writes_are_whole() {
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        let root = Root::new(directory.path().join("scripts"), None);
        root.make().unwrap();
        let path = |text: &str| RelPath::read(text).unwrap();
        root.make_directory(&path("a/b")).unwrap();
        assert!(!root.write(&path("a/b/x.ts"), b"1", Over::Keep).unwrap());
        assert!(root.write(&path("a/b/x.ts"), b"2", Over::Replace).unwrap());
        assert!(root.write(&path("a/b/x.ts"), b"3", Over::Keep).is_err());
        assert_eq!(root.text(&path("a/b/x.ts")).unwrap().0, "2");
        let link = |from: &str, to: &Path| {
            std::os::unix::fs::symlink(to, root.path.join(from)).unwrap();
        };
        link("out.ts", &outside.path().join("secret"));
        link("dir", outside.path());
        link("gone.ts", &outside.path().join("made"));
        for name in ["out.ts", "dir/secret", "gone.ts"] {
            let error = root.read(&path(name)).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::LOOP), "{name}");
            assert!(
                root.write(&path(name), b"x", Over::Replace).is_err(),
                "{name}"
            );
        }
        assert!(!outside.path().join("made").exists());
        assert_eq!(root.walk_files(&RelPath::default()).unwrap().len(), 1);
        assert_eq!(
            std::fs::read_dir(root.path.join("a/b")).unwrap().count(),
            1,
            "no draft stays"
        );
        rustix::fs::mknodat(
            CWD,
            root.path.join("pipe.ts"),
            FileType::Fifo,
            Mode::from_raw_mode(0o666),
            0,
        )
        .unwrap();
        assert!(
            root.read(&path("pipe.ts")).is_err(),
            "nobody waits for a pipe"
        );
    }
}
