//! Projects and the life of containers, as a client sees them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::time::Duration;

use control::runtime::fake::{Act, Moment, Trouble};
use control::runtime::{Limits, Power, Runtime};
use http::StatusCode;
use routes::Id;
use routes::table::State;
use serde_json::{Value, json};
use support::{Me, Node, World};

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn state(node: &Node, container: &str) -> Option<State> {
    node.control
        .publisher
        .get(id(container))
        .map(|place| place.state)
}

/// The proxy is told of a state right after clients may see it.
#[track_caller]
fn routed<'a>(
    node: &'a Node,
    container: &'a str,
    wanted: Option<State>,
) -> impl Future<Output = ()> + 'a {
    let place = std::panic::Location::caller();
    async move {
        for _ in 0..500 {
            if state(node, container) == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let last = state(node, container);
        panic!("{place}: {container} is routed as {last:?} and not {wanted:?}");
    }
}

async fn logs(me: &Me<'_>, container: &str) -> Vec<String> {
    let logs = me
        .get(&format!(
            "/api/v1/containers/{container}/status-logs?limit=100&sort_order=asc"
        ))
        .await
        .ok();
    let words = logs["logs"].as_array().unwrap().iter();
    words
        .map(|log| {
            format!(
                "{} by {}",
                log["to_status"].as_str().unwrap(),
                log["triggered_by"].as_str().unwrap()
            )
        })
        .collect()
}

#[tokio::test]
async fn a_container_lives() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    let shown = me.until(&web, "running").await;
    assert_eq!(shown["project_id"], project.as_str());
    assert_eq!(shown["server_name"], "node-1");
    assert_eq!(shown["server_id"], me.server().await.as_str());
    routed(&node, &web, Some(State::Running)).await;

    let paused = me.manage(&web, "pause").await.ok();
    assert_eq!(paused["operation"], "pause");
    me.until(&web, "paused").await;
    routed(&node, &web, Some(State::Paused)).await;
    me.manage(&web, "pause").await.ok(); // again: nothing more to do
    me.manage(&web, "resume").await.ok();
    me.until(&web, "running").await;
    me.manage(&web, "resume").await.refused(409);

    let before = node
        .fake
        .observe_one(id(&web))
        .await
        .unwrap()
        .unwrap()
        .incarnation;
    me.manage(&web, "restart").await.ok();
    loop {
        let seen = node.fake.observe_one(id(&web)).await.unwrap().unwrap();
        if seen.incarnation > before && seen.power == Power::On {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    me.until(&web, "running").await;

    me.manage(&web, "stop").await.ok();
    me.until(&web, "stopped").await;
    routed(&node, &web, Some(State::Stopped)).await;
    me.manage(&web, "pause").await.refused(409);
    let stats = me
        .get(&format!("/api/v1/containers/{web}/stats"))
        .await
        .ok();
    assert_eq!(stats["status"], "stopped");
    assert_eq!(
        stats["disk"],
        json!({ "root": {} }),
        "what is not known is not made up"
    );
    me.manage(&web, "start").await.ok();
    me.until(&web, "running").await;
    me.manage(&web, "force-stop").await.ok();
    me.until(&web, "stopped").await;
    assert!(node.fake.asked().contains(&(Act::Kill, id(&web))));
    assert_eq!(me.manage(&web, "explode").await.wrong_field(), "/operation");

    let logs = logs(&me, &web).await;
    assert_eq!(
        logs[..4],
        ["creating", "running", "paused", "running"]
            .map(|status| format!("{status} by user:admin"))
    );
    assert_eq!(logs.last().unwrap(), "stopped by user:admin");

    assert!(
        me.delete(&format!("/api/v1/containers/{web}"))
            .await
            .ok()
            .is_null()
    );
    assert_eq!(state(&node, &web), None, "its URLs are dead at once");
    me.until(&web, "gone").await;
    assert!(node.fake.everything().is_empty());
    me.manage(&web, "start").await.refused(404);
}

#[tokio::test]
async fn creation_answers_before_the_machine_is_made() {
    let world = World::new().await;
    world
        .fake
        .trouble(Act::Create, Moment::Midway, Trouble::Hang, 1);
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    world.fake.hung(1).await;
    assert_eq!(
        me.get(&format!("/api/v1/containers/{web}")).await.ok()["status"],
        "creating"
    );
    routed(&node, &web, Some(State::Creating)).await;
}

#[tokio::test]
async fn what_fails_for_now_is_tried_again_and_what_fails_for_good_is_failed() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    world
        .fake
        .trouble(Act::Start, Moment::Before, Trouble::Transient, 7);
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;

    world
        .fake
        .trouble(Act::Create, Moment::Midway, Trouble::Permanent, 3);
    let bad = me.container(&project, "bad").await;
    me.until(&bad, "failed").await;
    routed(&node, &bad, Some(State::Failed)).await;
    let logs = me
        .get(&format!("/api/v1/containers/{bad}/status-logs"))
        .await
        .ok();
    let reason = logs["logs"][0]["metadata"]["reason"].as_str().unwrap();
    assert!(reason.contains("create failed"), "{reason}");
    // Asked again, it is tried again.
    me.manage(&bad, "start").await.ok();
    me.until(&bad, "running").await;
    // A pause that cannot be had leaves the machine running.
    world
        .fake
        .trouble(Act::Freeze, Moment::Before, Trouble::Permanent, 3);
    me.manage(&bad, "pause").await.ok();
    tokio::time::sleep(Duration::from_millis(200)).await;
    me.until(&bad, "running").await;
    me.manage(&bad, "resume").await.refused(409);
    // A deletion is never given up.
    world
        .fake
        .trouble(Act::Delete, Moment::Midway, Trouble::Permanent, 10);
    me.delete(&format!("/api/v1/containers/{bad}")).await.ok();
    me.until(&bad, "gone").await;
    assert_eq!(node.fake.everything(), [id(&web)]);
}

#[tokio::test]
async fn a_machine_that_dies_is_started_again() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    for _ in 0..3 {
        let before = node
            .fake
            .observe_one(id(&web))
            .await
            .unwrap()
            .unwrap()
            .incarnation;
        node.fake.happen(id(&web), Some(Power::Off));
        loop {
            let seen = node.fake.observe_one(id(&web)).await.unwrap().unwrap();
            if seen.incarnation > before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        me.until(&web, "running").await;
    }
    assert!(
        logs(&me, &web)
            .await
            .contains(&"stopped by system".to_owned())
    );
    // One that a stranger removed is not made again: what was in it would not come back.
    node.fake.happen(id(&web), None);
    me.until(&web, "failed").await;
    assert!(node.fake.everything().is_empty());
    me.delete(&format!("/api/v1/containers/{web}")).await.ok();
    me.until(&web, "gone").await;
}

#[tokio::test]
async fn a_machine_whose_kit_never_answers_is_running_all_the_same() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let server = me.server().await;
    let path = format!("/api/v1/projects/{project}/containers");
    let plain = me
        .post(&path, json!({ "server_id": server, "hoody_kit": false }))
        .await
        .ok();
    let plain = plain["id"].as_str().unwrap();
    assert_eq!(me.until(plain, "running").await["hoody_kit"], false);

    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    me.manage(&web, "stop").await.ok();
    me.until(&web, "stopped").await;
    // Something in the socket's place that is no socket.
    let directory = world.directory.path().join("containers").join(&web);
    std::fs::create_dir_all(directory.join("kit.sock")).unwrap();
    me.manage(&web, "start").await.ok();
    let shown = me.until(&web, "running").await;
    assert_eq!(shown["status"], "running");
    assert_eq!(
        state(&node, &web),
        Some(State::Starting),
        "its URLs still wait for it"
    );
}

#[tokio::test]
async fn orphans_are_removed_and_strangers_are_left_alone() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    me.delete(&format!("/api/v1/containers/{web}")).await.ok();
    me.until(&web, "gone").await;
    let stranger = Id([5; 12]);
    node.fake.happen(stranger, Some(Power::On));
    node.fake.happen(id(&web), Some(Power::Off)); // an engine that finished late
    let remains = Id([6; 12]);
    std::fs::create_dir_all(
        world
            .directory
            .path()
            .join("containers")
            .join(remains.to_string()),
    )
    .unwrap();
    for _ in 0..300 {
        // Strangers are counted when all of a look is done.
        let counted = node.control.metrics.strangers.get() == 1;
        if node.fake.everything() == [stranger] && counted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(node.fake.everything(), [stranger]);
    assert_eq!(node.control.metrics.strangers.get(), 1);
}

#[tokio::test]
async fn settings_reach_the_machine() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    let path = format!("/api/v1/containers/{web}");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA me@here";
    let change = json!({ "name": "shop", "color": "0af", "environment_vars": { "A": "1" }, "ssh_public_key": key,
        "comment": "mine", "autostart": false });
    let changed = me.ask("PATCH", &path).json(change).send().await.ok();
    assert_eq!(changed["color"], "#00AAFF");
    assert_eq!(changed["autostart"], false);
    let env = format!("{path}/env");
    me.put(&env, json!({ "B": "2", "C": "3" })).await.ok();
    me.put(&format!("{env}/D"), json!({ "value": "4" }))
        .await
        .ok();
    me.ask("PATCH", &format!("{env}/D"))
        .json(json!({ "value": "5" }))
        .send()
        .await
        .ok();
    me.delete(&format!("{env}/C")).await.ok();
    me.delete(&format!("{env}/C")).await.refused(404);
    let want = json!({ "A": "1", "B": "2", "D": "5" });
    assert_eq!(me.get(&env).await.ok()["environment_vars"], want);
    for _ in 0..300 {
        let machine = node.fake.machine(id(&web)).unwrap();
        let environment: serde_json::Map<String, Value> = machine
            .environment
            .into_iter()
            .map(|(key, value)| (key, value.into()))
            .collect();
        if Value::from(environment) == want && machine.hostname == "shop" {
            assert_eq!(machine.ssh_public_key.as_deref(), Some(key));
            assert!(!machine.autostart);
            let cleared = me
                .put(&path, json!({ "ssh_public_key": null, "comment": null }))
                .await
                .ok();
            assert!(cleared["ssh_public_key"].is_null() && cleared["comment"].is_null());
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "the machine never learnt: {:?}",
        node.fake.machine(id(&web))
    );
}

#[tokio::test]
async fn what_cannot_be_made_is_refused_with_the_reason() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let server = me.server().await;
    let path = format!("/api/v1/projects/{project}/containers");
    for (extra, field) in [
        (json!({ "name": "a" }), "/name"),
        (json!({ "name": "a b c" }), "/name"),
        (json!({ "name": "../../etc" }), "/name"),
        (json!({ "name": "x".repeat(101) }), "/name"),
        (json!({ "color": "blue" }), "/color"),
        (json!({ "comment": "x".repeat(16_001) }), "/comment"),
        (
            json!({ "environment_vars": { "A B": "1" } }),
            "/environment_vars/A B",
        ),
        (
            json!({ "environment_vars": { "A": 1 } }),
            "/environment_vars/A",
        ),
        (
            json!({ "environment_vars": { "A": "a\u{0}b" } }),
            "/environment_vars/A",
        ),
        (
            json!({ "environment_vars": (0..257).map(|n| (format!("V{n}"), json!(""))).collect::<serde_json::Map<_, _>>() }),
            "/environment_vars",
        ),
        (
            json!({ "ssh_public_key": "ssh-ed25519 AAAA\nssh-rsa AAAA" }),
            "/ssh_public_key",
        ),
        (
            json!({ "container_image": "windows-11" }),
            "/container_image",
        ),
        (
            json!({ "container_image": "a;rm -rf /" }),
            "/container_image",
        ),
        (json!({ "realm_ids": ["zz"] }), "/realm_ids/0"),
        (json!({ "autostart": "maybe" }), "/autostart"),
        (json!({ "server_id": null }), "/server_id"),
    ] {
        let mut body = json!({ "server_id": server, "name": "web" });
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let answer = me.post(&path, body).await;
        let place = answer.wrong_field();
        assert!(
            place == field || place == "/environment_vars",
            "{place} of {extra}"
        );
    }
    me.post(&path, json!({ "name": "web" })).await.refused(400);
    me.post(&path, json!([1])).await.refused(400);
    me.post(&path, json!({ "server_id": "elsewhere" }))
        .await
        .refused(404);
    me.post(&path, json!({ "server_id": server, "kvm": true }))
        .await
        .refused(403);
    let both = json!({ "server_id": server, "prespawn": true, "bypass_prespawn": true });
    assert_eq!(me.post(&path, both).await.wrong_field(), "/bypass_prespawn");
    let nowhere = format!("/api/v1/projects/{}/containers", Id([3; 12]));
    me.post(&nowhere, json!({ "server_id": server }))
        .await
        .refused(404);
    assert_eq!(me.get("/api/v1/projects/xyz").await.wrong_field(), "/id");
    assert!(node.fake.everything().is_empty());

    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA me@here";
    me.post(&path, json!({ "server_id": server, "name": "web", "ssh_public_key": key, "container_image": "Debian:13" })).await.ok();
    assert!(
        me.post(&path, json!({ "server_id": server, "name": "web" }))
            .await
            .refused(409)
            .contains("`web`")
    );
    me.post(
        &path,
        json!({ "server_id": server, "name": "other", "ssh_public_key": key }),
    )
    .await
    .refused(409);
    let made = me
        .post(&path, json!({ "server_id": "node-1", "name": "rand" }))
        .await
        .ok();
    assert_ne!(made["name"], "rand");
    // Bounds of the project.
    let small = me
        .post(
            "/api/v1/projects",
            json!({ "alias": "small", "max_containers": 1 }),
        )
        .await
        .ok();
    let small = format!(
        "/api/v1/projects/{}/containers",
        small["id"].as_str().unwrap()
    );
    me.post(&small, json!({ "server_id": server })).await.ok();
    me.post(&small, json!({ "server_id": server }))
        .await
        .refused(409);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    for n in 0..13 {
        me.project(&format!("p{n:02}")).await;
    }
    let first = me.get("/api/v1/projects/").await.ok();
    assert_eq!(
        first["projects"].as_array().unwrap().len(),
        10,
        "ten where nothing is said"
    );
    assert_eq!(
        first["pagination"],
        json!({ "total": 13, "page": 1, "limit": 10, "totalPages": 2 })
    );
    let mut all = Vec::new();
    for page in 1..=4 {
        let part = me
            .get(&format!(
                "/api/v1/projects?page={page}&limit=5&sort_by=alias&sort_order=asc"
            ))
            .await
            .ok();
        assert_eq!(part["pagination"]["totalPages"], 3);
        all.extend(
            part["projects"]
                .as_array()
                .unwrap()
                .iter()
                .map(|project| project["alias"].as_str().unwrap().to_owned()),
        );
    }
    assert_eq!(all, (0..13).map(|n| format!("p{n:02}")).collect::<Vec<_>>());
    for bad in [
        "page=0",
        "page=x",
        "limit=101",
        "limit=0",
        "limit=1.5",
        "sort_by=color",
        "sort_order=up",
        "page=-1",
    ] {
        let field = me
            .get(&format!("/api/v1/projects?{bad}"))
            .await
            .wrong_field();
        assert_eq!(field, format!("/{}", bad.split('=').next().unwrap()));
    }
}

#[tokio::test]
async fn a_project_goes_with_its_containers() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let path = format!("/api/v1/projects/{project}");
    let changed = me
        .put(
            &path,
            json!({ "alias": "shop", "color": "#abc", "max_containers": 9 }),
        )
        .await
        .ok();
    assert_eq!(
        (changed["alias"].as_str(), changed["color"].as_str()),
        (Some("shop"), Some("#AABBCC"))
    );
    assert_eq!(
        me.put(&path, json!({ "max_containers": null })).await.ok()["max_containers"],
        Value::Null
    );
    assert!(
        me.get(&format!("{path}?include_permissions=true"))
            .await
            .ok()["permissions"]
            .is_array()
    );
    let (one, two) = (
        me.container(&project, "one").await,
        me.container(&project, "two").await,
    );
    me.until(&one, "running").await;
    let listed = me.get(&format!("{path}/containers")).await.ok();
    assert_eq!(listed["pagination"]["total"], 2);
    let stats = me.get(&format!("{path}/stats")).await.ok();
    assert_eq!(stats["summary"]["container_count"], 2);
    let deleted = me
        .delete(&format!("{path}?include_deleted_items=true"))
        .await
        .ok();
    assert_eq!(deleted["deleted"]["containers"], 2);
    assert_eq!(
        deleted["deleted_items"]["containers"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    me.get(&path).await.refused(404);
    me.get(&format!("/api/v1/containers/{two}"))
        .await
        .refused(404);
    for _ in 0..300 {
        if node.fake.everything().is_empty() && node.control.publisher.containers().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(node.fake.everything().is_empty());
    for _ in 0..300 {
        let left = node.control.store.read("count", |db| {
            let all = "SELECT (SELECT count(*) FROM projects) + (SELECT count(*) FROM containers)";
            db.query_row(all, [], |row| row.get::<_, i64>(0))
        });
        if left.await.unwrap() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("rows are left over");
}

#[tokio::test]
async fn a_boot_of_the_host_starts_what_starts_with_it() {
    let world = World::new().await;
    let (auto, manual, paused) = {
        let node = world.start().await;
        let me = node.admin().await;
        let project = me.project("site").await;
        let server = me.server().await;
        let auto = me.container(&project, "auto").await;
        let manual = me
            .post(
                &format!("/api/v1/projects/{project}/containers"),
                json!({ "server_id": server, "autostart": false }),
            )
            .await
            .ok()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let paused = me.container(&project, "paused").await;
        for id in [&auto, &manual, &paused] {
            me.until(id, "running").await;
        }
        me.manage(&paused, "pause").await.ok();
        me.until(&paused, "paused").await;
        let forget = |db: &rusqlite::Transaction<'_>| {
            db.execute("UPDATE node SET value = 'another' WHERE key = 'boot'", [])
        };
        node.control
            .store
            .write("pretend another boot", forget)
            .await
            .unwrap();
        (auto, manual, paused)
    };
    for container in [&auto, &manual, &paused] {
        world.fake.happen(id(container), Some(Power::Off));
    }
    let node = world.start().await;
    let me = node.admin().await;
    me.until(&manual, "stopped").await;
    me.until(&paused, "stopped").await;
    me.until(&auto, "running").await;
    assert_eq!(
        world
            .fake
            .observe_one(id(&manual))
            .await
            .unwrap()
            .unwrap()
            .power,
        Power::Off
    );
}

#[tokio::test]
async fn facts_of_the_node() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let server = me.server().await;
    assert_eq!(
        me.get(&format!("/api/v1/servers/{server}")).await.ok()["server"]["name"],
        "node-1"
    );
    assert_eq!(
        me.get(&format!("/api/v1/rentals/{server}")).await.ok()["server_id"],
        server.as_str()
    );
    assert_eq!(
        me.get("/api/v1/rentals").await.ok()[0]["server_id"],
        server.as_str()
    );
    assert_eq!(me.get("/api/v1/servers/available").await.ok(), json!([]));
    me.get(&format!("/api/v1/servers/{}", Id([1; 12])))
        .await
        .refused(404);
    let images = me.get("/api/v1/images/public?os=debian").await.ok();
    let image = images["images"][0]["id"].as_str().unwrap();
    assert_eq!(
        me.get(&format!("/api/v1/images/public/{image}")).await.ok()["alias"],
        "debian-13"
    );
    assert_eq!(
        me.get("/api/v1/images/user").await.ok()["pagination"]["total"],
        1
    );
    assert_eq!(
        me.get("/api/v1/images/public?search=windows").await.ok()["pagination"]["total"],
        0
    );

    let ip = node
        .ask("GET", "/api/v1/ip")
        .from("192.0.2.7")
        .header("cookie", "secret")
        .send()
        .await
        .ok();
    assert_eq!(
        (ip["ip"].as_str(), &ip["is_logged"]),
        (Some("192.0.2.7"), &json!(false))
    );
    assert!(!ip.to_string().contains("secret"));
    let ip = me.get("/api/v1/ip").await.ok();
    assert_eq!(ip["is_logged"], true);
    assert!(
        !ip.to_string().contains(&me.token),
        "a token is not sent back"
    );

    let keys = node.ask("GET", "/api/v1/meta/public-key").send().await.ok();
    assert_eq!(keys["active_kid"], keys["keys"][0]["kid"]);
    assert_eq!(
        keys["keys"][0]["public_key_hex"].as_str().unwrap().len(),
        64
    );
    assert!(
        node.ask("GET", "/api/v1/meta/social-stats")
            .send()
            .await
            .ok()["github"]
            .is_null()
    );
    assert_eq!(
        node.ask("GET", "/api/v1/nothing").send().await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn new_bounds_reach_machines_that_are_there() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let web = me.container(&me.project("site").await, "web").await;
    me.until(&web, "running").await;
    drop(node);
    let updates = || {
        let asked = world.fake.asked();
        asked.iter().filter(|(act, _)| *act == Act::Update).count()
    };
    let mut config = world.config();
    config.machine_limits.memory = Some(123 << 20);
    let node = world.start_with(config.clone()).await;
    let me = node.admin().await;
    for _ in 0..1000 {
        if updates() > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    me.until(&web, "running").await;
    let machine = world.fake.machine(web.parse().unwrap()).unwrap();
    assert_eq!(machine.limits, config.machine_limits);
    drop(node);
    // the same bounds once more are no news
    let before = updates();
    let node = world.start_with(config).await;
    let me = node.admin().await;
    let other = me.container(&me.project("other").await, "other").await;
    me.until(&other, "running").await;
    assert_eq!(updates(), before);
}

#[tokio::test]
async fn a_container_has_limits_of_its_own() {
    let world = World::new().await;
    let mut config = world.config();
    config.machine_limits.memory = Some(1 << 30);
    config.machine_limits.processes = Some(4096);
    let node = world.start_with(config).await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let path = format!("/api/v1/projects/{project}/containers");
    let body = json!({
        "server_id": me.server().await, "name": "small", "cpus": 0.5, "memory": "256MiB",
    });
    let small = me.post(&path, body).await.ok();
    let expected = json!({ "cpus": 0.5, "memory": 268_435_456, "disk": null, "processes": 4096 });
    assert_eq!(small["limits"], expected);
    let id = small["id"].as_str().unwrap();
    assert_eq!(me.until(id, "running").await["limits"], expected);
    let told = || world.fake.machine(id.parse().unwrap()).unwrap().limits;
    let as_told = |cpu, memory, disk, processes| Limits {
        cpu,
        memory,
        disk,
        processes,
    };
    assert_eq!(
        told(),
        as_told(Some(500), Some(256 << 20), None, Some(4096))
    );

    // What is not named stays, null gives up, and the machine is told while it runs.
    let one = format!("/api/v1/containers/{id}");
    let body = json!({ "cpus": null, "disk": "2GiB", "processes": 500 });
    let changed = me.ask("PATCH", &one).json(body).send().await.ok();
    let expected =
        json!({ "cpus": null, "memory": 268_435_456, "disk": 2_147_483_648_u64, "processes": 500 });
    assert_eq!(changed["limits"], expected);
    let wanted = as_told(None, Some(256 << 20), Some(2 << 30), Some(500));
    for _ in 0..500 {
        if told() == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(told(), wanted);
    me.until(id, "running").await;

    // A copy is as small as its source.
    let body = json!({ "target_project_id": project, "target_server_id": me.server().await, "name": "copy" });
    let copy = me.post(&format!("{one}/copy"), body).await.ok();
    let copy = copy["id"].as_str().unwrap();
    assert_eq!(me.until(copy, "stopped").await["limits"], expected);

    for (field, value) in [
        ("cpus", json!(0)),
        ("cpus", json!(-1)),
        ("cpus", json!(4000)),
        ("cpus", json!("two")),
        ("memory", json!("127MiB")),
        ("memory", json!("2GiB")), // more than any has here
        ("memory", json!("lots")),
        ("memory", json!(-1)),
        ("disk", json!(1000)),
        ("processes", json!(1)),
        ("processes", json!(5000)),
    ] {
        let body = json!({ field: value });
        let answer = me.ask("PATCH", &one).json(body.clone()).send().await;
        assert_eq!(answer.wrong_field(), format!("/{field}"), "{body}");
    }
    // What is there has to fit.
    world.fake.fill(3 << 30);
    let body = json!({ "disk": "2GiB", "memory": "300MiB" });
    me.ask("PATCH", &one).json(body).send().await.ok(); // as before
    let body = json!({ "disk": "1GiB" });
    let said = me.ask("PATCH", &one).json(body).send().await.refused(409);
    assert!(said.contains("3 GiB of disk"), "{said}");
    me.manage(id, "stop").await.ok();
    me.until(id, "stopped").await;

    // A server that gives less than before gives less to all.
    drop(node);
    let mut config = world.config();
    config.machine_limits.memory = Some(200 << 20);
    let node = world.start_with(config).await;
    let me = node.admin().await;
    let shown = me.get(&one).await.ok();
    assert_eq!(shown["limits"]["memory"], 200 << 20);
}

#[tokio::test]
async fn variables_have_two_names() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let web = me.container(&me.project("site").await, "web").await;
    let one = format!("/api/v1/containers/{web}");
    for name in ["environment_vars", "env_vars"] {
        let body = json!({ name: { "NAME": name } });
        let changed = me.ask("PATCH", &one).json(body).send().await.ok();
        assert_eq!(changed["environment_vars"], json!({ "NAME": name }));
    }
    let both = json!({ "environment_vars": {}, "env_vars": {} });
    let answer = me.ask("PATCH", &one).json(both).send().await;
    assert_eq!(answer.wrong_field(), "/env_vars");
}

#[tokio::test]
async fn a_claim_says_who_may_use_a_container_for_a_while() {
    use base64::Engine;
    use ed25519_dalek::{Signature, VerifyingKey};
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let web = me.container(&me.project("site").await, "web").await;
    let path = format!("/api/v1/containers/{web}/authorize");
    let made = me.post(&path, json!({})).await.ok();
    let again = me.post(&path, json!({})).await.ok();
    assert_eq!(
        (&made["container_id"], &made["expires_in"]),
        (&json!(web), &json!(300))
    );

    let keys = node.ask("GET", "/api/v1/meta/public-key").send().await.ok();
    let key = &keys["keys"][0];
    let claim = &made["container_claim"];
    assert_eq!(claim["kid"], key["kid"]);
    let bits = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let public: [u8; 32] = bits(&key["public_key_hex"]).try_into().unwrap();
    let signature = Signature::from_slice(&bits(&claim["signature_hex"])).unwrap();
    let payload = claim["payload_b64"].as_str().unwrap();
    let key = VerifyingKey::from_bytes(&public).unwrap();
    key.verify_strict(payload.as_bytes(), &signature).unwrap();
    let other = again["container_claim"]["payload_b64"].as_str().unwrap();
    assert_ne!(payload, other, "each is one of its own");
    key.verify_strict(other.as_bytes(), &signature).unwrap_err();

    let payload = base64::engine::general_purpose::STANDARD.decode(payload);
    let said: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
    assert_eq!(
        (&said["container_id"], &said["project_id"]),
        (&json!(web), &made["project_id"])
    );
    let lasts = said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap();
    assert_eq!(lasts, 300);

    let strange = "/api/v1/containers/0123456789abcdef01234567/authorize";
    me.post(strange, json!({})).await.refused(404);
    node.ask("POST", &path).send().await.refused(401);
}
