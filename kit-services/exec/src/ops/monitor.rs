//! What is under way, and what was, in numbers.

use axum::response::IntoResponse;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use kit::{Call, Fault, Operation, Raw, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Exec;
use crate::metrics::{Active, Http, RecentError, ScriptNumbers, Sockets};
use crate::place::RelPath;
use crate::process::resident;

/// List the requests and WebSockets that are under way.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ActiveRequests;

/// What is under way.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UnderWay {
    count: usize,
    active: Vec<Active>,
}

impl Operation for ActiveRequests {
    const ROUTE: Route = Route::get("/api/v1/exec/monitor/active-requests")
        .named("getActiveRequests")
        .cli("exec system active-requests");
    type Service = Exec;
    type Reply = UnderWay;

    async fn run(self, exec: Exec, _: Call) -> Result<UnderWay, Fault> {
        let active = exec.metrics().active();
        Ok(UnderWay {
            count: active.len(),
            active,
        })
    }
}

/// List the scripts that were asked something, with their numbers.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Scripts {
    /// At most so many, 1 to 500.
    limit: Option<i64>,
    /// `lastActivity`, `requests`, `errors`, `p95` or `ws_active`.
    sort: Option<String>,
}

/// A script in numbers.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScriptRow {
    script_path: String,
    hostname: String,
    /// It has a process.
    vm_cached: bool,
    /// Bytes that its deployment shares.
    shared_state_bytes: Option<usize>,
    /// Resident memory of its process, in bytes.
    memory_bytes: Option<u64>,
    active_http: usize,
    active_ws: usize,
    concurrent_running: usize,
    http: Http,
    ws: Sockets,
    recent_errors: Vec<RecentError>,
    first_seen_at: String,
    last_activity_at: String,
}

/// Scripts in numbers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ScriptRows {
    count: usize,
    total: usize,
    scripts: Vec<ScriptRow>,
}

impl Operation for Scripts {
    const ROUTE: Route = Route::get("/api/v1/exec/monitor/scripts").named("listMonitorScripts");
    type Service = Exec;
    type Reply = ScriptRows;

    async fn run(self, exec: Exec, _: Call) -> Result<ScriptRows, Fault> {
        let mut all = exec.metrics().scripts();
        match self.sort.as_deref().unwrap_or("lastActivity") {
            "requests" => all.sort_by_key(|it| std::cmp::Reverse(it.http.total)),
            "errors" => all.sort_by_key(|it| std::cmp::Reverse(it.http.errors)),
            "p95" => all.sort_by(|one, other| {
                other
                    .http
                    .p95_duration_ms
                    .total_cmp(&one.http.p95_duration_ms)
            }),
            "ws_active" => all.sort_by_key(|it| std::cmp::Reverse(it.active_sockets)),
            "lastActivity" | "" => all.sort_by(|one, other| other.last.cmp(&one.last)),
            _ => {
                return Err(Fault::bad_request(
                    "`sort` is lastActivity, requests, errors, p95 or ws_active",
                )
                .code("VALIDATION_ERROR"));
            }
        }
        let total = all.len();
        let limit = usize::try_from(self.limit.unwrap_or(100).clamp(1, 500)).unwrap_or(100);
        all.truncate(limit);
        let running = exec.pool().scripts();
        let sizes = exec.shared().sizes();
        let scripts: Vec<ScriptRow> = all
            .into_iter()
            .map(|it| {
                let process = running
                    .iter()
                    .find(|script| script.path.as_str() == it.path);
                let path = RelPath::read(&it.path).unwrap_or_default();
                let deployment = crate::execute::deployment_of(&path);
                ScriptRow {
                    vm_cached: process.is_some(),
                    memory_bytes: process.map(|script| resident(script.process.pid)),
                    shared_state_bytes: sizes
                        .iter()
                        .find(|(its, _)| *its == deployment)
                        .map(|(_, bytes)| *bytes),
                    concurrent_running: exec.pool().running(&path),
                    script_path: it.path,
                    hostname: it.hostname,
                    active_http: it.active,
                    active_ws: it.active_sockets,
                    http: it.http,
                    ws: it.sockets,
                    recent_errors: it.failures,
                    first_seen_at: it.first,
                    last_activity_at: it.last,
                }
            })
            .collect();
        Ok(ScriptRows {
            count: scripts.len(),
            total,
            scripts,
        })
    }
}

/// One script in numbers, since the service began.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScriptPerformance {
    /// The script, as the list of scripts names it.
    script_path: Option<String>,
}

/// Numbers of a script; an empty object where it was asked nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Performance {
    metrics: std::collections::BTreeMap<String, Value>,
}

impl Operation for ScriptPerformance {
    const ROUTE: Route = Route::post("/api/v1/exec/monitor/script-performance")
        .named("getScriptPerformance")
        .cli("exec scripts performance");
    type Service = Exec;
    type Reply = Performance;

    async fn run(self, exec: Exec, _: Call) -> Result<Performance, Fault> {
        let root = exec.config().scripts.to_string_lossy().into_owned();
        let path = self.script_path.unwrap_or_default();
        let path = path
            .strip_prefix(&root)
            .unwrap_or(&path)
            .trim_start_matches('/');
        let Some(numbers) = exec.metrics().script(path) else {
            return Ok(Performance {
                metrics: std::collections::BTreeMap::new(),
            });
        };
        let ScriptNumbers {
            path,
            http,
            recent,
            sockets,
            active,
            active_sockets,
            first,
            last,
            ..
        } = numbers;
        let mut http = json!(http);
        http["recentDurationsMs"] = json!(recent);
        let metrics = [
            ("scriptPath", json!(path)),
            ("period", json!("lifetime")),
            ("http", http),
            ("ws", json!(sockets)),
            ("activeHttp", json!(active)),
            ("activeWs", json!(active_sockets)),
            ("firstSeenAt", json!(first)),
            ("lastActivityAt", json!(last)),
        ];
        Ok(Performance {
            metrics: metrics.map(|(key, value)| (key.to_owned(), value)).into(),
        })
    }
}

/// The service in numbers.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Stats;

/// Memory of all processes of scripts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Memory {
    /// Bytes that they have.
    used: u64,
    /// Bytes that they may have.
    total: u64,
    percentage: f64,
    rss: u64,
}

/// What is kept.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    scripts: usize,
    vms: usize,
    shared_states: usize,
    active_ws_hostnames: usize,
}

/// Requests.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    total: u64,
    success: u64,
    errors: u64,
    active_http: usize,
    per_second: f64,
    per1m: f64,
    per5m: f64,
    per15m: f64,
}

/// WebSockets.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebSockets {
    opened: u64,
    closed: u64,
    active: usize,
    normal_closes: u64,
    abnormal_closes: u64,
}

/// Scheduled runs.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cron {
    fires: u64,
    errors: u64,
    active: u64,
    wrapper_active: usize,
}

/// Everything in numbers.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Numbers {
    /// Seconds.
    uptime: f64,
    memory: Memory,
    cache: Cache,
    requests: Requests,
    websocket: WebSockets,
    cron: Cron,
    /// Scripts that are not counted any more, for others.
    dropped_scripts: u64,
    since_ms: u64,
}

fn numbers(exec: &Exec) -> Numbers {
    let totals = exec.metrics().totals();
    let scripts = exec.pool().scripts();
    let used: u64 = scripts
        .iter()
        .map(|script| resident(script.process.pid))
        .sum();
    let total = crate::process::MEMORY_BYTES * crate::pool::PROCESSES as u64;
    let hosts: std::collections::BTreeSet<String> = exec
        .metrics()
        .active()
        .into_iter()
        .filter(|it| it.socket)
        .map(|it| it.hostname)
        .collect();
    Numbers {
        uptime: (totals.uptime.as_secs_f64() * 1000.0).round() / 1000.0,
        memory: Memory {
            used,
            total,
            percentage: (used as f64 / total as f64 * 10_000.0).round() / 100.0,
            rss: used,
        },
        cache: Cache {
            scripts: exec.metrics().scripts().len(),
            vms: scripts.len(),
            shared_states: exec.shared().sizes().len(),
            active_ws_hostnames: hosts.len(),
        },
        requests: Requests {
            total: totals.total,
            success: totals.success,
            errors: totals.errors,
            active_http: totals.active,
            per_second: (totals.per_minute[0] / 60.0 * 1000.0).round() / 1000.0,
            per1m: totals.per_minute[0],
            per5m: totals.per_minute[1],
            per15m: totals.per_minute[2],
        },
        websocket: WebSockets {
            opened: totals.sockets.opened,
            closed: totals.sockets.closed,
            active: totals.active_sockets,
            normal_closes: totals.sockets.normal_closes,
            abnormal_closes: totals.sockets.abnormal_closes,
        },
        cron: Cron {
            fires: totals.fires,
            errors: totals.fire_errors,
            active: totals.fires_active,
            wrapper_active: exec.schedules.all().len(),
        },
        dropped_scripts: totals.dropped,
        since_ms: u64::try_from(totals.uptime.as_millis()).unwrap_or(u64::MAX),
    }
}

impl Operation for Stats {
    const ROUTE: Route = Route::get("/api/v1/exec/monitor/stats")
        .named("getStats")
        .cli("exec system stats");
    type Service = Exec;
    type Reply = Numbers;

    async fn run(self, exec: Exec, _: Call) -> Result<Numbers, Fault> {
        Ok(numbers(&exec))
    }
}

/// The numbers in Prometheus' text format.
pub fn prometheus(exec: &Exec) -> Raw {
    let exec = exec.clone();
    let handler = get(move || {
        let exec = exec.clone();
        async move {
            let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, text(&exec)).into_response()
        }
    });
    Raw::new(
        Route::get("/api/v1/exec/monitor/metrics")
            .named("prometheusExport")
            .cli("exec system prometheus"),
        "The numbers of the service and of each script, for Prometheus.",
    )
    .answers("text/plain")
    .handler(handler)
}

fn text(exec: &Exec) -> String {
    let all = numbers(exec);
    let mut text = String::new();
    let mut single = |name: &str, kind: &str, help: &str, value: f64| {
        text.push_str(&format!(
            "# HELP exec_{name} {help}\n# TYPE exec_{name} {kind}\nexec_{name} {value}\n"
        ));
    };
    single(
        "uptime_seconds",
        "gauge",
        "Since the service began.",
        all.uptime,
    );
    single(
        "memory_bytes",
        "gauge",
        "Resident memory of all processes of scripts.",
        all.memory.used as f64,
    );
    single(
        "processes",
        "gauge",
        "Processes of scripts.",
        all.cache.vms as f64,
    );
    single(
        "requests_total",
        "counter",
        "Requests that ended.",
        all.requests.total as f64,
    );
    single(
        "request_errors_total",
        "counter",
        "Requests that ended with 500 or more.",
        all.requests.errors as f64,
    );
    single(
        "requests_active",
        "gauge",
        "Requests under way.",
        all.requests.active_http as f64,
    );
    single(
        "websockets_active",
        "gauge",
        "WebSockets that are open.",
        all.websocket.active as f64,
    );
    single(
        "websockets_opened_total",
        "counter",
        "WebSockets that were opened.",
        all.websocket.opened as f64,
    );
    single(
        "fires_total",
        "counter",
        "Scheduled runs.",
        all.cron.fires as f64,
    );
    single(
        "fire_errors_total",
        "counter",
        "Scheduled runs that went wrong.",
        all.cron.errors as f64,
    );
    text.push_str("# HELP exec_script_requests_total Requests of a script that ended.\n# TYPE exec_script_requests_total counter\n");
    let scripts = exec.metrics().scripts();
    for script in &scripts {
        let name = label(&script.path);
        text.push_str(&format!(
            "exec_script_requests_total{{script=\"{name}\",outcome=\"success\"}} {}\nexec_script_requests_total{{script=\"{name}\",outcome=\"error\"}} {}\n",
            script.http.success, script.http.errors
        ));
    }
    text.push_str("# HELP exec_script_duration_ms How long requests of a script took lately.\n# TYPE exec_script_duration_ms gauge\n");
    for script in &scripts {
        let name = label(&script.path);
        for (quantile, value) in [
            ("0.5", script.http.p50_duration_ms),
            ("0.95", script.http.p95_duration_ms),
        ] {
            text.push_str(&format!(
                "exec_script_duration_ms{{script=\"{name}\",quantile=\"{quantile}\"}} {value}\n"
            ));
        }
    }
    text
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
