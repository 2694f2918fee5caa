//! Keys and values, and their past.

use super::*;

impl Rig {
    async fn put(&self, key: &str, value: &str) -> Answer {
        self.send(
            "PUT",
            &format!("/kv/{key}?db=app&create_db_if_missing=true"),
            &[("content-type", "application/json")],
            value.to_owned(),
        )
        .await
    }
    async fn value(&self, key: &str) -> String {
        self.get(&format!("/kv/{key}?db=app")).await.is(200).text()
    }
}

#[tokio::test]
async fn values_are_stored_byte_by_byte() {
    let rig = Rig::new();
    rig.send("PUT", "/kv/a?db=app", &[], "x")
        .await
        .refused(404, "DATABASE_NOT_FOUND");
    let stored = rig.put("a", "{\"b\": 1}").await.is(200).json();
    assert_eq!(
        (&stored["success"], &stored["created"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        rig.put("a", "{\"b\":  1 }").await.is(200).json()["created"],
        false
    );
    let answer = rig.get("/kv/a?db=app").await.is(200);
    assert_eq!(
        (answer.text().as_str(), answer.header("content-type")),
        ("{\"b\":  1 }", "application/json")
    );
    assert_eq!(
        answer.header("content-security-policy"),
        "default-src 'none'; sandbox"
    );
    let png = [("content-type", "image/png")];
    rig.send("PUT", "/kv/img?db=app", &png, vec![0_u8, 255, 1])
        .await
        .is(200);
    let answer = rig.get("/kv/img?db=app").await.is(200);
    assert_eq!(
        (&answer.body[..], answer.header("content-type")),
        (&[0_u8, 255, 1][..], "image/png")
    );

    rig.send("HEAD", "/kv/a?db=app", &[], "").await.is(200);
    let gone = rig
        .send("HEAD", "/kv/nothing?db=app", &[], "")
        .await
        .is(404);
    assert!(gone.body.is_empty());
    rig.get("/kv/nothing?db=app")
        .await
        .refused(404, "KEY_NOT_FOUND");
    rig.get("/kv/a?db=app&table=nothing")
        .await
        .refused(404, "KEY_NOT_FOUND");

    // keys of any kind
    for (url, key) in [
        ("with%20space%2Fslash", "with space/slash"),
        ("%C3%BC%F0%9F%98%80", "ü😀"),
        ("plus+sign", "plus+sign"),
        ("real/slash/incr", "real/slash/incr"),
    ] {
        rig.put(url, "1").await.is(200);
        assert_eq!(rig.value(url).await, "1", "{url}");
        let listed = rig.get("/kv?db=app&limit=1000").await.is(200).json();
        let keys: Vec<_> = listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["key"].as_str().unwrap().to_owned())
            .collect();
        assert!(keys.contains(&key.to_owned()), "{keys:?}");
        rig.send("DELETE", &format!("/kv/{url}?db=app"), &[], "")
            .await
            .is(200);
    }
    rig.send("DELETE", "/kv/nothing?db=app", &[], "")
        .await
        .refused(404, "KEY_NOT_FOUND");
    rig.put(&"k".repeat(1025), "1")
        .await
        .refused(400, "VALIDATION_ERROR");
    rig.send("PUT", "/kv/a?db=app&table=t%22x", &[], "1")
        .await
        .refused(400, "VALIDATION_ERROR");
    // SQL sees text as text
    assert_eq!(
        rig.rows("SELECT typeof(value), value ->> 'b' FROM kv_store WHERE key = 'a'")
            .await,
        json!([["text", 1]])
    );
    rig.does("CREATE TABLE mine (x)").await;
    rig.send("PUT", "/kv/a?db=app&table=mine", &[], "1")
        .await
        .refused(409, "NOT_A_KV_TABLE");
}

#[tokio::test]
async fn keys_are_listed_by_prefix_and_page() {
    let rig = Rig::new();
    rig.make("app").await;
    assert_eq!(rig.get("/kv?db=app").await.is(200).json()["count"], 0);
    for n in 0..25 {
        rig.put(&format!("user:{n:02}"), &n.to_string())
            .await
            .is(200);
    }
    rig.put("user;", "not one of them").await.is(200);
    rig.put("USER:1", "nor this").await.is(200);
    let mut seen = Vec::new();
    loop {
        let page = rig
            .get(&format!(
                "/kv?db=app&prefix=user:&limit=10&offset={}",
                seen.len()
            ))
            .await
            .is(200)
            .json();
        assert_eq!(page["count"], 25);
        for item in page["items"].as_array().unwrap() {
            seen.push(item["value"].as_i64().unwrap());
            assert!(item["updated_at"].is_i64() && item["key"].is_string());
        }
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(seen, (0..25).collect::<Vec<_>>());
    rig.get("/kv?db=app&limit=-1")
        .await
        .refused(400, "VALIDATION_ERROR");
    assert_eq!(
        rig.get("/kv?db=app&prefix=%25").await.is(200).json()["count"],
        0
    );
}

#[tokio::test]
async fn keys_end_with_their_time_and_are_swept() {
    let rig = Rig::with(|config| config.idle = Duration::from_millis(100));
    rig.put("kept", "1").await.is(200);
    let stored = rig
        .send("PUT", "/kv/short?db=app&ttl=1", &[], "2")
        .await
        .is(200)
        .json();
    let ends = stored["expires_at"].as_i64().unwrap();
    let now = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis() as i64
    };
    // exactly then, to the millisecond that the service reads
    loop {
        let before = now();
        let answer = rig.get("/kv/short?db=app").await;
        let after = now();
        match answer.status.as_u16() {
            200 => assert!(
                before < ends,
                "it is there {} ms after its end",
                before - ends
            ),
            _ => {
                assert!(
                    after >= ends,
                    "it is gone {} ms before its end",
                    ends - after
                );
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    rig.send("HEAD", "/kv/short?db=app", &[], "").await.is(404);
    assert_eq!(rig.get("/kv?db=app").await.is(200).json()["count"], 1);
    rig.post("/kv/batch/get?db=app", json!({ "keys": ["short"] }))
        .await
        .is(200);
    let began = std::time::Instant::now();
    while rig.rows("SELECT key FROM kv_store").await != json!([["kept"]]) {
        assert!(began.elapsed() < PATIENCE, "it is not swept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // a number keeps its end, a value that is stored anew does not
    rig.send("PUT", "/kv/n?db=app&ttl=100", &[], "1")
        .await
        .is(200);
    rig.post("/kv/n/incr?db=app", json!({})).await.is(200);
    assert!(
        !rig.get("/kv/n?db=app")
            .await
            .is(200)
            .header("x-expires-at")
            .is_empty()
    );
    rig.put("n", "5").await.is(200);
    assert!(
        rig.get("/kv/n?db=app")
            .await
            .is(200)
            .header("x-expires-at")
            .is_empty()
    );
    for ttl in ["-1", "99999999999999"] {
        rig.send("PUT", &format!("/kv/n?db=app&ttl={ttl}"), &[], "1")
            .await
            .refused(400, "VALIDATION_ERROR");
    }
}

#[tokio::test]
async fn a_value_is_swapped_only_if_it_is_the_expected_one() {
    let rig = Rig::new();
    rig.put("c", "{\"v\":1}").await.is(200);
    let swap = async |expected: &str, new: &str| {
        rig.send(
            "PUT",
            &format!("/kv/c?db=app&if_match={expected}"),
            &[],
            new.to_owned(),
        )
        .await
    };
    swap("%7B%22v%22%3A1%7D", "{\"v\":2}").await.is(200);
    let why = swap("%7B%22v%22%3A1%7D", "{\"v\":3}")
        .await
        .refused(412, "CAS_FAILED");
    assert_eq!(why, "Value mismatch for CAS");
    let answer = rig
        .send("PUT", "/kv/nothing?db=app&if_match=x", &[], "1")
        .await;
    assert_eq!(
        answer.refused(412, "CAS_FAILED"),
        "Key does not exist for CAS"
    );
    assert_eq!(rig.value("c").await, "{\"v\":2}");
    rig.send("PUT", "/kv/c?db=app&path=v&if_match=2", &[], "9")
        .await
        .is(200);
    assert_eq!(rig.value("c").await, "{\"v\":9}");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_counted_by_everybody_at_once() {
    let rig = Rig::new();
    rig.make("app").await;
    let clients = (0..8).map(|client| {
        let rig = &rig;
        async move {
            for _ in 0..25 {
                let verb = if client == 0 { "decr" } else { "incr" };
                rig.post(&format!("/kv/n/{verb}?db=app&delta=3"), json!({}))
                    .await
                    .is(200);
            }
        }
    });
    futures::future::join_all(clients).await;
    assert_eq!(rig.value("n").await, (6 * 25 * 3).to_string());
    assert_eq!(
        rig.get("/kv/n?db=app").await.header("content-type"),
        "text/plain"
    );
    let last = rig.get("/kv/n/history?db=app&limit=1").await.is(200).json();
    assert_eq!(last["operations"][0]["op_number"], 200);

    for delta in ["0", "-1"] {
        rig.post(&format!("/kv/n/incr?db=app&delta={delta}"), json!({}))
            .await
            .refused(400, "VALIDATION_ERROR");
    }
    rig.put("max", "9223372036854775807").await.is(200);
    rig.post("/kv/max/incr?db=app", json!({}))
        .await
        .refused(409, "OVERFLOW");
    assert_eq!(rig.value("max").await, "9223372036854775807");
    rig.put("word", "\"a\"").await.is(200);
    rig.post("/kv/word/incr?db=app", json!({}))
        .await
        .refused(409, "NOT_A_NUMBER");
    let made = rig
        .post("/kv/doc/incr?db=app&path=a.b&delta=5", json!({}))
        .await
        .is(200)
        .json();
    assert_eq!(made["value"], 5);
    assert_eq!(rig.value("doc").await, "{\"a\":{\"b\":5}}");
    // beyond what a floating point number holds
    rig.put("large", "{\"n\":9007199254740993}").await.is(200);
    rig.post("/kv/large/incr?db=app&path=n", json!({}))
        .await
        .is(200);
    assert_eq!(rig.value("large").await, "{\"n\":9007199254740994}");
}

#[tokio::test]
async fn lists_grow_and_shrink() {
    let rig = Rig::new();
    rig.make("app").await;
    rig.post("/kv/l/pop?db=app", json!({}))
        .await
        .refused(404, "KEY_NOT_FOUND");
    for value in [
        json!("a"),
        json!({ "b": 1 }),
        json!([1]),
        json!(null),
        json!("a"),
    ] {
        rig.post("/kv/l/push?db=app", value).await.is(200);
    }
    assert_eq!(rig.value("l").await, "[\"a\",{\"b\":1},[1],null,\"a\"]");
    let popped = rig.post("/kv/l/pop?db=app", json!({})).await.is(200).json();
    assert_eq!(
        (&popped["value"], &popped["length"]),
        (&json!("a"), &json!(4))
    );
    assert_eq!(
        rig.post("/kv/l/remove?db=app", json!({ "value": null }))
            .await
            .is(200)
            .json()["removed"],
        1
    );
    assert_eq!(
        rig.post("/kv/l/remove?db=app&index=0", json!({}))
            .await
            .is(200)
            .json()["length"],
        2
    );
    rig.post("/kv/l/remove?db=app&index=9", json!({}))
        .await
        .refused(404, "INDEX_NOT_FOUND");
    rig.post("/kv/l/remove?db=app", json!({}))
        .await
        .refused(400, "VALIDATION_ERROR");
    rig.put("doc", "{\"tags\":[\"x\"],\"n\":1}").await.is(200);
    rig.post("/kv/doc/push?db=app&path=tags", json!("y"))
        .await
        .is(200);
    rig.post("/kv/doc/push?db=app&path=new.list", json!("z"))
        .await
        .is(200);
    assert_eq!(
        rig.value("doc").await,
        "{\"n\":1,\"new\":{\"list\":[\"z\"]},\"tags\":[\"x\",\"y\"]}"
    );
    rig.post("/kv/doc/push?db=app&path=n", json!("y"))
        .await
        .refused(409, "NOT_A_LIST");
    rig.post("/kv/doc/pop?db=app&path=nothing", json!({}))
        .await
        .refused(404, "PATH_NOT_FOUND");
    rig.send("POST", "/kv/l/push?db=app", &[], "{")
        .await
        .refused(400, "INVALID_JSON");
}

#[tokio::test]
async fn parts_of_documents_are_read_and_written() {
    let rig = Rig::new();
    rig.put(
        "p",
        "{\"name\":\"Ada\",\"prefs\":{\"theme\":\"dark\",\"lang\":\"en\"}}",
    )
    .await
    .is(200);
    assert_eq!(
        rig.get("/kv/p?db=app&path=prefs.theme")
            .await
            .is(200)
            .text(),
        "\"dark\""
    );
    rig.send("PUT", "/kv/p?db=app&path=prefs.theme", &[], "\"light\"")
        .await
        .is(200);
    assert_eq!(
        rig.value("p").await,
        "{\"name\":\"Ada\",\"prefs\":{\"lang\":\"en\",\"theme\":\"light\"}}"
    );
    rig.get("/kv/p?db=app&path=nothing")
        .await
        .refused(404, "PATH_NOT_FOUND");
    rig.get("/kv/p?db=app&path=a..b")
        .await
        .refused(400, "INVALID_PATH");
    rig.send("PUT", "/kv/p?db=app&path=name.first", &[], "1")
        .await
        .refused(409, "PATH_CONFLICT");
    rig.send(
        "PUT",
        "/kv/text?db=app",
        &[("content-type", "text/plain")],
        "no json",
    )
    .await
    .is(200);
    rig.get("/kv/text?db=app&path=a")
        .await
        .refused(409, "NOT_JSON");
}

#[tokio::test]
async fn batches_are_one_transaction() {
    let rig = Rig::new();
    rig.make("app").await;
    let items = json!({ "items": [
        { "key": "u:1", "value": "{\"name\":\"alice\"}", "content_type": "application/json" },
        { "key": "u:2", "value": "plain" },
        { "key": "u:3", "value": "3", "ttl": 3600 },
    ] });
    let set = rig.post("/kv/batch/set?db=app", items).await.is(200).json();
    assert_eq!(set, json!({ "success": true, "count": 3 }));
    let got = rig
        .post(
            "/kv/batch/get?db=app",
            json!({ "keys": ["u:1", "u:2", "u:404"] }),
        )
        .await
        .is(200)
        .json();
    assert_eq!(
        got["results"]["u:1"],
        json!({ "value": { "name": "alice" }, "content_type": "application/json" })
    );
    assert_eq!(
        (&got["results"]["u:2"]["value"], &got["results"]["u:404"]),
        (&json!("plain"), &Value::Null)
    );
    rig.post(
        "/kv/batch/set?db=app",
        json!({ "items": [{ "key": "x", "value": { "a": 1 } }] }),
    )
    .await
    .is(400);
    rig.post(
        "/kv/batch/set?db=app",
        json!({ "items": [{ "key": "x", "value": "1" }, { "key": "" }] }),
    )
    .await
    .is(400);
    rig.get("/kv/x?db=app").await.refused(404, "KEY_NOT_FOUND");
    let many: Vec<_> = (0..101).map(|n| n.to_string()).collect();
    rig.post("/kv/batch/get?db=app", json!({ "keys": many }))
        .await
        .refused(400, "VALIDATION_ERROR");
    let deleted = rig
        .post(
            "/kv/batch/delete?db=app",
            json!({ "keys": ["u:1", "u:2", "u:404"] }),
        )
        .await
        .is(200)
        .json();
    assert_eq!(deleted, json!({ "success": true, "deleted": 2 }));
    let empty = rig
        .post("/kv/batch/get?db=app&table=none", json!({ "keys": ["a"] }))
        .await
        .is(200)
        .json();
    assert_eq!(empty["results"], json!({ "a": null }));
}

#[tokio::test]
async fn a_key_goes_back_in_time() {
    let rig = Rig::new();
    for value in ["1", "2", "3"] {
        rig.put("k", value).await.is(200);
    }
    rig.send("DELETE", "/kv/k?db=app", &[], "").await.is(200);
    let history = rig.get("/kv/k/history?db=app").await.is(200).json();
    let ops: Vec<_> = history["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|op| {
            (
                op["op_number"].as_i64().unwrap(),
                op["operation"]["op"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(
        ops,
        [
            (4, "delete".into()),
            (3, "set".into()),
            (2, "set".into()),
            (1, "set".into())
        ]
    );
    assert_eq!(
        history["operations"][1]["operation"],
        json!({ "op": "set", "old_value": 2, "new_value": 3, "content_type": "application/json" })
    );
    assert_eq!(
        (&history["has_gaps"], &history["candidate_truncated"]),
        (&json!(false), &json!(false))
    );
    let snapshot = rig
        .get("/kv/k/snapshot?db=app&op_number=1")
        .await
        .is(200)
        .json();
    assert_eq!(
        (
            &snapshot["value"],
            &snapshot["content_type"],
            &snapshot["op_number"]
        ),
        (&json!(1), &json!("application/json"), &json!(1))
    );
    assert_eq!(
        rig.get("/kv/k/snapshot?db=app&op_number=4")
            .await
            .is(200)
            .json()["exists"],
        false
    );
    rig.get("/kv/k/snapshot?db=app&op_number=9")
        .await
        .refused(404, "OPERATION_NOT_FOUND");

    let back = rig
        .post("/kv/k/rollback?db=app&steps=2", json!({}))
        .await
        .is(200)
        .json();
    assert_eq!((&back["op_number"], &back["value"]), (&json!(2), &json!(2)));
    assert_eq!(rig.value("k").await, "2");
    rig.post("/kv/k/rollback?db=app", json!({})).await.is(200);
    rig.get("/kv/k?db=app").await.refused(404, "KEY_NOT_FOUND"); // undone: it was deleted
    rig.post("/kv/k/rollback?db=app&steps=6", json!({}))
        .await
        .is(200);
    rig.post("/kv/k/rollback?db=app&steps=99", json!({}))
        .await
        .refused(400, "TOO_MANY_STEPS");
    rig.post("/kv/k/rollback?db=app&steps=0", json!({}))
        .await
        .refused(400, "VALIDATION_ERROR");
    rig.post("/kv/never/rollback?db=app", json!({}))
        .await
        .refused(404, "KEY_NOT_FOUND");

    // bytes
    let bin = [("content-type", "application/octet-stream")];
    rig.send("PUT", "/kv/bin?db=app", &bin, vec![0_u8, 255])
        .await
        .is(200);
    let history = rig.get("/kv/bin/history?db=app").await.is(200).json();
    assert_eq!(
        history["operations"][0]["operation"]["raw_new_value"],
        "AP8="
    );
    assert_eq!(
        rig.get("/kv/bin/snapshot?db=app&op_number=1")
            .await
            .is(200)
            .json()["raw_value"],
        "AP8="
    );

    // a write that is not kept is a gap, and what was before it is known still
    rig.put("g", "1").await.is(200);
    for value in ["2", "3"] {
        rig.send("PUT", "/kv/g?db=app&history=false", &[], value)
            .await
            .is(200);
    }
    rig.put("g", "4").await.is(200);
    let history = rig.get("/kv/g/history?db=app").await.is(200).json();
    assert_eq!(
        (&history["has_gaps"], &history["gap_keys"]),
        (&json!(true), &json!(["g"]))
    );
    rig.post("/kv/g/rollback?db=app&steps=1", json!({}))
        .await
        .refused(409, "HISTORY_GAP");
    rig.get("/kv/g/snapshot?db=app&op_number=2")
        .await
        .refused(409, "HISTORY_GAP");
    rig.post("/kv/g/rollback?db=app&steps=2", json!({}))
        .await
        .is(200);
    assert_eq!(rig.value("g").await, "1");
}

#[tokio::test]
async fn a_table_goes_back_in_time() {
    let rig = Rig::new();
    let now = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis() as i64
    };
    let tick = async || tokio::time::sleep(Duration::from_millis(5)).await;
    rig.put("stays", "1").await.is(200);
    rig.put("changes", "\"old\"").await.is(200);
    rig.put("goes", "1").await.is(200);
    tick().await;
    let then = now();
    tick().await;
    rig.put("changes", "\"new\"").await.is(200);
    rig.put("comes", "1").await.is(200);
    rig.send("DELETE", "/kv/goes?db=app", &[], "").await.is(200);
    rig.put("stays", "2").await.is(200);
    rig.put("stays", "1").await.is(200);
    tick().await;
    let after = now();

    assert_eq!(
        rig.get(&format!("/kv/changes?db=app&at_timestamp={then}"))
            .await
            .is(200)
            .text(),
        "\"old\""
    );
    rig.get(&format!("/kv/comes?db=app&at_timestamp={then}"))
        .await
        .refused(404, "KEY_NOT_FOUND");
    let snapshot = rig
        .get(&format!("/kv/snapshot?db=app&timestamp={then}"))
        .await
        .is(200)
        .json();
    let keys: Vec<_> = snapshot["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["key"].clone())
        .collect();
    assert_eq!(
        (keys, &snapshot["count"]),
        (
            vec![json!("changes"), json!("goes"), json!("stays")],
            &json!(3)
        )
    );
    let listed = rig
        .get(&format!("/kv?db=app&at_timestamp={then}&prefix=g&offset=7"))
        .await
        .is(200)
        .json();
    assert_eq!(listed["items"][0]["key"], "goes");

    let diff = rig
        .get(&format!("/kv/diff?db=app&from={then}&to={after}"))
        .await
        .is(200)
        .json();
    assert_eq!(
        diff["stats"],
        json!({ "created": 1, "modified": 1, "deleted": 1 })
    );
    assert_eq!(
        diff["changes"][0],
        json!({ "key": "changes", "type": "modified", "old_value": "old", "new_value": "new" })
    );
    let one = rig
        .get(&format!(
            "/kv/diff?db=app&from={then}&to={after}&keys=comes,stays"
        ))
        .await
        .is(200)
        .json();
    assert_eq!(
        one["stats"],
        json!({ "created": 1, "modified": 0, "deleted": 0 })
    );
    rig.get(&format!("/kv/diff?db=app&from={after}&to={then}"))
        .await
        .refused(400, "VALIDATION_ERROR");

    let path = format!("/kv/rollback?db=app&to_timestamp={then}");
    rig.post(&path, json!({}))
        .await
        .refused(400, "VALIDATION_ERROR");
    let dry = rig
        .post(&format!("{path}&dry_run=true"), json!({}))
        .await
        .is(200)
        .json();
    assert_eq!(
        dry["stats"],
        json!({ "created": 1, "modified": 1, "deleted": 1 })
    );
    assert_eq!(
        dry["changes"][0],
        json!({ "key": "changes", "type": "modified", "old_value": "new", "new_value": "old" })
    );
    assert_eq!(rig.value("changes").await, "\"new\"");
    rig.post(
        &format!("{path}&confirm=yes"),
        json!({ "exclude_keys": ["comes"] }),
    )
    .await
    .is(200);
    assert_eq!(rig.value("changes").await, "\"old\"");
    assert_eq!(rig.value("goes").await, "1");
    assert_eq!(rig.value("comes").await, "1");
    rig.post(&format!("{path}&confirm=yes"), json!({ "keys": ["comes"] }))
        .await
        .is(200);
    rig.get("/kv/comes?db=app")
        .await
        .refused(404, "KEY_NOT_FOUND");

    // what is not known is said to be
    tick().await;
    rig.send("PUT", "/kv/gap?db=app&history=false", &[], "1")
        .await
        .is(200);
    tick().await;
    let in_gap = now();
    tick().await;
    rig.put("gap", "2").await.is(200);
    let snapshot = rig
        .get(&format!("/kv/snapshot?db=app&timestamp={in_gap}"))
        .await
        .is(200)
        .json();
    assert_eq!(
        (&snapshot["has_gaps"], &snapshot["gap_keys"]),
        (&json!(true), &json!(["gap"]))
    );
    rig.get(&format!("/kv/gap?db=app&at_timestamp={in_gap}"))
        .await
        .refused(409, "HISTORY_GAP");
    let path = format!("/kv/rollback?db=app&to_timestamp={in_gap}&confirm=yes");
    let why = rig.post(&path, json!({})).await.refused(409, "HISTORY_GAP");
    assert!(why.contains("gap"), "{why}");
    rig.post(&path, json!({ "exclude_keys": ["gap"] }))
        .await
        .is(200);
}

#[tokio::test]
async fn the_history_of_a_key_is_bounded() {
    let rig = Rig::new();
    rig.make("app").await;
    let batch: Vec<_> = (0..100)
        .map(|n| json!({ "key": "k", "value": n.to_string() }))
        .collect();
    for _ in 0..12 {
        rig.post("/kv/batch/set?db=app", json!({ "items": batch }))
            .await
            .is(200);
    }
    let kept = rig
        .rows("SELECT count(*), max(op_number) FROM kv_store__history")
        .await;
    let (count, last) = (kept[0][0].as_i64().unwrap(), kept[0][1].as_i64().unwrap());
    assert_eq!(last, 1200);
    assert!((1000..=1032).contains(&count), "{count} are kept");
    let history = rig
        .get("/kv/k/history?db=app&limit=5000")
        .await
        .is(200)
        .json();
    assert_eq!(
        (
            &history["operations"].as_array().unwrap().len(),
            &history["candidate_truncated"]
        ),
        (&1000, &json!(true))
    );
    rig.post("/kv/k/rollback?db=app&steps=1190", json!({}))
        .await
        .refused(409, "HISTORY_GAP");
    rig.get("/kv/k?db=app&at_timestamp=1000")
        .await
        .refused(409, "HISTORY_GAP");
    // and by its bytes
    let large = vec![b'x'; 15 << 20];
    for _ in 0..7 {
        rig.send("PUT", "/kv/large?db=app", &[], large.clone())
            .await
            .is(200);
    }
    let bytes = rig
        .rows("SELECT sum(octet_length(value)) FROM kv_store__history WHERE key = 'large'")
        .await;
    assert!(
        bytes[0][0].as_i64().unwrap() <= crate::kv::PER_KEY_BYTES + (16 << 20),
        "{bytes}"
    );
}
