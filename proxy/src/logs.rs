//! The access log: one JSON object a line, one line a request, written by a thread of its own.
//!
//! It is the only place where whole ids are written down. Bodies never are, and the values of
//! query parameters that look like secrets are not.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use routes::Id;
use serde::Serialize;
use tracing::error;

use crate::config::AccessLog;

/// Lines that wait to be written. Where the disk is slower than that, lines are dropped and
/// counted: the log never holds up a request.
const QUEUE: usize = 8_192;
/// How long the writer lets lines gather before it looks again: to wake it for each would cost the
/// request more than all else that is done for the log.
const GATHER: Duration = Duration::from_millis(20);
/// A longer path and query is cut.
const TARGET_BYTES: usize = 2_048;

/// One request, when it is over.
#[derive(Debug, Serialize)]
pub struct Record {
    pub time: jiff::Timestamp,
    pub client: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub scheme: &'static str,
    pub http: &'static str,
    pub method: String,
    pub target: String,
    /// 499: the client left before the answer.
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration_ms: f64,
    /// Until the upstream's headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<f64>,
    /// The code of the proxy's own answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<&'static str>,
    /// What went wrong, and on which side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub websocket: bool,
}

/// Where requests are written down.
#[derive(Debug)]
pub struct Journal {
    sender: Option<SyncSender<Box<Record>>>,
}

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("could not open the access log {path}")]
pub struct OpenLog {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

impl Journal {
    /// Open the log and start its writer, which ends when the journal is dropped.
    pub fn open(
        log: &AccessLog,
        most_bytes: u64,
    ) -> Result<(Journal, Option<JoinHandle<()>>), OpenLog> {
        let sink = match log {
            AccessLog::Off => return Ok((Journal { sender: None }, None)),
            AccessLog::Stdout => Sink::Stdout(io::stdout()),
            AccessLog::File(path) => {
                Sink::File(LogFile::open(path, most_bytes).map_err(|source| OpenLog {
                    path: path.clone(),
                    source,
                })?)
            }
        };
        let (sender, receiver) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_down(&receiver, sink))
            .map_err(|source| OpenLog {
                path: "(thread)".into(),
                source,
            })?;
        Ok((
            Journal {
                sender: Some(sender),
            },
            Some(writer),
        ))
    }

    pub fn is_on(&self) -> bool {
        self.sender.is_some()
    }

    /// Write a request down; false where the writer is behind.
    pub fn write(&self, record: Box<Record>) -> bool {
        self.sender
            .as_ref()
            .is_none_or(|sender| sender.try_send(record).is_ok())
    }
}

enum Sink {
    Stdout(io::Stdout),
    File(LogFile),
}

impl Sink {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout(out) => out.write_all(line),
            Sink::File(file) => file.line(line),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Stdout(out) => out.flush(),
            Sink::File(file) => file.file.flush(),
        }
    }
}

struct LogFile {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    most: u64,
}

impl LogFile {
    fn open(path: &Path, most: u64) -> io::Result<LogFile> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let bytes = file.metadata()?.len();
        Ok(LogFile {
            path: path.to_owned(),
            file: BufWriter::new(file),
            bytes,
            most,
        })
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes >= self.most {
            self.file.flush()?;
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            *self = LogFile::open(&self.path, self.most)?;
        }
        self.bytes += line.len() as u64;
        self.file.write_all(line)
    }
}

fn write_down(records: &Receiver<Box<Record>>, mut sink: Sink) {
    let mut line = Vec::with_capacity(1_024);
    let mut broken = false;
    let mut write = |record: Option<Box<Record>>| {
        let done = match record {
            Some(record) => {
                line.clear();
                serde_json::to_writer(&mut line, &record).expect("a record is JSON");
                line.push(b'\n');
                sink.line(&line)
            }
            None => sink.flush(),
        };
        // Said once, and again after it has worked meanwhile.
        match done {
            Ok(()) => broken = false,
            Err(error) if !broken => {
                broken = true;
                error!(%error, "could not write the access log");
            }
            Err(_) => {}
        }
    };
    loop {
        match records.try_recv() {
            Ok(record) => write(Some(record)),
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                write(None);
                match records.recv() {
                    Ok(record) => write(Some(record)),
                    Err(_) => break,
                }
                std::thread::sleep(GATHER);
            }
        }
    }
    write(None);
}

/// What in the name of a query parameter says that its value is a secret.
const SECRET: &[&str] = &[
    "token",
    "secret",
    "pass",
    "key",
    "auth",
    "sig",
    "jwt",
    "cred",
    "session",
    "cookie",
    "code",
    "ticket",
    "otp",
    "hoody_link",
];

/// The path and query as the log may hold them: without the values of parameters that look like
/// secrets, or are `known` to be.
pub fn redact(target: &str, known: &[String]) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut shown = String::with_capacity(target.len().min(TARGET_BYTES));
    shown.push_str(path);
    for (at, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        shown.push(if at == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) if is_secret(name) || known.iter().any(|it| it == name) => {
                shown.push_str(name);
                shown.push_str("=***");
            }
            _ => shown.push_str(pair),
        }
        if shown.len() > TARGET_BYTES {
            break;
        }
    }
    if shown.len() > TARGET_BYTES {
        let cut = (0..=TARGET_BYTES)
            .rev()
            .find(|&at| shown.is_char_boundary(at))
            .unwrap_or(0);
        shown.truncate(cut);
        shown.push('…');
    }
    shown
}

fn is_secret(name: &str) -> bool {
    // A name that hides behind escapes is not given the benefit of the doubt.
    let name: Cow<'_, str> = match name.contains('%') {
        true => return true,
        false => name.to_ascii_lowercase().into(),
    };
    SECRET.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_written_down() {
        let cases = [
            ("/", "/"),
            ("/a?b=c", "/a?b=c"),
            (
                "/ws?terminal_id=1&token=hdy_abc&cols=80",
                "/ws?terminal_id=1&token=***&cols=80",
            ),
            (
                "/?Access_Token=x&X-Amz-Signature=y",
                "/?Access_Token=***&X-Amz-Signature=***",
            ),
            ("/?%74oken=x", "/?%74oken=***"),
            ("/?flag&&x=1", "/?flag&x=1"),
            ("/?api_key=", "/?api_key=***"),
        ];
        for (target, shown) in cases {
            assert_eq!(redact(target, &[]), shown, "{target}");
        }
        assert_eq!(redact("/?k=1&x=2", &["k".into()]), "/?k=***&x=2");
        assert!(redact(&format!("/{}", "é".repeat(4_000)), &[]).len() <= TARGET_BYTES + 3);
    }

    #[test]
    fn the_file_is_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("logs/access.log");
        let mut file = LogFile::open(&path, 100).expect("a file");
        for _ in 0..50 {
            file.line(&[b'x'; 10]).expect("written");
        }
        file.file.flush().expect("flushed");
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        assert!(size(&path) <= 100);
        assert_eq!(size(&path.with_extension("log.1")), 100);
    }
}
