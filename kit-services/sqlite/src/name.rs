//! Which file a request means: a name, or a path below the directory of databases.
//!
//! `app`, `app.db` and `./app` are files of that directory; `/hoody/databases/team/app.db` is one
//! below it. Nothing else is: no path elsewhere, no database in memory, no URI. Links are followed
//! once, here, and must not lead out; the file is then opened by a path without links, and SQLite
//! refuses any that appears in it afterwards (`SQLITE_OPEN_NOFOLLOW`).

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use http::StatusCode;
use kit::Fault;

/// Where databases are, as callers name it.
pub const DIRECTORY: &str = "/hoody/databases";
/// Longest name or path.
const LONGEST: usize = 1024;
/// What a name without an extension gets.
const EXTENSION: &str = ".db";
/// Files that belong to a database beside it. None of them is one.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// How deep below the directory of databases files are listed.
const DEPTH: usize = 4;
/// Files that are looked at for a list of databases.
const LOOKED_AT: usize = 10_000;

/// What a request names, checked as text only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// Below the directory of databases: `app.db`, `team/app.db`.
    below: PathBuf,
}

/// A database's file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// As it is shown: `/hoody/databases/app.db`.
    pub shown: String,
    /// Where it is, without links.
    pub real: PathBuf,
}

/// Which file a place leads to at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

fn refused(message: impl Into<String>) -> Fault {
    Fault::bad_request(message).code("INVALID_DATABASE_NAME")
}

impl Name {
    /// Read what the parameter `db` holds.
    pub fn parse(text: &str) -> Result<Name, Fault> {
        if text.is_empty() {
            return Err(refused(
                "no database is named; pass db=NAME, for instance db=app",
            ));
        }
        if text.len() > LONGEST {
            return Err(refused(format!(
                "the name of a database has at most {LONGEST} bytes"
            )));
        }
        if text.chars().any(char::is_control) {
            return Err(refused("the name of a database has no control characters"));
        }
        let lower = text.to_ascii_lowercase();
        if lower.starts_with(":memory:") {
            return Err(refused(
                "in-memory databases are not supported; name a file, for instance db=app",
            ));
        }
        if lower.starts_with("file:") {
            return Err(refused(
                "URIs are no names of databases; pass a name, for instance db=app",
            ));
        }
        let (below, bare) = match text.strip_prefix('/') {
            None => {
                let name = text.strip_prefix("./").unwrap_or(text);
                if name.contains(['/', '\\']) {
                    return Err(refused(format!(
                        "relative paths are not supported; pass a name, or a path below {DIRECTORY}"
                    )));
                }
                (name.to_owned(), true)
            }
            Some(_) => {
                let below = text
                    .strip_prefix(DIRECTORY)
                    .and_then(|rest| rest.strip_prefix('/'))
                    .ok_or_else(|| {
                        refused(format!(
                            "absolute database paths outside {DIRECTORY} are disallowed"
                        ))
                    })?;
                (below.to_owned(), false)
            }
        };
        let plain = below
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains('\\'));
        if !plain {
            return Err(refused(format!(
                "a path below {DIRECTORY} has no empty parts, no `.` and no `..`"
            )));
        }
        let file = below.rsplit('/').next().unwrap_or_default();
        if COMPANIONS.iter().any(|suffix| file.ends_with(suffix)) {
            return Err(refused(format!(
                "`{file}` is the name of a file that SQLite keeps beside a database"
            )));
        }
        let mut below = below;
        if bare && !below.trim_start_matches('.').contains('.') {
            below.push_str(EXTENSION);
        }
        Ok(Name {
            below: below.into(),
        })
    }

    /// The path as callers may write it.
    pub fn shown(&self) -> String {
        format!("{DIRECTORY}/{}", self.below.display())
    }

    /// A database that exists.
    pub fn find(&self, directory: &Path) -> Result<Place, Fault> {
        let missing = || {
            Fault::not_found(format!(
                "no database `{}`; make it with POST /api/v1/sqlite/db/create, or pass \
                 create_db_if_missing=true",
                self.shown()
            ))
            .code("DATABASE_NOT_FOUND")
        };
        let base = match fs::canonicalize(directory) {
            Ok(base) => base,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(self.unreachable(&error)),
        };
        match fs::canonicalize(base.join(&self.below)) {
            Ok(real) => self.checked(&base, real),
            Err(error) if is_absence(&error) => Err(missing()),
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    /// A database that exists or is made here, empty. Whether it was made.
    pub fn find_or_make(&self, directory: &Path) -> Result<(Place, bool), Fault> {
        make_directory(directory, None).map_err(|error| self.unreachable(&error))?;
        match self.find(directory) {
            Err(fault) if fault.status == StatusCode::NOT_FOUND => {}
            found => return found.map(|place| (place, false)),
        }
        match self.make(directory) {
            Ok(place) => Ok((place, true)),
            // somebody else was faster
            Err(fault) if fault.code == Some("DATABASE_EXISTS") => {
                self.find(directory).map(|place| (place, false))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Make an empty file for a database that is not there.
    pub fn make(&self, directory: &Path) -> Result<Place, Fault> {
        make_directory(directory, None).map_err(|error| self.unreachable(&error))?;
        let base = fs::canonicalize(directory).map_err(|error| self.unreachable(&error))?;
        let wanted = base.join(&self.below);
        let (parent, file) = match (wanted.parent(), wanted.file_name()) {
            (Some(parent), Some(file)) => (parent, file),
            _ => return Err(refused("the name of a database ends in a file name")),
        };
        let parent = fs::canonicalize(parent).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Fault::not_found(format!(
                "the directory of `{}` does not exist; make it first",
                self.shown()
            ))
            .code("DIRECTORY_NOT_FOUND"),
            _ => self.unreachable(&error),
        })?;
        if !parent.starts_with(&base) {
            return Err(self.leads_out());
        }
        let real = parent.join(file);
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&real)
            .map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => {
                    Fault::conflict(format!("`{}` is there already", self.shown()))
                        .code("DATABASE_EXISTS")
                }
                _ => self.unreachable(&error),
            })?;
        own_like(&made, &parent);
        Ok(Place {
            shown: self.shown(),
            real,
        })
    }

    fn checked(&self, base: &Path, real: PathBuf) -> Result<Place, Fault> {
        if !real.starts_with(base) {
            return Err(self.leads_out());
        }
        let file = fs::symlink_metadata(&real).map_err(|error| self.unreachable(&error))?;
        if !file.is_file() {
            let what = match file.file_type() {
                kind if kind.is_dir() => "a directory",
                kind if kind.is_fifo() => "a pipe",
                kind if kind.is_socket() => "a socket",
                _ => "no ordinary file",
            };
            return Err(refused(format!(
                "`{}` is {what}, not a database",
                self.shown()
            )));
        }
        // SQLite takes what is shorter than a header for a database that is new
        if file.len() > 0 && !begins_like_one(&real) {
            return Err(crate::fault::not_a_database());
        }
        Ok(Place {
            shown: self.shown(),
            real,
        })
    }

    fn leads_out(&self) -> Fault {
        Fault::forbidden(format!(
            "`{}` is a link that leads out of {DIRECTORY}",
            self.shown()
        ))
        .code("OUTSIDE")
    }

    fn unreachable(&self, error: &std::io::Error) -> Fault {
        let status = match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StatusCode::FORBIDDEN,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Fault::new(
            status,
            format!("`{}` cannot be reached: {}", self.shown(), error.kind()),
        )
        .code("DATABASE_UNREACHABLE")
    }
}

/// There is nothing, or something on the way is no directory.
fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Make the directory of databases where it is missing. It then belongs to whoever `like` belongs
/// to.
pub fn make_directory(directory: &Path, like: Option<&Path>) -> std::io::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    if let Some(above) = directory.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(above)?;
    }
    match fs::DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    if let Some(owner) = like.and_then(|like| fs::metadata(like).ok())
        && let Err(error) =
            std::os::unix::fs::lchown(directory, Some(owner.uid()), Some(owner.gid()))
    {
        tracing::debug!(%error, "the directory of databases stays the kit's");
    }
    Ok(())
}

/// Files belong to whoever their directory belongs to, so that its owner can use them without the
/// kit. SQLite gives what it keeps beside a database the same owner.
fn own_like(file: &File, directory: &Path) {
    let Ok(owner) = fs::metadata(directory) else {
        return;
    };
    if let Err(error) = fchown(file, Some(owner.uid()), Some(owner.gid())) {
        tracing::debug!(%error, "a new database stays the kit's");
    }
}

impl Place {
    /// Which file is there now; none where it was removed.
    pub fn identity(&self) -> Option<Identity> {
        let file = fs::symlink_metadata(&self.real).ok()?;
        file.is_file().then(|| Identity {
            device: file.dev(),
            inode: file.ino(),
        })
    }

    /// The file that SQLite keeps beside it under this suffix.
    pub fn companion(&self, suffix: &str) -> PathBuf {
        let mut path = self.real.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    /// All of them.
    pub fn companions(&self) -> impl Iterator<Item = PathBuf> {
        COMPANIONS.iter().map(|suffix| self.companion(suffix))
    }

    pub fn bytes(&self) -> u64 {
        fs::symlink_metadata(&self.real).map_or(0, |file| file.len())
    }
}

/// A database of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub path: String,
    pub bytes: u64,
    /// Milliseconds since 1970.
    pub modified: i64,
}

/// Every file below the directory of databases that begins like a database, or is empty. Links are
/// passed over. Whether there are more than were looked at.
pub fn list(directory: &Path) -> (Vec<Listed>, bool) {
    let mut found = Vec::new();
    let mut looked = 0;
    let mut next = vec![(directory.to_owned(), 0)];
    while let Some((path, depth)) = next.pop() {
        let Ok(entries) = fs::read_dir(&path) else {
            continue;
        };
        for entry in entries.flatten() {
            looked += 1;
            if looked > LOOKED_AT {
                found.sort_by(|a: &Listed, b| a.path.cmp(&b.path));
                return (found, true);
            }
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() && depth < DEPTH {
                next.push((entry.path(), depth + 1));
            } else if kind.is_file() {
                found.extend(listed(directory, &entry.path()));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    (found, false)
}

/// Whether a file begins as databases do (section 1.3 of SQLite's file format).
fn begins_like_one(path: &Path) -> bool {
    use std::io::Read;
    const HEADER: usize = 100;
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let mut begin = [0; HEADER];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && begin.starts_with(MAGIC)
}

fn listed(directory: &Path, path: &Path) -> Option<Listed> {
    let below = path.strip_prefix(directory).ok()?;
    let below = below
        .components()
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?
        .join("/");
    let shown = format!("{DIRECTORY}/{below}");
    Name::parse(&shown).ok()?;
    let file = fs::symlink_metadata(path).ok()?;
    if file.len() > 0 && !begins_like_one(path) {
        return None;
    }
    let modified = file.mtime() * 1000 + file.mtime_nsec() / 1_000_000;
    Some(Listed {
        path: shown,
        bytes: file.len(),
        modified,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_files_of_the_directory() {
        for (text, below) in [
            ("app", "app.db"),
            ("./app", "app.db"),
            ("app.sqlite3", "app.sqlite3"),
            (".hidden", ".hidden.db"),
            ("mit leerzeichen ü", "mit leerzeichen ü.db"),
            ("/hoody/databases/app", "app"),
            ("/hoody/databases/team/app.db", "team/app.db"),
        ] {
            let name = Name::parse(text).unwrap();
            assert_eq!(name.below, Path::new(below), "{text}");
        }
    }

    #[test]
    fn nothing_else_is_a_name() {
        for text in [
            "",
            ":memory:",
            ":MEMORY:x",
            "file:app.db",
            "FILE:/etc/passwd?mode=ro",
            "../app",
            "a/b",
            "a\\b",
            ".",
            "..",
            "./..",
            "./",
            "/etc/passwd",
            "/hoody/databases",
            "/hoody/databases/",
            "/hoody/databases/../run/kit.sock",
            "/hoody/databases/./x",
            "/hoody/databases//x",
            "/hoody/databasesx/y",
            "//hoody/databases/x",
            "app\0.db",
            "app\n",
            "app.db-wal",
            "app.db-shm",
            "app.db-journal",
        ] {
            let fault = Name::parse(text).unwrap_err();
            assert_eq!(fault.status, 400, "{text:?}");
        }
        Name::parse(&"x".repeat(LONGEST + 1)).unwrap_err();
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_a_name_stays_below(text in "\\PC{0,40}|[./a\\\\:~-]{1,20}|/hoody/databases/[./a-]{0,20}") {
            if let Ok(name) = Name::parse(&text) {
                let stays = name.below.components().all(|part| matches!(part, Component::Normal(_)));
                proptest::prop_assert!(stays && name.below.is_relative(), "{text:?} is {:?}", name.below);
            }
        }
    }
}
