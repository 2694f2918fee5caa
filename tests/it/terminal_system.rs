//! What runs on the machine, as the terminal service tells it.

use serde_json::{Value, json};
use tests::Rig;

use crate::terminal::Terminal;
use crate::wire::{each, refused};

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_found_frozen_and_ended() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    let mut child = std::process::Command::new("sleep")
        .arg("100")
        .spawn()
        .expect("sleep starts");
    let pid = child.id();
    let listed = terminal
        .get("/system/processes?filter=sleep&sort=memory")
        .await
        .expect(200)
        .json();
    assert!(
        each(&listed["processes"], "pid").contains(&json!(pid)),
        "{listed}"
    );
    let path = format!("/system/processes/{pid}");
    assert_eq!(
        terminal.get(&path).await.expect(200).json()["cmdline"],
        json!(["sleep", "100"])
    );

    for (act, state) in [("freeze", "T"), ("unfreeze", "S")] {
        let done = terminal
            .post(&format!("/system/processes/{act}"), json!({ "pid": pid }))
            .await
            .expect(200)
            .json();
        assert_eq!(done["affected_pids"], json!([pid]));
        rig.until(act, || async {
            terminal.get(&path).await.json()["state"] == state
        })
        .await;
    }
    let signal = |body: Value| terminal.post("/system/process/signal", body);
    let done = signal(json!({ "pid": pid, "signal": "SIGTERM" }))
        .await
        .expect(200)
        .json();
    assert_eq!(done["affected_pids"], json!([pid]));
    tokio::task::spawn_blocking(move || child.wait())
        .await
        .expect("no panic")
        .expect("it ended");

    for (body, status, code) in [
        (json!({ "pid": 1 }), 403, "PROTECTED_PROCESS"),
        (
            json!({ "pid": std::process::id() }),
            403,
            "PROTECTED_PROCESS",
        ),
        (json!({ "pid": 4_194_305 }), 404, "PROCESS_NOT_FOUND"),
        (
            json!({ "name": "no such program" }),
            404,
            "PROCESS_NOT_FOUND",
        ),
        (json!({}), 400, "VALIDATION_ERROR"),
        (
            json!({ "pid": pid, "signal": "SIGNOPE" }),
            400,
            "UNKNOWN_SIGNAL",
        ),
    ] {
        refused(signal(body).await, status, code);
    }
    refused(
        terminal.get("/system/processes/4194305").await,
        404,
        "PROCESS_NOT_FOUND",
    );
    refused(
        terminal.get("/system/processes/init").await,
        400,
        "VALIDATION_ERROR",
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_resources_are_told() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let ports = terminal
        .get(&format!("/system/ports?protocol=tcp&port={port}"))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&ports[0]["port"], &ports[0]["ip"]),
        (&json!(port), &json!("127.0.0.1"))
    );
    assert_eq!(
        terminal
            .get(&format!("/system/ports?protocol=udp&port={port}"))
            .await
            .expect(200)
            .json(),
        json!([])
    );
    refused(
        terminal.get("/system/ports?port=many").await,
        400,
        "VALIDATION_ERROR",
    );
    let resources = terminal.get("/system/resources").await.expect(200).json();
    assert!(
        resources["memory"]["used_percent"]
            .as_f64()
            .is_some_and(|percent| percent > 0.0),
        "{resources}"
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_is_restarted_and_shut_down_after_the_answer() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    for (path, seconds, minutes) in [
        ("/system/reboot", 1, 1),
        ("/system/reboot?delay=90", 90, 2),
        ("/system/shutdown?delay=5", 5, 1),
    ] {
        let scheduled = terminal.post(path, json!({})).await.expect(200).json();
        assert_eq!(
            (
                &scheduled["effective_seconds"],
                &scheduled["effective_minutes"]
            ),
            (&json!(seconds), &json!(minutes)),
            "{scheduled}"
        );
    }
    let asked = terminal.run("cat ~/.power/asked").await["stdout"].clone();
    let asked: Vec<&str> = asked.as_str().expect("text").lines().collect();
    for (line, when, what) in [
        (asked[0], "--on-active=1s", "systemctl --no-block reboot"),
        (asked[1], "--on-active=90s", "systemctl --no-block reboot"),
        (asked[2], "--on-active=5s", "systemctl --no-block poweroff"),
    ] {
        assert!(line.contains(when) && line.ends_with(what), "{line}");
    }
    for delay in ["-1", "86401", "soon"] {
        let path = format!("/system/reboot?delay={delay}");
        let refusal = terminal.post(&path, json!({})).await;
        assert_eq!(refusal.status, 400, "{delay}: {}", refusal.text());
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn displays_and_supervised_programs_are_lists() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    // A container that is one process among others tells nothing of the machine it runs on.
    for path in ["/system/displays", "/system/daemon"] {
        assert_eq!(
            terminal.get(path).await.expect(200).json(),
            json!([]),
            "{path}"
        );
    }
    let report = json!({ "build_id": "test", "renderer": "webgl", "reason": "opened" });
    let heard = terminal.post("/terminal/state", report).await.expect(200);
    assert_eq!(heard.json()["success"], true);
    refused(
        terminal
            .post("/terminal/state", json!({ "renderer": 7 }))
            .await,
        400,
        "VALIDATION_ERROR",
    );
    let metrics = terminal.get("/terminal/automation/metrics").await.json();
    assert_eq!(metrics["client_reports"], 1);
    rig.stop().await;
}
