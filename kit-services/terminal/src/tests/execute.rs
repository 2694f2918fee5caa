use std::time::Instant;

use base64::Engine;
use futures::future::join_all;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_of_running_tell_streams_and_codes_apart() {
    let rig = Rig::start();
    let cases = [
        ("echo out; echo err >&2", "out\n", "err\n", 0),
        ("printf 'no newline'", "no newline", "", 0),
        ("true", "", "", 0),
        ("false", "", "", 1),
        ("(exit 42)", "", "", 42),
        ("sh -c 'exit 7'", "", "", 7),
        (
            "printf '%s' \"it's \\\"quoted\\\" \\$HOME\"",
            "it's \"quoted\" $HOME",
            "",
            0,
        ),
        (
            "for i in 1 2 3; do\n  echo $i\ndone # comment",
            "1\n2\n3\n",
            "",
            0,
        ),
        ("cat <<EOF\nhere\nEOF", "here\n", "", 0),
        ("printf 'a\\r\\nb\\rc\\n'", "a\r\nb\rc\n", "", 0),
        (
            "printf '\\033[31mred\\033[0m'",
            "\u{1b}[31mred\u{1b}[0m",
            "",
            0,
        ),
        ("echo héllo ✓", "héllo ✓\n", "", 0),
    ];
    for (command, stdout, stderr, code) in cases {
        check(&rig.once(command).await, stdout, stderr, code);
        check(&rig.run(1, command).await, stdout, stderr, code);
        let asked = rig
            .post(
                "/api/v1/terminal/execute?terminal_id=1",
                json!({ "command": command, "wait": false }),
            )
            .await;
        assert!(
            ["queued", "running", "completed"].contains(&asked["status"].as_str().unwrap()),
            "{asked}"
        );
        check(&rig.result(&asked).await, stdout, stderr, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_exact() {
    let rig = Rig::start();
    let all = "printf \"$(for i in $(seq 0 255); do printf '\\\\x%02x' $i; done)\"";
    let want: Vec<u8> = (0..=255).collect();
    for result in [rig.once(all).await, rig.run(1, all).await] {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(result["stdout_base64"].as_str().unwrap());
        assert_eq!(bytes.unwrap(), want);
        assert_eq!(result["exit_code"], 0);
    }
    let large = "head -c 2000000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero | tr '\\0' y >&2";
    let asked = rig
        .post(
            "/api/v1/terminal/execute?terminal_id=1",
            json!({ "command": large, "wait": false }),
        )
        .await;
    for result in [
        rig.once(large).await,
        rig.result(&asked).await,
        rig.run(1, large).await,
    ] {
        assert_eq!(result["stdout"].as_str().unwrap().len(), 2_000_000);
        assert_eq!(result["stderr"].as_str().unwrap().len(), 300_000);
        assert!(result["stdout_truncated"].is_null());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_is_kept_is_cut_and_flagged() {
    let rig = Rig::start();
    let result = rig
        .once("echo first; head -c 20000000 /dev/zero | tr '\\0' x; echo last")
        .await;
    let stdout = result["stdout"].as_str().unwrap();
    assert!(
        stdout.len() < 9_000_000 && stdout.starts_with("first\n") && stdout.ends_with("last\n")
    );
    assert!(stdout.contains("bytes left out"));
    assert_eq!(result["stdout_truncated"], true);
    assert_eq!(result["exit_code"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_end_at_once_lose_nothing() {
    let rig = Rig::start();
    let on_their_own = join_all((0..1000).map(|number| {
        let rig = &rig;
        async move {
            (
                number,
                rig.once(&format!(
                    "echo o{number}; echo e{number} >&2; exit {}",
                    number % 200
                ))
                .await,
            )
        }
    }))
    .await;
    let in_sessions = join_all((0..1000).map(|number: u16| {
        let rig = &rig;
        async move {
            let command = format!(
                "echo o{number}; echo e{number} >&2; (exit {})",
                number % 200
            );
            (number, rig.run(1 + number % 4, &command).await)
        }
    }))
    .await;
    for (number, result) in on_their_own.into_iter().chain(in_sessions) {
        check(
            &result,
            &format!("o{number}\n"),
            &format!("e{number}\n"),
            i32::from(number % 200),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_remembers_what_its_commands_change() {
    let rig = Rig::start();
    rig.run(
        7,
        "cd /tmp; export FOO=bar; greet() { echo hello $1; }; declare LOCAL=1; alias say=echo",
    )
    .await;
    check(
        &rig.run(7, "pwd; echo $FOO $LOCAL; greet you").await,
        "/tmp\nbar 1\nhello you\n",
        "",
        0,
    );
    check(&rig.run(7, "say aliased").await, "aliased\n", "", 0);
    check(&rig.run(7, "(exit 9)").await, "", "", 9);
    check(&rig.run(7, "echo $?").await, "9\n", "", 0);
    check(&rig.run(8, "echo x$FOO").await, "x\n", "", 0);
    check(&rig.run(7, "return 5").await, "", "", 5);
    let wrong = rig.run(7, "echo one\nif").await;
    assert_eq!(
        (wrong["exit_code"].clone(), wrong["stdout"].clone()),
        (json!(2), json!("one\n")),
        "{wrong}"
    );
    assert!(
        wrong["stderr"].as_str().unwrap().contains("syntax error"),
        "{wrong}"
    );
    let wrong = rig.run(7, "true\nno-such-program").await;
    assert_eq!(
        (wrong["exit_code"].clone(), wrong["stderr"].clone()),
        (
            json!(127),
            json!("bash: no-such-program: command not found\n")
        )
    );
    check(&rig.run(7, "echo still here").await, "still here\n", "", 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_its_shell_keeps_its_code() {
    let rig = Rig::start();
    check(&rig.run(3, "echo bye; exit 3").await, "bye\n", "", 3);
    check(&rig.run(3, "echo back").await, "back\n", "", 0);
    let asked = rig
        .post(
            "/api/v1/terminal/execute?terminal_id=3",
            json!({ "command": "exit 4", "wait": false }),
        )
        .await;
    assert_eq!(rig.result(&asked).await["exit_code"], 4);
    for result in [
        rig.run(3, "sh -c 'kill -TERM $$'").await,
        rig.once("kill -TERM $$").await,
    ] {
        assert_eq!(
            (result["exit_code"].clone(), result["status"].clone()),
            (json!(143), json!("completed"))
        );
    }
    let result = rig.run(3, "kill -9 $$").await;
    assert_eq!(
        (result["exit_code"].clone(), result["status"].clone()),
        (json!(137), json!("completed"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_and_variables_are_for_one_command() {
    let rig = Rig::start();
    rig.run(1, "cd /usr; export KEPT=1 FOO=old").await;
    let path = "/api/v1/terminal/execute?terminal_id=1";
    let body = json!({ "command": "pwd; echo $FOO $BAR", "cwd": "/tmp", "env": { "FOO": "new's", "BAR": 2 } });
    check(&rig.post(path, body).await, "/tmp\nnew's 2\n", "", 0);
    check(
        &rig.run(1, "pwd; echo $FOO x$BAR").await,
        "/usr\nold x\n",
        "",
        0,
    );
    check(
        &rig.post(path, json!({ "command": "cd bin", "cwd": "/" }))
            .await,
        "",
        "",
        0,
    );
    assert!(
        rig.run(1, "pwd").await["stdout"]
            .as_str()
            .unwrap()
            .ends_with("bin\n"),
        "a command that moves has moved"
    );
    let query = "/api/v1/terminal/execute?terminal_id=2&env=A=1&env=B=two%20words&cwd=/etc";
    check(
        &rig.post(query, json!({ "command": "echo $A $B; pwd" }))
            .await,
        "1 two words\n/etc\n",
        "",
        0,
    );
    check(&rig.run(2, "echo $A; pwd").await, "1\n/etc\n", "", 0);
    let once = "/api/v1/terminal/execute?ephemeral=1&env=A=1&cwd=/etc";
    check(
        &rig.post(
            once,
            json!({ "command": "echo $A; pwd", "env": { "B": "x" } }),
        )
        .await,
        "1\n/etc\n",
        "",
        0,
    );
    let made = rig.state.path().join("made/here");
    let body = json!({ "command": "pwd", "cwd": made, "cwd_auto_create": true });
    check(
        &rig.post(path, body).await,
        &format!("{}\n", made.display()),
        "",
        0,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_arrive_in_base64_and_run_with_login_variables() {
    let rig = Rig::start();
    let encoded = base64::engine::general_purpose::STANDARD.encode("echo a+b?>");
    let (status, result) = rig
        .ask(
            "POST",
            &format!("/api/v1/terminal/execute?ephemeral=true&cmd={encoded}"),
            Value::Null,
        )
        .await;
    assert_eq!(status, 200, "{result}");
    let names =
        "echo ${HOME:+home} ${USER:+user} ${SHELL:+shell} $TERM ${PATH:+path} $HOODY_TERMINAL_ID";
    let result = rig
        .post(
            "/api/v1/terminal/execute?ephemeral=true&terminal_id=77",
            json!({ "command": names }),
        )
        .await;
    check(&result, "home user shell xterm-256color path 77\n", "", 0);
    assert_eq!(result["terminal_id"], "77");
    check(
        &rig.run(5, names).await,
        "home user shell xterm-256color path 5\n",
        "",
        0,
    );
    let own = rig.once("echo $HOODY_TERMINAL_ID").await;
    assert!(own["terminal_id"].as_str().unwrap().parse::<u32>().unwrap() >= 40000);
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_end_what_runs() {
    let rig = Rig::start();
    rig.run(1, "true").await;
    for path in [
        "/api/v1/terminal/execute?ephemeral=true",
        "/api/v1/terminal/execute?terminal_id=1",
    ] {
        for command in [
            "echo $BASHPID; sleep 100",
            "trap '' INT TERM; echo $BASHPID; while :; do sleep 0.1; done",
        ] {
            let begun = Instant::now();
            let command = format!("bash -c '{}'", command.replace('\'', "'\\''"));
            let result = rig
                .post(path, json!({ "command": command, "timeout": 1 }))
                .await;
            assert_eq!(result["status"], "timed_out", "{path} {command}: {result}");
            assert_eq!(result["timed_out"], true);
            assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
            let pid: i64 = result["stdout"].as_str().unwrap().trim().parse().unwrap();
            eventually(async || (!is_alive(pid)).then_some(())).await;
        }
    }
    check(&rig.run(1, "echo after").await, "after\n", "", 0);
    // A shell that is caught in a loop of its own is ended with its session.
    let body = json!({ "command": "trap '' INT; while :; do :; done", "timeout": 1 });
    assert_eq!(
        rig.post("/api/v1/terminal/execute?terminal_id=1", body)
            .await["status"],
        "timed_out"
    );
    check(&rig.run(1, "echo anew").await, "anew\n", "", 0);
    // Time counts while a command waits for its turn.
    let busy = rig
        .post(
            "/api/v1/terminal/execute?terminal_id=1",
            json!({ "command": "sleep 5", "wait": false }),
        )
        .await;
    let late = rig
        .post(
            "/api/v1/terminal/execute?terminal_id=1",
            json!({ "command": "echo no", "timeout": 1 }),
        )
        .await;
    assert_eq!(
        (late["status"].clone(), late["stdout"].clone()),
        (json!("timed_out"), json!(""))
    );
    let id = busy["command_id"].as_str().unwrap();
    rig.post(&format!("/api/v1/terminal/execute/{id}/abort"), json!({}))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_can_be_aborted() {
    let rig = Rig::start();
    let abort = async |id: &str, force: bool| {
        rig.ask(
            "POST",
            &format!("/api/v1/terminal/execute/{id}/abort"),
            json!({ "force": force }),
        )
        .await
    };
    for path in [
        "/api/v1/terminal/execute?ephemeral=true",
        "/api/v1/terminal/execute?terminal_id=1",
    ] {
        for force in [false, true] {
            let asked = rig
                .post(
                    path,
                    json!({ "command": "echo begun; sleep 100", "wait": false }),
                )
                .await;
            let id = asked["command_id"].as_str().unwrap();
            eventually(async || {
                let result = rig.get(&format!("/api/v1/terminal/result/{id}")).await;
                result["stdout"]
                    .as_str()
                    .unwrap()
                    .contains("begun")
                    .then_some(())
            })
            .await;
            let (status, reply) = abort(id, force).await;
            assert_eq!(status, 200, "{reply}");
            let result = rig.result(&asked).await;
            assert_eq!(
                (result["status"].clone(), result["aborted"].clone()),
                (json!("failed"), json!(true)),
                "{result}"
            );
            assert_eq!(
                result["exit_code"],
                if force { 137 } else { 130 },
                "{path} {force}"
            );
            let (status, reply) = abort(id, force).await;
            assert_eq!(
                (status, reply["command_id"].clone()),
                (StatusCode::CONFLICT, json!(id)),
                "{reply}"
            );
        }
    }
    // A loop of the shell itself, and one that waits for its turn.
    let first = rig
        .post(
            "/api/v1/terminal/execute?terminal_id=1",
            json!({ "command": "while :; do :; done", "wait": false }),
        )
        .await;
    let second = rig
        .post(
            "/api/v1/terminal/execute?terminal_id=1",
            json!({ "command": "echo never", "wait": false }),
        )
        .await;
    let (_, reply) = abort(second["command_id"].as_str().unwrap(), false).await;
    assert_eq!(
        (reply["status"].clone(), reply["stdout"].clone()),
        (json!("failed"), json!(""))
    );
    eventually(async || {
        let (_, reply) = abort(first["command_id"].as_str().unwrap(), false).await;
        (reply["status"] == "failed").then_some(())
    })
    .await;
    check(&rig.run(1, "echo after").await, "after\n", "", 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_left_in_the_background_hold_up_nobody() {
    let rig = Rig::start();
    let begun = Instant::now();
    let result = rig.once("sleep 100 & echo $!").await;
    let left: i64 = result["stdout"].as_str().unwrap().trim().parse().unwrap();
    assert!(is_alive(left), "it lives on");
    let result = rig.run(1, "sleep 100 & echo $!").await;
    let pid: i64 = result["stdout"].as_str().unwrap().trim().parse().unwrap();
    assert!(is_alive(pid));
    assert!(begun.elapsed().as_secs() < 10);
    // What it writes later goes to the terminal, and it does not die of it.
    let result = rig
        .run(1, "(sleep 0.5; echo late; sleep 100) & echo $!")
        .await;
    let late: i64 = result["stdout"].as_str().unwrap().trim().parse().unwrap();
    eventually(async || {
        let (_, bytes) = rig
            .request(
                "GET",
                "/api/v1/terminal/raw?terminal_id=1&format=text",
                Value::Null,
            )
            .await;
        String::from_utf8_lossy(&bytes)
            .contains("late\n")
            .then_some(())
    })
    .await;
    assert!(is_alive(late));
    // Output that a process substitution is late with is still the command's.
    check(&rig.once("echo x > >(sleep 0.02; cat)").await, "x\n", "", 0);
    assert_eq!(
        rig.ask("DELETE", "/api/v1/terminal/1", Value::Null).await.0,
        200
    );
    assert!(
        !is_alive(pid) && !is_alive(late),
        "what runs in a session ends with it"
    );
    crate::system::processes::signal(i32::try_from(left).unwrap(), rustix::process::Signal::KILL);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_kept_by_id_and_unknown_ones_are_said_to_be() {
    let rig = Rig::start();
    let path = "/api/v1/terminal/execute?terminal_id=1";
    let result = rig
        .post(path, json!({ "command": "echo mine", "id": "123" }))
        .await;
    assert_eq!(result["command_id"], "123");
    check(
        &rig.get("/api/v1/terminal/result/123").await,
        "mine\n",
        "",
        0,
    );
    let result = rig
        .post(path, json!({ "command": "echo again", "id": 123 }))
        .await;
    assert_eq!(result["stdout"], "again\n");
    let busy = rig
        .post(
            path,
            json!({ "command": "sleep 3", "id": "9", "wait": false }),
        )
        .await;
    let (status, _) = rig
        .ask("POST", path, json!({ "command": "echo", "id": "9" }))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    rig.result(&busy).await;
    for id in ["nope", "124", "%00", &"x".repeat(5000)] {
        let (status, reply) = rig
            .ask("GET", &format!("/api/v1/terminal/result/{id}"), Value::Null)
            .await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{reply}");
        assert_eq!(reply["code"], "COMMAND_NOT_FOUND");
    }
    let history = rig.get("/api/v1/terminal/history/1").await;
    assert_eq!(
        (
            history["total"].clone(),
            history["history"][0]["command"].clone()
        ),
        (json!(2), json!("echo again")),
        "{history}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_can_wait_for_a_process() {
    let rig = Rig::start();
    let mut child = std::process::Command::new("sleep")
        .arg("1")
        .spawn()
        .unwrap();
    let pid = child.id();
    let asked = rig
        .post(
            &format!("/api/v1/terminal/execute?terminal_id=1&defer_pid={pid}"),
            json!({ "command": "echo then" }),
        )
        .await;
    assert_eq!(asked["status"], "pending");
    tokio::task::spawn_blocking(move || child.wait())
        .await
        .unwrap()
        .unwrap();
    check(&rig.result(&asked).await, "then\n", "", 0);
    let me = std::process::id();
    let asked = rig
        .post(
            &format!("/api/v1/terminal/execute?ephemeral=true&defer_pid={me}&defer_timeout_ms=100"),
            json!({ "command": "echo never" }),
        )
        .await;
    assert_eq!(rig.result(&asked).await["status"], "timed_out");
    let asked = rig
        .post(
            &format!(
                "/api/v1/terminal/execute?ephemeral=true&defer_pid={me}&defer_start_time_ticks=1"
            ),
            json!({ "command": "echo another" }),
        )
        .await;
    check(&rig.result(&asked).await, "another\n", "", 0);
}

/// bash and dash are on every Debian; the others are tried where they are installed.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_shell_runs_commands() {
    let rig = Rig::start();
    for (id, shell) in (1..).zip(["bash", "dash", "zsh", "fish", "ksh", "mksh"]) {
        if crate::launch::find(shell, "/usr/bin:/bin").is_none() {
            continue;
        }
        let path = format!("/api/v1/terminal/execute?terminal_id={id}&shell={shell}");
        let set = if shell == "fish" { "set -g X 1" } else { "X=1" };
        let first = format!("echo out; echo err >&2; cd /tmp; {set}; sh -c 'exit 5'");
        check(
            &rig.post(&path, json!({ "command": first })).await,
            "out\n",
            "err\n",
            5,
        );
        let status = if shell == "fish" { "$status" } else { "$?" };
        let second = format!("echo {status}; pwd; echo it\\'s $X");
        check(
            &rig.post(&path, json!({ "command": second })).await,
            "5\n/tmp\nit's 1\n",
            "",
            0,
        );
        let asked = rig
            .post(
                &path,
                json!({ "command": "echo tty; echo e >&2; test -t 1", "wait": false }),
            )
            .await;
        check(&rig.result(&asked).await, "tty\n", "e\n", 0);
        let visit =
            json!({ "command": "pwd; echo $A", "cwd": "/usr", "env": { "A": "it's \\ \"x\"" } });
        check(
            &rig.post(&path, visit).await,
            "/usr\nit's \\ \"x\"\n",
            "",
            0,
        );
        check(
            &rig.post(&path, json!({ "command": "pwd; echo \"x$A\"" }))
                .await,
            "/tmp\nx\n",
            "",
            0,
        );
        let late = rig
            .post(&path, json!({ "command": "sleep 100", "timeout": 1 }))
            .await;
        assert_eq!(late["status"], "timed_out", "{shell}: {late}");
        check(
            &rig.post(&path, json!({ "command": "echo after" })).await,
            "after\n",
            "",
            0,
        );
        check(
            &rig.post(&path, json!({ "command": "exit 3" })).await,
            "",
            "",
            3,
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_users_run_with_their_own_rights() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let rig = Rig::with(|config| config.home = None);
    let command = "id -un; id -gn; echo $USER $HOME; cat /etc/shadow 2>&1 >/dev/null | grep -c denied; test -w /dev/tty && echo tty";
    for path in [
        "/api/v1/terminal/execute?terminal_id=1&user=nobody",
        "/api/v1/terminal/execute?terminal_id=2&user=nobody&wait=false",
    ] {
        let asked = rig.post(path, json!({ "command": command })).await;
        check(
            &rig.result(&asked).await,
            "nobody\nnogroup\nnobody /nonexistent\n1\ntty\n",
            "",
            0,
        );
    }
    let once = rig
        .post(
            "/api/v1/terminal/execute?ephemeral=true&user=nobody",
            json!({ "command": "id -un; umask" }),
        )
        .await;
    check(&once, "nobody\n0022\n", "", 0);
    let made = rig.state.path().join("theirs");
    let body = json!({ "command": "stat -c %U .", "cwd": made, "cwd_auto_create": true, "user": "nobody" });
    check(
        &rig.post("/api/v1/terminal/execute?ephemeral=true", body)
            .await,
        "nobody\n",
        "",
        0,
    );
    // Where nobody is named, it is the user that the kit is set up for.
    let rig = Rig::with(|config| {
        config.default_user = "nobody".to_owned();
        config.home = None;
    });
    check(&rig.run(1, "id -un").await, "nobody\n", "", 0);
    check(&rig.once("id -un; pwd").await, "nobody\n/\n", "", 0);
    let root = rig
        .post(
            "/api/v1/terminal/execute?ephemeral=true&user=root",
            json!({ "command": "id -un" }),
        )
        .await;
    check(&root, "root\n", "", 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kit_without_rights_says_whom_it_cannot_be() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let rig = Rig::start();
    let path = "/api/v1/terminal/execute?ephemeral=true&user=root";
    let (status, reply) = rig.ask("POST", path, json!({ "command": "true" })).await;
    assert_eq!(
        (status, reply["code"].clone()),
        (StatusCode::FORBIDDEN, json!("CANNOT_SWITCH_USER"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_at_home_where_the_kit_is_told() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().canonicalize().unwrap();
    let rig = Rig::with(|config| {
        config.default_user = String::new();
        config.home = Some(path.clone());
    });
    let there = format!("{0}\n{0}\n", path.display());
    check(&rig.once("pwd; echo $HOME").await, &there, "", 0);
    check(&rig.run(1, "pwd; echo $HOME").await, &there, "", 0);
}
