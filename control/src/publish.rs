//! What the proxy is told: the routing table, over the feed's socket.
//!
//! The reconciler sets what should be known; one task connects, sends everything first and then
//! what changed, and waits for the proxy's word that it has it on disk. What waits to be sent is
//! never more than the table itself, and a proxy that is away holds nobody up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use routes::Id;
use routes::table::{Ack, Change, Place, Update};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

/// With more changes than this at once, everything is sent again.
const CHANGES: usize = 16;
/// The proxy writes to disk before it answers.
const ANSWER: Duration = Duration::from_secs(10);
const RETRY_LEAST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// An answer of the proxy is a number.
const LINE: usize = 4096;

/// The routing table as it should be.
pub struct Publisher {
    table: Mutex<Wanted>,
    changed: Notify,
    /// Up to which change the proxy is; nothing while it is away.
    taken: watch::Sender<Option<u64>>,
}

struct Wanted {
    places: BTreeMap<Id, Place>,
    /// Counts changes of `places`.
    change: u64,
    /// Numbers what is sent; grows over restarts, too, because it begins with the time.
    generation: u64,
    /// Whether the table is whole: a part of it would cut off what the proxy serves by itself.
    open: bool,
    /// What was set before the table was whole.
    touched: BTreeSet<Id>,
}

#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("could not connect")]
    Connect(#[source] std::io::Error),
    #[error("could not write or read a line")]
    Line(#[from] LinesCodecError),
    #[error("the proxy did not answer in time")]
    Silent,
    #[error("the proxy closed the connection")]
    Closed,
    #[error("the proxy answered something else than asked")]
    Nonsense,
}

impl Publisher {
    pub fn new(generation: u64) -> Publisher {
        let wanted = Wanted {
            places: BTreeMap::new(),
            change: 0,
            generation,
            open: false,
            touched: BTreeSet::new(),
        };
        Publisher {
            table: Mutex::new(wanted),
            changed: Notify::new(),
            taken: watch::Sender::new(None),
        }
    }

    fn table(&self) -> MutexGuard<'_, Wanted> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table is whole with these places. What was set in the meantime is newer and stays.
    pub fn open(&self, places: Vec<Place>) {
        let mut table = self.table();
        if table.open {
            return;
        }
        let touched = std::mem::take(&mut table.touched);
        for place in places {
            if !touched.contains(&place.container) {
                table.places.insert(place.container, place);
            }
        }
        table.change += 1;
        table.open = true;
        self.changed.notify_one();
    }

    pub fn is_open(&self) -> bool {
        self.table().open
    }

    /// Say where a container is, or with nothing that it is nowhere.
    pub fn set(&self, container: Id, place: Option<Place>) {
        let mut table = self.table();
        if !table.open {
            table.touched.insert(container);
        }
        let known = table.places.get(&container);
        if known == place.as_ref() {
            return;
        }
        match place {
            Some(place) => table.places.insert(container, place),
            None => table.places.remove(&container),
        };
        table.change += 1;
        self.changed.notify_one();
    }

    pub fn get(&self, container: Id) -> Option<Place> {
        self.table().places.get(&container).cloned()
    }

    /// Everything that should be known.
    pub fn places(&self) -> Vec<Place> {
        self.table().places.values().cloned().collect()
    }

    /// Wait until the proxy has taken all changes so far; not while it is away, and not for long.
    pub async fn settled(&self, patience: Duration) {
        let change = self.table().change;
        let mut taken = self.taken.subscribe();
        let caught_up = taken.wait_for(|taken| taken.is_none_or(|taken| taken >= change));
        tokio::time::timeout(patience, caught_up).await.ok();
    }

    /// Feed the proxy at `socket` for as long as this is polled.
    pub async fn run(&self, socket: &Path, taken: impl Fn(u64)) {
        let mut wait = RETRY_LEAST;
        loop {
            while !self.is_open() {
                self.changed.notified().await;
            }
            let mut greeted = false;
            let error = match self.feed(socket, &mut greeted, &taken).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            self.taken.send_replace(None);
            if greeted {
                tracing::warn!(error = %crate::auth::chain(&error), "lost the proxy; connecting again");
                wait = RETRY_LEAST;
            } else {
                tracing::debug!(error = %crate::auth::chain(&error), "the proxy is away");
                wait = (wait * 2).min(RETRY_MOST);
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn feed(
        &self,
        socket: &Path,
        greeted: &mut bool,
        taken: &impl Fn(u64),
    ) -> Result<std::convert::Infallible, FeedError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(FeedError::Connect)?;
        let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(LINE));
        let mut sent: Option<BTreeMap<Id, Place>> = None;
        loop {
            let (updates, change) = self.due(&mut sent);
            if let Some(last) = updates.last().map(|update| update.generation) {
                for update in &updates {
                    let line = serde_json::to_string(update).expect("updates are plain JSON");
                    lines.feed(line).await?;
                }
                SinkExt::<String>::flush(&mut lines).await?;
                loop {
                    let answer = tokio::time::timeout(ANSWER, lines.next()).await;
                    let line = answer
                        .map_err(|_| FeedError::Silent)?
                        .ok_or(FeedError::Closed)??;
                    let ack: Ack = serde_json::from_str(&line).map_err(|_| FeedError::Nonsense)?;
                    if ack.generation >= last {
                        break;
                    }
                }
                taken(u64::try_from(updates.len()).unwrap_or(u64::MAX));
                if !*greeted {
                    tracing::info!(
                        containers = sent.as_ref().map_or(0, BTreeMap::len),
                        "the proxy has the routing table"
                    );
                    *greeted = true;
                }
            }
            self.taken.send_replace(Some(change));
            tokio::select! {
                () = self.changed.notified() => {}
                line = lines.next() => {
                    return Err(match line {
                        Some(Err(error)) => error.into(),
                        Some(Ok(_)) => FeedError::Nonsense,
                        None => FeedError::Closed,
                    });
                }
            }
        }
    }

    /// What has to be sent to one who knows `sent`, which is brought up to date; and the number
    /// of the change that this leads to.
    fn due(&self, sent: &mut Option<BTreeMap<Id, Place>>) -> (Vec<Update>, u64) {
        let mut table = self.table();
        let changes = match sent {
            None => vec![Change::Replace(table.places.values().cloned().collect())],
            Some(sent) => {
                let mut changes = Vec::new();
                for (id, place) in &table.places {
                    if sent.get(id) != Some(place) {
                        changes.push(Change::Upsert(place.clone()));
                    }
                }
                for id in sent.keys().filter(|id| !table.places.contains_key(id)) {
                    changes.push(Change::Remove(*id));
                }
                if changes.len() > CHANGES {
                    changes = vec![Change::Replace(table.places.values().cloned().collect())];
                }
                changes
            }
        };
        let mut updates = Vec::with_capacity(changes.len());
        for change in changes {
            table.generation += 1;
            updates.push(Update {
                generation: table.generation,
                change,
            });
        }
        *sent = Some(table.places.clone());
        (updates, table.change)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use routes::table::{Owners, State, Table};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixListener;

    use super::*;

    fn place(n: u8, state: State) -> Place {
        Place {
            container: Id([n; 12]),
            project: Id([0; 12]),
            name: format!("c{n}"),
            state,
            incarnation: 1,
            directory: PathBuf::from("/x"),
            owners: Owners { base: 0, count: 1 },
            access: None,
            links: None,
            hooks: None,
        }
    }

    /// A proxy that keeps a table and hangs up after `lines` lines.
    async fn proxy(listener: &UnixListener, table: &mut Table, lines: usize) {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read).lines();
        for _ in 0..lines {
            let update: Update =
                serde_json::from_str(&read.next_line().await.unwrap().unwrap()).unwrap();
            assert!(update.generation > table.generation, "generations grow");
            table.apply(update);
            let ack = serde_json::to_string(&Ack {
                generation: table.generation,
            })
            .unwrap();
            write
                .write_all(format!("{ack}\n").as_bytes())
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn the_proxy_ends_with_the_same_table_whenever_it_comes() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("feed.sock");
        let publisher = Arc::new(Publisher::new(100));
        let feeding = tokio::spawn({
            let (publisher, socket) = (publisher.clone(), socket.clone());
            async move { publisher.run(&socket, |_| {}).await }
        });
        publisher.open(vec![place(1, State::Creating)]);
        publisher.settled(Duration::from_secs(5)).await; // the proxy is away: no wait

        let listener = UnixListener::bind(&socket).unwrap();
        let mut table = Table::default();
        proxy(&listener, &mut table, 1).await;
        assert_eq!(table.places[&Id([1; 12])].state, State::Creating);

        // Changes while it is away arrive with the next connection.
        publisher.set(Id([1; 12]), None);
        publisher.set(Id([2; 12]), Some(place(2, State::Starting)));
        let next = {
            let publisher = publisher.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                publisher.set(Id([2; 12]), Some(place(2, State::Running)));
                publisher.set(Id([2; 12]), Some(place(2, State::Running)));
            }
        };
        tokio::join!(proxy(&listener, &mut table, 2), next);
        assert_eq!(table.places.len(), 1);
        assert_eq!(table.places[&Id([2; 12])].state, State::Running);

        for n in 10..40 {
            publisher.set(Id([n; 12]), Some(place(n, State::Stopped)));
        }
        proxy(&listener, &mut table, 1).await;
        assert_eq!(table.places.len(), 31, "many changes come as one");
        feeding.abort();
    }

    #[test]
    fn what_was_set_before_the_table_was_whole_is_newer() {
        let publisher = Publisher::new(0);
        publisher.set(Id([1; 12]), Some(place(1, State::Running)));
        publisher.set(Id([2; 12]), None);
        publisher.open(vec![
            place(1, State::Starting),
            place(2, State::Running),
            place(3, State::Paused),
        ]);
        let states: Vec<State> = publisher.places().iter().map(|place| place.state).collect();
        assert_eq!(states, [State::Running, State::Paused]);
    }

    #[test]
    fn only_what_changed_is_due() {
        let publisher = Publisher::new(0);
        publisher.open(vec![place(1, State::Running), place(2, State::Running)]);
        let mut sent = None;
        let (first, _) = publisher.due(&mut sent);
        assert!(
            matches!(&first[..], [Update { change: Change::Replace(all), .. }] if all.len() == 2)
        );
        assert!(publisher.due(&mut sent).0.is_empty());
        publisher.set(Id([1; 12]), None);
        publisher.set(Id([2; 12]), Some(place(2, State::Paused)));
        let (next, _) = publisher.due(&mut sent);
        assert_eq!(next.len(), 2);
        assert_eq!(next[1].generation, 3);
    }
}
