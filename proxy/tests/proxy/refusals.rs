//! What the proxy says by itself.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use routes::table::{Change, State};
use serde_json::json;

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
