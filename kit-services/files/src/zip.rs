//! A directory as a zip archive, packed while it is sent.
//!
//! The format is PKWARE's APPNOTE 6.3: sizes and checksums follow the data in descriptors, since
//! they are not known before, and files, archives and counts beyond 32 and 16 bits use zip64.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, Method};
use kit::Fault;
use rustix::fs::{FileType, OFlags, Stat, readlinkat};
use tokio::sync::mpsc;

use crate::Files;
use crate::content::attachment;
use crate::entry::{lossy, size};
use crate::fault::failed;
use crate::jail::{Links, list};
use crate::path::FilePath;
use crate::walk::{Bounds, Entry, Flow, walk};
use crate::work::Wanted;

/// How much of a tree is packed. Its directory is kept in memory until the end.
const BOUNDS: Bounds = Bounds {
    depth: 200,
    entries: 200_000,
    time: Duration::from_secs(24 * 3600),
    ignore: false,
};
/// Pieces that are packed before they are sent.
const AHEAD: usize = 4;
/// Size of a piece.
const PIECE: usize = 64 << 10;
/// How long a reader may stand still.
const SILENCE: Duration = Duration::from_secs(120);
/// From this size on a file has its sizes in 64 bits. Deflate can make data larger, a little.
const LARGE: u64 = 0xf000_0000;
/// The archive names its files in UTF-8, and has their sizes behind them.
const FLAGS: u16 = 0x0808;
const VERSION: u16 = 45;
const UNIX: u16 = 3 << 8;

/// Answer with the archive of a directory.
pub async fn respond(files: &Files, path: FilePath, method: &Method) -> Result<Response, Fault> {
    let (service, at) = (files.clone(), path.clone());
    let start = files
        .work
        .short(move || {
            let found = service
                .root
                .find(&at, Links::Follow)
                .map_err(failed("read", &at))?;
            list(&found).map_err(failed("read", &at))
        })
        .await?;
    let name = if path.is_root() { b"root" } else { path.name() };
    let disposition = attachment(&[name, b".zip"].concat());
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let runtime = tokio::runtime::Handle::current();
        let out = Pipe {
            sender,
            runtime,
            piece: Vec::with_capacity(PIECE),
        };
        files.work.pack(move || pack(start, out, &path)).await?;
        Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver))
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_DISPOSITION, disposition);
    Ok(response)
}

/// Where the archive goes: pieces of a body.
struct Pipe {
    sender: mpsc::Sender<io::Result<Bytes>>,
    runtime: tokio::runtime::Handle,
    piece: Vec<u8>,
}

impl Pipe {
    fn send(&self, piece: io::Result<Bytes>) -> io::Result<()> {
        let sent = async { tokio::time::timeout(SILENCE, self.sender.send(piece)).await };
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(()),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.send(Ok(piece.into()))
    }
}

/// Pack what is below a directory. What goes wrong breaks the body, so that nobody takes half an
/// archive for a whole one.
fn pack(start: std::os::fd::OwnedFd, out: Pipe, path: &FilePath) {
    let mut archive = Archive {
        out,
        at: 0,
        directory: Vec::new(),
        entries: 0,
    };
    let mut result = Ok(());
    let seen = walk(start, BOUNDS, &Wanted::default(), |entry| {
        result = archive.entry(entry);
        if result.is_ok() {
            Flow::Continue
        } else {
            Flow::Stop
        }
    });
    if result.is_ok() && (seen.stopped || seen.deep) {
        result = Err(io::Error::other(
            "the directory is too large or too deep to pack",
        ));
    }
    if let Err(error) = result.and_then(|()| archive.finish()) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            tracing::warn!(%path, %error, "could not pack a directory");
        }
        let _ = archive.out.send(Err(error));
    }
}

struct Archive {
    out: Pipe,
    at: u64,
    /// The central directory so far.
    directory: Vec<u8>,
    entries: u64,
}

/// One file of the archive, as its header and the central directory know it.
struct Packed {
    name: Vec<u8>,
    mode: u32,
    time: (u16, u16),
    method: u16,
    large: bool,
    offset: u64,
}

/// What becomes known while a file is packed.
#[derive(Default)]
struct Sizes {
    crc: u32,
    packed: u64,
    plain: u64,
}

impl Archive {
    fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let mut name = lossy(entry.path).into_bytes();
        match entry.kind() {
            FileType::Directory => {
                name.push(b'/');
                let packed = self.packed(name, entry.stat, 0, false);
                self.header(&packed)?;
                self.close(&packed, &Sizes::default())
            }
            FileType::Symlink => {
                let Ok(target) = readlinkat(entry.dir, entry.name, Vec::new()) else {
                    return Ok(());
                };
                let packed = self.packed(name, entry.stat, 0, false);
                self.header(&packed)?;
                let mut crc = Crc::new();
                crc.update(target.as_bytes());
                self.put(target.as_bytes())?;
                let len = target.as_bytes().len() as u64;
                self.close(
                    &packed,
                    &Sizes {
                        crc: crc.sum(),
                        packed: len,
                        plain: len,
                    },
                )
            }
            FileType::RegularFile => {
                // What cannot be opened, or has gone, is not in the archive.
                let Some(held) = entry.hold() else {
                    return Ok(());
                };
                let Ok(file) = held.open(OFlags::RDONLY) else {
                    return Ok(());
                };
                self.file(name, &held.stat, file)
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, name: Vec<u8>, stat: &Stat, file: File) -> io::Result<()> {
        let packed = self.packed(name, stat, 8, size(stat) >= LARGE);
        self.header(&packed)?;
        let begin = self.at;
        let mut crc = Crc::new();
        // Not more than it had, or its sizes might not fit the header that was sent.
        let mut file = file.take(size(stat));
        let mut buffer = vec![0; PIECE];
        let mut deflate = DeflateEncoder::new(self, Compression::fast());
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            crc.update(&buffer[..read]);
            deflate.write_all(&buffer[..read])?;
        }
        let plain = deflate.total_in();
        let archive = deflate.finish()?;
        let sizes = Sizes {
            crc: crc.sum(),
            packed: archive.at - begin,
            plain,
        };
        archive.close(&packed, &sizes)
    }

    fn packed(&self, name: Vec<u8>, stat: &Stat, method: u16, large: bool) -> Packed {
        Packed {
            name,
            mode: stat.st_mode,
            time: dos_time(stat),
            method,
            large,
            offset: self.at,
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn header(&mut self, packed: &Packed) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(64 + packed.name.len());
        put32(&mut bytes, 0x0403_4b50);
        common(&mut bytes, packed, 0);
        let unknown = if packed.large { u32::MAX } else { 0 };
        put32(&mut bytes, unknown);
        put32(&mut bytes, unknown);
        put16(&mut bytes, length(&packed.name)?);
        put16(&mut bytes, if packed.large { 20 } else { 0 });
        bytes.extend_from_slice(&packed.name);
        if packed.large {
            put16(&mut bytes, 1);
            put16(&mut bytes, 16);
            put64(&mut bytes, 0);
            put64(&mut bytes, 0);
        }
        self.put(&bytes)
    }

    fn close(&mut self, packed: &Packed, sizes: &Sizes) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(24);
        put32(&mut bytes, 0x0807_4b50);
        put32(&mut bytes, sizes.crc);
        if packed.large {
            put64(&mut bytes, sizes.packed);
            put64(&mut bytes, sizes.plain);
        } else {
            put32(&mut bytes, short(sizes.packed));
            put32(&mut bytes, short(sizes.plain));
        }
        self.put(&bytes)?;
        self.entries += 1;
        let far = packed.large || packed.offset >= u64::from(u32::MAX);
        let directory = &mut self.directory;
        put32(directory, 0x0201_4b50);
        put16(directory, UNIX | VERSION);
        common(directory, packed, sizes.crc);
        put32(directory, if far { u32::MAX } else { short(sizes.packed) });
        put32(directory, if far { u32::MAX } else { short(sizes.plain) });
        put16(directory, length(&packed.name)?);
        put16(directory, if far { 28 } else { 0 });
        put16(directory, 0); // comment
        put16(directory, 0); // disk
        put16(directory, 0); // internal attributes
        put32(directory, packed.mode << 16);
        put32(directory, if far { u32::MAX } else { short(packed.offset) });
        directory.extend_from_slice(&packed.name);
        if far {
            put16(directory, 1);
            put16(directory, 24);
            put64(directory, sizes.plain);
            put64(directory, sizes.packed);
            put64(directory, packed.offset);
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let (begin, len) = (self.at, self.directory.len() as u64);
        let mut bytes = std::mem::take(&mut self.directory);
        let many = self.entries >= u64::from(u16::MAX);
        if many || begin + len >= u64::from(u32::MAX) {
            let end = begin + len;
            put32(&mut bytes, 0x0606_4b50);
            put64(&mut bytes, 44);
            put16(&mut bytes, UNIX | VERSION);
            put16(&mut bytes, VERSION);
            put32(&mut bytes, 0);
            put32(&mut bytes, 0);
            put64(&mut bytes, self.entries);
            put64(&mut bytes, self.entries);
            put64(&mut bytes, len);
            put64(&mut bytes, begin);
            put32(&mut bytes, 0x0706_4b50);
            put32(&mut bytes, 0);
            put64(&mut bytes, end);
            put32(&mut bytes, 1);
        }
        let count = u16::try_from(self.entries).unwrap_or(u16::MAX);
        put32(&mut bytes, 0x0605_4b50);
        put32(&mut bytes, 0);
        put16(&mut bytes, count);
        put16(&mut bytes, count);
        put32(&mut bytes, short(len));
        put32(&mut bytes, short(begin));
        put16(&mut bytes, 0);
        self.put(&bytes)?;
        self.out.flush()
    }
}

impl Write for &mut Archive {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the two headers of a file have in common.
fn common(bytes: &mut Vec<u8>, packed: &Packed, crc: u32) {
    put16(bytes, VERSION);
    put16(bytes, FLAGS);
    put16(bytes, packed.method);
    put16(bytes, packed.time.0);
    put16(bytes, packed.time.1);
    put32(bytes, crc);
}

fn put16(bytes: &mut Vec<u8>, value: u16) {
    bytes.extend_from_slice(&value.to_le_bytes());
}
fn put32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend_from_slice(&value.to_le_bytes());
}
fn put64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend_from_slice(&value.to_le_bytes());
}

/// A number in the 32 bits of the old format, which are all ones where it is elsewhere.
fn short(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn length(name: &[u8]) -> io::Result<u16> {
    u16::try_from(name.len()).map_err(|_| io::Error::other("a path is too long for an archive"))
}

/// Time and date as MS-DOS had them, in UTC: two seconds apart, from 1980 to 2107.
fn dos_time(stat: &Stat) -> (u16, u16) {
    const DAY: i64 = 86_400;
    let seconds = stat.st_mtime.clamp(315_532_800, 4_354_819_198);
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = date(days);
    let time = ((second / 3600) << 11) | ((second / 60 % 60) << 5) | (second % 60 / 2);
    let date = ((year - 1980) << 9) | (month << 5) | day;
    (time as u16, date as u16)
}

/// The Gregorian date of a day counted from 1970, reckoned in years that begin in March.
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468; // from the first of March of the year 0
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let calendar = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(calendar <= 2), calendar, day)
}
