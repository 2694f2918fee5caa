//! Driving programs by their screen.

use reqwest::Method;
use serde_json::json;
use tests::Rig;

use crate::terminal::Terminal;
use crate::wire::refused;

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_typed_at_and_looked_at() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    terminal
        .post(
            "/terminal/create",
            json!({ "terminal_id": "1", "shell": "bash" }),
        )
        .await
        .expect(200);
    let wait = |pattern: &'static str| {
        let body = json!({ "mode": "regex", "pattern": pattern, "timeout_ms": 15000 });
        terminal.post("/terminal/wait?terminal_id=1", body)
    };

    terminal
        .post(
            "/terminal/write?terminal_id=1",
            json!({ "input": "echo $((6 * 7))-typed", "enter": false }),
        )
        .await
        .expect(200);
    let pressed = terminal
        .post(
            "/terminal/press?terminal_id=1",
            json!({ "keys": ["enter"] }),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&pressed["success"], &pressed["terminal_id"]),
        (&json!(true), &json!("1"))
    );
    let waited = wait("42-typed").await.expect(200).json();
    assert_eq!(
        (&waited["status"], &waited["match"]["text"]),
        (&json!("matched"), &json!("42-typed")),
        "{waited}"
    );

    terminal
        .post(
            "/terminal/paste?terminal_id=1",
            json!({ "text": "echo $((1 + 1))-pasted" }),
        )
        .await
        .expect(200);
    terminal
        .post("/terminal/press?terminal_id=1", json!({ "key": "enter" }))
        .await
        .expect(200);
    assert_eq!(
        wait("2-pasted").await.expect(200).json()["status"],
        "matched"
    );

    let found = terminal
        .get("/terminal/find?terminal_id=1&pattern=%5Cd%2B-TYPED&case_insensitive=true")
        .await;
    assert_eq!(found.expect(200).json()["hits"][0]["text"], "42-typed");
    let snapshot = terminal
        .get("/terminal/snapshot?terminal_id=1&include_colors=true")
        .await
        .expect(200)
        .json();
    let lines = snapshot["lines"].as_array().expect("lines");
    assert!(
        lines.len() == 24 && lines.iter().any(|line| line == "2-pasted"),
        "{snapshot}"
    );
    let state = terminal
        .get("/terminal/1/automation")
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&state["cols"], &state["alternate_screen"]),
        (&json!(80), &json!(false))
    );
    assert_eq!(
        terminal
            .get("/terminal/automation/metrics")
            .await
            .expect(200)
            .json()["sessions"],
        1
    );
    let keys = terminal.get("/terminal/keys").await.expect(200).json();
    assert!(
        keys["keys"]
            .as_array()
            .is_some_and(|keys| keys.contains(&json!("enter")))
    );

    for (path, body, code) in [
        ("press", json!({ "keys": ["hyperspace"] }), "UNKNOWN_KEY"),
        ("press", json!({}), "VALIDATION_ERROR"),
        ("write", json!({}), "VALIDATION_ERROR"),
        ("mouse", json!({}), "VALIDATION_ERROR"),
        (
            "wait",
            json!({ "mode": "regex", "pattern": "(" }),
            "INVALID_PATTERN",
        ),
    ] {
        refused(
            terminal
                .post(&format!("/terminal/{path}?terminal_id=1"), body)
                .await,
            400,
            code,
        );
    }
    refused(
        terminal.get("/terminal/snapshot?terminal_id=9").await,
        404,
        "SESSION_NOT_FOUND",
    );
    let never = json!({ "mode": "regex", "pattern": "NEVER", "timeout_ms": 50 });
    assert_eq!(
        terminal
            .post("/terminal/wait?terminal_id=1", never)
            .await
            .json()["status"],
        "timeout"
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_screen_program_gets_the_mouse() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    terminal
        .post(
            "/terminal/create",
            json!({ "terminal_id": "1", "shell": "bash" }),
        )
        .await
        .expect(200);
    let click = json!({ "event": { "type": "down", "row": 2, "col": 3 } });
    refused(
        terminal
            .post("/terminal/mouse?terminal_id=1", click.clone())
            .await,
        409,
        "NO_MOUSE",
    );
    let program = r"printf '\033[?1049h\033[?1000h\033[?1006hFULL'; read -rsn 9 mouse; printf '\033[?1049l'; echo ${mouse@Q}";
    let asked = json!({ "command": program, "wait": false, "id": "full" });
    terminal
        .post("/terminal/execute?terminal_id=1", asked)
        .await
        .expect(200);
    let full = json!({ "mode": "regex", "pattern": "FULL", "timeout_ms": 15000 });
    let waited = terminal
        .post("/terminal/wait?terminal_id=1", full)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&waited["status"], &waited["snapshot"]["alternate_screen"]),
        (&json!("matched"), &json!(true)),
        "{waited}"
    );
    terminal
        .post("/terminal/mouse?terminal_id=1", click)
        .await
        .expect(200);
    let result = terminal.result("full").await;
    assert!(
        result["stdout"]
            .as_str()
            .is_some_and(|out| out.ends_with("$'\\E[<0;4;3M'\n")),
        "{result}"
    );
    terminal
        .call(Method::DELETE, "/terminal/1", None)
        .await
        .expect(200);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screen_is_a_picture_in_three_formats() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    let wish = json!({ "terminal_id": "1", "shell": "bash", "cols": 40, "rows": 10 });
    terminal.post("/terminal/create", wish).await.expect(200);
    let shown = json!({ "command": "printf '\\e[1;31mred\\e[0m \u{6f22}\u{5b57}\\n'" });
    terminal
        .post("/terminal/execute?terminal_id=1", shown)
        .await
        .expect(200);
    let mut places = Vec::new();
    for (format, content_type, magic) in [
        ("png", "image/png", &b"\x89PNG\r\n\x1a\n"[..]),
        ("jpeg", "image/jpeg", b"\xff\xd8\xff"),
        ("jpg", "image/jpeg", b"\xff\xd8\xff"),
        ("gif", "image/gif", b"GIF89a"),
    ] {
        let picture = terminal
            .get(&format!(
                "/terminal/screenshot?terminal_id=1&format={format}&fontsize=16"
            ))
            .await
            .expect(200);
        assert_eq!(picture.header("content-type"), content_type);
        assert!(picture.bytes.starts_with(magic), "{format}");
        places.push(picture.header("x-saved-as").to_owned());
        let kept = terminal
            .run(&format!("wc -c <'{}'", places[places.len() - 1]))
            .await;
        assert_eq!(kept["stdout"], format!("{}\n", picture.bytes.len()));
    }
    let colours = "foreground=%23112233&background=200,200,200&save=false";
    let picture = terminal
        .get(&format!("/terminal/screenshot?terminal_id=1&{colours}"))
        .await
        .expect(200);
    assert_eq!(picture.header("x-saved-as"), "");
    for (query, code) in [
        ("format=bmp", "VALIDATION_ERROR"),
        ("fontsize=5", ""),
        ("fontsize=1000", ""),
        ("foreground=plaid", ""),
    ] {
        let refusal = terminal
            .get(&format!("/terminal/screenshot?terminal_id=1&{query}"))
            .await;
        assert_eq!(refusal.status, 400, "{query}: {}", refusal.text());
        assert!(code.is_empty() || refusal.json()["code"] == code, "{query}");
    }
    refused(
        terminal.get("/terminal/screenshot?terminal_id=2").await,
        404,
        "SESSION_NOT_FOUND",
    );
    rig.stop().await;
}
