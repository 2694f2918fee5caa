//! Log files that never fill the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A log of this size becomes `….1`, and what was there `….2`.
const BYTES: u64 = 8 << 20; // some fifty thousand lines
/// Older files that are kept beside the one written to.
const OLDER: u32 = 3;

/// A file to append to, which is put aside when it is full. Clones write to the same.
#[derive(Debug, Clone)]
pub struct Log(Arc<Mutex<Rotating>>);

impl Log {
    pub fn open(path: &Path) -> io::Result<Log> {
        Ok(Log(Arc::new(Mutex::new(Rotating::open(
            path, BYTES, OLDER,
        )?))))
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
    most: u64,
    older: u32,
}

impl Rotating {
    fn open(path: &Path, most: u64, older: u32) -> io::Result<Rotating> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)?;
        let size = file.metadata()?.len();
        Ok(Rotating {
            path: path.to_owned(),
            file,
            size,
            most,
            older,
        })
    }

    /// All of `bytes`, in one file.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.most {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.older).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))?;
        *self = Rotating::open(&self.path, self.most, self.older)?;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// The last lines of a log, for a person who wants to know why.
pub fn tail(path: &Path, lines: usize) -> Option<String> {
    const MOST: u64 = 16 << 10;
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(MOST))).ok()?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let last = &all[all.len().saturating_sub(lines)..];
    (!last.is_empty()).then(|| last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_put_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let mut log = Rotating::open(&path, 10, 2).unwrap();
        for line in ["one------\n", "two------\n", "three----\n", "four-----\n"] {
            log.write(line.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).ok();
        assert_eq!(read("x.log").as_deref(), Some("four-----\n"));
        assert_eq!(read("x.log.1").as_deref(), Some("three----\n"));
        assert_eq!(read("x.log.2").as_deref(), Some("two------\n"));
        assert_eq!(read("x.log.3"), None);
    }

    #[test]
    fn a_log_goes_on_where_it_was_and_a_long_line_stays_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        Rotating::open(&path, 10, 2)
            .unwrap()
            .write(b"12345\n")
            .unwrap();
        let mut log = Rotating::open(&path, 10, 2).unwrap();
        log.write(b"a line longer than the limit\n").unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "a line longer than the limit\n"
        );
        assert_eq!(
            fs::read_to_string(directory.path().join("x.log.1")).unwrap(),
            "12345\n"
        );
    }

    #[test]
    fn the_tail_is_what_came_last() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        assert_eq!(tail(&path, 2), None);
        fs::write(&path, "1\n2\n3\n").unwrap();
        assert_eq!(tail(&path, 2).as_deref(), Some("2\n3"));
    }
}
