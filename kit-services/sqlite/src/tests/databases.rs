//! Databases as files, their maintenance and their history.

use std::os::unix::fs::symlink;

use super::*;

#[tokio::test]
async fn databases_come_by_name_and_go() {
    let rig = Rig::new();
    rig.get("/history?db=app")
        .await
        .refused(404, "DATABASE_NOT_FOUND");
    let made = rig
        .post("/db/create?path=app", json!({}))
        .await
        .is(200)
        .json();
    assert_eq!(
        made,
        json!({ "success": true, "path": "/hoody/databases/app.db", "created": true, "kv_table": null })
    );
    let again = rig
        .post(
            "/db/create?path=./app&init_kv=true&kv_table=things",
            json!({}),
        )
        .await
        .is(200)
        .json();
    assert_eq!(
        (&again["created"], &again["kv_table"]),
        (&json!(false), &json!("things"))
    );
    assert!(
        std::fs::read(rig.at("app.db"))
            .unwrap()
            .starts_with(b"SQLite format 3\0")
    );

    std::fs::create_dir(rig.at("team")).unwrap();
    std::fs::write(rig.at("notes.txt"), "no database").unwrap();
    rig.post("/db/create?path=/hoody/databases/team/b.sqlite", json!({}))
        .await
        .is(200);
    rig.post("/db/create?path=/hoody/databases/nowhere/b", json!({}))
        .await
        .refused(404, "DIRECTORY_NOT_FOUND");
    let listed = rig.get("/db").await.is(200).json();
    assert_eq!(listed["total"], 2);
    assert_eq!(listed["items"][0]["name"], "app.db");
    assert_eq!(listed["items"][1]["path"], "/hoody/databases/team/b.sqlite");
    assert_eq!(
        rig.get("/db?offset=1&limit=5").await.is(200).json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    rig.does("CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT NOT NULL DEFAULT 'x')")
        .await;
    rig.does("CREATE INDEX by_n ON t (n)").await;
    rig.does("CREATE VIEW v AS SELECT n FROM t").await;
    let tables = rig.get("/tables?db=app").await.is(200).json();
    let names: Vec<_> = tables["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["name"].clone())
        .collect();
    assert_eq!(names, ["t", "things", "things__history", "v"]);
    assert_eq!(tables["tables"][0]["indexes"], json!(["by_n"]));
    assert_eq!(
        tables["tables"][0]["columns"][1],
        json!({ "name": "n", "type": "TEXT", "not_null": true, "primary_key": 0, "default": "'x'" })
    );
    assert_eq!(tables["tables"][3]["kind"], "view");

    rig.send("DELETE", "/db?db=app", &[], "").await.is(200);
    assert_eq!(files(&rig.at("")), ["notes.txt", "team"]);
    rig.send("DELETE", "/db?db=app", &[], "")
        .await
        .refused(404, "DATABASE_NOT_FOUND");
    // and a new one of the same name is new
    rig.make("app").await;
    assert_eq!(
        rig.rows("SELECT count(*) FROM sqlite_schema").await,
        json!([[0]])
    );
}

#[tokio::test]
async fn a_file_that_was_replaced_is_opened_anew() {
    let rig = Rig::new();
    with_table(&rig).await;
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(rig.at(&format!("app.db{suffix}")));
    }
    rig.post(
        "/db?db=app",
        json!({ "transaction": [{ "query": "SELECT 1" }] }),
    )
    .await
    .refused(404, "DATABASE_NOT_FOUND");
    let other = rusqlite::Connection::open(rig.at("app.db")).unwrap();
    other
        .execute_batch("CREATE TABLE fresh (x); INSERT INTO fresh VALUES (7)")
        .unwrap();
    assert_eq!(rig.rows("SELECT x FROM fresh").await, json!([[7]]));
}

#[tokio::test]
async fn what_is_no_database_is_said_to_be_none() {
    let rig = Rig::new();
    rig.make("other").await;
    std::fs::write(rig.at("text.db"), "not a database, whatever its name says; and long enough to be looked at as one, which takes a hundred bytes").unwrap();
    std::fs::write(rig.at("short.db"), "x").unwrap();
    std::fs::create_dir(rig.at("dir.db")).unwrap();
    let body = || json!({ "transaction": [{ "query": "SELECT 1" }, { "statement": "CREATE TABLE x (y)" }] });
    for name in ["text.db", "short.db"] {
        rig.post(&format!("/db?db={name}"), body())
            .await
            .refused(422, "NOT_A_DATABASE");
        rig.get(&format!("/kv/a?db={name}"))
            .await
            .refused(422, "NOT_A_DATABASE");
    }
    assert!(
        std::fs::read(rig.at("text.db"))
            .unwrap()
            .starts_with(b"not a database"),
        "it stays as it was"
    );
    let why = rig
        .post("/db?db=dir.db", body())
        .await
        .refused(400, "INVALID_DATABASE_NAME");
    assert!(why.contains("a directory"), "{why}");

    // one that is damaged
    with_table(&rig).await;
    rig.post(
        "/maintenance?db=app",
        json!({ "op": "wal_checkpoint_truncate" }),
    )
    .await
    .is(200);
    let mut bytes = std::fs::read(rig.at("app.db")).unwrap();
    let page = 4096;
    bytes[page..].fill(0xa5);
    std::fs::write(rig.at("damaged.db"), bytes).unwrap();
    let body = json!({ "transaction": [{ "query": "SELECT * FROM t" }] });
    let why = rig
        .post("/db?db=damaged", body)
        .await
        .refused(422, "CORRUPT");
    assert!(why.contains("quick_check"), "{why}");
    let checked = rig
        .post("/maintenance?db=damaged", json!({ "op": "quick_check" }))
        .await
        .is(200)
        .json();
    assert_eq!(checked["success"], false);
}

#[tokio::test]
async fn databases_are_maintained_and_copied() {
    let rig = Rig::new();
    with_table(&rig).await;
    let does = async |body: Value| rig.post("/maintenance?db=app&timeout=20", body).await;
    let checked = does(json!({ "op": "quick_check" })).await.is(200).json();
    assert_eq!(
        (&checked["success"], &checked["messages"]),
        (&json!(true), &json!(["ok"]))
    );
    does(json!({ "op": "integrity_check" })).await.is(200);
    does(json!({ "op": "optimize" })).await.is(200);
    does(json!({ "op": "vacuum" })).await.is(200);
    let checkpoint = does(json!({ "op": "wal_checkpoint_truncate" }))
        .await
        .is(200)
        .json();
    assert_eq!(checkpoint["checkpoint"]["busy"], false);
    assert_eq!(std::fs::metadata(rig.at("app.db-wal")).unwrap().len(), 0);

    let copied = does(json!({ "op": "vacuum_into", "dest_path": "copy" }))
        .await
        .is(200)
        .json();
    assert_eq!(copied["path"], "/hoody/databases/copy.db");
    let copy = rusqlite::Connection::open(rig.at("copy.db")).unwrap();
    let rows: i64 = copy
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 3);
    does(json!({ "op": "vacuum_into", "dest_path": "copy" }))
        .await
        .refused(409, "DATABASE_EXISTS");
    does(json!({ "op": "vacuum_into" }))
        .await
        .refused(400, "VALIDATION_ERROR");
    does(json!({ "op": "vacuum_into", "dest_path": "/etc/hoody-was-here" }))
        .await
        .refused(400, "INVALID_DATABASE_NAME");
    does(json!({ "op": "vacuum", "dest_path": "x" }))
        .await
        .refused(400, "VALIDATION_ERROR");
    does(json!({ "op": "format_disk" }))
        .await
        .refused(400, "VALIDATION_ERROR");
    rig.post("/maintenance?db=nothing", json!({ "op": "vacuum" }))
        .await
        .refused(404, "DATABASE_NOT_FOUND");
}

#[tokio::test]
async fn the_history_has_what_was_asked_and_no_values() {
    let rig = Rig::new();
    with_table(&rig).await;
    rig.run(json!([{ "statement": "INSERT INTO t (name) VALUES (?)", "values": ["hunter2"] }]))
        .await
        .is(200);
    rig.query("SELECT * FROM t WHERE name = 'hunter2' -- hunter2")
        .await
        .is(200);
    rig.query("SELECT nothing, 'hunter2'").await.is(400);
    rig.run(json!([{ "query": "SELECT 'hunter2", }]))
        .await
        .is(400);
    rig.run(json!([{ "query": "SELECT \"hunter2\"", }]))
        .await
        .is(400);
    let listed = rig.get("/history?db=app&limit=3").await.is(200).json();
    assert_eq!((&listed["total"], &listed["count"]), (&json!(7), &json!(3)));
    assert_eq!(listed["history"][2]["sql"], "SELECT nothing, ?");
    assert_eq!(
        (
            &listed["history"][2]["success"],
            &listed["history"][2]["kind"]
        ),
        (&json!(false), &json!("query"))
    );
    let all = rig.get("/history?db=app").await.is(200);
    // in quotes of this kind it is the name of a column, and stays
    let text = all.text().replace("SELECT \\\"hunter2\\\"", "");
    assert!(!text.contains("hunter2"), "{text}");
    let on_disk = std::fs::read(rig.dir.path().join("state/history.db")).unwrap();
    assert!(!String::from_utf8_lossy(&on_disk).contains("name = 'hunter2"));

    let stats = rig.get("/history/stats?db=app").await.is(200).json();
    assert_eq!(
        (&stats["total"], &stats["failed"], &stats["queries"]),
        (&json!(7), &json!(3), &json!(4))
    );
    let id = all.json()["history"][0]["id"].clone();
    rig.send("DELETE", &format!("/history/{id}?db=app"), &[], "")
        .await
        .is(200);
    rig.send("DELETE", &format!("/history/{id}?db=app"), &[], "")
        .await
        .refused(404, "ENTRY_NOT_FOUND");
    let cleared = rig
        .send("DELETE", "/history?db=app", &[], "")
        .await
        .is(200)
        .json();
    assert_eq!(cleared["deleted"], 6);
    assert_eq!(rig.get("/history?db=app").await.is(200).json()["total"], 0);
}

#[tokio::test]
async fn idle_databases_are_closed() {
    let rig = Rig::with(|config| config.idle = Duration::from_millis(60));
    with_table(&rig).await;
    assert_eq!(rig.get("/health/cache").await.is(200).json()["open"], 1);
    let began = std::time::Instant::now();
    while rig.get("/health/cache").await.is(200).json()["open"] != 0 {
        assert!(began.elapsed() < PATIENCE, "it stays open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while files(&rig.at("")) != ["app.db"] {
        assert!(began.elapsed() < PATIENCE, "a closed database is one file");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let health = rig.get("/health").await.is(200).json();
    assert_eq!(
        (&health["service"], &health["counters"]["databases_closed"]),
        (&json!("sqlite"), &json!(1))
    );
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[3]]));
}

#[tokio::test]
async fn only_so_many_are_open() {
    let rig = Rig::new();
    for n in 0..crate::limits::OPEN + 8 {
        rig.make(&format!("d{n}")).await;
    }
    let cache = rig.get("/health/cache").await.is(200).json();
    assert_eq!(cache["open"], crate::limits::OPEN);
    rig.get("/kv?db=d0").await.is(200);
}

#[tokio::test]
async fn links_within_the_directory_are_followed() {
    let rig = Rig::new();
    with_table(&rig).await;
    symlink("app.db", rig.at("alias.db")).unwrap();
    let body = json!({ "transaction": [{ "statement": "INSERT INTO t (name) VALUES ('by another name')" }] });
    rig.post("/db?db=alias", body).await.is(200);
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[4]]));
}
