//! The clients that people have: curl, nghttp and h2load, as they are in Debian. A test is passed
//! over where its tool is not installed; `make test` installs them.

use std::process::{Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::kit::{FILE_BYTES, file};
use crate::rig::{Container, Rig};

/// For one run of a tool.
const PATIENCE: Duration = Duration::from_secs(60);

/// A proxy, a container, and where files for a tool are.
struct Bench {
    rig: Rig,
    web: Container,
    host: String,
    files: TempDir,
}

/// Nothing where the tool is not there.
async fn bench(tool: &str) -> Option<Bench> {
    if Command::new(tool).arg("--version").output().await.is_err() {
        eprintln!("{tool} is not installed: passed over");
        return None;
    }
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    web.seen().read_uploads.store(true, Ordering::SeqCst);
    let files = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| std::fs::write(files.path().join(name), bytes);
    let der = STANDARD.encode(rig.root());
    let lines: Vec<&str> = (0..der.len())
        .step_by(64)
        .map(|at| &der[at..der.len().min(at + 64)])
        .collect();
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    );
    write("root.pem", pem.as_bytes()).expect("written");
    write("small", b"twelve bytes").expect("written");
    write("large", &vec![7; 3 << 20]).expect("written");
    Some(Bench {
        host: web.host("files-1"),
        rig,
        web,
        files,
    })
}

async fn run(tool: &str, bench: &Bench, arguments: &[&str], input: &[u8]) -> Output {
    let child = Command::new(tool)
        .args(arguments)
        .current_dir(bench.files.path())
        .env_remove("http_proxy")
        .env_remove("https_proxy")
        .env("NO_PROXY", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.expect("it starts");
    let mut stdin = child.stdin.take().expect("it was asked for");
    let said = async {
        // A tool that reads nothing closes it.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        child.wait_with_output().await.expect("it ends")
    };
    let said = tokio::time::timeout(PATIENCE, said).await;
    said.unwrap_or_else(|_| panic!("{tool} {arguments:?} does not end"))
}

/// The ways that curl can take, and the version that it then reports.
const WAYS: [(&str, &str, &str); 5] = [
    ("http", "--http1.0", "1.0"),
    ("http", "--http1.1", "1.1"),
    ("http", "--http2-prior-knowledge", "2"),
    ("https", "--http1.1", "1.1"),
    ("https", "--http2", "2"),
];

impl Bench {
    fn url(&self, scheme: &str, path: &str) -> String {
        let port = match scheme {
            "http" => self.rig.http.port(),
            _ => self.rig.https.port(),
        };
        format!("{scheme}://{}:{port}{path}", self.host)
    }

    /// What curl prints, with what it was asked to tell at the end.
    async fn curl(&self, way: (&str, &str), path: &str, more: &[&str], input: &[u8]) -> Output {
        let url = self.url(way.0, path);
        let resolve = format!("{}:*:127.0.0.1", self.host);
        let resolve = [
            resolve.replace('*', &self.rig.http.port().to_string()),
            resolve.replace('*', &self.rig.https.port().to_string()),
        ];
        let common = [
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--cacert",
            "root.pem",
            "--resolve",
            &resolve[0],
            "--resolve",
            &resolve[1],
            way.1,
        ];
        let arguments = [&common[..], more, &[url.as_str()]].concat();
        run("curl", self, &arguments, input).await
    }

    /// What the kit was told, which has to have been asked well.
    async fn told(&self, way: (&str, &str), path: &str, more: &[&str], input: &[u8]) -> Value {
        let said = self.curl(way, path, more, input).await;
        let text = String::from_utf8_lossy(&said.stdout);
        let why = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{way:?} {path} {more:?}: {why}");
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{way:?} {path} {more:?}: {text}"))
    }
}

fn header<'a>(told: &'a Value, name: &str) -> Option<&'a str> {
    let headers = told["headers"].as_array().expect("headers");
    headers.iter().find(|pair| pair[0] == name)?[1].as_str()
}

#[tokio::test]
async fn curl_asks_in_every_way() {
    let Some(bench) = bench("curl").await else {
        return;
    };
    for (scheme, flag, version) in WAYS {
        let way = (scheme, flag);
        let tell = "\n%{http_version} %{response_code}";
        let said = bench
            .curl(way, "/status", &["--write-out", tell], b"")
            .await;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        // HTTP/1.0 is answered in HTTP/1.1's words, as RFC 9110, section 6.2 asks for.
        let spoken = text.lines().last().expect("a line").to_owned();
        assert!(text.starts_with("short and stout"), "{way:?}: {text}");
        assert!(
            spoken == format!("{version} 418") || (version == "1.0" && spoken == "1.1 418"),
            "{way:?}: {spoken}"
        );
        for method in ["GET", "DELETE", "OPTIONS", "PATCH", "PROPFIND"] {
            let told = bench.told(way, "/a?b=c", &["--request", method], b"").await;
            assert_eq!(told["method"], method, "{way:?}");
            assert!(told["target"].as_str().expect("text").ends_with("/a?b=c"));
        }
        let head = bench.curl(way, "/status", &["--head"], b"").await;
        let text = String::from_utf8_lossy(&head.stdout).into_owned();
        assert!(
            text.contains("418") && !text.contains("short and stout"),
            "{way:?}: {text}"
        );
        assert!(
            text.to_ascii_lowercase().contains("content-length: 15"),
            "{way:?}: {text}"
        );
        let large = format!("X-Large: {}", "x".repeat(30_000));
        let told = bench.told(way, "/", &["--header", &large], b"").await;
        assert_eq!(
            header(&told, "x-large").map(str::len),
            Some(30_000),
            "{way:?}"
        );
        let told = bench.told(way, "/a/../b/./c", &["--path-as-is"], b"").await;
        assert!(
            told["target"]
                .as_str()
                .expect("text")
                .ends_with("/a/../b/./c"),
            "{way:?}"
        );
    }
    // An upgrade to HTTP/2 is not taken up; the request is answered as it came.
    let told = bench.told(("http", "--http2"), "/", &[], b"").await;
    assert_eq!(header(&told, "upgrade"), None);
    // What is too large is said, and not cut off.
    let huge = format!("X-Large: {}", "x".repeat(70_000));
    let tell = [
        "--header",
        &huge,
        "--output",
        "/dev/null",
        "--write-out",
        "%{response_code}",
    ];
    let said = bench.curl(("http", "--http1.1"), "/", &tell, b"").await;
    assert_eq!(String::from_utf8_lossy(&said.stdout), "431");
}

#[tokio::test]
async fn curl_sends_in_every_way() {
    let Some(bench) = bench("curl").await else {
        return;
    };
    for (scheme, flag, _) in WAYS {
        let way = (scheme, flag);
        for (name, bytes) in [("small", 12), ("large", 3 << 20)] {
            let told = bench.told(way, "/put", &["--upload-file", name], b"").await;
            assert_eq!(
                (&told["method"], &told["body"]),
                (&"PUT".into(), &bytes.into()),
                "{way:?}"
            );
            let data = format!("@{name}");
            let told = bench
                .told(way, "/post", &["--data-binary", &data], b"")
                .await;
            assert_eq!(
                (&told["method"], &told["body"]),
                (&"POST".into(), &bytes.into()),
                "{way:?}"
            );
            let form = format!("file=@{name}");
            let told = bench
                .told(way, "/form", &["--form", "a=b", "--form", &form], b"")
                .await;
            let kind = header(&told, "content-type").expect("a type");
            assert!(kind.starts_with("multipart/form-data; boundary="), "{kind}");
            assert!(told["body"].as_u64() > Some(bytes), "{way:?}: {told}");
        }
        // Of unknown length, which HTTP/1.0 has no word for.
        if flag != "--http1.0" {
            let told = bench
                .told(way, "/", &["--upload-file", "-"], &vec![1; 700_000])
                .await;
            assert_eq!(told["body"], 700_000, "{way:?}");
        }
        let told = bench.told(way, "/", &["--data", ""], b"").await;
        assert_eq!(told["body"], 0, "{way:?}");
    }
    // It waits to be told to go on, and is.
    for scheme in ["http", "https"] {
        let expect = [
            "--header",
            "Expect: 100-continue",
            "--data-binary",
            "@large",
            "--verbose",
        ];
        let said = bench.curl((scheme, "--http1.1"), "/", &expect, b"").await;
        let heard = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(heard.contains("< HTTP/1.1 100 Continue"), "{heard}");
        let told: Value = serde_json::from_slice(&said.stdout).expect("JSON");
        assert_eq!(told["body"], 3 << 20);
    }
    bench
        .rig
        .comes_to("hoody_proxy_client_aborts_total", 0.0)
        .await;
}

#[tokio::test]
async fn curl_reads_in_every_way() {
    let Some(bench) = bench("curl").await else {
        return;
    };
    for (scheme, flag, _) in WAYS {
        let way = (scheme, flag);
        let said = bench.curl(way, "/download?64", &[], b"").await;
        assert!(said.stdout == vec![7; 64 * (64 << 10)], "{way:?}");
        let said = bench.curl(way, "/file", &["--range", "10-29"], b"").await;
        assert!(said.stdout == file()[10..30], "{way:?}");
        // A download that was cut off is taken up where it was.
        let path = bench.files.path().join("part");
        std::fs::write(&path, &file()[..FILE_BYTES / 3]).expect("written");
        let resume = ["--continue-at", "-", "--output", "part"];
        let said = bench.curl(way, "/file", &resume, b"").await;
        assert!(said.status.success(), "{way:?}: {said:?}");
        assert!(
            std::fs::read(&path).expect("it is there") == file(),
            "{way:?}"
        );
        let said = bench.curl(way, "/gzip", &["--compressed"], b"").await;
        assert_eq!(
            String::from_utf8_lossy(&said.stdout),
            "compressed",
            "{way:?}"
        );
        let said = bench.curl(way, "/gzip", &[], b"").await;
        assert_eq!(
            said.stdout[..2],
            [0x1f, 0x8b],
            "{way:?}: it goes on as it is"
        );
    }
    // One connection serves one request after another.
    for (scheme, flag) in [
        ("http", "--http1.1"),
        ("https", "--http1.1"),
        ("https", "--http2"),
    ] {
        let url = bench.url(scheme, "/status");
        let more = [
            "--output",
            "/dev/null",
            "--write-out",
            "%{num_connects}",
            &url,
            "--output",
            "/dev/null",
            &url,
            "--output",
            "/dev/null",
        ];
        let said = bench.curl((scheme, flag), "/status", &more, b"").await;
        assert_eq!(
            String::from_utf8_lossy(&said.stdout),
            "100",
            "{scheme} {flag}"
        );
    }
}

/// A WebSocket by hand, as people try one out.
#[tokio::test]
async fn curl_opens_a_websocket() {
    let Some(bench) = bench("curl").await else {
        return;
    };
    for scheme in ["http", "https"] {
        let more = [
            "--include",
            "--no-buffer",
            "--max-time",
            "4",
            "--header",
            "Connection: Upgrade",
            "--header",
            "Upgrade: websocket",
            "--header",
            "Sec-WebSocket-Version: 13",
            "--header",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ];
        let said = bench.curl((scheme, "--http1.1"), "/ws", &more, b"").await;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(text.starts_with("HTTP/1.1 101"), "{scheme}: {text}");
        // RFC 6455, section 1.3, has the key and what it is answered with.
        assert!(text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{text}");
        assert!(text.ends_with("\u{5}hello"), "{text:?}");
    }
}

/// HTTP/2 as nghttp has it: many streams, small windows, padding, large headers, trailers.
#[tokio::test]
async fn nghttp_is_served() {
    let Some(bench) = bench("nghttp").await else {
        return;
    };
    let authority = format!(":authority: {}", bench.host);
    let large = format!("x-large: {}", "x".repeat(8_000));
    let cases: [&[&str]; 10] = [
        &[],
        &["--multiply=50"],
        &["--window-bits=8", "--connection-window-bits=8"],
        &["--window-bits=30", "--connection-window-bits=30"],
        &["--padding=200"],
        &["--continuation", "--header", &large],
        &["--header-table-size=0", "--multiply=5"],
        &[
            "--header-table-size=65536",
            "--encoder-header-table-size=8192",
            "--multiply=5",
        ],
        &["--data=large", "--padding=100"],
        &["--data=small", "--trailer=x-sum: 1"],
    ];
    for (scheme, address) in [("https", bench.rig.https), ("http", bench.rig.http)] {
        for path in ["/", "/download?8"] {
            let url = format!("{scheme}://{address}{path}");
            for case in &cases {
                let common = [
                    "--no-verify-peer",
                    "--null-out",
                    "--stat",
                    "--timeout=30",
                    "--header",
                    &authority,
                ];
                let arguments = [&common[..], case, &[url.as_str()]].concat();
                let said = run("nghttp", &bench, &arguments, b"").await;
                let text = String::from_utf8_lossy(&said.stdout).into_owned();
                let why = String::from_utf8_lossy(&said.stderr).into_owned();
                assert!(said.status.success(), "{arguments:?}: {text} {why}");
                let expected = match case.iter().find_map(|it| it.strip_prefix("--multiply=")) {
                    Some(many) => many.parse().expect("a number"),
                    None => 1,
                };
                // A line a request ends with its status, its size and its target.
                let answered = text.lines().filter(|line| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    matches!(words[..], [.., "200", _, target] if target == path)
                });
                assert_eq!(answered.count(), expected, "{arguments:?}: {text} {why}");
            }
        }
    }
    bench.rig.comes_to("hoody_proxy_refusals_total", 0.0).await;
    drop(bench.web);
}

/// Many requests at once, over all versions, with small windows and bodies.
#[tokio::test]
async fn h2load_loses_nothing() {
    let Some(bench) = bench("h2load").await else {
        return;
    };
    let common = ["--requests=400", "--clients=4"];
    // Over HTTP/1.1 one at a time: the proxy reads no request before the last one is answered.
    let (many, one) = ("--max-concurrent-streams=20", "--max-concurrent-streams=1");
    let cases: [(&str, &[&str]); 7] = [
        ("https", &[many]),
        (
            "https",
            &[many, "--window-bits=10", "--connection-window-bits=12"],
        ),
        ("https", &[many, "--data=small"]),
        ("https", &["--h1", one]),
        ("http", &["--no-tls-proto=h2c", many]),
        ("http", &["--h1", one]),
        ("http", &["--h1", one, "--data=small"]),
    ];
    for (scheme, case) in cases {
        let address = match scheme {
            "http" => bench.rig.http,
            _ => bench.rig.https,
        };
        let to = format!("--connect-to={address}");
        let url = bench.url(scheme, "/status");
        let arguments = [&common[..], case, &[&to, &url]].concat();
        let said = run("h2load", &bench, &arguments, b"").await;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let all = "requests: 400 total, 400 started, 400 done, 0 succeeded, 400 failed, 0 errored, 0 timeout";
        let codes = "status codes: 0 2xx, 0 3xx, 400 4xx, 0 5xx";
        assert!(
            text.contains(all) && text.contains(codes),
            "{scheme} {case:?}: {text}"
        );
    }
    let teapots = bench.web.seen().requests.load(Ordering::SeqCst);
    assert_eq!(teapots, 400 * cases.len());
}
