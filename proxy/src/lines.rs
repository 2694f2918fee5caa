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
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use dashmap::DashMap;
use routes::Id;
use routes::table::Table;
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
    /// This exchange is what it carries now, or with nothing that it carries none.
    pub fn carry(&self, exchange: Option<Arc<Exchange>>) {
        *self.exchange.lock().unwrap_or_else(PoisonError::into_inner) = exchange;
    }

    /// Whether it was cut.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    fn review(&self, exists: bool, rules: Option<&Rules>, now: u64) {
        if self.is_cut() {
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
        let exchange = {
            let held = self.exchange.lock();
            held.unwrap_or_else(PoisonError::into_inner).clone()
        };
        if exchange.is_some_and(|exchange| !exchange.stands(rules, now / 1_000)) {
            self.cut();
        }
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        // It fails where the other side has gone already.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
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
