//! What is left when the process, or the disk, is gone in the middle.

use std::process::{Command, Stdio};

use super::*;

/// Tells the copy of this program that is killed where its databases are.
const PLACE: &str = "HOODY_SQLITE_CRASH_TEST";

/// Not a test of its own: the program that [`a_kit_that_is_killed_leaves_whole_transactions`] kills.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Some(place) = std::env::var_os(PLACE) else {
        return;
    };
    let place = PathBuf::from(place);
    let sqlite = Sqlite::new(Config::new(place.join("root"), place.join("state")));
    let router = api(&sqlite).router();
    for n in 0..u64::MAX {
        // three tables that always hold the same, one of them large enough to spill
        let body = json!({ "transaction": [
            { "statement": "INSERT INTO a VALUES (?)", "values": [n] },
            { "statement": "INSERT INTO b SELECT ?, randomblob(3000) FROM (VALUES (1), (2), (3), (4))", "values": [n] },
            { "statement": "INSERT INTO c VALUES (?)", "values": [n] },
        ] });
        let request = Request::post("/api/v1/sqlite/db?db=app")
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        std::fs::write(place.join("done"), n.to_string()).unwrap();
    }
}

#[tokio::test]
async fn a_kit_that_is_killed_leaves_whole_transactions() {
    let rig = Rig::new();
    for table in ["a (n)", "b (n, x)", "c (n)"] {
        rig.does(&format!("CREATE TABLE {table}")).await;
    }
    let place = rig.dir.path();
    for round in 0..4_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "tests::crashes::writes_until_it_is_killed",
                "--exact",
                "--nocapture",
            ])
            .env(PLACE, place)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let done = || {
            std::fs::read_to_string(place.join("done"))
                .ok()
                .and_then(|text| text.parse::<u64>().ok())
        };
        let began = std::time::Instant::now();
        while done().is_none_or(|n| n < 3 + round) {
            assert!(began.elapsed() < PATIENCE, "it does not write");
            tokio::time::sleep(Duration::from_millis(3 + round)).await;
        }
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        let acknowledged = done().unwrap_or_default();
        let counts = rig.rows("SELECT (SELECT count(*) FROM a), (SELECT count(*) / 4 FROM b), (SELECT count(*) FROM c), (SELECT max(n) FROM a)").await;
        assert_eq!(
            (&counts[0][0], &counts[0][0]),
            (&counts[0][1], &counts[0][2]),
            "{counts}"
        );
        assert!(
            counts[0][3].as_u64().unwrap() >= acknowledged,
            "what was answered is there: {counts}, {acknowledged}"
        );
        let checked = rig
            .post("/maintenance?db=app", json!({ "op": "integrity_check" }))
            .await
            .is(200)
            .json();
        assert_eq!(checked["messages"], json!(["ok"]));
        rig.run(json!([{ "statement": "DELETE FROM a" }, { "statement": "DELETE FROM b" }, { "statement": "DELETE FROM c" }])).await.is(200);
        std::fs::remove_file(place.join("done")).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_harms_nothing() {
    use crate::name::Name;
    use crate::store::Attempt;
    let rig = Rig::new();
    rig.does("CREATE TABLE t (x)").await;
    rig.does("INSERT INTO t VALUES ('kept')").await;
    // SQLite says the same where the file may not grow
    let database = rig
        .sqlite
        .store
        .find(&Name::parse("app").unwrap())
        .await
        .unwrap();
    let shrunk = rig.sqlite.store.write(&database, PATIENCE, |connection| {
        connection
            .own("PRAGMA max_page_count = 20")
            .map(Attempt::Done)
            .map_err(|error| connection.fault(&error))
    });
    shrunk.await.unwrap();
    for _ in 0..3 {
        let large = json!([{ "statement": "INSERT INTO t VALUES ('lost')" }, { "statement": "INSERT INTO t VALUES (zeroblob(200000))" }]);
        let why = rig.run(large).await.refused(507, "DISK_FULL");
        assert!(why.contains("full"), "{why}");
        rig.send("PUT", "/kv/large?db=app", &[], vec![b'x'; 200_000])
            .await
            .refused(507, "DISK_FULL");
    }
    assert_eq!(rig.rows("SELECT x FROM t").await, json!([["kept"]]));
    rig.does("INSERT INTO t VALUES ('after')").await;
}
