//! Every host is an origin of its own: what a container says reaches no other, and what is not for
//! it does not reach it.

use http::{Request, StatusCode};
use routes::table::{Embedding, State};

use crate::rig::{API, Container, Heard, Rig};

/// What a browser gets where a container answers with these headers.
async fn said(rig: &Rig, web: &Container, door: &str, lines: &[&str]) -> Heard {
    let mut ask = Request::get("/say").header("host", web.host(door));
    for line in lines {
        ask = ask.header("x-say", *line);
    }
    let heard = rig.ask(ask).await;
    assert_eq!(heard.text(), "said");
    heard
}

fn all(heard: &Heard, name: &str) -> Vec<String> {
    let values = heard.headers.get_all(name).iter();
    values
        .map(|value| value.to_str().expect("text").to_owned())
        .collect()
}

#[tokio::test]
async fn a_cookie_for_a_parent_domain_becomes_host_only() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let lines = [
        "set-cookie: a=1; Domain=hoody.localhost; Path=/; HttpOnly",
        "set-cookie: b=2; SameSite=Lax; domain=.box1.containers.hoody.localhost",
        "set-cookie: c=3",
        "set-cookie: hoody_gate=forged",
        "set-cookie: __Host-hoody-gate=forged; Secure; Path=/",
        "set-cookie: =hoody_gate=forged",
    ];
    for door in ["http-3000", "terminal-1", "exec-1"] {
        let heard = said(&rig, &web, door, &lines).await;
        assert_eq!(
            all(&heard, "set-cookie"),
            ["a=1; Path=/; HttpOnly", "b=2; SameSite=Lax", "c=3"]
        );
    }
}

#[tokio::test]
async fn our_cookies_do_not_reach_a_container() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let ask = Request::get("/")
        .header("host", web.host("http-3000"))
        .header(
            "cookie",
            "a=1; __Host-hoody-gate=secret; b=2; hoody_x=secret",
        );
    let heard = rig.ask(ask).await;
    assert_eq!(heard.told("cookie"), ["a=1; b=2"]);
    let ask = Request::get("/")
        .header("host", web.host("http-3000"))
        .header("cookie", "hoody_x=secret");
    assert!(rig.ask(ask).await.told("cookie").is_empty());
}

#[tokio::test]
async fn what_reaches_further_than_its_host_is_taken_out() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let taken = [
        "service-worker-allowed: /",
        "clear-site-data: \"*\"",
        "alt-svc: h3=\"evil.example:443\"",
        "nel: {\"report_to\":\"x\",\"max_age\":1}",
        "report-to: {\"group\":\"x\"}",
        "strict-transport-security: max-age=1; includeSubDomains; preload",
        "public-key-pins: max-age=1",
    ];
    let kept = [
        "x-frame-options: DENY",
        "content-security-policy: default-src 'self'",
    ];
    let heard = said(&rig, &web, "http-3000", &[&taken[..], &kept[..]].concat()).await;
    for line in taken {
        let name = line.split(": ").next().expect("a name");
        assert_eq!(heard.header(name), None, "{name}");
    }
    for line in kept {
        let (name, value) = line.split_once(": ").expect("a header");
        assert_eq!(heard.header(name), Some(value));
    }
}

/// A zone of the world is served over HTTPS, host by host: what is below one is not its own.
#[tokio::test]
async fn a_public_host_says_that_it_is_https_only() {
    let mut rig = Rig::with(|config| {
        config.zone = routes::Zone::new("hoody.example", "box1").expect("a zone");
    })
    .await;
    let web = rig.running().await;
    let host = format!("{}.box1.containers.hoody.example", web.label("http-80"));
    let heard = rig.secured(&host, "/say").await;
    assert_eq!(
        heard.header("strict-transport-security"),
        Some("max-age=31536000")
    );
    let heard = rig.secured("nothing.hoody.example", "/").await;
    assert_eq!(heard.status, StatusCode::NOT_FOUND);
    assert_eq!(
        heard.header("strict-transport-security"),
        Some("max-age=31536000")
    );
    // Over plain HTTP nobody may say it.
    let heard = rig.get(&host, "/say").await;
    assert_eq!(heard.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(heard.header("strict-transport-security"), None);
}

#[tokio::test]
async fn a_local_host_does_not_say_that_it_is_https_only() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let heard = rig.secured(&web.host("http-80"), "/say").await;
    assert_eq!(heard.status, StatusCode::OK);
    assert_eq!(heard.header("strict-transport-security"), None);
}

const RESOURCE: &str = "cross-origin-resource-policy";
const OPENER: &str = "cross-origin-opener-policy";
const POLICY: &str = "content-security-policy";

#[tokio::test]
async fn the_kit_may_be_embedded_and_an_application_decides_for_itself() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let heard = said(&rig, &web, "terminal-1", &[]).await;
    assert_eq!(heard.header(RESOURCE), Some("cross-origin"));
    assert_eq!(heard.header(OPENER), None);
    assert_eq!(heard.header("x-frame-options"), None);
    let heard = said(
        &rig,
        &web,
        "terminal-1",
        &[&format!("{RESOURCE}: same-site")],
    )
    .await;
    assert_eq!(all(&heard, RESOURCE), ["same-site"]);
    for door in ["http-3000", "exec-1"] {
        let heard = said(&rig, &web, door, &["x-frame-options: DENY"]).await;
        assert_eq!(heard.header(RESOURCE), None, "{door}");
        assert_eq!(heard.header("x-frame-options"), Some("DENY"), "{door}");
    }
}

#[tokio::test]
async fn a_container_may_opt_out_of_being_embedded() {
    let mut rig = Rig::start().await;
    let mut web = rig.container(State::Running).await;
    web.place.embedding.allowed = false;
    rig.upsert(&web.place).await;
    let lines = [
        "x-frame-options: ALLOWALL",
        "content-security-policy: script-src 'self'; frame-ancestors *",
        "cross-origin-resource-policy: cross-origin",
        "cross-origin-opener-policy: unsafe-none",
    ];
    for door in ["terminal-1", "http-3000"] {
        let heard = said(&rig, &web, door, &lines).await;
        assert_eq!(all(&heard, RESOURCE), ["same-origin"]);
        assert_eq!(all(&heard, OPENER), ["same-origin"]);
        assert_eq!(
            all(&heard, POLICY),
            ["script-src 'self'", "frame-ancestors 'self'"]
        );
        assert_eq!(heard.header("x-frame-options"), None);
    }
}

#[tokio::test]
async fn the_owner_says_who_may_frame() {
    let mut rig = Rig::start().await;
    let mut web = rig.container(State::Running).await;
    web.place.embedding = Embedding {
        allowed: true,
        frame_ancestors: Some(vec![
            "'self'".into(),
            "https://app.example".into(),
            "x; script-src *".into(),
        ]),
    };
    rig.upsert(&web.place).await;
    let lines = [
        "x-frame-options: DENY",
        "content-security-policy: frame-ancestors 'none'",
    ];
    for door in ["terminal-1", "http-3000"] {
        let heard = said(&rig, &web, door, &lines).await;
        assert_eq!(
            all(&heard, POLICY),
            ["frame-ancestors 'self' https://app.example"]
        );
        assert_eq!(heard.header("x-frame-options"), None);
    }
}

/// The story is `kit-services/ui/test/embedding.mjs`; the pages' packages have to be installed.
#[tokio::test]
#[ignore = "needs Node and Chromium: `make pages` plays it"]
async fn embedding_with_a_browser() {
    let mut rig = Rig::start().await;
    let open = rig.running().await;
    let mut listed = rig.running().await;
    listed.place.embedding.frame_ancestors = Some(vec!["http://127.0.0.1:*".into()]);
    rig.upsert(&listed.place).await;
    let mut shut = rig.running().await;
    shut.place.embedding.allowed = false;
    rig.upsert(&shut.place).await;
    let port = rig.https.port();
    let mut story = tokio::process::Command::new("node");
    let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../kit-services/ui");
    story.current_dir(pages).arg("test/embedding.mjs");
    for web in [&open, &listed, &shut] {
        story.arg(format!("https://{}:{port}/", web.host("http-3000")));
    }
    let plain = format!("http://{}:{}/", open.host("http-3000"), rig.http.port());
    let played = story.arg(plain).status().await.expect("node runs");
    assert!(played.success());
}

/// Pages of any origin may call the API with a token that they bring; a cookie counts for nothing.
#[tokio::test]
async fn the_api_is_open_to_tokens_and_closed_to_cookies() {
    let rig = Rig::start().await;
    let control = rig.control();
    let ask = |method: &str| {
        Request::builder()
            .method(method)
            .uri("/say")
            .header("host", API)
            .header("origin", "https://app.example")
            .header("cookie", "session=mine; hoody_x=1")
    };
    let asked = ask("OPTIONS")
        .header("access-control-request-method", "PATCH")
        .header(
            "access-control-request-headers",
            "authorization, content-type",
        );
    let heard = rig.ask(asked).await;
    assert_eq!(heard.status, StatusCode::NO_CONTENT);
    assert_eq!(heard.header("access-control-allow-origin"), Some("*"));
    let methods = heard
        .header("access-control-allow-methods")
        .expect("methods");
    assert!(methods.contains("PATCH"), "{methods}");
    let headers = heard
        .header("access-control-allow-headers")
        .expect("headers");
    assert!(headers.contains("authorization"), "{headers}");
    assert_eq!(heard.header("access-control-allow-credentials"), None);
    assert_eq!(
        control
            .seen
            .requests
            .load(std::sync::atomic::Ordering::SeqCst),
        0,
        "it is answered at the edge"
    );

    let tempted = ask("GET")
        .header("x-say", "access-control-allow-credentials: true")
        .header("x-say", "access-control-allow-origin: https://app.example");
    let heard = rig.ask(tempted).await;
    assert_eq!(heard.text(), "said");
    assert_eq!(all(&heard, "access-control-allow-origin"), ["*"]);
    assert_eq!(heard.header("access-control-allow-credentials"), None);

    let told = Request::get("/")
        .header("host", API)
        .header("cookie", "session=mine")
        .header("authorization", "Bearer hdy_x");
    let heard = rig.ask(told).await;
    assert!(heard.told("cookie").is_empty());
    assert_eq!(heard.told("authorization"), ["Bearer hdy_x"]);

    // Pages can read why the API did not answer, too.
    drop(control);
    let heard = rig.ask(ask("GET")).await;
    assert_eq!(heard.code(), "api_unavailable");
    assert_eq!(heard.header("access-control-allow-origin"), Some("*"));
}
