//! Hrana over HTTP and WebSocket.

use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{self, Message};

use super::*;

impl Rig {
    async fn pipeline(&self, baton: Value, requests: Value) -> Answer {
        let body = json!({ "baton": baton, "requests": requests });
        self.post("/hrana/app/v3/pipeline", body).await
    }

    /// Serve it on a port.
    async fn listen(&self) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.router.clone();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }
}

fn execute(sql: &str) -> Value {
    json!({ "type": "execute", "stmt": { "sql": sql } })
}

#[tokio::test]
async fn a_pipeline_runs_on_a_stream_that_a_baton_leads_to() {
    let rig = Rig::new();
    rig.get("/hrana/app/v3").await.is(200);
    rig.get("/hrana/app/v2").await.is(200);
    rig.get("/hrana/app/v3-protobuf").await.is(200);
    let answer = rig
        .pipeline(
            Value::Null,
            json!([
                execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x)"),
                { "type": "execute", "stmt": { "sql": "INSERT INTO t (x) VALUES (?), (:a)", "args": [{ "type": "integer", "value": "9007199254740993" }], "named_args": [{ "name": "a", "value": { "type": "blob", "base64": "AP8" } }] } },
                { "type": "execute", "stmt": { "sql": "SELECT id, x FROM t" } },
                { "type": "execute", "stmt": { "sql": "SELECT nothing" } },
                { "type": "execute", "stmt": { "sql": "SELECT 9e999, -9e999, 1.5, 'a\"b', NULL" } },
                { "type": "describe", "sql": "SELECT id FROM t WHERE x = :x" },
                { "type": "get_autocommit" },
                { "type": "close" },
                execute("SELECT 1"),
            ]),
        )
        .await
        .is(200);
    let text = answer.text();
    assert!(
        text.contains("{\"type\":\"float\",\"value\":1e999}"),
        "{text}"
    );
    let text = text
        .replace("-1e999", "\"-inf\"")
        .replace("1e999", "\"inf\"");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["baton"], Value::Null);
    let results = &answer["results"];
    assert_eq!(results[1]["response"]["result"]["affected_row_count"], 2);
    assert_eq!(results[1]["response"]["result"]["last_insert_rowid"], "2");
    let rows = &results[2]["response"]["result"];
    assert_eq!(
        rows["cols"],
        json!([{ "name": "id", "decltype": "INTEGER" }, { "name": "x", "decltype": null }])
    );
    assert_eq!(
        rows["rows"],
        json!([
            [{ "type": "integer", "value": "1" }, { "type": "integer", "value": "9007199254740993" }],
            [{ "type": "integer", "value": "2" }, { "type": "blob", "base64": "AP8=" }],
        ])
    );
    assert_eq!(
        (&results[3]["type"], &results[3]["error"]["code"]),
        (&json!("error"), &json!("SQL_ERROR"))
    );
    assert_eq!(
        results[5]["response"]["result"],
        json!({ "params": [{ "name": ":x" }], "cols": [{ "name": "id", "decltype": "INTEGER" }], "is_explain": false, "is_readonly": true })
    );
    assert_eq!(
        results[6]["response"],
        json!({ "type": "get_autocommit", "is_autocommit": true })
    );
    assert_eq!(results[7]["response"], json!({ "type": "close" }));
    assert_eq!(results[8]["error"]["code"], "STREAM_CLOSED");
}

#[tokio::test]
async fn transactions_go_over_several_requests() {
    let rig = Rig::new();
    rig.does("CREATE TABLE t (x)").await;
    let begun = rig.pipeline(Value::Null, json!([execute("BEGIN IMMEDIATE"), execute("INSERT INTO t VALUES (1)"), { "type": "get_autocommit" }])).await.is(200).json();
    assert_eq!(begun["results"][2]["response"]["is_autocommit"], false);
    let baton = begun["baton"].clone();
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[0]]));
    let health = rig.get("/health").await.json();
    assert_eq!(health["counters"]["hrana_streams"], 1);
    assert!(rig.sqlite.is_busy());

    let next = rig
        .pipeline(baton.clone(), json!([execute("INSERT INTO t VALUES (2)")]))
        .await
        .is(200)
        .json();
    rig.pipeline(baton, json!([]))
        .await
        .refused(409, "BATON_REUSED");
    let mut forged = next["baton"].as_str().unwrap().to_owned();
    forged.replace_range(0..4, "AAAA");
    rig.pipeline(json!(forged), json!([]))
        .await
        .refused(404, "STREAM_EXPIRED");
    rig.pipeline(json!("no baton"), json!([]))
        .await
        .refused(404, "STREAM_EXPIRED");
    let done = rig
        .pipeline(
            next["baton"].clone(),
            json!([execute("COMMIT"), { "type": "close" }]),
        )
        .await
        .is(200)
        .json();
    assert_eq!(done["baton"], Value::Null);
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[2]]));
    assert!(!rig.sqlite.is_busy());
}

#[tokio::test]
async fn a_stream_that_is_left_alone_ends_and_says_so() {
    let rig = Rig::new();
    rig.does("CREATE TABLE t (x)").await;
    let open = rig
        .pipeline(
            Value::Null,
            json!([
                execute("BEGIN IMMEDIATE"),
                execute("INSERT INTO t VALUES (1)")
            ]),
        )
        .await
        .is(200)
        .json();
    let idle = rig
        .pipeline(Value::Null, json!([execute("SELECT 1")]))
        .await
        .is(200)
        .json();
    let now = std::time::Instant::now();
    assert_eq!(rig.sqlite.waiting.expire(now), 0);
    assert_eq!(
        rig.sqlite
            .waiting
            .expire(now + crate::hrana::TRANSACTION_IDLE + Duration::from_secs(1)),
        1
    );
    let why = rig
        .pipeline(open["baton"].clone(), json!([execute("COMMIT")]))
        .await
        .refused(404, "STREAM_EXPIRED");
    assert!(why.contains("30 s in a transaction"), "{why}");
    rig.does("INSERT INTO t VALUES (2)").await; // the lock is free
    assert_eq!(rig.rows("SELECT x FROM t").await, json!([[2]]));
    rig.pipeline(idle["baton"].clone(), json!([{ "type": "close" }]))
        .await
        .is(200);
    assert_eq!(rig.sqlite.waiting.count(), 0);
}

#[tokio::test]
async fn batches_run_under_conditions() {
    let rig = Rig::new();
    let step =
        |sql: &str, condition: Value| json!({ "stmt": { "sql": sql }, "condition": condition });
    let batch = json!({ "type": "batch", "batch": { "steps": [
        step("CREATE TABLE t (x UNIQUE)", Value::Null),
        step("BEGIN", json!({ "type": "ok", "step": 0 })),
        step("INSERT INTO t VALUES (1)", json!({ "type": "ok", "step": 1 })),
        step("INSERT INTO t VALUES (1)", json!({ "type": "and", "conds": [{ "type": "ok", "step": 2 }, { "type": "not", "cond": { "type": "is_autocommit" } }] })),
        step("COMMIT", json!({ "type": "ok", "step": 3 })),
        step("ROLLBACK", json!({ "type": "or", "conds": [{ "type": "error", "step": 3 }, { "type": "ok", "step": 0 }] })),
        step("SELECT 1", json!({ "type": "ok", "step": 6 })),
    ] } });
    let answer = rig
        .pipeline(Value::Null, json!([batch, { "type": "close" }]))
        .await
        .is(200)
        .json();
    let result = &answer["results"][0]["response"]["result"];
    let is = |list: &str| {
        result[list]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| !it.is_null())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        is("step_results"),
        [true, true, true, false, false, true, false]
    );
    assert_eq!(
        is("step_errors"),
        [false, false, false, true, false, false, true]
    );
    assert_eq!(result["step_errors"][6]["code"], "BATCH_COND_BAD_STEP");
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[0]]));

    let sequence = json!({ "type": "sequence", "sql": "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2);; -- end\n" });
    let store = json!({ "type": "store_sql", "sql_id": 7, "sql": "SELECT count(*) FROM t" });
    let stored = json!({ "type": "execute", "stmt": { "sql_id": 7 } });
    let answer = rig.pipeline(Value::Null, json!([sequence, store, stored, { "type": "close_sql", "sql_id": 7 }, stored, { "type": "execute", "stmt": { "sql": "SELECT 1", "want_rows": false } }, { "type": "close" }])).await.is(200).json();
    let results = &answer["results"];
    assert_eq!(results[2]["response"]["result"]["rows"][0][0]["value"], "2");
    assert_eq!(results[4]["error"]["code"], "SQL_NOT_FOUND");
    assert_eq!(results[5]["response"]["result"]["rows"], json!([]));
}

#[tokio::test]
async fn a_cursor_sends_rows_as_they_come() {
    let rig = Rig::new();
    rig.make("app").await;
    let many = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 50000) SELECT x, hex(zeroblob(500)) FROM n";
    let body = json!({ "baton": null, "batch": { "steps": [{ "stmt": { "sql": many } }, { "stmt": { "sql": "SELECT nothing" } }, { "stmt": { "sql": "SELECT 1" }, "condition": { "type": "error", "step": 1 } }] } });
    let answer = rig.post("/hrana/app/v3/cursor", body.clone()).await.is(200);
    let text = answer.text();
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let baton = lines.next().unwrap()["baton"].clone();
    let mut count = std::collections::BTreeMap::<String, u64>::new();
    for line in lines {
        *count
            .entry(line["type"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    assert_eq!(
        count,
        [
            ("row", 50_001),
            ("step_begin", 2),
            ("step_end", 2),
            ("step_error", 1)
        ]
        .map(|(name, n)| (name.to_owned(), n))
        .into()
    );
    rig.pipeline(baton, json!([{ "type": "close" }]))
        .await
        .is(200);

    // who leaves in the middle ends it
    let request = Request::post("/api/v1/sqlite/hrana/app/v3/cursor")
        .body(Body::from(body.to_string()))
        .unwrap();
    let mut response = rig
        .router
        .clone()
        .oneshot(request)
        .await
        .unwrap()
        .into_body()
        .into_data_stream();
    response.next().await.unwrap().unwrap();
    drop(response);
    let began = std::time::Instant::now();
    while rig.sqlite.is_busy() {
        assert!(began.elapsed() < PATIENCE, "the stream goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn streams_are_bounded_and_guarded() {
    let rig = Rig::new();
    let mut batons = Vec::new();
    for _ in 0..crate::hrana::STREAMS {
        let answer = rig.pipeline(Value::Null, json!([])).await.is(200).json();
        batons.push(answer["baton"].clone());
    }
    let why = rig
        .pipeline(Value::Null, json!([]))
        .await
        .refused(503, "TOO_MANY_STREAMS");
    assert!(why.contains("128"), "{why}");
    for baton in batons {
        rig.pipeline(baton, json!([{ "type": "close" }]))
            .await
            .is(200);
    }
    for sql in [
        "ATTACH 'x.db' AS x",
        "VACUUM INTO '/tmp/hoody-was-here'",
        "PRAGMA writable_schema = 1",
        "SELECT load_extension('x')",
        "PRAGMA journal_mode = DELETE",
    ] {
        let answer = rig
            .pipeline(Value::Null, json!([execute(sql), { "type": "close" }]))
            .await
            .is(200)
            .json();
        assert_eq!(
            answer["results"][0]["error"]["code"], "NOT_ALLOWED",
            "{sql}: {answer}"
        );
    }
    let answer = rig.pipeline(Value::Null, json!([execute("VACUUM"), execute("PRAGMA foreign_keys = OFF"), execute("CREATE TEMP TABLE mine (x)"), execute("PRAGMA foreign_keys"), { "type": "close" }])).await.is(200).json();
    let results = answer["results"].as_array().unwrap();
    assert!(results.iter().all(|it| it["type"] == "ok"), "{answer}");
    // what one stream sets is its own
    assert_eq!(rig.rows("PRAGMA foreign_keys").await, json!([[1]]));
    assert!(!Path::new("/tmp/hoody-was-here").exists());

    let read = async |requests: Value| {
        rig.post(
            "/hrana-read/app/v2/pipeline",
            json!({ "requests": requests }),
        )
        .await
    };
    let answer = read(json!([execute("SELECT 1"), execute("CREATE TABLE no (x)"), execute("PRAGMA query_only = 0"), { "type": "close" }])).await.is(200).json();
    assert_eq!(answer["results"][0]["type"], "ok");
    assert_eq!(answer["results"][1]["error"]["code"], "NOT_ALLOWED");
    assert_eq!(answer["results"][2]["error"]["code"], "NOT_ALLOWED");
    rig.post("/hrana-read/nothing/v2/pipeline", json!({ "requests": [] }))
        .await
        .refused(404, "DATABASE_NOT_FOUND");
    rig.post("/hrana/..%2Fx/v2/pipeline", json!({ "requests": [] }))
        .await
        .refused(400, "INVALID_DATABASE_NAME");
    for wrong in [
        json!({ "requests": [{ "type": "nonsense" }] }),
        json!([]),
        json!({ "requests": [{ "type": "execute", "stmt": { "sql": "SELECT ?", "args": [1] } }] }),
    ] {
        rig.post("/hrana/app/v3/pipeline", wrong)
            .await
            .refused(400, "HRANA_PROTO_ERROR");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_take_turns() {
    let rig = Rig::new();
    rig.does("CREATE TABLE t (x)").await;
    let begun = rig
        .pipeline(
            Value::Null,
            json!([
                execute("BEGIN IMMEDIATE"),
                execute("INSERT INTO t VALUES (1)")
            ]),
        )
        .await
        .is(200)
        .json();
    let (other, ()) = tokio::join!(
        rig.pipeline(
            Value::Null,
            json!([execute("INSERT INTO t VALUES (2)"), { "type": "close" }])
        ),
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            rig.pipeline(
                begun["baton"].clone(),
                json!([execute("COMMIT"), { "type": "close" }]),
            )
            .await
            .is(200);
        }
    );
    assert_eq!(other.is(200).json()["results"][0]["type"], "ok");
    // one that read before somebody else wrote cannot write
    let stale = rig
        .pipeline(
            Value::Null,
            json!([execute("BEGIN"), execute("SELECT count(*) FROM t")]),
        )
        .await
        .is(200)
        .json();
    rig.does("INSERT INTO t VALUES (3)").await;
    let answer = rig
        .pipeline(
            stale["baton"].clone(),
            json!([execute("INSERT INTO t VALUES (4)"), { "type": "close" }]),
        )
        .await
        .is(200)
        .json();
    assert_eq!(
        answer["results"][0]["error"]["code"], "BUSY_SNAPSHOT",
        "{answer}"
    );
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[3]]));
}

/// A client over a WebSocket.
struct Socket(tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>);

impl Socket {
    async fn connect(
        address: std::net::SocketAddr,
        path: &str,
        protocol: &str,
    ) -> Result<Socket, tungstenite::Error> {
        use tungstenite::client::IntoClientRequest;
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol.parse().unwrap());
        let stream = tokio::net::TcpStream::connect(address).await?;
        let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
        assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
        Ok(Socket(socket))
    }
    async fn say(&mut self, message: Value) {
        self.0
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
    }
    async fn hear(&mut self) -> Message {
        tokio::time::timeout(PATIENCE, self.0.next())
            .await
            .expect("an answer")
            .expect("the socket is open")
            .unwrap()
    }
    async fn json(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.hear().await {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }
    /// Ask, and wait for the answer.
    async fn ask(&mut self, id: i32, request: Value) -> Value {
        self.say(json!({ "type": "request", "request_id": id, "request": request }))
            .await;
        let answer = self.json().await;
        assert_eq!(answer["request_id"], id, "{answer}");
        answer
    }
    async fn closed(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.hear().await {
                return frame.map_or(1005, |frame| frame.code.into());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_socket_end_with_it() {
    let rig = Rig::new();
    rig.does("CREATE TABLE t (x)").await;
    let address = rig.listen().await;
    for protocol in ["hrana3", "hrana2", "hrana1"] {
        let mut socket = Socket::connect(address, "/api/v1/sqlite/hrana/app", protocol)
            .await
            .unwrap();
        socket.say(json!({ "type": "hello", "jwt": null })).await;
        assert_eq!(socket.json().await, json!({ "type": "hello_ok" }));
        assert_eq!(
            socket
                .ask(1, json!({ "type": "open_stream", "stream_id": -5 }))
                .await["type"],
            "response_ok"
        );
        let stmt =
            |sql: &str| json!({ "type": "execute", "stream_id": -5, "stmt": { "sql": sql } });
        socket.ask(2, stmt("BEGIN IMMEDIATE")).await;
        let done = socket
            .ask(3, stmt("INSERT INTO t VALUES (1) RETURNING x"))
            .await;
        assert_eq!(
            done["response"]["result"]["rows"],
            json!([[{ "type": "integer", "value": "1" }]]),
            "{done}"
        );
        let failed = socket.ask(4, stmt("SELECT nothing")).await;
        assert_eq!(failed["error"]["code"], "SQL_ERROR");
        let unknown = socket
            .ask(
                5,
                json!({ "type": "execute", "stream_id": 9, "stmt": { "sql": "SELECT 1" } }),
            )
            .await;
        assert_eq!(unknown["error"]["code"], "STREAM_NOT_FOUND");
        drop(socket); // as a client that dies
        let began = std::time::Instant::now();
        while rig.sqlite.is_busy() {
            assert!(began.elapsed() < PATIENCE, "the stream outlives its client");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(rig.rows("SELECT count(*) FROM t").await, json!([[0]]));
    }
    rig.does("INSERT INTO t VALUES (2)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_of_a_socket_does_not_wait_for_another() {
    let rig = Rig::new();
    rig.make("app").await;
    let address = rig.listen().await;
    let mut socket = Socket::connect(address, "/?db=app", "hrana3")
        .await
        .unwrap();
    socket.say(json!({ "type": "hello" })).await;
    socket.json().await;
    for (id, stream) in [(1, 1), (2, 2)] {
        socket
            .ask(id, json!({ "type": "open_stream", "stream_id": stream }))
            .await;
    }
    let slow = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 3000000) SELECT count(*) FROM n";
    socket.say(json!({ "type": "request", "request_id": 10, "request": { "type": "execute", "stream_id": 1, "stmt": { "sql": slow } } })).await;
    socket.say(json!({ "type": "request", "request_id": 11, "request": { "type": "execute", "stream_id": 1, "stmt": { "sql": "SELECT 'after'" } } })).await;
    socket.say(json!({ "type": "request", "request_id": 20, "request": { "type": "execute", "stream_id": 2, "stmt": { "sql": "SELECT 1" } } })).await;
    let mut order = Vec::new();
    for _ in 0..3 {
        order.push(socket.json().await["request_id"].as_i64().unwrap());
    }
    assert_eq!(order, [20, 10, 11]);

    // cursors
    let batch = json!({ "steps": [{ "stmt": { "sql": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 1000) SELECT x FROM n" } }] });
    socket
        .ask(
            30,
            json!({ "type": "open_cursor", "stream_id": 1, "cursor_id": 5, "batch": batch }),
        )
        .await;
    let busy = socket
        .ask(
            31,
            json!({ "type": "execute", "stream_id": 1, "stmt": { "sql": "SELECT 1" } }),
        )
        .await;
    assert_eq!(busy["error"]["code"], "CURSOR_OPEN");
    let mut rows = 0;
    loop {
        let fetched = socket
            .ask(
                32,
                json!({ "type": "fetch_cursor", "cursor_id": 5, "max_count": 100 }),
            )
            .await;
        let entries = fetched["response"]["entries"].as_array().unwrap().clone();
        assert!(entries.len() <= 100);
        rows += entries
            .iter()
            .filter(|entry| entry["type"] == "row")
            .count();
        if fetched["response"]["done"] == true {
            break;
        }
    }
    assert_eq!(rows, 1000);
    socket
        .ask(33, json!({ "type": "close_cursor", "cursor_id": 5 }))
        .await;
    assert_eq!(
        socket
            .ask(
                34,
                json!({ "type": "execute", "stream_id": 1, "stmt": { "sql": "SELECT 1" } })
            )
            .await["type"],
        "response_ok"
    );
    assert_eq!(
        socket
            .ask(
                35,
                json!({ "type": "fetch_cursor", "cursor_id": 5, "max_count": 1 })
            )
            .await["error"]["code"],
        "CURSOR_NOT_FOUND"
    );
    socket
        .ask(
            36,
            json!({ "type": "store_sql", "sql_id": 1, "sql": "SELECT 7" }),
        )
        .await;
    let seven = socket
        .ask(
            37,
            json!({ "type": "execute", "stream_id": 2, "stmt": { "sql_id": 1 } }),
        )
        .await;
    assert_eq!(seven["response"]["result"]["rows"][0][0]["value"], "7");
    socket
        .ask(38, json!({ "type": "close_stream", "stream_id": 1 }))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_break_the_protocol_are_let_go() {
    let rig = Rig::new();
    rig.make("app").await;
    let address = rig.listen().await;
    let path = "/api/v1/sqlite/hrana/app";
    let hello = json!({ "type": "hello" }).to_string();
    let open = json!({ "type": "request", "request_id": 1, "request": { "type": "open_stream", "stream_id": 1 } }).to_string();
    for (messages, code) in [
        (vec![Message::text("no json")], 1002),
        (vec![Message::text("{\"type\":\"nonsense\"}")], 1002),
        (vec![Message::text(open.clone())], 1002),
        (vec![Message::binary(vec![1, 2, 3])], 1003),
        (
            vec![
                Message::text(hello.clone()),
                Message::text(open.clone()),
                Message::text(open.clone()),
            ],
            1002,
        ),
        (
            vec![
                Message::text(hello.clone()),
                Message::text("[".repeat(5000)),
            ],
            1002,
        ),
    ] {
        let mut socket = Socket::connect(address, path, "hrana3").await.unwrap();
        for message in messages {
            socket.0.send(message).await.unwrap();
        }
        assert_eq!(socket.closed().await, code);
    }
    // streams of one socket, and sockets, are bounded
    let mut socket = Socket::connect(address, path, "hrana3").await.unwrap();
    socket.say(json!({ "type": "hello" })).await;
    socket.json().await;
    let most = i32::try_from(crate::hrana::OF_SOCKET).unwrap();
    for stream in 0..most {
        assert_eq!(
            socket
                .ask(
                    stream,
                    json!({ "type": "open_stream", "stream_id": stream })
                )
                .await["type"],
            "response_ok"
        );
    }
    let refused = socket
        .ask(99, json!({ "type": "open_stream", "stream_id": 99 }))
        .await;
    assert_eq!(refused["error"]["code"], "TOO_MANY_STREAMS");
    let mut sockets = vec![socket];
    while sockets.len() < crate::hrana::SOCKETS {
        sockets.push(Socket::connect(address, path, "hrana3").await.unwrap());
    }
    match Socket::connect(address, path, "hrana3").await {
        Err(tungstenite::Error::Http(refused)) => assert_eq!(refused.status(), 503),
        _ => panic!("one too many is let in"),
    }
    // and an ordinary request goes through meanwhile
    assert_eq!(rig.rows("SELECT 1").await, json!([[1]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_is_spoken_too() {
    let rig = Rig::new();
    let address = rig.listen().await;
    let mut socket = Socket::connect(address, "/api/v1/sqlite/hrana/app", "hrana3-protobuf")
        .await
        .unwrap();
    // ClientMsg { hello {} }
    socket.0.send(Message::binary(vec![0x0a, 0])).await.unwrap();
    assert_eq!(socket.hear().await, Message::binary(vec![0x0a, 0]));
    // ClientMsg { request { request_id 7, open_stream { stream_id 1 } } }
    socket
        .0
        .send(Message::binary(vec![0x12, 6, 0x08, 7, 0x12, 2, 0x08, 1]))
        .await
        .unwrap();
    // ServerMsg { response_ok { request_id 7, open_stream {} } }
    assert_eq!(
        socket.hear().await,
        Message::binary(vec![0x1a, 4, 0x08, 7, 0x12, 0])
    );
    // request 8: execute on stream 1 { sql "SELECT -1" }
    let sql = b"SELECT -1";
    let mut stmt = vec![0x0a, 9];
    stmt.extend_from_slice(sql);
    let mut execute = vec![0x08, 1, 0x12, 11];
    execute.extend(stmt);
    let mut request = vec![0x08, 8, 0x22, execute.len() as u8];
    request.extend(execute);
    let mut message = vec![0x12, request.len() as u8];
    message.extend(request);
    socket.0.send(Message::binary(message)).await.unwrap();
    let Message::Binary(answer) = socket.hear().await else {
        panic!("no binary");
    };
    // … rows { values { integer: -1 as zigzag 1 } }, affected 0, rowid 0
    let row = [0x12, 4, 0x0a, 2, 0x10, 1, 0x18, 0, 0x20, 0];
    assert!(answer.windows(row.len()).any(|it| it == row), "{answer:x?}");
    let http = rig
        .send(
            "POST",
            "/hrana/app/v3-protobuf/pipeline",
            &[],
            vec![0x12, 2, 0x0a, 0],
        )
        .await
        .is(200);
    assert_eq!(
        (&http.body[..], http.header("content-type")),
        (&[0x1a, 4, 0x0a, 2, 0x0a, 0][..], "application/x-protobuf")
    );
    rig.send(
        "POST",
        "/hrana/app/v3-protobuf/pipeline",
        &[],
        vec![0xff; 20],
    )
    .await
    .is(400);
}
