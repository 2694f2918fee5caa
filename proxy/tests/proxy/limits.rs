//! Clients that are slow, many or large; others are served meanwhile.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proxy::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{API, Heard, Rig};

/// How long a connection lives on which `whole` is written at once, then `bytes` one by one with a
/// pause after each.
async fn lives(rig: &Rig, whole: &[u8], bytes: &[u8], pause: Duration) -> (Duration, String) {
    let mut socket = rig.tcp().await;
    let begun = Instant::now();
    let (mut read, mut write) = socket.split();
    let mut answer = Vec::new();
    let drip = async {
        if write.write_all(whole).await.is_err() {
            return;
        }
        // Its answer comes first: a pipelined request would end the connection.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for byte in bytes {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = drip => {}
        _ = read.read_to_end(&mut answer) => {}
        () = tokio::time::sleep(Duration::from_secs(8)) => {}
    }
    (
        begun.elapsed(),
        String::from_utf8_lossy(&answer).into_owned(),
    )
}

#[tokio::test]
async fn slow_clients_are_let_go() {
    let mut rig = Rig::with(|config| {
        config.limits.headers = Duration::from_millis(500);
        config.limits.handshake = Duration::from_millis(500);
        config.limits.keepalive = Duration::from_secs(1);
        config.limits.body = Duration::from_millis(500);
    })
    .await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let headers = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nX-Filler: {}",
        "x".repeat(5_000)
    );
    let dripping = lives(&rig, b"", headers.as_bytes(), Duration::from_millis(20));
    let silent = lives(&rig, b"", b"", Duration::ZERO);
    let whole = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let idle = lives(&rig, whole.as_bytes(), b"", Duration::ZERO);
    let again = format!(
        "{whole}GET /second HTTP/1.1\r\nX-Filler: {}",
        "x".repeat(5_000)
    );
    let dripping_again = lives(
        &rig,
        whole.as_bytes(),
        again.as_bytes(),
        Duration::from_millis(4),
    );
    let body = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\nabc");
    let slow_body = lives(&rig, body.as_bytes(), b"", Duration::ZERO);
    let tls = async {
        let mut socket = tokio::net::TcpStream::connect(rig.https)
            .await
            .expect("it listens");
        socket.write_all(&[22, 3, 1]).await.expect("written");
        let begun = Instant::now();
        let _ = socket.read_to_end(&mut Vec::new()).await;
        begun.elapsed()
    };
    let others = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(rig.get(&host, "/").await.status, StatusCode::OK);
    };
    let (dripping, silent, idle, dripping_again, slow_body, tls, ()) = tokio::join!(
        dripping,
        silent,
        idle,
        dripping_again,
        slow_body,
        tls,
        others
    );
    let within = |lived: Duration, least: u64, most: u64, what: &str| {
        let range = Duration::from_millis(least)..Duration::from_millis(most);
        assert!(range.contains(&lived), "{what} lived for {lived:?}");
    };
    within(dripping.0, 400, 2_000, "slow headers");
    within(silent.0, 400, 2_000, "a silent connection");
    within(idle.0, 900, 3_000, "an idle connection");
    assert!(idle.1.starts_with("HTTP/1.1 200"), "{}", idle.1);
    within(
        dripping_again.0,
        400,
        4_000,
        "slow headers of a second request",
    );
    assert!(
        dripping_again.1.starts_with("HTTP/1.1 200"),
        "{}",
        dripping_again.1
    );
    within(slow_body.0, 400, 3_500, "a slow body");
    assert!(slow_body.1.starts_with("HTTP/1.1 408"), "{}", slow_body.1);
    within(tls, 400, 2_000, "a slow handshake");
}

#[tokio::test]
async fn large_requests_are_refused_by_name() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let long = format!("/{}", "a".repeat(20_000));
    assert_eq!(rig.get(&host, &long).await.code(), "target_too_long");
    let big = Request::get("/")
        .header("host", &host)
        .header("x-big", "b".repeat(80_000));
    assert_eq!(rig.ask(big).await.code(), "headers_too_large");
    let mut many = Request::get("/").header("host", &host);
    for number in 0..90 {
        many = many.header(format!("x-{number}"), "v");
    }
    assert_eq!(rig.ask(many).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_to_the_api_is_bounded() {
    let rig = Rig::with(|config| config.limits.api_body_bytes = 1_000).await;
    let _control = rig.control();
    let post = |size: usize| {
        Request::post("/")
            .header("host", API)
            .body(Full::new(Bytes::from(vec![1; size])))
    };
    let heard = Heard::from(rig.send(post(1_000).expect("good")).await).await;
    assert_eq!(heard.status, StatusCode::OK);
    let heard = Heard::from(rig.send(post(1_001).expect("good")).await).await;
    assert_eq!(
        (heard.status.as_u16(), heard.code().as_str()),
        (413, "body_too_large")
    );
    // Also where its length was not told.
    let chunk = "400\r\n".to_owned() + &"x".repeat(0x400) + "\r\n0\r\n\r\n";
    let ask =
        format!("POST / HTTP/1.1\r\nHost: {API}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
    let answer = rig.raw(ask.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn connections_are_bounded() {
    let mut rig = Rig::with(|config| config.limits.connections = 3).await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let held = [rig.tcp().await, rig.tcp().await, rig.tcp().await];
    // Until they are counted.
    while rig.metric("hoody_proxy_connections").await < 3.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = rig
        .raw(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        .await;
    assert_eq!(answer, "");
    assert!(
        rig.metric("hoody_proxy_connections_dropped_total{reason=\"full\"}")
            .await
            >= 1.0
    );
    drop(held);
    while rig.metric("hoody_proxy_connections").await > 0.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rig.get(&host, "/").await.status, StatusCode::OK);
}

/// An old client that says nothing about the connection is not kept waiting for its end.
#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let begun = Instant::now();
    let ask = format!("GET / HTTP/1.0\r\nHost: {}\r\n\r\n", web.host("terminal-1"));
    let answer = rig.raw(ask.as_bytes()).await;
    assert!(answer.contains(" 200 "), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// A reader that stops reading is let go, and so is what its kit was sending.
#[tokio::test]
async fn a_reader_that_stops_is_let_go() {
    let mut rig = Rig::with(|config| config.limits.send = Duration::from_millis(400)).await;
    let web = rig.running().await;
    let host = web.host("files-1");
    let mut socket = rig.tcp().await;
    let ask = format!("GET /download?4096 HTTP/1.1\r\nHost: {host}\r\n\r\n");
    socket.write_all(ask.as_bytes()).await.expect("written");
    let mut h2 = rig.h2(&host).await;
    let ask = Request::get(format!("https://{host}/download?4097")).body(Full::new(Bytes::new()));
    let held = h2
        .send_request(ask.expect("a request"))
        .await
        .expect("an answer");
    for target in ["/download?4096", "/download?4097"] {
        let line = rig.logged(target).await;
        assert_eq!(line["fault"], "client: write_timeout", "{line}");
    }
    // The connection of the other requests lives on.
    let ask = Request::get(format!("https://{host}/")).body(Full::new(Bytes::new()));
    let heard = h2
        .send_request(ask.expect("a request"))
        .await
        .expect("an answer");
    assert_eq!(heard.status(), StatusCode::OK);
    drop(held);
}

/// Any other upgrade is an ordinary request, with the limits of one.
#[tokio::test]
async fn an_unknown_upgrade_is_not_passed_on() {
    let mut rig = Rig::with(|config| {
        config.limits.body = Duration::from_millis(300);
        config.limits.keepalive = Duration::from_secs(1);
    })
    .await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let upgrade = "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__";
    let ask = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r\n\r\n");
    let (_, answer) = lives(&rig, ask.as_bytes(), b"", Duration::ZERO).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        !answer.contains("h2c") && !answer.contains("http2-settings"),
        "{answer}"
    );
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 9";
    let ask = format!("POST / HTTP/1.1\r\nHost: {host}\r\n{websocket}\r\n\r\nabc");
    let (lived, answer) = lives(&rig, ask.as_bytes(), b"", Duration::ZERO).await;
    assert!(lived < Duration::from_secs(4), "{lived:?}");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn an_idle_http_2_connection_is_closed() {
    let mut rig = Rig::with(|config| {
        config.limits.keepalive = Duration::from_millis(500);
        config.limits.headers = Duration::from_millis(500);
    })
    .await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let mut unused = rig.h2(&host).await;
    let mut h2 = rig.h2(&host).await;
    let ask =
        |path: &str| Request::get(format!("https://{host}{path}")).body(Full::new(Bytes::new()));
    // A request under way is not idleness.
    let gate = h2.send_request(ask("/gate").expect("a request"));
    let open = async {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        web.seen().gate.notify_one();
    };
    let (answer, ()) = tokio::join!(gate, open);
    assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    assert!(unused.ready().await.is_err());
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(h2.ready().await.is_err());
}

/// The bound on headers is of each request, and not of a connection.
#[tokio::test]
async fn a_connection_is_good_for_any_number_of_requests() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let stream = TokioIo::new(rig.tcp().await);
    let (mut sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let filler = "x".repeat(8 << 10);
    // Twice what one request may say.
    let most = Limits::default();
    let times = 4 * (most.header_bytes + most.target_bytes) / filler.len();
    for time in 0..times {
        let ask = Request::get("/")
            .header("host", &host)
            .header("x-filler", &filler)
            .body(Full::new(Bytes::new()))
            .expect("a request");
        let answer = sender.send_request(ask).await;
        let answer = answer.unwrap_or_else(|error| panic!("request {time}: {error}"));
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body().collect().await.expect("a body");
    }
}
