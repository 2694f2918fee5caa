//! What containers use.

use std::time::Duration;

use futures::StreamExt;
use kit::{Call, Fault, Operation, Route};
use routes::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::containers::seen;
use super::projects;
use super::text::IdText;
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::container::Status;
use crate::control::Control;
use crate::runtime::Usage;
use crate::store::Slice;
use crate::store::containers::{self, Filter, Owned};
use crate::time;

/// A runtime that does not answer by then is asked another time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Containers asked at once, for a project.
const AT_ONCE: usize = 4;

#[derive(Serialize, JsonSchema)]
pub struct ContainerStats {
    id: String,
    project_id: String,
    project_name: Option<String>,
    server_name: Option<String>,
    subserver_name: String,
    status: String,
    /// 102 stopped, 103 running, 106 starting, 107 stopping, 110 paused, 112 failed.
    status_code: u32,
    processes: u64,
    /// When it was last started; empty where it never was.
    started_at: String,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
    ramdisk: Ramdisk,
    disk: Disk,
    network: Vec<Network>,
    /// CPU time since the start, in seconds: `12.345s`.
    processing_time: String,
}

#[derive(Serialize, JsonSchema)]
struct Cpu {
    /// Nanoseconds since the start.
    usage: u64,
}

/// Bytes.
#[derive(Serialize, JsonSchema)]
struct Memory {
    usage: u64,
    total: u64,
    usage_percent: f64,
}

#[derive(Serialize, JsonSchema)]
struct Ramdisk {
    scope: &'static str,
    shared_pool_maximum: Option<u64>,
    capacity_reserved: bool,
    usage: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct Disk {
    root: Root,
}

/// Bytes; absent where they are not known, as while the container is off.
#[derive(Serialize, JsonSchema)]
struct Root {
    /// What it may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct Network {
    interface: &'static str,
    addresses: Vec<Address>,
    counters: Counters,
    state: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct Address {
    address: String,
    family: &'static str,
    scope: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct Counters {
    bytes_received: u64,
    bytes_sent: u64,
}

/// What a container that is on uses now.
pub async fn usage(control: &Control, id: Id) -> Result<Usage, Fault> {
    match within(control.runtime.usage(id)).await {
        Some(Ok(usage)) => Ok(usage),
        failed => {
            tracing::warn!(container.id = %id, ?failed, "could not measure container {id}");
            Err(
                Fault::unavailable("the container cannot be measured now; try again")
                    .code("RUNTIME_UNAVAILABLE"),
            )
        }
    }
}

/// What a runtime says, unless it takes too long.
async fn within<T>(doing: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, doing).await.ok()
}

async fn measure(control: &Control, owned: &Owned) -> Result<(ContainerStats, Duration), Fault> {
    let container = &owned.container;
    let on = matches!(container.status, Status::Running | Status::Paused);
    let (usage, address) = if on {
        let id = container.id;
        let (usage, observed) =
            tokio::join!(usage(control, id), within(control.runtime.observe_one(id)));
        let address = observed.and_then(Result::ok).flatten();
        (usage?, address.and_then(|seen| seen.address))
    } else {
        (Usage::default(), None)
    };
    let host = &control.host;
    let total = usage.memory_limit.unwrap_or(host.memory);
    let percent = if total == 0 {
        0.0
    } else {
        (usage.memory as f64 / total as f64 * 1000.0).round() / 10.0
    };
    let network = Network {
        interface: "eth0",
        addresses: address
            .map(|address| Address {
                address: address.to_string(),
                family: "inet",
                scope: "global",
            })
            .into_iter()
            .collect(),
        counters: Counters {
            bytes_received: usage.received,
            bytes_sent: usage.sent,
        },
        state: "up",
        kind: "broadcast",
    };
    let stats = ContainerStats {
        id: container.id.to_string(),
        project_id: container.project.to_string(),
        project_name: Some(owned.project.alias.clone()),
        server_name: Some(control.config.node.clone()),
        subserver_name: crate::reconcile::hostname(&container.name),
        status: container.status.to_string(),
        status_code: match container.status {
            Status::Stopped => 102,
            Status::Running => 103,
            Status::Creating | Status::Claiming | Status::Copying => 106,
            Status::Deleting => 107,
            Status::Paused => 110,
            Status::Failed => 112,
        },
        processes: usage.processes,
        started_at: container.started_at.map(time::text).unwrap_or_default(),
        cpu: on.then(|| Cpu {
            usage: u64::try_from(usage.cpu_time.as_nanos()).unwrap_or(u64::MAX),
        }),
        memory: on.then_some(Memory {
            usage: usage.memory,
            total,
            usage_percent: percent,
        }),
        ramdisk: Ramdisk {
            scope: "container",
            shared_pool_maximum: None,
            capacity_reserved: false,
            usage: None,
        },
        disk: Disk {
            root: Root {
                total: usage.disk_limit,
                usage: usage.disk,
            },
        },
        network: if on { vec![network] } else { Vec::new() },
        processing_time: seconds(usage.cpu_time),
    };
    Ok((stats, usage.cpu_time))
}

fn seconds(time: Duration) -> String {
    format!("{:.3}s", time.as_secs_f64())
}

/// What a container uses: processor, memory, disk, network. While it is off, all zero or absent.
#[derive(Deserialize, JsonSchema)]
pub struct OfContainer {
    id: IdText,
}

impl Operation for OfContainer {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/stats")
        .named("getContainerStats")
        .cli("containers stats");
    type Service = Control;
    type Reply = ContainerStats;

    async fn run(self, control: Control, call: Call) -> Result<ContainerStats, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersRead)?;
        let owned = seen(&control, &principal, self.id.0).await?;
        Ok(measure(&control, &owned).await?.0)
    }
}

/// What the containers of a project use. Those that cannot be measured now are left out.
#[derive(Deserialize, JsonSchema)]
pub struct OfProject {
    id: IdText,
}

#[derive(Serialize, JsonSchema)]
pub struct ProjectStats {
    stats: Vec<ContainerStats>,
    summary: Summary,
}

#[derive(Serialize, JsonSchema)]
struct Summary {
    project_id: String,
    project_name: Option<String>,
    container_count: u64,
    total_processing_time: String,
}

impl Operation for OfProject {
    const ROUTE: Route = Route::get("/api/v1/projects/{id}/stats")
        .named("getProjectStats")
        .cli("projects stats");
    type Service = Control;
    type Reply = ProjectStats;

    async fn run(self, control: Control, call: Call) -> Result<ProjectStats, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersRead)?;
        let project = projects::seen(&control, &principal, self.id.0).await?;
        let filter = Filter {
            user: principal.user.id,
            project: Some(project.id),
            realms: principal.realms(),
            deleting: false,
        };
        let most = control.config.limits.containers_per_node;
        let all = Slice {
            column: "created_at",
            descending: false,
            limit: most,
            offset: 0,
        };
        let (owned, count) = control
            .store
            .read("list containers", move |db| {
                containers::list(db, &filter, all)
            })
            .await
            .map_err(broken)?;
        let measured: Vec<_> = futures::stream::iter(owned)
            .map(|owned| {
                let control = control.clone();
                async move { measure(&control, &owned).await.ok() }
            })
            .buffered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let total = measured.iter().map(|(_, time)| *time).sum();
        Ok(ProjectStats {
            stats: measured.into_iter().map(|(stats, _)| stats).collect(),
            summary: Summary {
                project_id: project.id.to_string(),
                project_name: Some(project.alias),
                container_count: count,
                total_processing_time: seconds(total),
            },
        })
    }
}
