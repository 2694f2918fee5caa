//! How control tells the relay who leaves by what: the whole table as a line of JSON, answered with
//! a line. It is told again whenever it has been away.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::{Relay, RelayError, Table};

/// The longest table: some ten thousand machines.
const TABLE_BYTES: u64 = 16 << 20;
const TAKEN: &[u8] = b"taken\n";
/// How often a relay is looked for that is not there.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a table may take to be taken.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn listen(path: &Path) -> Result<UnixListener, RelayError> {
    let wrong = |source| RelayError::Listen {
        path: path.to_owned(),
        source,
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(error)),
        _ => {}
    }
    // The directory is private already; see `serve`.
    let listener = UnixListener::bind(path).map_err(wrong)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
    Ok(listener)
}

/// Take tables, from one control at a time.
pub(super) async fn serve(listener: &UnixListener, relay: &Relay) {
    loop {
        let control = match listener.accept().await {
            Ok((control, _)) => control,
            Err(error) => {
                tracing::warn!(%error, "could not accept control");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let mut lines = Lines::new(control);
        let mut next = lines.table().await;
        while let Ok(Some(table)) = next {
            relay.take(table);
            if lines.reader.get_mut().write_all(TAKEN).await.is_err() {
                break;
            }
            // A new control takes the place of one that is not heard of any more.
            next = tokio::select! {
                next = lines.table() => next,
                Ok((control, _)) = listener.accept() => {
                    lines = Lines::new(control);
                    lines.table().await
                }
            };
        }
    }
}

struct Lines {
    reader: BufReader<UnixStream>,
}

impl Lines {
    fn new(stream: UnixStream) -> Lines {
        Lines {
            reader: BufReader::new(stream),
        }
    }

    async fn table(&mut self) -> io::Result<Option<Table>> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.reader).take(TABLE_BYTES);
        bounded.read_until(b'\n', &mut line).await?;
        if !line.ends_with(b"\n") {
            return Ok(None);
        }
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(io::Error::other)
    }
}

/// Control's end: a task that keeps the relay told.
pub struct Link {
    wanted: watch::Sender<(u64, Table)>,
    taken: watch::Receiver<u64>,
}

impl Link {
    /// Tell the relay at `socket`, for as long as the link is kept.
    pub fn new(socket: PathBuf) -> Link {
        let (wanted, want) = watch::channel((0, Table::new()));
        let (done, taken) = watch::channel(0);
        tokio::spawn(keep(socket, want, done));
        Link { wanted, taken }
    }

    /// Have the relay take a table, and wait a bounded while until it has. It is told later where
    /// it is away; false says so.
    pub async fn tell(&self, table: Table) -> bool {
        let mut number = 0;
        self.wanted.send_if_modified(|wanted| {
            let news = wanted.0 == 0 || wanted.1 != table;
            if news {
                *wanted = (wanted.0 + 1, table);
            }
            number = wanted.0;
            news
        });
        let mut taken = self.taken.clone();
        let waiting = taken.wait_for(|taken| *taken >= number);
        matches!(tokio::time::timeout(PATIENCE, waiting).await, Ok(Ok(_)))
    }
}

async fn keep(socket: PathBuf, mut want: watch::Receiver<(u64, Table)>, done: watch::Sender<u64>) {
    // Nothing is said before there is something to say.
    if want.wait_for(|(number, _)| *number > 0).await.is_err() {
        return;
    }
    loop {
        let said = converse(&socket, &mut want, &done).await;
        done.send_replace(0); // the next one has to be told
        if let Err(error) = said {
            tracing::debug!(%error, "the relay is away");
        }
        if want.has_changed().is_err() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Until the relay or the link is gone.
async fn converse(
    socket: &Path,
    want: &mut watch::Receiver<(u64, Table)>,
    done: &watch::Sender<u64>,
) -> io::Result<()> {
    let mut relay = UnixStream::connect(socket).await?;
    loop {
        let (number, mut line) = {
            let wanted = want.borrow_and_update();
            (wanted.0, serde_json::to_vec(&wanted.1)?)
        };
        line.push(b'\n');
        let telling = async {
            relay.write_all(&line).await?;
            let mut answer = vec![0; TAKEN.len()];
            relay.read_exact(&mut answer).await?;
            match answer == TAKEN {
                true => Ok(()),
                false => Err(io::Error::other("the relay says something else")),
            }
        };
        tokio::time::timeout(PATIENCE, telling)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        done.send_replace(number);
        let mut byte = [0];
        tokio::select! {
            changed = want.changed() => if changed.is_err() { return Ok(()); },
            ended = relay.read(&mut byte) => {
                ended?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }
}
