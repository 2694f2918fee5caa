//! Containers: their life, and what is refused on the way.

use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::Container;

use crate::wire::{NOTHING, each, invalid, refused, text};

fn path(container: &Container) -> String {
    format!("/api/v1/containers/{}", container.id)
}

/// Status and code of what its terminal's host answers.
async fn at_its_host(rig: &Rig, container: &Container) -> (u16, Value) {
    let path = "/api/v1/terminal/health";
    let answer = rig
        .kit(container, "terminal", Method::GET, path, |request| request)
        .await;
    (answer.status, answer.json()["code"].take())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_goes_through_its_states_and_its_host_with_it() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    rig.never_wake(&web).await;
    let manage = async |act: &str| rig.post(&format!("{}/{act}", path(&web)), json!({})).await;
    for (act, status, host) in [
        ("pause", "paused", (503, json!("container_paused"))),
        ("resume", "running", (200, Value::Null)),
        ("stop", "stopped", (503, json!("container_stopped"))),
        ("start", "running", (200, Value::Null)),
        ("force-stop", "stopped", (503, json!("container_stopped"))),
        ("restart", "running", (200, Value::Null)),
    ] {
        let answer = manage(act).await.expect(200).data();
        assert_eq!(
            (&answer["operation"], &answer["error"]),
            (&json!(act), &json!(false))
        );
        rig.reached(&web, status).await;
        rig.until(&format!("its host knows that it is {status}"), || async {
            at_its_host(&rig, &web).await == host
        })
        .await;
        let stats = rig
            .get(&format!("{}/stats", path(&web)))
            .await
            .expect(200)
            .data();
        assert_eq!(
            (&stats["status"], stats["memory"].is_null()),
            (&json!(status), status == "stopped")
        );
    }
    manage("restart").await.expect(200);
    rig.until("it was started anew", || async {
        let logs = rig
            .get(&format!(
                "{}/status-logs?limit=100&sort_order=asc",
                path(&web)
            ))
            .await
            .expect(200)
            .data();
        let seen = each(&logs["logs"], "to_status");
        assert_eq!(
            seen[..4],
            ["creating", "running", "paused", "running"],
            "{logs}"
        );
        let who = each(&logs["logs"], "triggered_by");
        assert!(who.contains(&json!("token:rig")), "{logs}");
        rig.get(&path(&web)).await.data()["status"] == "running"
    })
    .await;

    manage("stop").await.expect(200);
    rig.reached(&web, "stopped").await;
    refused(manage("pause").await, 409, "INVALID_STATE");
    refused(manage("resume").await, 409, "INVALID_STATE");
    invalid(manage("explode").await, "/operation");

    rig.delete(&path(&web)).await.expect(200);
    rig.until("its host is dead", || async {
        at_its_host(&rig, &web).await == (404, json!("unknown_container"))
    })
    .await;
    rig.until("it is gone", || async {
        rig.get(&path(&web)).await.status == 404
    })
    .await;
    refused(manage("start").await, 404, "NOT_FOUND");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_made_as_asked_and_changed() {
    let rig = Rig::start().await;
    let containers = format!("/api/v1/projects/{}/containers", rig.project().await);
    let body = json!({
        "server_id": tests::rig::NODE, "name": "web-1", "color": "#0af", "container_image": "Debian 13",
        "environment_vars": { "STAGE": "test" }, "comment": "the first", "hoody_kit": true, "autostart": false,
    });
    let made = rig.post(&containers, body.clone()).await.expect(200).data();
    assert_eq!(
        (&made["status"], &made["color"]),
        (&json!("creating"), &json!("#00AAFF"))
    );
    assert_eq!(
        (&made["container_image"], &made["server_name"]),
        (&json!("debian-13"), &json!(tests::rig::NODE))
    );
    refused(rig.post(&containers, body).await, 409, "NAME_TAKEN");
    let path = format!("/api/v1/containers/{}", text(&made["id"]));
    let claim = rig
        .post(&format!("{path}/authorize"), json!({}))
        .await
        .expect(200)
        .data();
    assert_eq!(claim["container_id"], made["id"]);
    let kept = rig
        .get(&format!("{path}?include_proxy_domains=true"))
        .await
        .expect(200)
        .data();
    assert_eq!(
        (&kept["comment"], &kept["autostart"]),
        (&json!("the first"), &json!(false))
    );
    assert_eq!(kept["environment_vars"], json!({ "STAGE": "test" }));

    for (method, name) in [(Method::PUT, "Web one"), (Method::PATCH, "Web two")] {
        let request = rig
            .api(method, &path)
            .json(&json!({ "name": name, "comment": null }));
        let changed = rig.send("api", request).await.expect(200).data();
        assert_eq!(
            (&changed["name"], &changed["comment"]),
            (&json!(name), &Value::Null)
        );
    }

    // two more, one of them with a name of the node's choice
    for name in ["zebra", "rand"] {
        let body = json!({ "server_id": rig.server().await, "name": name, "hoody_kit": true });
        rig.post(&containers, body).await.expect(200);
    }
    for list in [
        containers.as_str(),
        "/api/v1/containers/",
        "/api/v1/containers",
    ] {
        let page = rig
            .get(&format!("{list}?sort_by=name&sort_order=asc&limit=2"))
            .await
            .expect(200)
            .data();
        assert_eq!(
            (
                &page["pagination"]["total"],
                &page["pagination"]["totalPages"]
            ),
            (&json!(3), &json!(2))
        );
        assert_eq!(each(&page["containers"], "id").len(), 2);
        assert!(!each(&page["containers"], "name").contains(&json!("rand")));
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_containers_are_refused() {
    let rig = Rig::start().await;
    let containers = format!("/api/v1/projects/{}/containers", rig.project().await);
    let server = rig.server().await;
    for (body, pointer) in [
        (json!({ "name": "web" }), "/server_id"),
        (json!({ "server_id": server, "name": "a b" }), "/name"),
        (
            json!({ "server_id": server, "container_image": "plan9" }),
            "/container_image",
        ),
        (
            json!({ "server_id": server, "ssh_public_key": "not a key, whatever it says" }),
            "/ssh_public_key",
        ),
        (
            json!({ "server_id": server, "hoody_kit": "perhaps" }),
            "/hoody_kit",
        ),
    ] {
        invalid(rig.post(&containers, body).await, pointer);
    }
    let elsewhere = json!({ "server_id": NOTHING });
    refused(
        rig.post(&containers, elsewhere).await,
        404,
        "SERVER_NOT_FOUND",
    );
    let kvm = json!({ "server_id": server, "kvm": true });
    refused(rig.post(&containers, kvm).await, 403, "KVM_NOT_AVAILABLE");

    let nothing = format!("/api/v1/containers/{NOTHING}");
    refused(rig.get(&nothing).await, 404, "NOT_FOUND");
    refused(
        rig.patch(&nothing, json!({ "name": "x" })).await,
        404,
        "NOT_FOUND",
    );
    refused(rig.delete(&nothing).await, 404, "NOT_FOUND");
    refused(
        rig.post(&format!("{nothing}/start"), json!({})).await,
        404,
        "NOT_FOUND",
    );
    for below in ["stats", "status-logs", "env"] {
        refused(
            rig.get(&format!("{nothing}/{below}")).await,
            404,
            "NOT_FOUND",
        );
    }
    invalid(rig.get("/api/v1/containers/nonsense").await, "/id");
    assert!(rig.fake.everything().is_empty(), "nothing was made");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_does_not_have_is_not_given() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let path = format!("/api/v1/containers/{}", web.id);
    let shown = rig.get(&path).await.expect(200).data();
    assert_eq!(
        (&shown["ramdisk"], &shown["kvm"]),
        (&json!(true), &json!(false))
    );
    let kvm = format!("{path}/kvm");
    refused(
        rig.put(&kvm, json!({ "kvm": true })).await,
        403,
        "KVM_NOT_AVAILABLE",
    );
    for taken in [
        rig.put(&kvm, json!({ "kvm": false })).await,
        rig.patch(&kvm, json!({ "kvm": false })).await,
    ] {
        assert_eq!(taken.expect(200).data()["kvm"], false);
    }
    invalid(rig.put(&kvm, json!({})).await, "/kvm");
    rig.stop().await;
}
