//! Statements, transactions, and what comes out of them.

use super::*;

#[tokio::test]
async fn items_run_in_order_and_give_back_what_they_did() {
    let rig = Rig::new();
    let answer = rig
        .run(json!([
            { "statement": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT UNIQUE)" },
            { "sql": "INSERT INTO users (name, email) VALUES (?, :email)", "values": { ":email": "ada@example.com", "?1": "Ada" } },
            { "statement": "INSERT INTO users (name, email) VALUES (?, ?)", "valuesBatch": [["Bob", "b"], ["Carol", "c"], ["Dan", null]] },
            { "query": "SELECT id, name, email FROM users ORDER BY id" },
            { "query": "INSERT INTO users (name) VALUES ('Eve') RETURNING id, name" },
            { "statement": "SELECT * FROM users" },
        ]))
        .await;
    // a parameter without a name is given by position
    answer.refused(400, "INVALID_PARAMETER");
    let answer = rig
        .run(json!([
            { "statement": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT UNIQUE)" },
            { "sql": "INSERT INTO users (name, email) VALUES (@name, :email)", "values": { ":email": "ada@example.com", "name": "Ada" } },
            { "statement": "INSERT INTO users (name, email) VALUES (?, ?)", "valuesBatch": [["Bob", "b"], ["Carol", "c"], ["Dan", null]] },
            { "query": "SELECT id, name, email FROM users ORDER BY id" },
            { "query": "INSERT INTO users (name) VALUES ('Eve') RETURNING id, name" },
            { "statement": "SELECT * FROM users" },
        ]))
        .await
        .is(200)
        .json();
    let results = answer["results"].as_array().unwrap();
    assert!(results.iter().all(|result| result["success"] == true));
    assert_eq!(results[1]["rowsUpdated"], 1);
    assert_eq!(results[1]["lastInsertRowid"], 1);
    assert_eq!(results[2]["rowsUpdatedBatch"], json!([1, 1, 1]));
    assert_eq!(results[3]["resultHeaders"], json!(["id", "name", "email"]));
    assert_eq!(
        results[3]["resultSet"][0],
        json!({ "id": 1, "name": "Ada", "email": "ada@example.com" })
    );
    assert_eq!(results[3]["truncated"], false);
    assert_eq!(results[4]["resultSet"], json!([{ "id": 5, "name": "Eve" }]));
    assert_eq!(results[5]["rowsUpdated"], 0);
}

#[tokio::test]
async fn a_transaction_happens_as_a_whole_or_not_at_all() {
    let rig = Rig::new();
    with_table(&rig).await;
    let failed = rig
        .run(json!([
            { "statement": "INSERT INTO t (name) VALUES ('d')" },
            { "statement": "CREATE TABLE u (x)" },
            { "statement": "INSERT INTO t (id) VALUES (1)" },
            { "statement": "INSERT INTO t (name) VALUES ('never')" },
        ]))
        .await
        .is(409)
        .json();
    assert_eq!(
        (&failed["reqIdx"], &failed["code"]),
        (&json!(2), &json!("CONSTRAINT"))
    );
    assert!(
        failed["error"].as_str().unwrap().contains("t.id"),
        "{failed}"
    );
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[3]]));
    assert_eq!(
        rig.rows("SELECT count(*) FROM sqlite_schema").await,
        json!([[1]])
    );

    // what may fail alone does so alone
    let answer = rig
        .run(json!([
            { "statement": "INSERT INTO t (id, name) VALUES (10, 'd')" },
            { "statement": "INSERT INTO t (id) VALUES (11), (1)", "noFail": true },
            { "statement": "INSERT INTO t (id) VALUES (?)", "valuesBatch": [[12], [1], [13]], "noFail": true },
            { "query": "SELECT nothing", "noFail": true },
            { "query": "SELECT id FROM t WHERE id > 9 ORDER BY id" },
        ]))
        .await
        .is(200)
        .json();
    let results = &answer["results"];
    assert_eq!(results[1]["success"], false);
    assert_eq!(results[2]["rowsUpdatedBatch"], json!([1, 0, 1]));
    assert_eq!(results[2]["rowErrors"][0], "");
    assert!(
        results[2]["rowErrors"][1]
            .as_str()
            .unwrap()
            .contains("UNIQUE")
    );
    assert!(results[3]["error"].as_str().unwrap().contains("nothing"));
    assert_eq!(
        results[4]["resultSet"],
        json!([{ "id": 10 }, { "id": 12 }, { "id": 13 }])
    );

    // a constraint that is looked at in the end
    rig.does("CREATE TABLE child (of INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
        .await;
    rig.run(
        json!([{ "statement": "INSERT INTO child VALUES (99)" }, { "statement": "DELETE FROM t" }]),
    )
    .await
    .refused(409, "CONSTRAINT");
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[6]]));
}

#[tokio::test]
async fn a_statement_that_rolls_back_ends_the_request() {
    let rig = Rig::new();
    with_table(&rig).await;
    for no_fail in [true, false] {
        let answer = rig
            .run(json!([
                { "statement": "INSERT INTO t (id, name) VALUES (77, 'x')" },
                { "statement": "INSERT OR ROLLBACK INTO t (id) VALUES (1)", "noFail": no_fail },
                { "statement": "INSERT INTO t (id, name) VALUES (78, 'outside of any transaction')" },
            ]))
            .await;
        assert_eq!(answer.status, 409, "{}", answer.text());
        assert_eq!(
            rig.rows("SELECT id FROM t WHERE id > 70").await,
            json!([]),
            "noFail: {no_fail}"
        );
    }
}

#[tokio::test]
async fn values_keep_their_types() {
    let rig = Rig::new();
    rig.does("CREATE TABLE v (x)").await;
    let values = json!([
        9_007_199_254_740_993_i64,
        i64::MIN,
        i64::MAX,
        1.0,
        0.1,
        -0.0,
        1e300,
        null,
        "text",
        "",
        { "type": "blob", "base64": "AP8B" },
        { "type": "integer", "value": "9007199254740993" },
        { "type": "float", "value": "Infinity" },
        true,
    ]);
    let batch: Vec<_> = values
        .as_array()
        .unwrap()
        .iter()
        .map(|value| json!([value]))
        .collect();
    rig.run(json!([{ "statement": "INSERT INTO v VALUES (?)", "valuesBatch": batch }]))
        .await
        .is(200);
    let rows = rig.rows("SELECT x, typeof(x) FROM v ORDER BY rowid").await;
    let want = json!([
        [9_007_199_254_740_993_i64, "integer"],
        [i64::MIN, "integer"],
        [i64::MAX, "integer"],
        [1.0, "real"],
        [0.1, "real"],
        [-0.0, "real"],
        [1e300, "real"],
        [null, "null"],
        ["text", "text"],
        ["", "text"],
        [{ "type": "blob", "base64": "AP8B" }, "blob"],
        [9_007_199_254_740_993_i64, "integer"],
        ["Infinity", "real"],
        [1, "integer"],
    ]);
    assert_eq!(rows, want);
    // and on the wire every digit is there
    let answer = rig.query("SELECT x FROM v WHERE rowid = 1").await.is(200);
    assert!(
        answer.text().contains("9007199254740993"),
        "{}",
        answer.text()
    );

    let body = json!({ "resultFormat": "typed", "transaction": [{ "query":
        "SELECT 9007199254740993, x'00ff', NULL, 1.5, 'a', 9e999, -9e999, 0.0/0.0" }] });
    let typed = rig.post("/db?db=app", body).await.is(200).json();
    assert_eq!(
        typed["results"][0]["resultSetList"][0],
        json!([
            { "type": "integer", "value": "9007199254740993" },
            { "type": "blob", "base64": "AP8=" },
            { "type": "null" },
            { "type": "float", "value": 1.5 },
            { "type": "text", "value": "a" },
            { "type": "float", "value": "Infinity" },
            { "type": "float", "value": "-Infinity" },
            { "type": "null" },
        ])
    );
    for wrong in [
        json!([[1]]),
        json!([{ "a": 1 }]),
        json!([18_446_744_073_709_551_615_u64]),
        json!("x"),
        json!([{ "type": "blob", "base64": "?" }]),
    ] {
        rig.run(json!([{ "query": "SELECT ?", "values": wrong }]))
            .await
            .is(400);
    }
}

#[tokio::test]
async fn columns_of_one_name_stay_apart() {
    let rig = Rig::new();
    rig.make("app").await;
    let sql = "SELECT 1 AS id, 2 AS id, 3 AS id_2, 4 AS id";
    let answer = rig.query(sql).await.is(200).json();
    assert_eq!(answer["columns"], json!(["id", "id_2", "id_2_2", "id_3"]));
    assert_eq!(
        answer["resultSet"],
        json!([{ "id": 1, "id_2": 2, "id_2_2": 3, "id_3": 4 }])
    );
    let body = json!({ "resultFormat": "list", "transaction": [{ "query": sql }] });
    let answer = rig.post("/db?db=app", body).await.is(200).json();
    assert_eq!(
        answer["results"][0]["resultHeaders"],
        json!(["id", "id", "id_2", "id"])
    );
    assert_eq!(answer["results"][0]["resultSetList"], json!([[1, 2, 3, 4]]));
}

#[tokio::test]
async fn shared_queries_only_read() {
    let rig = Rig::new();
    with_table(&rig).await;
    let answer = rig.query("SELECT id, name FROM t").await.is(200).json();
    assert_eq!(answer["rowCount"], 3);
    assert_eq!(answer["truncated"], false);
    for alphabet in [
        base64::engine::general_purpose::STANDARD.encode("SELECT '??>>'"),
        base64::engine::general_purpose::URL_SAFE.encode("SELECT '??>>'"),
        "SELECT+'?'".to_owned(),
        "SELECT%20'%3F%3E'".to_owned(),
    ] {
        let answer = rig.get(&format!("/query?db=app&sql={alphabet}")).await;
        assert_eq!(answer.is(200).json()["rowCount"], 1, "{alphabet}");
    }
    for sql in [
        "INSERT INTO t (name) VALUES ('x')",
        "WITH x AS (SELECT 1) INSERT INTO t (name) SELECT 'x' FROM x",
        "WITH x AS (SELECT 1) DELETE FROM t RETURNING id",
        "SELECT 1; DELETE FROM t",
        "DELETE FROM t",
        "VACUUM",
        "BEGIN",
        "",
        "; -- nothing",
    ] {
        rig.query(sql).await.refused(400, "READ_ONLY_QUERY");
    }
    rig.query("PRAGMA user_version = 7")
        .await
        .refused(400, "READ_ONLY_QUERY");
    for sql in ["PRAGMA journal_mode = DELETE", "PRAGMA writable_schema = 1"] {
        rig.query(sql).await.refused(403, "NOT_ALLOWED");
    }
    rig.query("SELECT * FROM nothing")
        .await
        .refused(400, "SQL_ERROR");
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[3]]));
    assert_eq!(
        rig.query("EXPLAIN QUERY PLAN SELECT * FROM t")
            .await
            .is(200)
            .json()["rowCount"],
        1
    );
    assert_eq!(
        rig.query("PRAGMA table_info(t)").await.is(200).json()["rowCount"],
        2
    );
    // and so does a transaction that says so
    let body = json!({ "transaction": [{ "statement": "DELETE FROM t" }] });
    rig.post("/db?db=app&read_only=true", body)
        .await
        .refused(403, "NOT_ALLOWED");
    let body = json!({ "transaction": [{ "query": "SELECT count(*) FROM t" }] });
    rig.post("/db?db=app&read_only=true", body).await.is(200);
}

#[tokio::test]
async fn rows_and_bytes_are_bounded() {
    let rig = Rig::new();
    rig.make("app").await;
    let many = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 10001) SELECT x FROM n";
    let answer = rig.query(many).await.is(200).json();
    assert_eq!(
        (&answer["rowCount"], &answer["truncated"]),
        (&json!(10_000), &json!(true))
    );
    let answer = rig
        .query(&many.replace("10001", "10000"))
        .await
        .is(200)
        .json();
    assert_eq!(
        (&answer["rowCount"], &answer["truncated"]),
        (&json!(10_000), &json!(false))
    );

    // what writes comes to its end although its rows do not
    rig.does("CREATE TABLE n (x)").await;
    let all = format!("INSERT INTO n {many} RETURNING x");
    let answer = rig.run(json!([{ "query": all }])).await.is(200).json();
    assert_eq!(answer["results"][0]["truncated"], true);
    assert_eq!(rig.rows("SELECT count(*) FROM n").await, json!([[10_001]]));

    let large = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 40) SELECT hex(zeroblob(250000)) FROM n";
    let why = rig.query(large).await.refused(413, "RESULT_TOO_LARGE");
    assert!(why.contains("16777216"), "{why}");
    rig.query("SELECT zeroblob(16777217)")
        .await
        .refused(413, "TOO_BIG");
    let long = format!("SELECT '{}'", "x".repeat(1 << 20));
    rig.run(json!([{ "query": long }]))
        .await
        .refused(413, "TOO_BIG");
    for (body, at) in [
        (json!({ "transaction": [] }), "transaction"),
        (json!({}), "transaction"),
        (
            json!({ "transaction": vec![json!({ "query": "SELECT 1" }); 10_001] }),
            "10000",
        ),
        (json!({ "transaction": [{}] }), "transaction[0]"),
        (
            json!({ "transaction": [{ "query": "a", "statement": "b" }] }),
            "transaction[0]",
        ),
        (
            json!({ "transaction": [{ "query": "a", "valuesBatch": [] }] }),
            "valuesBatch",
        ),
        (
            json!({ "transaction": [{ "statement": "a", "values": [], "valuesBatch": [] }] }),
            "valuesBatch",
        ),
    ] {
        let why = rig
            .post("/db?db=app", body)
            .await
            .refused(400, "VALIDATION_ERROR");
        assert!(why.contains(at), "{why}");
    }
}

#[tokio::test]
async fn flags_that_contradict_are_refused() {
    let rig = Rig::new();
    let body = || json!({ "transaction": [{ "query": "SELECT 1" }] });
    rig.post(
        "/db?db=new&create_db_if_missing=true&auto_create=false",
        body(),
    )
    .await
    .refused(400, "CONFLICTING_FLAGS");
    rig.post("/db?db=new", body())
        .await
        .refused(404, "DATABASE_NOT_FOUND");
    rig.post("/db?db=new&auto_create=true", body())
        .await
        .is(200);
}

#[tokio::test]
async fn one_query_that_takes_too_long_is_ended_alone() {
    let rig = Rig::new();
    with_table(&rig).await;
    let endless =
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
    let body = |sql: &str| json!({ "transaction": [{ "query": sql }] });
    let slow = rig.post("/db?db=app&timeout=1", body(endless));
    let others = async {
        let mut answered = 0;
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(800) {
            rig.does("INSERT INTO t (name) VALUES ('meanwhile')").await;
            assert_eq!(rig.rows("SELECT 1").await, json!([[1]]));
            answered += 1;
        }
        answered
    };
    let (slow, answered) = tokio::join!(slow, others);
    let why = slow.refused(408, "TIMEOUT");
    assert!(why.contains("after 1 s"), "{why}");
    assert!(answered > 3, "{answered} others");

    // one that writes leaves nothing behind
    let write = "INSERT INTO t (name) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n LIMIT 1000000000";
    let before = rig.rows("SELECT count(*) FROM t").await;
    let body = json!({ "transaction": [{ "statement": write, "noFail": true }] });
    rig.post("/db?db=app&timeout=1", body)
        .await
        .refused(408, "TIMEOUT");
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, before);
    rig.does("INSERT INTO t (name) VALUES ('after')").await;
}

#[tokio::test]
async fn what_nobody_waits_for_is_ended() {
    let rig = Rig::new();
    with_table(&rig).await;
    let endless = "INSERT INTO t (name) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n";
    let body = json!({ "transaction": [{ "statement": endless }] });
    let left = tokio::time::timeout(
        Duration::from_millis(200),
        rig.post("/db?db=app&timeout=300", body),
    );
    assert!(left.await.is_err(), "it goes on as long as somebody waits");
    let next = tokio::time::timeout(
        PATIENCE,
        rig.run(json!([{ "query": "INSERT INTO t (name) VALUES ('next') RETURNING id" }])),
    );
    let id = next.await.expect("the writer is free").is(200).json();
    assert_eq!(id["results"][0]["resultSet"][0]["id"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_the_writer_do_not_wait_for_each_other() {
    let rig = Rig::new();
    with_table(&rig).await;
    // somebody in the container holds the lock
    let other = rusqlite::Connection::open(rig.at("app.db")).unwrap();
    other
        .execute_batch("BEGIN IMMEDIATE; INSERT INTO t (name) VALUES ('x')")
        .unwrap();
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[3]]));
    let (waited, ()) = tokio::join!(
        rig.run(json!([{ "statement": "INSERT INTO t (name) VALUES ('y')" }])),
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            other.execute_batch("COMMIT").unwrap();
        }
    );
    waited.is(200);
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[5]]));

    // and one that does not let go is told of
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = std::time::Instant::now();
    let answer = rig.run(json!([{ "statement": "DELETE FROM t" }])).await;
    assert_eq!(answer.header("retry-after"), "1");
    answer.refused(503, "BUSY");
    assert!(began.elapsed() >= crate::limits::BUSY);
    other.execute_batch("COMMIT").unwrap();

    // a reader that holds a state of the database holds up nobody
    other
        .execute_batch("BEGIN; SELECT count(*) FROM t")
        .unwrap();
    rig.does("INSERT INTO t (name) VALUES ('z')").await;
    let seen: i64 = other
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(seen, 5);
}
