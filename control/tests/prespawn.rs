//! Machines that are kept ready: whose they become, who sees them, and what is left of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::collections::HashSet;
use std::time::Duration;

use control::Config;
use control::prespawn::{Kind, Pool, Settings};
use control::runtime::fake::{Act, Moment, Trouble};
use control::runtime::{Limits, Power, Runtime};
use control::store::prespawned::{self, Member, State};
use routes::Id;
use routes::table::State as At;
use serde_json::{Value, json};
use support::{Me, Node, World};

const MB: u64 = 1 << 20;

fn pool(size: usize) -> Settings {
    let kind = Kind {
        image: "debian-13".to_owned(),
        kit: true,
        limits: Limits::default(),
    };
    Settings {
        pools: vec![Pool { kind, size }],
        memory: 1000 * MB,
    }
}

fn config(world: &World, prespawn: Settings) -> Config {
    Config {
        prespawn,
        ..world.config()
    }
}

async fn members(node: &Node) -> Vec<Member> {
    let listed = node.control.store.read("list", prespawned::all).await;
    listed.unwrap()
}

/// Wait until so many can be claimed, and nothing else is kept.
async fn filled(node: &Node, size: usize) -> Vec<Member> {
    for _ in 0..1000 {
        let members = members(node).await;
        let ready = members.iter().all(|member| member.state == State::Ready);
        let standing = node.control.prespawn.standing();
        let told: usize = standing.pools.iter().map(|pool| pool.ready).sum();
        if ready && members.len() == size && told == size && standing.doing.is_none() {
            return members;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never {size} ready: {:?}", members(node).await);
}

async fn ask_for(me: &Me<'_>, project: &str, more: Value) -> Value {
    let mut body = json!({ "server_id": me.server().await });
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    me.post(&format!("/api/v1/projects/{project}/containers"), body)
        .await
        .ok()
}

fn id(container: &Value) -> Id {
    container["id"].as_str().unwrap().parse().unwrap()
}

/// What its status logs say of it, the oldest first: status, and whether it had one or why not.
async fn logs(me: &Me<'_>, container: Id) -> Vec<(String, String)> {
    let path = format!("/api/v1/containers/{container}/status-logs?limit=100&sort_order=asc");
    let logs = me.get(&path).await.ok();
    let said = |log: &Value| {
        let metadata = &log["metadata"];
        let why = metadata["reason"]
            .as_str()
            .or(metadata["prespawn"].as_str());
        (
            log["to_status"].as_str().unwrap().to_owned(),
            why.unwrap_or_default().to_owned(),
        )
    };
    logs["logs"].as_array().unwrap().iter().map(said).collect()
}

/// Rows of containers and pools, and the world, know the same machines; the proxy knows those of
/// containers alone.
async fn agree(node: &Node) {
    let mut last = String::new();
    for _ in 0..1000 {
        let read = node.control.store.read("list", |db| {
            let rows = control::store::containers::all(db)?;
            let containers: Vec<Id> = rows.iter().map(|row| row.id).collect();
            let open = rows.iter().any(|row| row.claim.is_some());
            Ok((containers, open, prespawned::ids(db)?))
        });
        let (mut containers, open, members) = read.await.unwrap();
        containers.sort_unstable();
        let mut places = node.control.publisher.containers();
        places.sort_unstable();
        let mut all = [containers.clone(), members].concat();
        all.sort_unstable();
        let world = node.fake.everything();
        if all == world && containers == places && !open {
            return;
        }
        last = format!("{all:?} {world:?} {places:?} {open}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("something was left over: {last}");
}

#[tokio::test]
async fn a_container_is_given_a_machine_that_was_ready() {
    let world = World::new().await;
    let node = world.start_with(config(&world, pool(1))).await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let [member] = filled(&node, 1).await.try_into().unwrap();
    let born_as = node.fake.identity(member.id);
    let asked = json!({
        "name": "web", "prespawn": true, "environment_vars": { "A": "1" },
        "ssh_public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA me@here", "autostart": true,
    });
    let web = ask_for(&me, &project, asked).await;
    assert_eq!(id(&web), member.id);
    assert_eq!(web["status"], "claiming");
    assert_eq!(web["prespawn"], true);
    let shown = me.until(web["id"].as_str().unwrap(), "running").await;
    assert_eq!(shown["project_id"], project.as_str());
    assert_eq!(shown["name"], "web");
    agree(&node).await;
    // It was not made or started again, and is who it was born as.
    let of_it = |act: Act| {
        let asked = node.fake.asked();
        asked.iter().filter(|one| **one == (act, member.id)).count()
    };
    assert_eq!((of_it(Act::Create), of_it(Act::Start)), (1, 1));
    assert_eq!(node.fake.identity(member.id), born_as);
    let machine = node.fake.machine(member.id).unwrap();
    assert_eq!(machine.hostname, "web");
    assert_eq!(machine.project.to_string(), project);
    assert_eq!(machine.environment, [("A".to_owned(), "1".to_owned())]);
    assert!(machine.ssh_public_key.is_some() && machine.autostart);
    assert_eq!(
        logs(&me, member.id).await,
        [
            ("claiming".to_owned(), "claimed".to_owned()),
            ("running".to_owned(), String::new())
        ]
    );
    // Another is ready for the next, which asks for nothing.
    let [next] = filled(&node, 1).await.try_into().unwrap();
    assert_ne!(next.id, member.id);
    let db = ask_for(&me, &project, json!({ "name": "data" })).await;
    assert_eq!(id(&db), next.id);
    me.until(db["id"].as_str().unwrap(), "running").await;
    assert_ne!(node.fake.identity(next.id), born_as);
    // It lives like any other.
    let db = db["id"].as_str().unwrap();
    for (verb, status) in [
        ("stop", "stopped"),
        ("start", "running"),
        ("pause", "paused"),
    ] {
        me.manage(db, verb).await.ok();
        me.until(db, status).await;
    }
    me.delete(&format!("/api/v1/containers/{db}")).await.ok();
    me.until(db, "gone").await;
    agree(&node).await;
}

#[tokio::test]
async fn where_there_is_none_one_is_made_and_the_logs_say_why() {
    let world = World::new().await;
    let node = world.start_with(config(&world, pool(0))).await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let none = ask_for(&me, &project, json!({ "prespawn": true })).await;
    assert_eq!(
        (&none["status"], &none["prespawn"]),
        (&json!("creating"), &json!(false))
    );
    me.until(none["id"].as_str().unwrap(), "running").await;
    let said = &logs(&me, id(&none)).await[0];
    assert!(said.1.contains("keeps no machines ready"), "{said:?}");
    // Nobody is told of what they did not ask for.
    let plain = ask_for(&me, &project, json!({})).await;
    assert_eq!(logs(&me, id(&plain)).await[0].1, "");
    drop(node);

    let node = world.start_with(config(&world, pool(1))).await;
    let me = node.admin().await;
    let [member] = filled(&node, 1).await.try_into().unwrap();
    for (body, why) in [
        (json!({ "bypass_prespawn": true }), ""),
        (json!({ "hoody_kit": false }), ""),
        (
            json!({ "hoody_kit": false, "prespawn": true }),
            "without the kit",
        ),
        (json!({ "ramdisk": false }), ""),
        (
            json!({ "ramdisk": false, "prespawn": true }),
            "have a disk in memory",
        ),
    ] {
        let made = ask_for(&me, &project, body.clone()).await;
        assert_eq!(made["status"], "creating", "{body}");
        let said = &logs(&me, id(&made)).await[0].1;
        assert!(
            said.contains(why) && said.is_empty() == why.is_empty(),
            "{body}: {said}"
        );
    }
    assert_eq!(members(&node).await, [member]);
    // The pool is empty while its next is being made.
    node.fake
        .trouble(Act::Create, Moment::Before, Trouble::Hang, 1);
    let first = ask_for(&me, &project, json!({ "container_image": "debian" })).await;
    assert_eq!(first["status"], "claiming");
    node.fake.hung(1).await;
    let second = ask_for(&me, &project, json!({})).await;
    assert_eq!(second["status"], "creating");
    me.until(second["id"].as_str().unwrap(), "running").await;
    let said = &logs(&me, id(&second)).await[0].1;
    assert!(said.contains("no machine was ready"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_are_given_the_same() {
    let world = World::new().await;
    let node = world.start_with(config(&world, pool(4))).await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let ready: HashSet<Id> = filled(&node, 4).await.iter().map(|one| one.id).collect();
    let asks = (0..10).map(|_| ask_for(&me, &project, json!({})));
    let made = futures::future::join_all(asks).await;
    let ids: HashSet<Id> = made.iter().map(id).collect();
    assert_eq!(ids.len(), 10);
    let claimed: HashSet<Id> = made
        .iter()
        .filter(|one| one["prespawn"] == true)
        .map(id)
        .collect();
    assert_eq!(claimed, ready);
    let mut identities = HashSet::new();
    for one in &made {
        me.until(one["id"].as_str().unwrap(), "running").await;
        assert!(identities.insert(node.fake.identity(id(one)).unwrap()));
    }
    filled(&node, 4).await;
    agree(&node).await;
}

#[tokio::test]
async fn what_is_kept_ready_is_nobodys() {
    let world = World::new().await;
    let node = world.start_with(config(&world, pool(2))).await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let ready = filled(&node, 2).await;
    let web = ask_for(&me, &project, json!({ "bypass_prespawn": true })).await;
    me.until(web["id"].as_str().unwrap(), "running").await;
    for member in &ready {
        assert_eq!(node.control.publisher.get(member.id), None);
        for path in ["", "/stats", "/status-logs", "/env", "/snapshots"] {
            let path = format!("/api/v1/containers/{}{path}", member.id);
            me.get(&path).await.refused(404);
        }
        let path = format!("/api/v1/containers/{}", member.id);
        me.delete(&path).await.refused(404);
        me.manage(&member.id.to_string(), "start")
            .await
            .refused(404);
    }
    let list = async |me: &Me<'_>, query: &str| {
        let listed = me.get(&format!("/api/v1/containers/{query}")).await.ok();
        let total = listed["pagination"]["total"].as_u64().unwrap();
        let all = listed["containers"].as_array().unwrap().clone();
        (all, total)
    };
    let (all, total) = list(&me, "").await;
    assert_eq!((all.len(), total), (1, 1));
    let (all, total) = list(&me, "?include_prespawn=true").await;
    assert_eq!((all.len(), total), (3, 3));
    assert_eq!(all[0]["id"], web["id"]);
    for shown in &all[1..] {
        assert_eq!(
            (&shown["status"], &shown["prespawn"]),
            (&json!("paused"), &json!(true))
        );
        assert!(shown.get("project_id").is_none());
        // Its own id will be a key to somebody's URLs.
        assert!(ready.iter().all(|member| member.id != id(shown)), "{shown}");
        me.get(&format!("/api/v1/containers/{}", id(shown)))
            .await
            .refused(404);
    }
    let (first, _) = list(&me, "?include_prespawn=true&limit=2").await;
    let (second, total) = list(&me, "?include_prespawn=true&limit=2&page=2").await;
    assert_eq!((first.len(), second.len(), total), (2, 1, 3));
    assert_ne!(first[1]["id"], second[0]["id"]);
    let (none, _) = list(&me, "?include_prespawn=true&limit=2&page=3").await;
    assert!(none.is_empty());
    let path = format!("/api/v1/projects/{project}/containers?include_prespawn=true");
    let listed = me.get(&path).await.ok();
    assert_eq!(listed["containers"].as_array().unwrap().len(), 1);
    // Who may not see what the node works at, or is within a realm, sees none.
    let token = json!({ "alias": "reader", "permissions": { "containers": { "read": true } } });
    let token = me.post("/api/v1/auth/tokens", token).await.ok();
    let reader = node.with(token["token"].as_str().unwrap());
    assert_eq!(list(&reader, "?include_prespawn=true").await.1, 1);
    let within = me.within(Id([9; 12]));
    assert_eq!(list(&within, "?include_prespawn=true").await.1, 0);
    // They are shown to the administrator as work of the node.
    let tasks = me.get("/api/v1/tasks").await.ok();
    let pool = &tasks["prespawn"]["pools"][0];
    assert_eq!((&pool["size"], &pool["ready"]), (&json!(2), &json!(2)));
    assert!(!tasks.to_string().contains(&ready[0].id.to_string()));
    let images = me.get("/api/v1/images/public").await.ok();
    assert_eq!(images["images"][0]["prespawn"], true);
    // And count for no bound of anybody's.
    let path = format!("/api/v1/projects/{project}");
    me.put(&path, json!({ "max_containers": 2 })).await.ok();
    let second = ask_for(&me, &project, json!({})).await;
    assert_eq!(second["prespawn"], true);
    let body = json!({ "server_id": me.server().await });
    me.post(&format!("{path}/containers"), body)
        .await
        .refused(409);
    filled(&node, 2).await;
    agree(&node).await;
}

#[tokio::test]
async fn what_is_out_of_date_is_made_anew() {
    let world = World::new().await;
    world.fake.hold(30 * MB);
    let mut old;
    {
        let node = world.start_with(config(&world, pool(2))).await;
        old = filled(&node, 2).await;
        // Another image, or kit.
        world.fake.publish("next");
        let me = node.admin().await;
        let project = me.project("site").await;
        for _ in 0..500 {
            if members(&node).await.iter().all(|one| !old.contains(one)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let new = filled(&node, 2).await;
        assert!(new.iter().all(|one| !old.contains(one)));
        let web = ask_for(&me, &project, json!({})).await;
        assert_eq!(web["prespawn"], true);
        old = filled(&node, 2).await;
    }
    {
        // They outlive the control that made them,
        let node = world.start_with(config(&world, pool(2))).await;
        assert_eq!(filled(&node, 2).await, old);
    }
    {
        // but not a change of what every machine may take,
        let limits = Limits {
            memory: Some(512 * MB),
            ..Limits::default()
        };
        let node = world
            .start_with(Config {
                machine_limits: limits,
                ..config(&world, pool(2))
            })
            .await;
        let new = loop {
            let new = filled(&node, 2).await;
            if new.iter().all(|one| !old.contains(one)) {
                break new;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        for one in &new {
            assert_eq!(world.fake.machine(one.id).unwrap().limits, limits);
        }
    }
    // nor one of the pools.
    let node = world.start_with(config(&world, pool(1))).await;
    filled(&node, 1).await;
    drop(node);
    let node = world.start().await;
    for _ in 0..500 {
        if members(&node).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(members(&node).await, []);
    agree(&node).await;
    assert_eq!(world.fake.everything().len(), 1); // the container
}

#[tokio::test]
async fn they_hold_no_more_memory_than_they_may() {
    let world = World::new().await;
    world.fake.hold(40 * MB);
    let tight = |megabytes| Settings {
        memory: megabytes * MB,
        ..pool(5)
    };
    let node = world.start_with(config(&world, tight(130))).await;
    filled(&node, 3).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    filled(&node, 3).await;
    let standing = node.control.prespawn.standing();
    assert_eq!(standing.memory, 120 * MB);
    drop(node);
    // Less is allowed by now.
    let node = world.start_with(config(&world, tight(100))).await;
    filled(&node, 2).await;
    agree(&node).await;
    drop(node);
    // What nobody has measured yet is taken for more than it is.
    let node = world.start_with(config(&world, tight(40))).await;
    filled(&node, 1).await;
    drop(node);
    let node = world.start_with(config(&world, tight(39))).await;
    filled(&node, 0).await;
    agree(&node).await;
}

/// The machine went off, or away, between the look at it and its claim; or it cannot be made the
/// container.
#[tokio::test]
async fn a_machine_that_is_of_no_use_is_made_anew() {
    for what in ["off", "gone", "broken", "refuses", "stumbles"] {
        let world = World::new().await;
        let node = world.start_with(config(&world, pool(1))).await;
        let me = node.admin().await;
        let project = me.project("site").await;
        let [member] = filled(&node, 1).await.try_into().unwrap();
        let born_as = node.fake.identity(member.id);
        node.fake.write(member.id, "of", "before");
        match what {
            "off" => node.fake.happen(member.id, Some(Power::Off)),
            "gone" => node.fake.happen(member.id, None),
            "broken" => node.fake.happen(member.id, Some(Power::Broken)),
            "refuses" => {
                node.fake
                    .trouble(Act::Claim, Moment::Before, Trouble::Permanent, 1);
            }
            _ => node
                .fake
                .trouble(Act::Claim, Moment::After, Trouble::Transient, 9),
        }
        let body = json!({ "name": "web", "environment_vars": { "A": "1" } });
        let web = ask_for(&me, &project, body).await;
        let shown = me.until(web["id"].as_str().unwrap(), "running").await;
        if web["prespawn"] == true {
            // The pool had not noticed yet.
            assert_eq!(shown["prespawn"], false, "{what}");
            let said = logs(&me, member.id).await;
            assert!(
                said.iter()
                    .any(|(status, why)| status == "creating" && !why.is_empty()),
                "{what}: {said:?}"
            );
            assert_ne!(node.fake.identity(member.id), born_as, "{what}");
            assert_eq!(node.fake.read(member.id, "of"), None, "{what}");
        } else {
            assert!(!matches!(what, "refuses" | "stumbles"));
        }
        let machine = node.fake.machine(id(&web)).unwrap();
        assert_eq!(machine.hostname, "web", "{what}");
        assert_eq!(machine.environment.len(), 1, "{what}");
        filled(&node, 1).await;
        agree(&node).await;
    }
}

/// After the host was booted all are off: they are made anew.
#[tokio::test]
async fn none_outlives_the_host() {
    let world = World::new().await;
    let node = world.start_with(config(&world, pool(2))).await;
    let before = filled(&node, 2).await;
    drop(node);
    for member in &before {
        world.fake.happen(member.id, Some(Power::Off));
    }
    let node = world.start_with(config(&world, pool(2))).await;
    for _ in 0..500 {
        if members(&node).await.iter().all(|one| !before.contains(one)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let after = filled(&node, 2).await;
    assert!(after.iter().all(|one| !before.contains(one)));
    agree(&node).await;
}

/// Whoever asks for something else meanwhile has it.
#[tokio::test]
async fn a_container_that_is_being_claimed_does_what_it_is_told() {
    for (verb, status) in [("stop", "stopped"), ("delete", "gone"), ("env", "running")] {
        let world = World::new().await;
        let node = world.start_with(config(&world, pool(1))).await;
        let me = node.admin().await;
        let project = me.project("site").await;
        filled(&node, 1).await;
        node.fake
            .trouble(Act::Claim, Moment::After, Trouble::Transient, 1);
        let web = ask_for(&me, &project, json!({ "environment_vars": { "A": "1" } })).await;
        assert_eq!(web["status"], "claiming");
        let (at, web) = (id(&web), web["id"].as_str().unwrap().to_owned());
        let path = format!("/api/v1/containers/{web}");
        match verb {
            "delete" => drop(me.delete(&path).await.ok()),
            "env" => drop(
                me.put(&format!("{path}/env"), json!({ "B": "2" }))
                    .await
                    .ok(),
            ),
            verb => drop(me.manage(&web, verb).await.ok()),
        }
        me.until(&web, status).await;
        agree(&node).await;
        if verb == "env" {
            let has = || node.fake.machine(at).unwrap().environment;
            for _ in 0..500 {
                if has().len() == 2 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(has().len(), 2);
        }
    }
}

/// Control is killed at every boundary of every step that a pool or a claim takes; the next one ends
/// in the same state, and nothing is left over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_boundary() {
    let mut all = tokio::task::JoinSet::new();
    for moment in Moment::ALL {
        for act in [Act::Create, Act::Start, Act::Settle, Act::Freeze] {
            all.spawn(killed_while_filling(act, moment));
        }
        all.spawn(killed_while_emptying(moment));
        for act in [Act::Claim, Act::Adopt] {
            all.spawn(killed_while_claiming(act, moment));
        }
    }
    assert_eq!(all.len(), 21);
    while let Some(result) = all.join_next().await {
        result.unwrap();
    }
}

async fn killed_while_filling(act: Act, moment: Moment) {
    let world = World::new().await;
    {
        let _node = world.start_with(config(&world, pool(2))).await;
        world.fake.trouble(act, moment, Trouble::Hang, 1);
        world.fake.hung(1).await;
    }
    let node = world.start_with(config(&world, pool(2))).await;
    filled(&node, 2).await;
    agree(&node).await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = ask_for(&me, &project, json!({})).await;
    assert_eq!(web["prespawn"], true, "{act:?} {moment:?}");
    me.until(web["id"].as_str().unwrap(), "running").await;
    agree(&node).await;
}

async fn killed_while_emptying(moment: Moment) {
    let world = World::new().await;
    {
        let node = world.start_with(config(&world, pool(2))).await;
        filled(&node, 2).await;
    }
    {
        let _node = world.start().await;
        world.fake.trouble(Act::Delete, moment, Trouble::Hang, 1);
        world.fake.hung(1).await;
    }
    let node = world.start().await;
    for _ in 0..500 {
        if members(&node).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    agree(&node).await;
    assert_eq!(world.fake.everything(), []);
}

async fn killed_while_claiming(act: Act, moment: Moment) {
    let world = World::new().await;
    let web;
    {
        let node = world.start_with(config(&world, pool(1))).await;
        let me = node.admin().await;
        let project = me.project("site").await;
        filled(&node, 1).await;
        world.fake.trouble(act, moment, Trouble::Hang, 1);
        let body = json!({ "name": "web", "environment_vars": { "A": "1" } });
        web = ask_for(&me, &project, body).await;
        assert_eq!(web["prespawn"], true);
        world.fake.hung(1).await;
    }
    let node = world.start_with(config(&world, pool(1))).await;
    let me = node.admin().await;
    let shown = me.until(web["id"].as_str().unwrap(), "running").await;
    assert_eq!(shown["prespawn"], true, "{act:?} {moment:?}");
    agree(&node).await;
    let (at, seen) = (id(&web), world.fake.observe_one(id(&web)).await.unwrap());
    assert_eq!(
        seen.map(|seen| (seen.power, seen.incarnation)),
        Some((Power::On, 1))
    );
    let machine = world.fake.machine(at).unwrap();
    assert_eq!(machine.hostname, "web");
    assert_eq!(machine.environment, [("A".to_owned(), "1".to_owned())]);
    let place = node.control.publisher.get(at).unwrap();
    assert_eq!(place.state, At::Running);
    filled(&node, 1).await;
    agree(&node).await;
}

/// A pool that cannot be filled keeps nobody from having a container.
#[tokio::test]
async fn a_pool_that_cannot_be_filled_says_so() {
    let world = World::new().await;
    let settings = Settings {
        pools: vec![Pool {
            kind: Kind {
                image: "windows-11".to_owned(),
                kit: true,
                limits: Limits::default(),
            },
            size: 1,
        }],
        memory: 1000 * MB,
    };
    let node = world.start_with(config(&world, settings)).await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = ask_for(&me, &project, json!({})).await;
    me.until(web["id"].as_str().unwrap(), "running").await;
    for _ in 0..500 {
        let tasks = me.get("/api/v1/tasks").await.ok();
        if tasks["prespawn"]["failure"]
            .as_str()
            .is_some_and(|said| said.contains("no image `windows-11`"))
        {
            return agree(&node).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody is told");
}

/// The database is an older copy: what it takes for ready is somebody's by now.
#[tokio::test]
async fn what_an_old_database_takes_for_ready_is_left_alone() {
    let world = World::new().await;
    let database = world.config().database();
    let copy = world.directory.path().join("copy.db");
    let web;
    {
        let node = world.start_with(config(&world, pool(1))).await;
        filled(&node, 1).await;
        let at = copy.to_str().unwrap().to_owned();
        let copied = node.control.store.read("copy", move |db| {
            db.execute("VACUUM INTO ?1", [at]).map(drop)
        });
        copied.await.unwrap();
        let me = node.admin().await;
        let project = me.project("site").await;
        web = ask_for(&me, &project, json!({})).await;
        assert_eq!(web["prespawn"], true);
        me.until(web["id"].as_str().unwrap(), "running").await;
        agree(&node).await;
        node.fake.write(id(&web), "mine", "1");
        me.manage(web["id"].as_str().unwrap(), "pause").await.ok();
        me.until(web["id"].as_str().unwrap(), "paused").await;
    }
    for more in ["-wal", "-shm"] {
        let beside = format!("{}{more}", database.display());
        std::fs::remove_file(beside).ok();
    }
    std::fs::rename(&copy, &database).unwrap();
    let node = world.start_with(config(&world, pool(1))).await;
    let members = loop {
        let members = members(&node).await;
        if members.iter().all(|member| member.id != id(&web)) && !members.is_empty() {
            break filled(&node, 1).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_ne!(members[0].id, id(&web));
    let me = node.admin().await;
    let project = me.project("other").await;
    let other = ask_for(&me, &project, json!({})).await;
    assert_ne!(id(&other), id(&web));
    tokio::time::sleep(Duration::from_millis(700)).await; // sweeps
    assert_eq!(node.fake.read(id(&web), "mine").as_deref(), Some("1"));
}

/// Containers that are processes start as they are asked for.
#[tokio::test]
async fn a_runtime_that_keeps_none_says_so() {
    use control::runtime::local::{Local, Settings};
    let world = World::new().await;
    let settings = Settings::new(world.directory.path().join("processes"), "/bin/false");
    let local = Local::open(settings).await.unwrap();
    let node = world
        .start_on(config(&world, pool(2)), std::sync::Arc::new(local))
        .await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = ask_for(&me, &project, json!({ "prespawn": true })).await;
    assert_eq!(web["status"], "creating");
    let said = &logs(&me, id(&web)).await[0].1;
    assert_eq!(said, "the runtime `local` keeps no machines ready");
    let plain = ask_for(&me, &project, json!({})).await;
    assert_eq!(logs(&me, id(&plain)).await[0].1, "");
    assert_eq!(members(&node).await, []);
    let tasks = me.get("/api/v1/tasks").await.ok();
    assert_eq!(tasks["prespawn"]["pools"], json!([]));
}
