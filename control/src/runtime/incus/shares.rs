//! What machines see of one another's disks.
//!
//! Every machine has a directory of the host's at `/hoody/shares`, which no user of the machine is
//! the owner of. It is bound into the machine as a *slave* (mount_namespaces(7)): what the host
//! mounts there and takes off there, on or off, comes and goes in the machine. So nothing is done
//! inside of machines, and all that is remembered are the host's own mounts.
//!
//! A mount that comes over into another user namespace is locked by the kernel in what it is:
//! root in the machine cannot make one writable that came read-only, neither where it is, nor a copy
//! of it, nor in a namespace below. (One that the engine puts into a running machine by itself is
//! not locked, and can.)
//!
//! Each is the source's directory itself, taken by its descriptor, so that nothing can be put in
//! its place between the look and the mount; ids of the disk are those of the target's users
//! (mount_setattr(2): `MOUNT_ATTR_IDMAP`).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use routes::Id;
use routes::table::Owners;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::super::{NoDirectory, Share, Shares, Unshared};
use super::{IDS, PREFIX, is_mounted};

/// What the directories of all machines take, which hold directories alone: a page for each of a
/// few thousand.
const BYTES: &str = "16m";
const INODES: &str = "16384";
/// Where the programs of the host are, whatever the environment says.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";
/// Of a mount's attributes (mount_setattr(2)).
const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const IDMAP: u64 = 0x10_0000;

/// What machines see of one another.
pub struct Views {
    /// The directories of all machines; a tmpfs whose mounts propagate.
    root: PathBuf,
    /// Where the engine has the disks of machines.
    disks: PathBuf,
    /// What a machine's disk is called, before its id.
    prefix: String,
    /// One at a time: they look and then do.
    turn: Mutex<()>,
}

/// A machine, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// The host's ids of its users.
    pub owners: Owners,
    /// What user 0 is called on its disk.
    pub disk_base: u32,
    /// Whether it sees what is mounted in its directory.
    pub sees: bool,
}

/// A mount in the directory of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    target: Id,
    name: String,
    /// What is mounted, from the top of its file system.
    root: PathBuf,
    writable: bool,
}

impl Views {
    pub fn new(root: PathBuf, disks: PathBuf, name: &str) -> Views {
        Views {
            root,
            disks,
            prefix: format!("{name}_{PREFIX}"),
            turn: Mutex::default(),
        }
    }

    /// The directory of a machine's.
    pub fn directory(&self, id: Id) -> PathBuf {
        self.root.join(id.to_string())
    }

    fn disk(&self, id: Id) -> PathBuf {
        self.disks.join(format!("{}{id}", self.prefix))
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
        self.turn
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Have a directory for a machine, before it is made and before it starts.
    pub fn admit(&self, id: Id) -> Result<(), Errno> {
        let _turn = self.turn();
        self.prepare()?;
        make_directory(&self.directory(id))
    }

    /// The tmpfs that mounts propagate from.
    fn prepare(&self) -> Result<(), Errno> {
        make_directory(&self.root)?;
        if is_mounted(&self.root)? {
            return Ok(());
        }
        let options = format!("size={BYTES},nr_inodes={INODES},mode=755");
        let options = std::ffi::CString::new(options).expect("no zero byte in it");
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("tmpfs", &self.root, "tmpfs", flags, options.as_c_str())?;
        rustix::mount::mount_change(&self.root, MountPropagationFlags::SHARED)
    }

    /// Whether a directory of a machine's can be shared.
    pub fn look(&self, id: Id, path: &str) -> Result<(), NoDirectory> {
        self.open(id, path).map(drop)
    }

    /// A directory on a machine's disk, wherever its programs move it meanwhile.
    fn open(&self, id: Id, path: &str) -> Result<OwnedFd, NoDirectory> {
        let host = |error: Errno| NoDirectory::Host(format!("{path}: {error}"));
        let disk = self.disk(id).join("rootfs");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let disk = match rustix::fs::open(&disk, flags, Mode::empty()) {
            Ok(disk) => disk,
            Err(Errno::NOENT) => return Err(NoDirectory::NotMade(id)),
            Err(error) => return Err(host(error)),
        };
        let below = path.trim_start_matches('/');
        let below = if below.is_empty() { "." } else { below };
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        match rustix::fs::openat2(&disk, below, flags, Mode::empty(), resolve) {
            Ok(directory) => Ok(directory),
            Err(Errno::NOENT) => Err(NoDirectory::Missing(path.to_owned())),
            // A link is no directory either; the look behind tells them apart.
            Err(Errno::LOOP) => Err(NoDirectory::Link(path.to_owned())),
            Err(Errno::NOTDIR) => Err(match is_link(disk.as_fd(), below) {
                true => NoDirectory::Link(path.to_owned()),
                false => NoDirectory::NotOne(path.to_owned()),
            }),
            Err(error) => Err(host(error)),
        }
    }

    /// Have machines see exactly these; which they do not see, and why.
    pub fn settle(
        &self,
        wanted: &Shares,
        seats: &BTreeMap<Id, Seat>,
    ) -> Result<Vec<Unshared>, Errno> {
        let _turn = self.turn();
        if wanted.is_empty() && !self.root.exists() {
            return Ok(Vec::new());
        }
        self.prepare()?;
        let mut there: BTreeMap<(Id, String), Vec<Mounted>> = BTreeMap::new();
        for mounted in self.mounts()? {
            let key = (mounted.target, mounted.name.clone());
            there.entry(key).or_default().push(mounted);
        }
        let is_wanted = |target: &Id, name: &str| {
            wanted
                .get(target)
                .is_some_and(|seen| seen.contains_key(name))
        };
        // What is not wanted goes first: it makes no difference to the rest, and must not wait.
        let over: Vec<_> = there
            .keys()
            .filter(|(target, name)| !is_wanted(target, name))
            .cloned()
            .collect();
        for (target, name) in over {
            self.take_off(target, &name)?;
            there.remove(&(target, name));
        }
        self.tidy(&is_wanted)?;
        let mut unshared = Vec::new();
        let mut ids = Maps::default();
        for (target, seen) in wanted {
            for (name, share) in seen {
                let has = there.remove(&(*target, name.clone())).unwrap_or_default();
                if let Err(why) = self.see(*target, name, share, seats, &has, &mut ids) {
                    unshared.push(Unshared {
                        share: share.id,
                        target: *target,
                        why,
                    });
                }
            }
        }
        Ok(unshared)
    }

    /// Have one machine see one share, where it `has` these at its place.
    fn see(
        &self,
        target: Id,
        name: &str,
        share: &Share,
        seats: &BTreeMap<Id, Seat>,
        has: &[Mounted],
        ids: &mut Maps,
    ) -> Result<(), NoDirectory> {
        let seat = |id: Id| seats.get(&id).ok_or(NoDirectory::NotMade(id));
        let host = |error: Errno| NoDirectory::Host(format!("{}: {error}", share.path));
        let away = || match has.is_empty() {
            true => Ok(()),
            false => self.take_off(target, name).map_err(host),
        };
        let found = seat(share.source).and_then(|source| {
            let viewer = seat(target)?;
            Ok((source, viewer, self.open(share.source, &share.path)?))
        });
        let (source, viewer, directory) = match found {
            Ok(found) => found,
            Err(why) => {
                away()?;
                return Err(why);
            }
        };
        if !self.is_so(target, name, share, (source, viewer), &directory, has) {
            away()?;
            let map = (source.disk_base, viewer.owners.base);
            let tree = tree(&directory, share.writable, ids.of(map).map_err(host)?);
            let tree = tree.map_err(host)?;
            make_directory(&self.directory(target)).map_err(host)?;
            let at = self.directory(target).join(name);
            make_directory(&at).map_err(host)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(&tree, "", CWD, &at, flags).map_err(host)?;
        }
        match viewer.sees {
            true => Ok(()),
            false => Err(NoDirectory::NextStart(target)),
        }
    }

    /// Whether what is mounted is this directory, as it is now, and as it should be.
    fn is_so(
        &self,
        target: Id,
        name: &str,
        share: &Share,
        (source, viewer): (&Seat, &Seat),
        directory: &OwnedFd,
        has: &[Mounted],
    ) -> bool {
        let [mounted] = has else { return false };
        let at = self.directory(target).join(name);
        let (Ok(seen), Ok(wanted)) = (rustix::fs::stat(&at), stat_of(directory)) else {
            return false;
        };
        // Its owner by the host's ids tells whose users the ids of the disk stand for.
        let owner = wanted
            .st_uid
            .checked_sub(source.disk_base)
            .filter(|id| *id < IDS)
            .map(|id| viewer.owners.base + id);
        mounted.writable == share.writable
            && (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino)
            && owner.is_none_or(|owner| owner == seen.st_uid)
    }

    /// Take all off that is mounted under a name, and the name away. Who has a file open keeps it.
    fn take_off(&self, target: Id, name: &str) -> Result<(), Errno> {
        let at = self.directory(target).join(name);
        // Each turn takes the uppermost; a crash may have left several.
        loop {
            match rustix::mount::unmount(&at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::INVAL | Errno::NOENT) => break, // none is left
                Err(error) => return Err(error),
            }
        }
        remove_directory(&at)
    }

    /// Names that nothing is mounted under any more, and directories of machines that are gone.
    fn tidy(&self, is_wanted: &dyn Fn(&Id, &str) -> bool) -> Result<(), Errno> {
        for (id, directory) in self.directories()? {
            for entry in std::fs::read_dir(&directory)
                .map_err(errno)?
                .map_while(Result::ok)
            {
                let name = entry.file_name();
                if name.to_str().is_none_or(|name| !is_wanted(&id, name)) {
                    remove_directory(&entry.path())?;
                }
            }
        }
        Ok(())
    }

    fn directories(&self) -> Result<Vec<(Id, PathBuf)>, Errno> {
        let listed = match std::fs::read_dir(&self.root) {
            Ok(listed) => listed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(errno(error)),
        };
        let known = |entry: std::fs::DirEntry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            Some((id, entry.path()))
        };
        Ok(listed.map_while(Result::ok).filter_map(known).collect())
    }

    /// A machine goes, or its disk is about to be replaced: nobody sees it any more. Where it is
    /// `gone`, nor does it see anybody.
    pub fn forget(&self, id: Id, gone: bool) -> Result<(), Errno> {
        let _turn = self.turn();
        let name = format!("{}{id}", self.prefix);
        for mounted in self.mounts()? {
            let is_of = mounted.root.components().any(|part| {
                let part = part.as_os_str().as_bytes();
                // The engine calls a disk so that it is about to remove.
                part.strip_prefix(name.as_bytes())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
            });
            if is_of || (gone && mounted.target == id) {
                self.take_off(mounted.target, &mounted.name)?;
            }
        }
        if !gone {
            return Ok(());
        }
        let directory = self.directory(id);
        if let Ok(listed) = std::fs::read_dir(&directory) {
            for entry in listed.map_while(Result::ok) {
                remove_directory(&entry.path())?;
            }
        }
        remove_directory(&directory)
    }

    /// What is mounted in the directories of machines.
    fn mounts(&self) -> Result<Vec<Mounted>, Errno> {
        let text = std::fs::read("/proc/self/mountinfo").map_err(errno)?;
        Ok(text
            .split(|byte| *byte == b'\n')
            .filter_map(|line| mounted(line, &self.root))
            .collect())
    }
}

/// What a line of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)) says, where it is of a machine's
/// directory.
fn mounted(line: &[u8], root: &Path) -> Option<Mounted> {
    let mut words = line.split(|byte| *byte == b' ').skip(3);
    let (from, at, options) = (words.next()?, words.next()?, words.next()?);
    let at = unescaped(at);
    let below = at.strip_prefix(root).ok()?;
    let mut parts = below.components();
    let target = parts.next()?.as_os_str().to_str()?.parse().ok()?;
    let name = parts.next()?.as_os_str().to_str()?.to_owned();
    if parts.next().is_some() {
        return None;
    }
    Some(Mounted {
        target,
        name,
        root: unescaped(from),
        writable: !options
            .split(|byte| *byte == b',')
            .any(|option| option == b"ro"),
    })
}

/// Blanks and the like are written as three octal digits behind `\`.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = (byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match digits {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&out))
}

/// Whether the last part of a path is a link.
fn is_link(disk: BorrowedFd<'_>, below: &str) -> bool {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(disk, below, flags, Mode::empty(), resolve)
        .and_then(|found| stat_of(&found))
        .is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Symlink
        })
}

fn stat_of(found: &OwnedFd) -> Result<Stat, Errno> {
    rustix::fs::statat(found, "", AtFlags::EMPTY_PATH)
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn make_directory(path: &Path) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_directory(path: &Path) -> Result<(), Errno> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// User namespaces that say which user of a machine an id of a disk stands for; made once for all
/// mounts of one look.
#[derive(Default)]
struct Maps(HashMap<(u32, u32), OwnedFd>);

impl Maps {
    fn of(&mut self, (disk, owners): (u32, u32)) -> Result<&OwnedFd, Errno> {
        use std::collections::hash_map::Entry;
        match self.0.entry((disk, owners)) {
            Entry::Occupied(made) => Ok(made.into_mut()),
            Entry::Vacant(place) => {
                let made = namespace(disk, owners).map_err(errno)?;
                Ok(place.insert(made))
            }
        }
    }
}

/// A user namespace with this map. Only a process of one thread enters a new one, so that a
/// program does, and stays until we have hold of its namespace.
fn namespace(disk: u32, owners: u32) -> std::io::Result<OwnedFd> {
    let mut inside = Command::new("unshare")
        .args(["--user", "cat"])
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut made = || {
        // It repeats what it reads once it is inside.
        let mut echo = [0];
        let (input, output) = (inside.stdin.as_mut(), inside.stdout.as_mut());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(std::io::Error::other("it has no pipes"));
        };
        input.write_all(b".")?;
        output.read_exact(&mut echo)?;
        let process = PathBuf::from(format!("/proc/{}", inside.id()));
        for map in ["uid_map", "gid_map"] {
            std::fs::write(process.join(map), format!("{disk} {owners} {IDS}"))?;
        }
        Ok(std::fs::File::open(process.join("ns/user"))?.into())
    };
    let made = made();
    drop(inside.stdin.take()); // its end
    inside.wait()?;
    made
}

/// A mount of a directory, not yet anywhere. It has no part in what else is mounted on its disk.
fn tree(directory: &OwnedFd, writable: bool, namespace: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(directory, "", flags)?;
    let mut set = NOSUID | NODEV | IDMAP;
    if !writable {
        set |= RDONLY;
    }
    set_attributes(&tree, set, namespace)?;
    Ok(tree)
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    namespace: u64,
}

#[allow(unsafe_code)] // no crate has a safe call of mount_setattr(2), and nothing else sets a map
fn set_attributes(tree: &OwnedFd, set: u64, namespace: &OwnedFd) -> Result<(), Errno> {
    let attributes = Attributes {
        set,
        clear: 0,
        propagation: u64::from(MountPropagationFlags::PRIVATE.bits()),
        namespace: u64::try_from(namespace.as_raw_fd()).map_err(|_| Errno::BADF)?,
    };
    // SAFETY: the descriptor and the strings live for the call, which writes nothing; the size is
    // that of the struct.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(errno(std::io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mounts_are_read() {
        let root = Path::new("/var/lib/hoody/shares");
        let id: Id = "0123456789abcdef01234567".parse().unwrap();
        let line = |at: &str, options: &str| {
            format!(
                "89 157 0:41 /containers/hoody_c-x/rootfs/srv/a\\040b {at} {options} shared:1 - btrfs /dev/loop0 rw"
            )
        };
        let at = format!("/var/lib/hoody/shares/{id}/data");
        let found = mounted(line(&at, "ro,nosuid").as_bytes(), root).unwrap();
        assert_eq!(
            found,
            Mounted {
                target: id,
                name: "data".to_owned(),
                root: "/containers/hoody_c-x/rootfs/srv/a b".into(),
                writable: false,
            }
        );
        assert!(
            mounted(line(&at, "rw,noatime").as_bytes(), root)
                .unwrap()
                .writable
        );
        for at in [
            "/var/lib/hoody/shares".to_owned(),
            format!("/var/lib/hoody/shares/{id}"),
            format!("/var/lib/hoody/shares/{id}/a/b"),
            format!("/var/lib/hoody/shares2/{id}/a"),
            "/var/lib/hoody/shares/notes/a".to_owned(),
        ] {
            assert_eq!(mounted(line(&at, "rw").as_bytes(), root), None, "{at}");
        }
        assert_eq!(mounted(b"", root), None);
        assert_eq!(unescaped(b"a\\134b\\0"), Path::new("a\\b\\0"));
    }
}
