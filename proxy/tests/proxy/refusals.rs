//! What the proxy says by itself.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use routes::table::{Change, State};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::rig::{API, Heard, Rig};

#[tokio::test]
async fn every_wrong_host_has_its_answer() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let zone = "box1.containers.hoody.localhost";
    let absent = "00".repeat(12);
    let cases = [
        ("elsewhere.example".to_owned(), 404, "unknown_host"),
        ("127.0.0.1".to_owned(), 404, "unknown_host"),
        ("hoody.localhost".to_owned(), 404, "unknown_host"),
        (format!("no-such-alias.{zone}"), 404, "unknown_host"),
        (
            web.host("terminal-1").replace("box1", "box2"),
            404,
            "unknown_host",
        ),
        ("a_b.hoody.localhost".to_owned(), 400, "bad_host"),
        (web.host("nothing-1"), 404, "unknown_service"),
        (web.host("terminal"), 404, "unknown_service"),
        (web.host("ssh"), 404, "service_not_http"),
        (
            format!("{absent}-terminal-1.{zone}"),
            404,
            "unknown_container",
        ),
        (
            format!("{absent}-{absent}-terminal-1.{zone}"),
            404,
            "unknown_container",
        ),
        // The container is there, the project is not its own.
        (
            format!("{absent}-{}-terminal-1.{zone}", web.place.container),
            404,
            "unknown_container",
        ),
    ];
    for (host, status, code) in cases {
        let heard = rig.get(&host, "/").await;
        assert_eq!(
            (heard.status.as_u16(), heard.code().as_str()),
            (status, code),
            "{host}"
        );
        assert_eq!(heard.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn a_container_that_does_not_run_says_so() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    for (state, code, retry) in [
        (State::Creating, "container_starting", Some("2")),
        (State::Starting, "container_starting", Some("2")),
        (State::Paused, "container_paused", None),
        (State::Stopping, "container_stopped", None),
        (State::Stopped, "container_stopped", None),
        (State::Failed, "container_failed", None),
    ] {
        web.place.state = state;
        rig.upsert(&web.place).await;
        let heard = rig.get(&web.host("terminal-1"), "/").await;
        assert_eq!(heard.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            (heard.code().as_str(), heard.header("retry-after")),
            (code, retry)
        );
    }
    web.place.state = State::Running;
    rig.upsert(&web.place).await;
    assert_eq!(
        rig.get(&web.host("terminal-1"), "/").await.status,
        StatusCode::OK
    );
    rig.push(200, Change::Remove(web.place.container)).await;
    assert_eq!(
        rig.get(&web.host("terminal-1"), "/").await.code(),
        "unknown_container"
    );
}

#[tokio::test]
async fn people_get_a_page_and_programs_get_json() {
    let mut rig = Rig::start().await;
    let web = rig.container(State::Starting).await;
    let host = web.host("terminal-1");
    let html = "text/html,application/xhtml+xml,*/*;q=0.8";
    let heard = rig
        .ask(
            Request::get("/")
                .header("host", &host)
                .header("accept", html),
        )
        .await;
    assert_eq!(
        heard.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        heard
            .header("content-security-policy")
            .is_some_and(|it| it.starts_with("default-src 'none'"))
    );
    assert!(heard.text().contains("http-equiv=\"refresh\""));
    assert!(heard.text().contains("web1"));

    let fetch = Request::get("/")
        .header("host", &host)
        .header("accept", html);
    let heard = rig.ask(fetch.header("sec-fetch-dest", "empty")).await;
    assert_eq!(heard.code(), "container_starting");
    let heard = rig
        .ask(
            Request::post("/")
                .header("host", &host)
                .header("accept", html),
        )
        .await;
    assert_eq!(heard.code(), "container_starting");
    let heard = rig.ask(Request::head("/").header("host", &host)).await;
    assert_eq!(heard.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(heard.body.is_empty());
}

#[tokio::test]
async fn the_api_refuses_in_its_own_shape() {
    let mut rig = Rig::start().await;
    let heard = rig.get(API, "/api/v1/containers").await;
    assert_eq!(heard.status, StatusCode::SERVICE_UNAVAILABLE);
    let said = heard.json();
    assert_eq!(said["statusCode"], json!(503));
    assert_eq!(said["error"], json!("Service Unavailable"));
    assert_eq!(said["code"], json!("api_unavailable"));
    assert!(said["message"].is_string());
    // Containers do not depend on it.
    let web = rig.running().await;
    assert_eq!(
        rig.get(&web.host("terminal-1"), "/").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_connection_goes_on_after_a_refusal() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let io = TokioIo::new(rig.tcp().await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .expect("a connection");
    tokio::spawn(connection);
    for (host, status) in [(web.host("ssh"), 404), (web.host("files-1"), 200)] {
        let ask = Request::post("/")
            .header("host", host)
            .body(Full::new(Bytes::from("body")));
        sender.ready().await.expect("the connection is kept");
        let answer = sender
            .send_request(ask.expect("a request"))
            .await
            .expect("an answer");
        assert_eq!(Heard::from(answer).await.status.as_u16(), status);
    }
}

/// Write these bytes and read until the connection ends.
async fn said(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.expect("written");
    stream.flush().await.expect("written");
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(5), read).await;
    // Some ends of TLS come without a word.
    let _ = read.expect("it closes");
    String::from_utf8(answer).expect("text")
}

/// The body of a refusal whose message is read by hand.
fn body(answer: &str) -> serde_json::Value {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head in {answer:?}"));
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{head}"
    );
    assert!(head.contains("connection: close"), "{head}");
    serde_json::from_str(body).expect("JSON")
}

/// What nobody can read as a request is refused with a word, too.
#[tokio::test]
async fn what_is_no_request_is_told_so() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let cases = [
        format!("GET / HTTP/1.1\r\nHost : {host}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\n: nothing\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: a\0b\r\n\r\n"),
        format!("GET / HTTQ/1.1\r\nHost: {host}\r\n\r\n"),
        format!("G@T / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        "\u{16}\u{3}\u{1}\u{0}\u{5} a handshake where there is none".to_owned(),
        format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: x\r\n\r\n"),
    ];
    let mut refused = 0.0;
    for case in &cases {
        for tls in [false, true] {
            let answer = match tls {
                false => said(rig.tcp().await, case.as_bytes()).await,
                true => {
                    let stream = rig.tls(&host, &[b"http/1.1"]).await.expect("a connection");
                    said(stream, case.as_bytes()).await
                }
            };
            assert!(!answer.is_empty(), "{case:?}");
            assert_eq!(body(&answer)["code"], "bad_request", "{case:?}");
            refused += 1.0;
        }
    }
    // A request before it on the same connection got its own answer.
    let good = format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut stream = BufReader::new(rig.tcp().await);
    stream.write_all(good.as_bytes()).await.expect("written");
    let mut first = Vec::new();
    while !first.ends_with(b"short and stout") {
        first.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(first.starts_with(b"HTTP/1.1 418"));
    let second = said(stream, cases[0].as_bytes()).await;
    assert_eq!(body(&second)["code"], "bad_request");
    let metric = "hoody_proxy_refusals_total{code=\"bad_request\"}";
    rig.comes_to(metric, refused + 1.0).await;
}

/// HTTP where HTTPS is spoken gets one answer that says so, whatever comes with it.
#[tokio::test]
async fn plain_http_is_told_to_use_https() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let get = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let large = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 30000\r\n\r\n{}",
        "x".repeat(30_000)
    );
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for ask in [get.as_str(), &large, preface, "G"] {
        let stream = tokio::net::TcpStream::connect(rig.https)
            .await
            .expect("it listens");
        let said = body(&said(stream, ask.as_bytes()).await);
        assert_eq!(said["code"], "bad_request");
        let message = said["message"].as_str().expect("a message");
        assert!(message.contains("this port speaks HTTPS"), "{message}");
    }
    let plain = "hoody_proxy_connections_dropped_total{reason=\"handshake_plain\"}";
    rig.comes_to(plain, 4.0).await;
    // What is neither is closed, and who speaks TLS is served.
    let stream = tokio::net::TcpStream::connect(rig.https)
        .await
        .expect("it listens");
    let answer = {
        let mut stream = stream;
        stream
            .write_all(&[0x80, 46, 1, 3, 1])
            .await
            .expect("written");
        stream.shutdown().await.expect("closed");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(rig.secured(&host, "/").await.status, StatusCode::OK);
}
