//! What is known about a file or directory without reading it.

use std::time::{Duration, SystemTime};

use kit::Fault;
use rustix::fs::{FileType, Stat, readlinkat};
use schemars::JsonSchema;
use serde::Serialize;

use crate::Files;
use crate::fault::failed;
use crate::jail::{Jailed, Links};
use crate::path::{FilePath, encode};
use crate::users;

/// What an entry is. A link is named for what it leads to; one that leads nowhere is a
/// `SymlinkFile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum PathType {
    File,
    Dir,
    SymlinkFile,
    SymlinkDir,
}

/// What cannot be read or written through this service, only listed, moved and removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Special {
    Fifo,
    Socket,
    Block,
    Char,
}

/// One entry of a listing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PathItem {
    pub path_type: PathType,
    /// Name, or for a search the path below the directory that was searched.
    pub name: String,
    /// The name percent-encoded, where it is no UTF-8 and `name` is therefore not exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoded_name: Option<String>,
    /// Time of the last change of the content, in milliseconds since 1970.
    pub mtime: u64,
    /// Size in bytes; 0 for a directory.
    pub size: u64,
    /// Revisions kept of it; null where none are.
    pub revisions: Option<u64>,
    /// What it is, where it is neither file nor directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub special: Option<Special>,
}

/// Everything about one path.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FileStat {
    pub name: String,
    /// The absolute path.
    pub path: String,
    pub path_type: PathType,
    /// Size in bytes; 0 for a directory.
    pub size: u64,
    /// Time of the last change of the content, in milliseconds since 1970.
    pub mtime: u64,
    /// Permission bits in octal: `644`.
    pub permissions: String,
    /// Name of the owner, or its number where it has none.
    pub owner: String,
    /// Name of the group, or its number where it has none.
    pub group: String,
    pub is_symlink: bool,
    /// What a link says; null where it is none.
    pub symlink_target: Option<String>,
    /// Revisions kept of it; null where none are.
    pub revisions: Option<u64>,
    /// What it is, where it is neither file nor directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub special: Option<Special>,
}

impl PathItem {
    /// The entry with this name and `lstat`; `target` is what a link leads to.
    pub fn new(name: &[u8], own: &Stat, target: Option<&Stat>) -> PathItem {
        let stat = target.unwrap_or(own);
        let text = String::from_utf8_lossy(name).into_owned();
        PathItem {
            path_type: path_type(own, target),
            encoded_name: (text.as_bytes() != name).then(|| encode(name)),
            name: text,
            mtime: millis(stat),
            size: size(stat),
            revisions: None,
            special: special(stat),
        }
    }

    pub fn is_directory(&self) -> bool {
        matches!(self.path_type, PathType::Dir | PathType::SymlinkDir)
    }
}

impl FileStat {
    /// Ask about one path. A link is described by what it leads to, and by itself where that is
    /// nothing.
    pub fn of(files: &Files, path: &FilePath) -> Result<FileStat, Fault> {
        let own = files
            .root
            .find(path, Links::Keep)
            .map_err(failed("read", path))?;
        let is_symlink = own.kind() == FileType::Symlink;
        let target = if is_symlink {
            files.root.find(path, Links::Follow).ok()
        } else {
            None
        };
        let symlink_target = is_symlink
            .then(|| readlinkat(&own, c"", Vec::new()).ok())
            .flatten()
            .map(|target| target.to_string_lossy().into_owned());
        let stat = target
            .as_ref()
            .map_or(&own.stat, |target: &Jailed| &target.stat);
        Ok(FileStat {
            name: if path.is_root() {
                "/".to_owned()
            } else {
                lossy(path.name())
            },
            path: path.to_string(),
            path_type: path_type(&own.stat, target.as_ref().map(|target| &target.stat)),
            size: size(stat),
            mtime: millis(stat),
            permissions: permissions(stat),
            owner: users::user_name(&files.root, stat.st_uid),
            group: users::group_name(&files.root, stat.st_gid),
            is_symlink,
            symlink_target,
            revisions: None,
            special: special(stat),
        })
    }
}

/// Permission bits in octal, three digits or four.
pub fn permissions(stat: &Stat) -> String {
    format!("{:03o}", stat.st_mode & 0o7777)
}

pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Size in bytes; 0 for what is no regular file.
pub fn size(stat: &Stat) -> u64 {
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        u64::try_from(stat.st_size).unwrap_or(0)
    } else {
        0
    }
}

/// Time of the last change; 1970 for anything earlier.
pub fn modified(stat: &Stat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
}

pub fn millis(stat: &Stat) -> u64 {
    let since = modified(stat)
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn path_type(own: &Stat, target: Option<&Stat>) -> PathType {
    match (FileType::from_raw_mode(own.st_mode), target) {
        (FileType::Symlink, Some(target)) if is_directory(target) => PathType::SymlinkDir,
        (FileType::Symlink, _) => PathType::SymlinkFile,
        (FileType::Directory, _) => PathType::Dir,
        _ => PathType::File,
    }
}

fn special(stat: &Stat) -> Option<Special> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => Some(Special::Fifo),
        FileType::Socket => Some(Special::Socket),
        FileType::BlockDevice => Some(Special::Block),
        FileType::CharacterDevice => Some(Special::Char),
        _ => None,
    }
}
