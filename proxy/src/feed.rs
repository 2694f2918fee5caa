//! The routing table: pushed by control line by line, kept on disk, published to every worker.
//!
//! Control connects, sends the whole table and then each change; every line is answered when it
//! is in effect and on disk. Without control, the last table goes on.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use routes::Id;
use routes::table::{Ack, Change, Table, Update};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::ledger::Ledger;
use crate::{Shared, logs};

/// Changes that wait in the buffer are written to disk together, at most this many.
const BATCH: usize = 256;
/// What is read from control at once.
const READ_BYTES: usize = 64 << 10;

/// Why a connection of the feed ended, other than by its end.
#[derive(Debug, thiserror::Error)]
pub enum FeedFault {
    #[error("could not read from control")]
    Read(#[source] io::Error),
    #[error("could not answer control")]
    Answer(#[source] io::Error),
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
    #[error("a line is not an update")]
    NotAnUpdate(#[source] serde_json::Error),
    #[error("the first line does not replace the table")]
    NotAReplacement,
    #[error("the generation went from {from} to {to}")]
    OutOfOrder { from: u64, to: u64 },
    #[error("could not keep the table in {path}")]
    Keep {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("user {0} may not feed the table")]
    NotControl(u32),
}

/// Bind the feed's socket: for its owner only, and in place of one that a dead proxy left.
pub fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Take connections of control, the newest in place of the one before.
pub async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    // Ends with this.
    let mut current = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "could not accept a connection of control");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Err(fault) = check(&stream) {
            warn!("{fault}");
            continue;
        }
        // Between two awaits of it nothing is half done: it may be cut off anywhere.
        current.abort_all();
        while current.join_next().await.is_some() {}
        let shared = shared.clone();
        current.spawn(async move {
            let _connected = Connected::new(shared.clone());
            info!("control is connected");
            match follow(stream, &shared).await {
                Ok(()) => info!("control is gone; the routing table stays"),
                Err(fault) => {
                    let cause = std::error::Error::source(&fault).map(ToString::to_string);
                    warn!(
                        cause,
                        "{fault}; control is disconnected, the routing table stays"
                    );
                }
            }
        });
    }
}

struct Connected(Arc<Shared>);

impl Connected {
    fn new(shared: Arc<Shared>) -> Connected {
        shared.metrics.feed_connected.inc();
        Connected(shared)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.metrics.feed_connected.dec();
    }
}

/// Only root and the proxy's own user may feed it.
pub fn check(stream: &UnixStream) -> Result<(), FeedFault> {
    let uid = stream.peer_cred().map_err(FeedFault::Read)?.uid();
    let own = rustix::process::geteuid().as_raw();
    if uid == 0 || uid == own {
        Ok(())
    } else {
        Err(FeedFault::NotControl(uid))
    }
}

async fn follow(stream: UnixStream, shared: &Shared) -> Result<(), FeedFault> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::with_capacity(READ_BYTES, read);
    let mut line = Vec::new();
    let mut first = true;
    let longest = shared.config.limits.feed_line_bytes;
    while next_line(&mut lines, &mut line, longest).await? {
        let mut table = Table::clone(&shared.table.load());
        let (mut answers, mut kept) = (Vec::new(), Vec::new());
        let mut changed = Vec::new();
        for waiting in 1.. {
            let update = read_update(&line, first, table.generation)?;
            first = false;
            let ack = Ack {
                generation: update.generation,
            };
            changed.extend(match &update.change {
                change if change.replaces() => Some(Changed::All),
                Change::Upsert(place) => Some(Changed::Placed(logs::scope(place))),
                Change::Remove(container) => Some(Changed::Gone(*container)),
                _ => None,
            });
            table.apply(update);
            Ledger::write_line(&mut kept, &line);
            serde_json::to_writer(&mut answers, &ack).expect("an answer is JSON");
            answers.push(b'\n');
            if waiting == BATCH || !lines.buffer().contains(&b'\n') {
                break;
            }
            next_line(&mut lines, &mut line, longest).await?;
        }
        shared.fed.store(true, Ordering::Release);
        publish(table, &kept, shared)?;
        for changed in changed {
            changed.tell(shared);
        }
        write.write_all(&answers).await.map_err(FeedFault::Answer)?;
    }
    Ok(())
}

/// What the logs of containers have to know of a change that is in effect.
enum Changed {
    All,
    Placed(proxy_logs::Scope),
    Gone(Id),
}

impl Changed {
    fn tell(self, shared: &Shared) {
        let store = shared.logs.store();
        match self {
            Changed::All => store.retain_known(),
            Changed::Placed(scope) => store.placed(scope),
            Changed::Gone(container) => store.remove(logs::key(container)),
        }
    }
}

/// Read one line, without its end; false where there are no more.
pub async fn next_line(
    from: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    longest: usize,
) -> Result<bool, FeedFault> {
    line.clear();
    loop {
        let bytes = from.fill_buf().await.map_err(FeedFault::Read)?;
        if bytes.is_empty() {
            return Ok(false);
        }
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let part = end.unwrap_or(bytes.len());
        if line.len() + part > longest {
            return Err(FeedFault::TooLong(longest));
        }
        line.extend_from_slice(&bytes[..part]);
        from.consume(end.map_or(part, |end| end + 1));
        if end.is_some() {
            return Ok(true);
        }
    }
}

fn read_update(line: &[u8], first: bool, generation: u64) -> Result<Update, FeedFault> {
    let update: Update = serde_json::from_slice(line).map_err(FeedFault::NotAnUpdate)?;
    let replaces = update.change.replaces();
    if first && !replaces {
        return Err(FeedFault::NotAReplacement);
    }
    if !replaces && update.generation <= generation {
        return Err(FeedFault::OutOfOrder {
            from: generation,
            to: update.generation,
        });
    }
    Ok(update)
}

/// Put the table into effect, then the changes that led to it onto disk.
fn publish(table: Table, changes: &[u8], shared: &Shared) -> Result<(), FeedFault> {
    let table = Arc::new(table);
    shared.table.store(table.clone());
    shared.changed.send_replace(());
    observe(&table, shared);
    let mut ledger = shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
    ledger
        .append(changes, &table)
        .map_err(|source| FeedFault::Keep {
            path: shared.config.table.clone(),
            source,
        })
}

pub fn observe(table: &Table, shared: &Shared) {
    shared
        .metrics
        .table_generation
        .set(table.generation.cast_signed());
    shared.metrics.table_places.set(table.places.len() as i64);
}
