//! Certificates for domains of others, ordered when somebody first asks for them.
//!
//! Whoever walks through random names costs one question to [`Entitled`] each, which is told who
//! makes it ask: nothing is ordered for a name that no alias has, and while it is not known
//! whether one has, the name takes no place of those that are on their way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use lru::LruCache;
use tokio::sync::{Semaphore, mpsc, watch};

use super::shelf::{Record, Shelf, is_name};
use super::{Acme, Failure};
use crate::clock::seconds;
use crate::names::canonical;
use crate::{Class, Error};

/// Names that are on their way at once, and so questions about them; the next has to come again.
const FLYING: usize = 256;
/// Orders that are made at once.
const ORDERS: usize = 4;
/// Names that were refused and are not asked about again for a while; some 100 bytes each.
const REFUSED: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not zero");
/// For how long a name that does not point here is taken not to: its owner is just changing it.
const NOT_ENTITLED: u64 = 60;
/// For how long nothing is tried after a failure that says nothing else.
const FAILED: u64 = 60;
/// For the question whether a name points here.
const QUESTION: Duration = Duration::from_secs(10);
/// How long to wait for another node that orders the same.
const OTHERS: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(2);
/// What a visitor is told to wait for an order.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// Who knows which domains of others are to be served here.
#[async_trait]
pub trait Entitled: Send + Sync {
    /// Whether it is worth asking: at once, without asking anybody else.
    fn may_be(&self, name: &str) -> bool;

    /// Whether the name is below the node's own and none of its wildcards covers it, so that it is
    /// ordered like one of others: at once, without asking anybody else.
    fn is_below(&self, _: &str) -> bool {
        false
    }

    /// Whether the name leads to an alias here that is in force; otherwise why it is taken not
    /// to. `client` is who makes it ask, if somebody does: what one client can make it ask is
    /// bounded, and what all of them can.
    async fn entitled(&self, name: &str, client: Option<IpAddr>) -> Result<(), String>;
}

/// What became of a wish.
#[derive(Debug)]
pub enum Wanted {
    /// There is one.
    Ready,
    /// It is on its way.
    Coming(Flight),
    /// None will come, or none before that time has passed.
    Refused(Option<Duration>),
}

/// A certificate on its way.
#[derive(Debug, Clone)]
pub struct Flight(watch::Receiver<bool>);

impl Flight {
    /// Wait until it has come or will not, but no longer than `most`; whether it is over.
    pub async fn landed(mut self, most: Duration) -> bool {
        let over = tokio::time::timeout(most, self.0.wait_for(|over| *over)).await;
        over.is_ok()
    }

    /// What a visitor who does not wait is told.
    pub fn come_again(&self) -> Duration {
        COME_AGAIN
    }
}

/// The wishes that are on their way, and those that were refused.
#[derive(Default)]
pub(super) struct Desk {
    state: Mutex<State>,
    wishes: std::sync::OnceLock<mpsc::Sender<String>>,
}

struct State {
    flying: HashMap<String, watch::Sender<bool>>,
    refused: LruCache<String, Refusal>,
}

/// Why and until when nothing is tried.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    until: u64,
    /// The record has the next try of an order that failed, and may be changed.
    is_recorded: bool,
}

impl Refusal {
    fn new(until: u64) -> Refusal {
        Refusal {
            until,
            is_recorded: false,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        State {
            flying: HashMap::new(),
            refused: LruCache::new(REFUSED),
        }
    }
}

impl Acme {
    /// Let `entitled` say whose domains are served here. Before, nobody's are. Only the first
    /// one counts.
    pub fn plug(&self, entitled: Arc<dyn Entitled>) {
        let _ = self.entitled.set(entitled);
    }

    /// Wish for a certificate for a name that a stranger asks for: whether it leads here is found
    /// out first, at the expense of `client`.
    pub async fn wish(&self, name: &str, client: IpAddr) -> Wanted {
        let name = canonical(name);
        if let Err(settled) = self.settled(&name) {
            return settled;
        }
        match self.still_entitled(&name, Some(client)).await {
            Ok(()) => self.want(&name),
            // Not remembered for others: this client alone may have asked for too much.
            Err(_) => Wanted::Refused(None),
        }
    }

    /// Wish for a certificate for `name`, which was found to lead here: one order however many
    /// wish for it. Never waits.
    pub fn want(&self, name: &str) -> Wanted {
        let name = canonical(name);
        let mut state = match self.settled(&name) {
            Ok(state) => state,
            Err(settled) => return settled,
        };
        if state.flying.len() >= FLYING {
            return Wanted::Refused(Some(COME_AGAIN));
        }
        let sent = self
            .demand
            .wishes
            .get()
            .map(|it| it.try_send(name.clone().into_owned()));
        if !matches!(sent, Some(Ok(()))) {
            return Wanted::Refused(Some(COME_AGAIN));
        }
        let (landed, flight) = watch::channel(false);
        state.flying.insert(name.into_owned(), landed);
        Wanted::Coming(Flight(flight))
    }

    /// What is known without a question; otherwise the desk, to put a wish on.
    fn settled(&self, name: &str) -> Result<MutexGuard<'_, State>, Wanted> {
        if !is_name(name) || (self.is_own(name) && !self.is_below(name)) {
            return Err(Wanted::Refused(None));
        }
        let may_be = self.entitled.get().is_some_and(|it| it.may_be(name));
        if !may_be {
            return Err(Wanted::Refused(None));
        }
        let now = seconds(self.clock.now());
        if self.has(name, now) {
            return Err(Wanted::Ready);
        }
        let mut state = self.demand.lock();
        if let Some(flight) = state.flying.get(name) {
            return Err(Wanted::Coming(Flight(flight.subscribe())));
        }
        if let Some(refusal) = state.refused.get(name).copied()
            && now < refusal.until
            && !(refusal.is_recorded && self.next_try(name).is_none_or(|next| next <= now))
        {
            let wait = Duration::from_secs(refusal.until - now);
            return Err(Wanted::Refused(Some(wait)));
        }
        Ok(state)
    }

    /// Names of the node itself have their own certificates, and so have most below.
    fn is_own(&self, name: &str) -> bool {
        let own = &*self.settings.own;
        let above = name.strip_suffix(own);
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }

    /// Whether this is a name of the node's that is ordered on demand all the same.
    pub fn is_below(&self, name: &str) -> bool {
        let name = canonical(name);
        self.is_own(&name) && self.entitled.get().is_some_and(|it| it.is_below(&name))
    }

    fn has(&self, name: &str, now: u64) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = held.get(name).and_then(|held| held.pair.as_ref());
        pair.is_some_and(|pair| seconds(pair.ends) > now)
    }

    pub(super) async fn still_entitled(
        &self,
        name: &str,
        client: Option<IpAddr>,
    ) -> Result<(), String> {
        let Some(entitled) = self.entitled.get() else {
            return Err("nothing here says whose domains are served".to_owned());
        };
        if !entitled.may_be(name) {
            return Err("it leads to nothing here".to_owned());
        }
        match tokio::time::timeout(QUESTION, entitled.entitled(name, client)).await {
            Ok(answer) => answer,
            Err(_) => Err("it took too long to find out whether it leads here".to_owned()),
        }
    }

    /// Order from a thread of its own for as long as `self` is held by anybody.
    pub fn start(self: &Arc<Self>) -> Result<(), Error> {
        let (wishes, wished) = mpsc::channel(FLYING);
        if self.demand.wishes.set(wishes).is_err() {
            return Ok(()); // it runs already
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Spawn)?;
        let acme = Arc::downgrade(self);
        std::thread::Builder::new()
            .name("order-certs".into())
            .spawn(move || runtime.block_on(Box::pin(work(acme, wished))))
            .map_err(Error::Spawn)?;
        Ok(())
    }

    /// Fulfil one wish, or say until when it is refused. `orders` has room for an order, and is
    /// held by nothing else.
    async fn fly(&self, name: &str, orders: &Semaphore) -> Result<(), Refusal> {
        let now = || seconds(self.clock.now());
        if let Err(why) = self.still_entitled(name, None).await {
            tracing::info!("no certificate is ordered for {name}: {why}");
            return Err(Refusal::new(now() + NOT_ENTITLED));
        }
        let names = vec![name.to_owned()];
        let slug = Shelf::slug(&names);
        let record = Record::new(names, Class::Custom);
        let deadline = tokio::time::Instant::now() + OTHERS;
        loop {
            let done = {
                let Ok(_permit) = orders.acquire().await else {
                    return Err(Refusal::new(now() + FAILED));
                };
                Box::pin(self.attempt(&slug, &record, true)).await
            };
            match done {
                Ok(()) if self.has(name, now()) => return Ok(()),
                // It was tried a while ago, and its next time has not come.
                Ok(()) => return Err(self.refusal(&slug)),
                Err(Failure::Busy) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(Failure::Budget { seconds, domain }) => {
                    tracing::warn!("orders for {domain} are used up for {seconds} s");
                    return Err(Refusal::new(now() + seconds));
                }
                Err(failure) => {
                    tracing::warn!(error = crate::chain(&failure), "no certificate for {name}");
                    return Err(self.refusal(&slug));
                }
            }
        }
    }

    /// Until the next try that is written down.
    fn refusal(&self, slug: &str) -> Refusal {
        match self.next_try(slug) {
            Some(until) => Refusal {
                until,
                is_recorded: true,
            },
            None => Refusal::new(seconds(self.clock.now()) + FAILED),
        }
    }

    fn next_try(&self, slug: &str) -> Option<u64> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(slug).and_then(|held| held.record.next_try)
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tell all who wait for a name that it is over.
    fn land(&self, name: &str, done: Result<(), Refusal>) {
        let mut state = self.lock();
        if let Err(refusal) = done {
            state.refused.put(name.to_owned(), refusal);
        }
        if let Some(flight) = state.flying.remove(name) {
            flight.send_replace(true);
        }
    }
}

/// Tend to what is due and fulfil wishes.
async fn work(acme: Weak<Acme>, mut wished: mpsc::Receiver<String>) {
    let tending = acme.clone();
    tokio::spawn(async move {
        loop {
            let Some(acme) = tending.upgrade() else {
                return;
            };
            let again = Box::pin(acme.tend()).await;
            drop(acme);
            tokio::time::sleep(again).await;
        }
    });
    let orders = Arc::new(Semaphore::new(ORDERS));
    while let Some(name) = wished.recv().await {
        let (acme, orders) = (acme.clone(), orders.clone());
        tokio::spawn(async move {
            let Some(acme) = acme.upgrade() else { return };
            let done = Box::pin(acme.fly(&name, &orders)).await;
            acme.demand.land(&name, done);
        });
    }
}
