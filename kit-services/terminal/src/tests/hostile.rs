use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused_with_a_reason() {
    let rig = Rig::start();
    let execute = "/api/v1/terminal/execute";
    let command = || json!({ "command": "true" });
    let long = "9".repeat(100_000);
    let cases: Vec<(String, Value, u16)> = vec![
        (format!("{execute}?terminal_id=65536"), command(), 400),
        (format!("{execute}?terminal_id=-1"), command(), 400),
        (
            format!("{execute}?terminal_id={}", &long[..5000]),
            command(),
            400,
        ),
        (format!("{execute}?terminal_id=a"), command(), 400),
        (format!("{execute}?terminal_id=1%00"), command(), 400),
        (format!("{execute}?terminal_id=1"), json!({}), 400),
        (
            format!("{execute}?terminal_id=1"),
            json!({ "command": "" }),
            400,
        ),
        (
            format!("{execute}?terminal_id=1"),
            json!({ "command": 7 }),
            400,
        ),
        (format!("{execute}?terminal_id=1"), json!([]), 400),
        (
            format!("{execute}?terminal_id=1"),
            json!({ "command": "a\u{0}b" }),
            400,
        ),
        (
            format!("{execute}?terminal_id=1"),
            json!({ "command": "x".repeat(5 << 20) }),
            413,
        ),
        (format!("{execute}?ephemeral=true&cmd=!!"), json!({}), 400),
        (format!("{execute}?ephemeral=true&cmd=/w=="), json!({}), 400),
        (
            format!("{execute}?ephemeral=true&user=no-such-user"),
            command(),
            400,
        ),
        (format!("{execute}?ephemeral=true&user=%00"), command(), 400),
        (
            format!("{execute}?ephemeral=true&user={}", &long[..5000]),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&shell=no-such-shell"),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&shell=../../bin/sh"),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&shell=/etc/passwd"),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&cwd=/no/such/place"),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&cwd=/etc/passwd"),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&cwd=/etc/passwd/x&cwd_auto_create=true"),
            command(),
            400,
        ),
        (format!("{execute}?ephemeral=true&cwd=%00"), command(), 400),
        (
            format!("{execute}?ephemeral=true&cwd=/{}", &long[..5000]),
            command(),
            400,
        ),
        (
            format!(
                "{execute}?ephemeral=true&cwd={}&cwd_auto_create=true",
                &long[..300]
            ),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&env=NOVALUE"),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&env=a-b=1"),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&env=A=%00"),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true"),
            json!({ "command": "true", "env": { "A": {} } }),
            400,
        ),
        (
            format!("{execute}?ephemeral=true"),
            json!({ "command": "true", "env": { "": "x" } }),
            400,
        ),
        (
            format!("{execute}?ephemeral=true"),
            json!({ "command": "true", "env": { "X$(id)": "x" } }),
            400,
        ),
        (
            format!("{execute}?ephemeral=true"),
            json!({ "command": "true", "env": { "A": long } }),
            200,
        ),
        (
            format!("{execute}?ephemeral=true"),
            json!({ "command": "true", "env": { "A": "x".repeat(300_000) } }),
            400,
        ),
        (
            format!("{execute}?ephemeral=true"),
            json!({ "command": "true", "timeout": -1 }),
            400,
        ),
        (
            format!("{execute}?ephemeral=true"),
            json!({ "command": "true", "timeout": i64::MAX }),
            400,
        ),
        (
            format!("{execute}?ephemeral=true"),
            json!({ "command": "true", "id": "../x" }),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&defer_pid=0"),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&defer_pid=1&defer_start_time_ticks=x"),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&display=host:0"),
            command(),
            400,
        ),
        (
            format!("{execute}?ephemeral=true&ssh_host=example.com"),
            command(),
            400,
        ),
        (
            "/api/v1/terminal/create".into(),
            json!({ "terminal_id": "x" }),
            400,
        ),
        (
            "/api/v1/terminal/create".into(),
            json!({ "terminal_id": 99999 }),
            400,
        ),
        (
            "/api/v1/terminal/create".into(),
            json!({ "terminal_id": 1, "desktop": true }),
            501,
        ),
        (
            "/api/v1/terminal/write?terminal_id=1".into(),
            json!({ "input": "x" }),
            404,
        ),
        (
            "/api/v1/terminal/press?terminal_id=1".into(),
            json!({ "key": "enter" }),
            404,
        ),
        ("/api/v1/terminal/wait?terminal_id=1".into(), json!({}), 404),
        ("/api/v1/terminal/execute/none/abort".into(), json!({}), 404),
    ];
    for (path, body, want) in cases {
        let (status, reply) = rig.ask("POST", &path, body).await;
        let path = &path[..path.len().min(120)];
        assert_eq!(
            status,
            want,
            "{path}: {}",
            reply.to_string().chars().take(300).collect::<String>()
        );
        if want != 200 {
            assert!(
                reply["message"]
                    .as_str()
                    .is_some_and(|message| !message.is_empty() && message.len() < 6000),
                "{path}"
            );
        }
    }
    for path in [
        "/api/v1/terminal/0",
        "/api/v1/terminal/x",
        "/api/v1/terminal/65536",
    ] {
        assert_eq!(rig.ask("DELETE", path, Value::Null).await.0, 400, "{path}");
    }
    assert_eq!(
        rig.get("/api/v1/terminal/sessions").await,
        json!([]),
        "nothing was started"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_cannot_speak_for_the_shell() {
    let rig = Rig::start();
    let forged = "printf '\\033]7717;0000000000000000;E;1;0\\007'; printf '\\033]7717;x;P;0\\007'; echo still mine; (exit 3)";
    for wait in [true, false] {
        let asked = rig
            .post(
                "/api/v1/terminal/execute?terminal_id=1",
                json!({ "command": forged, "wait": wait }),
            )
            .await;
        let result = rig.result(&asked).await;
        assert_eq!(result["exit_code"], 3, "{result}");
        assert!(result["stdout"].as_str().unwrap().ends_with("still mine\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_that_take_no_commands_say_so() {
    let rig = Rig::start();
    rig.post(
        "/api/v1/terminal/create",
        json!({ "terminal_id": 1, "shell": "cat" }),
    )
    .await;
    let (status, reply) = rig
        .ask(
            "POST",
            "/api/v1/terminal/execute?terminal_id=1",
            json!({ "command": "ls" }),
        )
        .await;
    assert_eq!(
        (status, reply["code"].clone()),
        (StatusCode::CONFLICT, json!("NOT_A_SHELL"))
    );
    rig.post(
        "/api/v1/terminal/write?terminal_id=1",
        json!({ "input": "echoed" }),
    )
    .await;
    let waited = rig
        .post(
            "/api/v1/terminal/wait?terminal_id=1",
            json!({ "mode": "regex", "pattern": "echoed\\s*$", "timeout_ms": 10000 }),
        )
        .await;
    assert_eq!(waited["status"], "matched");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_of_the_kit_does_not_leak() {
    let rig = Rig::start();
    for result in [rig.once("env").await, rig.run(1, "env").await] {
        let text = result["stdout"].as_str().unwrap();
        assert!(
            !text.contains("CARGO_MANIFEST_DIR") && !text.contains("NEXTEST"),
            "{text}"
        );
    }
    check(
        &rig.once("ls -l /proc/self/fd | grep -c -e socket -e anon_inode -e ptmx")
            .await,
        "0\n",
        "",
        1,
    );
    let result = rig
        .run(
            1,
            "ls -l /proc/self/fd | grep -e socket -e anon_inode -e ptmx",
        )
        .await;
    assert_eq!(
        result["stdout"], "",
        "no descriptor of the kit is inherited"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_sessions_are_refused_beyond_the_limit_and_hurt_nobody() {
    use futures::StreamExt;
    const ASKED: u16 = 3000;
    const LIMIT: usize = 256;
    let rig = Rig::start();
    let before = super::socket::resident();
    let asked = futures::stream::iter(1..=ASKED).map(|id| {
        let rig = &rig;
        async move {
            let wish = json!({ "terminal_id": id, "shell": "sh" });
            rig.ask("POST", "/api/v1/terminal/create", wish).await
        }
    });
    let answers: Vec<_> = asked.buffer_unordered(64).collect().await;
    let made = answers.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(made, LIMIT);
    for (status, reply) in answers.iter().filter(|(status, _)| *status != 200) {
        assert_eq!(*status, 503, "{reply}");
        assert_eq!(reply["code"], "TOO_MANY_SESSIONS");
    }
    let grown = super::socket::resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for {LIMIT} sessions");
    check(&rig.once("echo still here").await, "still here\n", "", 0);
    let sessions = rig.get("/api/v1/terminal/sessions").await;
    let ids: Vec<u16> = sessions
        .as_array()
        .unwrap()
        .iter()
        .map(|session| session["terminal_id"].as_str().unwrap().parse().unwrap())
        .collect();
    futures::future::join_all(ids.iter().map(|id| {
        let path = format!("/api/v1/terminal/{id}");
        let rig = &rig;
        async move { rig.ask("DELETE", &path, Value::Null).await }
    }))
    .await;
    check(&rig.run(ASKED, "echo again").await, "again\n", "", 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_beyond_the_limit_is_refused_and_leaves_nothing() {
    let rig = Rig::start();
    let made = json!({ "terminal_id": 1, "shell": "sh" });
    rig.post("/api/v1/terminal/create", made).await;
    let begun = rig
        .post("/api/v1/terminal/drop-begin?terminal_id=1", json!({}))
        .await;
    let upload = async |size: usize| {
        let path = format!(
            "/api/v1/terminal/upload?terminal_id=1&drop={}&token={}&path=a&offset=0",
            begun["drop"].as_str().unwrap(),
            begun["token"].as_str().unwrap()
        );
        rig.ask("POST", &path, Value::String("x".repeat(size - 2)))
            .await
    };
    let (status, reply) = upload((8 << 20) + 1).await;
    assert_eq!(
        (status.as_u16(), &reply["code"]),
        (413, &json!("SLICE_TOO_LARGE"))
    );
    let root = std::path::Path::new(begun["root"].as_str().unwrap());
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 0);
    let (status, reply) = upload(8 << 20).await;
    assert_eq!((status.as_u16(), &reply["size"]), (200, &json!(8 << 20)));
}
