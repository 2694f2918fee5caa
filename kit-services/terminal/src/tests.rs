//! The service as its callers see it: real shells, real pseudo-terminals, real sockets.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{Config, Terminal};

mod automation;
mod execute;
mod hostile;
mod sessions;
mod socket;

/// A service with a state directory of its own.
pub struct Rig {
    pub terminal: Terminal,
    pub state: tempfile::TempDir,
    router: Router,
}

/// Long enough for a loaded machine; nothing should take it.
pub const PATIENCE: Duration = Duration::from_secs(60);

impl Rig {
    pub fn start() -> Rig {
        Rig::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Rig {
        let state = tempfile::tempdir().unwrap();
        // Other users' shells pass through it.
        std::fs::set_permissions(state.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        // Start-up files of whoever runs the tests are none of theirs.
        let home = state.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let mut config = Config {
            default_shell: Some("/bin/bash".into()),
            home: Some(home),
            state: state.path().join("terminal"),
            drops: state.path().join("drops"),
            pictures: state.path().join("screenshots"),
            power: None,
            ..Config::default()
        };
        change(&mut config);
        let terminal = Terminal::new(config);
        let router = crate::api(&terminal).router();
        Rig {
            terminal,
            state,
            router,
        }
    }

    pub fn router(&self) -> Router {
        self.router.clone()
    }

    pub async fn request(&self, method: &str, path: &str, body: Value) -> (StatusCode, Vec<u8>) {
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        let answer = async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status();
            (
                status,
                response
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
                    .to_vec(),
            )
        };
        tokio::time::timeout(PATIENCE, answer)
            .await
            .unwrap_or_else(|_| panic!("no answer to {method} {path}"))
    }

    pub async fn ask(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let (status, bytes) = self.request(method, path, body).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::String(text)),
        )
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, reply) = self.ask("POST", path, body).await;
        assert_eq!(status, 200, "POST {path}: {reply}");
        reply
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, reply) = self.ask("GET", path, Value::Null).await;
        assert_eq!(status, 200, "GET {path}: {reply}");
        reply
    }

    /// Run a command in terminal `id` and wait for it.
    pub async fn run(&self, id: u16, command: &str) -> Value {
        self.post(
            &format!("/api/v1/terminal/execute?terminal_id={id}"),
            json!({ "command": command }),
        )
        .await
    }

    /// Run a command in a shell of its own and wait for it.
    pub async fn once(&self, command: &str) -> Value {
        self.post(
            "/api/v1/terminal/execute?ephemeral=true",
            json!({ "command": command }),
        )
        .await
    }

    /// Poll for the result of a command until it has ended.
    pub async fn result(&self, command: &Value) -> Value {
        let id = command["command_id"].as_str().unwrap();
        eventually(async || {
            let result = self.get(&format!("/api/v1/terminal/result/{id}")).await;
            let status = result["status"].as_str().unwrap().to_owned();
            matches!(status.as_str(), "completed" | "failed" | "timed_out").then_some(result)
        })
        .await
    }
}

/// Ask again until there is an answer.
#[track_caller]
pub fn eventually<T>(ask: impl AsyncFn() -> Option<T>) -> impl Future<Output = T> {
    let asked = std::panic::Location::caller();
    let asking = async move {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    async move {
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| panic!("it did not come about: {asked}"))
    }
}

/// Check what a command wrote to both streams and how it ended.
#[track_caller]
pub fn check(result: &Value, stdout: &str, stderr: &str, code: i32) {
    assert_eq!(result["stdout"], stdout, "{result}");
    assert_eq!(result["stderr"], stderr, "{result}");
    assert_eq!(result["exit_code"], code, "{result}");
    assert_eq!(result["status"], "completed", "{result}");
}

/// Whether a process is there.
pub fn is_alive(pid: i64) -> bool {
    crate::system::processes::Stat::of(i32::try_from(pid).unwrap())
        .is_some_and(|stat| !stat.is_zombie())
}
