//! Connections to containers, and when one of them has to end.
//!
//! A request is judged when it comes; what it becomes may last for days. So every connection to a
//! kit is known here by its container, and a reviewer looks a few times a second whether the rules
//! still allow what goes on over it, and whether the alias that it came by still leads there. What
//! may not go on is cut: the socket is shut down in both directions, and the exchange ends as if the
//! kit had gone away. A tunnel that is on its own is woken, and finds here why.
//!
//! The price is paid per connection, and by requests that come by an alias or to containers that
//! have rules. Any other only notes that a kit is waited for: one that has said nothing for too long
//! is ended by the same reviewer ([`crate::silence`]).

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use routes::Id;
use routes::domain::Alias;
use routes::table::Table;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::Shutdown;
use tokio::net::UnixStream;

use crate::ahead::Budget;
use crate::gates::{Exchange, Rules};
use crate::resolve::target;
use crate::silence::Silence;

/// Between two looks at what goes on: how late a change of rules may end what it forbids.
pub const REVIEW: Duration = Duration::from_millis(250);
/// What was under way when a container got its first rules is given this long to end by itself:
/// nobody was asked who they are.
const GRACE_MILLIS: u64 = 1_000;

/// All connections to kits.
#[derive(Debug)]
pub struct Lines {
    begun: Instant,
    open: DashMap<Id, HashMap<u64, Weak<Line>>>,
    serial: AtomicU64,
    /// What is held of their answers.
    pub ahead: Arc<Budget>,
}

/// One connection to a kit. It lives as long as the connection.
#[derive(Debug)]
pub struct Line {
    container: Id,
    serial: u64,
    /// Whether what it carries is told to it; all else passes over other lines.
    watched: bool,
    /// The same socket under another number, so that it can be shut down from outside.
    socket: OwnedFd,
    /// What is under way, for a line that is watched.
    carried: Mutex<Option<Arc<Carried>>>,
    /// For one that is not.
    doom: Doom,
    cut: OnceLock<End>,
    /// Of its kit, while an answer is waited for.
    pub silence: Silence,
    /// Who is to learn of it at once, rather than when the socket is read next.
    watching: Mutex<Option<Waker>>,
    lines: Weak<Lines>,
}

/// A request that may have to end before it is over.
#[derive(Debug)]
pub struct Carried {
    /// How it passed the gates; nothing where there were none.
    exchange: Option<Arc<Exchange>>,
    /// By which alias it came, if it came by one.
    way: Option<Way>,
    doom: Doom,
    /// Why it was ended, as [`End`]; 0 where it was not.
    ended: AtomicU8,
}

/// The alias by which a request came.
#[derive(Debug)]
pub struct Way {
    pub alias: Arc<Alias>,
    /// The path and query that were asked for.
    pub asked: Box<[u8]>,
}

/// Why something was ended before it was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// The rules do not allow it any more.
    Rules = 1,
    /// The alias that it came by does not lead there any more.
    Way = 2,
    /// There is no such container any more.
    Gone = 3,
}

/// When something ends that nobody was asked for, in milliseconds since 1970; 0 while it may go on.
#[derive(Debug, Default)]
struct Doom(AtomicU64);

impl Doom {
    /// Whether it is due; `rules` says whether there are any.
    fn is_due(&self, rules: bool, now: u64) -> bool {
        match (rules, self.0.load(Ordering::Relaxed)) {
            (false, _) => self.0.store(0, Ordering::Relaxed),
            (true, 0) => self.0.store(now + GRACE_MILLIS, Ordering::Relaxed),
            (true, at) => return at <= now,
        }
        false
    }
}

impl Way {
    /// Whether it leads where it led. `now` is in milliseconds since 1970.
    fn stands(&self, table: &Table, now: u64) -> bool {
        let Some(alias) = table.aliases.get(&*self.alias.name) else {
            return false;
        };
        let leads = |alias| target(alias, &self.asked).ok();
        let same = Arc::ptr_eq(alias, &self.alias)
            || (alias.container == self.alias.container
                && alias.door == self.alias.door
                && leads(alias).is_some()
                && leads(alias) == leads(&self.alias));
        same && alias.stands(now.cast_signed())
    }
}

impl Carried {
    /// Nothing for a request that may go on whatever happens to rules and aliases, but the first
    /// rules of its container.
    pub fn of(exchange: Option<Arc<Exchange>>, way: Option<Way>) -> Option<Arc<Carried>> {
        (exchange.is_some() || way.is_some()).then(|| {
            Arc::new(Carried {
                exchange,
                way,
                doom: Doom::default(),
                ended: AtomicU8::new(0),
            })
        })
    }

    /// Why it has to end, if it has to. `rules` are those of its container, and `now` is in
    /// milliseconds since 1970.
    pub fn has_to_end(&self, table: &Table, rules: Option<&Rules>, now: u64) -> Option<End> {
        if self.way.as_ref().is_some_and(|way| !way.stands(table, now)) {
            return Some(End::Way);
        }
        let ends = match &self.exchange {
            Some(exchange) => !exchange.stands(rules, now / 1_000),
            None => self.doom.is_due(rules.is_some(), now),
        };
        ends.then_some(End::Rules)
    }

    fn end(&self, why: End) {
        self.ended.store(why as u8, Ordering::Release);
    }

    /// Why it was ended, if it was.
    pub fn ended(&self) -> Option<End> {
        match self.ended.load(Ordering::Acquire) {
            0 => None,
            it if it == End::Way as u8 => Some(End::Way),
            it if it == End::Gone as u8 => Some(End::Gone),
            _ => Some(End::Rules),
        }
    }
}

impl Default for Lines {
    fn default() -> Self {
        Lines {
            begun: Instant::now(),
            open: DashMap::new(),
            serial: AtomicU64::new(0),
            ahead: Arc::default(),
        }
    }
}

impl Lines {
    /// Know a connection from now until its line is dropped.
    pub fn add(
        self: &Arc<Self>,
        stream: &UnixStream,
        container: Id,
        watched: bool,
    ) -> std::io::Result<Arc<Line>> {
        let line = Arc::new(Line {
            container,
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            watched,
            socket: stream.as_fd().try_clone_to_owned()?,
            carried: Mutex::new(None),
            doom: Doom::default(),
            cut: OnceLock::new(),
            silence: Silence::default(),
            watching: Mutex::new(None),
            lines: Arc::downgrade(self),
        });
        let mut known = self.open.entry(container).or_default();
        known.insert(line.serial, Arc::downgrade(&line));
        Ok(line)
    }

    /// Cut what the table does not allow any more. `now` is in milliseconds since 1970.
    pub fn review(&self, table: &Table, now: u64) {
        let containers: Vec<Id> = self.open.iter().map(|known| *known.key()).collect();
        for container in containers {
            let place = table.places.get(&container);
            let rules = place.and_then(|place| Rules::of(place, table));
            for line in self.of(container) {
                line.review(table, place.is_some(), rules.as_ref(), now);
            }
        }
    }

    /// End those whose kit is waited for and has said nothing for so long.
    pub fn end_silent(&self, patience: Duration) {
        let now = self.begun.elapsed();
        let containers: Vec<Id> = self.open.iter().map(|known| *known.key()).collect();
        for container in containers {
            for line in self.of(container) {
                if line.silence.review(now, patience) {
                    line.shut();
                }
            }
        }
    }

    /// The connections to a container, to be looked at without its shard: a line that is dropped
    /// takes itself out.
    fn of(&self, container: Id) -> Vec<Arc<Line>> {
        let known = self.open.get(&container);
        known.map_or_else(Vec::new, |known| {
            known.values().filter_map(Weak::upgrade).collect()
        })
    }
}

impl Line {
    /// One that no rule is about, such as to control.
    pub fn apart(stream: &UnixStream) -> std::io::Result<Arc<Line>> {
        Ok(Arc::new(Line {
            container: Id([0; 12]),
            serial: 0,
            watched: false,
            socket: stream.as_fd().try_clone_to_owned()?,
            carried: Mutex::new(None),
            doom: Doom::default(),
            cut: OnceLock::new(),
            silence: Silence::default(),
            watching: Mutex::new(None),
            lines: Weak::new(),
        }))
    }

    /// Whether the other side takes more.
    pub fn is_writable(&self) -> bool {
        let mut asked = [PollFd::new(&self.socket, PollFlags::OUT)];
        let now = Timespec::default();
        rustix::event::poll(&mut asked, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// End the connection in both directions.
    pub fn shut(&self) {
        // It fails where the other side has gone already.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    /// This is what it carries from now on.
    pub fn carry(&self, carried: Arc<Carried>) {
        *self.held() = Some(carried);
    }

    /// This is over. By now the line may carry the next one.
    pub fn leave(&self, carried: &Arc<Carried>) {
        self.held().take_if(|held| Arc::ptr_eq(held, carried));
    }

    /// Whether it was cut, and why.
    pub fn cut_for(&self) -> Option<End> {
        self.cut.get().copied()
    }

    /// Wake this one when it is cut.
    pub fn watch(&self, waker: &Waker) {
        *self.watching() = Some(waker.clone());
    }

    fn watching(&self) -> MutexGuard<'_, Option<Waker>> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Carried>>> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn review(&self, table: &Table, exists: bool, rules: Option<&Rules>, now: u64) {
        if self.cut.get().is_some() {
            return;
        }
        let carried = self.held().clone();
        let end = match carried {
            _ if !exists => Some(End::Gone),
            Some(carried) => carried.has_to_end(table, rules, now),
            None if self.watched => None,
            None => (self.doom.is_due(rules.is_some(), now)).then_some(End::Rules),
        };
        if let Some(why) = end {
            self.cut(why);
        }
    }

    fn cut(&self, why: End) {
        // Only the reviewer cuts, and only once.
        let _ = self.cut.set(why);
        if let Some(carried) = &*self.held() {
            carried.end(why);
        }
        self.shut();
        if let Some(watching) = self.watching().take() {
            watching.wake();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(lines) = self.lines.upgrade() else {
            return;
        };
        if let Some(mut known) = lines.open.get_mut(&self.container) {
            known.remove(&self.serial);
        }
        lines
            .open
            .remove_if(&self.container, |_, known| known.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http::HeaderMap;
    use routes::Zone;
    use routes::access::{Policy, Rule};
    use routes::table::{Change, Place, Update};

    use super::*;
    use crate::gates::{Outcome, Visitor, judge};
    use crate::session::Keys;

    const NOW: u64 = 1_800_000_000_000;

    fn place(access: Option<Policy>) -> Place {
        let place = serde_json::json!({
            "container": Id([1; 12]),
            "project": Id([2; 12]),
            "name": "web",
            "state": "running",
            "incarnation": 1,
            "directory": "/run/c",
            "owners": { "base": 0, "count": 0 },
            "access": access,
        });
        serde_json::from_value(place).expect("a place")
    }

    fn table(place: Option<Place>) -> Table {
        let mut table = Table::default();
        if let Some(place) = place {
            let change = Change::Upsert(place);
            table.apply(Update {
                generation: 1,
                change,
            });
        }
        table
    }

    fn carried(table: &Table, keys: &Keys) -> Arc<Carried> {
        Carried::of(Some(exchange(table, keys)), None).expect("it has an exchange")
    }

    fn exchange(table: &Table, keys: &Keys) -> Arc<Exchange> {
        let place = table.places.get(&Id([1; 12])).expect("a place");
        let rules = Rules::of(place, table).expect("rules");
        let visitor = Visitor {
            container: place.container,
            service: "terminal",
            instance: 1,
            address: [192, 0, 2, 1].into(),
            method: "GET".into(),
            path: "/".into(),
            query: String::new(),
            headers: HeaderMap::new(),
            secure: true,
            origin: "https://x".into(),
            navigates: false,
            upgrade: false,
        };
        match judge(&rules, &visitor, keys, NOW / 1_000).0 {
            Outcome::Pass(passed) => passed.go_on(visitor, rules).exchange,
            other => panic!("{other:?}"),
        }
    }

    /// A socket, and its other end.
    fn pair() -> (UnixStream, std::os::unix::net::UnixStream) {
        let (one, other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        for socket in [&one, &other] {
            socket.set_nonblocking(true).expect("a socket");
        }
        (UnixStream::from_std(one).expect("a runtime"), other)
    }

    /// Whether the other end of a line has been shut down.
    fn is_shut(end: &mut std::os::unix::net::UnixStream) -> bool {
        match end.read(&mut [0]) {
            Ok(bytes) => bytes == 0,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                false
            }
        }
    }

    #[tokio::test]
    async fn lines_are_cut_when_the_rules_say_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let zone = Zone::new("hoody.localhost", "box1").expect("a zone");
        let keys = Keys::open(&directory.path().join("k"), &zone, NOW / 1_000).expect("keys");
        let open = table(Some(place(Some(Policy::open()))));
        let shut = Policy {
            default: Rule::Deny,
            ..Policy::open()
        };
        let shut = table(Some(place(Some(shut))));
        let (none, gone) = (table(Some(place(None))), table(None));
        let container = Id([1; 12]);
        let lines = Arc::new(Lines::default());
        let (one, mut end) = pair();
        let line = lines.add(&one, container, true).expect("a line");

        // One exchange follows another before it is said to be over.
        let (first, second) = (carried(&open, &keys), carried(&open, &keys));
        line.carry(first.clone());
        line.carry(second.clone());
        line.leave(&first);
        for allowing in [&open, &none] {
            lines.review(allowing, NOW);
            assert!(!is_shut(&mut end));
        }
        lines.review(&shut, NOW);
        assert!(is_shut(&mut end));
        assert_eq!((second.ended(), first.ended()), (Some(End::Rules), None));

        // Between two exchanges there is nothing to end, except with the container.
        let (two, mut end) = pair();
        let idle = lines.add(&two, container, true).expect("a line");
        idle.carry(first.clone());
        idle.leave(&first);
        lines.review(&shut, NOW);
        assert!(!is_shut(&mut end));
        lines.review(&gone, NOW);
        assert!(is_shut(&mut end));

        // What nobody was asked for has a moment to end by itself, or until nobody asks again.
        let (three, mut end) = pair();
        let before = lines.add(&three, container, false).expect("a line");
        lines.review(&shut, NOW);
        lines.review(&none, NOW + GRACE_MILLIS);
        lines.review(&open, NOW + 2 * GRACE_MILLIS);
        lines.review(&open, NOW + 3 * GRACE_MILLIS - 1);
        assert!(!is_shut(&mut end));
        lines.review(&open, NOW + 3 * GRACE_MILLIS);
        assert!(is_shut(&mut end));

        drop((line, idle, before));
        assert!(lines.open.is_empty());
    }

    fn alias(change: impl FnOnce(&mut Alias)) -> Arc<Alias> {
        let mut alias = Alias {
            name: "shop".into(),
            container: Id([1; 12]),
            door: "http-3000".parse().expect("a door"),
            target: Some("/a".into()),
            pinned: false,
            expires: None,
        };
        change(&mut alias);
        Arc::new(alias)
    }

    /// What is asked for by the alias, what becomes of the alias, and whether that is the end.
    #[tokio::test]
    async fn what_came_by_an_alias_ends_with_it() {
        let asked = alias(|_| {});
        let cases: [(&str, Option<Arc<Alias>>, bool); 12] = [
            ("/", Some(asked.clone()), false),
            // It says the same, or what makes no difference.
            ("/", Some(alias(|_| {})), false),
            (
                "/",
                Some(alias(|it| it.expires = Some(NOW as i64 + 1))),
                false,
            ),
            ("/", Some(alias(|it| it.pinned = true)), false),
            ("/b", Some(alias(|it| it.target = Some("/c".into()))), false),
            // It is off, over, or leads elsewhere.
            ("/", None, true),
            ("/", Some(alias(|it| it.expires = Some(NOW as i64))), true),
            ("/", Some(alias(|it| it.container = Id([2; 12]))), true),
            (
                "/",
                Some(alias(|it| it.door = "http-3001".parse().expect("a door"))),
                true,
            ),
            ("/", Some(alias(|it| it.target = Some("/c".into()))), true),
            ("/b", Some(alias(|it| it.pinned = true)), true),
            ("/", Some(alias(|it| it.target = None)), true),
        ];
        let lines = Arc::new(Lines::default());
        for (number, (path, after, ends)) in cases.into_iter().enumerate() {
            let way = Way {
                alias: asked.clone(),
                asked: path.as_bytes().into(),
            };
            let carried = Carried::of(None, Some(way)).expect("it came by an alias");
            let mut table = table(Some(place(None)));
            if let Some(alias) = after {
                table.apply(Update {
                    generation: 2,
                    change: Change::Alias(Alias::clone(&alias)),
                });
            }
            let (one, mut end) = pair();
            let line = lines.add(&one, Id([1; 12]), true).expect("a line");
            line.carry(carried.clone());
            lines.review(&table, NOW);
            let why = ends.then_some(End::Way);
            assert_eq!(
                (is_shut(&mut end), carried.ended()),
                (ends, why),
                "case {number}"
            );
        }
        // A container's first rules end it like anything that nobody was asked for.
        let way = Way {
            alias: asked.clone(),
            asked: b"/".as_slice().into(),
        };
        let carried = Carried::of(None, Some(way)).expect("it came by an alias");
        let mut open = table(Some(place(Some(Policy::open()))));
        open.apply(Update {
            generation: 2,
            change: Change::Alias(Alias::clone(&asked)),
        });
        let (one, mut end) = pair();
        let line = lines.add(&one, Id([1; 12]), true).expect("a line");
        line.carry(carried.clone());
        lines.review(&open, NOW);
        assert!(!is_shut(&mut end));
        lines.review(&open, NOW + GRACE_MILLIS);
        assert!(is_shut(&mut end));
        assert_eq!(carried.ended(), Some(End::Rules));
    }
}
