//! What a request costs its log: on its own way (capture), on the writer's, and when it is read.

use std::path::PathBuf;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use http_body_util::BodyExt;
use proxy_logs::redact::redact;
use proxy_logs::{Capture, Draft, Exchange, Key, Kind, Level, Limits, Logs, Scope};
use tower::ServiceExt;

/// What a browser sends.
fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (
            "host",
            "0123456789abcdef01234567-89abcdef0123456789abcdef-files-1.box1.containers.example",
        ),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        ),
        (
            "accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        ),
        ("accept-language", "en-GB,en;q=0.9"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("cookie", "session=0123456789abcdef0123456789abcdef"),
        ("referer", "https://app.example/a/page?with=query"),
        ("sec-fetch-mode", "cors"),
    ] {
        headers.insert(name, value.parse().expect("a value"));
    }
    headers
}

const TARGET: &str = "/api/v1/files/home/user/notes.txt?lines=1-20&token=secret";

fn capture(c: &mut Criterion) {
    let headers = headers();
    c.bench_function("capture", |b| {
        b.iter(|| Capture::of(TARGET.as_bytes(), &headers));
    });
}

fn append(logs: &Logs, scope: Scope, text: &Capture) {
    let target = redact(&text.target(), &[]);
    let trace = logs.store().trace();
    logs.store().append(
        scope,
        &Draft {
            ts_ms: 1_700_000_000_000,
            ts_iso: "2023-11-14T22:13:20.123456Z",
            trace: &trace,
            kind: Kind::Request,
            level: Level::Info,
            service: "files",
            exchange: Some(Exchange {
                method: "GET",
                url: &["https://", "some.host.example", &target],
                client: "192.0.2.7",
                status: Some(200),
                index: Some(1),
                scheme: "https",
                http: "2",
                duration: Some(Duration::from_micros(1_234)),
                upstream: Some(Duration::from_micros(1_100)),
                bytes_in: 0,
                bytes_out: 1_024,
                refusal: None,
                fault: None,
                websocket: false,
                text,
            }),
            event: None,
        },
    );
}

fn scene(name: &str) -> (PathBuf, Logs, Scope, Capture) {
    let directory = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    let logs = Logs::new(directory.clone(), Limits::default(), |_| true);
    let plain = http::HeaderValue::from_static("text/plain");
    let text = Capture::of(TARGET.as_bytes(), &headers()).answer(Some(&plain));
    let scope = Scope {
        project: Key([9; 12]),
        container: Key([1; 12]),
    };
    (directory, logs, scope, text)
}

fn write(c: &mut Criterion) {
    let (directory, logs, scope, text) = scene("proxy-logs-write");
    let mut written = 0u32;
    // Flushed as often as at some ten thousand requests a second.
    c.bench_function("write", |b| {
        b.iter(|| {
            append(&logs, scope, &text);
            written += 1;
            if written.is_multiple_of(2_000) {
                logs.store().flush();
            }
        });
    });
    std::fs::remove_dir_all(directory).expect("it is there");
}

/// Out of a log that is full in memory.
fn read(c: &mut Criterion) {
    let (directory, logs, scope, text) = scene("proxy-logs-read");
    for _ in 0..Limits::default().ring_entries {
        append(&logs, scope, &text);
    }
    logs.store().flush();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let router = logs.router();
    let ask = |target: &str| {
        let mut request = http::Request::get(target)
            .body(axum::body::Body::empty())
            .expect("a request");
        request.extensions_mut().insert(scope);
        runtime.block_on(async {
            let answer = router.clone().oneshot(request).await.expect("an answer");
            assert_eq!(answer.status(), 200);
            answer
                .into_body()
                .collect()
                .await
                .expect("a body")
                .to_bytes()
        })
    };
    c.bench_function("read the newest 100", |b| {
        b.iter(|| ask("/_logs?last=100"));
    });
    c.bench_function("search all for what is not there", |b| {
        b.iter(|| ask("/_logs?last=100&search=nothing-of-this-name"));
    });
    std::fs::remove_dir_all(directory).expect("it is there");
}

criterion_group!(benches, capture, write, read);
criterion_main!(benches);
