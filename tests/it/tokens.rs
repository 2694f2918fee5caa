//! Auth tokens, and what they may do.

use reqwest::Method;
use serde_json::json;
use tests::Rig;

use crate::wire::{Caller, NOTHING, each, invalid, refused, text};

const TOKENS: &str = "/api/v1/auth/tokens";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_does_what_it_may_until_it_is_deleted() {
    let rig = Rig::start().await;
    let body = json!({ "alias": "reader", "permission_template": "read_only", "ip_whitelist": "127.0.0.1, ::1" });
    let made = rig.post(TOKENS, body).await.expect(201).data();
    let (id, path) = (text(&made["id"]), format!("{TOKENS}/{}", text(&made["id"])));
    let reader = Caller::new(&rig, text(&made["token"]));
    assert!(text(&made["token"]).starts_with("hdy_"));

    reader.get("/api/v1/projects/").await.expect(200);
    let refusal = refused(
        reader
            .post("/api/v1/projects/", json!({ "alias": "mine" }))
            .await,
        403,
        "PERMISSION_DENIED",
    );
    assert!(refusal.contains("projects.create"), "{refusal}");
    let current = reader.get(&format!("{TOKENS}/me")).await.expect(200).data();
    assert_eq!(
        (
            &current["token"]["id"],
            &current["restrictions"]["allow_no_realm"]
        ),
        (&json!(id), &json!(true))
    );

    let kept = rig.get(&path).await.expect(200).data();
    assert_eq!(kept["ip_whitelist"], json!(["127.0.0.1", "::1"]));
    assert!(
        kept.get("token").is_none() && kept["last_used_at"].is_string(),
        "{kept}"
    );
    let list = rig.get(TOKENS).await.expect(200).json();
    assert!(each(&list["data"], "id").contains(&json!(id)));
    assert!(
        !list.to_string().contains(&text(&made["token"])),
        "a secret is shown once"
    );

    for (method, alias) in [(Method::PUT, "looker"), (Method::PATCH, "watcher")] {
        let request = rig.api(method, &path).json(&json!({ "alias": alias }));
        assert_eq!(
            rig.send("api", request).await.expect(200).data()["alias"],
            alias
        );
    }
    rig.patch(&path, json!({ "ip_whitelist": ["192.0.2.0/24"] }))
        .await
        .expect(200);
    refused(reader.get("/api/v1/projects/").await, 403, "IP_NOT_ALLOWED");
    rig.patch(&path, json!({ "ip_whitelist": ["*"], "is_enabled": false }))
        .await
        .expect(200);
    refused(reader.get("/api/v1/projects/").await, 401, "INVALID_TOKEN");
    rig.patch(&path, json!({ "is_enabled": true }))
        .await
        .expect(200);
    reader.get("/api/v1/projects/").await.expect(200);

    rig.delete(&path).await.expect(200);
    refused(reader.get("/api/v1/projects/").await, 401, "INVALID_TOKEN");
    refused(rig.get(&path).await, 404, "NOT_FOUND");
    refused(rig.delete(&path).await, 404, "NOT_FOUND");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_hands_on_no_more_than_it_has() {
    let rig = Rig::start().await;
    let may_make = json!({ "projects": { "read": true }, "resources": { "create_tokens": true } });
    let made = rig
        .post(TOKENS, json!({ "alias": "maker", "permissions": may_make }))
        .await
        .expect(201)
        .data();
    let maker = Caller::new(&rig, text(&made["token"]));
    let full = json!({ "alias": "more", "permission_template": "full_access" });
    refused(maker.post(TOKENS, full).await, 403, "PERMISSION_DENIED");

    let made_by_it = maker
        .post(TOKENS, json!({ "alias": "child" }))
        .await
        .expect(201)
        .data();
    assert_eq!(
        (
            &made_by_it["created_by_token_id"],
            &made_by_it["delegation_depth"]
        ),
        (
            &made["id"],
            &json!(made["delegation_depth"].as_u64().map(|depth| depth + 1))
        )
    );
    let child = Caller::new(&rig, text(&made_by_it["token"]));
    child.get("/api/v1/projects/").await.expect(200);
    refused(
        child.get("/api/v1/containers/").await,
        403,
        "PERMISSION_DENIED",
    );
    // a token sees itself and what it made
    let seen = maker.get(TOKENS).await.expect(200).data();
    assert_eq!(seen.as_array().map(Vec::len), Some(2), "{seen}");
    // what a token made goes with it
    rig.delete(&format!("{TOKENS}/{}", text(&made["id"])))
        .await
        .expect(200);
    refused(child.get("/api/v1/projects/").await, 401, "INVALID_TOKEN");

    let login = Caller::logged_in(&rig).await;
    refused(
        login.get(&format!("{TOKENS}/me")).await,
        400,
        "NOT_AN_AUTH_TOKEN",
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_not_made() {
    let rig = Rig::start().await;
    for (body, pointer) in [
        (
            json!({ "expires_at": "2001-01-01T00:00:00Z" }),
            "/expires_at",
        ),
        (json!({ "expires_at": "soon" }), "/expires_at"),
        (json!({ "ip_whitelist": "nowhere" }), "/ip_whitelist"),
        (
            json!({ "permission_template": "emperor" }),
            "/permission_template",
        ),
        (json!({ "realm_ids": ["short"] }), "/realm_ids/0"),
        (json!({ "alias": "a/b" }), "/alias"),
    ] {
        invalid(rig.post(TOKENS, body).await, pointer);
    }
    invalid(rig.get(&format!("{TOKENS}/nonsense")).await, "/id");
    for path in ["", "/add-realm", "/remove-realm"] {
        let path = format!("{TOKENS}/{NOTHING}{path}");
        let body = json!({ "realm_id": NOTHING });
        let answer = if path.ends_with("realm") {
            rig.post(&path, body).await
        } else {
            rig.put(&path, body).await
        };
        refused(answer, 404, "NOT_FOUND");
    }
    rig.stop().await;
}
