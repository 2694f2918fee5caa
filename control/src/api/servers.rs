//! Servers and rentals: this node, under both names. Its id is the `server_id` that containers
//! are made with.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text::IdText;
use crate::auth::{Principal, broken};
use crate::control::Control;
use crate::store::containers;
use crate::time::{self, DAY};

#[derive(Serialize, JsonSchema)]
pub struct Rental {
    id: String,
    rental_start: String,
    status: &'static str,
    amount: &'static str,
    setup_fee_cents: u32,
    total_paid_cents: u32,
    renewal_pricing_frozen: Option<Value>,
    /// What containers are made with.
    server_id: Option<String>,
    pool_id: Option<String>,
    is_free_tier: bool,
    server: Option<Server>,
}

#[derive(Serialize, JsonSchema)]
pub struct DetailedRental {
    #[serde(flatten)]
    rental: Rental,
    hold_days: u32,
    usage_days: i64,
    transaction: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct Server {
    container_capacity: Capacity,
    id: String,
    name: String,
    is_vm: bool,
    specs: Specs,
}

#[derive(Serialize, JsonSchema)]
struct Capacity {
    used: u32,
    max: u32,
}

#[derive(Serialize, JsonSchema)]
struct Specs {
    cpu: Option<Cpu>,
    ram: Option<Ram>,
    disks: Option<Disks>,
    network: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct Cpu {
    model: Option<String>,
    cores: Option<u32>,
    threads: Option<u32>,
    score: Option<f64>,
    score_type: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Ram {
    capacity_gb: f64,
    #[serde(rename = "type")]
    kind: Option<String>,
    speed_mhz: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct Disks {
    config: Vec<Value>,
    total_gb: f64,
}

async fn this_node(control: &Control, call: &Call) -> Result<Rental, Fault> {
    Principal::of(call)?;
    const GIB: f64 = 1_073_741_824.0;
    let used = control
        .store
        .read("count containers", |db| containers::count(db, None))
        .await
        .map_err(broken)?;
    let (host, id) = (&control.host, control.identity.id.to_string());
    let size = |bytes: u64| (bytes as f64 / GIB * 10.0).round() / 10.0;
    Ok(Rental {
        id: id.clone(),
        rental_start: time::text(control.identity.since),
        status: "active",
        amount: "0.00",
        setup_fee_cents: 0,
        total_paid_cents: 0,
        renewal_pricing_frozen: None,
        server_id: Some(id.clone()),
        pool_id: None,
        is_free_tier: false,
        server: Some(Server {
            container_capacity: Capacity {
                used,
                max: control.config.limits.containers_per_node,
            },
            id,
            name: control.config.node.clone(),
            is_vm: false,
            specs: Specs {
                cpu: Some(Cpu {
                    model: host.cpu_model.clone(),
                    cores: None,
                    threads: (host.cpus > 0).then_some(host.cpus),
                    score: None,
                    score_type: None,
                }),
                ram: Some(Ram {
                    capacity_gb: size(host.memory),
                    kind: None,
                    speed_mhz: None,
                }),
                disks: Some(Disks {
                    config: Vec::new(),
                    total_gb: size(host.disk),
                }),
                network: None,
            },
        }),
    })
}

async fn this_node_if(control: &Control, call: &Call, id: IdText) -> Result<DetailedRental, Fault> {
    let rental = this_node(control, call).await?;
    if id.0 != control.identity.id {
        return Err(Fault::not_found(format!(
            "no server {}; list them with `hoody servers list`",
            id.0
        ))
        .code("NOT_FOUND"));
    }
    let usage_days = (control.now() - control.identity.since) / DAY;
    Ok(DetailedRental {
        rental,
        hold_days: 0,
        usage_days,
        transaction: None,
    })
}

/// The servers that containers can be made on.
#[derive(Deserialize, JsonSchema)]
pub struct List {}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/servers")
        .named("listUserServers")
        .cli("servers list");
    type Service = Control;
    type Reply = Vec<Rental>;

    async fn run(self, control: Control, call: Call) -> Result<Vec<Rental>, Fault> {
        Ok(vec![this_node(&control, &call).await?])
    }
}

/// Servers that could be rented: none, a node of one's own rents nothing out.
#[derive(Deserialize, JsonSchema)]
pub struct Available {}

impl Operation for Available {
    const ROUTE: Route = Route::get("/api/v1/servers/available")
        .named("browseRentalMarketplace")
        .cli("servers marketplace");
    type Service = Control;
    type Reply = Vec<Value>;

    async fn run(self, _: Control, call: Call) -> Result<Vec<Value>, Fault> {
        Principal::of(&call)?;
        Ok(Vec::new())
    }
}

/// One server.
#[derive(Deserialize, JsonSchema)]
pub struct Get {
    id: IdText,
}

impl Operation for Get {
    const ROUTE: Route = Route::get("/api/v1/servers/{id}")
        .named("getUserServerById")
        .cli("servers get");
    type Service = Control;
    type Reply = DetailedRental;

    async fn run(self, control: Control, call: Call) -> Result<DetailedRental, Fault> {
        this_node_if(&control, &call, self.id).await
    }
}

/// The rentals of the account: this node, which is its owner's for good.
#[derive(Deserialize, JsonSchema)]
pub struct ListRentals {}

impl Operation for ListRentals {
    const ROUTE: Route = Route::get("/api/v1/rentals").named("listUserRentals");
    type Service = Control;
    type Reply = Vec<Rental>;

    async fn run(self, control: Control, call: Call) -> Result<Vec<Rental>, Fault> {
        Ok(vec![this_node(&control, &call).await?])
    }
}

/// One rental.
#[derive(Deserialize, JsonSchema)]
pub struct GetRental {
    id: IdText,
}

impl Operation for GetRental {
    const ROUTE: Route = Route::get("/api/v1/rentals/{id}").named("getUserRentalById");
    type Service = Control;
    type Reply = DetailedRental;

    async fn run(self, control: Control, call: Call) -> Result<DetailedRental, Fault> {
        this_node_if(&control, &call, self.id).await
    }
}
