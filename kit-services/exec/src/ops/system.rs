//! The service itself: deployments, caches, restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Exec;
use crate::metrics::Active;
use crate::place::RelPath;

/// The longest that a restart waits for what is under way.
const LONGEST_DRAIN: Duration = Duration::from_secs(60);

/// List the deployments: the ids that have scripts.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ListIds;

/// A deployment.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Id {
    id: String,
    /// `sdk` where its scripts were imported, else `custom`.
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_url: Option<String>,
    /// Files that it has.
    files: usize,
}

/// How many there are of each kind.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Kinds {
    sdk: usize,
    custom: usize,
}

/// Deployments.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ids {
    exec_ids: Vec<Id>,
    total: usize,
    summary: Kinds,
}

impl Operation for ListIds {
    const ROUTE: Route = Route::get("/api/v1/exec/list")
        .named("listAllExecIds")
        .cli("exec namespaces list");
    type Service = Exec;
    type Reply = Ids;

    async fn run(self, exec: Exec, _: Call) -> Result<Ids, Fault> {
        let mut files: BTreeMap<String, usize> = BTreeMap::new();
        for (path, _) in exec
            .root()
            .walk_files(&RelPath::default())
            .unwrap_or_default()
        {
            let deployment = crate::execute::deployment_of(&path);
            if path.names().count() > 2 && !path.name().starts_with('.') {
                *files.entry(deployment.id).or_default() += 1;
            }
        }
        let exec_ids: Vec<Id> = files
            .into_iter()
            .map(|(id, files)| {
                let source_url = exec.sdk(&id).map(|marker| marker.source_url);
                Id {
                    kind: if source_url.is_some() {
                        "sdk"
                    } else {
                        "custom"
                    },
                    source_url,
                    files,
                    id,
                }
            })
            .collect();
        let sdk = exec_ids.iter().filter(|id| id.kind == "sdk").count();
        Ok(Ids {
            total: exec_ids.len(),
            summary: Kinds {
                sdk,
                custom: exec_ids.len() - sdk,
            },
            exec_ids,
        })
    }
}

/// Have scripts be loaded anew by their next request, and forget what they share where that is asked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClearCache {
    /// Whose: a host `{subdomain.}…-exec-{id}…`, or `default`.
    hostname: Option<String>,
    /// The id, where the host does not say.
    exec_id: Option<String>,
    /// Not possible: a deployment is cleared as a whole.
    script_path: Option<String>,
    /// End the processes.
    #[serde(default = "yes")]
    clear_vm: bool,
    /// Forget the state that scripts share.
    #[serde(default)]
    clear_state: bool,
    /// Do it for all deployments.
    #[serde(default)]
    clear_all: bool,
}

fn yes() -> bool {
    true
}

/// What was cleared, and what is left.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Count {
    cleared: usize,
    remaining: usize,
}

/// What a clearing came to.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cleared {
    cleared: bool,
    vm_cache: Count,
    shared_state: Count,
}

impl Operation for ClearCache {
    const ROUTE: Route = Route::post("/api/v1/exec/cache/clear")
        .named("clearCache")
        .cli("exec system cache-clear");
    type Service = Exec;
    type Reply = Cleared;

    async fn run(self, exec: Exec, call: Call) -> Result<Cleared, Fault> {
        if self.script_path.is_some_and(|path| !path.is_empty()) {
            return Err(Fault::bad_request(
                "scriptPath cannot be cleared by itself; give hostname, or clearAll",
            )
            .code("SCRIPT_PATH_DEPRECATED"));
        }
        let deployment = match (&self.hostname, self.clear_all) {
            (_, true) => None,
            (Some(hostname), false) if !hostname.is_empty() => Some(super::state::deployment(
                hostname,
                self.exec_id.as_deref(),
                &call,
            )?),
            _ => {
                return Err(
                    Fault::bad_request("say which: give hostname, or clearAll=true")
                        .code("HOSTNAME_REQUIRED"),
                );
            }
        };
        let fits = |its: &crate::place::Deployment| deployment.as_ref().is_none_or(|it| it == its);
        let cleared = match self.clear_vm {
            true => {
                exec.pool().forget_spare();
                exec.pool().leave(|script| fits(&script.deployment))
            }
            false => 0,
        };
        let mut forgotten = 0;
        if self.clear_state {
            for (its, _) in exec.shared().sizes() {
                if fits(&its) {
                    exec.shared().clear(&its);
                    forgotten += 1;
                }
            }
        }
        Ok(Cleared {
            cleared: true,
            vm_cache: Count {
                cleared,
                remaining: exec.pool().scripts().len().saturating_sub(cleared),
            },
            shared_state: Count {
                cleared: forgotten,
                remaining: exec.shared().sizes().len(),
            },
        })
    }
}

/// End all processes of scripts; the next requests start new ones. The kit itself goes on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    /// Wait for what is under way.
    #[serde(default = "yes")]
    graceful: bool,
    /// How long, in milliseconds; at most a minute.
    #[serde(default = "five_seconds")]
    drain_timeout_ms: u64,
    /// Why, for the log.
    #[serde(default = "asked")]
    reason: String,
}

fn five_seconds() -> u64 {
    5000
}

fn asked() -> String {
    "API restart request".to_owned()
}

/// A restart that has begun.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restarting {
    status: &'static str,
    graceful: bool,
    drain_timeout_ms: u64,
    reason: String,
    message: &'static str,
}

impl Operation for Restart {
    const ROUTE: Route = Route::post("/api/v1/exec/system/restart")
        .named("restartServer")
        .cli("exec system restart");
    type Service = Exec;
    type Reply = Restarting;

    async fn run(self, exec: Exec, _: Call) -> Result<Restarting, Fault> {
        let drain = match self.graceful {
            true => Duration::from_millis(self.drain_timeout_ms).min(LONGEST_DRAIN),
            false => Duration::ZERO,
        };
        let reason: String = self
            .reason
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        exec.logs()
            .script("info", "exec", None, &format!("restarting: {reason}"));
        exec.begin_restart(reason.clone(), drain);
        Ok(Restarting {
            status: "restarting",
            graceful: self.graceful,
            drain_timeout_ms: u64::try_from(drain.as_millis()).unwrap_or(u64::MAX),
            reason,
            message: "processes of scripts end; the next requests start new ones",
        })
    }
}

/// Whether a restart would cost anybody anything.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RestartStatus;

/// What a restart would end.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    can_restart: bool,
    /// Seconds since the service, or its last restart, began.
    uptime: f64,
    uptime_formatted: String,
    active_requests: usize,
    active: Vec<Active>,
    /// Nothing is under way.
    restart_ready: bool,
}

impl Operation for RestartStatus {
    const ROUTE: Route = Route::get("/api/v1/exec/system/restart-status")
        .named("getRestartStatus")
        .cli("exec system restart-status");
    type Service = Exec;
    type Reply = Ready;

    async fn run(self, exec: Exec, _: Call) -> Result<Ready, Fault> {
        let uptime = exec
            .begun
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .elapsed();
        let active = exec.metrics().active();
        let seconds = uptime.as_secs();
        let restarting = exec.restarting.load(std::sync::atomic::Ordering::SeqCst);
        Ok(Ready {
            can_restart: !restarting,
            uptime: (uptime.as_secs_f64() * 1000.0).round() / 1000.0,
            uptime_formatted: format!(
                "{}h {}m {}s",
                seconds / 3600,
                seconds / 60 % 60,
                seconds % 60
            ),
            active_requests: active.len(),
            restart_ready: active.is_empty() && !restarting,
            active,
        })
    }
}
