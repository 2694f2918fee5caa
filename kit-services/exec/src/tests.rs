//! The service as a whole, with the real runtime.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{Config, Exec, api};

mod ai;
mod hostile;
mod running;
mod sockets;

/// Where `hoody/setup/deno.sh` puts the runtime.
pub fn runtime() -> PathBuf {
    let cache = std::env::var("HOODY_CACHE").unwrap_or_else(|_| {
        let home = std::env::var("HOME").expect("a home");
        format!("{home}/.cache/hoody")
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hoody/setup/deno.sh");
    let found = std::process::Command::new(script)
        .args(["--cache", &format!("{cache}/tools"), "--print"])
        .output()
        .expect("the script runs");
    let path = PathBuf::from(String::from_utf8(found.stdout).expect("a path").trim());
    assert!(
        path.join("deno").exists(),
        "no runtime in {}; run hoody/setup/deno.sh --cache {cache}/tools",
        path.display()
    );
    path
}

/// A service with a directory of its own.
pub struct Bench {
    _exec: Exec,
    pub router: Router,
    pub home: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text))
    }
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Bench {
        let home = tempfile::Builder::new()
            .prefix("exec")
            .tempdir()
            .expect("a directory");
        let at = |name: &str| home.path().join(name);
        let mut config = Config {
            scripts: at("scripts"),
            logs: at("logs"),
            cache: at("cache"),
            run: at("run"),
            state: at("state"),
            runtime: runtime(),
            user: None,
            home: home.path().to_owned(),
            environment: std::collections::BTreeMap::new(),
            page: None,
        };
        change(&mut config);
        let exec = Exec::new(config);
        let router = api(&exec).router();
        Bench {
            _exec: exec,
            router,
            home,
        }
    }

    /// Put a script where the host `exec-1` finds it.
    pub fn put(&self, path: &str, text: &str) {
        let path = self.home.path().join("scripts/default/1").join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("it is written");
    }

    pub async fn respond(&self, request: Request<Body>) -> Response<Body> {
        self.router
            .clone()
            .oneshot(request)
            .await
            .expect("it answers")
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.respond(request).await.into_parts();
        let bytes = to_bytes(body, 64 << 20).await.map_or_else(
            |error| format!("(broken: {error})").into_bytes(),
            |bytes| bytes.to_vec(),
        );
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        self.send(request).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .expect("a request");
        self.send(request).await
    }

    /// Wait until something is so.
    pub async fn until(&self, what: &str, so: impl AsyncFn() -> bool) {
        for _ in 0..200 {
            if so().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what}: not within ten seconds");
    }

    /// What a log has.
    pub async fn log(&self, file: &str) -> String {
        let read = json!({ "file": file, "lines": 10_000 });
        let answer = self.post("/api/v1/exec/logs/read", read).await;
        answer.json()["lines"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}
