//! Whatever is sent, the answer is a refusal in the usual shape, never a failure of ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use kit::Verb;
use serde_json::Value;
use support::World;
use tower::ServiceExt;

fn bodies() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        "",
        "null",
        "true",
        "0",
        "-1e400",
        "\"text\"",
        "[]",
        "{",
        "{}{}",
        "{\"\":null}",
        "{\"alias\":null,\"name\":null,\"password\":null,\"server_id\":null,\"refreshToken\":null,\"realm_id\":null}",
        "{\"alias\":[],\"name\":{},\"password\":[1],\"server_id\":{},\"refreshToken\":7,\"realm_ids\":\"x\",\"permissions\":7}",
        "{\"alias\":\"\\u0000\",\"name\":\"\\ud83d\\ude00\",\"username\":\"../../x\",\"password\":\"' OR 1=1 --\",\"server_id\":\"'; DROP TABLE users\"}",
        "{\"limit\":1e308,\"page\":-1,\"expires_at\":1e308,\"max_containers\":-1,\"ip_whitelist\":[\"1.2.3.4/99\"]}",
        "{\"permissions\":{\"containers\":{\"actions\":7}},\"public_storage\":[],\"environment_vars\":[1,2]}",
        "{\"__proto__\":{\"is_admin\":true},\"is_admin\":true,\"user_id\":\"x\",\"id\":\"y\",\"status\":\"running\"}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    bodies.push(vec![0xff, 0xfe, 0x00]);
    bodies.push("[".repeat(100_000).into_bytes());
    bodies.push(format!("{{\"a\":{}}}", "{\"a\":".repeat(5_000)).into_bytes());
    bodies.push(format!("{{\"alias\":\"{}\"}}", "x".repeat(1 << 20)).into_bytes());
    bodies
}

const IDS: [&str; 9] = [
    "000000000000000000000000",
    "ffffffffffffffffffffffff",
    "FFFFFFFFFFFFFFFFFFFFFFFF",
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "%ff%fe",
    "me",
    "'%20OR%201=1",
    "%F0%9F%98%80",
];

const QUERIES: [&str; 6] = [
    "",
    "?page=99999999999999999999&limit=-0",
    "?realm_id=%00&realm_id=%ff",
    "?sort_by=id;DROP%20TABLE%20users&sort_order=%27",
    "?id=000000000000000000000001&operation=stop&key=PATH",
    "?&&==&%zz=%zz&include_deleting=maybe",
];

#[tokio::test]
async fn nothing_that_is_sent_makes_us_fail() {
    let world = World::new().await;
    let node = world.start().await;
    let mut token = node.admin().await.token;
    let mut sent = 0;
    for route in control::api(&node.control).routes() {
        for verb in [Some(route.verb), route.also].into_iter().flatten() {
            let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
            for id in IDS {
                let path = route
                    .path
                    .replace("{id}", id)
                    .replace("{key}", id)
                    .replace("{operation}", id);
                cases.push((path, Vec::new()));
            }
            let usual = route
                .path
                .replace("{id}", IDS[0])
                .replace("{key}", "KEY")
                .replace("{operation}", "start");
            cases.extend(QUERIES.map(|query| (format!("{usual}{query}"), Vec::new())));
            if verb.has_body() {
                cases.extend(bodies().into_iter().map(|body| (usual.clone(), body)));
            }
            for (path, body) in cases {
                let request = Request::builder()
                    .method(Verb::as_str(verb))
                    .uri(&path)
                    .header("authorization", format!("Bearer {token}"))
                    .header("content-type", "application/json")
                    .header("x-hoody-edge-client", "not an address")
                    .body(Body::from(body.clone()))
                    .unwrap();
                let response = node.router.clone().oneshot(request).await.unwrap();
                let status = response.status();
                let bytes = response.into_body().collect().await.unwrap().to_bytes();
                let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
                assert!(
                    !status.is_server_error(),
                    "{} {path} {shown}: {status}",
                    verb.as_str()
                );
                let answer: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
                    panic!("{} {path} {shown}: {status} without JSON", verb.as_str())
                });
                assert_eq!(
                    answer["statusCode"],
                    status.as_u16(),
                    "{} {path} {shown}",
                    verb.as_str()
                );
                assert!(bytes.len() < 1 << 20, "what is sent does not come back");
                sent += 1;
                if route.id == "logout" && status == StatusCode::OK {
                    token = node.admin().await.token;
                }
            }
        }
    }
    let me = node.with(&token);
    assert_eq!(me.get("/api/v1/users/me").await.ok()["is_admin"], true);
    assert!(node.fake.everything().is_empty());
    println!("{sent} hostile requests");
}
