//! The service at its boundary: requests to its router, and what they did to files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::{Config, Sqlite, api};

mod attacks;
mod crashes;
mod databases;
mod hrana;
mod kv;
mod transactions;
mod transfer;

/// A service with a directory of its own.
pub struct Rig {
    pub dir: TempDir,
    pub sqlite: Sqlite,
    pub router: Router,
}

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    #[track_caller]
    pub fn is(self, status: u16) -> Answer {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
    /// A failure with this status and code, and its sentence.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> String {
        let answer = self.is(status);
        let body = answer.json();
        assert_eq!(body["code"], code, "{body}");
        body["error"].as_str().unwrap().to_owned()
    }
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Rig {
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(&root).unwrap();
        let mut config = Config::new(root, dir.path().join("state"));
        change(&mut config);
        let sqlite = Sqlite::new(config);
        let router = api(&sqlite).router();
        Rig {
            dir,
            sqlite,
            router,
        }
    }

    /// Where databases are.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("root/hoody/databases").join(name)
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/sqlite{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.send("POST", path, &json, body.to_string()).await
    }

    pub async fn make(&self, name: &str) {
        self.post(&format!("/db/create?path={name}"), json!({}))
            .await
            .is(200);
    }

    /// Run items on the database `app`.
    pub async fn run(&self, items: Value) -> Answer {
        let path = "/db?db=app&create_db_if_missing=true";
        self.post(path, json!({ "transaction": items })).await
    }

    /// Run one statement that has to work.
    pub async fn does(&self, sql: &str) {
        self.run(json!([{ "statement": sql }])).await.is(200);
    }

    /// The rows of a query on the database `app`, as lists.
    pub async fn rows(&self, sql: &str) -> Value {
        let body = json!({ "resultFormat": "list", "transaction": [{ "query": sql }] });
        let answer = self.post("/db?db=app", body).await.is(200).json();
        answer["results"][0]["resultSetList"].clone()
    }

    /// A shareable query.
    pub async fn query(&self, sql: &str) -> Answer {
        let sql = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sql);
        self.get(&format!("/query?db=app&sql={sql}")).await
    }
}

/// The table of attacks and stories that need one.
pub async fn with_table(rig: &Rig) {
    rig.does("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
        .await;
    rig.does("INSERT INTO t (name) VALUES ('a'), ('b'), ('c')")
        .await;
}

pub fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
