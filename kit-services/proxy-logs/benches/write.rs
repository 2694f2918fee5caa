//! What a request costs its log: on its own way (capture), and on the writer's.

use std::net::{IpAddr, Ipv4Addr};

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use proxy_logs::redact::redact;
use proxy_logs::{Capture, Draft, Exchange, Key, Kind, Level, Limits, Logs, Scope};

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

fn write(c: &mut Criterion) {
    let directory = std::env::temp_dir().join(format!("proxy-logs-bench-{}", std::process::id()));
    let logs = Logs::new(directory.clone(), Limits::default(), |_| true);
    let text = Capture::of(TARGET.as_bytes(), &headers());
    let scope = Scope {
        project: Key([9; 12]),
        container: Key([1; 12]),
    };
    let mut written = 0u32;
    // Flushed as often as at some ten thousand requests a second.
    c.bench_function("write", |b| {
        b.iter(|| {
            let url = redact(&text.target(), &[]);
            let trace = logs.store().trace();
            logs.store().append(
                scope,
                &Draft {
                    ts_ms: 1_700_000_000_000,
                    ts_iso: "2023-11-14T22:13:20.123456789Z",
                    trace: &trace,
                    kind: Kind::Request,
                    level: Level::Info,
                    service: "files",
                    exchange: Some(Exchange {
                        method: "GET",
                        url: &url,
                        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
                        status: Some(200),
                        index: Some(1),
                        scheme: "https",
                        http: "2",
                        duration_ms: Some(1.234),
                        upstream_ms: Some(1.1),
                        bytes_in: 0,
                        bytes_out: 1_024,
                        content_type: Some("text/plain"),
                        refusal: None,
                        fault: None,
                        websocket: false,
                        text: &text,
                    }),
                    event: None,
                },
            );
            written += 1;
            if written.is_multiple_of(200) {
                logs.store().flush();
            }
        });
    });
    std::fs::remove_dir_all(directory).expect("it is there");
}

criterion_group!(benches, capture, write);
criterion_main!(benches);
