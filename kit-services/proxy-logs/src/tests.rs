//! The service as its readers see it, over a store in a directory of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use futures::{FutureExt, StreamExt};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::entry::{Head, id_of};
use crate::segment::{self, LINE_BYTES, Lines};
use crate::{Capture, Draft, Event, Exchange, Key, Kind, Level, Limits, Logs, Scope};

const ONE: Key = Key([1; 12]);
const TWO: Key = Key([2; 12]);
const PROJECT: Key = Key([9; 12]);

fn scope(container: Key) -> Scope {
    Scope {
        project: PROJECT,
        container,
    }
}

/// A node's logs.
struct Rig {
    directory: TempDir,
    logs: Logs,
    /// A container of this id and above does not exist.
    gone: Arc<AtomicU8>,
}

impl Rig {
    fn new() -> Rig {
        Rig::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Limits)) -> Rig {
        let mut limits = Limits::default();
        change(&mut limits);
        let directory = tempfile::tempdir().expect("a directory");
        let gone = Arc::new(AtomicU8::new(u8::MAX));
        let logs = Rig::logs(directory.path(), limits, &gone);
        Rig {
            directory,
            logs,
            gone,
        }
    }

    fn logs(directory: &Path, limits: Limits, gone: &Arc<AtomicU8>) -> Logs {
        let gone = gone.clone();
        Logs::new(directory.to_owned(), limits, move |container| {
            container.0[0] < gone.load(Ordering::SeqCst)
        })
    }

    /// Another process takes over.
    fn restart(&mut self) {
        let limits = self.logs.store().limits().clone();
        self.logs = Rig::logs(self.directory.path(), limits, &self.gone);
    }

    fn write(&self, container: Key, target: &str, status: u16) {
        let store = self.logs.store();
        self.drafted(target, status, |draft| {
            store.append(scope(container), draft)
        });
    }

    fn drafted<T>(&self, target: &str, status: u16, then: impl FnOnce(&Draft<'_>) -> T) -> T {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "test".parse().expect("a value"));
        headers.insert("cookie", "a=secret".parse().expect("a value"));
        let text = Capture::of(target.as_bytes(), &headers);
        let target_told = crate::redact::redact(&text.target(), &[]);
        let trace = self.logs.store().trace();
        let method = if target.contains("post") {
            "POST"
        } else {
            "GET"
        };
        let draft = Draft {
            ts_ms: 1_700_000_000_000,
            ts_iso: "2023-11-14T22:13:20Z",
            trace: &trace,
            kind: Kind::Request,
            level: Level::of(status),
            service: if target.contains("port") {
                "http-3000"
            } else {
                "terminal"
            },
            exchange: Some(Exchange {
                method,
                url: &["http://host", &target_told],
                client: "127.0.0.1",
                status: Some(status),
                index: Some(1),
                scheme: "http",
                http: "1.1",
                duration: Some(Duration::from_micros(1_500)),
                upstream: None,
                bytes_in: 0,
                bytes_out: 12,
                refusal: None,
                fault: None,
                websocket: false,
                text: &text,
            }),
            event: None,
        };
        then(&draft)
    }

    /// Requests for `/0`, `/1` …
    fn fill(&self, container: Key, count: usize) {
        for number in 0..count {
            self.write(container, &format!("/{number}"), 200);
        }
        self.logs.store().flush();
    }

    async fn ask(&self, container: Key, method: &str, path: &str) -> Heard {
        let request = Request::builder().method(method).uri(path);
        self.send(container, request).await
    }

    async fn send(&self, container: Key, request: http::request::Builder) -> Heard {
        let mut request = request.body(Body::empty()).expect("a request");
        request.extensions_mut().insert(scope(container));
        let answer = self.logs.router().oneshot(request).await;
        let (head, body) = answer.expect("it answers").into_parts();
        Heard {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.expect("a body").to_bytes().to_vec(),
        }
    }

    async fn get(&self, container: Key, path: &str) -> Value {
        let heard = self.ask(container, "GET", path).await;
        assert_eq!(heard.status, StatusCode::OK, "{path}: {}", heard.json());
        heard.json()
    }

    /// The paths of the entries that a query lists.
    async fn paths(&self, container: Key, query: &str) -> Vec<String> {
        let listed = self.get(container, &format!("/_logs{query}")).await;
        let entries = listed.get("entries").unwrap_or(&listed);
        let entries = entries.as_array().expect("entries");
        entries
            .iter()
            .map(|entry| {
                entry["url"]
                    .as_str()
                    .unwrap_or("-")
                    .replace("http://host", "")
            })
            .collect()
    }

    async fn follow(&self, container: Key, query: &str, after: Option<&str>) -> Tail {
        let mut request = Request::get(format!("/_logs/stream{query}"));
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let mut request = request.body(Body::empty()).expect("a request");
        request.extensions_mut().insert(scope(container));
        let answer = self
            .logs
            .router()
            .oneshot(request)
            .await
            .expect("it answers");
        assert_eq!(answer.status(), StatusCode::OK);
        let kind = answer.headers()["content-type"].to_str().expect("text");
        assert_eq!(kind, "text/event-stream");
        let mut tail = Tail {
            body: answer.into_body().into_data_stream(),
            text: String::new(),
        };
        assert_eq!(tail.next().await, ["retry: 2000", ": connected"]);
        tail
    }

    fn files(&self, container: Key) -> Vec<PathBuf> {
        let directory = self.directory.path().join(container.to_string());
        let segments = segment::list(&directory).expect("it can be listed");
        segments.into_iter().map(|segment| segment.path).collect()
    }
}

struct Heard {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// A stream, frame by frame.
struct Tail {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Tail {
    /// The lines of the next frame; none at the end.
    async fn next(&mut self) -> Vec<String> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let lines = frame.lines().map(str::to_owned).collect();
                self.text = rest.to_owned();
                return lines;
            }
            let part = tokio::time::timeout(Duration::from_secs(10), self.body.next());
            match part.await.expect("something comes") {
                Some(part) => self
                    .text
                    .push_str(std::str::from_utf8(&part.expect("a part")).expect("text")),
                None => return Vec::new(),
            }
        }
    }

    /// The next entry, by its path.
    async fn entry(&mut self) -> (u64, String) {
        let lines = self.next().await;
        let [id, data] = lines.as_slice() else {
            panic!("no entry: {lines:?}");
        };
        let entry: Value =
            serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        let id: u64 = id
            .strip_prefix("id: ")
            .expect("an id")
            .parse()
            .expect("a number");
        assert_eq!(entry["id"], id);
        let url = entry["url"].as_str().unwrap_or_default();
        (id, url.replace("http://host", ""))
    }

    /// The next event that is no entry, and what it says.
    async fn event(&mut self) -> (String, Value) {
        let lines = self.next().await;
        let find = |prefix: &str| {
            let found = lines.iter().find_map(|line| line.strip_prefix(prefix));
            found
                .unwrap_or_else(|| panic!("no {prefix} in {lines:?}"))
                .to_owned()
        };
        let data = serde_json::from_str(&find("data: ")).expect("JSON");
        (find("event: "), data)
    }
}

fn range(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| format!("/{number}")).collect()
}

// ---- reading

#[tokio::test]
async fn an_entry_reads_as_documented() {
    let rig = Rig::new();
    rig.write(ONE, "/a?b=1&token=secret", 404);
    let listed = rig.get(ONE, "/_logs").await;
    assert_eq!(
        (&listed["total"], &listed["limit"], &listed["offset"]),
        (&json!(1), &json!(200), &json!(0))
    );
    let mut entry = listed["entries"][0].clone();
    let trace = entry["traceId"].take();
    let trace = trace.as_str().expect("text");
    assert!(
        trace.len() == 32 && trace.bytes().all(|it| it.is_ascii_hexdigit()),
        "{trace}"
    );
    assert_eq!(
        entry,
        json!({
            "id": 1, "traceId": null, "tsMs": 1_700_000_000_000_u64, "tsIso": "2023-11-14T22:13:20Z",
            "kind": "request", "level": "warn", "projectId": PROJECT.to_string(),
            "containerId": ONE.to_string(), "serviceName": "terminal", "method": "GET",
            "url": "http://host/a?b=1&token=***", "clientIp": "127.0.0.1", "status": 404,
            "source": "edge",
            "data": {
                "index": 1, "scheme": "http", "http": "1.1", "durationMs": 1.5, "bytesIn": 0,
                "bytesOut": 12, "userAgent": "test",
                "headers": { "user-agent": "test", "cookie": "***" },
            },
        })
    );
    for file in rig.files(ONE) {
        let text = std::fs::read_to_string(file).expect("it can be read");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn entries_are_found_by_what_they_are() {
    let rig = Rig::new();
    for (target, status) in [
        ("/ok", 200),
        ("/post", 201),
        ("/port", 404),
        ("/BAD?x=y", 502),
    ] {
        rig.write(ONE, target, status);
    }
    let cases: &[(&str, &[&str])] = &[
        ("", &["/ok", "/post", "/port", "/BAD?x=y"]),
        ("?level=info", &["/ok", "/post"]),
        ("?level=warn,error", &["/port", "/BAD?x=y"]),
        ("?level=", &["/ok", "/post", "/port", "/BAD?x=y"]),
        ("?kind=request&method=post", &["/post"]),
        ("?kind=event", &[]),
        ("?source=edge&status=2xx", &["/ok", "/post"]),
        ("?source=backend", &[]),
        ("?status=404", &["/port"]),
        ("?serviceName=terminal", &["/ok", "/post", "/BAD?x=y"]),
        ("?serviceName=http-3000", &["/port"]),
        ("?serviceName=http", &["/port"]),
        ("?serviceName=ht", &[]),
        ("?search=bad", &["/BAD?x=y"]),
        ("?search=127.0.0.1&limit=1", &["/ok"]),
        ("?limit=2&offset=1", &["/post", "/port"]),
        ("?offset=9", &[]),
        ("?last=2", &["/port", "/BAD?x=y"]),
        ("?last=1&level=info", &["/post"]),
        ("?last=2&beforeId=3", &["/ok", "/post"]),
        ("?last=2&includeRequestBody=true", &["/port", "/BAD?x=y"]),
        ("?afterId=2", &["/port", "/BAD?x=y"]),
        ("?afterId=2&limit=1", &["/port"]),
        ("?afterId=0&includeResponseBody=true&limit=1", &["/ok"]),
    ];
    for (query, expected) in cases {
        assert_eq!(rig.paths(ONE, query).await, *expected, "{query}");
    }
}

#[tokio::test]
async fn the_shape_of_a_list_is_what_its_parameters_ask_for() {
    let rig = Rig::new();
    rig.fill(ONE, 3);
    for (query, bare) in [
        ("", false),
        ("?limit=1", false),
        ("?last=1", true),
        ("?afterId=0", true),
        ("?last=1&includeRequestBody=true", false),
        ("?afterId=0&includeResponseBody=true", false),
        ("?last=1&includeResponseBody=false", true),
    ] {
        let listed = rig.get(ONE, &format!("/_logs{query}")).await;
        assert_eq!(listed.is_array(), bare, "{query}");
    }
    let end = rig.get(ONE, "/_logs?last=1&includeRequestBody=true").await;
    assert_eq!((&end["total"], &end["offset"]), (&json!(3), &json!(2)));
    let most = rig.get(ONE, "/_logs?limit=100000").await;
    assert_eq!(most["limit"], 1_000);
}

#[tokio::test]
async fn a_cursor_goes_on_where_its_page_ended() {
    let rig = Rig::new();
    rig.fill(ONE, 5);
    let mut seen = Vec::new();
    let mut path = "/_logs?limit=2".to_owned();
    loop {
        let page = rig.get(ONE, &path).await;
        for entry in page["entries"].as_array().expect("entries") {
            seen.push(
                entry["url"]
                    .as_str()
                    .expect("a url")
                    .replace("http://host", ""),
            );
        }
        let Some(cursor) = page["cursor"].as_str() else {
            break;
        };
        path = format!("/_logs?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, range(0, 5));
}

#[tokio::test]
async fn what_is_asked_wrongly_is_named() {
    let rig = Rig::new();
    for (path, field) in [
        ("/_logs?level=loud", "/level"),
        ("/_logs?kind=thing", "/kind"),
        ("/_logs?source=moon", "/source"),
        ("/_logs?status=6xx", "/status"),
        ("/_logs?status=abc", "/status"),
        ("/_logs?last=-1", "/last"),
        ("/_logs?limit=x", "/limit"),
        ("/_logs?afterId=x", "/afterId"),
        ("/_logs?cursor=%00", "/cursor"),
        ("/_logs/stream?level=loud", "/level"),
        ("/_logs/stream?kind=thing", "/kind"),
    ] {
        let heard = rig.ask(ONE, "GET", path).await;
        assert_eq!(heard.status, StatusCode::BAD_REQUEST, "{path}");
        let body = heard.json();
        assert_eq!(body["fields"][0]["instancePath"], field, "{path}: {body}");
        assert!(
            body["error"].is_string() && body["message"].is_string(),
            "{body}"
        );
    }
    assert_eq!(
        rig.ask(ONE, "PUT", "/_logs").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    for path in [
        "/_logs/config",
        "/_logs/export",
        "/_logs/db/x",
        "/elsewhere",
    ] {
        assert_eq!(
            rig.ask(ONE, "GET", path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn statistics_count_everything() {
    let rig = Rig::new();
    for (target, status) in [("/a", 200), ("/post", 404), ("/port", 500), ("/b", 204)] {
        rig.write(ONE, target, status);
    }
    rig.write(TWO, "/other", 200);
    assert_eq!(
        rig.get(ONE, "/_logs/stats").await,
        json!({
            "total": 4,
            "byLevel": { "info": 2, "warn": 1, "error": 1 },
            "byProject": { PROJECT.to_string(): 4 },
            "byContainer": { ONE.to_string(): 4 },
            "byService": { "terminal": 3, "http-3000": 1 },
            "byKind": { "request": 4 },
            "byMethod": { "GET": 3, "POST": 1 },
            "byStatus": { "2xx": 2, "4xx": 1, "5xx": 1 },
            "oldestMs": 1_700_000_000_000_u64, "newestMs": 1_700_000_000_000_u64,
        })
    );
}

#[tokio::test]
async fn nobody_reads_the_log_of_another() {
    let rig = Rig::new();
    rig.write(ONE, "/one", 200);
    rig.write(TWO, "/two", 200);
    let other = Key([8; 12]);
    for query in [
        format!("?containerId={ONE}"),
        format!("?containerId={ONE}&containerId="),
        format!("?projectId={other}"),
        format!("?projectId={PROJECT}&containerId={ONE}"),
        format!("?last=10&containerId={ONE}"),
        format!("?afterId=0&containerId={ONE}"),
        "?containerId=*".to_owned(),
    ] {
        assert_eq!(
            rig.paths(TWO, &query).await,
            Vec::<String>::new(),
            "{query}"
        );
    }
    let own = format!("?projectId={PROJECT}&containerId={TWO}&search=t");
    assert_eq!(rig.paths(TWO, &own).await, ["/two"]);
    assert_eq!(rig.get(TWO, "/_logs/stats").await["total"], 1);
    // A request that carries no scope reads nothing at all.
    let request = Request::get("/_logs")
        .body(Body::empty())
        .expect("a request");
    let answer = rig
        .logs
        .router()
        .oneshot(request)
        .await
        .expect("it answers");
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    // Nor does one that brings it along as a header or a parameter.
    let ask = Request::get(format!("/_logs?scope={ONE}"))
        .header("x-hoody-edge-container", ONE.to_string());
    assert_eq!(
        rig.send(TWO, ask).await.json()["entries"][0]["url"],
        "http://host/two"
    );
    // A stream of another is silent.
    let mut tail = rig
        .follow(TWO, &format!("?containerId={ONE}"), Some("0"))
        .await;
    rig.fill(ONE, 1);
    rig.fill(TWO, 1);
    assert!(tail.next().now_or_never().is_none());
}

#[tokio::test]
async fn reading_is_limited_for_each_container() {
    let rig = Rig::new();
    for _ in 0..30 {
        rig.get(ONE, "/_logs?last=1").await;
    }
    for path in ["/_logs", "/_logs/stats", "/_logs/stream"] {
        let heard = rig.ask(ONE, "GET", path).await;
        assert_eq!(heard.status, StatusCode::TOO_MANY_REQUESTS, "{path}");
        assert_eq!(heard.headers["retry-after"], "2");
        assert_eq!(
            (&heard.json()["error"], &heard.json()["code"]),
            (&json!("rate_limited"), &json!("rate_limited"))
        );
    }
    assert_eq!(
        rig.ask(ONE, "DELETE", "/_logs").await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "getLogStats" } });
    let mut request = Request::post("/mcp")
        .header("host", "h")
        .header("content-type", "application/json")
        .body(Body::from(call.to_string()))
        .expect("a request");
    request.extensions_mut().insert(scope(ONE));
    let answer = rig
        .logs
        .router()
        .oneshot(request)
        .await
        .expect("it answers");
    let body = answer
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{body:?}"));
    assert_eq!(
        body["result"]["structuredContent"]["code"], "rate_limited",
        "{body}"
    );
    rig.get(TWO, "/_logs").await;
}

#[tokio::test]
async fn an_entry_of_any_text_can_be_read_again() {
    let rig = Rig::new();
    // Each of these bytes is six in JSON.
    let target = format!("/{}", "\u{1}".repeat(20_000));
    rig.write(ONE, &target, 200);
    rig.write(ONE, "/\"}\n{\"id\":9,", 200);
    rig.logs.store().flush();
    let listed = rig.get(ONE, "/_logs").await;
    assert_eq!(listed["total"], 2);
    assert_eq!(rig.paths(ONE, "?last=1").await, ["/\"}\n{\"id\":9,"]);
}

// ---- keeping

#[tokio::test]
async fn what_is_not_in_memory_is_read_from_disk() {
    let rig = Rig::with(|limits| {
        limits.ring_entries = 10;
        limits.segment_bytes = 4 << 10;
    });
    for part in 0..10 {
        for number in part * 10..part * 10 + 10 {
            rig.write(ONE, &format!("/{number}"), 200);
        }
        rig.logs.store().flush();
    }
    assert!(rig.files(ONE).len() > 3);
    assert_eq!(rig.paths(ONE, "").await, range(0, 100));
    assert_eq!(rig.paths(ONE, "?offset=40&limit=20").await, range(40, 60));
    assert_eq!(rig.paths(ONE, "?last=5").await, range(95, 100));
    assert_eq!(rig.paths(ONE, "?last=50").await, range(50, 100));
    assert_eq!(rig.paths(ONE, "?last=2&search=/1").await, ["/18", "/19"]);
    assert_eq!(rig.paths(ONE, "?afterId=3&limit=3").await, range(3, 6));
    assert_eq!(rig.paths(ONE, "?afterId=95").await, range(95, 100));
    assert_eq!(rig.get(ONE, "/_logs/stats").await["total"], 100);
}

#[tokio::test]
async fn a_log_survives_its_process() {
    let mut rig = Rig::new();
    rig.fill(ONE, 3);
    let before = rig.get(ONE, "/_logs?last=1").await[0]["id"]
        .as_u64()
        .expect("an id");
    // Killed within a line.
    let file = rig.files(ONE).pop().expect("a file");
    let mut text = std::fs::read(&file).expect("it can be read");
    text.extend_from_slice(br#"{"id":4,"traceId":"torn","tsMs":17"#);
    std::fs::write(&file, text).expect("it can be written");
    rig.restart();
    assert_eq!(rig.paths(ONE, "").await, range(0, 3));
    rig.write(ONE, "/after", 200);
    rig.logs.store().flush();
    assert_eq!(rig.paths(ONE, "").await, ["/0", "/1", "/2", "/after"]);
    let after = rig.get(ONE, "/_logs?last=1").await[0]["id"]
        .as_u64()
        .expect("an id");
    // The id that the torn line may have had is not given twice.
    assert!(after > before + 1, "{before} {after}");
    assert_eq!(rig.files(ONE).len(), 2, "nothing is added to what is torn");
    rig.restart();
    assert_eq!(rig.paths(ONE, "").await, ["/0", "/1", "/2", "/after"]);
    assert_eq!(
        rig.paths(ONE, &format!("?afterId={before}")).await,
        ["/after"]
    );
}

#[tokio::test]
async fn a_log_is_bounded_on_disk() {
    let rig = Rig::with(|limits| {
        limits.ring_entries = 5;
        limits.segment_bytes = 4 << 10;
        limits.container_bytes = 16 << 10;
    });
    for number in 0..200 {
        rig.write(ONE, &format!("/{number}"), 200);
        rig.logs.store().flush();
    }
    let bytes: u64 = rig
        .files(ONE)
        .iter()
        .map(|file| std::fs::metadata(file).expect("it is there").len())
        .sum();
    assert!(bytes <= 16 << 10, "{bytes}");
    let paths = rig.paths(ONE, "").await;
    assert!(paths.len() > 10 && paths.len() < 200, "{}", paths.len());
    assert_eq!(paths, range(200 - paths.len(), 200), "the newest are kept");
}

#[tokio::test]
async fn the_largest_log_makes_room_for_all() {
    let rig = Rig::with(|limits| {
        limits.segment_bytes = 4 << 10;
        limits.disk_bytes = 40 << 10;
    });
    rig.fill(TWO, 5);
    for number in 0..200 {
        rig.write(ONE, &format!("/{number}"), 200);
        rig.logs.store().flush();
    }
    let size = |container| -> u64 {
        let files = rig.files(container);
        files
            .iter()
            .map(|file| std::fs::metadata(file).expect("it is there").len())
            .sum()
    };
    assert!(
        size(ONE) + size(TWO) <= 45 << 10,
        "{} {}",
        size(ONE),
        size(TWO)
    );
    assert_eq!(
        rig.paths(TWO, "").await,
        range(0, 5),
        "a small one loses nothing"
    );
}

#[tokio::test]
async fn what_is_old_is_removed() {
    let mut rig = Rig::new();
    rig.fill(ONE, 3);
    rig.fill(TWO, 3);
    let week = rig.logs.store().limits().age;
    rig.logs.store().sweep(SystemTime::now() + week / 2);
    assert_eq!(rig.files(ONE).len(), 1);
    rig.logs
        .store()
        .sweep(SystemTime::now() + week + Duration::from_secs(60));
    assert_eq!(rig.files(ONE), Vec::<PathBuf>::new());
    rig.write(ONE, "/new", 200);
    rig.logs.store().flush();
    rig.restart();
    // Of a log that is not in memory, too.
    rig.logs.store().sweep(SystemTime::now());
    assert_eq!(rig.paths(ONE, "").await, ["/new"]);
    rig.restart();
    rig.logs
        .store()
        .sweep(SystemTime::now() + week + Duration::from_secs(60));
    assert_eq!(rig.files(ONE), Vec::<PathBuf>::new());
    assert_eq!(rig.paths(ONE, "").await, Vec::<String>::new());
}

#[tokio::test]
async fn memory_is_bounded_for_all_containers() {
    let rig = Rig::with(|limits| {
        limits.held = 8;
        limits.memory_bytes = 64 << 10;
    });
    for round in 0..3 {
        for number in 1..=40 {
            rig.write(Key([number; 12]), &format!("/{round}"), 200);
        }
        let (containers, bytes) = rig.logs.store().in_memory();
        assert!(containers <= 9, "{containers}");
        assert!(bytes <= 64 << 10, "{bytes}");
    }
    // What was let go is read back, and its ids go on.
    for number in 1..=40 {
        let listed = rig.get(Key([number; 12]), "/_logs").await;
        let ids: Vec<_> = listed["entries"]
            .as_array()
            .expect("entries")
            .iter()
            .map(|it| it["id"].as_u64())
            .collect();
        assert_eq!(ids, [Some(1), Some(2), Some(3)], "{number}");
    }
    rig.fill(ONE, 1_000);
    let (_, bytes) = rig.logs.store().in_memory();
    assert!(bytes <= 64 << 10, "{bytes}");
    let total = rig.get(ONE, "/_logs?limit=1").await["total"].as_u64();
    assert_eq!(total, Some(1_003));
}

#[tokio::test]
async fn a_removed_container_leaves_nothing() {
    let rig = Rig::new();
    rig.fill(ONE, 3);
    rig.fill(TWO, 3);
    let mut tail = rig.follow(TWO, "", None).await;
    // It is unknown first, then removed; what still waits to be written comes after.
    rig.gone.store(2, Ordering::SeqCst);
    rig.write(TWO, "/late", 200);
    rig.logs.store().remove(TWO);
    rig.write(TWO, "/later", 200);
    rig.logs.store().flush();
    assert_eq!(tail.event().await.0, "scope-destroyed");
    assert!(tail.next().await.is_empty(), "the stream ends");
    assert!(!rig.directory.path().join(TWO.to_string()).exists());
    assert_eq!(
        rig.ask(TWO, "GET", "/_logs").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(rig.paths(ONE, "").await, range(0, 3));
    assert_eq!(rig.logs.store().in_memory().0, 1);
}

#[tokio::test]
async fn logs_of_unknown_containers_are_removed() {
    let mut rig = Rig::new();
    rig.fill(ONE, 1);
    rig.fill(TWO, 1);
    std::fs::write(rig.directory.path().join("README"), "not a log").expect("written");
    rig.restart();
    rig.gone.store(2, Ordering::SeqCst);
    rig.logs.store().retain_known();
    assert!(!rig.directory.path().join(TWO.to_string()).exists());
    assert!(rig.directory.path().join("README").exists());
    assert_eq!(rig.paths(ONE, "").await, range(0, 1));
}

#[tokio::test]
async fn a_cleared_log_says_so_and_goes_on() {
    let rig = Rig::new();
    rig.fill(ONE, 3);
    rig.fill(TWO, 3);
    let mut tail = rig.follow(ONE, "", None).await;
    let ask = Request::delete("/_logs").header("x-hoody-edge-client", "192.0.2.7");
    let heard = rig.send(ONE, ask).await;
    assert_eq!(
        (heard.status, heard.json()),
        (StatusCode::OK, json!({ "cleared": true }))
    );
    let listed = rig.get(ONE, "/_logs").await;
    assert_eq!(listed["total"], 1);
    let entry = &listed["entries"][0];
    assert_eq!((&entry["kind"], &entry["id"]), (&json!("event"), &json!(4)));
    assert_eq!(
        entry["data"],
        json!({ "event": "cleared", "message": "the log was cleared by 192.0.2.7" })
    );
    let (event, data) = tail.event().await;
    assert_eq!(
        (event.as_str(), &data["reason"]),
        ("reset", &json!("cleared"))
    );
    assert_eq!(tail.entry().await.0, 4);
    assert_eq!(rig.paths(TWO, "").await, range(0, 3));
    assert_eq!(rig.files(ONE).len(), 1);
}

#[tokio::test]
async fn a_disk_that_fails_loses_what_it_must_and_says_so() {
    let rig = Rig::new();
    // A file where the directory should be.
    let place = rig.directory.path().join(ONE.to_string());
    rig.fill(ONE, 1);
    std::fs::remove_dir_all(&place).expect("removed");
    std::fs::write(&place, "").expect("written");
    rig.write(ONE, "/unwritten", 200);
    rig.logs.store().flush();
    assert_eq!(rig.logs.store().lost(), 1);
    assert_eq!(
        rig.paths(ONE, "?last=1").await,
        ["/unwritten"],
        "memory has it"
    );
    std::fs::remove_file(&place).expect("removed");
    rig.write(ONE, "/written", 200);
    rig.logs.store().flush();
    assert_eq!(rig.logs.store().lost(), 1);
    assert_eq!(rig.paths(ONE, "?last=1").await, ["/written"]);
    assert_eq!(rig.files(ONE).len(), 1);
}

// ---- following

#[tokio::test]
async fn a_stream_brings_what_comes() {
    let rig = Rig::new();
    rig.fill(ONE, 2);
    let mut tail = rig.follow(ONE, "", None).await;
    let mut errors = rig
        .follow(ONE, "?level=warn,error&kind=request", None)
        .await;
    rig.write(ONE, "/new", 200);
    rig.write(ONE, "/bad", 500);
    rig.logs.store().flush();
    assert_eq!(tail.entry().await, (3, "/new".to_owned()));
    assert_eq!(tail.entry().await, (4, "/bad".to_owned()));
    assert_eq!(errors.entry().await, (4, "/bad".to_owned()));
    assert!(tail.next().now_or_never().is_none(), "nothing else comes");
}

#[tokio::test]
async fn a_stream_goes_on_where_its_reader_left() {
    let mut rig = Rig::new();
    rig.fill(ONE, 5);
    let mut tail = rig.follow(ONE, "", Some("3")).await;
    assert_eq!(tail.entry().await, (4, "/3".to_owned()));
    assert_eq!(tail.entry().await, (5, "/4".to_owned()));
    // After a restart it is read from disk.
    rig.restart();
    let mut tail = rig.follow(ONE, "", Some("4")).await;
    assert_eq!(tail.entry().await, (5, "/4".to_owned()));
    let mut tail = rig.follow(ONE, "", Some("0")).await;
    for number in 0..5 {
        assert_eq!(tail.entry().await.1, format!("/{number}"));
    }
    rig.write(ONE, "/now", 200);
    rig.logs.store().flush();
    assert_eq!(tail.entry().await.1, "/now");
}

#[tokio::test]
async fn a_reader_that_missed_something_is_told() {
    let rig = Rig::with(|limits| limits.ring_entries = 10);
    rig.fill(ONE, 100);
    // Too long away.
    let mut tail = rig.follow(ONE, "", Some("50")).await;
    let lines = tail.next().await;
    assert_eq!(&lines[..2], ["id:", "event: reset"], "{lines:?}");
    assert_eq!(tail.entry().await.1, "/90");
    // An id that was never given.
    for id in ["100000", "x", "-1", "18446744073709551616"] {
        let mut tail = rig.follow(ONE, "", Some(id)).await;
        assert_eq!(tail.event().await.0, "epoch_mismatch", "{id}");
        assert!(tail.next().now_or_never().is_none(), "{id}");
    }
    // Too slow.
    let mut tail = rig.follow(ONE, "", None).await;
    rig.fill(ONE, 50);
    let (event, data) = tail.event().await;
    assert_eq!((event.as_str(), &data["reason"]), ("reset", &json!("slow")));
    assert_eq!(tail.entry().await.1, "/40");
}

#[tokio::test]
async fn streams_are_few_and_given_back() {
    let rig = Rig::with(|limits| {
        limits.streams = 2;
        limits.streams_in_all = 3;
    });
    let one = rig.follow(ONE, "", None).await;
    let two = rig.follow(ONE, "", None).await;
    let heard = rig.ask(ONE, "GET", "/_logs/stream").await;
    assert_eq!(heard.status, StatusCode::TOO_MANY_REQUESTS);
    let three = rig.follow(TWO, "", None).await;
    let heard = rig.ask(TWO, "GET", "/_logs/stream").await;
    assert_eq!(heard.status, StatusCode::TOO_MANY_REQUESTS);
    drop((one, three));
    let _four = rig.follow(ONE, "", None).await;
    drop(two);
}

#[tokio::test]
async fn a_stream_ends_when_the_container_moves() {
    let rig = Rig::new();
    rig.fill(ONE, 1);
    let mut tail = rig.follow(ONE, "", None).await;
    let elsewhere = Scope {
        project: TWO,
        container: ONE,
    };
    rig.logs.store().placed(scope(ONE));
    rig.logs.store().placed(elsewhere);
    assert_eq!(tail.event().await.0, "scope_changed");
    assert!(tail.next().await.is_empty());
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_lives() {
    let rig = Rig::with(|limits| limits.heartbeat = Duration::from_millis(5));
    rig.fill(ONE, 1);
    let mut tail = rig.follow(ONE, "", None).await;
    assert_eq!(
        tail.body.next().await.expect("open").expect("a part"),
        ": keepalive\n\n"
    );
    assert_eq!(
        tail.body.next().await.expect("open").expect("a part"),
        ": keepalive\n\n"
    );
}

// ---- files that hold anything

fn lines_of(bytes: &[u8], chunk: usize) -> Vec<Vec<u8>> {
    let reader = std::io::BufReader::with_capacity(chunk, bytes);
    let mut lines = Lines::new(reader);
    let mut found = Vec::new();
    while let Some(line) = lines.next().expect("memory can be read") {
        found.push(line.to_vec());
    }
    found
}

proptest! {
    /// Whatever is in a file, reading it ends, in bounded memory, with whole lines only.
    #[test]
    fn any_file_can_be_read(
        parts in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            Just(b"\n".to_vec()),
            Just(vec![b'x'; LINE_BYTES]),
            Just(br#"{"id":7,"kind":"request","level":"info","serviceName":"a","source":"edge","data":{}}"#.to_vec()),
            Just(br#"{"id":99999999999999999999,"#.to_vec()),
        ], 0..12),
        chunk in 1usize..5_000,
    ) {
        let bytes = parts.concat();
        let expected: Vec<Vec<u8>> = bytes
            .split_inclusive(|&byte| byte == b'\n')
            .filter_map(|line| line.strip_suffix(b"\n"))
            .filter(|line| line.len() <= LINE_BYTES)
            .map(<[u8]>::to_vec)
            .collect();
        prop_assert_eq!(&lines_of(&bytes, chunk), &expected);
        for line in expected {
            if let (Some(head), Some(id)) = (Head::of(&line), id_of(&line)) {
                prop_assert_eq!(head.id, id);
            }
        }
    }

    /// A log with any file among its own opens, reads and goes on.
    #[test]
    fn a_log_takes_up_any_file(bytes in prop::collection::vec(any::<u8>(), 0..2_000), first in 0u64..1_000) {
        let mut rig = Rig::new();
        rig.fill(ONE, 2);
        let directory = rig.directory.path().join(ONE.to_string());
        std::fs::write(directory.join(format!("{first:020}-0000abcd.jsonl")), bytes).expect("written");
        rig.restart();
        rig.write(ONE, "/new", 200);
        rig.logs.store().flush();
        let log = rig.logs.store().log(ONE).expect("it opens").expect("it is known");
        let mut ids = Vec::new();
        log.view().each(|line| ids.extend(id_of(line))).expect("it can be read");
        let newest = ids.iter().max().copied();
        prop_assert_eq!(log.following(newest.expect("some") - 1, 1).lines.len(), 1);
        prop_assert!(newest > Some(first));
    }
}

/// One process resigns, another takes over: nothing of either is lost, and no id is given twice.
#[tokio::test]
async fn another_process_takes_over() {
    let rig = Rig::new();
    let gone = rig.gone.clone();
    let limits = rig.logs.store().limits().clone();
    rig.write(ONE, "/old-1", 200);
    rig.logs.store().flush();
    // The next one is asked for the log before the old one has written all that it has.
    let next = Rig {
        logs: Rig::logs(rig.directory.path(), limits, &gone),
        directory: tempfile::tempdir().expect("a directory"),
        gone,
    };
    let held = next
        .logs
        .store()
        .log(ONE)
        .expect("it opens")
        .expect("it is known");
    rig.write(ONE, "/old-2", 200);
    rig.logs.store().resign();
    assert!(rig.logs.store().is_resigned());
    next.logs.store().take_over();
    next.write(ONE, "/new-1", 200);
    // What the old one still has is written by the new one.
    let event = || Event {
        event: "lost",
        message: "of the old one".into(),
        count: Some(3),
    };
    let entry = rig
        .logs
        .store()
        .unnumbered_note(scope(ONE), Level::Warn, event());
    next.logs.store().append_unnumbered(scope(ONE), &entry);
    let request = rig.drafted("/old-\"3\"", 200, |draft| draft.unnumbered(scope(ONE)));
    next.logs.store().append_unnumbered(scope(ONE), &request);
    for nonsense in [
        "",
        "}",
        "\"traceId\":",
        &entry[1..],
        &format!("{entry}{entry}"),
        &format!("{entry}\n"),
    ] {
        next.logs.store().append_unnumbered(scope(ONE), nonsense);
    }
    next.write(ONE, "/new-2", 200);
    next.logs.store().flush();
    let expected = [
        "/old-1",
        "/old-2",
        "/new-1",
        "of the old one",
        "/old-\"3\"",
        "/new-2",
    ];
    let mut ids = Vec::new();
    let mut told = Vec::new();
    let see = |line: &[u8]| {
        let entry: Value = serde_json::from_slice(line).expect("an entry");
        ids.push(entry["id"].as_u64().expect("an id"));
        let url = entry["url"]
            .as_str()
            .map(|url| url.trim_start_matches("http://host").to_owned());
        told.push(url.unwrap_or_else(|| {
            entry["data"]["message"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        }));
    };
    held.view().each(see).expect("it reads");
    assert_eq!(told, expected);
    assert!(ids.is_sorted_by(|one, other| one < other), "{ids:?}");
    // Who has resigned writes nothing, and reads what the other wrote.
    rig.write(ONE, "/late", 200);
    assert_eq!(rig.logs.store().lost(), 1);
    rig.logs.store().remove(ONE);
    let again = rig
        .logs
        .store()
        .log(ONE)
        .expect("it opens")
        .expect("it is known");
    let mut lines = 0;
    again.view().each(|_| lines += 1).expect("it reads");
    assert_eq!(lines, expected.len());
    assert_eq!(rig.logs.store().in_memory().0, 0);
}
