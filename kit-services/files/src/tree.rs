//! Trees: removed, copied and moved by descriptors, so that no link is followed on the way.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use kit::Fault;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, SeekFrom, Stat, Timespec,
    Timestamps, copy_file_range, fchmod, fstat, ftruncate, futimens, ioctl_ficlone, mkdirat,
    mknodat, openat, openat2, readlinkat, renameat, renameat_with, seek, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::dav::property;
use crate::draft::{Draft, Replace, copy_attributes, rename_new};
use crate::entry::{is_directory, size};
use crate::fault::failed;
use crate::jail::{Jailed, Owner, Place, give, list, owner_of};
use crate::listing::{NAMES, names};
use crate::path::FilePath;
use crate::work::Wanted;

/// How deep a tree may be that is copied; each level holds two descriptors.
const COPY_DEPTH: usize = 200;
/// How deep a removal goes down before it brings deeper directories up to the top.
const REMOVE_DEPTH: usize = 100;
/// How often a directory is gone through again: for deep directories that were brought up, for more
/// names than one listing holds, and for what others keep adding.
const PASSES: u32 = 1000;
/// What is copied between two looks whether anyone still waits.
const COPY_STEP: usize = 16 << 20;
/// What is copied at a time where the kernel cannot do it itself.
const BUFFER: usize = 256 << 10;

/// A name that nothing else has, for what is not complete yet.
pub fn hidden_name() -> Vec<u8> {
    format!(".hoody-{:016x}.part", rand::random::<u64>()).into_bytes()
}

/// Put what is complete under another name in its place.
pub fn put_in_place(
    dir: &OwnedFd,
    name: &[u8],
    place: &Place,
    replace: Replace,
) -> Result<(), Errno> {
    if place.stat()?.is_some() {
        return put_over(dir, name, place, replace);
    }
    match rename_new(dir, name, place) {
        // Somebody was faster; now there is something to weigh.
        Err(Errno::EXIST) if replace != Replace::Never => put_over(dir, name, place, replace),
        other => other,
    }
}

fn put_over(dir: &OwnedFd, name: &[u8], place: &Place, replace: Replace) -> Result<(), Errno> {
    let new = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let Some(old) = place.stat()? else {
        return rename_new(dir, name, place);
    };
    let same_kind = is_directory(&new) == is_directory(&old);
    match replace {
        Replace::Never => return Err(Errno::EXIST),
        Replace::SameKind if !same_kind => {
            return Err(if is_directory(&old) {
                Errno::ISDIR
            } else {
                Errno::NOTDIR
            });
        }
        Replace::SameKind | Replace::Any => {}
    }
    if same_kind && !is_directory(&old) {
        return renameat(dir, name, &place.dir, &place.name);
    }
    // Directories do not replace each other in one step: swap, then remove what was there.
    match renameat_with(dir, name, &place.dir, &place.name, RenameFlags::EXCHANGE) {
        Ok(()) => {
            let dir = dir.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
            remove(
                &Place {
                    dir,
                    name: name.to_vec(),
                },
                &Wanted::default(),
            )
        }
        Err(Errno::INVAL | Errno::NOSYS) => {
            remove(place, &Wanted::default())?;
            rename_new(dir, name, place)
        }
        Err(error) => Err(error),
    }
}

/// Remove what bears the name, with all that is below it, but nothing of another file system that
/// is mounted there.
pub fn remove(place: &Place, wanted: &Wanted) -> Result<(), Errno> {
    let stat = place.stat()?.ok_or(Errno::NOENT)?;
    if !is_directory(&stat) {
        return unlinkat(&place.dir, &place.name, AtFlags::empty());
    }
    let top = enter(place.dir.as_fd(), &place.name)?;
    for _ in 0..PASSES {
        empty(&top, wanted)?;
        match unlinkat(&place.dir, &place.name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            other => return other,
        }
    }
    Err(Errno::NOTEMPTY)
}

/// Remove what is in a directory. Directories that are too deep to go down to, or that did not stay
/// empty, end up in the directory itself.
fn empty(top: &OwnedFd, wanted: &Wanted) -> Result<(), Errno> {
    struct Level {
        /// The name in the level above.
        name: Vec<u8>,
        dir: Option<OwnedFd>,
        left: Vec<Vec<u8>>,
    }
    let mut levels = vec![Level {
        name: Vec::new(),
        dir: None,
        left: names(top, NAMES)?.0,
    }];
    while let Some(level) = levels.last_mut() {
        if wanted.gone() {
            return Err(Errno::CANCELED);
        }
        let next = level.left.pop();
        let dir = level.dir.as_ref().unwrap_or(top);
        let Some(name) = next else {
            let done = levels.pop().expect("the loop is at a level");
            let Some(above) = levels.last() else { break };
            let above = above.dir.as_ref().unwrap_or(top);
            match unlinkat(above, &done.name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => raise(above, &done.name, top)?,
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
            continue;
        };
        match unlinkat(dir, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR) => {}
            Err(Errno::PERM) => {
                // Some file systems say so of a directory.
                if !is_directory(&statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?) {
                    return Err(Errno::PERM);
                }
            }
            Err(error) => return Err(error),
        }
        let inside = match enter(dir.as_fd(), &name) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if levels.len() > REMOVE_DEPTH {
            let dir = levels
                .last()
                .and_then(|level| level.dir.as_ref())
                .unwrap_or(top);
            raise(dir, &name, top)?;
            continue;
        }
        let left = names(&inside, NAMES)?.0;
        levels.push(Level {
            name,
            dir: Some(inside),
            left,
        });
    }
    Ok(())
}

/// Bring a directory up to the top of what is being removed.
fn raise(from: &OwnedFd, name: &[u8], top: &OwnedFd) -> Result<(), Errno> {
    match renameat(from, name, top, hidden_name()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Open a directory by name, without following a link and without crossing into a mount.
fn enter(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    openat2(dir, name, flags, Mode::empty(), within)
}

/// Move what bears one name to another place. The caller has seen to it that neither is within the
/// other.
pub fn relocate(
    from: &Place,
    path: &FilePath,
    to: &Place,
    replace: Replace,
    wanted: &Wanted,
) -> Result<(), Fault> {
    let own = from
        .stat()
        .and_then(|stat| stat.ok_or(Errno::NOENT))
        .map_err(failed("move", path))?;
    let old = to.stat().map_err(failed("move", path))?;
    if old.is_some_and(|old| (old.st_dev, old.st_ino) == (own.st_dev, own.st_ino))
        && replace != Replace::Never
    {
        // Two names of one file: rename(2) would keep both.
        return unlinkat(&from.dir, &from.name, AtFlags::empty()).map_err(failed("move", path));
    }
    match put_in_place(&from.dir, &from.name, to, replace) {
        Err(Errno::XDEV) => Copy {
            owner: None,
            recursive: true,
            replace,
            wanted,
        }
        .carry(from, path, to),
        other => other.map_err(failed("move", path)),
    }
}

/// How to copy.
#[derive(Debug)]
pub struct Copy<'a> {
    /// Whose the copies are; none keeps owner, attributes and special files, as a move does.
    pub owner: Option<Owner>,
    /// Copy what is in a directory too.
    pub recursive: bool,
    pub replace: Replace,
    pub wanted: &'a Wanted,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
    /// Devices, sockets and FIFOs in a tree, which are not copied.
    pub skipped: u64,
}

impl Copy<'_> {
    /// Copy a file or a directory to a place, which it takes when it is complete.
    pub fn run(&self, from: &Jailed, path: &FilePath, to: &Place) -> Result<Copied, Fault> {
        if self.owner == Some(Owner::Directory) {
            // Of the place, for all of the tree: directories in it change hands when they are done.
            let owner = owner_of(to.dir.as_fd()).map_err(failed("write", path))?;
            if owner != Owner::Directory {
                return Copy {
                    owner: Some(owner),
                    ..*self
                }
                .run(from, path, to);
            }
        }
        let mut copied = Copied::default();
        match from.kind() {
            FileType::RegularFile => {
                let file = from.open(OFlags::RDONLY).map_err(failed("read", path))?;
                let mut draft = Draft::new(to).map_err(failed("write", path))?;
                self.content(&file, &draft.file, &from.stat, path, &mut copied)?;
                self.finish(draft.file.as_fd(), to.dir.as_fd(), &file, &from.stat)
                    .and_then(|()| draft.settle_as_is(to, self.replace))
                    .map_err(failed("write", path))?;
            }
            FileType::Directory => {
                let source = list(from).map_err(failed("read", path))?;
                let name = hidden_name();
                let made = self.directory(
                    &source,
                    &from.stat,
                    to.dir.as_fd(),
                    &name,
                    path,
                    0,
                    &mut copied,
                );
                let settled = made.and_then(|()| {
                    put_in_place(&to.dir, &name, to, self.replace).map_err(failed("write", path))
                });
                if settled.is_err()
                    && let Ok(dir) = to.dir.as_fd().try_clone_to_owned()
                {
                    let _ = remove(&Place { dir, name }, &Wanted::default());
                }
                settled?;
            }
            _ => return Err(failed("copy", path)(Errno::OPNOTSUPP)),
        }
        Ok(copied)
    }

    /// Take an entry to a place on another file system: copied whole, then removed here.
    fn carry(&self, from: &Place, path: &FilePath, to: &Place) -> Result<(), Fault> {
        let name = hidden_name();
        let made = self.entry(
            &from.dir,
            &from.name,
            &to.dir,
            &name,
            path,
            0,
            &mut Copied::default(),
        );
        let settled = made.and_then(|()| {
            put_in_place(&to.dir, &name, to, self.replace).map_err(failed("write", path))
        });
        if settled.is_err()
            && let Ok(dir) = to.dir.as_fd().try_clone_to_owned()
        {
            let _ = remove(&Place { dir, name }, &Wanted::default());
        }
        settled?;
        remove(from, self.wanted).map_err(failed("remove", path))
    }

    #[allow(clippy::too_many_arguments)] // the two ends of one level
    fn directory(
        &self,
        source: &OwnedFd,
        stat: &Stat,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: &FilePath,
        depth: usize,
        copied: &mut Copied,
    ) -> Result<(), Fault> {
        if depth == COPY_DEPTH {
            return Err(Fault::bad_request(format!(
                "{path} is deeper than {COPY_DEPTH} directories"
            )));
        }
        let write = failed::<Errno>("write", path);
        mkdirat(to, name, Mode::RWXU).map_err(&write)?;
        let target = enter(to, name).map_err(&write)?;
        copied.directories += 1;
        if self.recursive {
            let (entries, more) = names(source, NAMES).map_err(failed("read", path))?;
            if more {
                return Err(Fault::too_large(format!(
                    "{path} holds more than {NAMES} entries"
                )));
            }
            for entry in entries {
                self.wanted.check()?;
                let inside = path.join(&entry);
                self.entry(source, &entry, &target, &entry, &inside, depth + 1, copied)?;
            }
        }
        self.finish(target.as_fd(), to, source, stat)
            .map_err(&write)
    }

    /// Copy one entry of a directory, whatever it is.
    #[allow(clippy::too_many_arguments)] // likewise
    fn entry(
        &self,
        source: &OwnedFd,
        name: &[u8],
        target: &OwnedFd,
        new: &[u8],
        path: &FilePath,
        depth: usize,
        copied: &mut Copied,
    ) -> Result<(), Fault> {
        let write = failed::<Errno>("write", path);
        let stat = match statat(source, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(failed("read", path))?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inside =
                    openat(source, name, flags, Mode::empty()).map_err(failed("read", path))?;
                self.directory(&inside, &stat, target.as_fd(), new, path, depth, copied)
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let from = File::from(
                    openat(source, name, flags, Mode::empty()).map_err(failed("read", path))?,
                );
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let to = File::from(
                    openat(target, new, flags, Mode::RUSR | Mode::WUSR).map_err(&write)?,
                );
                self.content(&from, &to, &stat, path, copied)?;
                self.finish(to.as_fd(), target.as_fd(), &from, &stat)
                    .map_err(&write)
            }
            FileType::Symlink => {
                let points = readlinkat(source, name, Vec::new()).map_err(failed("read", path))?;
                symlinkat(points, target, new).map_err(&write)?;
                copied.files += 1;
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let link = openat(target, new, flags, Mode::empty()).map_err(&write)?;
                let owner = self.owner.unwrap_or(Owner::Ids {
                    user: stat.st_uid,
                    group: stat.st_gid,
                });
                give(link.as_fd(), target.as_fd(), owner).map_err(&write)?;
                let _ = utimensat(target, new, &times(&stat), AtFlags::SYMLINK_NOFOLLOW);
                Ok(())
            }
            kind @ (FileType::Fifo
            | FileType::Socket
            | FileType::BlockDevice
            | FileType::CharacterDevice)
                if self.owner.is_none() =>
            {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                mknodat(target, new, kind, mode, stat.st_rdev).map_err(&write)?;
                let owner = Owner::Ids {
                    user: stat.st_uid,
                    group: stat.st_gid,
                };
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(target, new, flags, Mode::empty()).map_err(&write)?;
                give(made.as_fd(), target.as_fd(), owner).map_err(&write)
            }
            _ => {
                copied.skipped += 1;
                Ok(())
            }
        }
    }

    /// Copy the bytes of a file, holes staying holes.
    fn content(
        &self,
        from: &File,
        to: &File,
        stat: &Stat,
        path: &FilePath,
        copied: &mut Copied,
    ) -> Result<(), Fault> {
        let len = size(stat);
        copied.files += 1;
        copied.bytes += len;
        if len > 0 && ioctl_ficlone(to, from).is_ok() {
            return Ok(());
        }
        let mut at = 0;
        loop {
            let data = match seek(from, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(Errno::NXIO) => break, // a hole up to the end
                Err(_) => at,
            };
            let end = seek(from, SeekFrom::Hole(data)).unwrap_or(u64::MAX);
            let reached = self.span(from, to, data, end, path)?;
            if reached < end || end == u64::MAX {
                at = reached;
                break;
            }
            at = end;
        }
        let len = fstat(from).map_or(len, |stat| size(&stat)).max(at);
        ftruncate(to, len).map_err(failed("write", path))
    }

    /// Copy the bytes from `at` to before `end` or the end of the file; says how far it came.
    fn span(
        &self,
        from: &File,
        to: &File,
        mut at: u64,
        end: u64,
        path: &FilePath,
    ) -> Result<u64, Fault> {
        let mut by_kernel = true;
        let mut buffer = Vec::new();
        while at < end {
            self.wanted.check()?;
            let want = usize::try_from(end - at)
                .unwrap_or(COPY_STEP)
                .min(COPY_STEP);
            if by_kernel {
                let (mut source, mut target) = (at, at);
                match copy_file_range(from, Some(&mut source), to, Some(&mut target), want) {
                    Ok(0) => by_kernel = false, // the end, or a file the kernel makes up: read to know
                    Ok(_) => at = source,
                    Err(Errno::INTR) => {}
                    Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO) => {
                        by_kernel = false; // said again, and rightly, by the write
                    }
                    Err(_) => by_kernel = false,
                }
                continue;
            }
            buffer.resize(BUFFER, 0);
            let part = &mut buffer[..want.min(BUFFER)];
            let read = match from.read_at(part, at) {
                Ok(0) => return Ok(at),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.map_err(failed("read", path))?,
            };
            to.write_all_at(&part[..read], at)
                .map_err(failed("write", path))?;
            at += read as u64;
        }
        Ok(at)
    }

    /// Owner, mode and times of a copy.
    fn finish(
        &self,
        new: BorrowedFd<'_>,
        dir: BorrowedFd<'_>,
        from: impl AsFd,
        stat: &Stat,
    ) -> Result<(), Errno> {
        let owner = self.owner.unwrap_or(Owner::Ids {
            user: stat.st_uid,
            group: stat.st_gid,
        });
        give(new, dir, owner)?;
        // A copy has its own owner: what ran as the old one must not run as the new one.
        let kept = if self.owner.is_none() { 0o7777 } else { 0o1777 };
        fchmod(new, Mode::from_raw_mode(stat.st_mode & kept))?;
        if self.owner.is_none() {
            copy_attributes(from, new);
        } else {
            property::copy(from, new);
        }
        let _ = futimens(new, &times(stat));
        Ok(())
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanos| Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    Timestamps {
        last_access: time(
            stat.st_atime,
            i64::try_from(stat.st_atime_nsec).unwrap_or(0),
        ),
        last_modification: time(
            stat.st_mtime,
            i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
    }
}
