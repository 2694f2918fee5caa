use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_program_can_be_driven_by_its_screen() {
    let rig = Rig::start();
    rig.post("/api/v1/terminal/create", json!({ "terminal_id": 101 }))
        .await;
    rig.post(
        "/api/v1/terminal/paste?terminal_id=101",
        json!({ "text": "echo PASTED_$((1+1))", "bracketed": false }),
    )
    .await;
    rig.post(
        "/api/v1/terminal/press?terminal_id=101",
        json!({ "keys": ["enter"] }),
    )
    .await;
    let body = json!({ "mode": "regex", "pattern": "PASTED_\\d", "timeout_ms": 10000 });
    let waited = rig
        .post("/api/v1/terminal/wait?terminal_id=101", body)
        .await;
    assert_eq!(waited["status"], "matched", "{waited}");
    assert_eq!(waited["match"]["text"], "PASTED_2");
    let waited = rig
        .post(
            "/api/v1/terminal/wait?terminal_id=101",
            json!({ "debounce_ms": 300 }),
        )
        .await;
    assert_eq!(waited["status"], "stable");
    let snapshot = rig.get("/api/v1/terminal/snapshot?terminal_id=101").await;
    assert!(
        snapshot["lines"]
            .as_array()
            .unwrap()
            .iter()
            .any(|line| line == "PASTED_2"),
        "{snapshot}"
    );
    assert_eq!(snapshot["lines"].as_array().unwrap().len(), 24);
    let found = rig
        .get("/api/v1/terminal/find?terminal_id=101&pattern=pasted_2&case_insensitive=true")
        .await;
    assert_eq!(found["hits"][0]["text"], "PASTED_2");
    assert_eq!(
        rig.get("/api/v1/terminal/find?terminal_id=101&pattern=NOPE")
            .await["hits"],
        json!([])
    );
    let waited = rig
        .post(
            "/api/v1/terminal/wait?terminal_id=101",
            json!({ "mode": "regex", "pattern": "NOPE", "timeout_ms": 200 }),
        )
        .await;
    assert_eq!(waited["status"], "timeout");
    let state = rig.get("/api/v1/terminal/101/automation").await;
    assert_eq!(
        (
            state["alternate_screen"].clone(),
            state["bracketed_paste"].clone()
        ),
        (json!(false), json!(true))
    );
    assert_eq!(
        rig.get("/api/v1/terminal/automation/metrics").await["sessions"],
        1
    );
    assert!(
        rig.get("/api/v1/terminal/keys").await["keys"]
            .as_array()
            .unwrap()
            .len()
            > 40
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn full_screen_programs_run_where_nobody_waits() {
    let rig = Rig::start();
    let asked = rig
        .post("/api/v1/terminal/execute?terminal_id=1", json!({ "command": "test -t 0 && test -t 1 && test -t 2 && printf '\\033[?1049h\\033[?1000h\\033[?1006hFULL'; read -rsn 9 mouse; printf '\\033[?1049l'; echo ${mouse@Q}", "wait": false }))
        .await;
    let waited = rig
        .post(
            "/api/v1/terminal/wait?terminal_id=1",
            json!({ "mode": "regex", "pattern": "FULL", "timeout_ms": 20000 }),
        )
        .await;
    assert_eq!(
        (
            waited["status"].clone(),
            waited["snapshot"]["alternate_screen"].clone()
        ),
        (json!("matched"), json!(true))
    );
    let click = json!({ "event": { "type": "down", "row": 2, "col": 3 } });
    rig.post("/api/v1/terminal/mouse?terminal_id=1", click)
        .await;
    let result = rig.result(&asked).await;
    assert!(
        result["stdout"]
            .as_str()
            .unwrap()
            .ends_with("$'\\E[<0;4;3M'\n"),
        "{result}"
    );
    let (status, _) = rig
        .ask("POST", "/api/v1/terminal/mouse?terminal_id=1", json!({}))
        .await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_session() {
    let rig = Rig::start();
    rig.post("/api/v1/terminal/create", json!({ "terminal_id": 1 }))
        .await;
    let body = json!({ "mode": "regex", "pattern": "NEVER", "timeout_ms": 30000 });
    let (waited, _) = tokio::join!(
        rig.post("/api/v1/terminal/wait?terminal_id=1", body),
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            rig.ask("DELETE", "/api/v1/terminal/1", Value::Null).await
        }
    );
    assert_eq!(waited["status"], "exited");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_can_be_looked_at_and_signalled() {
    let rig = Rig::start();
    let mut child = std::process::Command::new("sleep")
        .arg("100")
        .spawn()
        .unwrap();
    let pid = child.id();
    let list = rig
        .get("/api/v1/system/processes?filter=SLEEP&sort=cpu")
        .await;
    assert!(
        list["processes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|process| process["pid"] == pid),
        "{list}"
    );
    let details = rig.get(&format!("/api/v1/system/processes/{pid}")).await;
    assert_eq!(
        (details["name"].clone(), details["cmdline"].clone()),
        (json!("sleep"), json!(["sleep", "100"]))
    );
    let state = async || rig.get(&format!("/api/v1/system/processes/{pid}")).await["state"].clone();
    rig.post("/api/v1/system/processes/freeze", json!({ "pid": pid }))
        .await;
    eventually(async || (state().await == "T").then_some(())).await;
    rig.post("/api/v1/system/processes/unfreeze", json!({ "pid": pid }))
        .await;
    eventually(async || (state().await == "S").then_some(())).await;
    let reply = rig
        .post(
            "/api/v1/system/process/signal",
            json!({ "pid": pid, "signal": "SIGTERM", "force": false }),
        )
        .await;
    assert_eq!(reply["affected_pids"], json!([pid]));
    tokio::task::spawn_blocking(move || child.wait())
        .await
        .unwrap()
        .unwrap();
    for (body, want) in [
        (json!({ "pid": 1 }), 403),
        (json!({ "pid": std::process::id() }), 403),
        (json!({ "pid": -1 }), 403),
        (json!({ "pid": 0 }), 403),
        (json!({ "pid": 4194305 }), 404),
        (json!({ "name": "no such program" }), 404),
        (json!({ "pid": pid, "name": "both" }), 400),
        (json!({}), 400),
        (json!({ "pid": pid, "signal": "SIGNOPE" }), 400),
        (json!({ "pid": pid, "signal": 99 }), 400),
    ] {
        let (status, reply) = rig
            .ask("POST", "/api/v1/system/process/signal", body.clone())
            .await;
        assert_eq!(status, want, "{body}: {reply}");
    }
    assert_eq!(
        rig.ask("GET", "/api/v1/system/processes/4194305", Value::Null)
            .await
            .0,
        404
    );
    let resources = rig.get("/api/v1/system/resources").await;
    assert!(
        resources["memory"]["used_percent"].as_f64().unwrap() > 0.0
            && resources["cpu"]["load_1min"].is_number()
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ports = rig
        .get(&format!(
            "/api/v1/system/ports?protocol=tcp&port={port}&ip=127.0.0.1"
        ))
        .await;
    assert_eq!(ports[0]["port"], port);
    assert_eq!(
        rig.get(&format!("/api/v1/system/ports?port={port}&http_only=true"))
            .await,
        json!([])
    );
}
