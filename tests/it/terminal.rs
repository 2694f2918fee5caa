//! Commands and sessions.

use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::{Answer, Container};

use crate::wire::{each, refused, text};

/// The terminal service of a container, for stories.
pub struct Terminal<'a> {
    pub rig: &'a Rig,
    pub container: Container,
}

impl<'a> Terminal<'a> {
    pub async fn of(rig: &'a Rig) -> Terminal<'a> {
        Terminal {
            rig,
            container: rig.create("web").await,
        }
    }

    /// Call `/api/v1{path}`.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let path = format!("/api/v1{path}");
        let shape = |request: reqwest::RequestBuilder| match &body {
            Some(body) => request.json(body),
            None => request,
        };
        self.rig
            .kit(&self.container, "terminal", method, &path, shape)
            .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Run a command on its own and wait for its end.
    pub async fn run(&self, command: &str) -> Value {
        self.post(
            "/terminal/execute?ephemeral=true",
            json!({ "command": command }),
        )
        .await
        .expect(200)
        .json()
    }

    /// Poll for the result of a command until it is finished.
    pub async fn result(&self, id: &str) -> Value {
        let path = format!("/terminal/result/{id}");
        let finished = |result: &Value| {
            !["pending", "queued", "running"]
                .map(Value::from)
                .contains(&result["status"])
        };
        self.rig
            .until("the command is finished", || async {
                finished(&self.get(&path).await.expect(200).json())
            })
            .await;
        self.get(&path).await.json()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_waited_for_polled_for_and_aborted() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    let ran = terminal.run("echo out; echo err >&2; exit 3").await;
    assert_eq!(
        (&ran["stdout"], &ran["stderr"], &ran["exit_code"]),
        (&json!("out\n"), &json!("err\n"), &json!(3))
    );

    // one terminal is one shell: what a command leaves is there for the next
    let there = "/terminal/execute?terminal_id=5";
    terminal
        .post(there, json!({ "command": "cd /; KEPT=yes" }))
        .await
        .expect(200);
    let asked = terminal
        .post(
            there,
            json!({ "command": "pwd; echo $KEPT", "wait": false }),
        )
        .await
        .expect(200)
        .json();
    let result = terminal.result(&text(&asked["command_id"])).await;
    assert_eq!(
        (&result["stdout"], &result["status"]),
        (&json!("/\nyes\n"), &json!("completed"))
    );

    let long = json!({ "command": "sleep 100", "wait": false, "id": "long" });
    terminal.post(there, long.clone()).await.expect(200);
    refused(terminal.post(there, long).await, 409, "COMMAND_ID_IN_USE");
    rig.until("it runs", || async {
        terminal.get("/terminal/result/long").await.json()["status"] == "running"
    })
    .await;
    let aborted = terminal
        .post("/terminal/execute/long/abort", json!({ "force": true }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&aborted["status"], &aborted["aborted"]),
        (&json!("failed"), &json!(true)),
        "{aborted}"
    );
    let again = terminal
        .post("/terminal/execute/long/abort", json!({}))
        .await
        .expect(409)
        .json();
    assert_eq!(
        (&again["command_id"], &again["aborted"]),
        (&json!("long"), &json!(true))
    );

    let late = json!({ "command": "sleep 100", "timeout": 1 });
    let late = terminal
        .post("/terminal/execute?ephemeral=true", late)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&late["status"], &late["timed_out"]),
        (&json!("timed_out"), &json!(true)),
        "{late}"
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_made_found_read_and_deleted() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    let wish = json!({ "terminal_id": "7", "cwd": "/tmp", "shell": "bash", "cols": 100, "rows": 30, "env": { "COLOUR": "blue" } });
    let made = terminal
        .post("/terminal/create", wish.clone())
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&made["terminal_id"], &made["created"]),
        (&json!("7"), &json!(true))
    );
    assert_eq!(
        terminal
            .post("/terminal/create", wish)
            .await
            .expect(200)
            .json()["created"],
        false
    );
    let chosen = terminal
        .post("/terminal/create", json!({ "ephemeral": true }))
        .await
        .expect(200)
        .json();
    assert!(
        text(&chosen["terminal_id"])
            .parse::<u16>()
            .is_ok_and(|id| id >= 40_000),
        "{chosen}"
    );

    let command = json!({ "command": "echo $COLOUR-$((40 + 2)) $PWD; echo '<b>'" });
    let ran = terminal
        .post("/terminal/execute?terminal_id=7", command)
        .await
        .expect(200)
        .json();
    assert_eq!(ran["stdout"], "blue-42 /tmp\n<b>\n");
    let sessions = terminal.get("/terminal/sessions").await.expect(200).json();
    let seven = sessions
        .as_array()
        .expect("a list")
        .iter()
        .find(|session| session["terminal_id"] == "7");
    let seven = seven.expect("it is listed");
    assert_eq!(
        (&seven["cols"], &seven["rows"], &seven["cwd"]),
        (&json!(100), &json!(30), &json!("/tmp"))
    );
    let history = terminal.get("/terminal/history/7").await.expect(200).json();
    assert_eq!(
        (&history["total"], each(&history["history"], "exit_code")),
        (&json!(1), vec![json!(0)])
    );

    terminal
        .post(
            "/terminal/write?terminal_id=7",
            json!({ "input": "echo SH''OWN" }),
        )
        .await
        .expect(200);
    let shown = json!({ "mode": "regex", "pattern": "SHOWN", "timeout_ms": 15000 });
    assert_eq!(
        terminal
            .post("/terminal/wait?terminal_id=7", shown)
            .await
            .json()["status"],
        "matched"
    );
    for (format, content_type) in [
        ("download", "application/octet-stream"),
        ("text", "text/plain; charset=utf-8"),
        ("html", "text/html; charset=utf-8"),
    ] {
        let raw = terminal
            .get(&format!("/terminal/raw?terminal_id=7&format={format}"))
            .await
            .expect(200);
        assert_eq!(raw.header("content-type"), content_type);
        assert!(raw.text().contains("SHOWN"), "{format}: {}", raw.text());
    }
    let page = terminal
        .get("/terminal/raw?terminal_id=7&format=html")
        .await;
    assert!(!page.text().contains("<b>"), "output is no markup");

    terminal
        .call(Method::DELETE, "/terminal/7", None)
        .await
        .expect(200);
    for path in [
        "/terminal/history/7",
        "/terminal/raw?terminal_id=7",
        "/terminal/7/automation",
    ] {
        refused(terminal.get(path).await, 404, "SESSION_NOT_FOUND");
    }
    refused(
        terminal.call(Method::DELETE, "/terminal/7", None).await,
        404,
        "SESSION_NOT_FOUND",
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_the_page_answers() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    for id in ["70000", "-1", "seven", "1;reboot"] {
        let body = json!({ "command": "true" });
        refused(
            terminal
                .post(&format!("/terminal/execute?terminal_id={id}"), body)
                .await,
            400,
            "INVALID_TERMINAL_ID",
        );
        refused(
            terminal
                .call(Method::DELETE, &format!("/terminal/{id}"), None)
                .await,
            400,
            "INVALID_TERMINAL_ID",
        );
    }
    let execute = "/terminal/execute?ephemeral=true";
    refused(
        terminal.post(execute, json!({ "command": ["true"] })).await,
        400,
        "VALIDATION_ERROR",
    );
    refused(
        terminal
            .post(execute, json!({ "command": "true", "wait": "perhaps" }))
            .await,
        400,
        "VALIDATION_ERROR",
    );
    refused(
        terminal
            .post(
                &format!("{execute}&user=nobody-here"),
                json!({ "command": "true" }),
            )
            .await,
        400,
        "UNKNOWN_USER",
    );
    refused(
        terminal
            .post(
                &format!("{execute}&ssh_host=elsewhere"),
                json!({ "command": "true" }),
            )
            .await,
        400,
        "INVALID_SSH",
    );
    refused(
        terminal.get("/terminal/result/never").await,
        404,
        "COMMAND_NOT_FOUND",
    );
    refused(
        terminal
            .post("/terminal/execute/never/abort", json!({}))
            .await,
        404,
        "COMMAND_NOT_FOUND",
    );
    assert_eq!(
        terminal.get("/terminal/sessions").await.json(),
        json!([]),
        "nothing was started"
    );

    let page = rig
        .kit(
            &terminal.container,
            "terminal",
            Method::GET,
            "/",
            |request| request,
        )
        .await
        .expect(200);
    assert!(page.text().contains("<html"), "{}", page.text());
    assert!(
        page.header("content-security-policy")
            .contains("script-src 'self'")
    );
    rig.stop().await;
}
