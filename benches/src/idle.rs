//! What idle containers hold: memory of all their processes, and of their kits alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::Api;

/// Host user ids from here on belong to containers; each has a range of its own.
const FIRST_ID: u32 = 1_000_000;
const IDS_EACH: u32 = 65_536;
const KIB: u64 = 1024;

#[derive(Default, Clone, Copy)]
struct Memory {
    rss: u64,
    pss: u64,
    kit_rss: u64,
    kit_pss: u64,
}

/// `count` containers at rest.
pub async fn ask(api: &Api, count: usize, rest: u64) -> anyhow::Result<Value> {
    let before = memory();
    let mut containers = Vec::with_capacity(count);
    for turn in 0..count {
        containers.push(api.create(&format!("idle-{turn}")).await?);
    }
    for container in &containers {
        api.answered(container, Instant::now()).await?;
    }
    tokio::time::sleep(Duration::from_secs(rest)).await;
    let mut after = memory();
    after.retain(|owner, _| !before.contains_key(owner));
    let seen: Vec<_> = after.into_values().collect();
    for container in &containers {
        api.delete(container).await?;
    }
    anyhow::ensure!(
        seen.len() == count,
        "{} containers have processes, not {count}",
        seen.len()
    );
    let mean = |of: fn(&Memory) -> u64| seen.iter().map(of).sum::<u64>() / count as u64;
    let mib = |bytes: u64| (bytes as f64 / (1 << 20) as f64 * 100.0).round() / 100.0;
    let result = json!({
        "containers": count,
        "container_rss_mib": mib(mean(|one| one.rss)),
        "container_pss_mib": mib(mean(|one| one.pss)),
        "kitd_rss_mib": mib(mean(|one| one.kit_rss)),
        "kitd_pss_mib": mib(mean(|one| one.kit_pss)),
    });
    println!("{result:#}");
    Ok(result)
}

/// Memory of all processes that run as a container's users, by container.
fn memory() -> BTreeMap<u32, Memory> {
    let mut all: BTreeMap<u32, Memory> = BTreeMap::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let directory = process.path();
        let Ok(status) = std::fs::read_to_string(directory.join("status")) else {
            continue;
        };
        let Some(user) = field(&status, "Uid:").filter(|user| *user >= u64::from(FIRST_ID)) else {
            continue;
        };
        let Ok(rollup) = std::fs::read_to_string(directory.join("smaps_rollup")) else {
            continue;
        };
        let (rss, pss) = (field(&rollup, "Rss:"), field(&rollup, "Pss:"));
        let (rss, pss) = (rss.unwrap_or_default() * KIB, pss.unwrap_or_default() * KIB);
        let owner = (user as u32 - FIRST_ID) / IDS_EACH;
        let memory = all.entry(owner).or_default();
        memory.rss += rss;
        memory.pss += pss;
        if status.starts_with("Name:\tkitd\n") {
            memory.kit_rss += rss;
            memory.kit_pss += pss;
        }
    }
    all
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
}
