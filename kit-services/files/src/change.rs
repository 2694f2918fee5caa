//! What changes files other than by writing their content.

use std::time::Instant;

use http::{HeaderMap, StatusCode};
use kit::Fault;
use rustix::fs::{FileType, Mode, mkdirat};
use rustix::io::Errno;

use crate::Files;
use crate::dav::lock::{self, Reach};
use crate::draft::Replace;
use crate::entry::lossy;
use crate::fault::failed;
use crate::jail::{DIRECTORY_MODE, Links, Owner, Place, give};
use crate::path::FilePath;
use crate::tree::{self, Copied, Copy};
use crate::users;
use crate::work::Wanted;

/// What owner and group are now, by name.
#[derive(Debug)]
pub struct Owned {
    pub owner: String,
    pub group: String,
}

/// Set the permission bits, given in octal. Says what they are now.
pub fn chmod(files: &Files, path: &FilePath, text: &str) -> Result<String, Fault> {
    let octal =
        (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = if octal {
        u32::from_str_radix(text, 8).ok()
    } else {
        None
    };
    let mode = mode.ok_or_else(|| {
        Fault::bad_request(format!(
            "`{text}` is no mode; write three or four octal digits, such as 644 or 0755"
        ))
    })?;
    let found = files
        .root
        .find(path, Links::Follow)
        .map_err(failed("change", path))?;
    found
        .chmod(Mode::from_raw_mode(mode))
        .map_err(failed("change", path))?;
    Ok(format!("{mode:03o}"))
}

/// Set owner, group or both.
pub fn chown(files: &Files, path: &FilePath, text: &str) -> Result<Owned, Fault> {
    let named = users::parse(&files.root, text)?;
    let found = files
        .root
        .find(path, Links::Follow)
        .map_err(failed("change", path))?;
    found
        .chown(named.user, named.group)
        .map_err(failed("change", path))?;
    Ok(Owned {
        owner: users::user_name(&files.root, named.user.unwrap_or(found.stat.st_uid)),
        group: users::group_name(&files.root, named.group.unwrap_or(found.stat.st_gid)),
    })
}

/// Make a directory, and those above it where they are missing. Says whether it is new.
pub fn make_directory(files: &Files, path: &FilePath, owner: Owner) -> Result<bool, Fault> {
    match files.root.find(path, Links::Follow) {
        Ok(found) if found.is_directory() => return Ok(false),
        Ok(_) => return Err(failed("make", path)(Errno::EXIST)),
        Err(_) => {} // said again, where it is more than missing
    }
    files
        .root
        .directory(path, owner)
        .map_err(failed("make", path))?;
    Ok(true)
}

/// Make one directory whose parent exists (RFC 4918, section 9.3).
pub fn make_collection(files: &Files, path: &FilePath) -> Result<(), Fault> {
    let exists = || {
        Fault::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{path} exists already"),
        )
        .code("EXISTS")
    };
    if path.is_root() {
        return Err(exists());
    }
    let place = files
        .root
        .place(path, Links::Keep)
        .map_err(|error| parent_missing(path, error))?;
    match mkdirat(&place.dir, &place.name, DIRECTORY_MODE) {
        Err(Errno::EXIST) => return Err(exists()),
        other => other.map_err(failed("make", path))?,
    }
    use std::os::fd::AsFd;
    let made = files
        .root
        .find(path, Links::Keep)
        .map_err(failed("make", path))?;
    give(made.as_fd(), place.dir.as_fd(), Owner::Directory).map_err(failed("make", path))
}

/// Remove a file, a link itself, or a directory with all that is in it.
pub fn remove(files: &Files, path: &FilePath, wanted: &Wanted) -> Result<(), Fault> {
    if path.is_root() {
        return Err(Fault::forbidden("the root directory cannot be removed"));
    }
    let place = files
        .root
        .place(path, Links::Keep)
        .map_err(failed("read", path))?;
    tree::remove(&place, wanted).map_err(|error| match error {
        Errno::NOTDIR => failed("read", path)(error),
        _ => failed("remove", path)(error),
    })
}

/// Remove what no lock keeps from this request; its own locks go with it.
pub fn remove_unlocked(
    files: &Files,
    headers: &HeaderMap,
    path: &FilePath,
    wanted: &Wanted,
) -> Result<(), Fault> {
    lock::check(files, headers, path, &[(path, Reach::Tree)])?;
    let at = lock::real(files, path, Links::Keep);
    remove(files, path, wanted)?;
    files.locks.forget(&at, Instant::now());
    Ok(())
}

/// Whether it is anything but a directory.
pub fn is_single(files: &Files, path: &FilePath) -> Result<bool, Fault> {
    let found = files
        .root
        .find(path, Links::Keep)
        .map_err(failed("read", path))?;
    Ok(!found.is_directory())
}

/// From where to where.
#[derive(Debug, Clone)]
pub struct Route {
    pub from: FilePath,
    pub to: FilePath,
    pub replace: Replace,
    /// Whose are directories, and copies, that are new.
    pub owner: Owner,
    /// Make the directories above the destination where they are missing.
    pub parents: bool,
}

impl Route {
    /// Copy where no lock keeps this request from it.
    pub fn copy(
        &self,
        files: &Files,
        headers: &HeaderMap,
        recursive: bool,
        wanted: &Wanted,
    ) -> Result<Copied, Fault> {
        lock::check(files, headers, &self.from, &[(&self.to, Reach::Tree)])?;
        copy(files, self, recursive, wanted)
    }

    /// Move where no lock keeps this request from it. Locks stay behind, which is to say they go.
    pub fn relocate(
        &self,
        files: &Files,
        headers: &HeaderMap,
        wanted: &Wanted,
    ) -> Result<(), Fault> {
        let uses = [(&self.from, Reach::Tree), (&self.to, Reach::Tree)];
        lock::check(files, headers, &self.from, &uses)?;
        let at = lock::real(files, &self.from, Links::Keep);
        relocate(files, self, wanted)?;
        files.locks.forget(&at, Instant::now());
        Ok(())
    }
}

/// Copy a file or a directory; a link at the end of the path stands for what it leads to.
pub fn copy(
    files: &Files,
    route: &Route,
    recursive: bool,
    wanted: &Wanted,
) -> Result<Copied, Fault> {
    let Route { from, to, .. } = route;
    let found = files
        .root
        .find(from, Links::Follow)
        .map_err(failed("read", from))?;
    if !matches!(found.kind(), FileType::RegularFile | FileType::Directory) {
        return Err(failed("copy", from)(Errno::OPNOTSUPP));
    }
    let place = destination(files, route)?;
    apart(files, route, files.root.path_of(&found), &place)?;
    occupied(route, &place)?;
    let copy = Copy {
        owner: Some(route.owner),
        recursive,
        replace: route.replace,
        wanted,
    };
    copy.run(&found, from, &place).map_err(|fault| {
        if fault.status == StatusCode::NOT_FOUND {
            fault
        } else {
            blame(fault, from, to)
        }
    })
}

/// Move a file, a link itself, or a directory.
pub fn relocate(files: &Files, route: &Route, wanted: &Wanted) -> Result<(), Fault> {
    let from = &route.from;
    if from.is_root() {
        return Err(Fault::forbidden("the root directory cannot be moved"));
    }
    let source = files
        .root
        .place(from, Links::Keep)
        .map_err(failed("read", from))?;
    if source.stat().map_err(failed("read", from))?.is_none() {
        return Err(failed("move", from)(Errno::NOENT));
    }
    let place = destination(files, route)?;
    let at = files
        .root
        .path_of(&source.dir)
        .map(|dir| dir.join(&source.name));
    apart(files, route, at, &place)?;
    occupied(route, &place)?;
    tree::relocate(&source, from, &place, route.replace, wanted)
}

/// The path of what gets another name in its directory.
pub fn renamed(path: &FilePath, name: &str) -> Result<FilePath, Fault> {
    if name.is_empty() || name.contains(['/', '\0']) || matches!(name, "." | "..") {
        return Err(Fault::bad_request(
            "`name` must be one name, without a slash",
        ));
    }
    Ok(path.parent().join(name.as_bytes()))
}

fn destination(files: &Files, route: &Route) -> Result<Place, Fault> {
    let to = &route.to;
    match files.root.place(to, Links::Keep) {
        Err(Errno::NOENT) if route.parents => {
            files
                .root
                .directory(&to.parent(), route.owner)
                .map_err(failed("write", to))?;
            files
                .root
                .place(to, Links::Keep)
                .map_err(failed("write", to))
        }
        other => other.map_err(|error| parent_missing(to, error)),
    }
}

/// Neither end may be within the other.
fn apart(files: &Files, route: &Route, from: Option<FilePath>, place: &Place) -> Result<(), Fault> {
    let to = files
        .root
        .path_of(&place.dir)
        .map(|dir| dir.join(&place.name));
    match (from, to) {
        (Some(from), Some(to)) if !from.holds(&to) && !to.holds(&from) => Ok(()),
        (Some(_), Some(_)) => Err(Fault::conflict(format!(
            "{} and {} are the same or within each other",
            route.from, route.to
        ))),
        _ => Err(Fault::conflict(format!(
            "{} or {} was moved meanwhile",
            route.from, route.to
        ))),
    }
}

/// Say early, and in the words of the destination, that something is in the way.
fn occupied(route: &Route, place: &Place) -> Result<(), Fault> {
    let taken = place.stat().map_err(failed("write", &route.to))?.is_some();
    if taken && route.replace == Replace::Never {
        return Err(Fault::conflict(format!("{} exists already", route.to)).code("EXISTS"));
    }
    Ok(())
}

fn parent_missing(path: &FilePath, error: Errno) -> Fault {
    match error {
        Errno::NOENT => Fault::conflict(format!(
            "no directory {} to hold {}",
            path.parent(),
            lossy(path.name())
        ))
        .code("NO_PARENT"),
        other => failed("write", path)(other),
    }
}

/// What fails while something is written fails at the destination.
fn blame(mut fault: Fault, from: &FilePath, to: &FilePath) -> Fault {
    if fault.message.starts_with("could not write") {
        fault.message = format!("copying {from} to {to}: {}", fault.message);
    }
    fault
}
