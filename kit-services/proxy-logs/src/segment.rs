//! Files of lines: each entry is one line of JSON. A line without its end is one that a crash cut
//! off; it is passed over, as is anything else that is no entry.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::entry::id_of;

/// No entry is longer: its text is bounded by [`crate::capture`], and JSON makes six bytes of one
/// at most.
pub const LINE_BYTES: usize = 64 << 10;
/// The end of a file in which its last entry is looked for.
const TAIL_BYTES: u64 = 2 * LINE_BYTES as u64;
const SUFFIX: &str = "jsonl";

/// One file of a log: `{first id}-{tag of the process}.jsonl`.
#[derive(Debug, Clone)]
pub struct Segment {
    pub path: PathBuf,
    /// The id of its first entry.
    pub first: u64,
    /// Which process wrote it.
    pub tag: u32,
    pub bytes: u64,
}

impl Segment {
    /// A new one in this directory.
    pub fn new(directory: &Path, first: u64, tag: u32) -> Segment {
        Segment {
            path: directory.join(format!("{first:020}-{tag:08x}.{SUFFIX}")),
            first,
            tag,
            bytes: 0,
        }
    }

    /// Add lines to its end.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let open = || {
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)
        };
        let mut file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = self.path.parent().unwrap_or(Path::new("."));
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(directory)?;
                open()?
            }
            other => other?,
        };
        file.write_all(lines)?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// The id of its last whole entry.
    pub fn last(&self) -> io::Result<Option<u64>> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut lines = Lines::new(BufReader::new(file));
        let mut last = None;
        while let Some(line) = lines.next()? {
            last = id_of(line).or(last);
        }
        Ok(last)
    }

    /// Its lines from the start; none where the file is gone by now.
    pub fn lines(&self) -> io::Result<Option<Lines<BufReader<File>>>> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(Lines::new(BufReader::with_capacity(64 << 10, file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The segments in a directory, the oldest first; none where there is no directory.
pub fn list(directory: &Path) -> io::Result<Vec<Segment>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let parsed = name.to_str().and_then(|name| {
            let (first, rest) = name.split_once('-')?;
            let tag = rest.strip_suffix(SUFFIX)?.strip_suffix('.')?;
            Some((first.parse().ok()?, u32::from_str_radix(tag, 16).ok()?))
        });
        let Some((first, tag)) = parsed else { continue };
        match entry.metadata() {
            Ok(meta) if meta.is_file() => segments.push(Segment {
                path: entry.path(),
                first,
                tag,
                bytes: meta.len(),
            }),
            _ => {}
        }
    }
    segments.sort_by_key(|segment| (segment.first, segment.tag));
    Ok(segments)
}

/// Whole lines of a file, whatever is in it, in bounded memory.
pub struct Lines<R> {
    from: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub fn new(from: R) -> Lines<R> {
        Lines {
            from,
            line: Vec::new(),
        }
    }

    /// The next line without its end. What is longer than [`LINE_BYTES`] or has no end is passed
    /// over.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let mut fits = true;
        loop {
            let bytes = match self.from.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let part = end.unwrap_or(bytes.len());
            fits &= self.line.len() + part <= LINE_BYTES;
            if fits {
                self.line.extend_from_slice(&bytes[..part]);
            }
            self.from.consume(end.map_or(part, |end| end + 1));
            if end.is_some() {
                if fits {
                    return Ok(Some(&self.line));
                }
                self.line.clear();
                fits = true;
            }
        }
    }
}

/// Remove a file; fine where it is gone.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Remove a directory with all that is in it; fine where it is gone.
pub fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
