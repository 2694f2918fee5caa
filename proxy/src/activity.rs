//! Which containers are asked for, so that control can put to sleep those that are not.
//!
//! Every request for a container is counted from when it may pass until it is over; a WebSocket
//! until it ends. Now and then control is told; what it makes of it is its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use routes::sleep::{Call, USED};
use routes::{Id, Table};

use crate::Shared;
use crate::wake::say;

/// Parts that are locked apart, so that workers seldom wait for each other.
const PARTS: usize = 16;

/// Who is asked for. Bounded by the containers of the table: what is over is forgotten when it has
/// been told.
pub struct Activity([Mutex<HashMap<Id, Use>>; PARTS]);

#[derive(Debug, Clone, Copy)]
struct Use {
    /// Requests under way.
    open: u32,
    last: Instant,
}

/// A request under way.
pub struct InUse {
    activity: Arc<Activity>,
    container: Id,
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some(used) = self.activity.part(self.container).get_mut(&self.container) {
            used.open = used.open.saturating_sub(1);
            used.last = Instant::now();
        }
    }
}

impl Activity {
    pub fn new() -> Activity {
        Activity(std::array::from_fn(|_| Mutex::default()))
    }

    fn part(&self, container: Id) -> MutexGuard<'_, HashMap<Id, Use>> {
        let part = usize::from(container.0[11]) % PARTS;
        self.0[part].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request for this container begins; it is over when what is returned is dropped.
    pub fn begin(self: &Arc<Self>, container: Id) -> InUse {
        let last = Instant::now();
        let mut part = self.part(container);
        let used = part.entry(container).or_insert(Use { open: 0, last });
        (used.open, used.last) = (used.open + 1, last);
        InUse {
            activity: self.clone(),
            container,
        }
    }

    /// Those of whose use control wants to hear, with how long ago it was.
    fn used(&self, table: &Table) -> Vec<(Id, Duration)> {
        let mut all = Vec::new();
        for part in &self.0 {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            for (&container, used) in part.iter() {
                let place = table.places.get(&container);
                if place.is_some_and(|place| place.sleep.idle.is_some()) {
                    let ago = match used.open {
                        0 => used.last.elapsed(),
                        _ => Duration::ZERO,
                    };
                    all.push((container, ago));
                }
            }
        }
        all
    }

    /// Forget what was over for so long already.
    fn forget(&self, age: Duration) {
        for part in &self.0 {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            part.retain(|_, used| used.open > 0 || used.last.elapsed() < age);
        }
    }
}

/// Tell control for as long as this is polled. What it did not hear is told again.
pub async fn tell(shared: &Shared) {
    let every = shared.config.limits.tell;
    loop {
        tokio::time::sleep(every).await;
        let begun = Instant::now();
        let used = shared.activity.used(&shared.table.load());
        let lines: Vec<_> = used
            .into_iter()
            .map(|(id, ago)| (id, u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
            .collect();
        let mut heard = true;
        // It is said even of none: control then knows that it hears of all.
        let mut parts = lines.chunks(USED).map(<[_]>::to_vec).collect::<Vec<_>>();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let last = parts.len() - 1;
        for (at, used) in parts.into_iter().enumerate() {
            let call = match at == last {
                true => Call::Used(used),
                false => Call::More(used),
            };
            if let Err(error) = say(&shared.config.wake, &call).await {
                tracing::debug!(%error, "control does not hear what is used");
                heard = false;
                break;
            }
        }
        if heard {
            // What has begun or ended since is told the next time.
            shared.activity.forget(begun.elapsed() + every);
        }
    }
}

#[cfg(test)]
mod tests {
    use routes::sleep::{Idle, IdleAct, Sleep};
    use routes::table::{Change, Owners, Place, State, Update};

    use super::*;

    fn table() -> Table {
        let mut table = Table::default();
        for (generation, number) in [(1, 1), (2, 2)] {
            let idle = Idle {
                act: IdleAct::Pause,
                minutes: 1,
            };
            let place = Place {
                container: Id([number; 12]),
                project: Id([0; 12]),
                name: "web".into(),
                state: State::Running,
                incarnation: 1,
                directory: "/run/c".into(),
                owners: Owners { base: 0, count: 0 },
                access: None,
                links: None,
                hooks: None,
                address: None,
                embedding: Default::default(),
                sleep: Sleep {
                    wakes: true,
                    idle: (number == 1).then_some(idle),
                },
            };
            table.apply(Update {
                generation,
                change: Change::Upsert(place),
            });
        }
        table
    }

    #[test]
    fn what_is_under_way_is_in_use_and_what_is_over_is_forgotten() {
        let activity = Arc::new(Activity::new());
        let table = table();
        let (one, other) = (Id([1; 12]), Id([2; 12]));
        assert!(activity.used(&table).is_empty());
        let first = activity.begin(one);
        let second = activity.begin(one);
        let _quiet = activity.begin(other);
        drop(first);
        let now = activity.used(&table);
        assert_eq!(now, [(one, Duration::ZERO)], "only whose owner asks");
        activity.forget(Duration::ZERO);
        assert_eq!(activity.used(&table).len(), 1, "it is still under way");
        drop(second);
        assert_eq!(activity.used(&table)[0].0, one);
        activity.forget(Duration::from_secs(3600));
        assert_eq!(activity.used(&table).len(), 1);
        activity.forget(Duration::ZERO);
        assert!(activity.used(&table).is_empty());
        // Another one of the same container counts anew.
        drop(activity.begin(one));
        assert_eq!(activity.used(&table).len(), 1);
    }
}
