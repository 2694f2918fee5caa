//! Scripts that run by themselves.
//!
//! One task sleeps until the next of them is due. What is scheduled follows from the scripts' own
//! directives; a mark in the service's state says whether there is any, so that a kit that starts
//! anew knows to look.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kit::Fault;
use rand::Rng;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tokio::sync::Notify;

use crate::directives::Directives;
use crate::execute::deployment_of;
use crate::logs::{Kind, now};
use crate::place::RelPath;
use crate::{Exec, Inner};

/// The file that says that something is scheduled.
pub const MARK: &str = "scheduled";
/// Scripts that are scheduled at once.
pub const SCHEDULES: usize = 500;
/// Scheduled runs at once.
const RUNS: usize = 16;
/// The longest sleep: clocks are set.
const SLEEP: Duration = Duration::from_secs(60);

/// Five fields of cron, or a nickname.
#[derive(Clone, Debug)]
pub struct Cron(croner::Cron);

/// A text that is no schedule.
#[derive(Debug, thiserror::Error)]
pub enum CronError {
    #[error(
        "it is five fields (minute hour day month weekday), or @hourly, @daily, @weekly, @monthly, @yearly"
    )]
    Shape,
    #[error("it cannot be read: {0}")]
    Fields(String),
    #[error("it never comes")]
    Never,
}

impl Cron {
    /// Read a schedule.
    pub fn read(text: &str) -> Result<Cron, CronError> {
        let fields = match text.trim().to_ascii_lowercase().as_str() {
            "@hourly" => "0 * * * *".to_owned(),
            "@daily" | "@midnight" => "0 0 * * *".to_owned(),
            "@weekly" => "0 0 * * 0".to_owned(),
            "@monthly" => "0 0 1 * *".to_owned(),
            "@yearly" | "@annually" => "0 0 1 1 *".to_owned(),
            other => other.to_owned(),
        };
        const LONGEST: usize = 256;
        if fields.split_whitespace().count() != 5 || fields.len() > LONGEST || !fields.is_ascii() {
            return Err(CronError::Shape);
        }
        let cron = croner::Cron::from_str(&fields)
            .map_err(|error| CronError::Fields(error.to_string()))?;
        let cron = Cron(cron);
        match cron.after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never),
        }
    }

    /// When it comes next after this moment.
    pub fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        let moment = chrono_of(moment)?;
        let next = self.0.find_next_occurrence(&moment, false).ok()?;
        Timestamp::from_second(next.timestamp()).ok()
    }
}

fn chrono_of(moment: Timestamp) -> Option<chrono::DateTime<chrono::Utc>> {
    chrono::DateTime::from_timestamp(moment.as_second(), 0)
}

/// A script that is scheduled.
#[derive(Clone, Debug)]
pub struct Entry {
    pub expression: String,
    cron: Cron,
    pub timeout: Duration,
    pub registered: Timestamp,
    pub next: Option<Timestamp>,
    pub last: Option<Fire>,
}

/// What came of a run.
#[derive(Clone, Debug, Serialize, JsonSchema, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fire {
    /// When it began (RFC 3339).
    pub ts: String,
    pub script_path: String,
    pub expression: String,
    pub run_id: String,
    /// `ok`, `error`, `timeout`, `disabled`, `load_error`, `incompatible` or `skipped_overload`.
    pub status: String,
    pub duration_ms: f64,
    /// The beginning of what it returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_preview: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is scheduled.
#[derive(Debug, Default)]
pub struct Schedules {
    entries: Mutex<BTreeMap<RelPath, Entry>>,
    started: AtomicBool,
    changed: Arc<Notify>,
    running: std::sync::atomic::AtomicUsize,
}

/// What a look at all scripts changes, or would.
#[derive(Debug, Default)]
pub struct Change {
    pub added: Vec<String>,
    pub kept: Vec<String>,
    pub removed: Vec<String>,
    pub failed: Vec<(String, String)>,
}

impl Schedules {
    fn held(&self) -> MutexGuard<'_, BTreeMap<RelPath, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn all(&self) -> Vec<(RelPath, Entry)> {
        let entries = self.held();
        entries
            .iter()
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect()
    }

    pub fn get(&self, path: &RelPath) -> Option<Entry> {
        self.held().get(path).cloned()
    }
}

impl Inner {
    pub fn has_schedules(&self) -> bool {
        Exec::wants_to_run(&self.config.state)
    }

    /// Keep the mark true.
    fn mark_schedules(&self) {
        let path = self.config.state.join(MARK);
        let done = match self.schedules.held().is_empty() {
            true => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            false if path.exists() => Ok(()),
            false => std::fs::create_dir_all(&self.config.state)
                .and_then(|()| std::fs::write(&path, "scripts run by themselves\n")),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "what is scheduled is not remembered over a restart of the kit");
        }
    }
}

impl Exec {
    /// What a file's own directives say about its schedule. Whether it has one.
    fn wanted(directives: &Directives) -> Result<Option<Cron>, String> {
        let Some(text) = directives.schedule() else {
            return Ok(None);
        };
        if directives.websocket() {
            return Err("a script that takes WebSockets cannot be scheduled".to_owned());
        }
        Cron::read(text)
            .map(Some)
            .map_err(|error| error.to_string())
    }

    /// Have the schedule of one script be what its text says. What was done, and why it was not.
    pub fn reschedule(
        &self,
        path: &RelPath,
        text: Option<&str>,
    ) -> Option<(&'static str, Option<String>)> {
        let before = self.schedules.held().contains_key(path);
        let directives = Directives::read(text.unwrap_or_default());
        let wanted = match text.is_some() && path.is_script() {
            true => Exec::wanted(&directives),
            false => Ok(None),
        };
        let said = match wanted {
            Err(reason) => {
                self.schedules.held().remove(path);
                Some(("rejected", Some(reason)))
            }
            Ok(None) if before => {
                self.schedules.held().remove(path);
                Some(("removed", None))
            }
            Ok(None) => None,
            Ok(Some(cron)) => match self.insert(path, &directives, cron) {
                Err(reason) => Some(("rejected", Some(reason))),
                Ok(()) if before => Some(("updated", None)),
                Ok(()) => Some(("registered", None)),
            },
        };
        if said.is_some() {
            self.mark_schedules();
            self.start_schedules();
            self.schedules.changed.notify_one();
        }
        said
    }

    fn insert(&self, path: &RelPath, directives: &Directives, cron: Cron) -> Result<(), String> {
        let mut entries = self.schedules.held();
        let before = entries.get(path).cloned();
        if before.is_none() && entries.len() >= SCHEDULES {
            return Err(format!(
                "{SCHEDULES} scripts are scheduled, which is the limit"
            ));
        }
        let expression = directives.schedule().unwrap_or_default().to_owned();
        let now = Timestamp::now();
        let same = before
            .as_ref()
            .filter(|entry| entry.expression == expression);
        let entry = Entry {
            registered: same.map_or(now, |entry| entry.registered),
            next: same.map_or_else(|| cron.after(now), |entry| entry.next),
            last: before.as_ref().and_then(|entry| entry.last.clone()),
            timeout: directives.schedule_timeout(),
            expression,
            cron,
        };
        entries.insert(path.clone(), entry);
        Ok(())
    }

    /// Have the schedules be what all scripts say, or tell what would change.
    pub fn reload_schedules(&self, dry: bool) -> Result<Change, Fault> {
        let mut change = Change::default();
        let mut seen = std::collections::BTreeSet::new();
        let files = match self.root().walk_files(&RelPath::default()) {
            Ok(files) => files,
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        for (path, _) in files.iter().filter(|(path, _)| path.is_script()) {
            let Ok((text, _)) = self.root().text(path) else {
                continue;
            };
            let directives = Directives::read(&text);
            match Exec::wanted(&directives) {
                Ok(None) => continue,
                Err(reason) => change.failed.push((path.to_string(), reason)),
                Ok(Some(cron)) => {
                    let known = self.schedules.held().contains_key(path);
                    if !dry && let Err(reason) = self.insert(path, &directives, cron) {
                        change.failed.push((path.to_string(), reason));
                        continue;
                    }
                    seen.insert(path.clone());
                    match known {
                        true => change.kept.push(path.to_string()),
                        false => change.added.push(path.to_string()),
                    }
                }
            }
        }
        let gone: Vec<RelPath> = self
            .schedules
            .held()
            .keys()
            .filter(|path| !seen.contains(*path))
            .cloned()
            .collect();
        for path in gone {
            if !dry {
                self.schedules.held().remove(&path);
            }
            change.removed.push(path.to_string());
        }
        if !dry {
            self.mark_schedules();
            self.start_schedules();
            self.schedules.changed.notify_one();
        }
        Ok(change)
    }

    /// Begin to run what is due; once.
    pub fn start_schedules(&self) {
        if self.schedules.started.swap(true, Ordering::SeqCst) {
            return;
        }
        let exec = self.downgrade();
        let first = self.clone();
        tokio::spawn(async move {
            let looked = tokio::task::spawn_blocking(move || first.reload_schedules(false)).await;
            if let Ok(Err(fault)) = looked {
                tracing::warn!("schedules could not be read: {fault}");
            }
            loop {
                let Some(exec) = exec.upgrade() else { return };
                let pause = exec.fire_due();
                let changed = exec.schedules.changed.clone();
                drop(exec);
                // either way it is time to look again
                let _ = tokio::time::timeout(pause, changed.notified()).await;
            }
        });
    }

    /// Start what is due, and say how long nothing else is.
    fn fire_due(&self) -> Duration {
        let now = Timestamp::now();
        let mut due = Vec::new();
        let mut soonest = SLEEP;
        {
            let mut entries = self.schedules.held();
            for (path, entry) in entries.iter_mut() {
                let Some(next) = entry.next else { continue };
                if next <= now {
                    due.push(path.clone());
                    // what was missed meanwhile is missed
                    entry.next = entry.cron.after(now);
                }
                if let Some(next) = entry.next {
                    let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
                    soonest = soonest.min(wait);
                }
            }
        }
        for path in due {
            let exec = self.clone();
            tokio::spawn(async move {
                // all that are due at a full minute do not begin in the same moment
                let spread = rand::rng().random_range(0..250);
                tokio::time::sleep(Duration::from_millis(spread)).await;
                exec.fire(&path).await;
            });
        }
        soonest.max(Duration::from_millis(50))
    }

    /// Run a scheduled script now, and write down what came of it.
    pub async fn fire(&self, path: &RelPath) -> Fire {
        let run = format!("{:016x}", rand::random::<u64>());
        let began = Instant::now();
        let ts = now();
        let schedules = &self.schedules;
        let running = schedules.running.fetch_add(1, Ordering::SeqCst);
        self.metrics().fire();
        let came = match running < RUNS {
            true => self.run_scheduled(path, &run).await,
            false => {
                let many = Fault::unavailable(format!("{RUNS} scheduled runs are under way"));
                Err((many, "skipped_overload"))
            }
        };
        schedules.running.fetch_sub(1, Ordering::SeqCst);
        self.metrics().fired(came.is_ok());
        let entry = schedules.get(path);
        let (status, preview, error) = match came {
            Ok((text, status)) => (status, Some(text).filter(|text| !text.is_empty()), None),
            Err((fault, status)) => (status, None, Some(fault.message)),
        };
        let fire = Fire {
            ts,
            script_path: path.to_string(),
            expression: entry.map(|entry| entry.expression).unwrap_or_default(),
            run_id: run,
            status: status.to_owned(),
            duration_ms: (began.elapsed().as_secs_f64() * 1e6).round() / 1000.0,
            return_preview: preview,
            error,
        };
        if let Some(entry) = schedules.held().get_mut(path) {
            entry.last = Some(fire.clone());
        }
        self.logs().write(Kind::Fires, &json!(fire).to_string());
        fire
    }

    /// The deployment of a scheduled script, as lists name it.
    pub fn schedule_home(path: &RelPath) -> (String, String) {
        let home = deployment_of(path);
        (home.subdomain, home.id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn schedules_are_five_fields_in_utc() {
        let after = |text: &str, moment: &str| {
            let moment: Timestamp = moment.parse().unwrap();
            Cron::read(text).unwrap().after(moment).unwrap().to_string()
        };
        assert_eq!(
            after("*/5 * * * *", "2026-01-01T00:01:00Z"),
            "2026-01-01T00:05:00Z"
        );
        assert_eq!(
            after("@daily", "2026-01-01T00:00:00Z"),
            "2026-01-02T00:00:00Z"
        );
        assert_eq!(
            after("30 9 * * 1", "2026-01-01T00:00:00Z"),
            "2026-01-05T09:30:00Z"
        );
        for wrong in [
            "",
            "* * * *",
            "* * * * * *",
            "61 * * * *",
            "a b c d e",
            "@never",
            "0 0 31 2 *",
            "@reboot",
        ] {
            assert!(Cron::read(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_schedule_that_comes_or_none(text in "[-0-9*/,@a-zL#W ]{0,30}") {
            if let Ok(cron) = Cron::read(&text) {
                let now = Timestamp::UNIX_EPOCH;
                if let Some(next) = cron.after(now) {
                    prop_assert!(next > now);
                }
            }
        }
    }
}
