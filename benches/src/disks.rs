//! Snapshots, restores, copies and syncs of a container that holds little, and of one that holds much.

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::api::{Api, Container};
use crate::figures::summary;

/// A file that is put into the container at once.
const PIECE: u64 = 32 << 20;
/// What a sync has to carry.
const CHANGE: u64 = 1 << 20;

/// `count` of each at every size, one at a time.
pub async fn ask(api: &Api, count: usize, megabytes: &[u64]) -> anyhow::Result<Value> {
    let mut sizes = Map::new();
    for size in megabytes {
        sizes.insert(format!("{size}_mb"), of_size(api, count, *size).await?);
    }
    Ok(sizes.into())
}

async fn of_size(api: &Api, count: usize, megabytes: u64) -> anyhow::Result<Value> {
    let container = api.create(&format!("disk-{megabytes}")).await?;
    api.answered(&container, Instant::now()).await?;
    fill(api, &container, "piece", megabytes << 20).await?;
    let (mut takes, mut restores, mut returns) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let began = Instant::now();
        let name = api.snapshot(&container).await?;
        takes.push(began.elapsed());
        let began = Instant::now();
        api.restore(&container, &name).await?;
        restores.push(began.elapsed());
        returns.push(api.answered(&container, began).await?);
        api.reached(&container, "running").await?;
        api.forget(&container, &name).await?;
    }
    let (mut copies, mut syncs) = (Vec::new(), Vec::new());
    for turn in 0..count {
        let began = Instant::now();
        let copy = api.copy(&container).await?;
        api.reached(&copy, "stopped").await?;
        copies.push(began.elapsed());
        fill(api, &container, &format!("change-{turn}"), CHANGE).await?;
        let began = Instant::now();
        api.sync(&copy).await?;
        api.reached(&copy, "stopped").await?;
        syncs.push(began.elapsed());
        api.delete(&copy).await?;
    }
    api.delete(&container).await?;
    let named = |what: &str| format!("{what} at {megabytes} MB");
    Ok(json!({
        "snapshot": summary(&named("snapshot of a running one"), &takes),
        "restore": summary(&named("restore of a running one → disk is back"), &restores),
        "restore_to_first_200": summary(&named("restore of a running one → first 200"), &returns),
        "copy": summary(&named("copy of a running one → stopped"), &copies),
        "sync_of_1_mb": summary(&named("sync of 1 MB → stopped"), &syncs),
    }))
}

/// Put that many bytes that do not compress into a container.
async fn fill(api: &Api, container: &Container, name: &str, bytes: u64) -> anyhow::Result<()> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut left = bytes;
    let mut piece = 0;
    while left > 0 {
        let now = left.min(PIECE);
        let mut body = Vec::with_capacity(usize::try_from(now)?);
        while (body.len() as u64) < now {
            // xorshift (Marsaglia, 2003)
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            body.extend_from_slice(&state.to_le_bytes());
        }
        let path = format!("/api/v1/files/root/{name}-{piece}");
        api.put(container, "files", &path, body).await?;
        left -= now;
        piece += 1;
    }
    Ok(())
}
