//! Bytes on their way in.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::StreamExt;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use kit::Fault;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, fstatvfs, openat, unlinkat};
use rustix::io::Errno;

use crate::Files;
use crate::conditions::{Validator, Verdict, weigh};
use crate::dav::lock::{self, Reach};
use crate::draft::{Draft, Finish, Replace};
use crate::entry::size;
use crate::fault::failed;
use crate::jail::{FILE_MODE, Links, Owner, Place, give, privileged};
use crate::path::FilePath;

/// What is gathered of a body before it is written; also what an upload holds in memory.
const GATHER: usize = 256 << 10;
/// How long a sender may be silent.
const SILENCE: Duration = Duration::from_secs(120);
/// How often the opening of a file is tried again that others remove and make meanwhile.
const OPENINGS: u32 = 8;

/// How to write.
#[derive(Debug)]
pub struct Wish {
    pub owner: Owner,
    /// Answer only when it is on the disk.
    pub fsync: bool,
    /// The headers of the request, for its conditions and its size.
    pub headers: HeaderMap,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Size of the file now.
    pub size: u64,
    /// Its state now.
    pub validator: Validator,
}

impl Written {
    fn of(stat: &Stat) -> Written {
        Written {
            size: size(stat),
            validator: Validator::of(stat),
        }
    }
}

/// A body, a piece at a time.
struct Pieces {
    body: BodyDataStream,
    ended: bool,
}

impl Pieces {
    fn new(body: Body) -> Self {
        Pieces {
            body: body.into_data_stream(),
            ended: false,
        }
    }

    /// The next piece, of about [`GATHER`] bytes; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Fault> {
        let (mut piece, mut gathered) = (Vec::new(), 0);
        while !self.ended && gathered < GATHER {
            match tokio::time::timeout(SILENCE, self.body.next()).await {
                Err(_) => {
                    return Err(Fault::new(
                        StatusCode::REQUEST_TIMEOUT,
                        format!(
                            "nothing came for {} s; the upload was given up",
                            SILENCE.as_secs()
                        ),
                    ));
                }
                Ok(None) => self.ended = true,
                Ok(Some(Err(_))) => {
                    return Err(Fault::bad_request(
                        "the upload broke off; the file is as it was",
                    ));
                }
                Ok(Some(Ok(bytes))) => {
                    gathered += bytes.len();
                    piece.push(bytes);
                }
            }
        }
        Ok(if piece.is_empty() { None } else { Some(piece) })
    }
}

/// Write a file. It appears, or replaces the old one, when all of it has come.
pub async fn put(files: &Files, path: &FilePath, body: Body, wish: Wish) -> Result<Written, Fault> {
    let announced = content_length(&wish.headers);
    let finish = Finish {
        owner: wish.owner,
        fsync: wish.fsync,
        replace: Replace::SameKind,
    };
    let headers = wish.headers.clone();
    let (service, at) = (files.clone(), path.clone());
    let (place, mut draft) = files
        .work
        .short(move || {
            lock::check(&service, &headers, &at, &[(&at, Reach::Content)])?;
            let place = place(&service, &at, wish.owner)?;
            writable(&place, &at)?;
            conditions(&place, &at, &headers)?;
            room(&place, &at, announced)?;
            let draft = Draft::new(&place).map_err(failed("write", &at))?;
            Ok((place, draft))
        })
        .await?;
    let mut pieces = Pieces::new(body);
    while let Some(piece) = pieces.next().await? {
        let at = path.clone();
        draft = files
            .work
            .short(move || {
                for bytes in &piece {
                    draft.file.write_all(bytes).map_err(failed("write", &at))?;
                }
                Ok(draft)
            })
            .await?;
    }
    let (service, at, headers) = (files.clone(), path.clone(), wish.headers);
    files
        .work
        .short(move || {
            // An upload takes time, in which others write and lock too.
            lock::check(&service, &headers, &at, &[(&at, Reach::Content)])?;
            conditions(&place, &at, &headers)?;
            let stat = draft.settle(&place, finish).map_err(failed("write", &at))?;
            Ok(Written::of(&stat))
        })
        .await
}

/// Add to the end of a file, which is made where it is missing. If the body breaks off or the disk
/// is full, the file is as long as before.
pub async fn append(
    files: &Files,
    path: &FilePath,
    body: Body,
    wish: Wish,
) -> Result<Written, Fault> {
    let announced = content_length(&wish.headers);
    let (service, at, headers) = (files.clone(), path.clone(), wish.headers.clone());
    let mut growing = files
        .work
        .short(move || {
            lock::check(&service, &headers, &at, &[(&at, Reach::Content)])?;
            let place = place(&service, &at, wish.owner)?;
            conditions(&place, &at, &headers)?;
            room(&place, &at, announced)?;
            Growing::open(&service, place, &at, wish.owner)
        })
        .await?;
    let mut pieces = Pieces::new(body);
    while let Some(piece) = pieces.next().await? {
        let at = path.clone();
        growing = files
            .work
            .short(move || {
                for bytes in &piece {
                    growing.add(bytes).map_err(failed("write", &at))?;
                }
                Ok(growing)
            })
            .await?;
    }
    let at = path.clone();
    files
        .work
        .short(move || {
            if wish.fsync {
                growing.file.sync_all().map_err(failed("write", &at))?;
            }
            growing.complete = true;
            let stat = fstat(&growing.file).map_err(failed("write", &at))?;
            Ok(Written::of(&stat))
        })
        .await
}

/// Overwrite bytes within a file, from `first` to `last` or to the end of the file. The bytes that
/// came before a failure stay written.
pub async fn overwrite(
    files: &Files,
    path: &FilePath,
    body: Body,
    (first, last): (u64, Option<u64>),
    wish: Wish,
) -> Result<(), Fault> {
    let announced = content_length(&wish.headers);
    let (service, at, headers) = (files.clone(), path.clone(), wish.headers.clone());
    let (file, _writing, end) = files
        .work
        .short(move || {
            lock::check(&service, &headers, &at, &[(&at, Reach::Content)])?;
            let found = service.root.find(&at, Links::Follow).map_err(failed("read", &at))?;
            if found.is_directory() {
                return Err(failed("write", &at)(Errno::ISDIR));
            }
            weigh_or_fail(&headers, Some(&Validator::of(&found.stat)))?;
            let file = found.open(OFlags::WRONLY).map_err(failed("write", &at))?;
            let writing = service.writers.begin(&file, &at)?;
            let size = size(&fstat(&file).map_err(failed("read", &at))?);
            let end = last.map_or(size, |last| last.saturating_add(1));
            if first >= size || end > size {
                return Err(Fault::new(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    format!("{at} has {size} bytes and a range must lie within them; append to make it longer"),
                ));
            }
            Ok((file, writing, end))
        })
        .await?;
    let wrong = || Fault::bad_request("the body is not as long as the range that it should fill");
    if announced.is_some_and(|announced| {
        announced > end - first || last.is_some() && announced < end - first
    }) {
        return Err(wrong());
    }
    let (file, mut pieces, mut to) = (Arc::new(file), Pieces::new(body), first);
    while let Some(piece) = pieces.next().await? {
        let (file, at) = (file.clone(), path.clone());
        to = files
            .work
            .short(move || {
                let mut to = to;
                for bytes in &piece {
                    if to + bytes.len() as u64 > end {
                        return Err(wrong());
                    }
                    file.write_all_at(bytes, to).map_err(failed("write", &at))?;
                    to += bytes.len() as u64;
                }
                Ok(to)
            })
            .await?;
    }
    if last.is_some() && to != end {
        return Err(wrong());
    }
    if wish.fsync {
        let at = path.clone();
        files
            .work
            .short(move || file.sync_all().map_err(failed("write", &at)))
            .await?;
    }
    Ok(())
}

/// Make an empty file, or give one that is there the present time.
pub fn touch(files: &Files, path: &FilePath, owner: Owner) -> Result<(), Fault> {
    let place = place(files, path, owner)?;
    if place.stat().map_err(failed("write", path))?.is_some() {
        let now = rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        };
        let times = rustix::fs::Timestamps {
            last_access: now,
            last_modification: now,
        };
        rustix::fs::utimensat(&place.dir, &place.name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("touch", path))?;
        return Ok(());
    }
    let growing = Growing::open(files, place, path, owner)?;
    growing.keep();
    Ok(())
}

/// A file that grows at its end, and shrinks back if it is not completed.
struct Growing {
    file: File,
    place: Place,
    before: u64,
    added: u64,
    created: bool,
    complete: bool,
    _writing: Writing,
}

impl Growing {
    fn open(files: &Files, place: Place, path: &FilePath, owner: Owner) -> Result<Growing, Fault> {
        let write = failed::<Errno>("write", path);
        for _ in 0..OPENINGS {
            let (file, created) = match place.stat().map_err(&write)? {
                None => {
                    let flags = OFlags::WRONLY
                        | OFlags::APPEND
                        | OFlags::CREATE
                        | OFlags::EXCL
                        | OFlags::CLOEXEC;
                    match openat(&place.dir, &place.name, flags, FILE_MODE) {
                        Err(Errno::EXIST) => continue,
                        other => (File::from(other.map_err(&write)?), true),
                    }
                }
                Some(_) => {
                    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let found = match openat(&place.dir, &place.name, flags, Mode::empty()) {
                        Err(Errno::NOENT) => continue,
                        other => {
                            crate::jail::Jailed::new(other.map_err(&write)?).map_err(&write)?
                        }
                    };
                    if found.is_directory() {
                        return Err(write(Errno::ISDIR));
                    }
                    (
                        found
                            .open(OFlags::WRONLY | OFlags::APPEND)
                            .map_err(&write)?,
                        false,
                    )
                }
            };
            if created {
                use std::os::fd::AsFd;
                give(file.as_fd(), place.dir.as_fd(), owner).map_err(&write)?;
            }
            let writing = files.writers.begin(&file, path)?;
            let before = size(&fstat(&file).map_err(&write)?);
            return Ok(Growing {
                file,
                place,
                before,
                added: 0,
                created,
                complete: false,
                _writing: writing,
            });
        }
        Err(write(Errno::AGAIN))
    }

    /// Counts what was written also where not all was: that much is to be taken back.
    fn add(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.added += written as u64;
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn keep(mut self) {
        self.complete = true;
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        // Only what is surely ours is taken back: programs of the computer may append as well.
        let ours = fstat(&self.file).is_ok_and(|stat| size(&stat) == self.before + self.added);
        if self.created && ours {
            let _ = unlinkat(&self.place.dir, &self.place.name, AtFlags::empty());
        } else if ours {
            let _ = self.file.set_len(self.before);
        }
    }
}

/// The files that requests are writing to in place, each by one at a time.
#[derive(Debug, Default)]
pub struct Writers(Arc<Mutex<HashSet<(u64, u64)>>>);

struct Writing {
    writers: Arc<Mutex<HashSet<(u64, u64)>>>,
    file: (u64, u64),
}

impl Writers {
    fn begin(&self, file: &File, path: &FilePath) -> Result<Writing, Fault> {
        let stat = fstat(file).map_err(failed("write", path))?;
        let file = (stat.st_dev, stat.st_ino);
        if !self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(file)
        {
            return Err(Fault::conflict(format!(
                "another request is writing to {path}; try again when it is done"
            ))
            .code("BUSY"));
        }
        Ok(Writing {
            writers: self.0.clone(),
            file,
        })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.file);
    }
}

/// Where the file goes; directories above it are made where they are missing.
fn place(files: &Files, path: &FilePath, owner: Owner) -> Result<Place, Fault> {
    if path.directory || path.is_root() {
        return Err(Fault::conflict(format!(
            "{path} names a directory; a file needs a name without a slash at its end"
        ))
        .code("IS_A_DIRECTORY"));
    }
    match files.root.place(path, Links::Follow) {
        Err(Errno::NOENT) => {
            files
                .root
                .directory(&path.parent(), owner)
                .map_err(failed("write", path))?;
            files
                .root
                .place(path, Links::Follow)
                .map_err(failed("write", path))
        }
        other => other.map_err(failed("write", path)),
    }
}

/// Refuse what no file can replace.
fn writable(place: &Place, path: &FilePath) -> Result<(), Fault> {
    let Some(stat) = place.stat().map_err(failed("write", path))? else {
        return Ok(());
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Symlink => {}
        FileType::Directory => return Err(failed("write", path)(Errno::ISDIR)),
        _ => return Err(failed("write", path)(Errno::OPNOTSUPP)),
    }
    if !privileged() {
        // A rename would get around the permissions of the file itself.
        let write = rustix::fs::Access::WRITE_OK;
        rustix::fs::accessat(&place.dir, &place.name, write, AtFlags::empty())
            .map_err(failed("write", path))?;
    }
    Ok(())
}

fn conditions(place: &Place, path: &FilePath, headers: &HeaderMap) -> Result<(), Fault> {
    let there = place.stat().map_err(failed("read", path))?;
    weigh_or_fail(headers, there.as_ref().map(Validator::of).as_ref())
}

fn weigh_or_fail(headers: &HeaderMap, there: Option<&Validator>) -> Result<(), Fault> {
    if weigh(headers, there, false) == Verdict::Proceed {
        return Ok(());
    }
    Err(Fault::new(
        StatusCode::PRECONDITION_FAILED,
        "the file is not in the state that the request names",
    )
    .code("PRECONDITION_FAILED"))
}

/// Refuse at once what cannot fit, before it is sent.
fn room(place: &Place, path: &FilePath, announced: Option<u64>) -> Result<(), Fault> {
    let (Some(announced), Ok(space)) = (announced, fstatvfs(&place.dir)) else {
        return Ok(());
    };
    let free = if privileged() {
        space.f_bfree
    } else {
        space.f_bavail
    };
    // A file system that counts no blocks says nothing about its room.
    if space.f_blocks > 0 && announced > free.saturating_mul(space.f_frsize) {
        return Err(failed("write", path)(Errno::NOSPC));
    }
    Ok(())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
