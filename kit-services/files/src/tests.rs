//! The service at its boundary: requests to its router, and what they did to a directory.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::{Config, Files, api};

mod archives;
mod changes;
mod dav;
mod jail;
mod reading;
mod remote;
mod searching;
mod transfer;

/// A service whose root is a directory of its own, beside one that must stay as it is.
struct Rig {
    dir: TempDir,
    router: Router,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    #[track_caller]
    fn is(self, status: u16) -> Answer {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
    #[track_caller]
    fn refused(self, status: u16) -> String {
        let answer = self.is(status);
        let body = answer.json();
        assert_eq!(body["success"], false);
        body["error"].as_str().unwrap().to_owned()
    }
}

impl Rig {
    fn new() -> Rig {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        let root = dir.path().join("root");
        let router = serve(&root);
        Rig { dir, router }
    }

    /// The real path of a path of the service.
    fn at(&self, path: &str) -> PathBuf {
        self.dir
            .path()
            .join("root")
            .join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), content).unwrap();
    }

    fn read(&self, path: &str) -> String {
        String::from_utf8(fs::read(self.at(path)).unwrap()).unwrap()
    }

    async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        send(&self.router, method, url, headers, body).await
    }

    async fn call(&self, method: &str, url: &str) -> Answer {
        self.send(method, url, &[], Body::empty()).await
    }

    async fn get(&self, url: &str) -> Answer {
        self.call("GET", url).await
    }

    async fn put(&self, url: &str, body: impl Into<Body>) -> Answer {
        self.send("PUT", url, &[], body).await
    }

    /// Nothing outside the root was touched.
    fn intact(&self) {
        let outside = self.dir.path().join("outside");
        let names: Vec<_> = fs::read_dir(&outside)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(
            fs::read_to_string(outside.join("secret")).unwrap(),
            "secret"
        );
    }

    /// No unfinished file was left behind.
    fn clean(&self) {
        fn look(dir: &Path) {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                assert!(
                    !entry.file_name().as_bytes().starts_with(b".hoody-"),
                    "{:?}",
                    entry.path()
                );
                if entry.file_type().unwrap().is_dir() {
                    look(&entry.path());
                }
            }
        }
        look(&self.at("/"));
    }
}

fn serve(root: &Path) -> Router {
    let config = Config {
        root: root.to_owned(),
        home: root.join("home/user"),
        remote: crate::remote::Config {
            state: root.join(".state/files"),
            mounts: root.join("hoody/mounts"),
            jailed: true,
            home: root.join("home/user"),
        },
        page: Some(page),
    };
    api(&Files::new(config)).router()
}

fn page() -> axum::response::Response {
    axum::response::IntoResponse::into_response(axum::response::Html("the page"))
}

async fn send(
    router: &Router,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Answer {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router
        .clone()
        .oneshot(request.body(body.into()).unwrap())
        .await
        .unwrap();
    let (parts, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

/// A body of so many bytes whose every 4 KiB differ, in chunks that never align.
fn stream(bytes: u64) -> Body {
    const CHUNK: u64 = 60_001;
    let chunks = futures::stream::iter(0..bytes.div_ceil(CHUNK)).map(move |i| {
        let (from, to) = (i * CHUNK, ((i + 1) * CHUNK).min(bytes));
        Ok::<_, std::io::Error>(Bytes::from((from..to).map(byte).collect::<Vec<u8>>()))
    });
    Body::from_stream(chunks)
}

fn byte(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 12).wrapping_mul(31)) as u8
}

/// A body that breaks off after its first bytes.
fn broken(first: &'static str) -> Body {
    Body::from_stream(futures::stream::iter([
        Ok(Bytes::from(first)),
        Err(std::io::Error::other("gone")),
    ]))
}

fn is_root() -> bool {
    crate::jail::privileged()
}

fn peak_rss() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
