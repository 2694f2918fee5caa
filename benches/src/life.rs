//! How long until a container answers at its URL: new, after it was stopped, and woken by the
//! request itself.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::Api;
use crate::figures::summary;

/// Visitors can have a container woken so often in a row; then they have to wait.
const WAKES: usize = 8;

/// One container at a time, `count` of each kind.
pub async fn ask(api: &Api, count: usize) -> anyhow::Result<Value> {
    let mut cold = Vec::with_capacity(count);
    for turn in 0..count {
        let began = Instant::now();
        let container = api.create(&format!("cold-{turn}")).await?;
        cold.push(api.answered(&container, began).await?);
        api.delete(&container).await?;
    }
    let container = api.create("again").await?;
    api.answered(&container, Instant::now()).await?;
    let mut again = Vec::with_capacity(count);
    for _ in 0..count {
        api.operate(&container, "stop").await?;
        api.reached(&container, "stopped").await?;
        let began = Instant::now();
        api.operate(&container, "start").await?;
        again.push(api.answered(&container, began).await?);
        api.reached(&container, "running").await?;
    }
    api.delete(&container).await?;
    let stopped = woken(api, count, "stop", "stopped").await?;
    let paused = woken(api, count, "pause", "paused").await?;
    Ok(json!({
        "create_to_first_200": summary("POST containers → first 200 of its terminal", &cold),
        "start_to_first_200": summary("POST start of a stopped one → first 200", &again),
        "wake_from_stopped": summary("GET of a stopped one, held until its 200", &stopped),
        "wake_from_paused": summary("GET of a paused one, held until its 200", &paused),
    }))
}

/// One request to a container that sleeps, `count` times: each is held until its answer.
async fn woken(api: &Api, count: usize, act: &str, status: &str) -> anyhow::Result<Vec<Duration>> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let container = api.create(&format!("woken-{act}-{}", all.len())).await?;
        api.answered(&container, Instant::now()).await?;
        for _ in 0..WAKES.min(count - all.len()) {
            api.operate(&container, act).await?;
            api.reached(&container, status).await?;
            let began = Instant::now();
            all.push(api.answered(&container, began).await?);
            api.reached(&container, "running").await?;
        }
        api.delete(&container).await?;
    }
    Ok(all)
}
