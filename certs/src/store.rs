//! Files that are whole or absent, and one writer at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;

use crate::Error;

/// Nobody but the owner reads it.
pub const PRIVATE: u32 = 0o600;
/// Everybody may read it.
pub const PUBLIC: u32 = 0o644;

/// The end of the name of a file that is still being written.
const UNFINISHED: &str = ".unfinished";

/// Make a directory and those above it, where they are missing.
pub fn create_directory(path: &Path, mode: u32) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| Error::CreateDirectory {
        path: path.into(),
        source,
    })
}

/// The contents of a file; `None` where there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.into(),
            source,
        }),
    }
}

/// Put `bytes` at `path`: whoever reads finds what was there before or all of this, also after
/// a crash. The file has `mode` from its first byte on.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let unfinished = unfinished(path);
    let written = write_beside(&unfinished, bytes, mode).and_then(|()| {
        fs::rename(&unfinished, path)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    });
    written.map_err(|source| {
        let _ = fs::remove_file(&unfinished); // it may not even be there
        Error::Write {
            path: path.into(),
            source,
        }
    })
}

fn unfinished(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{number}{UNFINISHED}", std::process::id()));
    path.with_file_name(name)
}

fn write_beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // Not narrowed by the umask: a public file stays public.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Take away what a crashed writer left. Only under the lock of the directory.
pub fn sweep(directory: &Path) -> Result<(), Error> {
    let failed = |source| Error::Read {
        path: directory.into(),
        source,
    };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.to_string_lossy().ends_with(UNFINISHED) {
            fs::remove_file(&path).map_err(|source| Error::Write { path, source })?;
        }
    }
    Ok(())
}

/// Let nobody but the owner read a file that others could.
pub fn narrow(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Read {
        path: path.into(),
        source,
    };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(
        "{} could be read by others; from now on only by its owner",
        path.display()
    );
    let narrowed = fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE));
    narrowed.map_err(|source| Error::Write {
        path: path.into(),
        source,
    })
}

/// One writer at a time, among threads and processes. Released when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Wait for the lock of `directory`.
    pub fn take(directory: &Path) -> Result<Lock, Error> {
        let path = directory.join(".lock");
        let failed = |source| Error::Lock {
            path: path.clone(),
            source,
        };
        let mut open = OpenOptions::new();
        let file = open
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(&path)
            .map_err(failed)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|errno| failed(errno.into()))?;
        Ok(Lock { _file: file })
    }
}
