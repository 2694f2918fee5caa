//! Going through a tree, within bounds.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstatfs, openat, statat};

use crate::jail::Jailed;
use crate::listing::names;
use crate::work::Wanted;

/// Largest `.gitignore` that is read.
const IGNORE_BYTES: u64 = 1 << 20;
/// Entries between two looks at the clock.
const CLOCK: usize = 64;

/// File systems in which the kernel shows itself. A search that comes upon one stays out.
const KERNEL: [u64; 11] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0x1373,      // devfs
    0x1cd1,      // devpts
];

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub depth: usize,
    /// Entries that are looked at.
    pub entries: usize,
    pub time: Duration,
    /// Leave out what `.gitignore` files name, and `.git` itself.
    pub ignore: bool,
}

/// An entry on the way.
pub struct Entry<'a> {
    pub dir: &'a OwnedFd,
    pub name: &'a [u8],
    /// Path below the directory the walk began in.
    pub path: &'a [u8],
    pub stat: &'a Stat,
}

impl Entry<'_> {
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
    pub fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }
    /// Hold the entry itself; a link that took its place since is not followed.
    pub fn hold(&self) -> Option<Jailed> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Jailed::new(openat(self.dir, self.name, flags, Mode::empty()).ok()?).ok()
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    Stop,
}

/// How far it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub entries: usize,
    /// A bound, or the visitor, ended it early.
    pub stopped: bool,
    /// A directory was not entered because it lies as deep as asked for.
    pub deep: bool,
}

struct Level {
    dir: OwnedFd,
    /// Path below the start, with a slash at its end unless it is the start itself.
    prefix: Vec<u8>,
    /// Names still to be visited, the next one last.
    left: Vec<Vec<u8>>,
    ignore: Option<Gitignore>,
    device: u64,
}

/// Visit what is below a directory, a directory before what is in it, names in order. Links are
/// visited and not followed.
pub fn walk(
    start: OwnedFd,
    bounds: Bounds,
    wanted: &Wanted,
    mut visit: impl FnMut(&Entry<'_>) -> Flow,
) -> Seen {
    let until = Instant::now() + bounds.time;
    let mut seen = Seen::default();
    let device = rustix::fs::fstat(&start).map_or(0, |stat| stat.st_dev);
    let mut levels = vec![Level::new(
        start,
        Vec::new(),
        device,
        bounds,
        bounds.entries,
        &mut seen,
    )];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.left.pop() else {
            levels.pop();
            continue;
        };
        if seen.entries == bounds.entries
            || seen.entries.is_multiple_of(CLOCK) && (wanted.gone() || Instant::now() > until)
        {
            seen.stopped = true;
            break;
        }
        seen.entries += 1;
        let level = levels.last().expect("the loop is at a level");
        let Ok(stat) = statat(&level.dir, &name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let path = [level.prefix.as_slice(), &name].concat();
        let entry = Entry {
            dir: &level.dir,
            name: &name,
            path: &path,
            stat: &stat,
        };
        if bounds.ignore && (name == b".git" || ignored(&levels, &path, entry.is_directory())) {
            continue;
        }
        if visit(&entry) == Flow::Stop {
            seen.stopped = true;
            break;
        }
        if !entry.is_directory() {
            continue;
        }
        if levels.len() >= bounds.depth {
            seen.deep = true;
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(inside) = openat(&level.dir, &name, flags, Mode::empty()) else {
            continue;
        };
        if stat.st_dev != level.device && is_kernel(&inside) {
            continue;
        }
        let prefix = [path.as_slice(), b"/"].concat();
        // Names that no longer count are not even read.
        let pending: usize = levels.iter().map(|level| level.left.len()).sum();
        let room = bounds.entries.saturating_sub(seen.entries + pending);
        levels.push(Level::new(
            inside,
            prefix,
            stat.st_dev,
            bounds,
            room,
            &mut seen,
        ));
    }
    seen
}

impl Level {
    fn new(
        dir: OwnedFd,
        prefix: Vec<u8>,
        device: u64,
        bounds: Bounds,
        room: usize,
        seen: &mut Seen,
    ) -> Level {
        let (mut left, more) = names(&dir, room).unwrap_or_default();
        seen.stopped |= more;
        left.sort_unstable_by(|a, b| b.cmp(a));
        let ignore = if bounds.ignore && left.iter().any(|name| name == b".gitignore") {
            read_ignore(&dir)
        } else {
            None
        };
        Level {
            dir,
            prefix,
            left,
            ignore,
            device,
        }
    }
}

/// Whether a `.gitignore` here or above names the path; the nearest that says anything decides.
fn ignored(levels: &[Level], path: &[u8], is_directory: bool) -> bool {
    use std::os::unix::ffi::OsStrExt;
    for level in levels.iter().rev() {
        let Some(ignore) = &level.ignore else {
            continue;
        };
        let below = std::ffi::OsStr::from_bytes(&path[level.prefix.len()..]);
        match ignore.matched(below, is_directory) {
            ignore::Match::Ignore(_) => return true,
            ignore::Match::Whitelist(_) => return false,
            ignore::Match::None => {}
        }
    }
    false
}

fn read_ignore(dir: &OwnedFd) -> Option<Gitignore> {
    use std::io::Read;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = Jailed::new(openat(dir, c".gitignore", flags, Mode::empty()).ok()?).ok()?;
    if found.is_directory() {
        return None;
    }
    let mut bytes = Vec::new();
    found
        .open(OFlags::RDONLY)
        .ok()?
        .take(IGNORE_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    let mut builder = GitignoreBuilder::new("");
    for line in String::from_utf8_lossy(&bytes).lines() {
        let _ = builder.add_line(None, line); // a line that is no pattern ignores nothing
    }
    builder.build().ok()
}

/// Whether this is in a file system in which the kernel shows itself.
pub fn is_kernel(dir: impl AsFd) -> bool {
    fstatfs(dir).is_ok_and(|kind| KERNEL.contains(&(kind.f_type as u64)))
}
