//! Becoming somebody.
//!
//! The host boots machines before it knows whose they will be, and holds them still. Whoever asks
//! for one is given it, and the host then tells the kit in it the machine's name and the files that
//! depend on whose it is. Nobody but the host reaches this, and it is the first that anybody asks.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The largest description that is read: the variables of a container are the most of it, twice.
pub const BYTES: usize = 2 << 20;
/// Files in one description.
const FILES: usize = 64;

/// Who this machine is.
#[derive(Debug, Deserialize)]
pub struct Identity {
    /// A host name (RFC 1123).
    hostname: String,
    files: Vec<Entry>,
}

/// A file, or a directory where it has no text.
#[derive(Debug, Deserialize)]
struct Entry {
    path: PathBuf,
    text: Option<String>,
    mode: u32,
    /// User and group.
    owner: u32,
}

/// Why this machine could not become who it should be.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("this kit shares its machine with others, which is none of one container alone")]
    NotAMachine,
    #[error("it names {0} files; {FILES} are the most")]
    Files(usize),
    #[error("the path {path} is not absolute, or leads upwards")]
    Path { path: PathBuf },
    #[error("could not write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not take the name {name}")]
    Name {
        name: String,
        #[source]
        source: io::Error,
    },
}

/// Be this machine from now on. Asked again, it does the same again.
pub fn take(identity: &Identity) -> Result<(), IdentityError> {
    write(identity, Path::new("/"))?;
    let name = &identity.hostname;
    rustix::system::sethostname(name.as_bytes()).map_err(|error| IdentityError::Name {
        name: name.clone(),
        source: error.into(),
    })
}

/// Write its files below `root`, the name last.
fn write(identity: &Identity, root: &Path) -> Result<(), IdentityError> {
    if identity.files.len() > FILES {
        return Err(IdentityError::Files(identity.files.len()));
    }
    for entry in &identity.files {
        let path = &entry.path;
        let plain = |part| matches!(part, std::path::Component::Normal(_));
        let Ok(below) = path.strip_prefix("/") else {
            return Err(IdentityError::Path { path: path.clone() });
        };
        if !below.components().all(plain) || below.as_os_str().is_empty() {
            return Err(IdentityError::Path { path: path.clone() });
        }
        put(&root.join(below), entry).map_err(|source| IdentityError::Write {
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

fn put(at: &Path, entry: &Entry) -> io::Result<()> {
    let Some(text) = &entry.text else {
        match DirBuilder::new().mode(entry.mode).create(at) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        return belong(at, entry);
    };
    // Whoever looks sees the old one or the new one, whole.
    let mut name = at.file_name().unwrap_or_default().to_owned();
    name.push(".hoody-new");
    let beside = at.with_file_name(name);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    belong(&beside, entry)?;
    std::fs::rename(&beside, at)
}

fn belong(at: &Path, entry: &Entry) -> io::Result<()> {
    chown(at, Some(entry.owner), Some(entry.owner))?;
    std::fs::set_permissions(at, Permissions::from_mode(entry.mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(files: serde_json::Value) -> Identity {
        serde_json::from_value(serde_json::json!({ "hostname": "web", "files": files })).unwrap()
    }

    #[test]
    fn files_are_there_with_their_modes() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/hostname"), "pool\n").unwrap();
        let owner = rustix::process::geteuid().as_raw();
        let asked = identity(serde_json::json!([
            { "path": "/etc/hostname", "text": "web\n", "mode": 0o644, "owner": owner },
            { "path": "/etc/keys", "text": null, "mode": 0o700, "owner": owner },
            { "path": "/etc/keys/one", "text": "secret", "mode": 0o600, "owner": owner },
        ]));
        for _ in 0..2 {
            write(&asked, root.path()).unwrap();
        }
        let read = |path: &str| std::fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(read("etc/hostname"), "web\n");
        assert_eq!(read("etc/keys/one"), "secret");
        for (path, mode) in [
            ("etc/hostname", 0o644),
            ("etc/keys", 0o700),
            ("etc/keys/one", 0o600),
        ] {
            let facts = std::fs::metadata(root.path().join(path)).unwrap();
            assert_eq!(facts.permissions().mode() & 0o7777, mode, "{path}");
        }
        assert_eq!(
            std::fs::read_dir(root.path().join("etc")).unwrap().count(),
            2
        );
    }

    #[test]
    fn paths_that_are_none_are_refused() {
        let root = tempfile::tempdir().unwrap();
        for path in ["etc/hostname", "/", "/etc/../../x", ""] {
            let asked = identity(serde_json::json!([
                { "path": path, "text": "x", "mode": 0o644, "owner": 0 },
            ]));
            let wrong = write(&asked, root.path());
            assert!(matches!(wrong, Err(IdentityError::Path { .. })), "{path}");
        }
        let many = vec![
            serde_json::json!({ "path": "/a", "text": "x", "mode": 0, "owner": 0 });
            FILES + 1
        ];
        let wrong = write(&identity(many.into()), root.path());
        assert!(matches!(wrong, Err(IdentityError::Files(_))));
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
