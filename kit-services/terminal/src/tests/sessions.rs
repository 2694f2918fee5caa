use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_made_listed_and_ended() {
    let rig = Rig::start();
    assert_eq!(rig.get("/api/v1/terminal/sessions").await, json!([]));
    let body = json!({ "terminal_id": 100, "shell": "/bin/bash", "cols": 120, "rows": 30, "cwd": "/tmp", "display": "1" });
    let made = rig.post("/api/v1/terminal/create", body).await;
    assert_eq!(
        (
            made["status"].clone(),
            made["terminal_id"].clone(),
            made["shell_ready"].clone(),
            made["created"].clone()
        ),
        (json!("ok"), json!("100"), json!(true), json!(true)),
        "{made}"
    );
    let again = rig
        .post("/api/v1/terminal/create", json!({ "terminal_id": "100" }))
        .await;
    assert_eq!(
        (again["created"].clone(), again["pid"].clone()),
        (json!(false), made["pid"].clone())
    );
    check(
        &rig.run(100, "stty size </dev/tty; echo $DISPLAY").await,
        "30 120\n:1\n",
        "",
        0,
    );
    let list = rig.get("/api/v1/terminal/sessions?history_limit=1").await;
    let listed = &list[0];
    assert_eq!(listed["terminal_id"], "100");
    assert_eq!(
        (
            listed["cols"].clone(),
            listed["rows"].clone(),
            listed["cwd"].clone()
        ),
        (json!(120), json!(30), json!("/tmp"))
    );
    assert_eq!(listed["command_history"].as_array().unwrap().len(), 1);
    let pid = made["pid"].as_i64().unwrap();
    assert!(is_alive(pid));
    assert_eq!(
        rig.ask("DELETE", "/api/v1/terminal/100", Value::Null)
            .await
            .0,
        200
    );
    assert!(!is_alive(pid));
    assert_eq!(
        rig.ask("DELETE", "/api/v1/terminal/100", Value::Null)
            .await
            .0,
        404
    );
    assert_eq!(rig.get("/api/v1/terminal/sessions").await, json!([]));
    let files = std::fs::read_dir(&rig.terminal.config().state)
        .unwrap()
        .count();
    assert_eq!(files, 0, "its files go with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_before_the_first_call() {
    let rig = Rig::start();
    assert_eq!(rig.get("/api/v1/terminal/health").await["status"], "ok");
    assert!(!rig.terminal.is_busy());
    assert!(rig.terminal.0.work.get().is_none());
    assert!(!rig.terminal.config().state.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_ends_leaves_no_session() {
    let rig = Rig::start();
    rig.post("/api/v1/terminal/create", json!({ "terminal_id": 4 }))
        .await;
    rig.post(
        "/api/v1/terminal/write?terminal_id=4",
        json!({ "input": "exit" }),
    )
    .await;
    eventually(async || {
        rig.get("/api/v1/terminal/sessions")
            .await
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
    })
    .await;
    let (status, reply) = rig
        .ask(
            "POST",
            "/api/v1/terminal/write?terminal_id=4",
            json!({ "input": "x" }),
        )
        .await;
    assert_eq!(
        (status, reply["code"].clone()),
        (StatusCode::NOT_FOUND, json!("SESSION_NOT_FOUND"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_ends_what_ignores_it_and_what_waits() {
    let rig = Rig::start();
    let stubborn = "trap '' HUP INT TERM; echo $BASHPID; sleep 100; sleep 100";
    let command = format!("nohup bash -c \"{}\" 2>&1", stubborn.replace('$', "\\$"));
    let asked = rig
        .post(
            "/api/v1/terminal/execute?terminal_id=1",
            json!({ "command": command, "wait": false, "tty": false }),
        )
        .await;
    let waiting = rig
        .post(
            "/api/v1/terminal/execute?terminal_id=1",
            json!({ "command": "echo no", "wait": false }),
        )
        .await;
    let id = asked["command_id"].as_str().unwrap();
    let pid: i64 = eventually(async || {
        let result = rig.get(&format!("/api/v1/terminal/result/{id}")).await;
        result["stdout"]
            .as_str()
            .unwrap()
            .lines()
            .find_map(|line| line.parse().ok())
    })
    .await;
    assert_eq!(
        rig.ask("DELETE", "/api/v1/terminal/1", Value::Null).await.0,
        200
    );
    assert!(!is_alive(pid));
    for command in [asked, waiting] {
        let result = rig.result(&command).await;
        assert_eq!(result["status"], "failed", "{result}");
        assert!(result["message"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_begins_anew() {
    let rig = Rig::start();
    rig.run(1, "X=1; cd /tmp").await;
    let path = "/api/v1/terminal/execute?terminal_id=1&reset=true&cwd=/usr&shell=dash";
    check(
        &rig.post(path, json!({ "command": "echo x$X; pwd; echo $0" }))
            .await,
        "x\n/usr\n/usr/bin/dash\n",
        "",
        0,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_end_and_busy_ones_do_not() {
    let rig = Rig::with(|config| config.ephemeral_idle = Duration::from_millis(300));
    let idle = rig
        .post("/api/v1/terminal/create", json!({ "ephemeral": true }))
        .await;
    let number: u16 = idle["terminal_id"].as_str().unwrap().parse().unwrap();
    assert!(number >= 40000);
    let busy = rig
        .post("/api/v1/terminal/create", json!({ "ephemeral": true }))
        .await;
    let busy: u16 = busy["terminal_id"].as_str().unwrap().parse().unwrap();
    rig.run(busy, "sleep 100 &").await;
    rig.post("/api/v1/terminal/create", json!({ "terminal_id": 1 }))
        .await;
    eventually(async || {
        (rig.get("/api/v1/terminal/sessions")
            .await
            .as_array()
            .unwrap()
            .len()
            == 2)
            .then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left = rig.get("/api/v1/terminal/sessions").await;
    assert_eq!(
        (
            left[0]["terminal_id"].clone(),
            left[1]["terminal_id"].clone()
        ),
        (json!("1"), json!(busy.to_string()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_remembered_in_three_forms() {
    let rig = Rig::start();
    rig.run(1, "printf '\\033[31m<red>\\033[0m\\n'; echo two")
        .await;
    let (status, bytes) = rig
        .request("GET", "/api/v1/terminal/raw", Value::Null)
        .await;
    assert_eq!(status, 200, "the host's index names terminal 1");
    let raw = String::from_utf8(bytes).unwrap();
    assert!(
        raw.contains("\u{1b}[31m<red>\u{1b}[0m\r\ntwo\r\n"),
        "{raw:?}"
    );
    assert!(
        raw.contains("printf '\\033[31m"),
        "the command is seen as if typed: {raw:?}"
    );
    assert!(
        !raw.contains("__hoody") && !raw.contains("7717"),
        "and how it was run is not: {raw:?}"
    );
    let (_, bytes) = rig
        .request("GET", "/api/v1/terminal/raw?format=text", Value::Null)
        .await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("\n<red>\ntwo\n"), "{text:?}");
    let (_, bytes) = rig
        .request("GET", "/api/v1/terminal/raw?format=html", Value::Null)
        .await;
    assert!(String::from_utf8(bytes).unwrap().contains("&lt;red&gt;"));
    let (status, _) = rig
        .request("GET", "/api/v1/terminal/raw?terminal_id=9", Value::Null)
        .await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_startup_script_is_read_into_the_shell() {
    let rig = Rig::start();
    let script = rig.state.path().join("it's.sh");
    std::fs::write(&script, "GREETING=hello\n").unwrap();
    rig.post(
        "/api/v1/terminal/create",
        json!({ "terminal_id": 1, "startup_script": script }),
    )
    .await;
    check(&rig.run(1, "echo $GREETING").await, "hello\n", "", 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_and_programs_share_a_prompt() {
    let rig = Rig::start();
    rig.post("/api/v1/terminal/create", json!({ "terminal_id": 1 }))
        .await;
    // A half-typed line gives way; a line that was sent is run first.
    rig.post(
        "/api/v1/terminal/write?terminal_id=1",
        json!({ "input": "echo half", "enter": false }),
    )
    .await;
    check(&rig.run(1, "echo whole").await, "whole\n", "", 0);
    rig.post(
        "/api/v1/terminal/write?terminal_id=1",
        json!({ "input": "V=typed" }),
    )
    .await;
    check(&rig.run(1, "echo $V").await, "typed\n", "", 0);
    rig.post(
        "/api/v1/terminal/write?terminal_id=1",
        json!({ "input": "for i in 1 2" }),
    )
    .await;
    check(
        &rig.run(1, "echo out of the loop").await,
        "out of the loop\n",
        "",
        0,
    );
    // A program that a person runs is not typed into.
    rig.post(
        "/api/v1/terminal/write?terminal_id=1",
        json!({ "input": "cat > /dev/null" }),
    )
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = rig
        .post(
            "/api/v1/terminal/execute?terminal_id=1",
            json!({ "command": "echo later", "wait": false }),
        )
        .await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let id = asked["command_id"].as_str().unwrap();
    assert_eq!(
        rig.get(&format!("/api/v1/terminal/result/{id}")).await["status"],
        "queued"
    );
    rig.post(
        "/api/v1/terminal/press?terminal_id=1",
        json!({ "key": "ctrl+d" }),
    )
    .await;
    check(&rig.result(&asked).await, "later\n", "", 0);
    // A command can be answered.
    let asked = rig
        .post(
            "/api/v1/terminal/execute?terminal_id=1",
            json!({ "command": "read -r x; echo got $x", "wait": false, "tty": false }),
        )
        .await;
    eventually(async || {
        let list = rig.get("/api/v1/terminal/sessions").await;
        list[0]["running_command"].is_string().then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.post(
        "/api/v1/terminal/write?terminal_id=1",
        json!({ "input": "answer" }),
    )
    .await;
    check(&rig.result(&asked).await, "got answer\n", "", 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_waits_for_its_display_where_it_is_asked_to() {
    let sockets = tempfile::tempdir().unwrap();
    let rig = Rig::with(|config| config.displays = Some(sockets.path().to_owned()));
    let create = |id: u16, seconds: u64| json!({ "terminal_id": id, "display": "5", "wait_until_display": true, "wait_timeout": seconds });
    let path = "/api/v1/terminal/create";
    let late = rig.post(path, create(1, 0)).await;
    assert_eq!(
        (&late["display"], &late["display_ready"]),
        (&json!(":5"), &json!(false))
    );
    let waiting = rig.post(path, create(2, 60));
    let begins = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        std::os::unix::net::UnixListener::bind(sockets.path().join("X5")).unwrap()
    };
    let (made, _server) = tokio::join!(waiting, begins);
    assert_eq!(made["display_ready"], true, "{made}");
    let told = rig.get("/api/v1/system/displays").await;
    assert_eq!(told[0]["display"], 5, "{told}");
    check(&rig.run(2, "echo $DISPLAY").await, ":5\n", "", 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_to_run_elsewhere_does_not_run_here() {
    let rig = Rig::start();
    // Nobody answers at this port: the session is over as soon as it is there.
    let there =
        json!({ "terminal_id": 1, "ssh_host": "127.0.0.1", "ssh_user": "me", "ssh_port": 1 });
    let made = rig.post("/api/v1/terminal/create", there).await;
    assert_eq!(
        (&made["is_ssh"], &made["shell_ready"]),
        (&json!(true), &json!(false))
    );
    let execute = "/api/v1/terminal/execute?terminal_id=1";
    let command = || json!({ "command": "echo here" });
    let (status, reply) = rig.ask("POST", execute, command()).await;
    assert_eq!(
        (status.as_u16(), &reply["code"]),
        (409, &json!("SSH_SESSION_OVER")),
        "{reply}"
    );
    let home = json!({ "terminal_id": 1 });
    rig.post("/api/v1/terminal/create", home).await;
    check(&rig.post(execute, command()).await, "here\n", "", 0);
    // On its own, a command says with what code ssh gave up.
    let once = "/api/v1/terminal/execute?ephemeral=true&ssh_host=127.0.0.1&ssh_user=me&ssh_port=1";
    let refused = rig.post(once, command()).await;
    assert_eq!(
        (&refused["exit_code"], &refused["stdout"]),
        (&json!(255), &json!(""))
    );
}
