//! How long until a container answers at its URL that is given a machine which was kept ready?

use std::time::{Duration, Instant};

use anyhow::bail;
use futures::future::try_join_all;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::figures::summary;

/// How long pools may take to fill.
const FILL: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(100);
/// After a pool is full: what filling it set off is over by then.
const REST: Duration = Duration::from_secs(1);

/// `count` containers for each number of callers that ask at once.
pub async fn ask(api: &Api, count: usize, callers: &[usize]) -> anyhow::Result<Value> {
    let mut all = Map::new();
    for &callers in callers {
        let (mut posts, mut answers) = (Vec::new(), Vec::new());
        let mut missed = 0;
        while answers.len() < count {
            full(api, callers).await?;
            let one = |turn: usize| async move {
                let began = Instant::now();
                let (container, hit) = api.claim(&format!("claim-{turn}")).await?;
                let post = began.elapsed();
                let answer = api.answered(&container, began).await?;
                anyhow::Ok((container, hit, post, answer))
            };
            let made = try_join_all((0..callers).map(one)).await?;
            for (_, hit, post, answer) in &made {
                missed += usize::from(!hit);
                posts.push(*post);
                answers.push(*answer);
            }
            // Not while others are measured.
            for (container, ..) in &made {
                api.reached(container, "running").await?;
                api.delete(container).await?;
            }
        }
        println!("{callers} at once; {missed} had to be made");
        all.insert(
            format!("at_once_{callers}"),
            json!({
                "missed": missed,
                "post": summary("POST containers with `prespawn` → its answer", &posts),
                "first_200": summary("the same → first 200 of its terminal", &answers),
            }),
        );
    }
    Ok(all.into())
}

/// Wait until the pools are full, and hold enough.
async fn full(api: &Api, least: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let kept = api.kept_ready().await?;
        let number = |pool: &Value, key: &str| pool[key].as_u64().unwrap_or_default();
        let pools = kept["pools"].as_array().cloned().unwrap_or_default();
        let size: u64 = pools.iter().map(|pool| number(pool, "size")).sum();
        let ready: u64 = pools.iter().map(|pool| number(pool, "ready")).sum();
        if size < least as u64 {
            bail!(
                "the node keeps {size} machines ready, and {least} are asked for at once; see its setting `prespawn.pools`"
            );
        }
        if ready == size && kept["step"].is_null() {
            tokio::time::sleep(REST).await;
            return Ok(());
        }
        if began.elapsed() > FILL {
            bail!("only {ready} of {size} machines are ready: {kept}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
