//! Files that were dropped onto a terminal, on their way to the program in it.
//!
//! ```text
//!   begin ──▶ Staging ──── slices, in order ────▶ commit ──▶ Sealed ──▶ told to the program
//!                │                                              │
//!                └── nobody came for a while ── forgotten ◀─────┘ pushed out by newer ones
//! ```
//!
//! While a drop is staged its files belong to this process, which alone writes there; when it is
//! sealed they are given to the session's user. So no user can put a link where this process will
//! write, and what was checked is what is given.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::id::{self, TerminalId};
use accounts::Account;

/// Largest slice, which is held in memory while it is written.
pub const MAX_SLICE: usize = 8 << 20;
/// Bytes of one drop.
pub const MAX_DROP_BYTES: u64 = 1 << 30;
/// Files and directories of one drop.
pub const MAX_ITEMS: usize = 4096;
/// Drops on disk; a new one pushes out the oldest that is sealed.
const MAX_DROPS: usize = 64;
/// Bytes of all drops on disk.
const MAX_BYTES: u64 = 4 << 30;
/// How long a drop may wait for its next slice.
pub const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long drops of an earlier kit are kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the list of a drop's files is, beneath its root.
pub const MANIFEST: &str = "manifest.json";

/// A place beneath the root of a drop.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(String);

impl Place {
    /// A relative path of plain names; why not, where it is none.
    pub fn read(text: &str) -> Result<Place, &'static str> {
        const LONGEST: usize = 1024;
        const LONGEST_NAME: usize = 255; // NAME_MAX
        const DEEPEST: usize = 32;
        if text.is_empty() || text.len() > LONGEST {
            return Err("a path has 1 to 1024 bytes");
        }
        if text.split('/').count() > DEEPEST {
            return Err("a path has at most 32 names");
        }
        for name in text.split('/') {
            if name.is_empty() || name == "." || name == ".." {
                return Err("a path is relative, and no name in it is empty, `.` or `..`");
            }
            if name.len() > LONGEST_NAME {
                return Err("a name has at most 255 bytes");
            }
            // They end up on a command line.
            if name.chars().any(char::is_control) {
                return Err("a name has no control characters");
            }
        }
        if text == MANIFEST || text.starts_with("manifest.json/") {
            return Err("manifest.json is the list of the drop itself; stage the file elsewhere");
        }
        Ok(Place(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first of its names.
    pub fn top(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

/// An item of a drop, as its sender lists it.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// Where it is staged.
    #[serde(rename = "p", serialize_with = "place")]
    pub place: Place,
    /// 1 for an empty directory.
    #[serde(rename = "d", skip_serializing_if = "is_zero")]
    pub directory: u8,
    /// Bytes of a file.
    #[serde(rename = "s")]
    pub size: u64,
    /// What it was called where it comes from.
    pub name: String,
    /// SHA-256 of a file, in hex.
    #[serde(rename = "h", skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

fn place<S: serde::Serializer>(place: &Place, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&place.0)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// How a drop came about.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Context {
    Drop,
    Paste,
}

impl Context {
    pub fn as_str(self) -> &'static str {
        match self {
            Context::Drop => "drop",
            Context::Paste => "paste",
        }
    }
}

/// A drop that is sealed.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub root: PathBuf,
    /// Of its manifest, in hex.
    pub sha256: String,
    pub items: Vec<Item>,
}

impl Sealed {
    /// The files and directories at its top, each once.
    pub fn tops(&self) -> Vec<PathBuf> {
        let mut tops: Vec<&str> = Vec::new();
        for item in &self.items {
            if !tops.contains(&item.place.top()) {
                tops.push(item.place.top());
            }
        }
        tops.into_iter().map(|top| self.root.join(top)).collect()
    }
}

/// Why a drop, a slice or a commit is not taken.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    #[error(
        "no drop `{id}` of this terminal takes this token; begin a new one with POST /api/v1/terminal/drop-begin"
    )]
    Unknown { id: String },
    #[error("the drop is sealed and takes no more slices; begin a new one")]
    Sealed,
    #[error("{path} has {size} bytes so far; send the slice that begins there")]
    Offset { path: String, size: u64 },
    #[error("a drop has at most {MAX_DROP_BYTES} bytes and {MAX_ITEMS} files and directories")]
    TooLarge,
    #[error(
        "{MAX_DROPS} drops are being staged, or they fill {MAX_BYTES} bytes; commit them, or wait a quarter of an hour"
    )]
    TooMany,
    #[error("{path}: {why}")]
    Mismatch { path: String, why: String },
    #[error("could not {act} {path}")]
    Disk {
        act: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

#[derive(Debug)]
struct Staged {
    id: String,
    token: String,
    terminal: TerminalId,
    account: Account,
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    touched: Instant,
    bytes: u64,
    items: usize,
    sealed: Option<Arc<Sealed>>,
}

impl Staged {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A drop that was begun.
#[derive(Clone, Debug)]
pub struct Begun {
    pub id: String,
    pub token: String,
    pub root: PathBuf,
}

/// All drops, oldest first.
#[derive(Debug)]
pub struct Drops {
    directory: PathBuf,
    list: Mutex<Vec<Arc<Staged>>>,
}

impl Drops {
    /// The drops beneath `directory`, where those of an earlier kit are kept for a day.
    pub fn new(directory: PathBuf) -> Drops {
        forget_old(&directory);
        Drops {
            directory,
            list: Mutex::default(),
        }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Staged>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begin a drop onto a terminal whose programs run as `account`.
    pub fn begin(&self, terminal: TerminalId, account: &Account) -> Result<Begun, DropError> {
        let id = id::fresh();
        let token = id::fresh() + &id::fresh();
        let root = self.directory.join(&id);
        let mut list = self.list();
        let now = Instant::now();
        list.retain(|drop| {
            let state = drop.state();
            let is_late = state.sealed.is_none() && state.touched + PATIENCE <= now;
            if is_late {
                remove(&drop.root);
            }
            !is_late
        });
        while list.len() >= MAX_DROPS
            || list.iter().map(|drop| drop.state().bytes).sum::<u64>() + MAX_DROP_BYTES > MAX_BYTES
        {
            let oldest = list.iter().position(|drop| drop.state().sealed.is_some());
            let Some(oldest) = oldest else {
                return Err(DropError::TooMany);
            };
            remove(&list.remove(oldest).root);
        }
        let make = |source| DropError::Disk {
            act: "make",
            path: root.clone(),
            source,
        };
        const PASS: u32 = 0o711;
        if !self.directory.is_dir() {
            fs::create_dir_all(&self.directory).map_err(make)?;
            fs::set_permissions(&self.directory, fs::Permissions::from_mode(PASS)).map_err(make)?;
        }
        DirBuilder::new().mode(0o700).create(&root).map_err(make)?;
        list.push(Arc::new(Staged {
            id: id.clone(),
            token: token.clone(),
            terminal,
            account: account.clone(),
            root: root.clone(),
            state: Mutex::new(State {
                touched: now,
                bytes: 0,
                items: 0,
                sealed: None,
            }),
        }));
        Ok(Begun { id, token, root })
    }

    fn find(&self, id: &str, token: &str, terminal: TerminalId) -> Result<Arc<Staged>, DropError> {
        self.list()
            .iter()
            .find(|drop| drop.id == id)
            .filter(|drop| {
                drop.terminal == terminal
                    && bool::from(drop.token.as_bytes().ct_eq(token.as_bytes()))
            })
            .cloned()
            .ok_or_else(|| DropError::Unknown {
                id: id.chars().filter(|c| !c.is_control()).take(64).collect(),
            })
    }

    /// Append a slice to a file of a drop; how many bytes the file has now. Does not return
    /// before it is written.
    pub fn append(
        &self,
        (id, token, terminal): (&str, &str, TerminalId),
        place: &Place,
        offset: u64,
        slice: &[u8],
    ) -> Result<u64, DropError> {
        let drop = self.find(id, token, terminal)?;
        let mut state = drop.state();
        if state.sealed.is_some() {
            return Err(DropError::Sealed);
        }
        let path = drop.root.join(place.as_str());
        let disk = |act| {
            let path = path.clone();
            move |source| DropError::Disk { act, path, source }
        };
        let size = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => Some(meta.size()),
            Ok(_) => {
                return Err(DropError::Mismatch {
                    path: place.0.clone(),
                    why: "it is staged as a directory".to_owned(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(under_a_file(place));
            }
            Err(error) => return Err(disk("look at")(error)),
        };
        let length = slice.len() as u64;
        if offset != size.unwrap_or(0) {
            return Err(DropError::Offset {
                path: place.0.clone(),
                size: size.unwrap_or(0),
            });
        }
        let is_new = size.is_none();
        if state.bytes + length > MAX_DROP_BYTES || state.items + usize::from(is_new) > MAX_ITEMS {
            return Err(DropError::TooLarge);
        }
        if is_new {
            make_above(&drop.root, place, &mut state)?;
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(disk("open"))?;
        if is_new {
            state.items += 1;
        }
        state.touched = Instant::now();
        if let Err(error) = file.write_all(slice) {
            // What is half written would shift the rest.
            let _ = file.set_len(offset);
            return Err(disk("write")(error));
        }
        state.bytes += length;
        Ok(offset + length)
    }

    /// Check a drop against its list, write the list, and give all of it to the session's user.
    /// One that is sealed already is answered as it was.
    pub fn seal(
        &self,
        (id, token, terminal): (&str, &str, TerminalId),
        context: Context,
        items: Vec<Item>,
    ) -> Result<Arc<Sealed>, DropError> {
        let drop = self.find(id, token, terminal)?;
        let mut state = drop.state();
        if let Some(sealed) = &state.sealed {
            return Ok(sealed.clone());
        }
        if items.len() > MAX_ITEMS {
            return Err(DropError::TooLarge);
        }
        for item in &items {
            verify(&drop.root, item, &mut state)?;
        }
        prune(&drop.root, &items);
        let manifest = serde_json::json!({
            "v": 1, "drop": drop.id, "terminal_id": terminal.to_string(), "ctx": context, "items": items,
        })
        .to_string();
        let disk = |act| {
            let path = drop.root.clone();
            move |source| DropError::Disk { act, path, source }
        };
        fs::write(drop.root.join(MANIFEST), &manifest).map_err(disk("write the list of"))?;
        give(&drop.root, &drop.account).map_err(disk("give"))?;
        let sealed = Arc::new(Sealed {
            root: drop.root.clone(),
            sha256: hex::encode(Sha256::digest(&manifest)),
            items,
        });
        state.sealed = Some(sealed.clone());
        state.touched = Instant::now();
        Ok(sealed)
    }
}

fn under_a_file(place: &Place) -> DropError {
    DropError::Mismatch {
        path: place.0.clone(),
        why: "a part of its path is staged as a file".to_owned(),
    }
}

/// Make the directories above a place.
fn make_above(root: &Path, place: &Place, state: &mut State) -> Result<(), DropError> {
    let Some((above, _)) = place.0.rsplit_once('/') else {
        return Ok(());
    };
    make_directory(root, &Place(above.to_owned()), state)
}

fn make_directory(root: &Path, place: &Place, state: &mut State) -> Result<(), DropError> {
    let mut path = root.to_owned();
    for name in place.0.split('/') {
        path.push(name);
        if state.items >= MAX_ITEMS {
            return Err(DropError::TooLarge);
        }
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => state.items += 1,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(under_a_file(place));
            }
            Err(source) => {
                return Err(DropError::Disk {
                    act: "make",
                    path,
                    source,
                });
            }
        }
    }
    Ok(())
}

/// Check an item of the list against what is staged.
fn verify(root: &Path, item: &Item, state: &mut State) -> Result<(), DropError> {
    let wrong = |why: String| DropError::Mismatch {
        path: item.place.0.clone(),
        why,
    };
    if item.directory == 1 {
        return make_directory(root, &item.place, state);
    }
    let path = root.join(item.place.as_str());
    let disk = |source| DropError::Disk {
        act: "read",
        path: path.clone(),
        source,
    };
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_file() && meta.size() == item.size => {}
        Ok(meta) if meta.is_file() => {
            return Err(wrong(format!(
                "it has {} bytes, and the list says {}",
                meta.size(),
                item.size
            )));
        }
        Ok(_) => {
            return Err(wrong(
                "it is a directory, and the list says a file".to_owned(),
            ));
        }
        Err(_) if item.size == 0 => {
            if state.items >= MAX_ITEMS {
                return Err(DropError::TooLarge);
            }
            make_above(root, &item.place, state)?;
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            made.map_err(disk)?;
            state.items += 1;
        }
        Err(_) => return Err(wrong("it was not uploaded".to_owned())),
    }
    if let Some(want) = &item.hash {
        let found = hash(&path).map_err(disk)?;
        if !found.eq_ignore_ascii_case(want) {
            return Err(wrong(format!(
                "its SHA-256 is {found}, and the list says another"
            )));
        }
    }
    Ok(())
}

fn hash(path: &Path) -> io::Result<String> {
    const CHUNK: usize = 64 << 10;
    let (mut file, mut digest) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(digest.finalize())),
            count => digest.update(&buffer[..count]),
        }
    }
}

/// Remove the staged files that are not listed.
fn prune(root: &Path, items: &[Item]) {
    let listed: std::collections::HashSet<PathBuf> = items
        .iter()
        .map(|item| root.join(item.place.as_str()))
        .collect();
    walk(root, &mut |path, is_directory| {
        if !is_directory && !listed.contains(path) {
            // What stays is not told of.
            let _ = fs::remove_file(path);
        }
    });
}

/// Call with everything beneath a directory, what is in a directory before the directory.
fn walk(directory: &Path, call: &mut impl FnMut(&Path, bool)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory {
            walk(&entry.path(), call);
        }
        call(&entry.path(), is_directory);
    }
}

/// Give everything beneath `root` to an account. The root and the list stay ours, so that the list
/// stays true to its hash; the account may read them.
fn give(root: &Path, account: &Account) -> io::Result<()> {
    let mut failed = Ok(());
    if account.is_other() {
        walk(root, &mut |path, _| {
            if path != root.join(MANIFEST) {
                let given = std::os::unix::fs::lchown(path, Some(account.uid), Some(account.gid));
                if given.is_err() {
                    failed = given;
                }
            }
        });
    }
    failed?;
    fs::set_permissions(root.join(MANIFEST), fs::Permissions::from_mode(0o644))?;
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))
}

fn remove(root: &Path) {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %root.display(), "could not remove a drop");
        }
        _ => {}
    }
}

/// Remove the drops that an earlier kit did not seal, those older than a day, and all but the
/// newest.
fn forget_old(directory: &Path) {
    let mut sealed: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let written = fs::metadata(path.join(MANIFEST)).and_then(|meta| meta.modified());
        match written {
            Ok(time) if time.elapsed().is_ok_and(|age| age < KEPT) => sealed.push((time, path)),
            _ => remove(&path),
        }
    }
    sealed.sort();
    let surplus = sealed.len().saturating_sub(MAX_DROPS);
    for (_, path) in &sealed[..surplus] {
        remove(path);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rig() -> (tempfile::TempDir, Drops, TerminalId, Account) {
        let directory = tempfile::tempdir().unwrap();
        let drops = Drops::new(directory.path().join("drops"));
        (
            directory,
            drops,
            TerminalId::new(1).unwrap(),
            Account::current(),
        )
    }

    fn item(place: &str, size: u64) -> Item {
        Item {
            place: Place::read(place).unwrap(),
            directory: 0,
            size,
            name: place.to_owned(),
            hash: None,
        }
    }

    #[test]
    fn slices_are_taken_in_order_and_the_list_is_checked() {
        let (_directory, drops, terminal, account) = rig();
        let begun = drops.begin(terminal, &account).unwrap();
        let key = (begun.id.as_str(), begun.token.as_str(), terminal);
        let place = Place::read("a/b.txt").unwrap();
        assert_eq!(drops.append(key, &place, 0, b"hello ").unwrap(), 6);
        let again = drops.append(key, &place, 0, b"hello ").unwrap_err();
        assert!(
            matches!(again, DropError::Offset { size: 6, .. }),
            "{again}"
        );
        assert_eq!(drops.append(key, &place, 6, b"world").unwrap(), 11);
        let stray = Place::read("stray").unwrap();
        drops.append(key, &stray, 0, b"x").unwrap();

        for (wrong, why) in [
            (item("a/b.txt", 12), "bytes"),
            (item("a/missing", 1), "not uploaded"),
            (
                Item {
                    hash: Some("00".repeat(32)),
                    ..item("a/b.txt", 11)
                },
                "SHA-256",
            ),
        ] {
            let refused = drops.seal(key, Context::Drop, vec![wrong]).unwrap_err();
            assert!(refused.to_string().contains(why), "{refused}");
        }
        let items = vec![
            Item {
                hash: Some(hex::encode(Sha256::digest(b"hello world"))),
                ..item("a/b.txt", 11)
            },
            item("empty", 0),
            Item {
                directory: 1,
                ..item("folder/inner", 0)
            },
        ];
        let sealed = drops.seal(key, Context::Drop, items).unwrap();
        let read = |path: &str| fs::read(sealed.root.join(path));
        assert_eq!(read("a/b.txt").unwrap(), b"hello world");
        assert_eq!(read("empty").unwrap(), b"");
        assert!(sealed.root.join("folder/inner").is_dir());
        assert!(read("stray").is_err(), "what is not listed is not given");
        let manifest = read(MANIFEST).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&manifest)), sealed.sha256);
        assert_eq!(
            sealed.tops(),
            ["a", "empty", "folder"].map(|top| sealed.root.join(top))
        );

        let late = drops.append(key, &place, 11, b"!").unwrap_err();
        assert!(matches!(late, DropError::Sealed), "{late}");
        let again = drops.seal(key, Context::Drop, Vec::new()).unwrap();
        assert_eq!(again.sha256, sealed.sha256);
    }

    #[test]
    fn a_drop_is_its_token_holders_and_its_terminals() {
        let (_directory, drops, terminal, account) = rig();
        let begun = drops.begin(terminal, &account).unwrap();
        let place = Place::read("a").unwrap();
        let other = TerminalId::new(2).unwrap();
        for key in [
            (begun.id.as_str(), "wrong", terminal),
            (begun.id.as_str(), "", terminal),
            ("0000000000000000", begun.token.as_str(), terminal),
            (begun.id.as_str(), begun.token.as_str(), other),
        ] {
            let refused = drops.append(key, &place, 0, b"x").unwrap_err();
            assert!(matches!(refused, DropError::Unknown { .. }), "{refused}");
        }
    }

    #[test]
    fn files_and_directories_do_not_take_each_others_place() {
        let (_directory, drops, terminal, account) = rig();
        let begun = drops.begin(terminal, &account).unwrap();
        let key = (begun.id.as_str(), begun.token.as_str(), terminal);
        let append = |place: &str| drops.append(key, &Place::read(place).unwrap(), 0, b"x");
        append("a").unwrap();
        assert!(matches!(append("a/b"), Err(DropError::Mismatch { .. })));
        append("c/d").unwrap();
        assert!(matches!(append("c"), Err(DropError::Mismatch { .. })));
    }

    #[test]
    fn drops_and_their_items_are_bounded() {
        let (directory, drops, terminal, account) = rig();
        let begun = drops.begin(terminal, &account).unwrap();
        let key = (begun.id.as_str(), begun.token.as_str(), terminal);
        for number in 0..MAX_ITEMS {
            let place = Place::read(&format!("f{number}")).unwrap();
            drops.append(key, &place, 0, b"").unwrap();
        }
        let one_more = drops.append(key, &Place::read("more").unwrap(), 0, b"");
        assert!(matches!(one_more, Err(DropError::TooLarge)));
        let kept = |drops: &Drops| drops.list().len();
        while kept(&drops) < MAX_DROPS {
            match drops.begin(terminal, &account) {
                Ok(_) => {}
                Err(DropError::TooMany) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(matches!(
            drops.begin(terminal, &account),
            Err(DropError::TooMany)
        ));
        drops.seal(key, Context::Drop, Vec::new()).unwrap();
        drops.begin(terminal, &account).unwrap();
        assert!(!begun.root.exists(), "the oldest that was sealed made way");
        let left = fs::read_dir(directory.path().join("drops"))
            .unwrap()
            .count();
        assert_eq!(left, kept(&drops));
    }

    #[test]
    fn a_kit_forgets_what_was_never_sealed() {
        let (directory, drops, terminal, account) = rig();
        let [half, whole] = [(); 2].map(|()| drops.begin(terminal, &account).unwrap());
        let key = (whole.id.as_str(), whole.token.as_str(), terminal);
        drops.seal(key, Context::Paste, vec![item("a", 0)]).unwrap();
        Drops::new(directory.path().join("drops"));
        assert!(!half.root.exists() && whole.root.join("a").exists());
    }

    #[test]
    fn places_stay_beneath_the_root() {
        for wrong in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "./a",
            "a/.",
            "a\0b",
            "a\nb",
            "a/",
            "manifest.json",
            "manifest.json/x",
            "\u{1b}[2J",
        ] {
            assert!(Place::read(wrong).is_err(), "{wrong:?}");
        }
        for right in ["a", "a b/ü漢", "..a", "a/manifest.json", "-rf", "'"] {
            assert!(Place::read(right).is_ok(), "{right:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_names_a_place_elsewhere(text in "[a./\\\\\u{0}-\u{20}~ü]{0,40}") {
            if let Ok(place) = Place::read(&text) {
                let path = Path::new(place.as_str());
                let plain = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(path.is_relative() && path.components().all(plain));
                prop_assert_eq!(path.components().count(), text.split('/').count());
            }
        }
    }
}
