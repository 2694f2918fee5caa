//! Snapshots, copies and syncs of machines that are entries of a map.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::time::Duration;

use control::runtime::fake::{Act, Moment, Trouble};
use routes::Id;
use serde_json::{Value, json};
use support::{Me, World};

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn take(me: &Me<'_>, container: &str, body: Value) -> support::Answer {
    let path = format!("/api/v1/containers/{container}/snapshots");
    me.post(&path, body).await
}

async fn names(me: &Me<'_>, container: &str) -> Vec<String> {
    let list = me
        .get(&format!("/api/v1/containers/{container}/snapshots"))
        .await
        .ok();
    let all = list["snapshots"].as_array().unwrap();
    assert_eq!(list["snapshot_count"], all.len());
    all.iter().map(|one| text(&one["name"])).collect()
}

async fn restore(me: &Me<'_>, container: &str, name: &str) -> support::Answer {
    let path = format!("/api/v1/containers/{container}/snapshots/{name}");
    me.put(&path, json!({})).await
}

async fn copy(me: &Me<'_>, container: &str, body: Value) -> support::Answer {
    let path = format!("/api/v1/containers/{container}/copy");
    me.post(&path, body).await
}

async fn sync(me: &Me<'_>, container: &str, body: Value) -> support::Answer {
    let path = format!("/api/v1/containers/{container}/sync");
    me.post(&path, body).await
}

/// The events of a container's log, oldest first.
async fn events(me: &Me<'_>, container: &str) -> Vec<String> {
    let path = format!("/api/v1/containers/{container}/status-logs?limit=100&sort_order=asc");
    let logs = me.get(&path).await.ok();
    let logs = logs["logs"].as_array().unwrap().iter();
    logs.filter_map(|log| log["metadata"]["event"].as_str().map(str::to_owned))
        .collect()
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn a_snapshot_brings_back_what_was() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    world.fake.write(id(&web), "page", "old");
    let body = json!({ "alias": "before", "expiry": 7 });
    let taken = take(&me, &web, body).await.ok();
    let snapshot = &taken["snapshot"];
    let name = text(&snapshot["name"]);
    assert_eq!(taken["container_id"], web);
    assert!(
        name.starts_with("snap-") && name.len() == "snap-20260101-000000".len(),
        "{name}"
    );
    assert_eq!(
        (&snapshot["alias"], &snapshot["stateful"]),
        (&json!("before"), &json!(false))
    );
    assert!(snapshot["expires_at"].is_string() && snapshot["size"].as_u64() > Some(0));
    // within the same second, another name
    let other = text(&take(&me, &web, json!({})).await.ok()["snapshot"]["name"]);
    assert_ne!(other, name);
    assert_eq!(names(&me, &web).await.len(), 2);
    assert_eq!(world.fake.snapshots(id(&web)).len(), 2);

    world.fake.write(id(&web), "page", "new");
    let identity = world.fake.identity(id(&web));
    let path = format!("/api/v1/containers/{web}/env");
    me.put(&path, json!({ "NOW": "1" })).await.ok();
    let restored = restore(&me, &web, "before").await.ok();
    assert_eq!(restored["success"], true);
    assert_eq!(restored["snapshot"]["name"], name);
    assert!(restored["snapshot"]["last_used_at"].is_string());
    assert_eq!(world.fake.read(id(&web), "page").as_deref(), Some("old"));
    let shown = me.until(&web, "running").await;
    assert_eq!(shown["last_used_snapshot"], name);
    assert_eq!(shown["snapshot_count"], 2);
    assert_eq!(world.fake.identity(id(&web)), identity);
    until("its settings are those of today", async || {
        let machine = world.fake.machine(id(&web)).unwrap();
        machine.environment == [("NOW".to_owned(), "1".to_owned())]
    })
    .await;

    // the CLI's verb does the same
    world.fake.write(id(&web), "page", "newer");
    let path = format!("/api/v1/containers/{web}/snapshots/{name}");
    me.ask("PATCH", &path).send().await.ok();
    assert_eq!(world.fake.read(id(&web), "page").as_deref(), Some("old"));

    me.delete(&path).await.ok();
    until("it is gone", async || {
        world.fake.snapshots(id(&web)) == [other.clone()]
    })
    .await;
    restore(&me, &web, &name).await.refused(404);
    until("all of it is in the log", async || {
        let events = events(&me, &web).await;
        events
            == [
                "snapshot_created",
                "snapshot_created",
                "snapshot_restored",
                "snapshot_restored",
                "snapshot_deleted",
            ]
    })
    .await;
    // with the container, its snapshots go
    me.until(&web, "running").await;
    me.delete(&format!("/api/v1/containers/{web}")).await.ok();
    me.until(&web, "gone").await;
    let left = node
        .control
        .store
        .read("count", |db| {
            db.query_row("SELECT count(*) FROM snapshots", [], |row| {
                row.get::<_, i64>(0)
            })
        })
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_stopped_container_stays_stopped_when_it_is_restored() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    me.manage(&web, "stop").await.ok();
    me.until(&web, "stopped").await;
    world.fake.write(id(&web), "page", "old");
    let name = text(&take(&me, &web, json!({})).await.ok()["snapshot"]["name"]);
    world.fake.write(id(&web), "page", "new");
    restore(&me, &web, &name).await.ok();
    assert_eq!(world.fake.read(id(&web), "page").as_deref(), Some("old"));
    let starts = world
        .fake
        .asked()
        .iter()
        .filter(|(act, _)| *act == Act::Start)
        .count();
    assert_eq!(starts, 1, "only the first");
    me.until(&web, "stopped").await;
}

#[tokio::test]
async fn an_alias_is_of_one_snapshot() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    let first = text(&take(&me, &web, json!({ "alias": "a" })).await.ok()["snapshot"]["name"]);
    let second = text(&take(&me, &web, json!({})).await.ok()["snapshot"]["name"]);
    take(&me, &web, json!({ "alias": "a" })).await.refused(409);
    let alias = |name: &str| format!("/api/v1/containers/{web}/snapshots/{name}/alias");
    me.put(&alias(&second), json!({ "alias": "a" }))
        .await
        .refused(409);
    let renamed = me.put(&alias("a"), json!({ "alias": "b" })).await.ok();
    assert_eq!(renamed["snapshot"]["name"], first);
    assert_eq!(renamed["snapshot"]["alias"], "b");
    let patched = me
        .ask("PATCH", &alias(&second))
        .json(json!({ "alias": "a" }))
        .send()
        .await;
    assert_eq!(patched.ok()["snapshot"]["alias"], "a");
    let none = me.put(&alias("b"), json!({ "alias": null })).await.ok();
    assert_eq!(none["snapshot"]["alias"], Value::Null);
    me.put(&alias("nothing"), json!({ "alias": "c" }))
        .await
        .refused(404);
    me.delete(&format!("/api/v1/containers/{web}/snapshots/a"))
        .await
        .ok();
    assert_eq!(names(&me, &web).await, [first]);

    for (body, field) in [
        (json!({ "alias": "x".repeat(101) }), "/alias"),
        (json!({ "alias": "" }), "/alias"),
        (json!({ "alias": "a/b" }), "/alias"),
        (json!({ "expiry": 0 }), "/expiry"),
        (json!({ "expiry": 3651 }), "/expiry"),
    ] {
        assert_eq!(
            take(&me, &web, body.clone()).await.wrong_field(),
            field,
            "{body}"
        );
    }
}

#[tokio::test]
async fn there_is_an_end_to_snapshots() {
    let world = World::new().await;
    let mut config = world.config();
    config.limits.snapshots_per_container = 2;
    let node = world.start_with(config).await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    take(&me, &web, json!({})).await.ok();
    take(&me, &web, json!({})).await.ok();
    let message = take(&me, &web, json!({})).await.refused(409);
    assert!(message.contains("may have 2 snapshots"), "{message}");
}

#[tokio::test]
async fn snapshots_expire() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    take(&me, &web, json!({ "expiry": 1 })).await.ok();
    let stays = text(&take(&me, &web, json!({})).await.ok()["snapshot"]["name"]);
    node.control
        .store
        .write("let a day go by", |db| {
            db.execute(
                "UPDATE snapshots SET expires_at = 1 WHERE expires_at IS NOT NULL",
                [],
            )
        })
        .await
        .unwrap();
    until("it is removed", async || {
        world.fake.snapshots(id(&web)) == [stays.clone()]
    })
    .await;
    assert_eq!(names(&me, &web).await, [stays]);
}

#[tokio::test]
async fn a_snapshot_that_fails_leaves_nothing() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    world
        .fake
        .trouble(Act::Snapshot, Moment::Midway, Trouble::Permanent, 3);
    let message = take(&me, &web, json!({})).await.refused(500);
    assert!(message.contains("status-logs"), "{message}");
    until("nothing is left", async || {
        world.fake.snapshots(id(&web)).is_empty()
    })
    .await;
    assert!(names(&me, &web).await.is_empty());
    assert!(
        events(&me, &web)
            .await
            .contains(&"snapshot_failed".to_owned())
    );
    me.until(&web, "running").await;

    world
        .fake
        .trouble(Act::Snapshot, Moment::Before, Trouble::DiskFull, 3);
    let answer = take(&me, &web, json!({})).await;
    assert_eq!(answer.body["code"], "DISK_FULL");
    answer.refused(507);

    // a failed restore leaves the container as it was, and running
    let name = text(&take(&me, &web, json!({})).await.ok()["snapshot"]["name"]);
    world.fake.write(id(&web), "page", "new");
    world
        .fake
        .trouble(Act::Restore, Moment::Before, Trouble::Permanent, 3);
    restore(&me, &web, &name).await.refused(500);
    me.until(&web, "running").await;
    assert_eq!(world.fake.read(id(&web), "page").as_deref(), Some("new"));
    // one that fails for a while is tried again
    world
        .fake
        .trouble(Act::Restore, Moment::After, Trouble::Transient, 2);
    restore(&me, &web, &name).await.ok();
    assert_eq!(world.fake.read(id(&web), "page"), None);
    me.until(&web, "running").await;
}

#[tokio::test]
async fn a_copy_is_another_computer_with_the_same_files() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let (project, other) = (me.project("site").await, me.project("other").await);
    let server = me.server().await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    let at = format!("/api/v1/containers/{web}");
    me.put(&format!("{at}/env"), json!({ "A": "1" })).await.ok();
    let rules = format!("{at}/proxy/permissions/default");
    me.ask("PATCH", &rules)
        .header("if-match", "file:v0")
        .json(json!({ "default": "deny" }))
        .send()
        .await
        .ok();
    world.fake.write(id(&web), "page", "old");
    let name = text(&take(&me, &web, json!({})).await.ok()["snapshot"]["name"]);
    world.fake.write(id(&web), "page", "new");

    let body = json!({ "target_project_id": other, "target_server_id": server, "name": "twin" });
    let made = copy(&me, &web, body.clone()).await.ok();
    assert_eq!(made["status"], "copying");
    assert_eq!(made["source_container_id"], web);
    assert_eq!(
        (&made["project_id"], &made["name"]),
        (&json!(other), &json!("twin"))
    );
    let twin = text(&made["id"]);
    let shown = me.until(&twin, "stopped").await;
    assert_eq!(shown["environment_vars"], json!({ "A": "1" }));
    assert_eq!(shown["has_proxy_permissions"], true);
    assert_eq!(shown["snapshot_count"], 0);
    let rules = me
        .get(&format!("/api/v1/containers/{twin}/proxy/permissions"))
        .await
        .ok();
    assert_eq!(rules["default"], "deny", "{rules}");
    assert_eq!(world.fake.read(id(&twin), "page").as_deref(), Some("new"));
    assert_ne!(
        world.fake.identity(id(&twin)),
        world.fake.identity(id(&web))
    );
    let machine = world.fake.machine(id(&twin)).unwrap();
    assert_eq!(
        (machine.hostname.as_str(), machine.project),
        ("twin", id(&other))
    );
    me.manage(&twin, "start").await.ok();
    me.until(&twin, "running").await;
    me.until(&web, "running").await;
    copy(&me, &web, body).await.refused(409);

    // from a snapshot, with a name that is made up
    let body = json!({ "target_project_id": project, "source_snapshot": name });
    let old = text(&copy(&me, &web, body).await.ok()["id"]);
    me.until(&old, "stopped").await;
    assert_eq!(world.fake.read(id(&old), "page").as_deref(), Some("old"));

    let refusals = [
        (json!({ "target_project_id": "0".repeat(24) }), 404),
        (
            json!({ "target_project_id": project, "target_server_id": "0".repeat(24) }),
            404,
        ),
        (
            json!({ "target_project_id": project, "source_snapshot": "none" }),
            404,
        ),
        (json!({ "target_project_id": project, "kvm": true }), 403),
    ];
    for (body, status) in refusals {
        copy(&me, &web, body).await.refused(status);
    }
    let long = json!({ "target_project_id": project, "name": "x".repeat(101) });
    assert_eq!(copy(&me, &web, long).await.wrong_field(), "/name");
    copy(
        &me,
        &"0".repeat(24),
        json!({ "target_project_id": project }),
    )
    .await
    .refused(404);
    // the copy outlives its source
    me.delete(&at).await.ok();
    me.until(&web, "gone").await;
    me.until(&twin, "running").await;
    sync(&me, &old, json!({})).await.refused(409);
}

#[tokio::test]
async fn a_sync_brings_over_what_changed_and_nothing_is_lost_unasked() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    world.fake.write(id(&web), "page", "1");
    let body = json!({ "target_project_id": project, "name": "twin" });
    let twin = text(&copy(&me, &web, body).await.ok()["id"]);
    me.until(&twin, "stopped").await;
    let identity = world.fake.identity(id(&twin));
    let page = |at: &str| world.fake.read(id(at), "page");

    world.fake.write(id(&web), "page", "2");
    let answer = sync(&me, &twin, json!({})).await.ok();
    assert_eq!(
        answer,
        json!({ "container_id": twin, "source_container_id": web, "status": "copying" })
    );
    until("it has come over", async || {
        page(&twin).as_deref() == Some("2")
    })
    .await;
    me.until(&twin, "stopped").await;
    assert_eq!(world.fake.identity(id(&twin)), identity);

    me.manage(&twin, "start").await.ok();
    me.until(&twin, "running").await;
    world.fake.write(id(&twin), "own", "x");
    let answer = sync(&me, &twin, json!({})).await;
    assert_eq!(answer.body["code"], "COPY_CHANGED");
    answer.refused(409);
    me.manage(&twin, "stop").await.ok();
    me.until(&twin, "stopped").await;
    sync(&me, &twin, json!({})).await.refused(409);
    assert_eq!(world.fake.read(id(&twin), "own").as_deref(), Some("x"));
    me.manage(&twin, "start").await.ok();
    me.until(&twin, "running").await;
    sync(&me, &twin, json!({ "force": true })).await.ok();
    until("it is lost", async || {
        world.fake.read(id(&twin), "own").is_none()
    })
    .await;
    me.until(&twin, "running").await;
    assert_eq!(world.fake.identity(id(&twin)), identity);

    // the other way there is nothing
    let answer = sync(&me, &web, json!({ "force": true })).await;
    assert_eq!(answer.body["code"], "NOT_A_COPY");
    answer.refused(409);
    assert!(events(&me, &twin).await.contains(&"synced".to_owned()));
}

#[tokio::test]
async fn what_is_under_way_is_not_disturbed() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    let name = text(&take(&me, &web, json!({})).await.ok()["snapshot"]["name"]);
    world
        .fake
        .trouble(Act::Copy, Moment::Midway, Trouble::Hang, 1);
    let body = json!({ "target_project_id": project, "source_snapshot": name });
    let twin = text(&copy(&me, &web, body).await.ok()["id"]);
    world.fake.hung(1).await;
    // of the source, while it is copied
    let message = restore(&me, &web, &name).await.refused(409);
    assert!(message.contains("is being copied"), "{message}");
    let path = format!("/api/v1/containers/{web}/snapshots/{name}");
    me.delete(&path).await.refused(409);
    // of the copy, while it is made
    let shown = me.get(&format!("/api/v1/containers/{twin}")).await.ok();
    assert_eq!(shown["status"], "copying");
    take(&me, &twin, json!({})).await.refused(409);
    restore(&me, &twin, "any").await.refused(409);
    copy(&me, &twin, json!({ "target_project_id": project }))
        .await
        .refused(409);
    sync(&me, &twin, json!({})).await.refused(409);
    // deleted while copying: nothing is left
    me.delete(&format!("/api/v1/containers/{twin}")).await.ok();
    drop(me);
    drop(node);
    let node = world.start().await;
    let me = node.admin().await;
    me.until(&twin, "gone").await;
    until("nothing is left", async || {
        world.fake.everything() == [id(&web)]
    })
    .await;

    // a source that goes while it is copied fails the copy, and says so
    world
        .fake
        .trouble(Act::Copy, Moment::Before, Trouble::Transient, 30);
    let body = json!({ "target_project_id": project });
    let orphan = text(&copy(&me, &web, body).await.ok()["id"]);
    me.delete(&format!("/api/v1/containers/{web}")).await.ok();
    me.until(&web, "gone").await;
    world.fake.heal();
    me.until(&orphan, "failed").await;
    me.delete(&format!("/api/v1/containers/{orphan}"))
        .await
        .ok();
    me.until(&orphan, "gone").await;
    until("nothing is left", async || {
        world.fake.everything().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_machine_that_is_gone_has_no_disk_to_keep() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    let name = text(&take(&me, &web, json!({})).await.ok()["snapshot"]["name"]);
    world.fake.happen(id(&web), None);
    me.until(&web, "failed").await;
    take(&me, &web, json!({})).await.refused(409);
    restore(&me, &web, &name).await.refused(409);
    copy(&me, &web, json!({ "target_project_id": project }))
        .await
        .refused(409);
}

#[tokio::test]
async fn a_token_needs_the_right_to_snapshots() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    let name = text(&take(&me, &web, json!({})).await.ok()["snapshot"]["name"]);
    let body = json!({ "alias": "part", "permissions": {
        "containers": { "read": true, "update": true },
    } });
    let token = text(&me.post("/api/v1/auth/tokens", body).await.ok()["token"]);
    let part = node.with(&token);
    assert_eq!(names(&part, &web).await, *std::slice::from_ref(&name));
    let one = format!("/api/v1/containers/{web}/snapshots/{name}");
    take(&part, &web, json!({})).await.refused(403);
    restore(&part, &web, &name).await.refused(403);
    part.delete(&one).await.refused(403);
    let alias = json!({ "alias": "a" });
    part.put(&format!("{one}/alias"), alias).await.refused(403);
    copy(&part, &web, json!({ "target_project_id": project }))
        .await
        .refused(403);
    assert_eq!(names(&me, &web).await, [name]);
}

#[tokio::test]
async fn a_sync_that_fails_can_be_tried_again_or_given_up() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    let body = json!({ "target_project_id": project });
    let twin = text(&copy(&me, &web, body).await.ok()["id"]);
    me.until(&twin, "stopped").await;
    world.fake.write(id(&web), "page", "1");
    let fail = || {
        world
            .fake
            .trouble(Act::Sync, Moment::Midway, Trouble::DiskFull, 3);
    };
    fail();
    sync(&me, &twin, json!({})).await.ok();
    me.until(&twin, "failed").await;
    let path = format!("/api/v1/containers/{twin}/status-logs");
    let logs = me.get(&path).await.ok();
    let reason = text(&logs["logs"][0]["metadata"]["reason"]);
    assert!(reason.contains("no space left"), "{reason}");
    // nothing was changed in it by its user: no force is needed
    sync(&me, &twin, json!({})).await.ok();
    me.until(&twin, "stopped").await;
    assert_eq!(world.fake.read(id(&twin), "page").as_deref(), Some("1"));

    fail();
    sync(&me, &twin, json!({})).await.ok();
    me.until(&twin, "failed").await;
    let updates = || {
        let asked = world.fake.asked();
        let of = asked
            .iter()
            .filter(|asked| **asked == (Act::Update, id(&twin)));
        of.count()
    };
    let before = updates();
    me.manage(&twin, "start").await.ok();
    me.until(&twin, "running").await;
    assert!(updates() > before, "it is told its own settings again");
    sync(&me, &twin, json!({})).await.refused(409);
}
