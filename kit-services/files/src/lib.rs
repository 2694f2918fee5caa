//! The files of a computer over HTTP.
//!
//! Read in this order: [`path`] (what a request names), [`jail`] (how it is found without leaving
//! the root), [`entry`] and [`listing`] (what is there), [`content`] (bytes out), [`upload`] and
//! [`draft`] (bytes in), [`tree`] (removing, copying, moving), [`walk`] and [`search`] (finding),
//! [`zip`] (packing), [`archive`] (unpacking), [`change`] (what the operations that change something
//! do), [`dav`] (properties and locks), [`remote`] (servers elsewhere), then [`ops`], where all of it
//! meets HTTP. [`work`] bounds how much happens at a time.
//!
//! The service works with the rights of its process and does not know who calls: that is for the
//! proxy to have decided. It knows no other service and keeps nothing between two requests but the
//! descriptor of its root, the locks that clients hold, what was extracted last, and what [`remote`]
//! has connected.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::response::Response;
use kit::{Fault, Wire};

pub mod archive;
pub mod change;
pub mod conditions;
pub mod content;
pub mod dav;
pub mod draft;
pub mod entry;
pub mod fault;
pub mod jail;
pub mod lines;
pub mod listing;
pub mod ops;
pub mod path;
pub mod remote;
pub mod search;
pub mod tree;
pub mod upload;
pub mod users;
pub mod walk;
pub mod work;
pub mod zip;

pub use ops::api;

#[cfg(test)]
mod tests;

use crate::jail::Root;
use crate::path::FilePath;

/// Where the service works.
#[derive(Debug, Clone)]
pub struct Config {
    /// What `/` is in a request: the root of the machine, or a directory that is never left.
    pub root: PathBuf,
    /// The home of the ordinary user, which a path may begin with as `~`.
    pub home: PathBuf,
    /// Where connections to other servers are kept.
    pub remote: remote::Config,
    /// The page that browsers get instead of a listing.
    pub page: Option<fn() -> Response>,
}

/// The service.
#[derive(Debug, Clone)]
pub struct Files(Arc<Inner>);

/// What the clones of a handle share.
#[derive(Debug)]
pub struct Inner {
    root: Root,
    home: FilePath,
    page: Option<fn() -> Response>,
    remote: remote::Remote,
    work: work::Work,
    writers: upload::Writers,
    locks: dav::lock::Locks,
    extractions: archive::Jobs,
    /// Held while the properties of a file are changed.
    properties: Mutex<()>,
}

impl Deref for Files {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Files {
    pub fn new(config: Config) -> Files {
        use std::os::unix::ffi::OsStrExt;
        let home = config
            .home
            .strip_prefix(&config.root)
            .unwrap_or(&config.home);
        let home = FilePath::from_bytes(home.as_os_str().as_bytes());
        Files(Arc::new(Inner {
            root: Root::new(config.root),
            home: home.unwrap_or_else(|_| FilePath::root()),
            page: config.page,
            remote: remote::Remote::new(config.remote),
            work: work::Work::default(),
            writers: upload::Writers::default(),
            locks: dav::lock::Locks::default(),
            extractions: archive::Jobs::default(),
            properties: Mutex::new(()),
        }))
    }

    /// Whether a lock is held or an archive extracted, which a restart would forget.
    pub fn is_busy(&self) -> bool {
        !self.locks.is_empty(Instant::now()) || self.extractions.is_busy()
    }

    /// The path that the path of a URL names.
    pub fn path_of_url(&self, url: &str) -> Result<FilePath, Fault> {
        Ok(FilePath::from_url(url)?.expand(&self.home))
    }

    /// The path that plain text, or bytes that are no text, name.
    pub fn path_of_bytes(&self, bytes: &[u8]) -> Result<FilePath, Fault> {
        Ok(FilePath::from_bytes(bytes)?.expand(&self.home))
    }
}

/// A failure as this service writes it.
fn refuse(fault: &Fault) -> Response {
    kit::http::refuse(Wire::FILES, fault)
}
