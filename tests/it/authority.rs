//! Every operation that needs authority is called without it.

use std::time::Duration;

use control::Control;
use kit::{Access, Route, Verb};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::DOMAIN;

use crate::wire::{Caller, NOTHING, refused, text};

/// What anyone may call. Whoever opens another operation says so here.
const OPEN: &[&str] = &[
    "login",
    "refreshToken",
    "getIpInfo",
    "getPublicKey",
    "getSocialStats",
];

/// A call of an operation: method and path, all parameters filled in.
fn calls() -> Vec<(Route, Method, String)> {
    let api = control::api(&Control::detached());
    let mut calls = Vec::new();
    for route in api.routes() {
        let filled = route.path.split('/').map(|segment| match segment {
            "{operation}" => "start",
            "{key}" => "KEY",
            _ if segment.starts_with('{') => NOTHING,
            word => word,
        });
        let path = filled.collect::<Vec<_>>().join("/");
        for verb in [Some(route.verb), route.also].into_iter().flatten() {
            let method = Method::from_bytes(verb.as_str().as_bytes()).expect("a method");
            calls.push((route, method, path.clone()));
        }
    }
    calls
}

fn guarded() -> impl Iterator<Item = (Route, Method, String)> {
    calls()
        .into_iter()
        .filter(|(route, ..)| route.access == Access::Guarded)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_guarded_operation_answers_without_good_credentials() {
    let rig = Rig::start().await;
    assert!(guarded().count() > 40, "the list is not empty");
    type Shape = fn(RequestBuilder) -> RequestBuilder;
    let bad: [(&str, Shape, &str); 7] = [
        ("nothing", |request| request, "UNAUTHORIZED"),
        (
            "no scheme",
            |request| request.header("authorization", "let me in"),
            "UNAUTHORIZED",
        ),
        (
            "no Basic",
            |request| request.header("authorization", "Basic !!!"),
            "UNAUTHORIZED",
        ),
        (
            "no token",
            |request| request.bearer_auth("garbage"),
            "INVALID_TOKEN",
        ),
        (
            "no JWT of ours",
            |request| request.bearer_auth("e30.e30.AAAA"),
            "INVALID_TOKEN",
        ),
        (
            "an unknown token",
            |request| request.bearer_auth("hdy_aaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            "INVALID_TOKEN",
        ),
        (
            "a cookie",
            |request| request.header("cookie", "token=garbage"),
            "UNAUTHORIZED",
        ),
    ];
    for (route, method, path) in guarded() {
        for (what, shape, code) in bad {
            let answer = rig
                .send("api", shape(rig.open_api(method.clone(), &path)))
                .await;
            assert_eq!(
                answer.status,
                401,
                "{method} {path} with {what}: {}",
                answer.text()
            );
            assert_eq!(
                refused_as(&answer.json()),
                (401, code),
                "{} with {what}",
                route.id
            );
        }
    }
    rig.stop().await;
}

/// The error shape of the API: its status and code.
fn refused_as(body: &Value) -> (u64, &str) {
    assert!(
        body["error"].is_string() && body["message"].is_string(),
        "{body}"
    );
    (
        body["statusCode"].as_u64().unwrap_or_default(),
        body["code"].as_str().unwrap_or_default(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_open_on_purpose_is_open() {
    let open: Vec<&str> = calls()
        .iter()
        .filter(|(route, ..)| route.access == Access::Open)
        .map(|(route, ..)| route.id)
        .collect();
    assert_eq!(open, OPEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_over_or_for_another_realm_open_nothing() {
    const OURS: &str = "aaaaaaaaaaaaaaaaaaaaaaaa";
    let rig = Rig::start().await;
    let body = json!({ "alias": "ours", "realm_ids": [OURS] });
    let ours = rig
        .post("/api/v1/auth/tokens", body)
        .await
        .expect(201)
        .data();
    let ours = Caller::new(&rig, text(&ours["token"])).at("bbbbbbbbbbbbbbbbbbbbbbbb");
    let soon = std::time::SystemTime::now() + Duration::from_millis(1500);
    let soon = soon
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis();
    let body = json!({ "alias": "brief", "expires_at": soon });
    let brief = rig
        .post("/api/v1/auth/tokens", body)
        .await
        .expect(201)
        .data();
    let brief = Caller::new(&rig, text(&brief["token"]));
    brief.get("/api/v1/users/me").await.expect(200);
    rig.until("the token has expired", || async {
        brief.get("/api/v1/users/me").await.status == 401
    })
    .await;

    for (route, method, path) in guarded() {
        refused(
            brief.call(method.clone(), &path, None).await,
            401,
            "INVALID_TOKEN",
        );
        let answer = ours.call(method.clone(), &path, None).await;
        if route.id == "getCurrentAuthToken" {
            // a client that was sent to a realm asks here which ones it may use
            answer.expect(200);
        } else {
            let words = refused(answer, 403, "REALM_NOT_ALLOWED");
            assert!(words.contains("not valid for realm"), "{words}");
        }
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_ask_for_the_same_authority() {
    let rig = Rig::start().await;
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "listProjects", "arguments": {} } });
    let call = |bearer: Option<&str>| {
        let mut request = rig
            .client
            .request(Method::POST, &format!("api.{DOMAIN}"), "/mcp")
            .json(&list);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        rig.send("api", request)
    };
    for bearer in [None, Some("garbage")] {
        let result = call(bearer).await.expect(200).json()["result"].take();
        assert_eq!(
            (
                &result["isError"],
                &result["structuredContent"]["statusCode"]
            ),
            (&json!(true), &json!(401))
        );
    }
    let result = call(Some(&rig.token)).await.expect(200).json()["result"].take();
    assert_eq!(
        result["structuredContent"]["projects"],
        json!([]),
        "{result}"
    );
    rig.stop().await;
}

#[test]
fn verbs_of_the_api_are_the_usual_ones() {
    for (route, ..) in calls() {
        assert!(
            !matches!(route.verb, Verb::Other(_)),
            "{} cannot be called by every client",
            route.path
        );
    }
}
