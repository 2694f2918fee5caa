//! What it takes to get from a host to its place in the table, with few and with many routes.

use std::hint::black_box;
use std::time::Instant;

use routes::address::{Address, Name};
use routes::table::{Change, Place, Table, Update};
use serde_json::json;

use super::ground::{PROJECT, container, host, zone};

/// Hosts asked for, each a random one of all.
const ASKED: usize = 200_000;

/// Nanoseconds for one host, by how many routes there are.
pub fn round(routes: usize) -> anyhow::Result<f64> {
    let zone = zone();
    let places = (0..routes)
        .map(|route| {
            Ok(serde_json::from_value::<Place>(json!({
                "container": container(route),
                "project": PROJECT,
                "name": "box",
                "state": "running",
                "incarnation": 1,
                "directory": "/nowhere",
                "owners": { "base": 0, "count": 1 },
            }))?)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut table = Table::default();
    table.apply(Update {
        generation: 1,
        change: Change::Replace(places),
    });
    let hosts: Vec<String> = (0..routes).map(host).collect();
    // A fixed sequence of a full-period generator: every run asks the same.
    let mut state: u64 = 1;
    let order: Vec<usize> = (0..ASKED)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % routes
        })
        .collect();
    let began = Instant::now();
    for at in &order {
        let name = Name::parse(&hosts[*at]).expect("a name");
        let Ok(Address::Container {
            project, container, ..
        }) = Address::of(&name, &zone)
        else {
            anyhow::bail!("{} leads nowhere", hosts[*at]);
        };
        let place = table.find(project, container).expect("a place");
        black_box(place.clone());
    }
    Ok(began.elapsed().as_secs_f64() * 1e9 / ASKED as f64)
}
