//! Machines that are booted and frozen before anybody asks for them.
//!
//! A pool keeps machines of one [`Kind`]: an image, with the kit or without. Each is made, started
//! and let come to rest like any other, so that it makes all that tells it from others by itself:
//! system id, host keys, seeds, address, user ids. None is a copy of another, and none is used twice.
//! Then it is frozen.
//!
//! A container that fits is given one in the transaction that writes it
//! ([`crate::store::prespawned::take`]), and its id with it: nobody was ever told that id, no URL led
//! to it, and so nothing has to be renamed. The reconciler then makes the machine the container
//! ([`Step::Claim`](crate::container::Step::Claim)): name, variables, key and devices are there before
//! the proxy knows of it.
//!
//! [`decide`] says what to do next, from what is kept and what should be; one task does it, one
//! machine at a time, and none of it is remembered beyond the database: what a killed control had
//! begun is removed by the next. Frozen machines hold their memory, so it is counted, and bounded.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use routes::Id;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::auth::chain;
use crate::container::Claim;
use crate::control::{Control, SETTINGS};
use crate::ready;
use crate::reconcile::hostname;
use crate::runtime::{Limits, Machine, Observed, Power, RuntimeError};
use crate::store::StoreError;
use crate::store::containers::Container;
use crate::store::prespawned::{self, Member, State};
use crate::time::Millis;
use crate::words;

/// Machines that may be kept ready in all: each takes an address, and a look of every sweep.
pub const MEMBERS: usize = 64;
/// What a machine is taken to hold until one of its kind was measured.
const MEMBER_BYTES: u64 = 64 << 20;
/// A runtime that has not answered by then is taken for stuck.
const STEP_MOST: Duration = Duration::from_secs(300);
const LOOK_MOST: Duration = Duration::from_secs(60);
/// Users' own machines go first: this long at most.
const QUIET_MOST: Duration = Duration::from_secs(20);
const QUIET_POLL: Duration = Duration::from_millis(50);
/// The longest part of a failure's text that is kept.
const REASON: usize = 1024;

/// Which containers a machine fits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    pub image: String,
    pub kit: bool,
    /// Their own, below what the node gives to all.
    pub limits: Limits,
}

impl Kind {
    /// How rows of the database call it.
    pub fn key(&self) -> String {
        let kit = if self.kit { "kit" } else { "bare" };
        let mut key = format!("{} {kit}", self.image);
        let Limits {
            cpu,
            memory,
            disk,
            processes,
        } = self.limits;
        for (name, limit) in [
            ("cpu", cpu.map(u64::from)),
            ("memory", memory),
            ("disk", disk),
            ("processes", processes.map(u64::from)),
        ] {
            if let Some(limit) = limit {
                key += &format!(" {name}:{limit}");
            }
        }
        key
    }
}

/// What is kept ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub pools: Vec<Pool>,
    /// Bytes that all machines in them may hold.
    pub memory: u64,
}

/// How many machines of a kind are kept ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub kind: Kind,
    pub size: usize,
}

/// What a new container asks of the pools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Nothing: it is made as if there were none.
    None,
    /// A machine of this kind and edition.
    One { kind: String, edition: String },
    /// There can be none, for this reason.
    Missed(String),
}

/// The pools of a control plane: what of them is known in memory.
#[derive(Default)]
pub struct Prespawn {
    shared: Mutex<Shared>,
    wake: Notify,
}

#[derive(Default)]
struct Shared {
    /// The edition of each kind that can be claimed; empty until the first look.
    open: BTreeMap<String, String>,
    /// How members, and those that are being claimed, were last seen. Bounded by both.
    seen: HashMap<Id, Observed>,
    standing: Standing,
}

/// How the pools are, for the administrator and the metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// What is kept of each kind, in the order of the settings.
    pub pools: Vec<Kept>,
    /// Bytes that all members hold.
    pub memory: u64,
    /// What is being done, and since when.
    pub doing: Option<(&'static str, Millis)>,
    /// Why the last try failed, and when.
    pub failure: Option<(String, Millis)>,
}

/// What is kept of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub kind: Kind,
    pub size: usize,
    pub ready: usize,
}

impl Prespawn {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Have the pools looked at soon.
    pub fn nudge(&self) {
        self.wake.notify_one();
    }

    /// How a machine that is being claimed was last seen, so that the engine need not be asked.
    pub fn recall(&self, container: &Container) -> Option<Observed> {
        match container.claim {
            Some(Claim::Open | Claim::Taken) => self.shared().seen.get(&container.id).cloned(),
            Some(Claim::Spoilt) | None => None,
        }
    }

    pub fn remember(&self, observed: Observed) {
        self.shared().seen.insert(observed.id, observed);
    }

    /// From now on the engine is asked.
    pub fn forget(&self, id: Id) {
        self.shared().seen.remove(&id);
    }

    pub fn standing(&self) -> Standing {
        self.shared().standing.clone()
    }

    /// Whether machines made from this image are kept ready.
    pub fn has_image(&self, image: &str) -> bool {
        let shared = self.shared();
        let mut pools = shared.standing.pools.iter();
        pools.any(|pool| pool.kind.image == image && pool.size > 0)
    }
}

/// What a new container can have. `image` is the name of its image; `asked` where its caller asked for
/// a machine that was kept ready, and wants to know why there is none.
pub fn wish(control: &Control, container: &Container, image: &str, asked: bool) -> Wish {
    let settings = &control.config.prespawn;
    let missed = |reason: String| match asked {
        true => Wish::Missed(reason),
        false => Wish::None,
    };
    if !control.runtime.keeps_ready() {
        let runtime = control.runtime.name();
        return missed(format!("the runtime `{runtime}` keeps no machines ready"));
    }
    if settings.pools.iter().all(|pool| pool.size == 0) {
        return missed(
            "this node keeps no machines ready; the setting is `prespawn.pools`".to_owned(),
        );
    }
    let kind = Kind {
        image: image.to_owned(),
        kit: container.kit,
        limits: container.limits,
    };
    let fits = |pool: &&Pool| pool.size > 0 && pool.kind == kind;
    if settings.pools.iter().find(fits).is_none() {
        let kit = if kind.kit { "with" } else { "without" };
        return missed(format!(
            "no machines of the image `{image}` {kit} the kit and with the same limits are kept ready; the \
             setting is `prespawn.pools`"
        ));
    }
    if !container.ramdisk && control.runtime.has_ramdisks() {
        return missed("machines that are kept ready have a disk in memory".to_owned());
    }
    let key = kind.key();
    match control.prespawn.shared().open.get(&key) {
        Some(edition) => Wish::One {
            kind: key,
            edition: edition.clone(),
        },
        None => Wish::Missed("the machines that are kept ready were not looked at yet".to_owned()),
    }
}

/// What is to be done about the pools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Remove this machine.
    Drop(Id),
    /// Make one for the pool of this number.
    Make(usize),
}

/// A pool as [`decide`] sees it.
#[derive(Debug, Clone)]
pub struct Want {
    pub kind: String,
    pub size: usize,
    /// What its machines are to be made of; none where that is not known now.
    pub edition: Option<String>,
    /// Bytes that one of its machines is expected to hold.
    pub expected: u64,
}

/// The next thing to do, if any. `frozen` says whether a member is there and stands still.
pub fn decide(
    wants: &[Want],
    members: &[Member],
    frozen: impl Fn(Id) -> bool,
    memory: u64,
) -> Option<Job> {
    // What is being made by nobody any more was begun by a control that did not live to end it.
    let of_nobody = |member: &&Member| member.state != State::Ready;
    if let Some(member) = members.iter().find(of_nobody) {
        return Some(Job::Drop(member.id));
    }
    for member in members {
        let want = wants.iter().find(|want| want.kind == member.kind);
        let fits = want.is_some_and(|want| {
            want.size > 0
                && want
                    .edition
                    .as_ref()
                    .is_none_or(|edition| *edition == member.edition)
        });
        if !fits || !frozen(member.id) {
            return Some(Job::Drop(member.id));
        }
    }
    let count = |want: &Want| {
        let of_kind = members.iter().filter(|member| member.kind == want.kind);
        of_kind.count()
    };
    let newest = |want: &Want| {
        let of_kind = |member: &&Member| member.kind == want.kind;
        let newest = members.iter().rev().find(of_kind);
        newest.map(|member| Job::Drop(member.id))
    };
    if let Some(want) = wants.iter().find(|want| count(want) > want.size) {
        return newest(want);
    }
    let held: u64 = members.iter().map(|member| member.memory).sum();
    if held > memory {
        return wants.iter().max_by_key(|want| count(want)).and_then(newest);
    }
    // The pool that is emptiest for its size goes first.
    wants
        .iter()
        .enumerate()
        .filter(|(_, want)| want.edition.is_some() && count(want) < want.size)
        .filter(|(_, want)| held.saturating_add(want.expected) <= memory)
        .min_by_key(|(_, want)| count(want) * MEMBERS / want.size.max(1))
        .map(|(at, _)| Job::Make(at))
}

/// Why the pools are not what they should be.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("{act} of a machine took longer than {STEP_MOST:?}")]
    Slow { act: &'static str },
    #[error("its kit does not answer")]
    NoKit,
    #[error("it is {0:?} instead of frozen")]
    NotFrozen(Option<Power>),
}

/// Keep the pools as they should be, for as long as this is polled.
pub async fn run(control: Control) {
    let mut keeper = Keeper {
        expected: HashMap::new(),
        checked: false,
        control,
    };
    let pace = keeper.control.config.pace.clone();
    let mut failures: u32 = 0;
    loop {
        let waits = match keeper.pass().await {
            Ok(true) => {
                failures = 0;
                keeper.quiet().await;
                continue;
            }
            Ok(false) => pace.sweep,
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(error = %reason, "the machines that are kept ready are not what they should be; trying again");
                let now = keeper.control.now();
                let reason = reason.chars().take(REASON).collect();
                keeper.control.prespawn.shared().standing.failure = Some((reason, now));
                failures = failures.saturating_add(1);
                let doubled = pace.backoff_least.saturating_mul(1 << failures.min(16));
                doubled.min(pace.backoff_most)
            }
        };
        keeper.control.prespawn.shared().standing.doing = None;
        let nudged = keeper.control.prespawn.wake.notified();
        if tokio::time::timeout(waits, nudged).await.is_ok() {
            keeper.quiet().await;
        }
    }
}

struct Keeper {
    control: Control,
    /// What machines of each kind were last seen to hold.
    expected: HashMap<String, u64>,
    /// The members that were found at the start are nobody's.
    checked: bool,
}

impl Keeper {
    /// Let those go first who wait for machines of their own.
    async fn quiet(&self) {
        let control = &self.control;
        let until = Instant::now() + QUIET_MOST;
        let pause = control.config.pace.refill_pause;
        while Instant::now() < until {
            let claimed = control.prespawn.wake.notified();
            if tokio::time::timeout(pause, claimed).await.is_err() {
                break;
            }
        }
        let busy = || {
            let tasks = control.tasks.list();
            tasks.iter().any(|task| task.step.is_some())
        };
        while busy() && Instant::now() < until {
            tokio::time::sleep(QUIET_POLL).await;
        }
    }

    fn doing(&self, what: &'static str) {
        let now = self.control.now();
        self.control.prespawn.shared().standing.doing = Some((what, now));
    }

    /// Look at the pools and do one thing about them. Whether there was one.
    async fn pass(&mut self) -> Result<bool, KeepError> {
        let control = self.control.clone();
        let pools: &[Pool] = match control.runtime.keeps_ready() {
            true => &control.config.prespawn.pools,
            false => &[],
        };
        let mut wants = Vec::with_capacity(pools.len());
        let mut unknown = None;
        for pool in pools {
            let key = pool.kind.key();
            let edition = match self.edition(&pool.kind).await {
                Ok(edition) => Some(edition),
                Err(error) => {
                    unknown = Some(error);
                    None
                }
            };
            wants.push(Want {
                size: pool.size,
                edition,
                expected: self.expected.get(&key).copied().unwrap_or(MEMBER_BYTES),
                kind: key,
            });
        }
        let members = control
            .store
            .read("list the machines that are kept ready", prespawned::all)
            .await?;
        if pools.is_empty() && members.is_empty() {
            control.prespawn.shared().open.clear();
            return Ok(false);
        }
        if !self.checked {
            self.disown(&members).await?;
            self.checked = true;
            return Ok(true);
        }
        let observed = tokio::time::timeout(LOOK_MOST, control.runtime.observe())
            .await
            .map_err(|_| KeepError::Slow { act: "a look" })??;
        let observed: HashMap<Id, Observed> = observed
            .into_iter()
            .filter(|one| one.power == Power::Frozen)
            .map(|one| (one.id, one))
            .collect();
        for member in members.iter().filter(|member| member.memory > 0) {
            self.expected.insert(member.kind.clone(), member.memory);
        }
        self.tell(pools, &wants, &members, &observed);
        let memory = control.config.prespawn.memory;
        let frozen = |id| observed.contains_key(&id);
        match decide(&wants, &members, frozen, memory) {
            None => match unknown {
                Some(error) => Err(error),
                None => Ok(false),
            },
            Some(Job::Drop(id)) => {
                self.doing("drop");
                self.remove(id).await?;
                Ok(true)
            }
            Some(Job::Make(at)) => {
                self.doing("make");
                let edition = wants[at].edition.clone().unwrap_or_default();
                self.make(&pools[at].kind, edition).await?;
                Ok(true)
            }
        }
    }

    /// Before any is given to anybody or removed: where the database is an old copy, machines may have
    /// been claimed since. They hold somebody's data.
    async fn disown(&self, members: &[Member]) -> Result<(), KeepError> {
        let control = &self.control;
        for id in members.iter().map(|member| member.id) {
            if !control.runtime.keeps_ready() || control.runtime.is_nobodys(id).await? {
                continue;
            }
            tracing::error!(
                container.id = %id,
                "machine {id} is kept ready in this database and somebody's in the engine; it is left alone"
            );
            control
                .store
                .write("disown a machine", move |db| prespawned::disown(db, id))
                .await?;
        }
        Ok(())
    }

    /// What machines of a kind are to be made of: the image, the kit, what the node gives to all.
    async fn edition(&self, kind: &Kind) -> Result<String, KeepError> {
        let edition = self.control.runtime.edition(&kind.image).await?;
        let limits = &self.control.config.machine_limits;
        let whole = format!("{SETTINGS} {limits:?} {kind:?} {edition}");
        Ok(hex::encode(&Sha256::digest(whole)[..12]))
    }

    /// Have everybody else know.
    fn tell(
        &self,
        pools: &[Pool],
        wants: &[Want],
        members: &[Member],
        observed: &HashMap<Id, Observed>,
    ) {
        let fits = |member: &&Member| {
            let of_kind = |want: &&Want| want.kind == member.kind;
            let want = wants.iter().find(of_kind);
            member.state == State::Ready
                && observed.contains_key(&member.id)
                && want.is_some_and(|want| want.edition.as_ref() == Some(&member.edition))
        };
        let ready: Vec<&Member> = members.iter().filter(fits).collect();
        let mut shared = self.control.prespawn.shared();
        shared.open = wants
            .iter()
            .filter_map(|want| Some((want.kind.clone(), want.edition.clone()?)))
            .collect();
        for member in &ready {
            if let Some(one) = observed.get(&member.id) {
                shared.seen.insert(member.id, one.clone());
            }
        }
        shared.standing.memory = members.iter().map(|member| member.memory).sum();
        shared.standing.pools = pools
            .iter()
            .map(|pool| Kept {
                kind: pool.kind.clone(),
                size: pool.size,
                ready: {
                    let key = pool.kind.key();
                    ready.iter().filter(|member| member.kind == key).count()
                },
            })
            .collect();
    }

    async fn remove(&self, id: Id) -> Result<(), KeepError> {
        let control = &self.control;
        let ours = control
            .store
            .write("let a machine go that was kept ready", move |db| {
                prespawned::dropping(db, id)
            })
            .await?;
        if !ours {
            return Ok(()); // a container's by now
        }
        control.prespawn.forget(id);
        within("the removal", control.runtime.delete(id)).await?;
        let now = control.now();
        control
            .store
            .write("forget a machine that was kept ready", move |db| {
                prespawned::forget(db, id, now)
            })
            .await?;
        tracing::info!(container.id = %id, "removed a machine that was kept ready");
        Ok(())
    }

    /// Make one, let it come to rest, and hold it still. What fails halfway is removed by the next
    /// look.
    async fn make(&mut self, kind: &Kind, edition: String) -> Result<(), KeepError> {
        let control = self.control.clone();
        let runtime = &control.runtime;
        let (id, now, key) = (words::id(), control.now(), kind.key());
        let began = Instant::now();
        control
            .store
            .write("note a machine that is to be kept ready", move |db| {
                prespawned::making(db, id, &key, &edition, now)
            })
            .await?;
        let machine = Machine {
            id,
            project: Id([0; 12]), // of nobody yet
            hostname: hostname(""),
            image: Some(kind.image.clone()),
            environment: Vec::new(),
            ssh_public_key: None,
            kit: kind.kit,
            autostart: false,
            ramdisk: runtime.has_ramdisks(),
            kvm: false,
            limits: kind.limits.within(control.config.machine_limits),
        };
        within("the creation", runtime.create(&machine)).await?;
        within("the start", runtime.start(id)).await?;
        if kind.kit {
            self.await_kit(id).await?;
        }
        within("the boot", runtime.settle(id)).await?;
        within("the freeze", runtime.freeze(id)).await?;
        let memory = runtime.usage(id).await?.memory;
        let seen = runtime.observe_one(id).await?;
        let power = seen.as_ref().map(|seen| seen.power);
        let Some(seen) = seen.filter(|seen| seen.power == Power::Frozen) else {
            return Err(KeepError::NotFrozen(power));
        };
        self.expected.insert(kind.key(), memory);
        control.prespawn.remember(seen);
        let now = control.now();
        control
            .store
            .write("note a machine that is ready", move |db| {
                prespawned::ready(db, id, memory, now)
            })
            .await?;
        control.prespawn.shared().standing.failure = None;
        tracing::info!(
            container.id = %id,
            elapsed_ms = began.elapsed().as_millis(),
            memory,
            "a machine is ready for whoever asks next"
        );
        Ok(())
    }

    async fn await_kit(&self, id: Id) -> Result<(), KeepError> {
        let pace = &self.control.config.pace;
        let until = Instant::now() + pace.ready_patience;
        let seen = self.control.runtime.observe_one(id).await?;
        let Some(seen) = seen else {
            return Err(RuntimeError::NoMachine(id).into());
        };
        while !ready::answers(&seen.directory, seen.owners) {
            if Instant::now() >= until {
                return Err(KeepError::NoKit);
            }
            tokio::time::sleep(pace.ready_poll).await;
        }
        Ok(())
    }
}

async fn within(
    act: &'static str,
    doing: impl Future<Output = Result<(), RuntimeError>>,
) -> Result<(), KeepError> {
    match tokio::time::timeout(STEP_MOST, doing).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(KeepError::Slow { act }),
    }
}

#[cfg(test)]
mod tests;
