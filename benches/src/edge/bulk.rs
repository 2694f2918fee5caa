//! One large body, down and up.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::client::{Client, Protocol};
use super::cost;
use super::ground::{LARGE_ROUTE, host};
use super::rivals::Rival;
use super::upstream::LARGE_BYTES;

/// What is read and written at once.
const PART: usize = 64 << 10;
/// A rival that takes longer is not measured.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Down,
    Up,
}

/// What one round gave.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub mib_per_second: f64,
    /// Processor time of the rival, in microseconds for each MiB.
    pub cpu_us_per_mib: f64,
}

pub async fn round(
    client: &Client,
    rival: &Rival,
    protocol: Protocol,
    direction: Direction,
) -> anyhow::Result<Round> {
    let before = cost::processor(rival.pid());
    let began = Instant::now();
    tokio::time::timeout(PATIENCE, transfer(client, rival, protocol, direction)).await??;
    let taken = began.elapsed();
    let spent = cost::processor(rival.pid()) - before;
    let mib = (LARGE_BYTES >> 20) as f64;
    Ok(Round {
        mib_per_second: mib / taken.as_secs_f64(),
        cpu_us_per_mib: spent.as_secs_f64() * 1e6 / mib,
    })
}

/// Written by hand: what a client library does with the bytes is not asked.
async fn transfer(
    client: &Client,
    rival: &Rival,
    protocol: Protocol,
    direction: Direction,
) -> anyhow::Result<()> {
    let host = host(LARGE_ROUTE);
    let mut stream = BufReader::with_capacity(PART, client.stream(rival, protocol, &host).await?);
    let head = match direction {
        Direction::Down => format!("GET /large HTTP/1.1\r\nhost: {host}\r\n\r\n"),
        Direction::Up => {
            format!("PUT /large HTTP/1.1\r\nhost: {host}\r\ncontent-length: {LARGE_BYTES}\r\n\r\n")
        }
    };
    stream.write_all(head.as_bytes()).await?;
    if direction == Direction::Up {
        let part = vec![b'x'; PART];
        for _ in 0..LARGE_BYTES / PART {
            stream.write_all(&part).await?;
        }
        stream.flush().await?;
    }
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    ensure!(line.contains(" 200 "), "the reply begins with {line:?}");
    let mut length = None;
    while line != "\r\n" {
        line.clear();
        ensure!(
            stream.read_line(&mut line).await? > 0,
            "the reply ends in its headers"
        );
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let length = length.ok_or_else(|| anyhow::anyhow!("the reply has no length"))?;
    if direction == Direction::Up {
        let mut said = String::new();
        stream.take(length as u64).read_to_string(&mut said).await?;
        ensure!(
            said == LARGE_BYTES.to_string(),
            "the upstream has seen {said} bytes"
        );
        return Ok(());
    }
    ensure!(length == LARGE_BYTES, "the reply has {length} bytes");
    let mut left = length;
    while left > 0 {
        let read = stream.fill_buf().await?.len();
        ensure!(read > 0, "the reply ends {left} bytes early");
        stream.consume(read);
        left -= read;
    }
    Ok(())
}
