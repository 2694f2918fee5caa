//! What the reconciler is at: for the administrator, and for the metrics. Nothing is decided by it,
//! and it begins empty with the process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use routes::Id;

use crate::container::Step;
use crate::time::Millis;

/// The longest part of a failure's text that is kept.
const REASON: usize = 1024;

/// A container that is being brought to where it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub container: Id,
    pub since: Millis,
    /// The step under way, and since when; none while it waits or looks.
    pub step: Option<(Step, Millis)>,
    /// Failures in a row.
    pub failures: u32,
    pub last_failure: Option<Failure>,
    /// When the next try is, where it waits for that.
    pub next_try: Option<Millis>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub step: Step,
    /// Whether it will be given up after a few more.
    pub permanent: bool,
    pub reason: String,
    pub at: Millis,
}

/// The last look at everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Since when one is under way.
    pub since: Option<Millis>,
    pub ended: Option<Millis>,
    /// Why the last one failed.
    pub failure: Option<String>,
}

/// All of them. Bounded by the containers: each has one task at most.
#[derive(Default)]
pub struct Tasks {
    under_way: Mutex<HashMap<Id, Task>>,
    sweep: Mutex<Sweep>,
}

/// A task is listed for as long as this is there.
pub struct Listed<'a> {
    tasks: &'a Tasks,
    container: Id,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.tasks.lock().remove(&self.container);
    }
}

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, HashMap<Id, Task>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(&self, container: Id, now: Millis) -> Listed<'_> {
        let task = Task {
            container,
            since: now,
            step: None,
            failures: 0,
            last_failure: None,
            next_try: None,
        };
        self.lock().insert(container, task);
        Listed {
            tasks: self,
            container,
        }
    }

    fn change(&self, container: Id, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.lock().get_mut(&container) {
            change(task);
        }
    }

    pub fn step(&self, container: Id, step: Step, now: Millis) {
        self.change(container, |task| {
            task.step = Some((step, now));
            task.next_try = None;
        });
    }

    /// The step went well.
    pub fn done(&self, container: Id) {
        self.change(container, |task| {
            task.step = None;
            task.failures = 0;
        });
    }

    pub fn failed(&self, container: Id, failure: Failure) {
        self.change(container, |task| {
            task.step = None;
            task.failures += 1;
            let reason = failure.reason.chars().take(REASON).collect();
            task.last_failure = Some(Failure { reason, ..failure });
        });
    }

    pub fn waits(&self, container: Id, until: Option<Millis>) {
        self.change(container, |task| task.next_try = until);
    }

    pub fn sweeps(&self, now: Millis) {
        self.sweep().since = Some(now);
    }

    pub fn swept(&self, failure: Option<String>, now: Millis) {
        *self.sweep() = Sweep {
            since: None,
            ended: Some(now),
            failure,
        };
    }

    pub fn sweep(&self) -> MutexGuard<'_, Sweep> {
        self.sweep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those under way, the oldest first.
    pub fn list(&self) -> Vec<Task> {
        let mut all: Vec<Task> = self.lock().values().cloned().collect();
        all.sort_by_key(|task| (task.since, task.container));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_listed_while_it_lasts() {
        let tasks = Tasks::default();
        let id = Id([1; 12]);
        let listed = tasks.begin(id, 5);
        tasks.step(id, Step::Start, 6);
        let failure = Failure {
            step: Step::Start,
            permanent: false,
            reason: "x".repeat(5000),
            at: 7,
        };
        tasks.failed(id, failure);
        tasks.waits(id, Some(9));
        let [task] = tasks.list().try_into().unwrap();
        assert_eq!(
            (task.since, task.step, task.failures, task.next_try),
            (5, None, 1, Some(9))
        );
        assert_eq!(task.last_failure.unwrap().reason.len(), REASON);
        drop(listed);
        assert!(tasks.list().is_empty());
        tasks.waits(id, None); // of a task that is over: nothing
        assert!(tasks.list().is_empty());
    }
}
