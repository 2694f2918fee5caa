//! What containers see of one another, whatever happens meanwhile: control is killed at every
//! boundary, directories go, containers go, hosts boot. In the end everybody sees what the database
//! says, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::runtime::fake::{Act, Moment, Trouble};
use control::runtime::{Share, Shares};
use http::StatusCode;
use serde_json::{Value, json};
use support::{Answer, Me, Node, World};

/// Containers of one project, all of them running.
async fn containers(me: &Me<'_>, names: &[&str]) -> (String, Vec<String>) {
    let project = me.project("site").await;
    let mut all = Vec::new();
    for name in names {
        let id = me.container(&project, name).await;
        me.until(&id, "running").await;
        all.push(id);
    }
    (project, all)
}

fn offers(source: &str) -> String {
    format!("/api/v1/containers/{source}/storage/shares")
}

async fn patch(me: &Me<'_>, path: &str, body: Value) -> Answer {
    me.ask("PATCH", path).json(body).send().await
}

/// Offer a directory to a container or project.
async fn offer(me: &Me<'_>, source: &str, target: (&str, &str), alias: &str) -> String {
    let body = json!({
        "source_path": "/srv", target.0: target.1, "mode": "readonly", "alias": alias,
    });
    let made = me.post(&offers(source), body).await.ok();
    made["id"].as_str().unwrap().to_owned()
}

const CONTAINER: &str = "target_container_id";
const PROJECT: &str = "target_project_id";

/// What the database says: of each container that is not going, which shares by which names.
async fn wanted(node: &Node) -> BTreeMap<String, BTreeMap<String, bool>> {
    let rows = node
        .control
        .store
        .read("read the shares", |db| {
            let mut statement = db.prepare(
                "SELECT target.id, ifnull(alias, shares.id), writable FROM shares, containers target
                 WHERE (target.id = target_container_id
                     OR (target.project_id = target_project_id AND target.id <> shares.source_id))
                 AND shares.enabled AND target.wants <> 'gone'
                 AND NOT EXISTS (SELECT 1 FROM share_mounts WHERE share_id = shares.id
                     AND container_id = target.id AND NOT mount)",
            )?;
            let rows = statement.query_map([], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, bool>(2)?,
                ))
            })?;
            rows.collect::<Result<Vec<_>, _>>()
        })
        .await
        .unwrap();
    let mut wanted: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    for (target, name, writable) in rows {
        wanted.entry(target).or_default().insert(name, writable);
    }
    wanted
}

fn seen(shares: &Shares) -> BTreeMap<String, BTreeMap<String, bool>> {
    let of = |seen: &BTreeMap<String, Share>| {
        let of = seen
            .iter()
            .map(|(name, share)| (name.clone(), share.writable));
        of.collect()
    };
    let seen = shares.iter().map(|(id, seen)| (id.to_string(), of(seen)));
    seen.collect()
}

/// Everybody sees what the database says.
async fn agree(node: &Node) {
    let mut last = None;
    for _ in 0..500 {
        let (wanted, seen) = (wanted(node).await, seen(&node.fake.all_shared()));
        if wanted == seen {
            return;
        }
        last = Some((wanted, seen));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the database and the machines never agreed: {last:#?}");
}

/// What is done to shares when control is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Story {
    Offer,
    OfferToAll,
    Open,
    Rename,
    TurnOff,
    TurnDown,
    Withdraw,
    DeleteSource,
    DeleteTarget,
    DeleteProject,
}

impl Story {
    const ALL: [Story; 10] = [
        Story::Offer,
        Story::OfferToAll,
        Story::Open,
        Story::Rename,
        Story::TurnOff,
        Story::TurnDown,
        Story::Withdraw,
        Story::DeleteSource,
        Story::DeleteTarget,
        Story::DeleteProject,
    ];

    /// `share` is one of the first to the second, beside one to the project.
    async fn tell(self, me: &Me<'_>, project: &str, all: &[String], share: &str) {
        let (source, target) = (&all[0], &all[1]);
        let one = format!("{}/{share}", offers(source));
        match self {
            Story::Offer => drop(offer(me, source, (CONTAINER, target), "more").await),
            Story::OfferToAll => drop(offer(me, target, (PROJECT, project), "more").await),
            Story::Open => drop(patch(me, &one, json!({ "mode": "readwrite" })).await.ok()),
            Story::Rename => drop(patch(me, &one, json!({ "alias": "renamed" })).await.ok()),
            Story::TurnOff => drop(patch(me, &one, json!({ "enabled": false })).await.ok()),
            Story::TurnDown => {
                let path = format!("/api/v1/containers/{target}/storage/incoming/{share}/mount");
                patch(me, &path, json!({ "mount": false })).await.ok();
            }
            Story::Withdraw => {
                let path = format!("/api/v1/storage/shares/{share}");
                me.delete(&path).await.ok();
            }
            Story::DeleteSource => {
                me.delete(&format!("/api/v1/containers/{source}"))
                    .await
                    .ok();
            }
            Story::DeleteTarget => {
                me.delete(&format!("/api/v1/containers/{target}"))
                    .await
                    .ok();
            }
            Story::DeleteProject => {
                me.delete(&format!("/api/v1/projects/{project}")).await.ok();
            }
        }
    }
}

async fn check(story: Story, moment: Moment) {
    let world = World::new().await;
    {
        let node = world.start().await;
        let me = node.admin().await;
        let (project, all) = containers(&me, &["base", "web", "other"]).await;
        let share = offer(&me, &all[0], (CONTAINER, &all[1]), "data").await;
        offer(&me, &all[0], (PROJECT, &project), "conf").await;
        agree(&node).await;
        world.fake.trouble(Act::Share, moment, Trouble::Hang, 1);
        // Who waits for the end of what hangs gives up, after it was written what is wanted.
        let told = story.tell(&me, &project, &all, &share);
        let told = tokio::time::timeout(Duration::from_secs(2), told);
        let (_, ()) = tokio::join!(told, world.fake.hung(1));
    } // killed here
    let node = world.start().await;
    node.admin().await;
    agree(&node).await;
    let left = seen(&world.fake.all_shared());
    let names = |n: usize| left.values().map(BTreeMap::len).sum::<usize>() == n;
    assert!(
        match story {
            Story::Offer => names(4),
            Story::OfferToAll => names(5),
            Story::Open | Story::Rename => names(3),
            Story::TurnOff | Story::TurnDown | Story::Withdraw => names(2),
            Story::DeleteSource | Story::DeleteProject => left.is_empty(),
            Story::DeleteTarget => names(1),
        },
        "{story:?} killed {moment:?}: {left:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_boundary() {
    let mut all = tokio::task::JoinSet::new();
    for story in Story::ALL {
        for moment in Moment::ALL {
            all.spawn(check(story, moment));
        }
    }
    while let Some(result) = all.join_next().await {
        result.unwrap();
    }
}

/// Trouble of all kinds while many change much at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random() {
    let world = World::new().await;
    let mut dice = Dice(0x5eed);
    let mut known: Vec<(String, String)> = Vec::new();
    let (mut project, mut all) = (String::new(), Vec::new());
    for life in 0..12 {
        let node = world.start().await;
        let me = node.admin().await;
        if life == 0 {
            (project, all) = containers(&me, &["one", "two", "three"]).await;
        }
        for _ in 0..8 {
            if dice.roll(3) == 0 {
                let trouble = [Trouble::Transient, Trouble::Permanent, Trouble::Hang];
                let trouble = trouble[dice.roll(3)];
                let moment = Moment::ALL[dice.roll(3)];
                world.fake.trouble(Act::Share, moment, trouble, 1);
            }
            let (source, target) = (all[dice.roll(3)].clone(), all[dice.roll(3)].clone());
            let known_one = (!known.is_empty()).then(|| known[dice.roll(known.len())].clone());
            let act = async {
                match (dice.roll(6), known_one) {
                    (0, Some((source, share))) => {
                        let path = format!("{}/{share}", offers(&source));
                        let mode = ["readonly", "readwrite"][dice.roll(2)];
                        drop(patch(&me, &path, json!({ "mode": mode })).await);
                    }
                    (1, Some((source, share))) => {
                        let path = format!("{}/{share}", offers(&source));
                        let on = dice.roll(2) == 0;
                        drop(patch(&me, &path, json!({ "enabled": on })).await);
                    }
                    (2, Some((_, share))) => {
                        drop(me.delete(&format!("/api/v1/storage/shares/{share}")).await);
                    }
                    (3, Some((_, share))) => {
                        let path =
                            format!("/api/v1/containers/{target}/storage/incoming/{share}/mount");
                        let on = dice.roll(2) == 0;
                        drop(patch(&me, &path, json!({ "mount": on })).await);
                    }
                    (n, _) => {
                        let to = match n % 2 {
                            0 => (CONTAINER, target.as_str()),
                            _ => (PROJECT, project.as_str()),
                        };
                        let body = json!({ "source_path": "/srv", to.0: to.1, "mode": "readonly" });
                        let made = me.post(&offers(&source), body).await;
                        if made.status == StatusCode::CREATED {
                            let id = made.body["data"]["id"].as_str().unwrap().to_owned();
                            known.push((source.clone(), id));
                        }
                    }
                }
            };
            // who waits for what hangs gives up
            tokio::time::timeout(Duration::from_millis(100), act)
                .await
                .ok();
        }
        if life % 4 == 3 {
            world.fake.forget_shared(); // as after a boot of the host
        }
    }
    world.fake.heal();
    let node = world.start().await;
    node.admin().await;
    agree(&node).await;
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(below).unwrap()).unwrap()
    }
}

#[tokio::test]
async fn a_boot_of_the_host_takes_nothing_for_good() {
    let world = World::new().await;
    {
        let node = world.start().await;
        let me = node.admin().await;
        let (_, all) = containers(&me, &["base", "web"]).await;
        offer(&me, &all[0], (CONTAINER, &all[1]), "data").await;
        agree(&node).await;
    }
    world.fake.forget_shared();
    world
        .fake
        .trouble(Act::Start, Moment::Before, Trouble::Hang, 10);
    let node = world.start().await;
    agree(&node).await; // before anything starts
}

#[tokio::test]
async fn a_share_ends_by_itself_and_its_end_is_told() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let (_, all) = containers(&me, &["base", "web"]).await;
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_millis(1500);
    let body = json!({
        "source_path": "/srv", CONTAINER: all[1], "mode": "readonly", "alias": "data",
        "expires_at": soon.as_secs_f64(),
    });
    let made = me.post(&offers(&all[0]), body).await.ok();
    assert_eq!(
        made["expiry_notified"], true,
        "it ends soon, and that was told"
    );
    assert_eq!(node.fake.shared(all[1].parse().unwrap()).len(), 1);
    for _ in 0..500 {
        if node.fake.all_shared().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(node.fake.all_shared().is_empty());
    let kinds = async || {
        let path = format!(
            "/api/v1/events?container_id={}&resource_type=storage_share&sort_order=asc",
            all[0]
        );
        let list = me.get(&path).await.ok();
        let events = list["events"].as_array().unwrap().iter();
        events
            .map(|event| event["event_type"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let told = [
        "storage.share.created",
        "storage.share.expiring_soon",
        "storage.share.expired",
    ];
    for _ in 0..500 {
        if kinds().await == told {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(kinds().await, told, "each once");
    assert_eq!(me.get(&offers(&all[0])).await.ok(), json!([]));
    let with = format!("{}?include_expired=true", offers(&all[0]));
    let list = me.get(&with).await.ok();
    assert_eq!(list[0]["id"], made["id"]);
    // it can be had again, with another end
    let one = format!("{}/{}", offers(&all[0]), made["id"].as_str().unwrap());
    patch(&me, &one, json!({ "enabled": false })).await.ok();
    patch(&me, &one, json!({ "enabled": true }))
        .await
        .refused(409);
    patch(&me, &one, json!({ "enabled": true, "expires_at": null }))
        .await
        .ok();
    agree(&node).await;
    assert_eq!(node.fake.shared(all[1].parse().unwrap()).len(), 1);
}

#[tokio::test]
async fn there_are_so_many_and_no_more() {
    let world = World::new().await;
    let mut config = world.config();
    config.limits.shares_per_container = 3;
    config.limits.shares_per_target = 2;
    let node = world.start_with(config).await;
    let me = node.admin().await;
    let (project, all) = containers(&me, &["base", "web", "other"]).await;
    let body = |target: (&str, &str)| json!({ "source_path": "/srv", target.0: target.1, "mode": "readonly" });
    let (web, other) = ((CONTAINER, all[1].as_str()), (CONTAINER, all[2].as_str()));
    let everybody = (PROJECT, project.as_str());
    let post = async |source: usize, target| me.post(&offers(&all[source]), body(target)).await;
    post(0, web).await.ok();
    post(0, everybody).await.ok();
    // the second has two, the third one
    let words = post(0, web).await.refused(409);
    assert!(words.contains("may be offered 2"), "{words}");
    post(0, everybody).await.refused(409);
    post(0, other).await.ok();
    let words = post(0, other).await.refused(409);
    assert!(words.contains("may offer 3"), "{words}");
    agree(&node).await;
}

/// A runtime that is away: what was asked is kept, its status says so, and it comes by itself; what
/// is withdrawn is not said to be gone before it is.
#[tokio::test]
async fn what_cannot_be_brought_yet_is_not_promised() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let (_, all) = containers(&me, &["base", "web"]).await;
    // Whoever brings shares meets it: this call, and what runs in the background.
    let away = || {
        world
            .fake
            .trouble(Act::Share, Moment::Before, Trouble::Transient, u32::MAX);
    };
    away();
    let body = json!({ "source_path": "/srv", CONTAINER: all[1], "mode": "readonly" });
    let made = me.post(&offers(&all[0]), body).await.ok();
    assert_eq!(made["status"], "failed");
    world.fake.heal();
    agree(&node).await;
    let one = format!("{}/{}", offers(&all[0]), made["id"].as_str().unwrap());
    for _ in 0..500 {
        if me.get(&one).await.ok()["status"] == "active" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(me.get(&one).await.ok()["status"], "active");
    away();
    let withdraw = format!("/api/v1/storage/shares/{}", made["id"].as_str().unwrap());
    me.delete(&withdraw).await.refused(503);
    world.fake.heal();
    agree(&node).await;
    assert!(node.fake.all_shared().is_empty());
}
