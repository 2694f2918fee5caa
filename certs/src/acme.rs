//! Certificates from a directory that speaks ACME (RFC 8555): ordered, kept, replaced in time.
//!
//! Read in this order: [`plan`] (when to order, as pure decisions), [`shelf`] (what is on disk),
//! [`lease`] (who works on what), [`directory`] (the connection), [`account`], [`order`],
//! [`demand`] (domains of others, when somebody asks for them), [`issuers`] (what the directory
//! wants to be named in CAA records), [`leftovers`].
//!
//! Everything that matters is on disk before the directory hears of it, so that a process may be
//! killed anywhere and any node that shares the store goes on.

mod account;
mod demand;
mod directory;
mod issuers;
mod lease;
mod leftovers;
mod order;
mod plan;
mod shelf;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use instant_acme::{ChallengeType, HttpClient, RevocationReason, RevocationRequest};

pub use self::demand::{Entitled, Flight, Wanted};
pub use self::directory::Https;
pub use self::issuers::issuers;
use self::order::Task;
use self::plan::{Budget, State, Window};
pub use self::shelf::Challenges;
use self::shelf::{Record, Shelf};
use crate::clock::{moment, seconds};
use crate::pair::Pair;
use crate::resolver::OnDemand;
use crate::{
    ChallengeError, Class, Clock, DnsChallenge, Error, Holding, Holdings, Names, Resolver,
};

/// The directory of Let's Encrypt, and the one to try things out with.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Between two looks at what is due and at what other nodes did.
const LOOK: Duration = Duration::from_secs(60);
/// The same while another node orders what this one has none of.
const LOOK_SOON: Duration = Duration::from_secs(5);
/// Renewals of other people's domains, and questions about renewal windows, in one look: the rest
/// waits for the next.
const AT_A_LOOK: usize = 16;
/// When one is renewed that somebody wants at once.
const HASTENED: u64 = 0;
/// How long one that has ended is kept for domains that are no longer pointed here.
const KEPT_ENDED: u64 = 7 * 24 * 3600;
/// How long after its next try a failure is known of a domain that nobody asks for any more.
const KEPT_FAILED: u64 = 7 * 24 * 3600;

/// What to order where, and for whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory's URL.
    pub directory: String,
    /// The directory on disk, which nodes may share.
    pub store: PathBuf,
    /// Such as `mailto:admin@example.org`.
    pub contacts: Vec<String>,
    pub external: Option<External>,
    /// Certificates that there shall always be.
    pub targets: Vec<Target>,
    /// Names that are never ordered on demand: this domain and all below it.
    pub own: String,
    /// This machine, among those that share the store.
    pub owner: String,
    pub limits: Limits,
}

/// An account elsewhere that the one at the directory is bound to (RFC 8555, section 7.3.4).
#[derive(Clone)]
pub struct External {
    pub id: String,
    /// The HMAC key itself, not its text.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("External")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A certificate that there shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub names: Vec<String>,
    pub class: Class,
}

impl Target {
    /// The API of a domain with its realms, and the containers of one of its nodes: certificates
    /// of their own, as with [`crate::Local`].
    pub fn of_node(domain: &str, node: &str) -> Vec<Target> {
        vec![
            Target {
                names: vec![format!("api.{domain}"), format!("*.api.{domain}")],
                class: Class::Api,
            },
            Target {
                names: vec![format!("*.{node}.containers.{domain}")],
                class: Class::Node,
            },
        ]
    }
}

/// Bounds on orders for domains of others. Below what Let's Encrypt allows, so that a flood of
/// them never keeps a node from its own.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub orders_per_hour: usize,
    /// In a week, below one registered domain.
    pub orders_per_domain: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            orders_per_hour: 30,
            orders_per_domain: 10,
        }
    }
}

/// What orders are made with.
pub struct Parts {
    pub http: Arc<dyn HttpClient>,
    /// Where TXT records can be shown: wildcards cannot be had without.
    pub dns: Option<Arc<dyn DnsChallenge>>,
    pub clock: Arc<dyn Clock>,
    /// From 0 to 1, another number each time.
    pub dice: Arc<dyn Fn() -> f64 + Send + Sync>,
    /// Is told who certifies, as the directory says, again and again; nothing: nobody asks it.
    pub issuers: Option<Arc<TellIssuers>>,
}

/// Takes names for CAA records.
pub type TellIssuers = dyn Fn(&[String]) + Send + Sync;

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("could not {what} at {directory}: {why}")]
    Unreachable {
        what: &'static str,
        directory: String,
        why: String,
    },
    #[error("the directory refused {what}: {why}")]
    Refused {
        what: &'static str,
        /// The last word of the problem's type, such as `rateLimited`.
        kind: Option<String>,
        why: String,
    },
    #[error("{name} was not found to be ours: {why}")]
    Proof { name: String, why: String },
    #[error(transparent)]
    Dns(#[from] ChallengeError),
    #[error(
        "nothing can show a TXT record for {name}, without which there are no wildcards; have the \
         node answer for the zone, or say who does: see the settings of dns"
    )]
    NoDns { name: String },
    #[error("the directory does not take the account {id}: {why}")]
    AccountLost { id: String, why: String },
    #[error("there is no account at the directory yet; one is made with the first order")]
    NoAccount,
    #[error("there is no certificate for {name}; `hoody certs list` names those that there are")]
    NoCertificate { name: String },
    #[error("the certificate that came is of no use: {0}")]
    Unusable(String),
    #[error("the order took too long; it goes on with the next attempt")]
    Slow,
    #[error("orders for {domain} are used up for now; the next is possible in {seconds} s")]
    Budget { domain: String, seconds: u64 },
    /// No failure of anything.
    #[error("another process is at it")]
    Busy,
    #[error(transparent)]
    Store(#[from] Error),
}

/// Refusals that say nothing of the order, which the next attempt goes on with (RFC 8555, section
/// 6.7). A directory may reject nonces more often in a row than they are sent anew.
const PASSING: [&str; 4] = ["badNonce", "orderNotReady", "rateLimited", "serverInternal"];

impl Failure {
    /// Whether nothing can come of the same order any more.
    fn ends_order(&self) -> bool {
        match self {
            Failure::Refused { kind, .. } => {
                !kind.as_deref().is_some_and(|kind| PASSING.contains(&kind))
            }
            Failure::Proof { .. } | Failure::Unusable(_) => true,
            _ => false,
        }
    }
}

/// How names are shown to be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Dns,
    Http,
    Alpn,
}

impl Way {
    /// The names of a node go by DNS. For others, the two ways to be asked on our own ports take
    /// turns: one of the two ports may be closed, or something may stand before it.
    fn of(class: Class, failures: u32) -> Way {
        match class {
            Class::Custom if failures.is_multiple_of(2) => Way::Http,
            Class::Custom => Way::Alpn,
            Class::Api | Class::Node | Class::File => Way::Dns,
        }
    }

    fn kind(self, is_wildcard: bool) -> ChallengeType {
        match self {
            _ if is_wildcard => ChallengeType::Dns01,
            Way::Dns => ChallengeType::Dns01,
            Way::Http => ChallengeType::Http01,
            Way::Alpn => ChallengeType::TlsAlpn01,
        }
    }
}

/// Certificates of one directory.
pub struct Acme {
    settings: Settings,
    shelf: Shelf,
    challenges: Challenges,
    http: Arc<dyn HttpClient>,
    dns: Option<Arc<dyn DnsChallenge>>,
    clock: Arc<dyn Clock>,
    dice: Arc<dyn Fn() -> f64 + Send + Sync>,
    issuers: Option<Arc<TellIssuers>>,
    resolver: Arc<Resolver>,
    held: Mutex<BTreeMap<String, Held>>,
    entitled: OnceLock<Arc<dyn Entitled>>,
    demand: demand::Desk,
}

/// What this process knows of one certificate.
#[derive(Clone)]
struct Held {
    record: Record,
    pair: Option<Pair>,
    stamp: shelf::Stamp,
}

impl Held {
    fn state(&self) -> State {
        State {
            ends: self.pair.as_ref().map(|pair| seconds(pair.ends)),
            renews: self.record.renews,
            next_try: self.record.next_try,
        }
    }
}

impl Acme {
    /// Open the store and show what is in it. `beneath` is asked for names that it has nothing
    /// for. Nothing is ordered before [`Acme::start`] or [`Acme::tend`].
    pub fn open(
        settings: Settings,
        parts: Parts,
        beneath: impl OnDemand + 'static,
    ) -> Result<Arc<Acme>, Error> {
        let shelf = Shelf::open(&settings.store, &settings.directory)?;
        let acme = Acme {
            challenges: shelf.challenges(),
            shelf,
            settings,
            http: parts.http,
            dns: parts.dns,
            clock: parts.clock,
            dice: parts.dice,
            issuers: parts.issuers,
            resolver: Arc::new(Resolver::new(Names::default()).on_demand(beneath)),
            held: Mutex::default(),
            entitled: OnceLock::new(),
            demand: demand::Desk::default(),
        };
        acme.refresh()?;
        acme.tell_issuers()?;
        Ok(Arc::new(acme))
    }

    /// What a TLS listener asks. It follows every change.
    pub fn resolver(&self) -> Arc<Resolver> {
        self.resolver.clone()
    }

    /// Answers for the directory's questions on ports 80 and 443.
    pub fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Read what changed in the store, whoever changed it.
    pub fn refresh(&self) -> Result<(), Error> {
        let mut slugs: BTreeSet<String> = self.shelf.slugs()?.into_iter().collect();
        let targets = &self.settings.targets;
        slugs.extend(targets.iter().map(|target| Shelf::slug(&target.names)));
        let mut changed = BTreeMap::new();
        {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            for slug in &slugs {
                let stamp = self.shelf.stamp(slug);
                if held.get(slug).is_none_or(|held| held.stamp != stamp) {
                    changed.insert(slug.clone(), stamp);
                }
            }
            if changed.is_empty() && held.len() == slugs.len() {
                return Ok(());
            }
        }
        let mut fresh = Vec::new();
        for (slug, stamp) in changed {
            fresh.push((slug.clone(), self.read(&slug, stamp)?));
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|slug, _| slugs.contains(slug));
        held.extend(fresh);
        self.show_held(&held);
        Ok(())
    }

    /// What the store has of one certificate.
    fn read(&self, slug: &str, stamp: shelf::Stamp) -> Result<Held, Error> {
        let target = self.target(slug);
        let record = self.shelf.record(slug)?;
        let pem = self.shelf.pair(slug)?;
        let pair = pem.and_then(|pem| {
            Pair::read(&pem, &pem)
                .inspect_err(|why| tracing::error!("the certificate {slug} is of no use: {why}"))
                .ok()
        });
        let record = match (record, target) {
            // Settings decide what a node's own are for.
            (Some(record), Some(target)) if record.names == target.names => record,
            (_, Some(target)) => Record::new(target.names.clone(), target.class),
            (Some(record), None) => record,
            (None, None) => Record::new(vec![slug.to_owned()], Class::Custom),
        };
        let pair = pair.filter(|pair| pair.is_for(&record.names));
        Ok(Held {
            record,
            pair,
            stamp,
        })
    }

    fn target(&self, slug: &str) -> Option<&Target> {
        let targets = &self.settings.targets;
        targets
            .iter()
            .find(|target| Shelf::slug(&target.names) == slug)
    }

    /// When the certificate that is held ends.
    fn held_ends(&self, slug: &str) -> Option<u64> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = held.get(slug).and_then(|held| held.pair.as_ref());
        pair.map(|pair| seconds(pair.ends))
    }

    fn show_held(&self, held: &BTreeMap<String, Held>) {
        let mut names = Names::default();
        for held in held.values() {
            for name in held.record.names.iter().filter(|_| held.pair.is_some()) {
                if let Some(pair) = &held.pair {
                    names.insert(name, pair.certified.clone());
                }
            }
        }
        self.resolver.swap(names);
    }

    /// Do what is due: order what there is none of, replace what ends, ask for renewal windows,
    /// take over what other nodes did. Returns how long until it is worth another look.
    pub async fn tend(&self) -> Duration {
        if let Err(error) = self.refresh().and_then(|()| self.challenges.sweep()) {
            tracing::error!(
                error = crate::chain(&error),
                "could not look at certificates"
            );
            return LOOK;
        }
        if let Err(error) = self.forget_failed() {
            tracing::error!(
                error = crate::chain(&error),
                "could not forget what failed long ago"
            );
        }
        if let Err(error) = Box::pin(self.clear()).await {
            tracing::error!(
                error = crate::chain(&error),
                "could not clear what is left over"
            );
        }
        // Before any order: the directory looks who may certify.
        if let Err(error) = self.ask_issuers().await {
            tracing::warn!(
                error = crate::chain(&error),
                "what the directory said last about who certifies stays"
            );
        }
        let mut again = LOOK;
        for (slug, held) in self.due() {
            if let Err(Failure::Busy) = Box::pin(self.attempt(&slug, &held.record, false)).await
                && held.pair.is_none()
            {
                again = LOOK_SOON;
            }
        }
        Box::pin(self.ask_windows()).await;
        again
    }

    /// Take away what is kept of domains of others that never had a certificate and that nobody
    /// has asked for in a while: the failure, and the order with its key.
    fn forget_failed(&self) -> Result<(), Error> {
        let now = seconds(self.clock.now());
        let is_old = |held: &Held| {
            let next = held.record.next_try;
            held.pair.is_none() && next.is_some_and(|next| next + KEPT_FAILED < now)
        };
        let old: Vec<String> = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let others = held.iter().filter(|(slug, held)| {
                held.record.class == Class::Custom && self.target(slug).is_none() && is_old(held)
            });
            others.map(|(slug, _)| slug.clone()).collect()
        };
        for slug in &old {
            let Some(lease) = self.lease(slug)? else {
                continue;
            };
            // Somebody may just have tried again.
            if is_old(&self.read(slug, self.shelf.stamp(slug))?) {
                self.shelf.drop_pending(slug)?;
                self.shelf.remove(slug)?;
            }
            lease.release()?;
        }
        match old.is_empty() {
            true => Ok(()),
            false => self.refresh(),
        }
    }

    /// What to order now, a node's own first.
    fn due(&self) -> Vec<(String, Held)> {
        let now = seconds(self.clock.now());
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let due = held
            .iter()
            .filter(|(_, held)| plan::is_due(held.state(), now));
        let (own, others): (Vec<_>, Vec<_>) = due
            .map(|(slug, held)| (slug.clone(), held.clone()))
            .partition(|(slug, _)| self.target(slug).is_some());
        // Others have none because somebody asked and it failed: they ask again themselves, if
        // the operator does not. What is of other nodes that share the store is theirs to renew.
        let others = others
            .into_iter()
            .filter(|(_, held)| held.record.class == Class::Custom)
            .filter(|(_, held)| held.pair.is_some() || held.record.renews == Some(HASTENED))
            .take(AT_A_LOOK);
        own.into_iter().chain(others).collect()
    }

    /// Try once to have a new certificate, unless somebody else does or has. What came of it is
    /// written down. `is_new` is an order for somebody who is new here, which has a budget.
    async fn attempt(&self, slug: &str, record: &Record, is_new: bool) -> Result<(), Failure> {
        // Before anything is written down for a name: strangers make up as many as they like.
        if is_new && self.shelf.pending(slug)?.is_none() {
            self.affords(&record.names[0])?;
        }
        let Some(mut lease) = self.lease(slug)? else {
            return Err(Failure::Busy);
        };
        let done = self.attempt_alone(slug, record, is_new, &mut lease).await;
        lease.release()?;
        self.refresh()?;
        done
    }

    async fn attempt_alone(
        &self,
        slug: &str,
        record: &Record,
        is_new: bool,
        lease: &mut lease::Lease,
    ) -> Result<(), Failure> {
        // Whoever held the lease before may have done it, or failed.
        let held = self.read(slug, self.shelf.stamp(slug))?;
        let now = seconds(self.clock.now());
        if !plan::is_due(held.state(), now) {
            return Ok(());
        }
        let mut record = Record {
            names: record.names.clone(),
            class: record.class,
            ..held.record
        };
        let replaces = held.pair.as_ref();
        if record.class == Class::Custom
            && !is_new
            && let Err(why) = self.still_entitled(&record.names[0], None).await
        {
            tracing::info!("{} is not renewed: {why}", record.names[0]);
            if replaces.is_none_or(|pair| now > seconds(pair.ends) + KEPT_ENDED) {
                self.shelf.remove(slug)?;
            } else {
                record.next_try = Some(now + plan::wait(1, None, (self.dice)()));
                record.error = Some(why);
                self.shelf.put_record(slug, &record)?;
            }
            return Ok(());
        }
        if is_new && self.shelf.pending(slug)?.is_none() {
            self.spend(&record.names[0], now)?;
        }
        let (done, told) = self.obtain(slug, &record, replaces, lease).await;
        match done {
            Ok(pair) => {
                let (begins, ends) = (seconds(pair.begins), seconds(pair.ends));
                record.renews = Some(plan::renewal(begins, ends, None, (self.dice)()));
                record.window = None;
                record.ask_window = 0;
                record.failures = 0;
                record.next_try = None;
                record.error = None;
                self.shelf.put_record(slug, &record)?;
                tracing::info!(
                    "has a certificate for {} until {}",
                    record.names.join(", "),
                    rfc3339(ends)
                );
                Ok(())
            }
            Err(Failure::Busy) => Err(Failure::Busy),
            Err(failure) => {
                let now = seconds(self.clock.now());
                record.failures = record.failures.saturating_add(1);
                let wait = plan::wait(record.failures, told, (self.dice)());
                record.next_try = Some(now + wait);
                let why = crate::chain(&failure);
                let rest = match replaces {
                    Some(pair) if seconds(pair.ends) > now => format!(
                        "; the one in use ends in {} hours",
                        (seconds(pair.ends) - now) / 3600
                    ),
                    Some(_) => "; the one in use has ended".to_owned(),
                    None => String::new(),
                };
                tracing::warn!(
                    error = why,
                    "no new certificate for {}; tried again in {wait} s{rest}",
                    record.names.join(", ")
                );
                record.error = Some(why);
                if replaces.is_none() {
                    record.renews = None; // it was tried once, as somebody wished
                }
                self.shelf.put_record(slug, &record)?;
                Err(failure)
            }
        }
    }

    /// An order with the account there is, or with a new one where that is lost.
    async fn obtain(
        &self,
        slug: &str,
        record: &Record,
        replaces: Option<&Pair>,
        lease: &mut lease::Lease,
    ) -> (Result<Pair, Failure>, Option<Duration>) {
        let task = Task {
            slug,
            names: &record.names,
            way: Way::of(record.class, record.failures),
            replaces,
        };
        if task.way == Way::Dns && self.dns.is_none() {
            let name = record.names[0].clone();
            return (Err(Failure::NoDns { name }), None);
        }
        for is_last in [false, true] {
            let open = match self.account().await {
                Ok(open) => open,
                Err((failure, told)) => return (Err(failure), told.get()),
            };
            match Box::pin(self.order(&open, &task, lease)).await {
                Err(Failure::AccountLost { id, .. }) if !is_last => {
                    if let Err(failure) = self.lose_account(&id) {
                        return (Err(failure), None);
                    }
                }
                done => return (done, open.told.get()),
            }
        }
        unreachable!("the last round returns")
    }

    /// Whether there is an order in the budget, which is left as it is.
    fn affords(&self, name: &str) -> Result<(), Failure> {
        let (limits, now) = (self.settings.limits, seconds(self.clock.now()));
        let mut budget = self.shelf.budget()?;
        let spent = budget.spend(name, limits.orders_per_hour, limits.orders_per_domain, now);
        spent.map_err(|seconds| Failure::Budget {
            domain: plan::registered_domain(name).to_owned(),
            seconds,
        })
    }

    /// One order from the budget for domains of others.
    fn spend(&self, name: &str, now: u64) -> Result<(), Failure> {
        let limits = self.settings.limits;
        let spent = self.shelf.change(shelf::BUDGET, |budget: &mut Budget| {
            budget.spend(name, limits.orders_per_hour, limits.orders_per_domain, now)
        })?;
        spent.map_err(|seconds| Failure::Budget {
            domain: plan::registered_domain(name).to_owned(),
            seconds,
        })
    }

    /// Ask when the directory wants certificates replaced, where it is time to.
    async fn ask_windows(&self) {
        let now = seconds(self.clock.now());
        let asked: Vec<(String, Held)> = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.iter()
                .filter(|(slug, held)| {
                    held.record.class == Class::Custom || self.target(slug).is_some()
                })
                .filter(|(_, held)| held.pair.is_some() && held.record.ask_window <= now)
                .take(AT_A_LOOK)
                .map(|(slug, held)| (slug.clone(), held.clone()))
                .collect()
        };
        if asked.is_empty() {
            return;
        }
        let Ok(open) = self.account().await else {
            return; // it will be told where it matters: with the next order
        };
        for (slug, held) in asked {
            let Some(pair) = &held.pair else { continue };
            if let Err(error) = self.ask_window(&open, &slug, pair).await {
                tracing::warn!(
                    error = crate::chain(&error),
                    "could not keep a renewal window"
                );
            }
        }
        if let Err(error) = self.refresh() {
            tracing::error!(
                error = crate::chain(&error),
                "could not look at certificates"
            );
        }
    }

    async fn ask_window(
        &self,
        open: &account::Open,
        slug: &str,
        pair: &Pair,
    ) -> Result<(), Failure> {
        let Some(lease) = self.lease(slug)? else {
            return Ok(());
        };
        let found = match pair.leaf().try_into() {
            Ok(id) => open.account.renewal_info(&id).await.ok(),
            Err(_) => None,
        };
        let now = seconds(self.clock.now());
        let held = self.read(slug, self.shelf.stamp(slug))?;
        let mut record = held.record;
        let (window, again) = match found {
            Some((info, again)) => {
                let time = |time: time::OffsetDateTime| time.unix_timestamp().max(0) as u64;
                let window = info.suggested_window;
                let window = Window {
                    start: time(window.start),
                    end: time(window.end),
                };
                (Some(window), plan::ask_again(again))
            }
            // It has none, or is away: two thirds of the lifetime hold.
            None => (
                record.window,
                plan::ask_again(Duration::from_secs(u64::MAX)),
            ),
        };
        record.ask_window = now + again;
        if window != record.window || record.renews.is_none() {
            record.window = window;
            let (begins, ends) = (seconds(pair.begins), seconds(pair.ends));
            record.renews = Some(plan::renewal(begins, ends, window, (self.dice)()));
        }
        self.shelf.put_record(slug, &record)?;
        lease.release()?;
        Ok(())
    }

    /// Have the certificate for a name replaced with the next look, whatever failed before.
    pub fn hasten(&self, name: &str) -> Result<(), Failure> {
        let (slug, held) = self.find(name)?;
        let mut record = held.record;
        record.next_try = None;
        record.renews = Some(HASTENED);
        Ok(self.shelf.put_record(&slug, &record)?)
    }

    /// Tell the world that the certificate for a name is not to be believed any more (RFC 8555,
    /// section 7.6), and drop it. A node's own are ordered anew, with another key.
    pub async fn revoke(&self, name: &str, is_key_lost: bool) -> Result<(), Failure> {
        let (slug, held) = self.find(name)?;
        let Some(pair) = held.pair else {
            return Err(Failure::NoCertificate { name: name.into() });
        };
        let lease = self.lease(&slug)?.ok_or(Failure::Busy)?;
        let open = self.account().await.map_err(|(failure, _)| failure)?;
        let request = RevocationRequest {
            certificate: pair.leaf(),
            reason: Some(match is_key_lost {
                true => RevocationReason::KeyCompromise,
                false => RevocationReason::Superseded,
            }),
        };
        let revoked = open.account.revoke(&request).await;
        let done = match revoked {
            Ok(()) => self.shelf.remove(&slug).map_err(Failure::from),
            // Somebody was here before and died on the way.
            Err(instant_acme::Error::Api(problem))
                if problem.r#type.as_deref()
                    == Some("urn:ietf:params:acme:error:alreadyRevoked") =>
            {
                self.shelf.remove(&slug).map_err(Failure::from)
            }
            Err(error) => Err(self.failed("revoke", error)),
        };
        lease.release()?;
        self.refresh()?;
        done
    }

    fn find(&self, name: &str) -> Result<(String, Held), Failure> {
        let name = crate::names::canonical(name);
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let found = held
            .iter()
            .find(|(_, held)| held.record.names.iter().any(|it| *it == *name));
        match found {
            Some((slug, held)) => Ok((slug.clone(), held.clone())),
            None => Err(Failure::NoCertificate {
                name: name.into_owned(),
            }),
        }
    }

    /// What an error of the library means.
    fn failed(&self, what: &'static str, error: instant_acme::Error) -> Failure {
        match error {
            instant_acme::Error::Api(problem) => Failure::Refused {
                what,
                kind: problem
                    .r#type
                    .as_deref()
                    .and_then(|kind| kind.rsplit(':').next())
                    .map(str::to_owned),
                why: order::words(&problem),
            },
            error => Failure::Unreachable {
                what,
                directory: self.settings.directory.clone(),
                why: error.to_string(),
            },
        }
    }
}

impl Holdings for Acme {
    fn holdings(&self) -> Vec<Holding> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.values()
            .map(|held| Holding {
                names: held.record.names.clone(),
                class: held.record.class,
                mode: "acme",
                ends: held.pair.as_ref().map(|pair| pair.ends),
                renews: match (held.record.next_try, held.record.renews) {
                    (Some(next), _) => Some(moment(next)),
                    (None, Some(HASTENED)) => Some(self.clock.now()),
                    (None, renews) => renews.map(moment),
                },
                error: held.record.error.clone(),
            })
            .collect()
    }
}

impl std::fmt::Debug for Acme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acme")
            .field("directory", &self.settings.directory)
            .finish_non_exhaustive()
    }
}

/// A number from 0 to 1, by chance.
pub fn chance() -> f64 {
    rand::random()
}

fn rfc3339(seconds: u64) -> String {
    let time: SystemTime = moment(seconds);
    let text =
        time::OffsetDateTime::from(time).format(&time::format_description::well_known::Rfc3339);
    text.unwrap_or_else(|_| seconds.to_string())
}
