//! The routing table: pushed, kept, and taken up again.

use http::StatusCode;
use routes::table::{Ack, Change, State, Update};
use std::os::unix::fs::PermissionsExt;

use crate::rig::{Feed, Rig};

fn update(generation: u64, change: Change) -> Update {
    Update { generation, change }
}

#[tokio::test]
async fn the_table_outlives_control_and_the_proxy() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let mut asleep = rig.container(State::Stopped).await;
    rig.restart().await;
    assert_eq!(
        rig.get(&web.host("terminal-1"), "/").await.status,
        StatusCode::OK
    );
    assert_eq!(
        rig.get(&asleep.host("terminal-1"), "/").await.code(),
        "container_stopped"
    );
    // Control comes back and says what there is now.
    asleep.place.state = State::Running;
    let all = vec![asleep.place.clone()];
    rig.push(100, Change::Replace(all)).await;
    assert_eq!(
        rig.get(&asleep.host("terminal-1"), "/").await.status,
        StatusCode::OK
    );
    assert_eq!(
        rig.get(&web.host("terminal-1"), "/").await.code(),
        "unknown_container"
    );
}

#[tokio::test]
async fn a_change_is_on_disk_when_it_is_answered() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    // What is on disk now is all that a proxy has that was killed now.
    let directory = rig.config.table.parent().expect("a directory");
    let copy = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(directory).expect("it is there") {
        let path = entry.expect("an entry").path();
        let mode = std::fs::metadata(&path).expect("it is there").permissions();
        assert!(
            path.is_dir() || mode.mode() & 0o77 == 0,
            "{}",
            path.display()
        );
        if path.is_file() {
            let to = copy.path().join(path.file_name().expect("a name"));
            std::fs::copy(&path, to).expect("copied");
        }
    }
    rig.config.table = copy.path().join("table.json");
    rig.restart().await;
    let host = web.host("terminal-1");
    assert_eq!(rig.get(&host, "/").await.status, StatusCode::OK);
    let mode = std::fs::metadata(&rig.config.feed).expect("it is there");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_broken_table_on_disk_does_not_stop_the_proxy() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    std::fs::write(&rig.config.table, "{\"generation\":").expect("written");
    rig.restart().await;
    assert_eq!(
        rig.get(&web.host("terminal-1"), "/").await.code(),
        "unknown_container"
    );
    rig.push(100, Change::Replace(vec![web.place.clone()]))
        .await;
    assert_eq!(
        rig.get(&web.host("terminal-1"), "/").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn lines_that_are_wrong_end_the_connection_and_change_nothing() {
    let mut rig = Rig::with(|config| config.limits.feed_line_bytes = 4_096).await;
    let web = rig.running().await;
    let upsert = serde_json::to_string(&update(500, Change::Upsert(web.place.clone())));
    let old = serde_json::to_string(&update(1, Change::Remove(web.place.container)));
    let all = update(300, Change::Replace(vec![web.place.clone()]));
    for (first, line) in [
        (None, upsert.expect("JSON")),
        (None, "not an update".to_owned()),
        (None, "x".repeat(10_000)),
        (Some(&all), "{}".to_owned()),
        (Some(&all), old.expect("JSON")),
    ] {
        let mut feed = Feed::connect(&rig.config).await;
        if let Some(first) = first {
            assert_eq!(feed.send(first).await, Some(Ack { generation: 300 }));
        }
        assert_eq!(feed.line(&line).await, None, "{line}");
        assert_eq!(
            rig.get(&web.host("terminal-1"), "/").await.status,
            StatusCode::OK
        );
    }
}

#[tokio::test]
async fn many_changes_at_once_are_all_answered() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let mut feed = Feed::connect(&rig.config).await;
    let mut lines = serde_json::to_string(&update(1_000, Change::Replace(vec![]))).expect("JSON");
    lines.push('\n');
    for number in 1..=1_000u64 {
        let mut place = web.place.clone();
        place.container.0[..8].copy_from_slice(&number.to_be_bytes());
        let change = update(1_000 + number, Change::Upsert(place));
        lines.push_str(&serde_json::to_string(&change).expect("JSON"));
        lines.push('\n');
    }
    feed.write(lines.as_bytes()).await.expect("written");
    for number in 0..=1_000 {
        assert_eq!(
            feed.answer().await,
            Some(Ack {
                generation: 1_000 + number
            })
        );
    }
    rig.comes_to("hoody_proxy_table_containers", 1_000.0).await;
    rig.comes_to("hoody_proxy_table_generation", 2_000.0).await;
}

/// The newest connection of control counts: one that hangs does not block its successor.
#[tokio::test]
async fn control_may_connect_again_at_any_time() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let mut hanging = Feed::connect(&rig.config).await;
    hanging.write(b"{\"generation\"").await.expect("written");
    let mut feed = Feed::connect(&rig.config).await;
    let all = update(900, Change::Replace(vec![web.place.clone()]));
    assert_eq!(feed.send(&all).await, Some(Ack { generation: 900 }));
    assert_eq!(hanging.answer().await, None);
}
