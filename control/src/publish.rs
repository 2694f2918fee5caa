//! What the proxy is told: the routing table, over the feed's socket.
//!
//! The reconciler says where containers are, and the API what rules and aliases there are; one
//! task connects, sends everything first and then what changed, and waits for the proxy's word
//! that it has it on disk. What waits to be sent is never more than the table itself, a change
//! costs the same in a table of any size, and a proxy that is away holds nobody up.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use routes::Id;
use routes::access::Policy;
use routes::domain::Alias;
use routes::hook::Hooks;
use routes::link::Links;
use routes::sleep::{Idle, Sleep};
use routes::table::{Ack, Change, Embedding, Place, Project, State, Update, Whole};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

use crate::time::Millis;

/// Changes that are sent before an answer is waited for; the proxy keeps as many with one write.
const BATCH: usize = 256;
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

/// What rules a container has beside its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    pub access: Option<Arc<Policy>>,
    pub links: Option<Arc<Links>>,
    pub hooks: Option<Arc<Hooks>>,
    pub embedding: Embedding,
    pub sleep: Sleep,
}

/// Everything that is published and not a machine.
#[derive(Debug, Default)]
pub struct Rules {
    pub containers: Vec<(Id, Edge)>,
    pub projects: Vec<(Id, Arc<Policy>)>,
    /// Those that are in force.
    pub aliases: Vec<Arc<Alias>>,
}

/// One entry of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Place(Id),
    Project(Id),
    Alias(Box<str>),
}

#[derive(Default)]
struct Wanted {
    /// With the rules of each in it.
    places: HashMap<Id, Arc<Place>>,
    /// Rules of containers, whether they have a place or not.
    edges: HashMap<Id, Edge>,
    projects: HashMap<Id, Arc<Policy>>,
    aliases: HashMap<Box<str>, Arc<Alias>>,
    /// Counts changes.
    change: u64,
    /// Numbers what is sent; grows over restarts, too, because it begins with the time.
    generation: u64,
    /// Whether the table is whole: a part of it would cut off what the proxy serves by itself.
    open: bool,
    /// What was set before the table was whole.
    early: BTreeSet<Entry>,
    early_edges: BTreeSet<Id>,
    /// Whether somebody has been sent the table, and what has changed since.
    followed: bool,
    due: BTreeSet<Entry>,
}

impl Wanted {
    fn touch(&mut self, entry: Entry) {
        self.change += 1;
        if !self.open {
            self.early.insert(entry.clone());
        }
        if self.followed {
            self.due.insert(entry);
        }
    }

    /// The place with the rules that it has now.
    fn dressed(&self, mut place: Place) -> Place {
        let edge = self.edges.get(&place.container).cloned();
        let Edge {
            access,
            links,
            hooks,
            embedding,
            sleep,
        } = edge.unwrap_or_default();
        (place.access, place.links, place.hooks) = (access, links, hooks);
        (place.embedding, place.sleep) = (embedding, sleep);
        place
    }

    fn place(&mut self, container: Id, place: Option<Place>) -> bool {
        let place = place.map(|place| self.dressed(place));
        if self.places.get(&container).map(|known| &**known) == place.as_ref() {
            return false;
        }
        match place {
            Some(place) => self.places.insert(container, Arc::new(place)),
            None => self.places.remove(&container),
        };
        self.touch(Entry::Place(container));
        true
    }

    fn edge(&mut self, container: Id, edge: Edge) -> bool {
        if !self.open {
            self.early_edges.insert(container);
        }
        if edge == Edge::default() {
            self.edges.remove(&container);
        } else {
            self.edges.insert(container, edge);
        }
        match self.places.get(&container).map(|place| Place::clone(place)) {
            Some(place) => self.place(container, Some(place)),
            None => false,
        }
    }

    fn project(&mut self, project: Id, policy: Option<Arc<Policy>>) -> bool {
        if self.projects.get(&project) == policy.as_ref() {
            return false;
        }
        match policy {
            Some(policy) => self.projects.insert(project, policy),
            None => self.projects.remove(&project),
        };
        self.touch(Entry::Project(project));
        true
    }

    fn alias(&mut self, name: &str, alias: Option<Arc<Alias>>) -> bool {
        if self.aliases.get(name) == alias.as_ref() {
            return false;
        }
        match alias {
            Some(alias) => self.aliases.insert(name.into(), alias),
            None => self.aliases.remove(name),
        };
        self.touch(Entry::Alias(name.into()));
        true
    }

    /// What to tell of an entry to bring the proxy up to date.
    fn tell(&self, entry: Entry) -> Change {
        match entry {
            Entry::Place(id) => match self.places.get(&id) {
                Some(place) => Change::Upsert(Place::clone(place)),
                None => Change::Remove(id),
            },
            Entry::Project(id) => Change::Project(Project {
                id,
                policy: self.projects.get(&id).map(|policy| Policy::clone(policy)),
            }),
            Entry::Alias(name) => match self.aliases.get(&name) {
                Some(alias) => Change::Alias(Alias::clone(alias)),
                None => Change::NoAlias(name),
            },
        }
    }
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
        Publisher {
            table: Mutex::new(Wanted {
                generation,
                ..Wanted::default()
            }),
            changed: Notify::new(),
            taken: watch::Sender::new(None),
        }
    }

    fn table(&self) -> MutexGuard<'_, Wanted> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table is whole with these places and rules. What was set in the meantime is newer and
    /// stays.
    pub fn open(&self, places: Vec<Place>, rules: Rules) {
        let mut table = self.table();
        if table.open {
            return;
        }
        let early = std::mem::take(&mut table.early);
        let early_edges = std::mem::take(&mut table.early_edges);
        table.open = true;
        for (container, edge) in rules.containers {
            if !early_edges.contains(&container) {
                table.edge(container, edge);
            }
        }
        for place in places {
            if !early.contains(&Entry::Place(place.container)) {
                table.place(place.container, Some(place));
            }
        }
        for (project, policy) in rules.projects {
            if !early.contains(&Entry::Project(project)) {
                table.project(project, Some(policy));
            }
        }
        for alias in rules.aliases {
            if !early.contains(&Entry::Alias(alias.name.clone())) {
                table.alias(&alias.name.clone(), Some(alias));
            }
        }
        table.change += 1;
        self.changed.notify_one();
    }

    pub fn is_open(&self) -> bool {
        self.table().open
    }

    fn make(&self, change: impl FnOnce(&mut Wanted) -> bool) {
        if change(&mut self.table()) {
            self.changed.notify_one();
        }
    }

    /// Say where a container is, or with nothing that it is nowhere. Its rules are added.
    pub fn set(&self, container: Id, place: Option<Place>) {
        self.make(|table| {
            if !table.open {
                table.early.insert(Entry::Place(container));
            }
            table.place(container, place)
        });
    }

    /// Say what rules a container has.
    pub fn set_edge(&self, container: Id, edge: Edge) {
        self.make(|table| table.edge(container, edge));
    }

    /// Say that a container is gone for good, with its rules.
    pub fn forget(&self, container: Id) {
        self.set(container, None);
        self.set_edge(container, Edge::default());
    }

    /// Say what rules a project has.
    pub fn set_project(&self, project: Id, policy: Option<Arc<Policy>>) {
        self.make(|table| {
            if !table.open {
                table.early.insert(Entry::Project(project));
            }
            table.project(project, policy)
        });
    }

    /// Say where an alias leads, or with nothing that it is not in force.
    pub fn set_alias(&self, name: &str, alias: Option<Arc<Alias>>) {
        self.make(|table| {
            if !table.open {
                table.early.insert(Entry::Alias(name.into()));
            }
            table.alias(name, alias)
        });
    }

    /// Forget the aliases that have expired.
    pub fn expire(&self, now: Millis) {
        self.make(|table| {
            let over = table.aliases.values().filter(|alias| !alias.stands(now));
            let over: Vec<Box<str>> = over.map(|alias| alias.name.clone()).collect();
            for name in &over {
                table.alias(name, None);
            }
            !over.is_empty()
        });
    }

    /// Whether this is what is said of a container, its rules aside.
    pub fn says(&self, container: Id, place: Option<Place>) -> bool {
        let table = self.table();
        let place = place.map(|place| table.dressed(place));
        table.places.get(&container).map(|known| &**known) == place.as_ref()
    }

    pub fn get(&self, container: Id) -> Option<Place> {
        self.table()
            .places
            .get(&container)
            .map(|place| Place::clone(place))
    }

    /// The containers that run and are put to sleep when nobody needs them.
    pub fn idlers(&self) -> Vec<(Arc<Place>, Idle)> {
        let table = self.table();
        let running = table
            .places
            .values()
            .filter(|place| place.state == State::Running);
        running
            .filter_map(|place| Some((place.clone(), place.sleep.idle?)))
            .collect()
    }

    /// Every container that has a place, in the order of the ids.
    pub fn containers(&self) -> Vec<Id> {
        let mut all: Vec<Id> = self.table().places.keys().copied().collect();
        all.sort_unstable();
        all
    }

    /// Every alias in force.
    pub fn aliases(&self) -> Vec<Arc<Alias>> {
        self.table().aliases.values().cloned().collect()
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
            (self.table().followed, self.table().due) = (false, BTreeSet::new());
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
        let mut first = true;
        loop {
            let (updates, change) = if std::mem::take(&mut first) {
                self.whole()
            } else {
                self.due()
            };
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
                    let containers = self.table().places.len();
                    tracing::info!(containers, "the proxy has the routing table");
                    *greeted = true;
                }
            }
            let Some(change) = change else {
                continue; // there is more
            };
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

    /// Everything, for one who knows nothing; and the number of the last change in it.
    fn whole(&self) -> (Vec<Update>, Option<u64>) {
        let mut table = self.table();
        (table.followed, table.due) = (true, BTreeSet::new());
        table.generation += 1;
        let (generation, change) = (table.generation, table.change);
        let places: Vec<Arc<Place>> = table.places.values().cloned().collect();
        let projects = table.projects.clone();
        let aliases: Vec<Arc<Alias>> = table.aliases.values().cloned().collect();
        drop(table); // it is copied while others go on
        let whole = Whole {
            places: places.iter().map(|place| Place::clone(place)).collect(),
            projects: projects
                .iter()
                .map(|(&id, policy)| Project {
                    id,
                    policy: Some(Policy::clone(policy)),
                })
                .collect(),
            aliases: aliases.iter().map(|alias| Alias::clone(alias)).collect(),
        };
        let update = Update {
            generation,
            change: Change::Whole(whole),
        };
        (vec![update], Some(change))
    }

    /// What has to be sent to one who has been sent all before; and the number of the last change
    /// in it, where nothing is due after it.
    fn due(&self) -> (Vec<Update>, Option<u64>) {
        let mut table = self.table();
        let mut updates = Vec::new();
        while updates.len() < BATCH
            && let Some(entry) = table.due.pop_first()
        {
            table.generation += 1;
            updates.push(Update {
                generation: table.generation,
                change: table.tell(entry),
            });
        }
        (updates, table.due.is_empty().then_some(table.change))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use routes::access::Rule;
    use routes::table::{Owners, Table};
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
            address: None,
            embedding: Default::default(),
            sleep: Default::default(),
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
        publisher.open(vec![place(1, State::Creating)], Rules::default());
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
        assert_eq!(table.places.len(), 31, "whoever comes is sent all at once");
        feeding.abort();
    }

    #[test]
    fn what_was_set_before_the_table_was_whole_is_newer() {
        let publisher = Publisher::new(0);
        publisher.set(Id([1; 12]), Some(place(1, State::Running)));
        publisher.set(Id([2; 12]), None);
        publisher.set_edge(Id([3; 12]), edge(Rule::Deny));
        publisher.set_alias("shop", None);
        publisher.set_project(Id([0; 12]), None);
        publisher.open(
            vec![
                place(1, State::Starting),
                place(2, State::Running),
                place(3, State::Paused),
            ],
            Rules {
                containers: vec![
                    (Id([3; 12]), Edge::default()),
                    (Id([1; 12]), edge(Rule::Allow)),
                ],
                projects: vec![(Id([0; 12]), Arc::new(Policy::open()))],
                aliases: vec![alias("shop", 1), alias("blog", 1)],
            },
        );
        let is = |n: u8| publisher.get(Id([n; 12]));
        assert_eq!(is(1).map(|place| place.state), Some(State::Running));
        assert_eq!(
            is(1).and_then(|place| place.access),
            edge(Rule::Allow).access
        );
        assert_eq!(is(2), None);
        assert_eq!(
            is(3).and_then(|place| place.access),
            edge(Rule::Deny).access
        );
        let names: Vec<_> = publisher
            .aliases()
            .iter()
            .map(|alias| alias.name.clone())
            .collect();
        assert_eq!(names, ["blog".into()]);
        assert!(publisher.table().projects.is_empty());
    }

    fn edge(default: Rule) -> Edge {
        Edge {
            access: Some(Arc::new(Policy {
                default,
                ..Policy::open()
            })),
            ..Edge::default()
        }
    }

    fn alias(name: &str, to: u8) -> Arc<Alias> {
        Arc::new(Alias {
            name: name.into(),
            container: Id([to; 12]),
            door: "files-1".parse().unwrap(),
            target: None,
            pinned: false,
            expires: (name == "brief").then_some(1_000),
        })
    }

    #[test]
    fn only_what_changed_is_due() {
        let publisher = Publisher::new(0);
        let all = vec![place(1, State::Running), place(2, State::Running)];
        publisher.open(all, Rules::default());
        let (first, taken) = publisher.whole();
        assert!(
            matches!(&first[..], [Update { change: Change::Whole(all), .. }] if all.places.len() == 2)
        );
        assert_eq!(publisher.due(), (vec![], taken));
        publisher.set(Id([1; 12]), None);
        publisher.set(Id([2; 12]), Some(place(2, State::Paused)));
        publisher.set(Id([2; 12]), Some(place(2, State::Paused)));
        publisher.set_edge(Id([2; 12]), edge(Rule::Deny));
        publisher.set_edge(Id([9; 12]), edge(Rule::Deny)); // it has no place yet
        let (next, taken) = publisher.due();
        assert_eq!(next.len(), 2, "one for each container");
        assert_eq!(next[1].generation, 3);
        let Change::Upsert(told) = &next[1].change else {
            panic!("{next:?}")
        };
        assert_eq!(
            (told.state, &told.access),
            (State::Paused, &edge(Rule::Deny).access)
        );
        assert!(taken.is_some());
        publisher.set(Id([9; 12]), Some(place(9, State::Running)));
        let (next, _) = publisher.due();
        assert!(
            matches!(&next[..], [Update { change: Change::Upsert(it), .. }] if it.access.is_some())
        );
        assert!(publisher.says(Id([9; 12]), Some(place(9, State::Running))));
        assert!(!publisher.says(Id([9; 12]), Some(place(9, State::Paused))));
    }

    #[test]
    fn aliases_and_projects_are_due_too_and_end() {
        let publisher = Publisher::new(0);
        publisher.open(vec![], Rules::default());
        publisher.whole();
        publisher.set_alias("shop", Some(alias("shop", 1)));
        publisher.set_alias("brief", Some(alias("brief", 1)));
        publisher.set_project(Id([5; 12]), Some(Arc::new(Policy::open())));
        let mut table = Table::default();
        let catch_up = |table: &mut Table| {
            let (updates, _) = publisher.due();
            let changes = updates.len();
            updates.into_iter().for_each(|update| table.apply(update));
            changes
        };
        assert_eq!(catch_up(&mut table), 3);
        assert_eq!((table.aliases.len(), table.projects.len()), (2, 1));
        publisher.expire(999);
        assert_eq!(catch_up(&mut table), 0);
        publisher.expire(1_000);
        publisher.set_project(Id([5; 12]), None);
        assert_eq!(catch_up(&mut table), 2);
        assert!(table.aliases.contains_key("shop") && table.aliases.len() == 1);
        assert!(table.projects.is_empty());
    }

    #[test]
    fn many_changes_are_sent_in_parts() {
        let publisher = Publisher::new(0);
        publisher.open(vec![], Rules::default());
        publisher.whole();
        for n in 0..=BATCH {
            let name = format!("name-{n}");
            publisher.set_alias(&name, Some(alias(&name, 1)));
        }
        let (first, taken) = publisher.due();
        assert_eq!((first.len(), taken), (BATCH, None));
        let (rest, taken) = publisher.due();
        assert!(rest.len() == 1 && taken.is_some());
    }
}
