//! How the service is.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hrana::{SOCKETS, STREAMS};
use crate::{Sqlite, limits};

/// How the service is.
#[derive(Deserialize, JsonSchema)]
pub struct Health;

#[derive(Serialize, JsonSchema)]
pub struct Healthy {
    #[serde(flatten)]
    health: kit::health::Health,
    cache: Cached,
    /// What happened since the service started.
    counters: BTreeMap<&'static str, u64>,
}

/// What is open now.
#[derive(Serialize, JsonSchema)]
pub struct Cached {
    /// Databases that are open; each is closed when nobody has used it for a while.
    open: usize,
    /// At most so many are.
    max_open: usize,
    databases: Vec<Open>,
}

#[derive(Serialize, JsonSchema)]
pub struct Open {
    path: String,
    /// Bytes of its file.
    bytes: u64,
    /// Connections that wait for the next reader.
    idle_readers: usize,
}

impl Sqlite {
    fn cached(&self) -> Cached {
        let mut databases: Vec<_> = self
            .store
            .opened()
            .iter()
            .map(|database| Open {
                path: database.place.shown.clone(),
                bytes: database.place.bytes(),
                idle_readers: database.readers(),
            })
            .collect();
        databases.sort_by(|a, b| a.path.cmp(&b.path));
        Cached {
            open: databases.len(),
            max_open: limits::OPEN,
            databases,
        }
    }

    fn counters(&self) -> BTreeMap<&'static str, u64> {
        let counters = &self.store.counters;
        [
            ("databases_opened", &counters.opened),
            ("databases_closed", &counters.closed),
            ("jobs", &counters.jobs),
            ("failed", &counters.failed),
            ("waited_for_a_lock", &counters.waited),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
        .into_iter()
        .chain([
            (
                "hrana_streams",
                (STREAMS - self.turns.streams.available_permits()) as u64,
            ),
            (
                "hrana_sockets",
                (SOCKETS - self.turns.sockets.available_permits()) as u64,
            ),
        ])
        .collect()
    }
}

impl Operation for Health {
    const ROUTE: Route = Route::get("/api/v1/sqlite/health").named("sqlite_healthCheck");
    type Service = Sqlite;
    type Reply = Healthy;

    async fn run(self, sqlite: Sqlite, call: Call) -> Result<Healthy, Fault> {
        Ok(Healthy {
            health: kit::health::Health::of("sqlite", &call),
            cache: sqlite.cached(),
            counters: sqlite.counters(),
        })
    }
}

/// Which databases are open.
#[derive(Deserialize, JsonSchema)]
pub struct Cache;

impl Operation for Cache {
    const ROUTE: Route = Route::get("/api/v1/sqlite/health/cache")
        .named("sqlite_healthCache")
        .cli("db health-cache");
    type Service = Sqlite;
    type Reply = Cached;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Cached, Fault> {
        Ok(sqlite.cached())
    }
}
