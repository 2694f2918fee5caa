//! Proxies that have handed over and still serve what was under way: they follow the newest one.
//!
//! ```text
//!   old                                        new
//!    │                                          │ listens on elders.sock
//!    │ ── "f" ────────────────────────────────► │   the table: all of it, then what changes
//!    │ ◄──── updates, as control sends them ─── │
//!    │ ── "r" ────────────────────────────────► │   what to write into the logs
//!    │ ── access lines and entries ───────────► │
//! ```
//!
//! So rules that change end what goes on over the old one, too, and one process alone follows
//! control, keeps the table on disk and writes the logs. An old one that loses the newest connects
//! to whichever is there then.

use std::io::{self, Write};
use std::os::unix::net::UnixStream as Blocking;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use routes::Id;
use routes::table::{Table, Update};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use crate::{Shared, feed};

/// What an old proxy asks for.
const FEED: u8 = b'f';
const RECORDS: u8 = b'r';
/// Old proxies served at once: each is there for two minutes.
const ELDERS: usize = 16;
/// To say what it asks for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries to reach the newest proxy.
const PAUSE: Duration = Duration::from_millis(50);
/// For the newest proxy to take what is to be written; then it is lost.
const TAKING: Duration = Duration::from_secs(3);
/// One line of what is to be written: an entry of 64 KiB with every byte escaped twice fits.
const TOLD_BYTES: usize = 1 << 20;
/// Written to the newest proxy at once, at the latest.
const GATHERED_BYTES: usize = 256 << 10;

/// Something for the logs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// A line of the access log, without its end.
    Access(String),
    /// An entry of a container's log, which gets its number where it is written.
    Entry {
        project: Id,
        container: Id,
        entry: String,
    },
}

/// Serve the proxies that were before this one.
pub async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    // Ends them all when this ends: they then connect to the next one.
    let mut elders = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "could not accept a proxy that leaves");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while elders.try_join_next().is_some() {}
        // Two connections each.
        if elders.len() >= 2 * ELDERS {
            warn!("too many proxies are leaving at once");
            continue;
        }
        if let Err(fault) = feed::check(&stream) {
            warn!("{fault}");
            continue;
        }
        let shared = shared.clone();
        elders.spawn(async move {
            // One that is gone needs nothing more.
            let _ = attend(stream, &shared).await;
        });
    }
}

async fn attend(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    match timeout(PATIENCE, stream.read_u8()).await?? {
        FEED => tell(stream, shared).await,
        RECORDS => hear(stream, shared).await,
        other => Err(io::Error::other(format!("it asks for {other}"))),
    }
}

/// Send the table, and then what changes. What is on disk may be older than what the other has, so
/// nothing is sent before control has.
async fn tell(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let mut changed = shared.changed.subscribe();
    let mut sent: Option<Arc<Table>> = None;
    while !shared.fed.load(Ordering::Acquire) {
        tokio::select! {
            more = changed.changed() => if more.is_err() { return Ok(()) },
            _ = stream.read_u8() => return Ok(()),
        }
    }
    loop {
        changed.mark_unchanged();
        let table = shared.table.load_full();
        let changes = match &sent {
            None => vec![table.whole()],
            Some(before) => table.changes_since(before),
        };
        let mut lines = Vec::new();
        for change in changes {
            let generation = table.generation;
            serde_json::to_writer(&mut lines, &Update { generation, change })?;
            lines.push(b'\n');
        }
        stream.write_all(&lines).await?;
        sent = Some(table);
        tokio::select! {
            more = changed.changed() => if more.is_err() { return Ok(()) },
            // It says nothing more: this is its end.
            _ = stream.read_u8() => return Ok(()),
        }
    }
}

/// Write down what comes.
async fn hear(stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let mut lines = BufReader::with_capacity(64 << 10, stream);
    let mut line = Vec::new();
    while feed::next_line(&mut lines, &mut line, TOLD_BYTES)
        .await
        .map_err(io::Error::other)?
    {
        shared.journal.tell(serde_json::from_slice(&line)?).await;
    }
    Ok(())
}

/// Follow the newest proxy for as long as this is polled.
pub async fn follow(shared: &Shared) {
    loop {
        if let Err(error) = followed(shared).await {
            tracing::debug!(%error, "the newest proxy is away");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn followed(shared: &Shared) -> io::Result<()> {
    let mut stream = UnixStream::connect(&shared.config.elders).await?;
    stream.write_u8(FEED).await?;
    let mut lines = BufReader::with_capacity(64 << 10, stream);
    let mut line = Vec::new();
    let mut first = true;
    let longest = shared.config.limits.feed_line_bytes;
    while feed::next_line(&mut lines, &mut line, longest)
        .await
        .map_err(io::Error::other)?
    {
        let update: Update = serde_json::from_slice(&line)?;
        if std::mem::take(&mut first) && !update.change.replaces() {
            return Err(io::Error::other("the first line is not a whole table"));
        }
        let mut table = Table::clone(&shared.table.load());
        table.apply(update);
        feed::observe(&table, shared);
        shared.table.store(Arc::new(table));
        shared.changed.send_replace(());
    }
    Ok(())
}

/// The way of what is to be written to the newest proxy. For the thread of the logs: it waits.
#[derive(Debug)]
pub struct Link {
    path: PathBuf,
    stream: Option<Blocking>,
    /// Whole lines, of which so many bytes are sent.
    lines: Vec<u8>,
    sent: usize,
}

impl Link {
    pub fn new(path: PathBuf) -> Link {
        Link {
            path,
            stream: None,
            lines: Vec::new(),
            sent: 0,
        }
    }

    /// Send this with the next flush. Says how many are lost, like [`Link::flush`].
    pub fn tell(&mut self, told: &Told) -> u64 {
        serde_json::to_writer(&mut self.lines, told).expect("it is JSON");
        self.lines.push(b'\n');
        match self.lines.len() >= GATHERED_BYTES {
            true => self.flush(),
            false => 0,
        }
    }

    /// Send what is gathered. What nobody takes in time is lost: says how many.
    pub fn flush(&mut self) -> u64 {
        let until = Instant::now() + TAKING;
        while self.sent < self.lines.len() {
            match self.send() {
                Ok(()) => break,
                Err(_) if Instant::now() < until => {
                    self.stream = None;
                    // Of a line that was cut off nothing was read.
                    let sent = &self.lines[..self.sent];
                    let whole = sent.iter().rposition(|&byte| byte == b'\n');
                    self.sent = whole.map_or(0, |at| at + 1);
                    std::thread::sleep(PAUSE);
                }
                Err(error) => {
                    warn!(%error, "nobody takes what a proxy that leaves has for the logs");
                    self.stream = None;
                    break;
                }
            }
        }
        let lost = self.lines[self.sent..].iter();
        let lost = lost.filter(|&&byte| byte == b'\n').count() as u64;
        (self.lines, self.sent) = (Vec::new(), 0);
        lost
    }

    fn send(&mut self) -> io::Result<()> {
        if self.stream.is_none() {
            let mut stream = Blocking::connect(&self.path)?;
            stream.set_write_timeout(Some(TAKING))?;
            stream.write_all(&[RECORDS])?;
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut().expect("it was just made");
        while self.sent < self.lines.len() {
            match stream.write(&self.lines[self.sent..])? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => self.sent += sent,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn told(text: &str) -> Told {
        Told::Access(text.to_owned())
    }

    /// What comes over one connection, in order.
    fn heard(listener: &UnixListener, lines: usize) -> Vec<String> {
        let (stream, _) = listener.accept().expect("a connection");
        let mut read = BufReader::new(stream);
        let mut asked = [0];
        io::Read::read_exact(&mut read, &mut asked).expect("a word");
        assert_eq!(asked, [RECORDS]);
        let lines = read.lines().take(lines);
        lines
            .map(
                |line| match serde_json::from_str(&line.expect("a line")).expect("JSON") {
                    Told::Access(text) => text,
                    Told::Entry { entry, .. } => entry,
                },
            )
            .collect()
    }

    /// Whoever takes its lines may be replaced by another, and come late.
    #[test]
    fn a_link_finds_whoever_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("elders.sock");
        let mut link = Link::new(path.clone());
        let late = std::thread::spawn({
            let path = path.clone();
            move || {
                std::thread::sleep(3 * PAUSE);
                let listener = UnixListener::bind(&path).expect("a socket");
                let first = heard(&listener, 2);
                std::fs::remove_file(&path).expect("it is there");
                first
            }
        });
        assert_eq!(link.tell(&told("one")), 0);
        assert_eq!(link.tell(&told("two\nlines")), 0);
        assert_eq!(link.flush(), 0);
        assert_eq!(late.join().expect("no panic"), ["one", "two\nlines"]);
        let listener = UnixListener::bind(&path).expect("a socket");
        let next = std::thread::spawn(move || heard(&listener, 1));
        link.tell(&told("three"));
        assert_eq!(link.flush(), 0);
        assert_eq!(next.join().expect("no panic"), ["three"]);
    }
}
