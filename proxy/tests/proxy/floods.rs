//! Clients that send a lot for nothing. Each meets its limit, and others are served meanwhile.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::frames::{END_HEADERS, END_STREAM, Fields, Outcome, Raw, block, fields, frame, kind};
use crate::rig::{Container, Rig, eventually};

/// Limits that are quickly met.
async fn rig() -> (Rig, Container, String) {
    let mut rig = Rig::with(|config| {
        let limits = &mut config.limits;
        limits.h2_resets = 50;
        limits.h2_idle_frames = 200;
        limits.headers = Duration::from_millis(500);
        limits.body = Duration::from_millis(500);
        limits.send = Duration::from_millis(500);
        limits.keepalive = Duration::from_secs(1);
    })
    .await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    (rig, web, host)
}

fn get(host: &str, path: &str) -> Fields {
    fields(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", path),
        (":authority", host),
    ])
}

async fn others_are_served(rig: &Rig, host: &str) {
    for _ in 0..3 {
        assert_eq!(rig.get(host, "/").await.status, StatusCode::OK);
    }
    let mut raw = Raw::tls(rig, host).await;
    raw.request(1, &get(host, "/"), &[]).await;
    assert_eq!(raw.outcome(1).await, Outcome::Status(200));
}

/// Send frames until the connection has ended; how many were taken.
async fn until_cut_off(raw: &mut Raw, most: usize, mut next: impl FnMut(usize) -> Vec<u8>) -> bool {
    for number in 0..most {
        if !raw.send(&next(number)).await {
            return true;
        }
    }
    // The last ones may have been written before the end was noticed.
    loop {
        match raw.outcome(u32::MAX).await {
            Outcome::GoAway(0) => {}
            Outcome::GoAway(_) | Outcome::Closed => return true,
            Outcome::Silent => return false,
            _ => {}
        }
    }
}

async fn flooded(rig: &Rig, reason: &str) -> f64 {
    rig.metric(&format!(
        "hoody_proxy_connections_flooded_total{{reason=\"{reason}\"}}"
    ))
    .await
}

async fn ends(what: &str, reason: &str, frames: impl Fn(usize, &str) -> Vec<u8>) {
    let (rig, _web, host) = rig().await;
    for h2c in [false, true] {
        let mut raw = Raw::over(&rig, &host, h2c).await;
        let flood = until_cut_off(&mut raw, 2_000, |number| frames(number, &host));
        let (cut, ()) = tokio::join!(flood, others_are_served(&rig, &host));
        assert!(cut, "{what}");
    }
    // The h2 crate has bounds of its own, and may have met them first.
    let calmed = "hoody_proxy_h2_faults_total{code=\"enhance_your_calm\"}";
    let counted = flooded(&rig, reason).await + rig.metric(calmed).await;
    assert_eq!(counted, 2.0, "{what}");
}

/// CVE-2023-44487: a request and its end, over and over.
#[tokio::test]
async fn a_rapid_reset_ends_the_connection() {
    ends("rapid reset", "h2_resets", |number, host| {
        let stream = 2 * number as u32 + 1;
        let ask = block(&get(host, "/never"));
        [
            frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &ask),
            frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]),
        ]
        .concat()
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_pings_ends_the_connection() {
    ends("pings", "h2_idle_frames", |_, _| {
        frame(kind::PING, 0, 0, &[0; 8])
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_settings_ends_the_connection() {
    ends("settings", "h2_idle_frames", |_, _| {
        frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_priorities_ends_the_connection() {
    ends("priorities", "h2_idle_frames", |number, _| {
        frame(kind::PRIORITY, 0, 2 * number as u32 + 1, &[0, 0, 0, 0, 9])
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_windows_ends_the_connection() {
    ends("windows", "h2_idle_frames", |_, _| {
        frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_empty_data_ends_the_connection() {
    ends("empty data", "h2_idle_frames", |number, host| {
        if number > 0 {
            return frame(kind::DATA, 0, 1, &[]);
        }
        let mut post = get(host, "/upload");
        post[0].1 = b"POST".to_vec();
        frame(kind::HEADERS, END_HEADERS, 1, &block(&post))
    })
    .await;
}

/// A block that never ends (CVE-2024-27316): by its parts, and by its size.
#[tokio::test]
async fn a_block_without_end_ends_the_connection() {
    let (rig, web, host) = rig().await;
    for size in [0, 1, 8_000] {
        let part = block(&fields(&[("x", &"y".repeat(size))]));
        let mut raw = Raw::tls(&rig, &host).await;
        let ask = block(&get(&host, "/"));
        raw.send(&frame(kind::HEADERS, END_STREAM, 1, &ask)).await;
        let flood = until_cut_off(&mut raw, 2_000, |_| frame(kind::CONTINUATION, 0, 1, &part));
        let (cut, ()) = tokio::join!(flood, others_are_served(&rig, &host));
        assert!(cut, "parts of {size}");
    }
    // None of them was a request.
    let seen = web
        .seen()
        .requests
        .load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(seen, 12);
}

/// A client that opens no window gets no answer, and does not keep its kit waiting for ever.
#[tokio::test]
async fn a_stalled_window_is_let_go() {
    let (rig, web, host) = rig().await;
    let mut raw = Raw::tls(&rig, &host).await;
    raw.send(&frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .await;
    for number in 0..10 {
        raw.request(2 * number + 1, &get(&host, "/download?4096"), &[])
            .await;
    }
    others_are_served(&rig, &host).await;
    let faults = || {
        let log = rig.log();
        let stalled = log
            .iter()
            .filter(|line| line["fault"] == "client: write_timeout");
        (stalled.count() == 10).then_some(())
    };
    eventually(faults).await;
    drop(web);
}

/// More streams at once than were offered are refused one by one.
#[tokio::test]
async fn streams_are_bounded() {
    let (rig, web, host) = rig().await;
    let mut raw = Raw::tls(&rig, &host).await;
    for number in 0..150 {
        raw.request(2 * number + 1, &get(&host, "/never"), &[])
            .await;
    }
    others_are_served(&rig, &host).await;
    assert_eq!(
        raw.outcome(2 * 120 + 1).await,
        Outcome::Reset(crate::frames::code::REFUSED)
    );
    let seen = web
        .seen()
        .requests
        .load(std::sync::atomic::Ordering::SeqCst);
    assert!(seen <= 104, "{seen}");
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let (rig, _web, host) = rig().await;
    let ask = |count: usize| {
        let mut ask = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for number in 0..count {
            ask += &format!("x-{number}: y\r\n");
        }
        ask + "\r\n"
    };
    assert!(
        rig.raw(ask(90).as_bytes())
            .await
            .starts_with("HTTP/1.1 200")
    );
    let answer = rig.raw(ask(200).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let refused = "hoody_proxy_refusals_total{code=\"headers_too_large\"}";
    rig.comes_to(refused, 1.0).await;
    // More than the parser takes at all.
    let answer = rig.raw(ask(2_000).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let mut many = get(&host, "/");
    many.extend(fields(&[("x", "y"); 200]));
    let mut raw = Raw::tls(&rig, &host).await;
    raw.request(1, &many, &[]).await;
    assert_eq!(raw.outcome(1).await, Outcome::Status(431));
    others_are_served(&rig, &host).await;
}

/// Headers without end are not even read to their end.
#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let (rig, _web, host) = rig().await;
    let mut socket = rig.tcp().await;
    let part = format!("x-filler: {}\r\n", "y".repeat(8_000));
    let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n");
    let flood = async {
        let _ = socket.write_all(head.as_bytes()).await;
        let mut taken = 0;
        while taken < 64 << 20 && socket.write_all(part.as_bytes()).await.is_ok() {
            taken += part.len();
        }
        let _ = socket.read_to_end(&mut Vec::new()).await;
        taken
    };
    let (taken, ()) = tokio::join!(flood, others_are_served(&rig, &host));
    // What the kernel's buffers hold is taken, too.
    assert!(taken < 32 << 20, "{taken} bytes were taken");
    let dropped = "hoody_proxy_connections_flooded_total{reason=\"headers\"}";
    rig.comes_to(dropped, 1.0).await;
}

#[tokio::test]
async fn huge_urls_are_refused() {
    let (rig, _web, host) = rig().await;
    let long = format!("/{}", "a".repeat(17 << 10));
    let heard = rig.get(&host, &long).await;
    assert_eq!(heard.code(), "target_too_long");
    let mut raw = Raw::tls(&rig, &host).await;
    raw.request(1, &get(&host, &long[..15_000]), &[]).await;
    assert_eq!(raw.outcome(1).await, Outcome::Status(200));
    others_are_served(&rig, &host).await;
    let refused = "hoody_proxy_refusals_total{code=\"target_too_long\"}";
    rig.comes_to(refused, 1.0).await;
}

/// Many clients that are slow in every way at once, each within its limits.
#[tokio::test]
async fn slow_headers_and_slow_bodies_hold_nobody_up() {
    let (rig, _web, host) = rig().await;
    let mut held = Vec::new();
    for number in 0..200 {
        let mut socket = rig.tcp().await;
        let head = match number % 2 {
            0 => format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Slow: "),
            _ => format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\nabc"),
        };
        socket.write_all(head.as_bytes()).await.expect("written");
        held.push(socket);
    }
    others_are_served(&rig, &host).await;
    for (number, mut socket) in held.into_iter().enumerate() {
        let mut answer = String::new();
        let read = socket.read_to_string(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(20), read).await;
        let _ = read.expect("it is let go");
        if number % 2 == 1 {
            assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        }
    }
    let expired = rig
        .metric("hoody_proxy_connections_expired_total{phase=\"headers\"}")
        .await;
    assert_eq!(expired, 100.0);
    let refused = rig
        .metric("hoody_proxy_refusals_total{code=\"request_timeout\"}")
        .await;
    assert_eq!(refused, 100.0);
}

/// A client within its bound of connections is served while another is beyond its own.
#[tokio::test]
async fn one_client_does_not_take_all_connections() {
    let mut rig = Rig::with(|config| {
        config.limits.connections_per_client = 4;
        config.senders = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let from = |client: &'static str| {
        let (rig, host) = (&rig, &host);
        async move {
            let mut socket = rig.tcp().await;
            let head = format!(
                "PROXY TCP4 {client} 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: {host}\r\n\r\n"
            );
            let _ = socket.write_all(head.as_bytes()).await;
            let mut answer = vec![0; 12];
            let read = socket.read_exact(&mut answer).await;
            (
                read.is_ok()
                    .then(|| String::from_utf8(answer).expect("text")),
                socket,
            )
        }
    };
    let mut held = Vec::new();
    for _ in 0..4 {
        let (answer, socket) = from("192.0.2.1").await;
        assert_eq!(answer.as_deref(), Some("HTTP/1.1 200"));
        held.push(socket);
    }
    for _ in 0..20 {
        assert_eq!(from("192.0.2.1").await.0, None);
    }
    assert_eq!(from("192.0.2.2").await.0.as_deref(), Some("HTTP/1.1 200"));
    let dropped = "hoody_proxy_connections_dropped_total{reason=\"client_full\"}";
    rig.comes_to(dropped, 20.0).await;
}
