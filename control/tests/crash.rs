//! Control is killed at every boundary of every step; the next one ends in the same state, and
//! nothing is left over anywhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::time::Duration;

use control::runtime::fake::{Act, Moment, Trouble};
use control::runtime::{Power, Runtime};
use routes::Id;
use serde_json::json;
use support::{Me, Node, World};

/// What the user does until the step comes up.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Story {
    Create,
    Stop,
    ForceStop,
    Start,
    Restart,
    Pause,
    Resume,
    Change,
    Delete,
    DeleteStopped,
    Snapshot,
    DropSnapshot,
    Restore,
    Copy,
    Sync,
}

impl Story {
    const ALL: [(Story, &'static [Act]); 15] = [
        (Story::Create, &[Act::Create, Act::Start]),
        (Story::Stop, &[Act::Stop]),
        (Story::ForceStop, &[Act::Kill]),
        (Story::Start, &[Act::Start]),
        (Story::Restart, &[Act::Stop, Act::Start]),
        (Story::Pause, &[Act::Freeze]),
        (Story::Resume, &[Act::Thaw]),
        (Story::Change, &[Act::Update]),
        (Story::Delete, &[Act::Delete]),
        (Story::DeleteStopped, &[Act::Delete]),
        (Story::Snapshot, &[Act::Snapshot]),
        (Story::DropSnapshot, &[Act::Drop]),
        (Story::Restore, &[Act::Kill, Act::Restore, Act::Start]),
        (Story::Copy, &[Act::Copy]),
        (Story::Sync, &[Act::Sync]),
    ];

    /// Bring a container to where the story begins.
    async fn set_up(self, me: &Me<'_>, container: &str) {
        me.until(container, "running").await;
        match self {
            Story::Start | Story::DeleteStopped => {
                me.manage(container, "stop").await.ok();
                me.until(container, "stopped").await;
            }
            Story::Resume => {
                me.manage(container, "pause").await.ok();
                me.until(container, "paused").await;
            }
            Story::DropSnapshot | Story::Restore => {
                me.node.fake.write(container.parse().unwrap(), "a", "1");
                let path = format!("/api/v1/containers/{container}/snapshots");
                me.post(&path, json!({ "alias": "one" })).await.ok();
                me.node.fake.write(container.parse().unwrap(), "a", "2");
            }
            Story::Copy => me.node.fake.write(container.parse().unwrap(), "a", "1"),
            Story::Sync => {
                me.node.fake.write(container.parse().unwrap(), "a", "1");
                Story::Copy.tell(me, container).await;
                let copy = copy_of(me, container).await;
                me.until(&copy, "stopped").await;
                me.node.fake.write(container.parse().unwrap(), "a", "2");
            }
            _ => {}
        }
    }

    async fn tell(self, me: &Me<'_>, container: &str) {
        let path = format!("/api/v1/containers/{container}");
        match self {
            Story::Create => {}
            Story::Stop => drop(me.manage(container, "stop").await.ok()),
            Story::ForceStop => drop(me.manage(container, "force-stop").await.ok()),
            Story::Start => drop(me.manage(container, "start").await.ok()),
            Story::Restart => drop(me.manage(container, "restart").await.ok()),
            Story::Pause => drop(me.manage(container, "pause").await.ok()),
            Story::Resume => drop(me.manage(container, "resume").await.ok()),
            Story::Change => drop(
                me.put(&format!("{path}/env"), serde_json::json!({ "A": "1" }))
                    .await
                    .ok(),
            ),
            Story::Delete | Story::DeleteStopped => drop(me.delete(&path).await.ok()),
            Story::Snapshot => {
                drop(me.post(&format!("{path}/snapshots"), json!({})).await);
            }
            Story::DropSnapshot => {
                drop(me.delete(&format!("{path}/snapshots/one")).await.ok());
            }
            Story::Restore => {
                drop(me.put(&format!("{path}/snapshots/one"), json!({})).await);
            }
            Story::Copy => {
                let project = me.get(&path).await.ok()["project_id"].clone();
                let body = json!({ "target_project_id": project, "name": "copy" });
                let copy = me.post(&format!("{path}/copy"), body).await.ok();
                assert_eq!(copy["status"], "copying");
            }
            Story::Sync => {
                let copy = copy_of(me, container).await;
                let path = format!("/api/v1/containers/{copy}/sync");
                me.post(&path, json!({})).await.ok();
            }
        }
    }

    fn end(self) -> &'static str {
        match self {
            Story::Create
            | Story::Start
            | Story::Restart
            | Story::Resume
            | Story::Change
            | Story::Snapshot
            | Story::DropSnapshot
            | Story::Restore
            | Story::Copy
            | Story::Sync => "running",
            Story::Stop | Story::ForceStop => "stopped",
            Story::Pause => "paused",
            Story::Delete | Story::DeleteStopped => "gone",
        }
    }
}

/// The copy of a container.
async fn copy_of(me: &Me<'_>, container: &str) -> String {
    let all = me.get("/api/v1/containers/").await.ok();
    let all = all["containers"].as_array().unwrap().iter();
    let mut copies = all.filter(|one| one["source_container_id"] == container);
    copies.next().unwrap()["id"].as_str().unwrap().to_owned()
}

/// What the story did to disks is done, and done whole.
async fn disks(story: Story, node: &Node, container: &str) {
    let (me, fake) = (node.admin().await, &node.fake);
    let id: Id = container.parse().unwrap();
    let kept = async || {
        let path = format!("/api/v1/containers/{container}/snapshots");
        let list = me.get(&path).await.ok();
        let names = list["snapshots"].as_array().unwrap().iter();
        names
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let mut done = false;
    for _ in 0..500 {
        done = match story {
            Story::Snapshot => kept().await.len() == 1 && fake.snapshots(id) == kept().await,
            Story::DropSnapshot => kept().await.is_empty() && fake.snapshots(id).is_empty(),
            Story::Restore => {
                fake.read(id, "a").as_deref() == Some("1") && fake.snapshots(id) == kept().await
            }
            Story::Copy | Story::Sync => {
                let copy = copy_of(&me, container).await;
                let at: Id = copy.parse().unwrap();
                let status = me.get(&format!("/api/v1/containers/{copy}")).await.ok();
                status["status"] == "stopped"
                    && fake.read(at, "a") == fake.read(id, "a")
                    && fake.identity(at) != fake.identity(id)
                    && fake.identity(at).is_some()
            }
            _ => true,
        };
        if done {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        done,
        "{story:?}: {:?} {:?}",
        fake.snapshots(id),
        kept().await
    );
}

/// Rows, machines, directories and places all know the same containers.
async fn agree(node: &Node) {
    for _ in 0..500 {
        let rows: Vec<String> = node
            .control
            .store
            .read("list", |db| {
                db.prepare("SELECT id FROM containers ORDER BY id")?
                    .query_map([], |row| row.get(0))?
                    .collect()
            })
            .await
            .unwrap();
        let world: Vec<String> = node.fake.everything().iter().map(Id::to_string).collect();
        let places: Vec<String> = node
            .control
            .publisher
            .containers()
            .iter()
            .map(Id::to_string)
            .collect();
        if rows == world && rows == places {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "something was left over: {:?}, {:?}",
        node.fake.everything(),
        node.control.publisher.containers()
    );
}

async fn check(story: Story, act: Act, moment: Moment) {
    let world = World::new().await;
    let container;
    {
        let node = world.start().await;
        let me = node.admin().await;
        let project = me.project("site").await;
        if story == Story::Create {
            world.fake.trouble(act, moment, Trouble::Hang, 1);
            container = me.container(&project, "web").await;
            world.fake.hung(1).await;
        } else {
            container = me.container(&project, "web").await;
            story.set_up(&me, &container).await;
            world.fake.trouble(act, moment, Trouble::Hang, 1);
            tokio::select! {
                () = story.tell(&me, &container) => world.fake.hung(1).await,
                // who waits for the end of a step that hangs waits on
                () = world.fake.hung(1) => {}
            }
        }
    } // killed here
    let node = world.start().await;
    let me = node.admin().await;
    me.until(&container, story.end()).await;
    agree(&node).await;
    let id: Id = container.parse().unwrap();
    // The status may be of before the kill; the machine is not.
    let want = match story.end() {
        "running" => Some((
            Power::On,
            if matches!(story, Story::Start | Story::Restart | Story::Restore) {
                2
            } else {
                1
            },
        )),
        "stopped" => Some((Power::Off, 1)),
        "paused" => Some((Power::Frozen, 1)),
        _ => None,
    };
    let mut seen = None;
    for _ in 0..500 {
        seen = world
            .fake
            .observe_one(id)
            .await
            .unwrap()
            .map(|seen| (seen.power, seen.incarnation));
        if seen == want {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seen, want, "{story:?} killed at {act:?} {moment:?}");
    disks(story, &node, &container).await;
    if story == Story::Change {
        let want = [("A".to_owned(), "1".to_owned())];
        for _ in 0..500 {
            if world
                .fake
                .machine(id)
                .is_some_and(|machine| machine.environment == want)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the machine never learnt of the change");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_boundary_of_every_step() {
    let mut all = tokio::task::JoinSet::new();
    let mut kills = 0;
    for (story, acts) in Story::ALL {
        for act in acts {
            for moment in Moment::ALL {
                kills += 1;
                all.spawn(check(story, *act, moment));
            }
        }
    }
    while let Some(result) = all.join_next().await {
        result.unwrap();
    }
    assert_eq!(kills, 57);
}

/// A deletion that arrives while anything else is under way, and a kill on top of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_while_being_made_and_killed() {
    for act in [Act::Create, Act::Start] {
        for moment in Moment::ALL {
            let world = World::new().await;
            {
                let node = world.start().await;
                let me = node.admin().await;
                let project = me.project("site").await;
                world.fake.trouble(act, moment, Trouble::Hang, 1);
                let container = me.container(&project, "web").await;
                world.fake.hung(1).await;
                me.delete(&format!("/api/v1/containers/{container}"))
                    .await
                    .ok();
                assert!(
                    node.control
                        .publisher
                        .get(container.parse().unwrap())
                        .is_none()
                );
            }
            let before = world.fake.asked().len();
            let node = world.start().await;
            node.admin().await;
            agree(&node).await;
            for _ in 0..300 {
                if world.fake.everything().is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(world.fake.everything().is_empty(), "{act:?} {moment:?}");
            let since = &world.fake.asked()[before..];
            assert!(
                since.iter().all(|(act, _)| *act == Act::Delete),
                "of what should be gone: {since:?}"
            );
            agree(&node).await;
        }
    }
}

/// A stop that takes long gives way to a forced one.
#[tokio::test]
async fn a_slow_stop_is_overtaken() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    world
        .fake
        .trouble(Act::Stop, Moment::Midway, Trouble::Hang, 1);
    me.manage(&web, "stop").await.ok();
    world.fake.hung(1).await;
    me.manage(&web, "force-stop").await.ok();
    me.until(&web, "stopped").await;
    me.manage(&web, "start").await.ok();
    me.until(&web, "running").await;
    world
        .fake
        .trouble(Act::Stop, Moment::Midway, Trouble::Hang, 1);
    me.manage(&web, "stop").await.ok();
    world.fake.hung(2).await;
    me.delete(&format!("/api/v1/containers/{web}")).await.ok();
    me.until(&web, "gone").await;
    agree(&node).await;
}
