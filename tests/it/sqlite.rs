//! Databases, keys and values.

use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::{Answer, Container};

/// The sqlite service of a container, for stories.
pub struct Sqlite<'a> {
    pub rig: &'a Rig,
    pub container: Container,
}

impl<'a> Sqlite<'a> {
    pub async fn of(rig: &'a Rig) -> Sqlite<'a> {
        Sqlite {
            rig,
            container: rig.create("web").await,
        }
    }

    /// Call `/api/v1/sqlite{path}`.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let path = format!("/api/v1/sqlite{path}");
        let shape = |request: reqwest::RequestBuilder| match &body {
            Some(body) => request.json(body),
            None => request.header("content-type", "application/json"),
        };
        self.rig
            .kit(&self.container, "sqlite", method, &path, shape)
            .await
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, None).await.expect(200).json()
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.call(Method::POST, path, Some(body)).await;
        answer.expect(200).json()
    }

    pub async fn put(&self, key: &str, value: Value) -> Value {
        let path = format!("/kv/{key}?db=app&create_db_if_missing=true");
        let answer = self.call(Method::PUT, &path, Some(value)).await;
        answer.expect(200).json()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_are_made_queried_and_maintained() {
    let rig = Rig::start().await;
    let sqlite = Sqlite::of(&rig).await;
    let made = sqlite
        .post("/db/create?path=app&init_kv=true", json!({}))
        .await;
    assert_eq!(made["path"], "/hoody/databases/app.db");
    let done = sqlite
        .post(
            "/db?db=app",
            json!({ "transaction": [
                { "statement": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)" },
                { "statement": "INSERT INTO users (name) VALUES (?)", "valuesBatch": [["Ada"], ["Bob"]] },
                { "query": "SELECT id, name FROM users" },
            ] }),
        )
        .await;
    assert_eq!(
        done["results"][2]["resultSet"][1],
        json!({ "id": 2, "name": "Bob" })
    );
    let shared = sqlite
        .get("/query?db=app&sql=U0VMRUNUIGNvdW50KCopIEFTIG4gRlJPTSB1c2Vycw")
        .await;
    assert_eq!(shared["resultSet"], json!([{ "n": 2 }]));
    let failed = json!({ "transaction": [{ "statement": "INSERT INTO users (id) VALUES (1)" }] });
    let failed = sqlite.call(Method::POST, "/db?db=app", Some(failed)).await;
    assert_eq!(failed.expect(409).json()["reqIdx"], 0);

    let history = sqlite.get("/history?db=app").await;
    assert_eq!(history["total"], 5);
    let stats = sqlite.get("/history/stats?db=app").await;
    assert_eq!((&stats["total"], &stats["failed"]), (&json!(5), &json!(1)));
    let id = &history["history"][0]["id"];
    let path = format!("/history/{id}?db=app");
    sqlite.call(Method::DELETE, &path, None).await.expect(200);
    sqlite
        .call(Method::DELETE, "/history?db=app", None)
        .await
        .expect(200);

    let checked = sqlite
        .post(
            "/maintenance?db=app&timeout=30",
            json!({ "op": "quick_check" }),
        )
        .await;
    assert_eq!(checked["messages"], json!(["ok"]));
    let missing = json!({ "op": "vacuum" });
    let missing = sqlite
        .call(Method::POST, "/maintenance?db=nothing", Some(missing))
        .await;
    missing.expect(404);
    let health = sqlite.get("/health").await;
    assert_eq!(health["service"], "sqlite");
    let cache = sqlite.get("/health/cache").await;
    assert_eq!(cache["databases"][0]["path"], "/hoody/databases/app.db");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_hold_values() {
    let rig = Rig::start().await;
    let sqlite = Sqlite::of(&rig).await;
    sqlite
        .put("profile", json!({ "name": "Ada", "tags": ["a"] }))
        .await;
    let read = sqlite
        .call(Method::GET, "/kv/profile?db=app&path=name", None)
        .await;
    assert_eq!(read.expect(200).text(), "\"Ada\"");
    sqlite
        .call(Method::HEAD, "/kv/profile?db=app", None)
        .await
        .expect(200);
    sqlite
        .call(Method::HEAD, "/kv/nothing?db=app", None)
        .await
        .expect(404);
    let stale = "/kv/profile?db=app&if_match=stale";
    let stale = sqlite.call(Method::PUT, stale, Some(json!(1))).await;
    assert_eq!(stale.expect(412).json()["error"], "Value mismatch for CAS");

    assert_eq!(
        sqlite.post("/kv/n/incr?db=app&delta=10", json!({})).await["value"],
        10
    );
    assert_eq!(
        sqlite.post("/kv/n/decr?db=app", json!({})).await["value"],
        9
    );
    let list = "db=app&path=tags";
    let pushed = sqlite
        .post(&format!("/kv/profile/push?{list}"), json!({ "b": 1 }))
        .await;
    assert_eq!(pushed["length"], 2);
    let removed = sqlite
        .post(
            &format!("/kv/profile/remove?{list}"),
            json!({ "value": "a" }),
        )
        .await;
    assert_eq!(removed["length"], 1);
    let popped = sqlite
        .post(&format!("/kv/profile/pop?{list}"), json!({}))
        .await;
    assert_eq!(popped["value"], json!({ "b": 1 }));

    let items =
        json!({ "items": [{ "key": "u:1", "value": "1" }, { "key": "u:2", "value": "{}" }] });
    assert_eq!(sqlite.post("/kv/batch/set?db=app", items).await["count"], 2);
    let keys = json!({ "keys": ["u:1", "u:3"] });
    let got = sqlite.post("/kv/batch/get?db=app", keys.clone()).await;
    assert_eq!(
        (&got["results"]["u:1"]["value"], &got["results"]["u:3"]),
        (&json!(1), &Value::Null)
    );
    let listed = sqlite.get("/kv?db=app&prefix=u:&limit=1").await;
    assert_eq!(
        (&listed["count"], &listed["has_more"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(
        sqlite.post("/kv/batch/delete?db=app", keys).await["deleted"],
        1
    );
    sqlite
        .call(Method::DELETE, "/kv/u:2?db=app", None)
        .await
        .expect(200);
    let again = sqlite.call(Method::DELETE, "/kv/u:2?db=app", None).await;
    again.expect(404);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_have_a_past() {
    let rig = Rig::start().await;
    let sqlite = Sqlite::of(&rig).await;
    for value in [1, 2, 3] {
        sqlite.put("flag", json!({ "v": value })).await;
    }
    let history = sqlite.get("/kv/flag/history?db=app&limit=2").await;
    assert_eq!(history["operations"][0]["op_number"], 3);
    let first = sqlite.get("/kv/flag/snapshot?db=app&op_number=1").await;
    assert_eq!(first["value"], json!({ "v": 1 }));
    sqlite
        .post("/kv/flag/rollback?db=app&steps=2", json!({}))
        .await;
    let read = sqlite.call(Method::GET, "/kv/flag?db=app", None).await;
    assert_eq!(read.expect(200).json(), json!({ "v": 1 }));
    let ops = sqlite.get("/kv/flag/history?db=app").await;
    let at = |at: usize| ops["operations"][at]["at"].as_i64().expect("a moment");
    let (newest, oldest) = (at(0), at(3));
    let snapshot = sqlite
        .get(&format!("/kv/snapshot?db=app&timestamp={newest}"))
        .await;
    assert_eq!(snapshot["items"][0]["value"], json!({ "v": 1 }));
    let diff = sqlite
        .get(&format!("/kv/diff?db=app&from={}&to={newest}", oldest - 1))
        .await;
    assert_eq!(diff["stats"]["created"], 1);
    let before = oldest - 1;
    let path = format!("/kv/rollback?db=app&to_timestamp={before}&confirm=yes");
    let back = sqlite.post(&path, json!({})).await;
    assert_eq!(back["stats"]["deleted"], 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_libsql_come_by_the_hostname() {
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let rig = Rig::start().await;
    let sqlite = Sqlite::of(&rig).await;
    let requests = json!({ "requests": [
        { "type": "execute", "stmt": { "sql": "CREATE TABLE t (x)" } },
        { "type": "execute", "stmt": { "sql": "INSERT INTO t VALUES (?)", "args": [{ "type": "integer", "value": "9007199254740993" }] } },
        { "type": "close" },
    ] });
    let done = sqlite.post("/hrana/app/v3/pipeline", requests).await;
    assert_eq!(done["baton"], Value::Null, "{done}");
    assert_eq!(done["results"][1]["type"], "ok", "{done}");

    let path = "/api/v1/sqlite/hrana/app";
    let socket = rig.websocket(&sqlite.container, "sqlite", path, Some("hrana3"));
    let mut socket = socket.await.expect("Hrana over a WebSocket");
    let request =
        |id: i32, what: Value| json!({ "type": "request", "request_id": id, "request": what });
    for message in [
        json!({ "type": "hello", "jwt": null }),
        request(1, json!({ "type": "open_stream", "stream_id": 1 })),
        request(
            2,
            json!({ "type": "execute", "stream_id": 1, "stmt": { "sql": "SELECT x FROM t" } }),
        ),
    ] {
        let sent = socket.send(Message::text(message.to_string())).await;
        sent.expect("the socket is open");
    }
    let mut last = Value::Null;
    while last["request_id"] != 2 {
        let message = socket.next().await.expect("an answer").expect("a frame");
        if let Message::Text(text) = message {
            last = serde_json::from_str(&text).expect("JSON");
        }
    }
    let value = &last["response"]["result"]["rows"][0][0];
    assert_eq!(value["value"], "9007199254740993", "{last}");
    drop(socket);

    // out and in, through the proxy
    let sql = sqlite.call(Method::GET, "/export?db=app&format=sql", None);
    let sql = sql.await.expect(200).bytes;
    let path = "/api/v1/sqlite/import?db=copy&create_db_if_missing=true&format=sql";
    let import = |request: reqwest::RequestBuilder| request.body(sql);
    let taken = rig.kit(&sqlite.container, "sqlite", Method::POST, path, import);
    assert_eq!(taken.await.expect(200).json()["rows"], 1);
    rig.stop().await;
}
