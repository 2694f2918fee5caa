//! The files through which a session and its shell talk.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode};

use crate::id;
use accounts::Account;

/// A directory that goes when the session goes.
///
/// It belongs to this process: the session's user may pass through and read what is theirs, and
/// cannot put a link where this process will write.
#[derive(Debug)]
pub struct Workdir {
    pub path: PathBuf,
    owner: Option<u32>,
}

impl Workdir {
    /// A new directory beneath `state`, whose files are for `account`.
    pub fn create(state: &Path, account: &Account) -> io::Result<Workdir> {
        const PASS: u32 = 0o711;
        const OWN: u32 = 0o700;
        if !state.is_dir() {
            fs::create_dir_all(state)?;
            fs::set_permissions(state, Permissions::from_mode(PASS))?;
        }
        let owner = account.is_other().then_some(account.uid);
        let path = state.join(id::fresh());
        let mode = if owner.is_some() { PASS } else { OWN };
        DirBuilder::new().mode(mode).create(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(Workdir { path, owner })
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.owner {
            Some(uid) => std::os::unix::fs::lchown(path, Some(uid), None),
            None => Ok(()),
        }
    }

    /// A new file.
    pub fn write(&self, name: &str, content: &str) -> io::Result<()> {
        let path = self.path.join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(content.as_bytes())?;
        self.give(&path)
    }

    /// A new program of the account's.
    pub fn script(&self, name: &str, content: &str) -> io::Result<()> {
        self.write(name, content)?;
        fs::set_permissions(self.path.join(name), Permissions::from_mode(0o700))
    }

    /// A new directory in which the account may make what it likes.
    pub fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        self.give(&path)?;
        Ok(path)
    }

    /// A new named pipe.
    pub fn fifo(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)?;
        self.give(&path)?;
        Ok(path)
    }

    /// Remove a file, if it is there.
    pub fn remove(&self, name: &str) {
        // What is left goes with the directory.
        let _ = fs::remove_file(self.path.join(name));
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "could not remove the files of a session");
        }
    }
}
