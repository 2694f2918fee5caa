//! The same number of requests a second for every rival, whatever it could take.
//!
//! A request that waits for the one before it on its lane counts from when it was due: a rival
//! that stalls is not spared the requests that it kept from being sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;

use super::client::{Client, Protocol, Sender};
use super::cost;
use super::ground::{REPLY_BYTES, host, visited};
use super::rivals::Rival;
use crate::figures::percentile;

/// Requests that may be under way at once.
const LANES: usize = 64;
const H2_CONNECTIONS: usize = 8;
/// Sent before anything counts, on each lane.
const WARM_UP: usize = 5;

/// What one round gave.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub cpu_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
}

/// Offer `rate` requests a second for `time`.
pub async fn round(
    client: &Client,
    rival: &Rival,
    protocol: Protocol,
    rate: f64,
    time: Duration,
) -> anyhow::Result<Round> {
    let hosts: Arc<[String]> = visited(rival.routes).into_iter().map(host).collect();
    let mut lanes = Vec::new();
    if protocol == Protocol::TlsH2 {
        for at in 0..H2_CONNECTIONS {
            let Sender::H2(sender) = client
                .sender(rival, protocol, &hosts[at % hosts.len()])
                .await?
            else {
                unreachable!("HTTP/2 was asked for");
            };
            lanes.extend((0..LANES / H2_CONNECTIONS).map(|_| Sender::H2(sender.clone())));
        }
    } else {
        for at in 0..LANES {
            lanes.push(
                client
                    .sender(rival, protocol, &hosts[at % hosts.len()])
                    .await?,
            );
        }
    }
    for lane in &mut lanes {
        for host in hosts.iter().take(WARM_UP) {
            once(lane, protocol, host).await?;
        }
    }
    let before = cost::processor(rival.pid());
    let begin = Instant::now() + Duration::from_millis(20);
    let every = Duration::from_secs_f64(LANES as f64 / rate);
    let count = (time.as_secs_f64() / every.as_secs_f64()) as usize;
    let mut running = Vec::new();
    for (at, mut lane) in lanes.into_iter().enumerate() {
        let hosts = hosts.clone();
        running.push(tokio::spawn(async move {
            let first = begin + every.mul_f64(at as f64 / LANES as f64);
            let mut times = Vec::with_capacity(count);
            for turn in 0..count {
                let due = first + every * turn as u32;
                let waited = Instant::now() >= due;
                tokio::time::sleep_until(due.into()).await;
                // A timer that comes late is the generator's fault, a lane that is busy is not.
                let began = if waited { due } else { Instant::now() };
                once(&mut lane, protocol, &hosts[(at + turn) % hosts.len()]).await?;
                times.push(began.elapsed());
            }
            Ok::<_, anyhow::Error>(times)
        }));
    }
    let mut times = Vec::new();
    for lane in running {
        times.extend(lane.await??);
    }
    let spent = cost::processor(rival.pid()) - before;
    let micros = |share| percentile(&times, share).as_secs_f64() * 1e6;
    Ok(Round {
        cpu_us: spent.as_secs_f64() * 1e6 / times.len() as f64,
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        p999_us: micros(0.999),
    })
}

async fn once(sender: &mut Sender, protocol: Protocol, host: &str) -> anyhow::Result<()> {
    let body = Empty::<Bytes>::new().boxed();
    let reply = match sender {
        Sender::H1(sender) => {
            sender.ready().await?;
            let request = Request::get("/small").header("host", host).body(body)?;
            sender.send_request(request).await?
        }
        Sender::H2(sender) => {
            debug_assert_eq!(protocol, Protocol::TlsH2);
            let request = Request::get(format!("https://{host}/small")).body(body)?;
            sender.send_request(request).await?
        }
    };
    ensure!(reply.status() == 200, "a reply is {}", reply.status());
    let body = reply.into_body().collect().await?.to_bytes();
    ensure!(
        body.len() == REPLY_BYTES,
        "a reply has {} bytes",
        body.len()
    );
    Ok(())
}
