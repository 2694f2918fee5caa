//! Who sees which directory of whom, brought from the database to the runtime.
//!
//! As with policies it is always all of it and always from the database: whoever asks gets what is
//! wanted now, and asking again repairs what somebody undid. It is brought after each change, when a
//! share ends, when a container was made or its disk replaced, and now and then.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use routes::Id;
use tokio::sync::Notify;

use crate::auth::chain;
use crate::control::Control;
use crate::runtime::{self, NoDirectory, RuntimeError, Shares as Wanted, Unshared};
use crate::store::StoreError;
use crate::store::shares::{self, Share};
use crate::time::Millis;

/// Directories that the machines of a node see of one another, together. Each is a mount of the
/// host, which has a bound on them (100,000 where nobody changed it) that machines need as well.
pub const MOUNTS: usize = 4096;
/// After a failure it is tried again, waiting twice as long every time.
const AGAIN: Duration = Duration::from_millis(500);
/// Where a directory is missing, it is looked for this often.
const MISSING: Duration = Duration::from_secs(5);
/// The longest part of a reason that is kept.
const REASON: usize = 500;

/// What is remembered: whose turn it is, and how the last one went.
#[derive(Default)]
pub struct Shares {
    /// One at a time, each with what the database says by then: the last word is the newest.
    turn: tokio::sync::Mutex<()>,
    nudged: Notify,
    last: Mutex<Last>,
}

/// How shares were last brought to the runtime, for the administrator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Last {
    pub at: Option<Millis>,
    /// Directories that are seen.
    pub mounted: usize,
    /// Directories that should be and are not.
    pub missing: usize,
    /// Why it failed as a whole.
    pub failure: Option<String>,
}

impl Shares {
    /// Have all shares looked at soon.
    pub fn nudge(&self) {
        self.nudged.notify_one();
    }

    pub fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why shares are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum SharesError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Keep them for as long as this is polled.
pub async fn run(control: Control) {
    let mut failures = 0;
    loop {
        let sweep = control.config.pace.sweep;
        let wait = match apply(&control).await {
            Ok(()) => {
                failures = 0;
                let all = control.shares.last().missing == 0;
                let wait = if all { sweep } else { sweep.min(MISSING) };
                match next_end(&control).await {
                    Some(end) => end.min(wait),
                    None => wait,
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "not all containers see what is shared with them; trying again");
                failures += 1;
                AGAIN.saturating_mul(1 << (failures - 1).min(16)).min(sweep)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = control.shares.nudged.notified() => {}
        }
    }
}

/// How long until the next share ends.
async fn next_end(control: &Control) -> Option<Duration> {
    let now = control.now();
    let end = control
        .store
        .read("look up the next end of a share", move |db| {
            shares::next_end(db, now)
        })
        .await
        .ok()??;
    let millis = u64::try_from(end.saturating_sub(now)).unwrap_or_default();
    Some(Duration::from_millis(millis))
}

/// Have everybody see what is shared with them, and nothing else.
pub async fn apply(control: &Control) -> Result<(), SharesError> {
    if !control.runtime.shares_directories() {
        return Ok(());
    }
    let _turn = control.shares.turn.lock().await;
    let ended = try_apply(control).await;
    let mut last = control.shares.last();
    last.at = Some(control.now());
    match &ended {
        Ok((mounted, missing)) => {
            (last.mounted, last.missing, last.failure) = (*mounted, *missing, None);
        }
        Err(error) => last.failure = Some(chain(error)),
    }
    control
        .metrics
        .shares(last.mounted, last.missing, ended.is_ok());
    ended.map(drop)
}

async fn try_apply(control: &Control) -> Result<(usize, usize), SharesError> {
    let now = control.now();
    let in_force = control
        .store
        .write("read who sees which directory of whom", move |db| {
            shares::expire(db, now)?;
            shares::in_force(db, now)
        })
        .await?;
    let (wanted, mut unshared) = gather(in_force);
    let asked: usize = wanted.values().map(BTreeMap::len).sum();
    let beyond = unshared.len();
    unshared.extend(control.runtime.share(wanted).await?);
    let missing = unshared.len();
    let failures = reasons(unshared);
    let news = control.now();
    control
        .store
        .write("note who sees which directory of whom", move |db| {
            shares::settle(db, &failures, news)
        })
        .await?;
    Ok(((asked + beyond).saturating_sub(missing), missing))
}

/// What the runtime is to do, and what is too much for it.
fn gather(in_force: Vec<(Share, Id)>) -> (Wanted, Vec<Unshared>) {
    let mut wanted = Wanted::new();
    let mut beyond = Vec::new();
    let mut mounts = 0;
    for (share, target) in in_force {
        let refuse = |why: String| Unshared {
            share: share.id,
            target,
            why: NoDirectory::Host(why),
        };
        if mounts == MOUNTS {
            beyond.push(refuse(format!(
                "the containers of this server see {MOUNTS} directories of one another, and no more"
            )));
            continue;
        }
        let seen = wanted.entry(target).or_default();
        // Aliases of one container differ; this would be an error of ours.
        if seen.contains_key(&share.name()) {
            beyond.push(refuse(format!(
                "container {target} sees another share as `{}`",
                share.name()
            )));
            continue;
        }
        mounts += 1;
        seen.insert(
            share.name(),
            runtime::Share {
                id: share.id,
                source: share.source,
                path: share.path,
                writable: share.writable,
            },
        );
    }
    (wanted, beyond)
}

/// Why shares are not seen: of each the first reason.
fn reasons(unshared: Vec<Unshared>) -> BTreeMap<Id, String> {
    let mut reasons = BTreeMap::new();
    for Unshared { share, target, why } in unshared {
        reasons.entry(share).or_insert_with(|| {
            let reason = match &why {
                // They name the container themselves.
                NoDirectory::NotMade(_) | NoDirectory::NextStart(_) => why.to_string(),
                _ => format!("container {target} does not see it: {why}"),
            };
            reason.chars().take(REASON).collect()
        });
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::shares::{Target, Told};

    fn share(n: u16, alias: Option<&str>) -> Share {
        let mut id = [0; 12];
        id[..2].copy_from_slice(&n.to_be_bytes());
        Share {
            id: Id(id),
            source: Id([200; 12]),
            path: "/srv".to_owned(),
            target: Target::Container(Id([1; 12])),
            writable: false,
            alias: alias.map(str::to_owned),
            label: None,
            description: None,
            enabled: true,
            expires_at: None,
            told: Told::Nothing,
            failure: None,
            created_by: Id([3; 12]),
            created_at: 0,
            updated_at: 0,
        }
    }

    #[test]
    fn shares_have_names_of_their_own_and_a_bound() {
        let target = Id([1; 12]);
        let two = vec![(share(1, Some("data")), target), (share(2, None), target)];
        let (wanted, beyond) = gather(two);
        assert!(beyond.is_empty());
        let names: Vec<&str> = wanted[&target].keys().map(String::as_str).collect();
        assert_eq!(names, [share(2, None).id.to_string().as_str(), "data"]);

        let same = vec![
            (share(1, Some("data")), target),
            (share(2, Some("data")), target),
        ];
        let (wanted, beyond) = gather(same);
        assert_eq!(wanted[&target]["data"].id, share(1, None).id, "the older");
        assert_eq!(beyond[0].share, share(2, None).id);

        let many = (0..=u16::try_from(MOUNTS).unwrap()).map(|n| (share(n, None), target));
        let (wanted, beyond) = gather(many.collect());
        assert_eq!(wanted[&target].len(), MOUNTS);
        assert_eq!(beyond.len(), 1);
        assert!(reasons(beyond).values().all(|why| why.contains("4096")));
    }
}
