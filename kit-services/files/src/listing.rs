//! What a directory holds.

use std::cmp::Ordering;

use kit::Fault;
use rustix::fs::{AtFlags, Dir, FileType, statat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Files;
use crate::entry::PathItem;
use crate::fault::failed;
use crate::jail::{Links, list};
use crate::path::FilePath;

/// Most names that are read of one directory.
pub const NAMES: usize = 100_000;
/// Most entries in one reply.
pub const PAGE: usize = 10_000;

/// By what to sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    Name,
    Mtime,
    Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    Asc,
    Desc,
}

/// Which part of a directory, in which order.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub sort: Sort,
    pub order: Order,
    pub offset: usize,
    pub limit: usize,
}

/// The entries of a directory.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DirectoryListing {
    /// The directory as a path of a URL.
    pub href: String,
    /// Always `Index`.
    pub kind: &'static str,
    pub uri_prefix: &'static str,
    pub allow_upload: bool,
    pub allow_delete: bool,
    pub allow_search: bool,
    pub allow_archive: bool,
    pub dir_exists: bool,
    pub auth: bool,
    pub user: Option<String>,
    pub paths: Vec<PathItem>,
    /// Entries in the directory, as far as they were counted.
    pub total: usize,
    /// How many were passed over before the first in `paths`.
    pub offset: usize,
    /// More follow: ask again with a larger `offset`, or, where the directory itself is too
    /// large to sort, search it.
    pub truncated: bool,
}

impl DirectoryListing {
    pub fn new(path: &FilePath, paths: Vec<PathItem>) -> Self {
        DirectoryListing {
            href: path.href(),
            kind: "Index",
            uri_prefix: "/",
            allow_upload: true,
            allow_delete: true,
            allow_search: true,
            allow_archive: true,
            dir_exists: true,
            auth: false,
            user: None,
            total: paths.len(),
            paths,
            offset: 0,
            truncated: false,
        }
    }

    /// One name a line, directories with a slash.
    pub fn lines(&self) -> String {
        let mut text = String::new();
        for item in &self.paths {
            text.push_str(&item.name);
            if item.is_directory() {
                text.push('/');
            }
            text.push('\n');
        }
        text
    }
}

/// List a directory.
pub fn of(files: &Files, path: &FilePath, wish: Wish) -> Result<DirectoryListing, Fault> {
    let found = files
        .root
        .find(path, Links::Follow)
        .map_err(failed("read", path))?;
    let dir = list(&found).map_err(failed("read", path))?;
    let (mut names, more) = names(&dir, NAMES).map_err(failed("read", path))?;
    let total = names.len();
    let item = |name: &[u8]| {
        let own = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?; // gone since: not listed
        let target = if FileType::from_raw_mode(own.st_mode) == FileType::Symlink {
            files.root.find(&path.join(name), Links::Follow).ok()
        } else {
            None
        };
        Some(PathItem::new(
            name,
            &own,
            target.as_ref().map(|target| &target.stat),
        ))
    };
    let mut paths: Vec<PathItem>;
    if wish.sort == Sort::Name {
        // Only what is shown is asked about: a large directory opens as fast as a small one.
        names.sort_unstable();
        if wish.order == Order::Desc {
            names.reverse();
        }
        paths = names
            .iter()
            .skip(wish.offset)
            .take(wish.limit)
            .filter_map(|name| item(name))
            .collect();
    } else {
        paths = names.iter().filter_map(|name| item(name)).collect();
        paths.sort_unstable_by(|a, b| compare(a, b, wish.sort, wish.order));
        paths = paths
            .into_iter()
            .skip(wish.offset)
            .take(wish.limit)
            .collect();
    }
    let mut listing = DirectoryListing::new(path, paths);
    listing.truncated = more || total > wish.offset.saturating_add(wish.limit);
    listing.total = total;
    listing.offset = wish.offset;
    Ok(listing)
}

/// Order of two entries; equals fall back to the name, so that it is always the same.
pub fn compare(a: &PathItem, b: &PathItem, sort: Sort, order: Order) -> Ordering {
    let by = match sort {
        Sort::Name => a.name.cmp(&b.name),
        Sort::Mtime => a.mtime.cmp(&b.mtime),
        Sort::Size => a.size.cmp(&b.size),
    };
    let by = if order == Order::Desc {
        by.reverse()
    } else {
        by
    };
    by.then_with(|| a.name.cmp(&b.name))
}

/// The names in a directory, at most so many, and whether there are more.
pub fn names(
    dir: impl std::os::fd::AsFd,
    most: usize,
) -> Result<(Vec<Vec<u8>>, bool), rustix::io::Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() == most {
            return Ok((names, true));
        }
        names.push(name.to_vec());
    }
    Ok((names, false))
}
