//! Directories that containers share, through the API.

use std::collections::BTreeMap;

use control::runtime::{NoDirectory, Share};
use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::Container;

use crate::wire::{Caller, invalid, refused};

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn offers(container: &Container) -> String {
    format!("/api/v1/containers/{}/storage/shares", container.id)
}

fn offered(container: &Container) -> String {
    format!("/api/v1/containers/{}/storage/incoming", container.id)
}

fn sees(rig: &Rig, container: &Container) -> BTreeMap<String, Share> {
    rig.fake.shared(container.id)
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter().map(|share| text(&share["id"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_offered_seen_turned_down_changed_and_withdrawn() {
    let rig = Rig::start().await;
    let (web, db) = (rig.create("web").await, rig.create("base").await);
    let body = json!({
        "source_path": "/srv//data/", "target_container_id": web.id.to_string(), "mode": "readonly",
        "alias": "data", "label": "for-tests", "description": "What the database keeps",
        "expires_at": 4_000_000_000_u64,
    });
    let share = rig.post(&offers(&db), body).await.expect(201).data();
    let id = text(&share["id"]);
    for (field, value) in [
        ("source_path", json!("/srv/data")),
        ("target_type", json!("container")),
        ("target_project_id", Value::Null),
        ("mode", json!("readonly")),
        ("status", json!("active")),
        ("expires_at", json!(4_000_000_000_u64)),
        ("expiry_notified", json!(false)),
    ] {
        assert_eq!(share[field], value, "{field}");
    }
    // it is there once it is answered
    let seen = &sees(&rig, &web)["data"];
    assert_eq!(
        (seen.source, seen.path.as_str(), seen.writable),
        (db.id, "/srv/data", false)
    );

    let one = format!("{}/{id}", offers(&db));
    assert_eq!(rig.get(&one).await.expect(200).data(), share);
    refused(
        rig.get(&format!("{}/{id}", offers(&web))).await,
        404,
        "NOT_FOUND",
    );
    for (query, found) in [
        ("", true),
        ("?label=for-tests&target_type=container", true),
        ("?status=active&enabled=true", true),
        ("?label=other", false),
        ("?target_type=project", false),
        ("?enabled=false", false),
        ("?status=failed", false),
    ] {
        let list = rig
            .get(&format!("{}{query}", offers(&db)))
            .await
            .expect(200)
            .data();
        assert_eq!(names(&list) == [id], found, "{query}");
    }
    for path in ["/api/v1/storage/shares", "/api/v1/storage/incoming"] {
        let list = rig.get(path).await.expect(200).data();
        assert_eq!(names(&list), [id], "{path}");
    }
    let incoming = rig.get(&offered(&web)).await.expect(200).data();
    assert_eq!(incoming[0]["id"], id);
    assert_eq!(incoming[0]["mount"], true);
    assert_eq!(incoming[0]["mount_path"], "/hoody/shares/data");
    assert_eq!(rig.get(&offered(&db)).await.data(), json!([]));

    let mount = format!("{}/{id}/mount", offered(&web));
    let off = rig
        .patch(&mount, json!({ "mount": false }))
        .await
        .expect(200)
        .data();
    assert_eq!(
        (&off["override"]["mount"], &off["override"]["share_id"]),
        (&json!(false), &json!(id))
    );
    assert!(sees(&rig, &web).is_empty());
    assert_eq!(rig.get(&offered(&web)).await.data()[0]["mount"], false);
    rig.patch(&mount, json!({ "mount": true }))
        .await
        .expect(200);
    assert!(sees(&rig, &web).contains_key("data"));

    // another way, under its id, and off
    let changed = json!({ "mode": "readwrite", "alias": null, "label": null, "expires_at": null });
    let changed = rig.patch(&one, changed).await.expect(200).data();
    assert_eq!(
        (&changed["mode"], &changed["alias"], &changed["expires_at"]),
        (&json!("readwrite"), &Value::Null, &Value::Null)
    );
    let seen = sees(&rig, &web);
    assert_eq!(seen.len(), 1);
    assert!(seen[id].writable);
    rig.patch(&one, json!({ "enabled": false }))
        .await
        .expect(200);
    assert!(sees(&rig, &web).is_empty());
    rig.patch(&one, json!({ "enabled": true }))
        .await
        .expect(200);

    let withdraw = format!("/api/v1/storage/shares/{id}");
    rig.delete(&withdraw).await.expect(200);
    assert!(sees(&rig, &web).is_empty());
    refused(rig.delete(&withdraw).await, 404, "NOT_FOUND");
    refused(
        rig.patch(&mount, json!({ "mount": true })).await,
        404,
        "NOT_FOUND",
    );

    // both sides hear of all of it
    for (container, side) in [(&db, "source"), (&web, "target")] {
        let path = format!(
            "/api/v1/events?container_id={}&resource_type=storage_share&sort_order=asc",
            container.id
        );
        let list = rig.get(&path).await.expect(200).data();
        let events = list["events"].as_array().expect("a list");
        let kinds: Vec<&str> = events
            .iter()
            .map(|event| text(&event["event_type"]))
            .collect();
        assert_eq!(
            kinds,
            [
                "storage.share.created",
                "storage.share.mount_changed",
                "storage.share.mount_changed",
                "storage.share.updated",
                "storage.share.disabled",
                "storage.share.enabled",
                "storage.share.deleted",
            ]
        );
        assert!(
            events
                .iter()
                .all(|event| event["resource_id"] == id && event["payload"]["side"] == side)
        );
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_sees_what_is_for_it_later_containers_too() {
    let rig = Rig::start().await;
    let (db, web) = (rig.create("base").await, rig.create("web").await);
    let body = json!({
        "source_path": "/srv", "target_project_id": db.project.to_string(), "mode": "readonly",
        "alias": "conf",
    });
    let share = rig.post(&offers(&db), body).await.expect(201).data();
    assert_eq!(share["target_type"], "project");
    assert!(sees(&rig, &web).contains_key("conf"));
    let later = rig.create("later").await;
    rig.until("the later one sees it", || async {
        sees(&rig, &later).contains_key("conf")
    })
    .await;
    assert!(
        sees(&rig, &db).is_empty(),
        "the source has the directory itself"
    );
    // one of them does not want it, the others do
    let mount = format!("{}/{}/mount", offered(&web), text(&share["id"]));
    rig.patch(&mount, json!({ "mount": false }))
        .await
        .expect(200);
    assert!(sees(&rig, &web).is_empty() && sees(&rig, &later).contains_key("conf"));
    // and it is nothing to the source
    let own = format!("{}/{}/mount", offered(&db), text(&share["id"]));
    refused(
        rig.patch(&own, json!({ "mount": true })).await,
        404,
        "NOT_FOUND",
    );

    rig.delete(&format!("/api/v1/containers/{}", db.id))
        .await
        .expect(200);
    rig.until("it went with its source", || async {
        rig.fake.all_shared().is_empty()
    })
    .await;
    let left = rig.get("/api/v1/storage/shares").await.expect(200).data();
    assert_eq!(left, json!([]));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_shared_is_refused_with_the_reason() {
    let rig = Rig::start().await;
    let (web, db) = (rig.create("web").await, rig.create("base").await);
    let body = |path: &str| {
        json!({
            "source_path": path, "target_container_id": web.id.to_string(), "mode": "readonly",
        })
    };
    for path in [
        "srv",
        "",
        "/srv/../etc",
        "/proc/1/root",
        "/run",
        "/hoody/shares/x",
        "/tmp",
        "/a\nb",
    ] {
        invalid(rig.post(&offers(&db), body(path)).await, "/source_path");
    }
    let of = |why: fn(String) -> NoDirectory| why("/srv/x".to_owned());
    for why in [
        of(NoDirectory::Missing),
        of(NoDirectory::NotOne),
        of(NoDirectory::Link),
    ] {
        rig.fake.bar(db.id, "/srv/x", Some(why.clone()));
        let said = rig.post(&offers(&db), body("/srv/x")).await;
        let said = said.expect(400).json();
        let message = text(&said["message"]).to_owned();
        assert!(message.contains(&why.to_string()), "{message}");
    }
    rig.fake.bar(db.id, "/srv/x", None);

    let with = |key: &str, value: Value| {
        let mut body = body("/srv");
        body[key] = value;
        body
    };
    let project = json!(web.project.to_string());
    for (body, field) in [
        (with("mode", json!("write")), "/mode"),
        (with("target_project_id", project), "/target_project_id"),
        (
            with("target_container_id", json!(db.id.to_string())),
            "/target_container_id",
        ),
        (
            with("target_container_id", json!("web")),
            "/target_container_id",
        ),
        (
            with("target_container_id", Value::Null),
            "/target_container_id",
        ),
        (with("alias", json!("../etc")), "/alias"),
        (with("alias", json!("Data")), "/alias"),
        (with("alias", json!("ab")), "/alias"),
        (with("alias", json!("-abc")), "/alias"),
        (with("alias", json!(web.id.to_string())), "/alias"),
        (with("label", json!("a b")), "/label"),
        (with("description", json!("x".repeat(1001))), "/description"),
        (with("expires_at", json!(1)), "/expires_at"),
        (with("expires_at", json!(-1)), "/expires_at"),
        (with("expires_at", json!("tomorrow")), "/expires_at"),
    ] {
        invalid(rig.post(&offers(&db), body).await, field);
    }
    let nobody = "f".repeat(24);
    for key in ["target_container_id", "target_project_id"] {
        let mut body = with(key, json!(nobody));
        if key == "target_project_id" {
            body["target_container_id"] = Value::Null;
        }
        refused(rig.post(&offers(&db), body).await, 404, "NOT_FOUND");
    }
    let unknown = format!("/api/v1/containers/{nobody}/storage/shares");
    refused(rig.post(&unknown, body("/srv")).await, 404, "NOT_FOUND");

    // a name is one container's once, whoever gives it and for whom
    let named = |target: &str, id: String| json!({ "source_path": "/srv", target: id, "mode": "readonly", "alias": "data" });
    let to_web = || named("target_container_id", web.id.to_string());
    let to_all = || named("target_project_id", web.project.to_string());
    let first = rig.post(&offers(&db), to_web()).await.expect(201).data();
    refused(rig.post(&offers(&db), to_web()).await, 409, "ALIAS_IN_USE");
    refused(rig.post(&offers(&db), to_all()).await, 409, "ALIAS_IN_USE");
    rig.delete(&format!("/api/v1/storage/shares/{}", text(&first["id"])))
        .await
        .expect(200);
    rig.post(&offers(&db), to_all()).await.expect(201);
    refused(rig.post(&offers(&db), to_web()).await, 409, "ALIAS_IN_USE");
    let other = rig
        .post(&offers(&db), with("alias", json!("other")))
        .await
        .expect(201)
        .data();
    let other = format!("{}/{}", offers(&db), text(&other["id"]));
    refused(
        rig.patch(&other, json!({ "alias": "data" })).await,
        409,
        "ALIAS_IN_USE",
    );
    for (body, field) in [
        (json!({ "alias": "a/b" }), "/alias"),
        (json!({ "mode": "none" }), "/mode"),
        (json!({ "expires_at": 5 }), "/expires_at"),
    ] {
        invalid(rig.patch(&other, body).await, field);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_goes_is_told_and_comes_back_by_itself() {
    let rig = Rig::start().await;
    let (web, db) = (rig.create("web").await, rig.create("base").await);
    let body = json!({
        "source_path": "/srv", "target_container_id": web.id.to_string(), "mode": "readonly",
        "alias": "data",
    });
    let share = rig.post(&offers(&db), body).await.expect(201).data();
    let one = format!("{}/{}", offers(&db), text(&share["id"]));
    let gone = NoDirectory::Missing("/srv".to_owned());
    rig.fake.bar(db.id, "/srv", Some(gone.clone()));
    let tried = rig.patch(&one, json!({ "description": "looked at" })).await;
    let failed = tried.expect(200).data();
    assert_eq!(failed["status"], "failed");
    let message = text(&failed["status_message"]);
    assert!(
        message.contains(&gone.to_string()) && message.contains(&web.id.to_string()),
        "{message}"
    );
    assert!(sees(&rig, &web).is_empty());
    let list = rig.get(&format!("{}?status=failed", offers(&db))).await;
    assert_eq!(names(&list.data()).len(), 1);
    let tasks = rig.get("/api/v1/tasks").await.data();
    assert_eq!(
        (&tasks["shares"]["mounted"], &tasks["shares"]["missing"]),
        (&json!(0), &json!(1))
    );
    rig.fake.bar(db.id, "/srv", None);
    rig.until("it is there again", || async {
        rig.get(&one).await.data()["status"] == "active"
    })
    .await;
    assert!(sees(&rig, &web).contains_key("data"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_needs_its_permission_and_both_sides_in_sight() {
    const OURS: &str = "aaaaaaaaaaaaaaaaaaaaaaaa";
    let rig = Rig::start().await;
    let (web, db) = (rig.create("web").await, rig.create("base").await);
    let path = format!("/api/v1/containers/{}", db.id);
    rig.patch(&path, json!({ "realm_ids": [OURS] }))
        .await
        .expect(200);
    let body = json!({
        "source_path": "/srv", "target_container_id": web.id.to_string(), "mode": "readonly",
    });
    let made = rig
        .post(&offers(&db), body.clone())
        .await
        .expect(201)
        .data();
    let id = text(&made["id"]);
    let token = async |permissions: Value, realms: Value| {
        let body = json!({ "alias": "t", "permissions": permissions, "realm_ids": realms });
        let made = rig.post("/api/v1/auth/tokens", body).await.expect(201);
        text(&made.data()["token"]).to_owned()
    };
    // sees containers, and nothing of what they share
    let reads = token(json!({ "containers": { "read": true } }), json!([])).await;
    let reads = Caller::new(&rig, reads);
    for path in [
        offers(&db),
        offered(&web),
        "/api/v1/storage/shares".to_owned(),
        "/api/v1/storage/incoming".to_owned(),
        format!("{}/{id}", offers(&db)),
    ] {
        refused(reads.get(&path).await, 403, "PERMISSION_DENIED");
    }
    let withdraw = format!("/api/v1/storage/shares/{id}");
    for (method, path, body) in [
        (Method::POST, offers(&db), Some(body.clone())),
        (
            Method::PATCH,
            format!("{}/{id}", offers(&db)),
            Some(json!({ "mode": "readwrite" })),
        ),
        (
            Method::PATCH,
            format!("{}/{id}/mount", offered(&web)),
            Some(json!({ "mount": false })),
        ),
        (Method::DELETE, withdraw.clone(), None),
    ] {
        refused(
            reads.call(method, &path, body).await,
            403,
            "PERMISSION_DENIED",
        );
    }
    // sees the source alone: not whom it could be for
    let shares = json!({ "resources": { "storage_shares": true } });
    let ours = Caller::new(&rig, token(shares, json!([OURS])).await);
    let ours = ours.at(OURS);
    refused(ours.post(&offers(&db), body).await, 404, "NOT_FOUND");
    refused(ours.get(&offered(&web)).await, 404, "NOT_FOUND");
    let incoming = ours.get("/api/v1/storage/incoming").await.expect(200);
    assert_eq!(incoming.data(), json!([]));
    let list = ours.get("/api/v1/storage/shares").await.expect(200).data();
    assert_eq!(names(&list), [id]);
    ours.call(Method::DELETE, &withdraw, None).await.expect(200);
    assert!(sees(&rig, &web).is_empty());
    rig.stop().await;
}
