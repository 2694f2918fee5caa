//! Databases out and in.

use futures::StreamExt;

use super::*;

impl Rig {
    async fn import(&self, query: &str, body: impl Into<Body>) -> Answer {
        let path = format!("/import?db=app&create_db_if_missing=true&{query}");
        self.send("POST", &path, &[], body).await
    }
}

async fn furnish(rig: &Rig) {
    rig.run(json!([
        { "statement": "CREATE TABLE \"odd \"\"name\" (id INTEGER PRIMARY KEY, \"a,b\" TEXT, r REAL, b BLOB, twice AS (id * 2))" },
        { "statement": "INSERT INTO \"odd \"\"name\" (\"a,b\", r, b) VALUES (?, ?, ?)", "valuesBatch": [
            ["it's \"quoted\"\nand, more; --", 0.1, { "type": "blob", "base64": "AP8=" }],
            [null, { "type": "float", "value": "Infinity" }, null],
            ["", 1e300, null],
            ["nul\u{0}inside", -5.0, null],
        ] },
        { "statement": "CREATE TABLE big (n)" },
        { "statement": "INSERT INTO big VALUES (9007199254740993), (-9223372036854775808)" },
        { "statement": "CREATE INDEX by_n ON big (n)" },
        { "statement": "CREATE VIEW v AS SELECT n FROM big" },
        { "statement": "CREATE TRIGGER tr AFTER INSERT ON big WHEN new.n = 0 BEGIN SELECT 1; DELETE FROM big WHERE n = 0; END" },
        { "statement": "CREATE VIRTUAL TABLE f USING fts5(text)" },
        { "statement": "INSERT INTO f VALUES ('hello world')" },
    ]))
    .await
    .is(200);
}

const SEEN: &str = "SELECT id, \"a,b\", r, b, twice FROM \"odd \"\"name\" ORDER BY id";

#[tokio::test]
async fn what_is_exported_comes_back_as_it_was() {
    let rig = Rig::new();
    furnish(&rig).await;
    let before = (rig.rows(SEEN).await, rig.rows("SELECT n FROM big").await);
    for format in ["sql", "sqlite"] {
        let exported = rig
            .get(&format!("/export?db=app&format={format}"))
            .await
            .is(200);
        assert!(
            exported
                .header("content-disposition")
                .starts_with("attachment; filename=\"app.")
        );
        let other = Rig::new();
        let done = other
            .import(&format!("format={format}"), exported.body.clone())
            .await
            .is(200)
            .json();
        assert_eq!(done["success"], true);
        assert_eq!(
            (
                other.rows(SEEN).await,
                other.rows("SELECT n FROM big").await
            ),
            before,
            "{format}"
        );
        let names = "SELECT name FROM sqlite_schema WHERE type IN ('index', 'view', 'trigger') AND name NOT LIKE 'sqlite%' ORDER BY name";
        assert_eq!(other.rows(names).await, json!([["by_n"], ["tr"], ["v"]]));
        assert_eq!(
            other.rows("SELECT text FROM f WHERE f MATCH 'world'").await,
            json!([["hello world"]])
        );
        assert_eq!(other.rows("PRAGMA journal_mode").await, json!([["wal"]]));
        // and is written to like any other
        other.does("INSERT INTO big VALUES (7)").await;
        if format == "sqlite" {
            other
                .import("format=sqlite", exported.body.clone())
                .await
                .refused(409, "DATABASE_NOT_EMPTY");
            other
                .import("format=sqlite&replace=true", exported.body)
                .await
                .is(200);
            assert_eq!(other.rows("SELECT count(*) FROM big").await, json!([[2]]));
        }
    }
    for format in ["csv", "jsonl"] {
        let exported = rig
            .get(&format!(
                "/export?db=app&format={format}&table=odd%20%22name"
            ))
            .await
            .is(200);
        let other = Rig::new();
        other
            .does("CREATE TABLE t (id INTEGER, \"a,b\" TEXT, r REAL, b)")
            .await;
        let taken = other
            .import(&format!("format={format}&table=t"), exported.body)
            .await
            .is(200)
            .json();
        assert_eq!(taken["rows"], 4);
        let rows = other.rows("SELECT id, \"a,b\" FROM t").await;
        assert_eq!(rows[0], json!([1, "it's \"quoted\"\nand, more; --"]));
        assert_eq!((&rows[1][1], &rows[2][1]), (&Value::Null, &json!("")));
        if format == "jsonl" {
            assert_eq!(
                other
                    .rows("SELECT hex(b), typeof(b) FROM t WHERE id = 1")
                    .await,
                json!([["00FF", "blob"]])
            );
        }
        // a table that is not there is made
        let text = if format == "csv" {
            "x,y\n1,\n"
        } else {
            "{\"x\": \"1\", \"y\": null}\n"
        };
        other
            .import(&format!("format={format}&table=fresh"), text)
            .await
            .is(200);
        assert_eq!(
            other.rows("SELECT x, y FROM fresh").await,
            json!([["1", null]])
        );
    }
}

#[tokio::test]
async fn an_import_happens_as_a_whole_or_not_at_all() {
    let rig = Rig::new();
    with_table(&rig).await;
    for (query, text, code, says) in [
        (
            "format=sql",
            "INSERT INTO t (name) VALUES ('x');\nINSERT INTO t (id) VALUES (1);",
            "CONSTRAINT",
            "line 2",
        ),
        (
            "format=sql",
            "INSERT INTO t (name) VALUES ('x');\nCOMMIT; INSERT INTO t (id) VALUES (1);",
            "CONSTRAINT",
            "line 2",
        ),
        (
            "format=sql",
            "INSERT INTO t (name) VALUES ('x'); ATTACH '/tmp/hoody-was-here' AS x;",
            "NOT_ALLOWED",
            "ATTACH",
        ),
        (
            "format=sql",
            "INSERT INTO t (name) VALUES ('x'); PRAGMA writable_schema = ON;",
            "NOT_ALLOWED",
            "writable_schema",
        ),
        (
            "format=sql",
            "INSERT INTO t (name) VALUES ('x'); INSERT OR ROLLBACK INTO t (id) VALUES (1)",
            "CONSTRAINT",
            "UNIQUE",
        ),
        (
            "format=csv&table=t",
            "id,name\n90,x\n1,y\n",
            "CONSTRAINT",
            "line 3",
        ),
        (
            "format=csv&table=t",
            "id,name\n90,x\n91\n",
            "INVALID_IMPORT",
            "line 3",
        ),
        (
            "format=csv&table=t",
            "id,name\n90,\"x\n",
            "INVALID_IMPORT",
            "not closed",
        ),
        (
            "format=jsonl&table=t",
            "{\"name\": \"x\"}\n{\"other\": 1}\n",
            "INVALID_IMPORT",
            "line 2",
        ),
        (
            "format=jsonl&table=t",
            "{\"name\": \"x\"}\nno json\n",
            "INVALID_IMPORT",
            "line 2",
        ),
        (
            "format=jsonl&table=sqlite_schema",
            "{\"type\": \"x\"}\n",
            "SQL_ERROR",
            "sqlite_",
        ),
        (
            "format=sqlite&replace=true",
            "no database",
            "NOT_A_DATABASE",
            "no whole",
        ),
        ("format=csv", "a\n", "VALIDATION_ERROR", "table"),
        ("format=sql&table=t", "", "VALIDATION_ERROR", "table"),
        ("format=tar", "", "VALIDATION_ERROR", "tar"),
    ] {
        let answer = rig.import(query, text).await;
        let body = answer.json();
        assert!(answer.status.is_client_error(), "{query}: {body}");
        assert_eq!(body["code"], code, "{query}: {body}");
        assert!(
            body["error"].as_str().unwrap().contains(says),
            "{query}: {body}"
        );
        assert_eq!(
            rig.rows("SELECT count(*) FROM t").await,
            json!([[3]]),
            "{query}"
        );
    }
    let damaged = rig.get("/export?db=app").await.is(200).body;
    let mut damaged = damaged.to_vec();
    let half = damaged.len() / 2;
    damaged[half..].fill(0xa5);
    rig.import("format=sqlite&replace=true", damaged)
        .await
        .refused(422, "NOT_A_DATABASE");
    rig.import("format=sql", vec![b'-', b'-', 0xff, 0xfe])
        .await
        .refused(400, "INVALID_IMPORT");
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[3]]));
    let scratch = rig.dir.path().join("state/scratch");
    assert_eq!(
        files(&scratch),
        Vec::<String>::new(),
        "nothing is left behind"
    );
    for path in [
        "/export?db=app&format=csv",
        "/export?db=app&format=sqlite&table=t",
        "/export?db=app&format=x",
    ] {
        rig.get(path).await.refused(400, "VALIDATION_ERROR");
    }
    rig.get("/export?db=app&format=csv&table=nothing")
        .await
        .refused(404, "TABLE_NOT_FOUND");
    rig.get("/export?db=nothing")
        .await
        .refused(404, "DATABASE_NOT_FOUND");
}

/// What this process has taken of the machine's memory at most, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_goes_out_and_in_in_little_memory() {
    const ROWS: usize = 30_000;
    const ROW: usize = 2_000;
    /// What is added to the peak, at most: a fraction of what goes through.
    const LITTLE: u64 = 32 << 20;
    let rig = Rig::new();
    rig.does("CREATE TABLE big (x)").await;
    let rows = format!(
        "INSERT INTO big WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {ROWS}) SELECT hex(randomblob({})) FROM n",
        ROW / 2
    );
    rig.does(&rows).await;
    let before = peak();
    for (format, query) in [
        ("sqlite", "format=sqlite"),
        ("sql", "format=sql"),
        ("csv", "format=csv&table=big"),
        ("jsonl", "format=jsonl&table=big"),
    ] {
        let request = Request::get(format!("/api/v1/sqlite/export?db=app&{query}"))
            .body(Body::empty())
            .unwrap();
        let response = rig.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let out = response.into_body().into_data_stream();
        // straight into another one, as it comes
        let path = format!("/import?db=copy_{format}&create_db_if_missing=true&{query}");
        let taken = rig
            .send("POST", &path, &[], Body::from_stream(out))
            .await
            .is(200)
            .json();
        assert!(
            taken["bytes"].as_u64().unwrap() > (ROWS * ROW) as u64 / 2,
            "{taken}"
        );
    }
    let grown = peak() - before;
    assert!(
        grown < LITTLE,
        "{grown} bytes more for {} each way",
        ROWS * ROW
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_its_export() {
    let rig = Rig::new();
    rig.does("CREATE TABLE big (x)").await;
    rig.does("INSERT INTO big WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 6000) SELECT hex(randomblob(500)) FROM n").await;
    for _ in 0..crate::ops::transfer::AT_ONCE * 2 {
        let request = Request::get("/api/v1/sqlite/export?db=app&format=sql")
            .body(Body::empty())
            .unwrap();
        let response = rig.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body().into_data_stream();
        body.next().await.unwrap().unwrap();
        drop(body);
        let began = std::time::Instant::now();
        while rig.get("/export?db=app&format=csv&table=big").await.status == 503 {
            assert!(began.elapsed() < PATIENCE, "its turn is taken still");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    // who only holds it takes a turn, and no more than there are
    let mut held = Vec::new();
    for _ in 0..crate::ops::transfer::AT_ONCE {
        let request = Request::get("/api/v1/sqlite/export?db=app&format=sql")
            .body(Body::empty())
            .unwrap();
        held.push(rig.router.clone().oneshot(request).await.unwrap());
    }
    rig.get("/export?db=app&format=sql")
        .await
        .refused(503, "TOO_MUCH");
    rig.does("INSERT INTO big VALUES ('while they hold it')")
        .await;
}
