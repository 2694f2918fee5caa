//! Full TLS handshakes: connect, shake hands, leave.

use std::time::{Duration, Instant};

use super::client::{Client, Protocol};
use super::cost;
use super::ground::{host, visited};
use super::rivals::Rival;

/// Handshakes under way at once.
const UNDER_WAY: usize = 16;
/// So that the ports of this side last, whatever the machine.
const MOST: usize = 12_000;

/// What one round gave.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub per_second: f64,
    pub cpu_us: f64,
}

/// Shake hands for `time`.
pub async fn round(client: &Client, rival: &Rival, time: Duration) -> anyhow::Result<Round> {
    let host = host(visited(rival.routes)[0]);
    let before = cost::processor(rival.pid());
    let began = Instant::now();
    let lanes = (0..UNDER_WAY).map(async |_| {
        let mut count = 0;
        while began.elapsed() < time && count < MOST / UNDER_WAY {
            client.stream(rival, Protocol::TlsH1, &host).await?;
            count += 1;
        }
        Ok::<_, anyhow::Error>(count)
    });
    let counts = futures::future::try_join_all(lanes).await?;
    let taken = began.elapsed();
    let spent = cost::processor(rival.pid()) - before;
    let count = counts.iter().sum::<usize>() as f64;
    Ok(Round {
        per_second: count / taken.as_secs_f64(),
        cpu_us: spent.as_secs_f64() * 1e6 / count,
    })
}
