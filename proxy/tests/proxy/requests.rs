//! Requests that arrive.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use routes::Id;
use serde_json::json;

use crate::rig::{API, Heard, Rig};

#[tokio::test]
async fn a_request_reaches_its_kit_with_what_the_proxy_knows() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let shout = format!("{}.:{}", host.to_uppercase(), rig.http.port());
    let heard = rig
        .ask(Request::get("/a/b?c=d%20e").header("host", shout))
        .await;
    assert_eq!(heard.status, StatusCode::OK);
    assert_eq!(heard.json()["target"], "/a/b?c=d%20e");
    let authority = format!("{host}:{}", rig.http.port());
    for (name, value) in [
        ("host", authority.as_str()),
        ("x-hoody-edge-service", "terminal"),
        ("x-hoody-edge-index", "1"),
        ("x-hoody-edge-client", "127.0.0.1"),
        ("x-hoody-edge-scheme", "http"),
        ("x-hoody-edge-host", &authority),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", &authority),
    ] {
        assert_eq!(heard.told(name), [value], "{name}");
    }
    assert!(heard.told("x-hoody-edge-port").is_empty());
}

#[tokio::test]
async fn ports_scripts_and_short_names_reach_the_kit() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let heard = rig.get(&web.host("http-3000"), "/").await;
    assert_eq!(heard.told("x-hoody-edge-service"), ["http"]);
    assert_eq!(heard.told("x-hoody-edge-port"), ["3000"]);
    assert!(heard.told("x-hoody-edge-index").is_empty());
    let heard = rig.get(&web.host("https-8443"), "/").await;
    assert_eq!(heard.told("x-hoody-edge-service"), ["https"]);
    assert_eq!(heard.told("x-hoody-edge-port"), ["8443"]);
    let short = format!(
        "{}-n-2.box1.containers.hoody.localhost",
        web.place.container
    );
    let heard = rig.get(&short, "/").await;
    assert_eq!(heard.told("x-hoody-edge-service"), ["n"]);
    assert_eq!(heard.told("x-hoody-edge-index"), ["2"]);
    let heard = rig.get(&format!("shop.{}", web.host("exec-1")), "/").await;
    assert_eq!(heard.told("x-hoody-edge-service"), ["exec"]);
    assert_eq!(heard.told("x-hoody-edge-subdomain"), ["shop"]);
}

#[tokio::test]
async fn the_api_and_its_realms_reach_control() {
    let rig = Rig::start().await;
    let _control = rig.control();
    let heard = rig.get(API, "/api/v1/meta").await;
    assert_eq!(heard.status, StatusCode::OK);
    assert!(heard.told("x-hoody-edge-realm").is_empty());
    assert!(heard.told("x-hoody-edge-service").is_empty());
    assert_eq!(heard.told("x-hoody-edge-client"), ["127.0.0.1"]);
    let realm = Id([0x5a; 12]).to_string();
    let heard = rig.get(&format!("{realm}.{API}"), "/").await;
    assert_eq!(heard.told("x-hoody-edge-realm"), [realm]);
}

#[tokio::test]
async fn what_only_the_proxy_may_say_is_removed() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let ask = Request::get("/")
        .header("host", web.host("files-1"))
        .header("x-hoody-edge-client", "10.0.0.1")
        .header("X-Hoody-Edge-Realm", "mine")
        .header("x-hoody-edge-anything", "at all")
        .header("forwarded", "for=10.0.0.1")
        .header("x-forwarded-for", "10.0.0.1")
        .header("x-forwarded-for", "10.0.0.2")
        .header("x-forwarded-port", "1")
        .header("x-real-ip", "10.0.0.1")
        .header("cookie", "mine=1")
        .header("authorization", "Basic abc");
    let heard = rig.ask(ask).await;
    assert_eq!(heard.told("x-hoody-edge-client"), ["127.0.0.1"]);
    assert_eq!(heard.told("x-forwarded-for"), ["127.0.0.1"]);
    for name in [
        "x-hoody-edge-realm",
        "x-hoody-edge-anything",
        "forwarded",
        "x-forwarded-port",
        "x-real-ip",
    ] {
        assert!(heard.told(name).is_empty(), "{name}");
    }
    // The application's own go through.
    assert_eq!(heard.told("cookie"), ["mine=1"]);
    assert_eq!(heard.told("authorization"), ["Basic abc"]);
}

#[tokio::test]
async fn a_client_cannot_have_our_headers_removed() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let ask = Request::get("/")
        .header("host", web.host("files-1"))
        .header(
            "connection",
            "x-hoody-edge-client, x-hoody-edge-service, x-app",
        );
    let heard = rig.ask(ask.header("x-app", "gone")).await;
    assert_eq!(heard.told("x-hoody-edge-client"), ["127.0.0.1"]);
    assert_eq!(heard.told("x-hoody-edge-service"), ["files"]);
    assert!(heard.told("x-app").is_empty());
}

#[tokio::test]
async fn https_speaks_h1_and_h2() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let mut h2 = rig.h2(&host).await;
    let get = |path: &str| {
        let uri = format!("https://{host}{path}");
        Request::get(uri)
            .body(Full::new(Bytes::new()))
            .expect("a request")
    };
    let heard = Heard::from(h2.send_request(get("/x")).await.expect("an answer")).await;
    assert_eq!(heard.status, StatusCode::OK);
    assert_eq!(heard.told("host"), [host.as_str()]);
    assert_eq!(heard.told("x-hoody-edge-scheme"), ["https"]);
    let heard = Heard::from(h2.send_request(get("/status")).await.expect("an answer")).await;
    assert_eq!(heard.status, StatusCode::IM_A_TEAPOT);
    assert_eq!(heard.header("x-mine"), Some("kept"));

    let stream = rig.tls(&host, &[b"http/1.1"]).await.expect("a connection");
    let (mut h1, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .expect("a connection");
    tokio::spawn(connection);
    for _ in 0..3 {
        let ask = Request::get("/")
            .header("host", &host)
            .body(Full::new(Bytes::new()));
        let heard = Heard::from(h1.send_request(ask.expect("good")).await.expect("good")).await;
        assert_eq!(heard.told("x-forwarded-proto"), ["https"]);
    }
    // All of these share few connections to the kit.
    assert!(
        web.seen()
            .connections
            .load(std::sync::atomic::Ordering::SeqCst)
            <= 2
    );
}

#[tokio::test]
async fn many_streams_of_one_connection_are_served() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let h2 = rig.h2(&host).await;
    let asks = (0..200).map(|number| {
        let mut h2 = h2.clone();
        let body = Bytes::from(vec![1u8; number * 50]);
        let ask = Request::post(format!("https://{host}/{number}")).body(Full::new(body));
        async move {
            let ask = ask.expect("a request");
            h2.ready().await.expect("ready");
            let heard = Heard::from(h2.send_request(ask).await.expect("an answer")).await;
            assert_eq!(heard.json()["body"], json!(number * 50));
        }
    });
    futures::future::join_all(asks).await;
}

#[tokio::test]
async fn a_certificate_is_for_the_hosts_it_names() {
    let mut rig = Rig::start().await;
    let (web, other) = (rig.running().await, rig.running().await);
    let mut h2 = rig.h2(&web.host("terminal-1")).await;
    let get = |host: &str| {
        Request::get(format!("https://{host}/"))
            .body(Full::new(Bytes::new()))
            .expect("a request")
    };
    // The wildcard covers another container: a browser may share the connection.
    let heard = h2
        .send_request(get(&other.host("files-1")))
        .await
        .expect("an answer");
    assert_eq!(heard.status(), StatusCode::OK);
    let heard = h2
        .send_request(get("elsewhere.example"))
        .await
        .expect("an answer");
    assert_eq!(heard.status(), StatusCode::MISDIRECTED_REQUEST);
    // Two labels before the wildcard are not covered.
    let deep = format!("shop.{}", web.host("exec-1"));
    let heard = h2.send_request(get(&deep)).await.expect("an answer");
    assert_eq!(heard.status(), StatusCode::MISDIRECTED_REQUEST);
    // And a name without a certificate gets no handshake.
    assert!(rig.tls("elsewhere.example", &[b"h2"]).await.is_err());
    rig.comes_to(
        "hoody_proxy_connections_dropped_total{reason=\"handshake_unknown_name\"}",
        1.0,
    )
    .await;
}

#[tokio::test]
async fn plain_http_redirects_unless_the_zone_is_local() {
    let mut rig = Rig::with(|config| {
        config.zone = routes::Zone::new("hoody.example", "box1").expect("a zone");
        config.public_https_port = Some(443);
    })
    .await;
    let web = rig.running().await;
    let host = format!("{}.box1.containers.hoody.example", web.label("terminal-1"));
    let heard = rig.get(&format!("{host}:80"), "/a?b=c").await;
    assert_eq!(heard.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(
        heard.header("location"),
        Some(format!("https://{host}/a?b=c").as_str())
    );
    let heard = rig.ask(Request::post("/").header("host", &host)).await;
    assert_eq!(heard.code(), "https_required");
    // No redirect for a name that is not ours.
    let heard = rig.get("elsewhere.example", "/").await;
    assert_eq!(heard.code(), "unknown_host");
    assert_eq!(
        web.seen()
            .requests
            .load(std::sync::atomic::Ordering::SeqCst),
        0
    );
}

#[tokio::test]
async fn a_target_in_absolute_form_is_served_as_its_origin_form() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let answer = rig
        .raw(
            format!("GET HTTP://{host}/x?y HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(r#""target":"/x?y""#), "{answer}");
    let other = rig.running().await.host("terminal-1");
    let answer = rig
        .raw(format!("GET http://{other}/ HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        .await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn one_line_says_what_a_request_was() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    rig.ask(Request::post("/status?token=hdy_secret&a=1").header("host", web.host("terminal-1")))
        .await;
    let line = rig.logged("/status?token=***&a=1").await;
    for (name, value) in [
        ("client", json!("127.0.0.1")),
        ("container", json!(web.place.container)),
        ("project", json!(web.place.project)),
        ("service", json!("terminal")),
        ("index", json!(1)),
        ("method", json!("POST")),
        ("http", json!("1.1")),
        ("scheme", json!("http")),
        ("status", json!(418)),
        ("bytes_out", json!(15)),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    assert!(line["duration_ms"].as_f64() >= line["upstream_ms"].as_f64());
    assert!(
        line.get("refusal").is_none() && line.get("fault").is_none(),
        "{line}"
    );
    rig.get("elsewhere.example", "/refused").await;
    let line = rig.logged("/refused").await;
    assert_eq!(
        (&line["refusal"], &line["status"]),
        (&json!("unknown_host"), &json!(404))
    );
    rig.comes_to("hoody_proxy_refusals_total{code=\"unknown_host\"}", 1.0)
        .await;
    rig.comes_to(
        "hoody_proxy_requests_total{kind=\"kit\",status=\"4xx\"}",
        1.0,
    )
    .await;
    rig.comes_to("hoody_proxy_table_containers", 1.0).await;
}
