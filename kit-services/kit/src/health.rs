//! The health answer that all services share.

use std::sync::LazyLock;

use axum::extract::Request;
use axum::routing::{MethodRouter, get};
use http::StatusCode;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::Call;
use crate::http::json;

/// When this process began to serve.
static STARTED: LazyLock<Timestamp> = LazyLock::new(Timestamp::now);

/// What `/health` says.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Always `ok`: a service that cannot answer does not.
    pub status: &'static str,
    pub service: &'static str,
    /// When the binary was built (RFC 3339); null where the build did not say.
    pub built: Option<&'static str>,
    /// When the process started (RFC 3339).
    pub started: String,
    pub memory: Option<Memory>,
    /// Open file descriptors.
    pub fds: Option<usize>,
    pub pid: u32,
    /// The caller's address as the service sees it.
    pub ip: String,
    pub user_agent: Option<String>,
}

/// Memory of the process, in bytes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Memory {
    /// Resident set size.
    pub rss: u64,
    pub heap: Option<u64>,
}

impl Health {
    /// How `service` is, as asked by `call`.
    pub fn of(service: &'static str, call: &Call) -> Health {
        Health {
            status: "ok",
            service,
            built: option_env!("HOODY_BUILT"),
            started: STARTED.to_string(),
            memory: resident().map(|rss| Memory { rss, heap: None }),
            fds: std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            pid: std::process::id(),
            ip: call
                .client()
                .map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string()),
            user_agent: call.user_agent().map(str::to_owned),
        }
    }
}

/// Note the time of start.
pub fn start() {
    LazyLock::force(&STARTED);
}

fn resident() -> Option<u64> {
    const KIB: u64 = 1024;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * KIB)
}

pub(crate) fn handler(service: &'static str) -> MethodRouter {
    get(move |request: Request| async move {
        let (parts, _) = request.into_parts();
        let call = Call::from(parts);
        let body = serde_json::to_value(Health::of(service, &call)).expect("health is plain JSON");
        json(StatusCode::OK, &body)
    })
}
