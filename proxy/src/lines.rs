//! Connections to containers, and when one of them has to end.
//!
//! A request is judged when it comes; what it becomes may last for days. So every connection to a
//! kit is known here by its container, and a reviewer looks a few times a second whether the rules
//! still allow what goes on over it. What they do not allow is cut: the socket is shut down in
//! both directions, and the exchange ends as if the kit had gone away.
//!
//! The price is paid per connection, and by requests to containers that have rules. A request to
//! any other touches nothing of this.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use dashmap::DashMap;
use routes::Id;
use routes::table::Table;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::Shutdown;
use tokio::net::UnixStream;

use crate::gates::{Exchange, Rules};

/// Between two looks at what goes on: how late a change of rules may end what it forbids.
pub const REVIEW: Duration = Duration::from_millis(250);
/// What was under way when a container got its first rules is given this long to end by itself:
/// nobody was asked who they are.
const GRACE_MILLIS: u64 = 1_000;

/// All connections to kits.
#[derive(Debug, Default)]
pub struct Lines {
    open: DashMap<Id, HashMap<u64, Weak<Line>>>,
    serial: AtomicU64,
}

/// One connection to a kit. It lives as long as the connection.
#[derive(Debug)]
pub struct Line {
    container: Id,
    serial: u64,
    /// Whether it carries requests that were judged by rules; all others pass over other lines.
    gated: bool,
    /// The same socket under another number, so that it can be shut down from outside.
    socket: OwnedFd,
    /// What is under way, for a line that is gated.
    exchange: Mutex<Option<Arc<Exchange>>>,
    /// When it is to be cut, in milliseconds since 1970.
    doomed: AtomicU64,
    cut: AtomicBool,
    lines: Weak<Lines>,
}

impl Lines {
    /// Know a connection from now until its line is dropped.
    pub fn add(
        self: &Arc<Self>,
        stream: &UnixStream,
        container: Id,
        gated: bool,
    ) -> std::io::Result<Arc<Line>> {
        let line = Arc::new(Line {
            container,
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            gated,
            socket: stream.as_fd().try_clone_to_owned()?,
            exchange: Mutex::new(None),
            doomed: AtomicU64::new(0),
            cut: AtomicBool::new(false),
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
            // A line that is dropped takes itself out: not while its shard is held here.
            let lines: Vec<Arc<Line>> = match self.open.get(&container) {
                Some(known) => known.values().filter_map(Weak::upgrade).collect(),
                None => continue,
            };
            for line in lines {
                line.review(place.is_some(), rules.as_ref(), now);
            }
        }
    }
}

impl Line {
    /// One that no rule is about, such as to control.
    pub fn apart(stream: &UnixStream) -> std::io::Result<Arc<Line>> {
        Ok(Arc::new(Line {
            container: Id([0; 12]),
            serial: 0,
            gated: false,
            socket: stream.as_fd().try_clone_to_owned()?,
            exchange: Mutex::new(None),
            doomed: AtomicU64::new(0),
            cut: AtomicBool::new(false),
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

    /// This exchange is what it carries from now on.
    pub fn carry(&self, exchange: Arc<Exchange>) {
        *self.held() = Some(exchange);
    }

    /// This exchange is over. By now the line may carry the next one.
    pub fn leave(&self, exchange: &Arc<Exchange>) {
        self.held().take_if(|held| Arc::ptr_eq(held, exchange));
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Exchange>>> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn review(&self, exists: bool, rules: Option<&Rules>, now: u64) {
        if self.cut.load(Ordering::Acquire) {
            return;
        }
        if !exists {
            return self.cut();
        }
        if !self.gated {
            if rules.is_none() {
                self.doomed.store(0, Ordering::Relaxed);
                return;
            }
            match self.doomed.load(Ordering::Relaxed) {
                0 => self.doomed.store(now + GRACE_MILLIS, Ordering::Relaxed),
                at if at <= now => self.cut(),
                _ => {}
            }
            return;
        }
        let exchange = self.held().clone();
        if exchange.is_some_and(|exchange| !exchange.stands(rules, now / 1_000)) {
            self.cut();
        }
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        if let Some(exchange) = &*self.held() {
            exchange.cut();
        }
        self.shut();
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
        let (first, second) = (exchange(&open, &keys), exchange(&open, &keys));
        line.carry(first.clone());
        line.carry(second.clone());
        line.leave(&first);
        for allowing in [&open, &none] {
            lines.review(allowing, NOW);
            assert!(!is_shut(&mut end));
        }
        lines.review(&shut, NOW);
        assert!(is_shut(&mut end));
        assert!(second.is_cut() && !first.is_cut());

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
}
