//! A file that is being written beside the place it will take.
//!
//! What is at the place stays whole until the new file is complete; then one rename puts it there.
//! A draft that is dropped leaves nothing behind.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags, fchmod, fgetxattr,
    flistxattr, fsetxattr, fstat, fsync, linkat, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;

use crate::jail::{FILE_MODE, Owner, Place, give, list};
use crate::tree;

/// Largest extended attribute that is carried over, and the longest list of their names; the
/// kernel's own bounds.
const ATTRIBUTE_BYTES: usize = 64 << 10;

/// Permission bits that a new content keeps of the old. Set-user-id and set-group-id are not
/// among them: they were granted to the program that was there before.
const KEPT_MODE: u32 = 0o1777;

/// The file.
#[derive(Debug)]
pub struct Draft {
    pub file: File,
    dir: OwnedFd,
    /// Its name, once it has one.
    name: Option<Vec<u8>>,
}

/// What may be at the place already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Nothing.
    Never,
    /// A file where a file goes, a directory where a directory goes.
    SameKind,
    /// Anything.
    Any,
}

/// How a draft becomes a file.
#[derive(Clone, Copy, Debug)]
pub struct Finish {
    pub owner: Owner,
    /// Be on the disk, not only on its way there.
    pub fsync: bool,
    pub replace: Replace,
}

impl Draft {
    /// Begin a file that will be in the directory of `place`.
    pub fn new(place: &Place) -> Result<Draft, Errno> {
        let dir = place
            .dir
            .as_fd()
            .try_clone_to_owned()
            .map_err(|_| Errno::MFILE)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(&dir, c".", flags | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR) {
            Ok(file) => {
                return Ok(Draft {
                    file: file.into(),
                    dir,
                    name: None,
                });
            }
            // File systems that have no nameless files say so in these ways.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        Draft::named(dir)
    }

    /// Begin a file that has a hidden name from the start.
    fn named(dir: OwnedFd) -> Result<Draft, Errno> {
        let name = tree::hidden_name();
        let flags =
            OFlags::WRONLY | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(&dir, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Draft {
            file: file.into(),
            dir,
            name: Some(name),
        })
    }

    /// Take the place. Owner, mode and attributes of a file that was there go over. Says what the
    /// file is now.
    pub fn settle(mut self, place: &Place, finish: Finish) -> Result<Stat, Errno> {
        let old = place.stat()?;
        match &old {
            None => {
                give(self.file.as_fd(), self.dir.as_fd(), finish.owner)?;
                fchmod(&self.file, FILE_MODE)?;
            }
            Some(old) => self.take_after(place, old, finish)?,
        }
        if finish.fsync {
            fsync(&self.file)?;
        }
        self.settle_as_is(place, finish.replace)?;
        if finish.fsync {
            fsync(list(&self.dir)?)?;
        }
        fstat(&self.file)
    }

    /// Take the place without a change to the file.
    pub fn settle_as_is(&mut self, place: &Place, replace: Replace) -> Result<(), Errno> {
        if self.name.is_none() {
            let name = tree::hidden_name();
            let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(CWD, own, &self.dir, &name, AtFlags::SYMLINK_FOLLOW)?;
            self.name = Some(name);
        }
        let name = self.name.as_ref().expect("it was given one above");
        tree::put_in_place(&self.dir, name, place, replace)?;
        self.name = None;
        Ok(())
    }

    fn take_after(&self, place: &Place, old: &Stat, finish: Finish) -> Result<(), Errno> {
        if FileType::from_raw_mode(old.st_mode) != FileType::RegularFile {
            return Ok(()); // refused or replaced as a whole when it settles
        }
        let owner = Owner::Ids {
            user: old.st_uid,
            group: old.st_gid,
        };
        if let Err(error) = give(self.file.as_fd(), self.dir.as_fd(), owner) {
            if error != Errno::PERM {
                return Err(error);
            }
            // Without privilege what was another's becomes ours, as with any editor.
            give(self.file.as_fd(), self.dir.as_fd(), finish.owner)?;
        }
        fchmod(&self.file, Mode::from_raw_mode(old.st_mode & KEPT_MODE))?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Ok(old) = openat(&place.dir, &place.name, flags, Mode::empty()) {
            copy_attributes(&old, &self.file);
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = unlinkat(&self.dir, name, AtFlags::empty());
        }
    }
}

/// Carry extended attributes and access lists over, as far as the file system takes them.
pub fn copy_attributes(from: impl AsFd, to: impl AsFd) {
    let mut names = vec![0; ATTRIBUTE_BYTES];
    let Ok(length) = flistxattr(&from, &mut names[..]) else {
        return;
    };
    let mut value = vec![0; ATTRIBUTE_BYTES];
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        if name == b"security.capability" {
            continue; // like set-user-id: granted to the old content
        }
        if let Ok(size) = fgetxattr(&from, name, &mut value[..]) {
            let _ = fsetxattr(&to, name, &value[..size], XattrFlags::empty());
        }
    }
}

/// Rename what was made under a hidden name to its place.
pub fn rename_new(dir: &OwnedFd, name: &[u8], place: &Place) -> Result<(), Errno> {
    match renameat_with(dir, name, &place.dir, &place.name, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag; then a look must do.
        Err(Errno::INVAL | Errno::NOSYS) if place.stat()?.is_none() => {
            renameat(dir, name, &place.dir, &place.name)
        }
        Err(Errno::INVAL | Errno::NOSYS) if place.stat()?.is_some() => Err(Errno::EXIST),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::jail::{Links, Root};
    use crate::path::FilePath;

    #[test]
    fn a_draft_works_where_files_cannot_be_nameless() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().to_owned());
        let place = root
            .place(&FilePath::from_bytes(b"f").unwrap(), Links::Keep)
            .unwrap();
        let begin = || Draft::named(place.dir.try_clone().unwrap()).unwrap();
        let finish = Finish {
            owner: Owner::Directory,
            fsync: true,
            replace: Replace::SameKind,
        };
        for content in ["first", "second"] {
            let mut draft = begin();
            draft.file.write_all(content.as_bytes()).unwrap();
            draft.settle(&place, finish).unwrap();
            assert_eq!(
                std::fs::read_to_string(dir.path().join("f")).unwrap(),
                content
            );
        }
        drop(begin());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
