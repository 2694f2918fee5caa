//! What the proxy has to say: who is waited for, and who has been asked for.
//!
//! It connects for each thing, writes one line and reads one ([`routes::sleep`]). A visitor has
//! passed the gates by then; what is bounded here is how often a container is woken, so that nobody
//! who may only visit it can keep it flapping.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use routes::Id;
use routes::sleep::{Call, LINE, Said};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

use crate::auth::chain;
use crate::container::Wants;
use crate::control::Control;
use crate::store::StoreError;
use crate::store::containers::{self, Request};
use crate::store::rules::{self, Owner};
use crate::time::Millis;

/// Connections at once: the proxy has as many questions under way at most.
const CONNECTIONS: usize = 128;
/// The proxy says at once what it came for.
const LISTEN: Duration = Duration::from_secs(5);
/// Wakes of one container in a row...
const WAKES: u32 = 10;
/// ... and then one in so many milliseconds.
const WAKE_EVERY: Millis = 60_000;
/// Above so many, those that have all their wakes back are forgotten.
const TIDY: usize = 1_000;
/// Who is said to have woken a container, in its status logs.
const VISITOR: &str = "visitor";

/// How often each container was woken of late. Bounded by the containers of the node.
#[derive(Default)]
pub struct Woken(Mutex<HashMap<Id, Budget>>);

/// Wakes that are left, and as of when.
#[derive(Debug, Clone, Copy)]
struct Budget {
    left: u32,
    since: Millis,
}

impl Budget {
    fn full(now: Millis) -> Budget {
        Budget {
            left: WAKES,
            since: now,
        }
    }

    /// With what has come back by now.
    fn at(self, now: Millis) -> Budget {
        // Where the clock was set back, what was left is left.
        let back = (now - self.since).max(0) / WAKE_EVERY;
        let left = u32::try_from(back).map_or(WAKES, |back| self.left.saturating_add(back));
        match left >= WAKES || now < self.since {
            true => Budget {
                left: left.min(WAKES),
                since: now,
            },
            false => Budget {
                left,
                since: self.since + back * WAKE_EVERY,
            },
        }
    }
}

impl Woken {
    /// Take one wake of a container; otherwise in how many seconds there is one.
    fn take(&self, id: Id, now: Millis) -> Result<(), u32> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > TIDY {
            all.retain(|_, budget| budget.at(now).left < WAKES);
        }
        let budget = all.entry(id).or_insert_with(|| Budget::full(now));
        *budget = budget.at(now);
        if budget.left == 0 {
            let wait = (budget.since + WAKE_EVERY - now).max(0) / 1_000 + 1;
            return Err(u32::try_from(wait).unwrap_or(u32::MAX));
        }
        budget.left -= 1;
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum HearError {
    #[error("could not write or read a line")]
    Line(#[from] LinesCodecError),
    #[error("the proxy said nothing")]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error("it is none of the things that the proxy says")]
    Nonsense(#[from] serde_json::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Hear the proxy for as long as this is polled.
pub async fn serve(control: Control, listener: UnixListener) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Nobody closes it.
        let turn = connections.clone().acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection of the proxy");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let control = control.clone();
        tokio::spawn(async move {
            let _turn = turn;
            if let Err(error) = hear(&control, stream).await {
                tracing::warn!(error = %chain(&error), "could not hear the proxy out");
            }
        });
    }
}

async fn hear(control: &Control, stream: UnixStream) -> Result<(), HearError> {
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(LINE));
    let Some(line) = tokio::time::timeout(LISTEN, lines.next()).await? else {
        return Ok(());
    };
    let said = match serde_json::from_str(&line?)? {
        Call::Wake(id) => wake(control, id).await?,
        Call::Used(used) => {
            control.used.hear(&used, control.now(), true);
            Said::Noted
        }
        Call::More(used) => {
            control.used.hear(&used, control.now(), false);
            Said::Noted
        }
    };
    let answer = serde_json::to_string(&said)?;
    tokio::time::timeout(LISTEN, lines.send(answer)).await??;
    Ok(())
}

/// Have a container on that somebody waits for.
async fn wake(control: &Control, id: Id) -> Result<Said, StoreError> {
    let (now, woken) = (control.now(), control.clone());
    let said = control
        .store
        .write("wake a container", move |db| {
            let Some(row) = containers::find(db, id)? else {
                return Ok(Said::No);
            };
            let wakes = || -> rusqlite::Result<bool> {
                let kept = rules::find(db, Owner::Container(id))?;
                Ok(kept.rules.unwrap_or_default().sleep.wakes)
            };
            match row.wants {
                Wants::Gone => return Ok(Said::No),
                _ if row.failure.is_some() => return Ok(Said::No),
                // It is on its way already.
                Wants::On => return Ok(Said::Waking),
                // Whoever turns it off by force wants it off.
                Wants::Off if row.force => return Ok(Said::No),
                Wants::Off | Wants::Frozen if !wakes()? => return Ok(Said::No),
                Wants::Off | Wants::Frozen => {}
            }
            if let Err(seconds) = woken.woken.take(id, now) {
                return Ok(Said::Later(seconds));
            }
            let request = Request {
                wants: Wants::On,
                force: false,
                restart: false,
                by: VISITOR.to_owned(),
                at: now,
            };
            containers::ask(db, &row, &request)?;
            Ok(Said::Waking)
        })
        .await?;
    if said == Said::Waking {
        control.nudges.nudge(id);
    }
    control.metrics.woken(said);
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_woken_so_often_and_no_oftener() {
        let woken = Woken::default();
        let (one, other) = (Id([1; 12]), Id([2; 12]));
        for _ in 0..WAKES {
            assert_eq!(woken.take(one, 1_000), Ok(()));
        }
        assert_eq!(woken.take(one, 1_000), Err(61));
        assert_eq!(woken.take(one, 31_000), Err(31));
        assert_eq!(woken.take(other, 31_000), Ok(()), "each has its own");
        assert_eq!(woken.take(one, 61_000), Ok(()));
        assert_eq!(woken.take(one, 61_000), Err(61));
        // A clock that was set back gives nothing, and takes nothing for good.
        assert_eq!(woken.take(one, 0), Err(61));
        assert_eq!(woken.take(one, 60_000), Ok(()));
        let all = 60_000 + Millis::from(WAKES) * WAKE_EVERY;
        for _ in 0..WAKES {
            assert_eq!(woken.take(one, all), Ok(()));
        }
        assert!(woken.take(one, all).is_err());
    }
}
