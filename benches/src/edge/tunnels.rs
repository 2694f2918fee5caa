//! What a rival holds for WebSockets on which nothing happens.

use std::time::Duration;

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Client, Protocol, Stream};
use super::cost;
use super::ground::{LARGE_ROUTE, host};
use super::rivals::Rival;

/// The example of RFC 6455, section 1.3: every tunnel has this key.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What the upstream answers it with.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Tunnels that are being made at once.
const AT_ONCE: usize = 32;
/// For buffers of the beginning to be given back.
const REST: Duration = Duration::from_secs(2);
/// One masked text frame, which the upstream sends back as it is.
const FRAME: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";

/// What was held.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub kib_each: f64,
    /// Over what it held before, after all have ended.
    pub kib_each_after: f64,
}

/// Make `count` tunnels, use each once, let them rest, and look.
pub async fn hold(
    client: &Client,
    rival: &Rival,
    protocol: Protocol,
    count: usize,
) -> anyhow::Result<Held> {
    let before = cost::memory(rival.pid());
    let mut held = Vec::with_capacity(count);
    while held.len() < count {
        let more = (0..AT_ONCE.min(count - held.len())).map(|_| open(client, rival, protocol));
        held.extend(futures::future::try_join_all(more).await?);
    }
    tokio::time::sleep(REST).await;
    let during = cost::memory(rival.pid());
    for tunnel in held.iter_mut().step_by(count / 10 + 1) {
        echo(tunnel).await?; // they are still there
    }
    drop(held);
    tokio::time::sleep(REST).await;
    let after = cost::memory(rival.pid());
    let each = |now: u64| now.saturating_sub(before) as f64 / 1024.0 / count as f64;
    Ok(Held {
        kib_each: each(during),
        kib_each_after: each(after),
    })
}

async fn open(
    client: &Client,
    rival: &Rival,
    protocol: Protocol,
) -> anyhow::Result<Box<dyn Stream>> {
    let host = host(LARGE_ROUTE);
    let mut stream = client.stream(rival, protocol, &host).await?;
    let head = format!(
        "GET /large HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n\r\n") {
        ensure!(reply.len() < 4096, "the reply to an upgrade is too long");
        reply.push(stream.read_u8().await?);
    }
    ensure!(
        reply.starts_with(b"HTTP/1.1 101 "),
        "the reply to an upgrade is {}",
        String::from_utf8_lossy(&reply)
    );
    echo(&mut stream).await?;
    Ok(stream)
}

async fn echo(stream: &mut Box<dyn Stream>) -> anyhow::Result<()> {
    stream.write_all(FRAME).await?;
    stream.flush().await?;
    let mut back = [0; FRAME.len()];
    stream.read_exact(&mut back).await?;
    ensure!(back == FRAME, "a frame came back changed");
    Ok(())
}
