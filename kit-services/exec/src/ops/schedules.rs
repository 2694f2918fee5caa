//! Scripts that run by themselves.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{deployment, existing, scoped};
use crate::Exec;
use crate::logs::{KEPT, Kind};
use crate::place::shorten;
use crate::schedule::Fire;

/// Runs of one answer.
const RUNS: usize = 1000;

/// List the scripts that run by themselves.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List;

/// A script that runs by itself.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Where the script is on the disk.
    script_path: String,
    /// Below the root of all scripts.
    script_rel: String,
    subdomain: String,
    exec_id: Option<String>,
    vm_cache_key: String,
    expression: String,
    timeout_ms: u64,
    registered_at: String,
    next_fire: Option<String>,
    last_fire_at: Option<String>,
    last_fire_status: Option<String>,
    last_fire_run_id: Option<String>,
}

/// Scripts that run by themselves.
#[derive(Debug, Serialize, JsonSchema)]
pub struct All {
    total: usize,
    schedules: Vec<Schedule>,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/exec/schedules/list")
        .named("exec_listSchedules")
        .cli("exec schedules list");
    type Service = Exec;
    type Reply = All;

    async fn run(self, exec: Exec, _: Call) -> Result<All, Fault> {
        exec.start_schedules();
        let schedules: Vec<Schedule> = exec
            .schedules
            .all()
            .into_iter()
            .map(|(path, entry)| {
                let (subdomain, id) = Exec::schedule_home(&path);
                Schedule {
                    script_path: exec.root().absolute(&path).display().to_string(),
                    vm_cache_key: format!("{subdomain}/{id}"),
                    subdomain,
                    exec_id: Some(id),
                    expression: entry.expression,
                    timeout_ms: u64::try_from(entry.timeout.as_millis()).unwrap_or(u64::MAX),
                    registered_at: entry.registered.to_string(),
                    next_fire: entry.next.map(|next| next.to_string()),
                    last_fire_at: entry.last.as_ref().map(|last| last.ts.clone()),
                    last_fire_status: entry.last.as_ref().map(|last| last.status.clone()),
                    last_fire_run_id: entry.last.map(|last| last.run_id),
                    script_rel: path.to_string(),
                }
            })
            .collect();
        Ok(All {
            total: schedules.len(),
            schedules,
        })
    }
}

/// List runs, the latest first.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Only of this script.
    script_path: Option<String>,
    /// Only from this time on (RFC 3339).
    since: Option<String>,
    /// At most so many, 1 to 1000.
    #[serde(default = "hundred")]
    limit: i64,
    /// Older files of the log, too.
    #[serde(default)]
    include_rotated: bool,
}

fn hundred() -> i64 {
    100
}

/// Runs.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Runs {
    total: usize,
    limit: usize,
    include_rotated: bool,
    entries: Vec<Fire>,
}

impl Operation for History {
    const ROUTE: Route = Route::get("/api/v1/exec/schedules/history")
        .named("scheduleHistory")
        .cli("exec schedules history");
    type Service = Exec;
    type Reply = Runs;

    async fn run(self, exec: Exec, call: Call) -> Result<Runs, Fault> {
        let limit = usize::try_from(self.limit.clamp(1, RUNS as i64)).unwrap_or(RUNS);
        let deployment = deployment(&call, [None, None], None)?;
        let script = self
            .script_path
            .filter(|path| !path.is_empty())
            .map(|path| scoped(&exec, &deployment, &path))
            .transpose()?;
        let since = self
            .since
            .filter(|text| !text.is_empty())
            .map(|text| {
                text.parse::<jiff::Timestamp>().map_err(|_| {
                    Fault::bad_request(format!("`{}` is no time (RFC 3339)", shorten(&text)))
                        .code("VALIDATION_ERROR")
                })
            })
            .transpose()?;
        exec.logs().flush().await;
        let file = Kind::Fires.file();
        let mut names = vec![file.to_owned()];
        if self.include_rotated {
            names.extend((1..=KEPT).map(|nth| format!("{file}.{nth}")));
        }
        let mut entries: Vec<Fire> = Vec::new();
        for name in names {
            let mut some = std::collections::VecDeque::new();
            let read = exec.logs().read(&name, |line| {
                if let Ok(fire) = serde_json::from_str::<Fire>(line)
                    && script
                        .as_ref()
                        .is_none_or(|path| fire.script_path == path.as_str())
                    && since.is_none_or(|since| {
                        fire.ts
                            .parse::<jiff::Timestamp>()
                            .is_ok_and(|ts| ts >= since)
                    })
                {
                    some.push_front(fire);
                    some.truncate(limit);
                }
                true
            });
            match read {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Fault::internal(format!(
                        "the history could not be read: {error}"
                    )));
                }
                _ => entries.extend(some),
            }
        }
        entries.truncate(limit);
        Ok(Runs {
            total: entries.len(),
            limit,
            include_rotated: self.include_rotated,
            entries,
        })
    }
}

/// Read the schedules of all scripts anew: for files that were changed by other ways than writing
/// them here.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Reload {
    /// Tell what would change, and change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// A schedule that does not count.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Failed {
    path: String,
    reason: String,
}

/// What changed, or would.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reloaded {
    dry_run: bool,
    added: Vec<String>,
    kept: Vec<String>,
    removed: Vec<String>,
    failed: Vec<Failed>,
}

impl Operation for Reload {
    const ROUTE: Route = Route::post("/api/v1/exec/schedules/reload")
        .named("reloadSchedules")
        .cli("exec schedules reload");
    type Service = Exec;
    type Reply = Reloaded;

    async fn run(self, exec: Exec, _: Call) -> Result<Reloaded, Fault> {
        let change = exec.reload_schedules(self.dry_run)?;
        let failed = change.failed.into_iter();
        Ok(Reloaded {
            dry_run: self.dry_run,
            added: change.added,
            kept: change.kept,
            removed: change.removed,
            failed: failed
                .map(|(path, reason)| Failed { path, reason })
                .collect(),
        })
    }
}

/// Run a scheduled script now.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// The script.
    script_path: String,
    /// Also where the script asks its callers for a token.
    #[serde(default)]
    force: bool,
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Triggered {
    triggered: bool,
    script_path: String,
    run_id: String,
    status: String,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Operation for Trigger {
    const ROUTE: Route = Route::post("/api/v1/exec/schedules/trigger")
        .named("triggerSchedule")
        .cli("exec schedules trigger");
    type Service = Exec;
    type Reply = Triggered;

    async fn run(self, exec: Exec, call: Call) -> Result<Triggered, Fault> {
        let deployment = deployment(&call, [None, None], None)?;
        let path = existing(&exec, &deployment, &self.script_path)?;
        let facts = exec.root().facts(&path)?;
        let directives = exec.directives(&path, &facts)?;
        if directives.tokens().next().is_some() && !self.force {
            return Err(Fault::forbidden(format!(
                "the script {path} asks its callers for a token; `force` runs it all the same"
            ))
            .code("TOKEN_REQUIRED"));
        }
        if exec.schedules.get(&path).is_none() {
            return Ok(Triggered {
                triggered: false,
                script_path: path.to_string(),
                run_id: String::new(),
                status: "unregistered".to_owned(),
                duration_ms: 0.0,
                error: Some(format!("the script {path} has no `@schedule` that counts")),
            });
        }
        let fire = exec.fire(&path).await;
        Ok(Triggered {
            triggered: true,
            script_path: path.to_string(),
            run_id: fire.run_id,
            status: fire.status,
            duration_ms: fire.duration_ms,
            error: fire.error,
        })
    }
}
