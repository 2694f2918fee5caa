//! Making the machines what is wanted of them.
//!
//! One task per container that is not settled: look, plan, act, look again; so the steps of one
//! container never overlap, and containers do not wait for each other but for the bounds on steps
//! at once. A task is begun by a nudge of the API, by a change that the runtime saw, or by the
//! sweep that looks at everything now and then. Nothing about what is under way is remembered
//! beyond the database: after a crash anywhere the next look plans again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use routes::Id;
use routes::table::{Owners, Place};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::auth::chain;
use crate::container::{self, Seen, Status, Step, Wants, plan};
use crate::control::Control;
use crate::ready;
use crate::runtime::{Limits, Machine, Observed, Power, RuntimeError};
use crate::store::containers::{self, Container, Sighting};
use crate::store::{StoreError, events, notifications, prespawned, snapshots, tombstones};
use crate::tasks::Failure;

/// A runtime that has not answered a step by then is taken for stuck; the step is tried again.
const STEP_MOST: Duration = Duration::from_secs(600);
/// The same for a look.
const LOOK_MOST: Duration = Duration::from_secs(60);
/// How often a machine between two states is looked at.
const CHANGING_POLL: Duration = Duration::from_millis(200);
/// How often a kit is looked for that nobody waits for any more.
const LATE_POLL: Duration = Duration::from_millis(500);
/// While waiting for a kit, its machine is looked at this often: it may have died.
const WAITING_LOOK: Duration = Duration::from_secs(1);
/// A machine that dies within this of its start is not started again at once.
const QUICK_DEATH: Duration = Duration::from_secs(10);
/// How long a status may wait for the proxy to know it.
const PROXY_PATIENCE: Duration = Duration::from_millis(250);
/// A failed sweep is tried again after this.
const SWEEP_RETRY: Duration = Duration::from_secs(2);

/// Containers that somebody wants looked at. Bounded by their number: each is noted once.
#[derive(Default)]
pub struct Nudges {
    ids: Mutex<HashSet<Id>>,
    wake: Notify,
}

impl Nudges {
    /// Have a container looked at soon.
    pub fn nudge(&self, id: Id) {
        self.ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id);
        self.wake.notify_one();
    }

    async fn take(&self) -> HashSet<Id> {
        loop {
            let ids = std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner));
            if !ids.is_empty() {
                return ids;
            }
            self.wake.notified().await;
        }
    }
}

/// Reconcile for as long as this is polled; dropped, it leaves everything as it is.
pub async fn run(control: Control) {
    let reconciler = Arc::new(Reconciler::new(control));
    let control = &reconciler.control;
    // No machine starts before it is known what it may reach.
    crate::policies::apply(control).await.ok(); // it is tried again by itself
    // What it sees of others is there when it starts; where this fails, it comes while it runs.
    crate::shares::apply(control).await.ok();
    let mut changes = control.runtime.changes();
    let mut watching = true;
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut of_task: HashMap<tokio::task::Id, Work> = HashMap::new();
    let mut busy: HashMap<Id, Busy> = HashMap::new();
    let mut sweeping = false;
    let mut next_sweep = Instant::now();
    let keep = |tasks: &mut JoinSet<()>| tasks.spawn(crate::shares::run(control.clone())).id();
    of_task.insert(keep(&mut tasks), Work::Shares);
    loop {
        let mut due: HashSet<Id> = HashSet::new();
        tokio::select! {
            ids = control.nudges.take() => due = ids,
            change = changes.recv(), if watching => match change {
                Ok(id) => {
                    due.insert(id);
                }
                Err(RecvError::Lagged(_)) => next_sweep = Instant::now(),
                Err(RecvError::Closed) => watching = false,
            },
            () = tokio::time::sleep_until(next_sweep), if !sweeping => {
                sweeping = true;
                let sweeper = reconciler.clone();
                let handle = tasks.spawn(async move { sweeper.sweep().await });
                of_task.insert(handle.id(), Work::Sweep);
            }
            Some(ended) = tasks.join_next_with_id() => {
                let (task, panicked) = match ended {
                    Ok((task, ())) => (task, false),
                    Err(error) => (error.id(), error.is_panic()),
                };
                match of_task.remove(&task) {
                    Some(Work::Sweep) => {
                        sweeping = false;
                        let swept = reconciler.control.publisher.is_open() && !reconciler.unswept();
                        next_sweep = Instant::now() + if swept { control.config.pace.sweep } else { SWEEP_RETRY };
                    }
                    Some(Work::Container(id)) => {
                        let again = busy.remove(&id).is_some_and(|busy| busy.again);
                        if panicked {
                            tracing::error!(container.id = %id, "the reconciler stumbled over container {id}; the next sweep tries again");
                        } else if again {
                            due.insert(id);
                        }
                    }
                    Some(Work::Shares) => {
                        tracing::error!("whoever keeps the shares stumbled and begins anew");
                        tokio::time::sleep(SWEEP_RETRY).await;
                        of_task.insert(keep(&mut tasks), Work::Shares);
                    }
                    None => {}
                }
            }
        }
        for id in due {
            if let Some(busy) = busy.get_mut(&id) {
                busy.again = true;
                busy.changed.notify_one();
                continue;
            }
            let changed = Arc::new(Notify::new());
            busy.insert(
                id,
                Busy {
                    changed: changed.clone(),
                    again: false,
                },
            );
            let worker = reconciler.clone();
            let handle = tasks.spawn(async move { worker.drive(id, &changed).await });
            of_task.insert(handle.id(), Work::Container(id));
        }
    }
}

enum Work {
    Sweep,
    /// It does not end by itself.
    Shares,
    Container(Id),
}

/// A container whose task is under way.
struct Busy {
    changed: Arc<Notify>,
    /// It was nudged since: look once more after the end.
    again: bool,
}

struct Reconciler {
    control: Control,
    heavy: Semaphore,
    light: Semaphore,
    /// When each machine was started by us, and how often it died young since.
    starts: Mutex<HashMap<Id, Started>>,
    unswept: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct Started {
    at: Option<Instant>,
    deaths: u32,
}

/// How a step ended.
enum Ended {
    Done,
    /// Something else is wanted now.
    Overtaken,
    Failed(RuntimeError),
}

/// Failures in a row of one container's steps.
#[derive(Default)]
struct Failures {
    transient: u32,
    permanent: u32,
    /// What was wanted when they were counted.
    revision: i64,
}

impl Reconciler {
    fn new(control: Control) -> Reconciler {
        let pace = &control.config.pace;
        Reconciler {
            heavy: Semaphore::new(pace.heavy_steps),
            light: Semaphore::new(pace.light_steps),
            starts: Mutex::default(),
            unswept: std::sync::atomic::AtomicBool::new(true),
            control,
        }
    }

    fn unswept(&self) -> bool {
        self.unswept.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Look at everything: nudge what is not as wanted, remove what belongs to nobody.
    async fn sweep(&self) {
        let tasks = &self.control.tasks;
        tasks.sweeps(self.control.now());
        let ended = self.try_sweep().await;
        tasks.swept(ended.as_ref().err().cloned(), self.control.now());
        self.unswept
            .store(ended.is_err(), std::sync::atomic::Ordering::Relaxed);
        let end = match ended {
            Ok(()) => "ok",
            Err(error) => {
                tracing::warn!(%error, "could not look at all containers; trying again");
                "failed"
            }
        };
        self.control.metrics.sweeps.with_label_values(&[end]).inc();
    }

    async fn try_sweep(&self) -> Result<(), String> {
        let control = &self.control;
        let now = control.now();
        let over = control
            .store
            .write("end snapshots whose time is over", move |db| {
                snapshots::expire(db, now)
            })
            .await
            .map_err(|error| chain(&error))?;
        over.into_iter().for_each(|id| control.nudges.nudge(id));
        // The machines first: one that is made after this look has its row before the next line.
        let observed = tokio::time::timeout(LOOK_MOST, control.runtime.observe())
            .await
            .map_err(|_| format!("the runtime said nothing for {LOOK_MOST:?}"))?
            .map_err(|error| chain(&error))?;
        let (rows, ready) = control
            .store
            .read("list the containers", |db| {
                Ok((containers::all(db)?, prespawned::ids(db)?))
            })
            .await
            .map_err(|error| chain(&error))?;
        let mut observed: HashMap<Id, Observed> =
            observed.into_iter().map(|one| (one.id, one)).collect();
        for id in ready {
            observed.remove(&id); // looked after by the pool that it is in
        }
        let mut places = Vec::with_capacity(rows.len());
        let mut known = HashSet::with_capacity(rows.len());
        for row in &rows {
            known.insert(row.id);
            let one = observed.remove(&row.id);
            let seen = seen(row, one.as_ref());
            let status = container::status(row.desired(), seen, row.status, true);
            let place = place(row, one.as_ref(), seen, status);
            let settled = plan(row.desired(), seen).is_none()
                && status == row.status
                && seen.is_none_or(|seen| seen.ready || seen.power != Power::On)
                && (!control.publisher.is_open() || control.publisher.says(row.id, place.clone()));
            places.extend(place);
            if !settled {
                control.nudges.nudge(row.id);
            }
        }
        if !control.publisher.is_open() {
            let now = control.now();
            let rules = control
                .store
                .read("list the rules of the edge", move |db| {
                    crate::edge::all(db, now)
                })
                .await
                .map_err(|error| chain(&error))?;
            control.publisher.open(places, rules);
        }
        for container in control.publisher.containers() {
            if !known.contains(&container) {
                control.nudges.nudge(container);
            }
        }
        let now = control.now();
        control.publisher.expire(now);
        control
            .store
            .write("drop old events", move |db| {
                events::expire(db, now)?;
                notifications::expire(db, now)
            })
            .await
            .map_err(|error| chain(&error))?;
        self.remove_orphans(observed).await;
        crate::policies::apply(control)
            .await
            .map_err(|error| chain(&error))?;
        Ok(())
    }

    /// Machines without a row. One whose container was deleted is removed; one that this database
    /// never knew holds somebody's data (the database may be an old copy) and is only reported.
    async fn remove_orphans(&self, observed: HashMap<Id, Observed>) {
        let control = &self.control;
        let mut strangers = 0;
        for (id, one) in observed {
            let fate = control
                .store
                .read("look up a machine without a container", move |db| {
                    Ok((
                        containers::find(db, id)?.is_some(),
                        prespawned::ids(db)?.contains(&id) || tombstones::has(db, id)?,
                    ))
                })
                .await;
            match fate {
                Ok((true, _)) => control.nudges.nudge(id),
                Ok((false, buried)) if buried || one.power == Power::Remains => {
                    tracing::info!(container.id = %id, "removing what is left of container {id}, which was deleted");
                    let _turn = self.heavy.acquire().await;
                    if let Err(error) = control.runtime.delete(id).await {
                        tracing::warn!(container.id = %id, error = %chain(&error), "could not remove an orphan");
                    }
                }
                Ok((false, _)) => {
                    strangers += 1;
                    tracing::warn!(
                        container.id = %id,
                        "machine {id} is in the runtime but was never in this database; it is left alone"
                    );
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "could not look up an orphan");
                }
            }
        }
        control.metrics.strangers.set(strangers);
    }

    /// Bring one container to where it should be, or until there is nothing to do for now.
    async fn drive(&self, id: Id, changed: &Notify) {
        let control = &self.control;
        let _listed = control.tasks.begin(id, control.now());
        let mut failures = Failures::default();
        let mut acted = false;
        // The machine that is being waited for, and since when.
        let mut waiting: Option<(u64, Instant)> = None;
        // The machine that was asked to stop and did not.
        let mut asked_to_stop: Option<u64> = None;
        loop {
            let row = match control
                .store
                .read("look up a container", move |db| containers::find(db, id))
                .await
            {
                Ok(Some(row)) => row,
                Ok(None) => return control.publisher.forget(id),
                Err(error) => {
                    self.database_failed(id, &error, &mut failures, changed)
                        .await;
                    continue;
                }
            };
            if failures.revision != row.revision {
                failures = Failures {
                    revision: row.revision,
                    ..Failures::default()
                };
            }
            let look = async {
                match control.prespawn.recall(&row) {
                    Some(observed) => Ok(Some(observed)),
                    None => control.runtime.observe_one(id).await,
                }
            };
            let observed = match tokio::time::timeout(LOOK_MOST, look).await {
                Ok(Ok(observed)) => observed,
                Ok(Err(error)) => {
                    tracing::warn!(container.id = %id, error = %chain(&error), "could not look at container {id}");
                    failures.transient += 1;
                    self.pause(id, failures.transient, changed).await;
                    continue;
                }
                Err(_) => {
                    tracing::warn!(container.id = %id, "the runtime did not answer a look at container {id}");
                    continue;
                }
            };
            let seen = seen(&row, observed.as_ref());
            let patient = match seen {
                Some(Seen {
                    power: Power::On,
                    ready: false,
                    incarnation,
                }) => {
                    let since = waiting
                        .filter(|(of, _)| *of == incarnation)
                        .map_or_else(Instant::now, |(_, at)| at);
                    waiting = Some((incarnation, since));
                    since.elapsed() < control.config.pace.ready_patience
                }
                _ => {
                    waiting = None;
                    true
                }
            };
            let status = container::status(row.desired(), seen, row.status, patient);
            control
                .publisher
                .set(id, place(&row, observed.as_ref(), seen, status));
            match self.note(&row, seen, status, acted).await {
                Ok(true) => {}
                Ok(false) => continue, // the user has asked for something in between
                Err(error) => {
                    self.database_failed(id, &error, &mut failures, changed)
                        .await;
                    continue;
                }
            }
            let Some(step) = plan(row.desired(), seen) else {
                match (seen, observed) {
                    (
                        Some(Seen {
                            power: Power::Changing,
                            ..
                        }),
                        _,
                    ) => {
                        wait(CHANGING_POLL, changed).await;
                        continue;
                    }
                    (
                        Some(Seen {
                            power: Power::On,
                            ready: false,
                            ..
                        }),
                        Some(observed),
                    ) if patient => {
                        let poll = if row.status == Status::Running {
                            LATE_POLL
                        } else {
                            control.config.pace.ready_poll
                        };
                        self.await_kit(&observed, poll, changed).await;
                        continue;
                    }
                    _ => return,
                }
            };
            let incarnation = seen.map(|seen| seen.incarnation);
            let step = match step {
                Step::Stop if asked_to_stop.is_some() && asked_to_stop == incarnation => Step::Kill,
                Step::Start if self.died_young(id) => {
                    let deaths = self.deaths(id);
                    tracing::warn!(container.id = %id, deaths, "container {id} went off right after its start");
                    self.pause(id, deaths, changed).await;
                    continue;
                }
                step => step,
            };
            let performed = self
                .perform(step, &row, seen, observed.as_ref(), changed)
                .await;
            if step != Step::Claim || !matches!(performed, Ok(Ended::Done)) {
                control.prespawn.forget(id);
            }
            match performed {
                Ok(Ended::Done) => {
                    acted = true;
                    failures.transient = 0;
                    control.tasks.done(id);
                    if step == Step::Stop {
                        asked_to_stop = incarnation;
                    }
                    if step == Step::Purge {
                        return control.publisher.forget(id);
                    }
                }
                Ok(Ended::Overtaken) => control.tasks.done(id),
                Ok(Ended::Failed(error)) => {
                    self.failed(step, &row, error, &mut failures, changed).await;
                }
                Err(error) => {
                    self.database_failed(id, &error, &mut failures, changed)
                        .await
                }
            }
        }
    }

    /// Write what was seen, where it is news. False where it is out of date already.
    async fn note(
        &self,
        row: &Container,
        seen: Option<Seen>,
        status: Status,
        acted: bool,
    ) -> Result<bool, StoreError> {
        let control = &self.control;
        let now = control.now();
        let incarnation = seen.map_or(row.incarnation, |seen| {
            seen.incarnation.max(row.incarnation)
        });
        let started =
            seen.is_some_and(|seen| seen.power == Power::On && seen.incarnation != row.incarnation);
        let started_at = if started { Some(now) } else { row.started_at };
        if (status, incarnation, started_at) == (row.status, row.incarnation, row.started_at) {
            return Ok(true);
        }
        if status != row.status
            && matches!(status, Status::Running | Status::Paused | Status::Stopped)
        {
            // Whoever sees it so finds it so at its URLs.
            control.publisher.settled(PROXY_PATIENCE).await;
        }
        let metadata = container::lost(row.desired(), seen)
            .then(|| json!({ "reason": "the machine was removed from outside" }))
            .or_else(|| {
                (status == Status::Running && seen.is_some_and(|seen| !seen.ready))
                    .then(|| json!({ "reason": "the kit does not answer yet" }))
            })
            .or_else(|| {
                (status == Status::Creating && row.status == Status::Claiming)
                    .then(|| containers::missed("the machine that was kept ready does not run"))
            });
        if (row.status, status) == (Status::Claiming, Status::Running) {
            let millis = u32::try_from(now - row.created_at).unwrap_or_default();
            control.metrics.claimed(f64::from(millis) / 1000.0);
        }
        let triggered_by = if acted {
            row.requested_by.clone()
        } else {
            "system".to_owned()
        };
        let sighting = Sighting {
            status,
            incarnation,
            started_at,
            triggered_by,
            metadata,
        };
        let row = row.clone();
        control
            .store
            .write("note the status of a container", move |db| {
                containers::sighted(db, &row, &sighting, now)
            })
            .await
    }

    /// Take one step.
    async fn perform(
        &self,
        step: Step,
        row: &Container,
        seen: Option<Seen>,
        observed: Option<&Observed>,
        changed: &Notify,
    ) -> Result<Ended, StoreError> {
        let control = &self.control;
        if step == Step::Adopt && observed.is_some_and(|seen| seen.power == Power::On) {
            // Nobody waits for it; it is done at once where something else is asked for.
            wait(control.config.pace.adopt_pause, changed).await;
        }
        let turns = match step {
            Step::Create
            | Step::Copy
            | Step::Snapshot
            | Step::Restore
            | Step::Sync
            | Step::Start
            | Step::Adopt
            | Step::Delete => &self.heavy,
            _ => &self.light,
        };
        let _turn = tokio::select! {
            turn = turns.acquire() => turn,
            () = changed.notified() => return Ok(Ended::Overtaken),
        };
        let id = row.id;
        let began = Instant::now();
        tracing::debug!(container.id = %id, %step, "taking a step");
        control.tasks.step(id, step, control.now());
        if matches!(step, Step::Freeze | Step::Stop) {
            // Requests wait outside from here on: within, they would wait for ever.
            control.publisher.settled(PROXY_PATIENCE).await;
        }
        if step == Step::Sync {
            control
                .store
                .write("note that a sync begins", move |db| {
                    snapshots::sync_begins(db, id)
                })
                .await?;
        }
        let (mut size, mut machine) = (None, observed.cloned());
        let act = self.act(step, row, &mut size, &mut machine);
        let result = if step == Step::Stop {
            // The machine may take its time to shut down; the user need not wait for it.
            let mut act = Box::pin(act);
            loop {
                tokio::select! {
                    result = &mut act => break result,
                    () = changed.notified() => {
                        let now = control
                            .store
                            .read("look up a container", move |db| containers::find(db, id))
                            .await?;
                        if now.is_none_or(|now| plan(now.desired(), seen) != Some(step)) {
                            return Ok(Ended::Overtaken);
                        }
                    }
                }
            }
        } else {
            act.await
        };
        control.metrics.step(step, began.elapsed().as_secs_f64());
        if let Err(error) = result {
            return Ok(Ended::Failed(error));
        }
        let (version, now) = (row.version, control.now());
        match step {
            Step::Create | Step::Copy => {
                control
                    .store
                    .write("note a made container", move |db| {
                        containers::made(db, id, version)
                    })
                    .await?;
            }
            Step::Claim => {
                control
                    .store
                    .write("note a claimed machine", move |db| {
                        containers::claimed(db, id, version)
                    })
                    .await?;
                machine
                    .into_iter()
                    .for_each(|seen| control.prespawn.remember(seen));
            }
            Step::Adopt => {
                control
                    .store
                    .write("note that the engine knows of a claim", move |db| {
                        containers::adopted(db, id)
                    })
                    .await?;
            }
            Step::Update => {
                control
                    .store
                    .write("note changed settings", move |db| {
                        containers::applied(db, id, version)
                    })
                    .await?;
            }
            Step::Purge => {
                control
                    .store
                    .write("forget a container", move |db| {
                        containers::purge(db, id, now)
                    })
                    .await?;
                self.starts().remove(&id);
            }
            Step::Start => self.starts().entry(id).or_default().at = Some(Instant::now()),
            Step::Stop | Step::Kill | Step::Delete => {
                self.starts().remove(&id);
            }
            Step::Freeze | Step::Thaw => {}
            Step::Snapshot | Step::Drop | Step::Restore | Step::Sync => {
                let row = row.clone();
                control
                    .store
                    .write("note a change of a disk", move |db| {
                        let disk = &row.disk;
                        match (step, &disk.taking, &disk.dropping, &disk.restoring) {
                            (Step::Snapshot, Some(name), ..) => {
                                snapshots::taken(db, &row, name, size, now)
                            }
                            (Step::Drop, _, Some(name), _) => {
                                snapshots::dropped(db, &row, name, now)
                            }
                            (Step::Restore, _, _, Some(name)) => {
                                snapshots::restored(db, &row, name, now)
                            }
                            _ => snapshots::synced(db, &row, now),
                        }
                    })
                    .await?;
                control.disks.send_replace(());
            }
        }
        // Another disk than the one that was shared, or nobody any more who shares or sees.
        if matches!(
            step,
            Step::Create | Step::Claim | Step::Copy | Step::Restore | Step::Sync | Step::Delete
        ) {
            control.shares.nudge();
        }
        tracing::info!(
            container.id = %id,
            elapsed_ms = began.elapsed().as_millis(),
            "{step} of container {id} done"
        );
        Ok(Ended::Done)
    }

    /// `size` is that of a snapshot that was taken; `seen` is how the machine was last seen, and is
    /// now after a claim.
    async fn act(
        &self,
        step: Step,
        row: &Container,
        size: &mut Option<u64>,
        seen: &mut Option<Observed>,
    ) -> Result<(), RuntimeError> {
        let runtime = &self.control.runtime;
        let (id, limits) = (
            row.id,
            row.limits.within(self.control.config.machine_limits),
        );
        let disk = &row.disk;
        let planned = |name: &Option<String>| {
            name.clone().ok_or(RuntimeError::Permanent {
                act: step.as_str(),
                reason: "nothing of the kind is wanted".to_owned(),
            })
        };
        let source = || {
            disk.source.clone().ok_or(RuntimeError::Permanent {
                act: step.as_str(),
                reason: "it is no copy".to_owned(),
            })
        };
        let act = async {
            match step {
                Step::Create => runtime.create(&machine(row, limits)).await,
                Step::Claim => {
                    let before = seen.take().ok_or(RuntimeError::NoMachine(id))?;
                    *seen = Some(runtime.claim(&machine(row, limits), &before).await?);
                    Ok(())
                }
                Step::Adopt => {
                    let unchanged = row.applied >= row.version;
                    runtime.adopt(&machine(row, limits), unchanged).await
                }
                Step::Start => runtime.start(id).await,
                Step::Stop => runtime.stop(id, self.control.config.pace.grace).await,
                Step::Kill => runtime.kill(id).await,
                Step::Freeze => runtime.freeze(id).await,
                Step::Thaw => runtime.thaw(id).await,
                Step::Update => runtime.update(&machine(row, limits)).await,
                Step::Copy => runtime.copy(&machine(row, limits), &source()?).await,
                Step::Snapshot => {
                    *size = runtime.snapshot(id, &planned(&disk.taking)?).await?;
                    Ok(())
                }
                Step::Drop => runtime.drop_snapshot(id, &planned(&disk.dropping)?).await,
                Step::Restore => runtime.restore(id, &planned(&disk.restoring)?).await,
                Step::Sync => runtime.sync(&machine(row, limits), source()?.id).await,
                Step::Delete => runtime.delete(id).await,
                Step::Purge => Ok(()),
            }
        };
        tokio::time::timeout(STEP_MOST, act)
            .await
            .unwrap_or_else(|_| {
                Err(RuntimeError::Transient {
                    act: step.as_str(),
                    reason: format!("the runtime said nothing for {STEP_MOST:?}"),
                })
            })
    }

    /// A step failed: try again later, or settle for less, or give up.
    async fn failed(
        &self,
        step: Step,
        row: &Container,
        error: RuntimeError,
        failures: &mut Failures,
        changed: &Notify,
    ) {
        let control = &self.control;
        let (id, now) = (row.id, control.now());
        let attempts = control.config.pace.attempts;
        let forever = match &error {
            // The source of a copy was deleted meanwhile.
            RuntimeError::NoMachine(of) if *of != id => {
                failures.permanent = failures.permanent.max(attempts.saturating_sub(1));
                true
            }
            RuntimeError::Transient { .. } | RuntimeError::NoMachine(_) => false,
            RuntimeError::NoImage(_)
            | RuntimeError::NoSnapshot { .. }
            | RuntimeError::Unsupported(_) => {
                failures.permanent = failures.permanent.max(attempts.saturating_sub(1));
                true
            }
            RuntimeError::Permanent { .. } => true,
        };
        let kind = if forever { "permanent" } else { "transient" };
        let reason = chain(&error);
        control.metrics.failed(step, kind);
        let failure = Failure {
            step,
            permanent: forever,
            reason: reason.clone(),
            at: now,
        };
        control.tasks.failed(id, failure);
        tracing::warn!(container.id = %id, %step, kind, error = %reason, "{step} of container {id} failed");
        if step == Step::Claim && (forever || failures.transient >= attempts) {
            // Another is made in its place.
            let row = row.clone();
            let written = control
                .store
                .write("give up a machine that was kept ready", move |db| {
                    containers::spoilt(db, &row, &reason, now)
                })
                .await;
            if let Err(error) = written {
                self.database_failed(id, &error, failures, changed).await;
            }
            return;
        }
        // A deletion is never given up: what is left would be nobody's.
        if !forever || matches!(step, Step::Delete | Step::Purge | Step::Drop) {
            failures.transient += 1;
            return self.pause(id, failures.transient, changed).await;
        }
        failures.permanent += 1;
        if failures.permanent < attempts {
            return self.pause(id, failures.permanent, changed).await;
        }
        let row = row.clone();
        let written = match step {
            // It runs as it did before.
            Step::Freeze => {
                control
                    .store
                    .write("take back a pause", move |db| {
                        containers::settle_for(db, &row, Wants::On, now)
                    })
                    .await
            }
            Step::Update => {
                control
                    .store
                    .write("leave settings for the next start", move |db| {
                        containers::applied(db, id, row.version)
                    })
                    .await
            }
            // What there is of it is removed, and the container goes on without.
            Step::Snapshot | Step::Restore => {
                control
                    .store
                    .write("give up on a snapshot", move |db| {
                        match (step, &row.disk.taking, &row.disk.restoring) {
                            (Step::Snapshot, Some(name), _) => {
                                snapshots::not_taken(db, &row, name, &reason, now)
                            }
                            (Step::Restore, _, Some(name)) => {
                                snapshots::not_restored(db, &row, name, &reason, now)
                            }
                            _ => Ok(()),
                        }
                    })
                    .await
            }
            _ => {
                let reason = format!("{step}: {reason}");
                control
                    .store
                    .write("give up on a container", move |db| {
                        containers::give_up(db, &row, &reason, now)
                    })
                    .await
            }
        };
        control.disks.send_replace(());
        if let Err(error) = written {
            self.database_failed(id, &error, failures, changed).await;
        }
    }

    async fn database_failed(
        &self,
        id: Id,
        error: &StoreError,
        failures: &mut Failures,
        changed: &Notify,
    ) {
        tracing::error!(error = %chain(error), "the database failed; trying again");
        failures.transient += 1;
        self.pause(id, failures.transient, changed).await;
    }

    /// Wait for a kit, a bounded while.
    async fn await_kit(&self, observed: &Observed, poll: Duration, changed: &Notify) {
        let until = Instant::now() + WAITING_LOOK;
        while Instant::now() < until {
            if wait(poll, changed).await || ready::answers(&observed.directory, observed.owners) {
                return;
            }
        }
    }

    /// Wait longer with every failure, but not past a change.
    async fn pause(&self, id: Id, failures: u32, changed: &Notify) {
        let pace = &self.control.config.pace;
        let doubled = pace
            .backoff_least
            .saturating_mul(1 << failures.saturating_sub(1).min(16));
        let pause = doubled.min(pace.backoff_most);
        let millis = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        let tasks = &self.control.tasks;
        tasks.waits(id, Some(self.control.now().saturating_add(millis)));
        wait(pause, changed).await;
        tasks.waits(id, None);
    }

    fn starts(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Started>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the machine, which is off and should not be, died soon after we started it. Says so
    /// once for each start.
    fn died_young(&self, id: Id) -> bool {
        let mut starts = self.starts();
        let Some(started) = starts.get_mut(&id) else {
            return false;
        };
        let Some(at) = started.at.take() else {
            return false;
        };
        if at.elapsed() < QUICK_DEATH {
            started.deaths += 1;
            true
        } else {
            started.deaths = 0;
            false
        }
    }

    fn deaths(&self, id: Id) -> u32 {
        self.starts().get(&id).map_or(0, |started| started.deaths)
    }
}

/// Wait; true where a change came first.
async fn wait(how_long: Duration, changed: &Notify) -> bool {
    tokio::select! {
        () = tokio::time::sleep(how_long) => false,
        () = changed.notified() => true,
    }
}

/// The observed side as the plan wants it.
fn seen(row: &Container, observed: Option<&Observed>) -> Option<Seen> {
    observed.map(|observed| Seen {
        power: observed.power,
        incarnation: observed.incarnation,
        ready: observed.power == Power::On
            && (!row.kit || ready::answers(&observed.directory, observed.owners)),
    })
}

/// What the proxy should know of a container.
fn place(
    row: &Container,
    observed: Option<&Observed>,
    seen: Option<Seen>,
    status: Status,
) -> Option<Place> {
    let state = container::state(row.desired(), seen, status)?;
    Some(Place {
        container: row.id,
        project: row.project,
        name: row.name.clone(),
        state,
        incarnation: observed.map_or(row.incarnation, |observed| observed.incarnation),
        directory: observed
            .map(|observed| observed.directory.clone())
            .unwrap_or_default(),
        owners: observed.map_or(Owners { base: 0, count: 0 }, |observed| observed.owners),
        access: None,
        links: None,
        hooks: None,
        address: observed
            .and_then(|observed| observed.address)
            .map(Into::into),
        embedding: Default::default(),
        sleep: Default::default(),
    })
}

/// The machine of a container.
fn machine(row: &Container, limits: Limits) -> Machine {
    Machine {
        id: row.id,
        project: row.project,
        hostname: hostname(&row.name),
        image: row.image.clone(),
        environment: row
            .environment
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        ssh_public_key: row.ssh_public_key.clone(),
        kit: row.kit,
        autostart: row.autostart,
        ramdisk: row.ramdisk,
        kvm: row.kvm,
        limits,
    }
}

/// A host name (RFC 1123) that looks like the container's name.
pub fn hostname(name: &str) -> String {
    const MOST: usize = 63;
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(MOST)
        .collect();
    let plain = plain.trim_matches('-');
    if plain.is_empty() {
        "computer".to_owned()
    } else {
        plain.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_host_names() {
        for (name, host) in [
            ("web", "web"),
            ("My_Box", "my-box"),
            ("--", "computer"),
            ("_a_", "a"),
            (&"x".repeat(100), &"x".repeat(63)),
        ] {
            assert_eq!(hostname(name), host);
        }
    }

    #[tokio::test]
    async fn nudges_are_taken_once() {
        let nudges = Nudges::default();
        nudges.nudge(Id([1; 12]));
        nudges.nudge(Id([1; 12]));
        nudges.nudge(Id([2; 12]));
        assert_eq!(nudges.take().await.len(), 2);
        let none = tokio::time::timeout(Duration::from_millis(20), nudges.take()).await;
        assert!(none.is_err());
    }
}
