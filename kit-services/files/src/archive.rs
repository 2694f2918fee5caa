//! Archives: what is in them, one file of them, and unpacking them below a directory.
//!
//! What an archive says is not believed. Names are taken apart here and walked from the descriptor
//! of the destination, a directory at a time and never through a link, whether the link was there
//! or came out of the archive. How much comes out is bounded as it comes, not as it is announced.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use http::{HeaderMap, StatusCode};
use kit::Fault;
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, linkat, openat, symlinkat};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::Serialize;

use crate::Files;
use crate::dav::lock::{self, Reach};
use crate::draft::{Draft, Finish, Replace};
use crate::entry::{lossy, size};
use crate::fault::failed;
use crate::jail::{Links, Owner, Place, give, make_directory};
use crate::path::FilePath;
use crate::work::Wanted;

/// Entries of one archive. Above it, a zip archive needs another format of its end anyway.
const ENTRIES: usize = 65_534;
/// Entries in one listing.
const LISTED: usize = 20_000;
/// Bytes that come out of one archive.
const BYTES: u64 = 64 << 30;
/// How many times larger than the archive all that comes out of it may be, and what is free of
/// that: small archives of text may well be packed tighter.
const RATIO: u64 = 250;
const FREE: u64 = 256 << 20;
/// What a tar archive may say about one entry before its content: names are read into memory.
const HEADERS: u64 = 1 << 20;
/// Longest name of an entry.
const NAME: usize = 4095;
/// How deep entries may be.
const DEPTH: usize = 128;
/// Largest file that is shown out of an archive.
const VIEW: u64 = 16 << 20;
/// What is read at a time.
const PIECE: usize = 256 << 10;
/// Memory that reading xz may take, in KiB: an archive names the size of its dictionary itself, up to
/// 4 GiB. `xz -9` makes one of 64 MiB.
const XZ_KIB: u32 = 96 << 10;
/// Archives unpacked at a time, and those done that are remembered.
const ACTIVE: usize = 4;
const REMEMBERED: usize = 100;

/// What an archive is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Format {
    #[serde(rename = "zip")]
    Zip,
    #[serde(rename = "tar")]
    Tar,
    #[serde(rename = "tar.gz")]
    TarGz,
    #[serde(rename = "tar.bz2")]
    TarBz2,
    #[serde(rename = "tar.xz")]
    TarXz,
}

const ENDINGS: &[(&str, Format)] = &[
    (".zip", Format::Zip),
    (".jar", Format::Zip),
    (".tar", Format::Tar),
    (".tar.gz", Format::TarGz),
    (".tgz", Format::TarGz),
    (".tar.bz2", Format::TarBz2),
    (".tbz2", Format::TarBz2),
    (".tar.xz", Format::TarXz),
    (".txz", Format::TarXz),
];

impl Format {
    /// The format, and the name without its ending.
    fn of(path: &FilePath) -> Result<(Format, Vec<u8>), Fault> {
        let name = path.name();
        for (ending, format) in ENDINGS {
            let stem = name.len().saturating_sub(ending.len());
            if stem > 0 && name[stem..].eq_ignore_ascii_case(ending.as_bytes()) {
                return Ok((*format, name[..stem].to_vec()));
            }
        }
        Err(Fault::bad_request(format!(
            "{path} is no archive by its name; archives are zip, tar, tar.gz, tar.bz2 and tar.xz"
        )))
    }
}

/// One entry of an archive.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ArchiveEntry {
    pub path: String,
    pub is_dir: bool,
    /// `file`, `directory`, `symlink`, `hardlink` or `other`.
    pub entry_type: &'static str,
    pub size: u64,
    pub compressed_size: Option<u64>,
    /// Permission bits, as a number.
    pub permissions: Option<u32>,
    /// Seconds since 1970.
    pub modified_time: Option<u64>,
    pub link_target: Option<String>,
}

/// What is in an archive.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Preview {
    pub format: Format,
    pub entries: Vec<ArchiveEntry>,
    /// Entries in all, directories among them.
    pub total_files: u64,
    pub total_size: u64,
    pub total_compressed_size: Option<u64>,
    /// There are more entries than are listed.
    pub truncated: bool,
}

/// An unpacking that goes on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExtractionProgress {
    pub id: String,
    pub archive_path: String,
    pub dest_path: String,
    pub selective: bool,
    pub selective_path: Option<String>,
    /// Always `extracting`.
    pub status: &'static str,
    /// Milliseconds since 1970.
    pub start_time: u64,
    pub extracted_files: u64,
    pub extracted_bytes: u64,
    /// Not known before all of it was read.
    pub total_files: Option<u64>,
    pub total_bytes: Option<u64>,
    pub percentage: Option<f64>,
}

/// An unpacking that is over.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ExtractionRecord {
    pub id: String,
    pub archive_path: String,
    pub dest_path: String,
    pub selective: bool,
    pub selective_path: Option<String>,
    /// `completed` or `failed`.
    pub status: &'static str,
    pub error: Option<String>,
    /// Milliseconds since 1970.
    pub start_time: u64,
    pub end_time: Option<u64>,
    pub extracted_files: u64,
    pub extracted_bytes: u64,
    pub total_files: u64,
    pub total_bytes: u64,
}

/// An unpacking that has begun.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExtractionResult {
    pub success: bool,
    pub message: String,
    /// Under this it is among those that go on, and then in the history.
    pub extraction_id: String,
    pub destination: String,
    pub selective: bool,
    pub selective_path: Option<String>,
    pub extracted_files: u64,
    pub extracted_bytes: u64,
    pub error: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Extractions {
    pub extractions: Vec<ExtractionProgress>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct ExtractionHistory {
    /// The last first.
    pub history: Vec<ExtractionRecord>,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Symlink(Vec<u8>),
    Hardlink(Vec<u8>),
    Other,
}

#[derive(Debug)]
struct Item {
    path: Vec<u8>,
    kind: Kind,
    size: u64,
    packed: Option<u64>,
    mode: Option<u32>,
    modified: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

/// Bytes that may still come, shared by who reads headers and who reads content.
#[derive(Clone)]
struct Budget {
    /// In all.
    left: Rc<Cell<u64>>,
    /// Before the next content; none while content is read.
    header: Rc<Cell<Option<u64>>>,
}

impl Budget {
    fn new(archive: u64) -> Budget {
        let most = archive
            .saturating_mul(RATIO)
            .saturating_add(FREE)
            .min(BYTES);
        Budget {
            left: Rc::new(Cell::new(most)),
            header: Rc::new(Cell::new(None)),
        }
    }

    fn spend(&self, bytes: u64) -> io::Result<()> {
        let too_much = |what: &str| io::Error::other(TooMuch(what.to_owned()));
        let left = self.left.get().checked_sub(bytes);
        self.left.set(
            left.ok_or_else(|| too_much("more comes out of the archive than its size explains"))?,
        );
        if let Some(header) = self.header.get() {
            let left = header.checked_sub(bytes);
            self.header.set(Some(left.ok_or_else(|| {
                too_much("an entry of the archive has a description without end")
            })?));
        }
        Ok(())
    }
}

/// A bound of ours, where the reader of a format only passes on what it was told.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TooMuch(String);

struct Metered<R> {
    inner: R,
    budget: Budget,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.budget.spend(read as u64)?;
        Ok(read)
    }
}

/// How to say that an archive cannot be read.
fn broken(path: &FilePath) -> impl Fn(io::Error) -> Fault {
    move |error| {
        // The readers of formats wrap what they were told, sometimes more than once.
        let mut cause: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|e| e as _);
        while let Some(one) = cause {
            if let Some(TooMuch(why)) = one.downcast_ref() {
                return too_large(path, why);
            }
            let inner = one.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            cause = inner.map(|inner| inner as _).or_else(|| one.source());
        }
        damaged(path, &error.to_string())
    }
}

fn damaged(path: &FilePath, why: &str) -> Fault {
    Fault::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        format!("{path} cannot be read as an archive: {why}"),
    )
    .code("BAD_ARCHIVE")
}

fn too_large(path: &FilePath, why: &str) -> Fault {
    Fault::too_large(format!("{path}: {why}")).code("ARCHIVE_TOO_LARGE")
}

/// Show every entry of an archive with its content.
fn visit(
    file: File,
    format: Format,
    path: &FilePath,
    see: &mut dyn FnMut(&Item, &mut dyn Read) -> Result<Flow, Fault>,
) -> Result<(), Fault> {
    let length = rustix::fs::fstat(&file).map_or(0, |stat| size(&stat));
    let budget = Budget::new(length);
    let file = io::BufReader::with_capacity(PIECE, file);
    match format {
        Format::Zip => zip(file, path, &budget, see),
        Format::Tar => tar(file, path, &budget, see),
        Format::TarGz => tar(
            flate2::bufread::MultiGzDecoder::new(file),
            path,
            &budget,
            see,
        ),
        Format::TarBz2 => tar(
            bzip2::bufread::MultiBzDecoder::new(file),
            path,
            &budget,
            see,
        ),
        Format::TarXz => tar(
            lzma_rust2::XzReader::new_mem_limit(file, true, XZ_KIB),
            path,
            &budget,
            see,
        ),
    }
}

fn tar(
    from: impl Read,
    path: &FilePath,
    budget: &Budget,
    see: &mut dyn FnMut(&Item, &mut dyn Read) -> Result<Flow, Fault>,
) -> Result<(), Fault> {
    use tar::EntryType;
    let broken = broken(path);
    let mut archive = tar::Archive::new(Metered {
        inner: from,
        budget: budget.clone(),
    });
    let mut count = 0;
    let mut entries = archive.entries().map_err(&broken)?;
    loop {
        budget.header.set(Some(HEADERS));
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(&broken)?;
        budget.header.set(None);
        count += 1;
        if count > ENTRIES {
            return Err(too_large(path, "it has too many entries"));
        }
        let target = || {
            entry
                .link_name_bytes()
                .map(|name| name.into_owned())
                .unwrap_or_default()
        };
        let header = entry.header();
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(target()),
            EntryType::Link => Kind::Hardlink(target()),
            EntryType::XGlobalHeader => continue,
            _ => Kind::Other,
        };
        let item = Item {
            path: entry.path_bytes().into_owned(),
            kind,
            size: entry.size(),
            packed: None,
            mode: header.mode().ok(),
            modified: header.mtime().ok(),
        };
        if see(&item, &mut entry)? == Flow::Stop {
            break;
        }
        // What was not read is passed over here, not where only headers may come.
        io::copy(&mut entry, &mut io::sink()).map_err(&broken)?;
    }
    Ok(())
}

fn zip(
    mut file: io::BufReader<File>,
    path: &FilePath,
    budget: &Budget,
    see: &mut dyn FnMut(&Item, &mut dyn Read) -> Result<Flow, Fault>,
) -> Result<(), Fault> {
    let wrong = |error: zip::result::ZipError| match error {
        zip::result::ZipError::Io(error) => broken(path)(error),
        error => damaged(path, &error.to_string()),
    };
    // Before all of its directory is read into memory.
    if announced(&mut file).map_err(broken(path))? > ENTRIES {
        return Err(too_large(path, "it has too many entries"));
    }
    let mut archive = ::zip::ZipArchive::new(file).map_err(wrong)?;
    if archive.len() > ENTRIES {
        return Err(too_large(path, "it has too many entries"));
    }
    for at in 0..archive.len() {
        let (mut item, locked) = {
            let raw = archive.by_index_raw(at).map_err(wrong)?;
            let kind = match raw.unix_mode().map(|mode| mode & 0o170_000) {
                _ if raw.is_dir() => Kind::Directory,
                Some(0o120_000) => Kind::Symlink(Vec::new()),
                Some(0o100_000 | 0) | None => Kind::File,
                Some(_) => Kind::Other,
            };
            let item = Item {
                path: raw.name_raw().to_vec(),
                kind,
                size: raw.size(),
                packed: Some(raw.compressed_size()),
                mode: raw.unix_mode(),
                modified: None,
            };
            (item, raw.encrypted())
        };
        if locked {
            if see(&item, &mut Refuses)? == Flow::Stop {
                break;
            }
            continue;
        }
        let entry = archive.by_index(at).map_err(wrong)?;
        let mut content = Metered {
            inner: entry,
            budget: budget.clone(),
        };
        if let Kind::Symlink(target) = &mut item.kind {
            Read::by_ref(&mut content)
                .take(NAME as u64)
                .read_to_end(target)
                .map_err(broken(path))?;
        }
        if see(&item, &mut content)? == Flow::Stop {
            break;
        }
    }
    Ok(())
}

/// The content of an entry that is encrypted.
struct Refuses;

impl Read for Refuses {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("an entry is encrypted"))
    }
}

/// How many entries the end of a zip archive announces.
fn announced(file: &mut (impl Read + Seek)) -> io::Result<usize> {
    const TAIL: u64 = 22 + 65_535;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    file.seek(SeekFrom::Start(0))?;
    let ends = tail
        .windows(22)
        .filter(|end| end.starts_with(b"PK\x05\x06"));
    // Whichever of several the reader takes; 65,535 says that the number is elsewhere and larger.
    Ok(ends
        .map(|end| usize::from(u16::from_le_bytes([end[10], end[11]])))
        .max()
        .unwrap_or(0))
}

fn open(files: &Files, path: &FilePath) -> Result<File, Fault> {
    let found = files
        .root
        .find(path, Links::Follow)
        .map_err(failed("read", path))?;
    if found.is_directory() {
        return Err(Fault::bad_request(format!(
            "{path} is a directory, not an archive"
        )));
    }
    found.open(OFlags::RDONLY).map_err(failed("read", path))
}

/// List an archive.
pub fn preview(files: &Files, path: &FilePath, wanted: &Wanted) -> Result<Preview, Fault> {
    let (format, _) = Format::of(path)?;
    let mut preview = Preview {
        format,
        entries: Vec::new(),
        total_files: 0,
        total_size: 0,
        total_compressed_size: (format == Format::Zip).then_some(0),
        truncated: false,
    };
    visit(open(files, path)?, format, path, &mut |item, _| {
        wanted.check()?;
        preview.total_files += 1;
        preview.total_size = preview.total_size.saturating_add(item.size);
        if let (Some(total), Some(packed)) = (&mut preview.total_compressed_size, item.packed) {
            *total = total.saturating_add(packed);
        }
        if preview.entries.len() == LISTED {
            preview.truncated = true;
            return Ok(Flow::Continue);
        }
        let (entry_type, target) = match &item.kind {
            Kind::File => ("file", None),
            Kind::Directory => ("directory", None),
            Kind::Symlink(target) => ("symlink", Some(lossy(target))),
            Kind::Hardlink(target) => ("hardlink", Some(lossy(target))),
            Kind::Other => ("other", None),
        };
        preview.entries.push(ArchiveEntry {
            path: lossy(&item.path[..item.path.len().min(NAME)]),
            is_dir: item.kind == Kind::Directory,
            entry_type,
            size: item.size,
            compressed_size: item.packed,
            permissions: item.mode.map(|mode| mode & 0o7777),
            modified_time: item.modified,
            link_target: target,
        });
        Ok(Flow::Continue)
    })?;
    Ok(preview)
}

/// The content of one file of an archive.
pub fn view(files: &Files, path: &FilePath, name: &str, wanted: &Wanted) -> Result<Vec<u8>, Fault> {
    let (format, _) = Format::of(path)?;
    let asked = parts(name.as_bytes()).ok_or_else(|| missing(path, name))?;
    let mut content = None;
    visit(open(files, path)?, format, path, &mut |item, from| {
        wanted.check()?;
        if item.kind != Kind::File || parts(&item.path).as_ref() != Some(&asked) {
            return Ok(Flow::Continue);
        }
        let mut bytes = Vec::new();
        from.take(VIEW + 1)
            .read_to_end(&mut bytes)
            .map_err(broken(path))?;
        if bytes.len() as u64 > VIEW {
            return Err(Fault::too_large(format!(
                "{name} in {path} is larger than the {VIEW} bytes that are shown; extract it"
            )));
        }
        content = Some(bytes);
        Ok(Flow::Stop)
    })?;
    content.ok_or_else(|| missing(path, name))
}

fn missing(path: &FilePath, name: &str) -> Fault {
    Fault::not_found(format!("no file {name} in {path}; list it with `preview`")).code("NOT_FOUND")
}

/// The segments of a name; none where it leads out, or is no name.
fn parts(name: &[u8]) -> Option<Vec<Vec<u8>>> {
    if name.starts_with(b"/") || name.contains(&0) || name.len() > NAME {
        return None;
    }
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => parts.push(part.to_vec()),
        }
    }
    (parts.len() <= DEPTH).then_some(parts)
}

/// Whether a link in this directory of the destination points into the destination.
fn stays(dir: &[Vec<u8>], target: &[u8]) -> bool {
    if target.is_empty() || target.starts_with(b"/") || target.contains(&0) || target.len() > NAME {
        return false;
    }
    let mut depth = dir.len();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return false,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

/// The unpackings.
#[derive(Debug, Default)]
pub struct Jobs(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    active: Vec<Arc<Job>>,
    done: VecDeque<ExtractionRecord>,
}

#[derive(Debug)]
struct Job {
    id: String,
    archive: FilePath,
    dest: FilePath,
    /// What to unpack; all where it is empty.
    only: Vec<Vec<u8>>,
    start: u64,
    files: AtomicU64,
    bytes: AtomicU64,
}

fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Jobs {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_busy(&self) -> bool {
        !self.table().active.is_empty()
    }

    pub fn active(&self) -> Extractions {
        let progress = |job: &Arc<Job>| ExtractionProgress {
            id: job.id.clone(),
            archive_path: job.archive.to_string(),
            dest_path: job.dest.to_string(),
            selective: !job.only.is_empty(),
            selective_path: job.selected(),
            status: "extracting",
            start_time: job.start,
            extracted_files: job.files.load(Ordering::Relaxed),
            extracted_bytes: job.bytes.load(Ordering::Relaxed),
            total_files: None,
            total_bytes: None,
            percentage: None,
        };
        Extractions {
            extractions: self.table().active.iter().map(progress).collect(),
        }
    }

    pub fn history(&self) -> ExtractionHistory {
        ExtractionHistory {
            history: self.table().done.iter().rev().cloned().collect(),
        }
    }
}

/// Begin to unpack an archive below the directory it is in.
pub async fn extract(
    files: &Files,
    headers: &HeaderMap,
    path: FilePath,
    only: &str,
    dest: Option<&str>,
) -> Result<ExtractionResult, Fault> {
    let (format, stem) = Format::of(&path)?;
    let only = parts(only.as_bytes())
        .ok_or_else(|| Fault::bad_request("`extract` must be a path inside of the archive"))?;
    let below = match dest.filter(|dest| !dest.is_empty()) {
        None => vec![stem],
        Some(dest) => parts(dest.as_bytes())
            .filter(|parts| !parts.is_empty())
            .ok_or_else(|| Fault::bad_request("`dest` must be a relative path without `..`"))?,
    };
    let mut target = path.parent();
    for part in &below {
        target = target.join(part);
    }
    let job = Arc::new(Job {
        id: format!("{:032x}", rand::random::<u128>()),
        archive: path.clone(),
        dest: target.clone(),
        only,
        start: now(),
        files: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    });
    let (service, headers, at, to) = (files.clone(), headers.clone(), path, target);
    let (archive, into) = files
        .work
        .short(move || {
            lock::check(&service, &headers, &at, &[(&to, Reach::Tree)])?;
            let archive = open(&service, &at)?;
            let parent = service
                .root
                .find(&at.parent(), Links::Follow)
                .map_err(failed("read", &at))?;
            // From here on no link is followed, not even one that was there before.
            let into = descend(parent.as_fd(), &below).map_err(failed("write", &to))?;
            Ok((archive, into))
        })
        .await?;
    {
        let mut table = files.extractions.table();
        if table.active.len() == ACTIVE {
            return Err(Fault::unavailable(format!(
                "{ACTIVE} archives are being extracted; wait for one of them"
            ))
            .retry_after(std::time::Duration::from_secs(5)));
        }
        table.active.push(job.clone());
    }
    let result = ExtractionResult {
        success: true,
        message: "Extraction started".to_owned(),
        extraction_id: job.id.clone(),
        destination: job.dest.to_string(),
        selective: !job.only.is_empty(),
        selective_path: job.selected(),
        extracted_files: 0,
        extracted_bytes: 0,
        error: None,
    };
    let over = Over {
        table: files.extractions.0.clone(),
        job,
        error: Some("the service stopped".to_owned()),
    };
    tokio::task::spawn_blocking(move || {
        let mut over = over;
        let job = over.job.clone();
        over.error = job
            .run(archive, format, &into)
            .err()
            .map(|fault| fault.message);
    });
    Ok(result)
}

/// Moves a job to the history when it ends, however it ends.
struct Over {
    table: Arc<Mutex<Table>>,
    job: Arc<Job>,
    error: Option<String>,
}

impl Drop for Over {
    fn drop(&mut self) {
        let job = &self.job;
        let (files, bytes) = (
            job.files.load(Ordering::Relaxed),
            job.bytes.load(Ordering::Relaxed),
        );
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.active.retain(|other| !Arc::ptr_eq(other, job));
        if table.done.len() == REMEMBERED {
            table.done.pop_front();
        }
        table.done.push_back(ExtractionRecord {
            id: job.id.clone(),
            archive_path: job.archive.to_string(),
            dest_path: job.dest.to_string(),
            selective: !job.only.is_empty(),
            selective_path: job.selected(),
            status: if self.error.is_none() {
                "completed"
            } else {
                "failed"
            },
            error: self.error.take(),
            start_time: job.start,
            end_time: Some(now()),
            extracted_files: files,
            extracted_bytes: bytes,
            total_files: files,
            total_bytes: bytes,
        });
    }
}

/// Hold a directory below another, made where it is missing; fails at a link.
fn descend(from: impl AsFd, parts: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
    let mut dir = from
        .as_fd()
        .try_clone_to_owned()
        .map_err(|_| Errno::MFILE)?;
    for part in parts {
        dir = make_directory(dir.as_fd(), part, Owner::Directory)?;
    }
    Ok(dir)
}

impl Job {
    fn selected(&self) -> Option<String> {
        (!self.only.is_empty()).then(|| lossy(&self.only.join(&b'/')))
    }

    fn run(&self, archive: File, format: Format, into: &OwnedFd) -> Result<(), Fault> {
        let mut found = false;
        visit(archive, format, &self.archive, &mut |item, from| {
            let parts = parts(&item.path).ok_or_else(|| {
                damaged(
                    &self.archive,
                    &format!(
                        "its entry {:?} leads out of it",
                        lossy(&item.path[..item.path.len().min(200)])
                    ),
                )
            })?;
            if !parts.starts_with(&self.only) || parts.is_empty() {
                return Ok(Flow::Continue);
            }
            found = true;
            self.unpack(item, &parts, from, into)?;
            Ok(Flow::Continue)
        })?;
        if !found && !self.only.is_empty() {
            return Err(missing(&self.archive, &self.selected().unwrap_or_default()));
        }
        Ok(())
    }

    fn unpack(
        &self,
        item: &Item,
        parts: &[Vec<u8>],
        from: &mut dyn Read,
        into: &OwnedFd,
    ) -> Result<(), Fault> {
        let at = parts
            .iter()
            .fold(self.dest.clone(), |path, part| path.join(part));
        let write = failed::<Errno>("write", &at);
        if item.kind == Kind::Directory {
            descend(into, parts).map_err(&write)?;
            return Ok(());
        }
        let (name, above) = parts.split_last().expect("a name has a last segment");
        if item.kind == Kind::Other {
            return Ok(()); // devices and FIFOs stay in the archive
        }
        let dir = descend(into, above).map_err(&write)?;
        let place = Place {
            dir,
            name: name.clone(),
        };
        match &item.kind {
            Kind::Symlink(target) => {
                if !stays(above, target) {
                    return Ok(()); // what points out stays in the archive
                }
                match symlinkat(target.as_slice(), &place.dir, &place.name) {
                    Err(Errno::EXIST) => return Ok(()), // nothing is replaced by a link
                    other => other.map_err(&write)?,
                }
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let link = openat(&place.dir, &place.name, flags, Mode::empty()).map_err(&write)?;
                give(link.as_fd(), place.dir.as_fd(), Owner::Directory).map_err(&write)?;
            }
            Kind::Hardlink(target) => {
                let old = self::parts(target)
                    .filter(|parts| !parts.is_empty())
                    .ok_or_else(|| damaged(&self.archive, "a link in it leads out of it"))?;
                let (old_name, old_above) = old.split_last().expect("it is not empty");
                let old_dir = descend(into, old_above).map_err(&write)?;
                match linkat(
                    &old_dir,
                    old_name,
                    &place.dir,
                    &place.name,
                    AtFlags::empty(),
                ) {
                    Err(Errno::EXIST) => return Ok(()),
                    other => other.map_err(&write)?,
                }
            }
            _ => {
                let mut draft = Draft::new(&place).map_err(&write)?;
                let mut buffer = vec![0; PIECE];
                loop {
                    let read = match from.read(&mut buffer) {
                        Ok(0) => break,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        other => other.map_err(broken(&self.archive))?,
                    };
                    draft
                        .file
                        .write_all(&buffer[..read])
                        .map_err(failed("write", &at))?;
                    self.bytes.fetch_add(read as u64, Ordering::Relaxed);
                }
                let file = draft.file.try_clone().map_err(failed("write", &at))?;
                let finish = Finish {
                    owner: Owner::Directory,
                    fsync: false,
                    replace: Replace::SameKind,
                };
                draft.settle(&place, finish).map_err(&write)?;
                if let Some(mode) = item.mode.map(|mode| mode & 0o777).filter(|mode| *mode != 0) {
                    // Never set-user-id: who packed it is not who owns it here.
                    fchmod(&file, Mode::from_raw_mode(mode)).map_err(&write)?;
                }
            }
        }
        self.files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
