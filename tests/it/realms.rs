//! Realms: what belongs to one is not seen from another.

use serde_json::json;
use tests::Rig;

use crate::wire::{Caller, each, refused, text};

const OURS: &str = "aaaaaaaaaaaaaaaaaaaaaaaa";
const THEIRS: &str = "bbbbbbbbbbbbbbbbbbbbbbbb";
const TOKENS: &str = "/api/v1/auth/tokens";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_realm_is_good_at_its_host() {
    let rig = Rig::start().await;
    let body = json!({ "alias": "ours", "realm_ids": [OURS], "allow_no_realm": false });
    let made = rig.post(TOKENS, body).await.expect(201).data();
    let (path, token) = (
        format!("{TOKENS}/{}", text(&made["id"])),
        Caller::new(&rig, text(&made["token"])),
    );

    // clients look for these words
    let words = refused(token.get("/api/v1/projects/").await, 403, "REALM_REQUIRED");
    assert!(words.contains("requires a realm-scoped URL"), "{words}");
    let words = refused(
        token.at(THEIRS).get("/api/v1/projects/").await,
        403,
        "REALM_NOT_ALLOWED",
    );
    assert!(words.contains("not valid for realm"), "{words}");
    token.at(OURS).get("/api/v1/projects/").await.expect(200);
    token
        .get(&format!("/api/v1/projects/?realm_id={OURS}"))
        .await
        .expect(200);
    // and then ask here, wherever they were sent
    let current = token.get(&format!("{TOKENS}/me")).await.expect(200).data();
    assert_eq!(current["restrictions"]["allowed_realm_ids"], json!([OURS]));
    assert_eq!(current["restrictions"]["requires_realm_scope"], true);

    let added = rig
        .post(&format!("{path}/add-realm"), json!({ "realm_id": THEIRS }))
        .await
        .expect(200)
        .data();
    assert_eq!(added["realm_ids"], json!([OURS, THEIRS]));
    token.at(THEIRS).get("/api/v1/projects/").await.expect(200);
    let removed = rig
        .post(&format!("{path}/remove-realm"), json!({ "realm_id": OURS }))
        .await
        .expect(200)
        .data();
    assert_eq!(removed["realm_ids"], json!([THEIRS]));
    refused(
        token.at(OURS).get("/api/v1/projects/").await,
        403,
        "REALM_NOT_ALLOWED",
    );
    let last = json!({ "realm_id": THEIRS });
    refused(
        rig.post(&format!("{path}/remove-realm"), last).await,
        409,
        "LAST_REALM",
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_realm_is_not_seen_from_another() {
    let rig = Rig::start().await;
    let owner = Caller::logged_in(&rig).await;
    let (ours, theirs) = (owner.at(OURS), owner.at(THEIRS));
    let project = ours
        .post("/api/v1/projects/", json!({ "alias": "secret" }))
        .await
        .expect(201)
        .data();
    assert_eq!(project["realm_ids"], json!([OURS]));
    let body = json!({ "server_id": rig.server().await, "name": "hidden", "hoody_kit": true });
    let containers = format!("/api/v1/projects/{}/containers", text(&project["id"]));
    let container = ours.post(&containers, body).await.expect(200).data();
    assert_eq!(container["realm_ids"], json!([OURS]));

    for path in [
        format!("/api/v1/projects/{}", text(&project["id"])),
        format!("/api/v1/containers/{}", text(&container["id"])),
        containers,
    ] {
        refused(theirs.get(&path).await, 404, "NOT_FOUND");
        ours.get(&path).await.expect(200);
        owner.get(&path).await.expect(200);
    }
    assert_eq!(
        theirs.get("/api/v1/projects/").await.expect(200).data()["projects"],
        json!([])
    );
    let seen = ours.get("/api/v1/projects/").await.expect(200).data();
    assert_eq!(each(&seen["projects"], "id"), [project["id"].clone()]);

    let realms = owner
        .get("/api/v1/realms/?include_usage=true")
        .await
        .expect(200)
        .data();
    assert_eq!(realms["realm_ids"], json!([OURS]));
    assert_eq!(
        realms["usage"][OURS],
        json!({ "projects": 1, "containers": 1 })
    );
    assert_eq!(
        rig.get("/api/v1/realms/").await.expect(200).data()["total"],
        1
    );
    let bad = rig.get("/api/v1/projects/?realm_id=nonsense").await;
    refused(bad, 400, "VALIDATION_ERROR");
    rig.stop().await;
}
