//! Snapshots of containers, containers made from one another, and what is refused on the way.

use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::Container;

use crate::wire::{NOTHING, invalid, refused, text};

fn path(container: &Container) -> String {
    format!("/api/v1/containers/{}", container.id)
}

/// Status of what its terminal's host answers.
async fn at_its_host(rig: &Rig, container: &Container) -> u16 {
    let path = "/api/v1/terminal/health";
    let request = rig.kit(container, "terminal", Method::GET, path, |request| request);
    request.await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_named_listed_restored_and_deleted() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let all = format!("{}/snapshots", path(&web));
    rig.fake.write(web.id, "page", "old");
    let taken = rig
        .post(&all, json!({ "alias": "first", "expiry": 30 }))
        .await
        .expect(200)
        .data();
    let name = text(&taken["snapshot"]["name"]);
    let one = format!("{all}/{name}");
    let renamed = rig
        .put(&format!("{one}/alias"), json!({ "alias": "second" }))
        .await
        .expect(200)
        .data();
    assert_eq!(renamed["snapshot"]["alias"], "second");
    rig.patch(&format!("{one}/alias"), json!({ "alias": "third" }))
        .await
        .expect(200);
    let listed = rig.get(&all).await.expect(200).data();
    assert_eq!(listed["snapshots"][0]["alias"], "third");
    assert_eq!(listed["snapshot_count"], 1);

    rig.fake.write(web.id, "page", "new");
    let restored = rig.put(&one, json!({})).await.expect(200).data();
    assert_eq!(restored["success"], true);
    assert_eq!(rig.fake.read(web.id, "page").as_deref(), Some("old"));
    rig.reached(&web, "running").await;
    rig.until("its URLs are back", || async {
        at_its_host(&rig, &web).await == 200
    })
    .await;
    rig.patch(&format!("{all}/third"), json!({}))
        .await
        .expect(200);
    rig.reached(&web, "running").await;

    let deleted = rig.delete(&one).await.expect(200).data();
    assert_eq!(deleted["snapshot_name"], name);
    refused(rig.delete(&one).await, 404, "SNAPSHOT_NOT_FOUND");
    refused(rig.put(&one, json!({})).await, 404, "SNAPSHOT_NOT_FOUND");
    refused(
        rig.put(&format!("{one}/alias"), json!({ "alias": null }))
            .await,
        404,
        "SNAPSHOT_NOT_FOUND",
    );
    invalid(
        rig.post(&all, json!({ "alias": "x".repeat(101) })).await,
        "/alias",
    );
    invalid(rig.post(&all, json!({ "expiry": 0 })).await, "/expiry");
    let nobody = format!("/api/v1/containers/{NOTHING}/snapshots");
    refused(rig.get(&nobody).await, 404, "NOT_FOUND");
    refused(rig.post(&nobody, json!({})).await, 404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_made_started_and_synced() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    rig.fake.write(web.id, "page", "1");
    let body = json!({ "target_project_id": web.project.to_string(), "name": "twin" });
    let made = rig
        .post(&format!("{}/copy", path(&web)), body.clone())
        .await
        .expect(200)
        .data();
    assert_eq!(made["status"], "copying");
    let twin = Container {
        id: text(&made["id"]).parse().expect("an id"),
        project: web.project,
    };
    rig.reached(&twin, "stopped").await;
    rig.fake.write(web.id, "page", "2");
    let synced = rig
        .post(&format!("{}/sync", path(&twin)), Value::Null)
        .await
        .expect(200)
        .data();
    assert_eq!(synced["source_container_id"], web.id.to_string());
    rig.until("it came over", || async {
        rig.fake.read(twin.id, "page").as_deref() == Some("2")
    })
    .await;
    rig.reached(&twin, "stopped").await;
    rig.post(&format!("{}/start", path(&twin)), json!({}))
        .await
        .expect(200);
    rig.until("it answers at its own URLs", || async {
        at_its_host(&rig, &twin).await == 200
    })
    .await;
    rig.reached(&twin, "running").await;
    assert_eq!(at_its_host(&rig, &web).await, 200);
    let sync = async |body| rig.post(&format!("{}/sync", path(&twin)), body).await;
    refused(sync(json!({})).await, 409, "COPY_CHANGED");
    sync(json!({ "force": true })).await.expect(200);
    rig.reached(&twin, "running").await;

    refused(
        rig.post(&format!("{}/copy", path(&web)), body).await,
        409,
        "NAME_TAKEN",
    );
    refused(
        rig.post(&format!("{}/sync", path(&web)), json!({})).await,
        409,
        "NOT_A_COPY",
    );
    invalid(
        rig.post(&format!("{}/copy", path(&web)), json!({})).await,
        "/target_project_id",
    );
}
