//! What somebody with a statement to run might try.

use std::os::unix::fs::symlink;

use super::*;

#[tokio::test]
async fn no_name_leads_out_of_the_directory() {
    let rig = Rig::new();
    rig.make("app").await;
    let outside = rig.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    rusqlite::Connection::open(outside.join("secret.db"))
        .unwrap()
        .execute_batch("CREATE TABLE secret (x)")
        .unwrap();
    symlink(outside.join("secret.db"), rig.at("link.db")).unwrap();
    symlink(&outside, rig.at("dir")).unwrap();
    symlink("../../../outside/secret.db", rig.at("relative.db")).unwrap();
    symlink(outside.join("new.db"), rig.at("dangling.db")).unwrap();
    symlink("loop.db", rig.at("loop.db")).unwrap();
    let outside_name = outside.join("secret.db").display().to_string();
    let body = || json!({ "transaction": [{ "query": "SELECT name FROM sqlite_schema" }, { "statement": "CREATE TABLE here (x)" }] });
    for name in [
        "link",
        "relative",
        "dangling",
        "loop",
        "/hoody/databases/dir/secret.db",
        "/hoody/databases/dir/new.db",
        "../../../outside/secret.db",
        "/hoody/databases/../../../outside/secret.db",
        outside_name.as_str(),
        "file:secret.db",
        "file:///etc/passwd?mode=ro",
        ":memory:",
        "app\0.db",
        "",
        "app.db-wal",
    ] {
        let plain = name;
        let name = &escaped(name);
        for path in [
            format!("/db?db={name}&create_db_if_missing=true"),
            format!("/db?db={name}"),
        ] {
            let answer = rig.post(&path, body()).await;
            let status = answer.status.as_u16();
            assert!(
                (400..500).contains(&status),
                "{path}: {status} {}",
                answer.text()
            );
        }
        let answer = rig
            .post(&format!("/db/create?path={name}"), json!({}))
            .await;
        assert!(answer.status.is_client_error(), "{name}: {}", answer.text());
        let answer = rig
            .post(
                "/maintenance?db=app",
                json!({ "op": "vacuum_into", "dest_path": plain }),
            )
            .await;
        assert!(answer.status.is_client_error(), "{name}: {}", answer.text());
        let answer = rig.send("DELETE", &format!("/db?db={name}"), &[], "").await;
        assert!(answer.status.is_client_error(), "{name}: {}", answer.text());
    }
    assert_eq!(files(&outside), ["secret.db"]);
    let secret = rusqlite::Connection::open(outside.join("secret.db")).unwrap();
    let tables: i64 = secret
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1, "nobody wrote to it");
}

/// A value in a query string.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test]
async fn a_link_that_appears_after_the_look_is_refused() {
    use crate::connection::Guarded;
    use crate::name::Place;
    use crate::watch::Role;
    let rig = Rig::new();
    with_table(&rig).await;
    let outside = rig.dir.path().join("outside.db");
    rusqlite::Connection::open(&outside)
        .unwrap()
        .execute_batch("CREATE TABLE secret (x)")
        .unwrap();
    symlink(&outside, rig.at("swapped.db")).unwrap();
    let place = Place {
        shown: "swapped".into(),
        real: rig.at("swapped.db"),
    };
    for role in [Role::Reader, Role::Writer, Role::Stream] {
        let fault = Guarded::open(&place, role).unwrap_err();
        assert_eq!(fault.code, Some("CANNOT_OPEN"), "{fault}");
    }
}

/// Statements that reach beyond the database, or beyond the request.
const EVIL: &[&str] = &[
    "ATTACH '/etc/passwd' AS x",
    "ATTACH 'other.db' AS x",
    "ATTACH '' AS x",
    "ATTACH ':memory:' AS x",
    "ATTACH 'file:/tmp/x?mode=rwc' AS x",
    "ATTACH (SELECT '/tmp/x') AS x",
    "DETACH main",
    "VACUUM INTO '/tmp/hoody-was-here'",
    "VACUUM INTO 'copy.db'",
    "/* x */ vacuum main into '/tmp/hoody-was-here'",
    "SELECT load_extension('/tmp/evil.so')",
    "SELECT LOAD_EXTENSION('/tmp/evil.so', 'main')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('/tmp/hoody-was-here', 'x')",
    "SELECT edit('x')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT fts3_tokenizer('simple', x'4141414141414141')",
    "CREATE VIRTUAL TABLE x USING csv(filename='/etc/passwd')",
    "CREATE VIRTUAL TABLE x USING dbstat",
    "CREATE VIRTUAL TABLE x USING zipfile('/tmp/x.zip')",
    "CREATE VIRTUAL TABLE x USING fsdir",
    "SELECT * FROM fsdir('/')",
    "PRAGMA writable_schema = ON",
    "PRAGMA writable_schema = RESET",
    "PRAGMA journal_mode = OFF",
    "PRAGMA journal_mode = MEMORY",
    "PRAGMA main.journal_mode = DELETE",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA synchronous = OFF",
    "PRAGMA temp_store_directory = '/etc'",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA mmap_size = 1000000000",
    "PRAGMA cache_size = 1000000",
    "PRAGMA hard_heap_limit = 1",
    "PRAGMA soft_heap_limit = 1",
    "PRAGMA max_page_count = 1",
    "PRAGMA schema_version = 7",
    "PRAGMA trusted_schema = ON",
    "PRAGMA ignore_check_constraints = ON",
    "PRAGMA busy_timeout = 100000",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA key = 'x'",
    "PRAGMA lock_status",
    "SELECT * FROM pragma_writable_schema",
    "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 2, 'CREATE TABLE x (y)')",
    "UPDATE sqlite_schema SET sql = 'x'",
    "DELETE FROM sqlite_schema",
    "DROP TABLE sqlite_schema",
    "UPDATE sqlite_sequence SET seq = 1; DELETE FROM t",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "END",
    "ROLLBACK",
    "SAVEPOINT x",
    "RELEASE item",
    "ROLLBACK TO item",
];

#[tokio::test]
async fn statements_reach_no_further_than_their_database() {
    let rig = Rig::new();
    with_table(&rig).await;
    rig.make("other").await;
    let before = files(&rig.at(""));
    for sql in EVIL {
        for kind in ["query", "statement"] {
            let answer = rig.run(json!([{ kind: sql }])).await;
            let status = answer.status.as_u16();
            assert!(
                status == 400 || status == 403,
                "{sql}: {status} {}",
                answer.text()
            );
            let answer = rig.run(json!([{ "statement": "INSERT INTO t (name) VALUES ('kept')" }, { kind: sql, "noFail": true }])).await.is(200).json();
            assert_eq!(answer["results"][1]["success"], false, "{sql}: {answer}");
            rig.does("DELETE FROM t WHERE name = 'kept'").await;
        }
        let answer = rig.query(sql).await;
        assert!(answer.status.is_client_error(), "{sql}: {}", answer.text());
    }
    assert_eq!(files(&rig.at("")), before);
    assert!(!Path::new("/tmp/hoody-was-here").exists());
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[3]]));
    assert_eq!(rig.rows("PRAGMA journal_mode").await, json!([["wal"]]));
}

#[tokio::test]
async fn triggers_and_views_reach_no_further_either() {
    let rig = Rig::new();
    with_table(&rig).await;
    // written by somebody without a guard
    let other = rusqlite::Connection::open(rig.at("app.db")).unwrap();
    other
        .execute_batch(
            "CREATE VIEW evil AS SELECT load_extension('/tmp/evil.so');
             CREATE TRIGGER evil_trigger AFTER INSERT ON t BEGIN SELECT load_extension('/tmp/evil.so'); END;",
        )
        .unwrap();
    // refused by the guard, or by SQLite, which trusts no schema here
    let answers = [
        rig.query("SELECT * FROM evil").await,
        rig.run(json!([{ "statement": "INSERT INTO t (name) VALUES ('x')" }]))
            .await,
    ];
    for answer in answers {
        assert!(
            matches!(answer.status.as_u16(), 400 | 403),
            "{}",
            answer.text()
        );
        assert!(
            answer.text().contains("load_extension"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[3]]));
}

#[tokio::test]
async fn one_request_leaves_nothing_behind_for_the_next() {
    let rig = Rig::new();
    with_table(&rig).await;
    rig.run(json!([
        { "statement": "CREATE TEMP TABLE secret AS SELECT 'hunter2' AS x" },
        { "statement": "CREATE TEMP TRIGGER spy AFTER INSERT ON t BEGIN INSERT INTO secret VALUES (new.name); END" },
        { "statement": "PRAGMA recursive_triggers = ON" },
        { "query": "SELECT * FROM secret" },
    ]))
    .await
    .is(200);
    rig.run(json!([{ "query": "SELECT * FROM secret" }]))
        .await
        .refused(400, "SQL_ERROR");
    rig.run(json!([{ "query": "INSERT INTO t (name) VALUES ('x') RETURNING (SELECT count(*) FROM pragma_table_list WHERE schema = 'temp' AND name = 'secret') AS n" }]))
        .await
        .is(200);
    assert_eq!(
        rig.rows("SELECT count(*) FROM sqlite_temp_schema").await,
        json!([[0]])
    );
    assert_eq!(rig.rows("PRAGMA recursive_triggers").await, json!([[0]]));
    // foreign keys are on, as they are for everybody
    assert_eq!(rig.rows("PRAGMA foreign_keys").await, json!([[1]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_much_memory_fails_alone() {
    let rig = Rig::new();
    with_table(&rig).await;
    let hungry = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 30) SELECT group_concat(hex(zeroblob(1000000))) FROM n";
    rig.query(hungry).await.refused(413, "TOO_BIG");
    // held in memory all at once, by several at a time
    let sorts = "SELECT count(*) FROM (SELECT randomblob(1000000) AS b FROM (WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 60) SELECT x FROM n) ORDER BY b)";
    let answers = futures::future::join_all((0..4).map(|_| rig.query(sorts))).await;
    for answer in answers {
        assert!(
            matches!(answer.status.as_u16(), 200 | 413),
            "{}",
            answer.text()
        );
    }
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[3]]));
    for sql in [
        format!("SELECT {}1", "(".repeat(5000)),
        format!("SELECT {}", "1+".repeat(5000) + "1"),
        format!("SELECT 1 {}", "UNION ALL SELECT 1 ".repeat(2000)),
        "SELECT replace(hex(zeroblob(1000000)), '0', hex(zeroblob(100)))".to_owned(),
        "SELECT printf('%.*c', 2000000000, 'x')".to_owned(),
        "SELECT x'' || zeroblob(2000000000)".to_owned(),
    ] {
        let answer = rig.query(&sql).await;
        assert!(
            answer.status.is_client_error(),
            "{}: {}",
            &sql[..40],
            answer.status
        );
    }
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[3]]));
}

#[tokio::test]
async fn a_body_is_bounded_whoever_sends_it() {
    let rig = Rig::new();
    rig.make("app").await;
    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    let endless = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
    let answer = rig
        .send("PUT", "/kv/a?db=app", &[], Body::from_stream(endless))
        .await;
    answer.refused(413, "TOO_BIG");
    let huge = Body::from(vec![b' '; 20 << 20]);
    rig.send("POST", "/db?db=app", &[], huge).await.is(413);
    // and all together are, too: half a body is held until the rest comes
    let held = || {
        let part = Bytes::from(vec![b'x'; 10 << 20]);
        let first = futures::stream::iter([Ok::<_, std::io::Error>(part)]);
        Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))
    };
    let mut slow: Vec<_> = (0..6)
        .map(|_| Box::pin(rig.send("PUT", "/kv/a?db=app", &[], held())))
        .collect();
    for one in &mut slow {
        assert!(futures::poll!(one.as_mut()).is_pending());
    }
    let one_more = rig
        .send("PUT", "/kv/b?db=app", &[], vec![b'x'; 5 << 20])
        .await;
    assert_eq!(one_more.header("retry-after"), "1");
    one_more.refused(503, "TOO_MUCH");
    drop(slow);
    rig.send("PUT", "/kv/b?db=app", &[], vec![b'x'; 5 << 20])
        .await
        .is(200);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_given_up() {
    let rig = Rig::new();
    let stops = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    rig.send("PUT", "/kv/a?db=app", &[], stops)
        .await
        .refused(408, "BODY_TIMEOUT");
}
