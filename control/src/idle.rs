//! Containers that nobody needs are put to sleep, where their owners want that.
//!
//! Three tell of use: the proxy says when each was asked for last, the kit whether it holds sessions
//! or runs programs, and the engine how much processor time went by. The proxy's word is what makes
//! anything happen here: where it is silent, nothing is put to sleep. Since when a container is not
//! needed is not kept: a control that starts begins to count anew.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use http::Request as HttpRequest;
use http_body_util::Full;
use routes::Id;
use routes::sleep::{Idle, IdleAct};
use routes::table::Place;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::auth::chain;
use crate::container::{Status, Wants};
use crate::control::Control;
use crate::inside;
use crate::ready;
use crate::store::StoreError;
use crate::store::containers::{self, Request};
use crate::store::rules::{self, Owner};
use crate::time::Millis;

/// Machines that are asked at once whether they are busy.
const LOOKS: usize = 16;
/// A kit that says nothing for so long has much to do.
const KIT_ANSWER: Duration = Duration::from_secs(2);
const KIT_BYTES: usize = 4 << 10;
/// The same for the engine.
const ENGINE_ANSWER: Duration = Duration::from_secs(10);
/// Of one processor, above which programs run in a machine: what an idle system does takes less.
const BUSY_SHARE: f64 = 0.03;
/// Processor time is looked at over this part of a minute.
const CPU_PART: u32 = 4;
/// Who is said to have put a container to sleep, in its status logs.
const IDLE: &str = "idle";

/// What the proxy has said of use. Bounded by the containers of the node: of others it is not kept.
#[derive(Default)]
pub struct Used {
    last: Mutex<HashMap<Id, Millis>>,
    heard: Notify,
}

impl Used {
    fn last(&self) -> MutexGuard<'_, HashMap<Id, Millis>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The proxy says when containers were asked for; `all` when it has said so of each.
    pub fn hear(&self, used: &[(Id, u64)], now: Millis, all: bool) {
        let mut last = self.last();
        for &(id, ago) in used {
            let at = now - i64::try_from(ago).unwrap_or(Millis::MAX).min(now);
            let known = last.entry(id).or_insert(at);
            *known = at.max(*known);
        }
        drop(last);
        if all {
            self.heard.notify_one();
        }
    }
}

/// A container that runs and may be put to sleep.
#[derive(Debug, Clone, Copy)]
struct Watched {
    incarnation: u64,
    /// When it was used last, or was first seen to run.
    since: Millis,
    /// Its processor time, and as of when.
    cpu: Option<(Millis, Duration)>,
}

/// Whether a container that was last used then is idle by now.
fn is_due(idle: Idle, since: Millis, now: Millis, minute: Duration) -> bool {
    let minute = i64::try_from(minute.as_millis()).unwrap_or(Millis::MAX);
    now.saturating_sub(since) >= minute.saturating_mul(idle.minutes.into())
}

/// Put to sleep what is not needed, for as long as this is polled.
pub async fn run(control: Control) {
    let mut watched: HashMap<Id, Watched> = HashMap::new();
    let minute = control.config.pace.idle_minute;
    loop {
        control.used.heard.notified().await;
        let now = control.now();
        let places = control.publisher.idlers();
        let running: HashSet<Id> = places.iter().map(|(place, _)| place.container).collect();
        watched.retain(|id, _| running.contains(id));
        control.used.last().retain(|id, _| running.contains(id));
        let mut due = Vec::new();
        for (place, idle) in places {
            let fresh = Watched {
                incarnation: place.incarnation,
                since: now,
                cpu: None,
            };
            let one = watched.entry(place.container).or_insert(fresh);
            if one.incarnation != place.incarnation {
                *one = fresh;
            }
            if let Some(&last) = control.used.last().get(&place.container) {
                one.since = one.since.max(last);
            }
            match is_due(idle, one.since, now, minute) {
                true => due.push((place, idle, one.cpu)),
                false => one.cpu = None,
            }
        }
        let looks = due.into_iter().map(|(place, idle, before)| {
            let control = &control;
            async move {
                let found = look(control, &place, before).await;
                (place, idle, found)
            }
        });
        let found: Vec<_> = futures::stream::iter(looks)
            .buffer_unordered(LOOKS)
            .collect()
            .await;
        for (place, idle, found) in found {
            let Some(one) = watched.get_mut(&place.container) else {
                continue;
            };
            match found {
                Found::Busy => (one.since, one.cpu) = (control.now(), None),
                Found::Unclear(cpu) => one.cpu = Some(cpu),
                Found::Idle => match put_to_sleep(&control, &place, idle).await {
                    Ok(true) => {
                        let id = place.container;
                        tracing::info!(container.id = %id, "nobody needs container {id}: it is put to sleep");
                        control.nudges.nudge(id);
                    }
                    Ok(false) => one.since = control.now(),
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "could not put a container to sleep");
                    }
                },
            }
        }
    }
}

/// What a look at a machine has found.
enum Found {
    Busy,
    Idle,
    /// Its processor time has to be looked at once more.
    Unclear((Millis, Duration)),
}

async fn look(control: &Control, place: &Place, before: Option<(Millis, Duration)>) -> Found {
    if kit_is_busy(place).await {
        return Found::Busy;
    }
    let usage = control.runtime.usage(place.container);
    // Where nothing is measured, the others decide.
    let Ok(Ok(usage)) = tokio::time::timeout(ENGINE_ANSWER, usage).await else {
        return Found::Idle;
    };
    let now = control.now();
    let part = control.config.pace.idle_minute / CPU_PART;
    let Some((at, cpu)) = before else {
        return Found::Unclear((now, usage.cpu_time));
    };
    let passed = Duration::from_millis(u64::try_from(now - at).unwrap_or_default());
    if passed < part || passed.is_zero() {
        return Found::Unclear((at, cpu));
    }
    let share = usage.cpu_time.saturating_sub(cpu).as_secs_f64() / passed.as_secs_f64();
    match share > BUSY_SHARE {
        true => Found::Busy,
        false => Found::Idle,
    }
}

/// What a kit says of itself.
#[derive(Deserialize)]
struct Busy {
    busy: bool,
}

/// Whether a kit holds sessions or runs programs. One that is not there, or does not know the
/// question, does not; one that is too busy to answer does.
async fn kit_is_busy(place: &Place) -> bool {
    let socket = match ready::connection(&place.directory, place.owners) {
        Ok(Some(socket)) => socket,
        Ok(None) | Err(_) => return false,
    };
    tokio::time::timeout(KIT_ANSWER, ask_kit(socket))
        .await
        .unwrap_or(Some(true))
        .unwrap_or(false)
}

async fn ask_kit(socket: OwnedFd) -> Option<bool> {
    let ask = HttpRequest::get("/busy").body(Full::default()).ok()?;
    let (status, body) = inside::ask(socket, ask, KIT_BYTES).await.ok()?;
    if !status.is_success() {
        return None;
    }
    let said: Busy = serde_json::from_slice(&body).ok()?;
    Some(said.busy)
}

/// Ask for its sleep, unless something else is wanted of it by now.
async fn put_to_sleep(control: &Control, place: &Place, idle: Idle) -> Result<bool, StoreError> {
    let (id, incarnation, now) = (place.container, place.incarnation, control.now());
    control
        .store
        .write("put a container to sleep", move |db| {
            let Some(row) = containers::find(db, id)? else {
                return Ok(false);
            };
            let still = rules::find(db, Owner::Container(id))?
                .rules
                .is_some_and(|rules| rules.sleep.idle == Some(idle));
            if !still
                || row.wants != Wants::On
                || row.status != Status::Running
                || row.failure.is_some()
                || row.incarnation != incarnation
            {
                return Ok(false);
            }
            let request = Request {
                wants: match idle.act {
                    IdleAct::Pause => Wants::Frozen,
                    IdleAct::Stop => Wants::Off,
                },
                force: false,
                restart: false,
                by: IDLE.to_owned(),
                at: now,
            };
            containers::ask(db, &row, &request)?;
            Ok(true)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_idle_after_its_minutes() {
        let idle = Idle {
            act: IdleAct::Stop,
            minutes: 2,
        };
        let minute = Duration::from_secs(60);
        for (since, now, due) in [
            (0, 119_999, false),
            (0, 120_000, true),
            (1, 120_000, false),
            // A clock that was set back.
            (500_000, 0, false),
        ] {
            assert_eq!(is_due(idle, since, now, minute), due, "{since} {now}");
        }
    }

    #[test]
    fn the_latest_use_counts() {
        let used = Used::default();
        let id = Id([1; 12]);
        used.hear(&[(id, 400)], 1_000, true);
        used.hear(&[(id, 700)], 1_100, true);
        assert_eq!(used.last()[&id], 600);
        used.hear(&[(id, 0)], 1_200, true);
        assert_eq!(used.last()[&id], 1_200);
        used.hear(&[(id, u64::MAX)], 1_300, true);
        assert_eq!(used.last()[&id], 1_200);
    }
}
