//! How long until a container answers at its URL: new, and after it was stopped.

use std::time::Instant;

use serde_json::{Value, json};

use crate::api::Api;
use crate::figures::summary;

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
    Ok(json!({
        "create_to_first_200": summary("POST containers → first 200 of its terminal", &cold),
        "start_to_first_200": summary("POST start of a stopped one → first 200", &again),
    }))
}
