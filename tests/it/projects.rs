//! Projects.

use reqwest::Method;
use serde_json::json;
use tests::Rig;

use crate::wire::{NOTHING, each, invalid, refused, text};

const PROJECTS: &str = "/api/v1/projects/";

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_made_changed_listed_and_deleted() {
    let rig = Rig::start().await;
    let body = json!({ "alias": "shop", "color": "f80", "max_containers": 1 });
    let made = rig.post(PROJECTS, body).await.expect(201).data();
    assert_eq!(made["color"], "#FF8800");
    let path = format!("/api/v1/projects/{}", text(&made["id"]));
    assert_eq!(rig.get(&path).await.expect(200).data(), made);
    let whole = rig
        .get(&format!("{path}?include_permissions=true"))
        .await
        .expect(200)
        .data();
    assert_eq!(whole["permissions"], json!([]));
    let permissions = rig
        .get(&format!("{path}/permissions"))
        .await
        .expect(200)
        .data();
    assert_eq!(
        (
            &permissions["permissions"],
            &permissions["pagination"]["total"]
        ),
        (&json!([]), &json!(0))
    );

    for (method, alias) in [(Method::PUT, "store"), (Method::PATCH, "bazaar")] {
        let request = rig.api(method, &path).json(&json!({ "alias": alias }));
        let changed = rig.send("api", request).await.expect(200).data();
        assert_eq!(
            (&changed["alias"], &changed["color"]),
            (&json!(alias), &json!("#FF8800"))
        );
    }
    assert_eq!(rig.get(&path).await.data()["alias"], "bazaar");

    for alias in ["alpha", "beta"] {
        rig.post(PROJECTS, json!({ "alias": alias }))
            .await
            .expect(201);
    }
    let query = "?sort_by=alias&sort_order=asc&limit=2";
    for (page, want) in [
        (1, json!(["alpha", "bazaar"])),
        (2, json!(["beta"])),
        (3, json!([])),
    ] {
        // with a slash and without
        for path in [
            format!("{PROJECTS}{query}&page={page}"),
            format!("/api/v1/projects{query}&page={page}"),
        ] {
            let list = rig.get(&path).await.expect(200).data();
            assert_eq!(json!(each(&list["projects"], "alias")), want);
            assert_eq!(
                list["pagination"],
                json!({ "total": 3, "page": page, "limit": 2, "totalPages": 2 })
            );
        }
    }

    let body = json!({ "server_id": rig.server().await, "name": "web", "hoody_kit": true });
    let container = rig
        .post(&format!("{path}/containers"), body.clone())
        .await
        .expect(200)
        .data();
    refused(
        rig.post(&format!("{path}/containers"), body).await,
        409,
        "LIMIT_REACHED",
    );
    rig.until("the container runs", || async {
        let stats = rig.get(&format!("{path}/stats")).await.expect(200).data();
        assert_eq!(stats["summary"]["container_count"], 1);
        stats["stats"][0]["status"] == "running"
    })
    .await;

    let gone = rig
        .delete(&format!("{path}?include_deleted_items=true"))
        .await
        .expect(200)
        .data();
    assert_eq!(gone["deleted"]["containers"], 1);
    assert_eq!(
        gone["deleted_items"]["containers"],
        json!([{ "id": container["id"], "name": "web" }])
    );
    refused(rig.get(&path).await, 404, "NOT_FOUND");
    rig.until("the machine is gone", || async {
        rig.fake.everything().is_empty()
    })
    .await;
    let container = format!("/api/v1/containers/{}", text(&container["id"]));
    rig.until("the container is gone", || async {
        rig.get(&container).await.status == 404
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_projects_are_refused() {
    let rig = Rig::start().await;
    for (body, pointer) in [
        (json!({}), "/alias"),
        (json!({ "alias": "" }), "/alias"),
        (json!({ "alias": "x", "color": "red" }), "/color"),
        (
            json!({ "alias": "x", "max_containers": -1 }),
            "/max_containers",
        ),
        (json!({ "alias": "x", "realm_ids": "all" }), "/realm_ids"),
    ] {
        invalid(rig.post(PROJECTS, body).await, pointer);
    }
    for (query, pointer) in [
        ("page=0", "/page"),
        ("limit=1000", "/limit"),
        ("sort_by=taste", "/sort_by"),
    ] {
        invalid(rig.get(&format!("{PROJECTS}?{query}")).await, pointer);
    }
    invalid(rig.get("/api/v1/projects/nonsense").await, "/id");
    let path = format!("/api/v1/projects/{NOTHING}");
    refused(rig.get(&path).await, 404, "NOT_FOUND");
    refused(
        rig.put(&path, json!({ "alias": "x" })).await,
        404,
        "NOT_FOUND",
    );
    refused(rig.delete(&path).await, 404, "NOT_FOUND");
    for below in ["containers", "permissions", "stats"] {
        refused(rig.get(&format!("{path}/{below}")).await, 404, "NOT_FOUND");
    }
    rig.stop().await;
}
