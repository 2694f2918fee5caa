//! What stands behind the proxy: an HTTP server on a unix socket that tells what it saw.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// What a kit has seen, and what it is told.
#[derive(Default)]
pub struct Seen {
    pub connections: AtomicUsize,
    pub requests: AtomicUsize,
    pub received: AtomicU64,
    /// Uploads are read from when this is set.
    pub read_uploads: AtomicBool,
    /// `/gate` answers when told.
    pub gate: Notify,
    /// A request's connection was closed before its answer was over.
    pub abandoned: AtomicUsize,
    /// What `/hook` was told, by which hook.
    pub told: Mutex<Vec<(String, serde_json::Value)>>,
}

/// A kit that serves until it is dropped.
pub struct Kit {
    pub seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Kit {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The size of `/file`.
pub const FILE_BYTES: usize = 1_000_003;

/// What is in `/file`: bytes that differ from their neighbours.
pub fn file() -> Vec<u8> {
    (0..FILE_BYTES).map(|at| (at * 7 % 251) as u8).collect()
}

/// `compressed`, compressed.
const GZIP: &[u8] = &[
    0x1f, 0x8b, 0x8, 0x0, 0x0, 0x0, 0x0, 0x0, 0x2, 0x3, 0x4b, 0xce, 0xcf, 0x2d, 0x28, 0x4a, 0x2d,
    0x2e, 0x4e, 0x4d, 0x1, 0x0, 0x1e, 0x4b, 0x56, 0x97, 0xa, 0x0, 0x0, 0x0,
];

type Body = BoxBody<Bytes, Infallible>;

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

impl Kit {
    /// Serve on this socket, in place of what is there.
    pub fn serve(socket: &Path) -> Kit {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket");
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            // Ends every connection when it is dropped.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = shared.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, shared.clone()));
                    let mut builder = hyper_util::server::conn::auto::Builder::new(
                        hyper_util::rt::TokioExecutor::new(),
                    );
                    builder.http2().enable_connect_protocol();
                    let _ = builder
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Kit { seen, task }
    }
}

struct Abandoned(Arc<Seen>, bool);

impl Drop for Abandoned {
    fn drop(&mut self) {
        if !self.1 {
            self.0.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn answer(
    mut request: Request<Incoming>,
    seen: Arc<Seen>,
) -> Result<Response<Body>, Infallible> {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/upload" => {
            while !seen.read_uploads.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let mut bytes = 0u64;
            while let Some(frame) = request.body_mut().frame().await {
                let Ok(frame) = frame else { break };
                bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                seen.received.store(bytes, Ordering::SeqCst);
            }
            Response::new(full(bytes.to_string()))
        }
        "/download" => {
            let chunks: u64 = request
                .uri()
                .query()
                .and_then(|n| n.parse().ok())
                .unwrap_or(1);
            let sent = seen.clone();
            let parts = stream::iter(0..chunks).map(move |_| {
                sent.received.fetch_add(64 << 10, Ordering::SeqCst);
                Ok::<_, Infallible>(Frame::data(Bytes::from(vec![7u8; 64 << 10])))
            });
            Response::new(BodyExt::boxed(StreamBody::new(parts)))
        }
        "/events" => {
            let gate = seen.clone();
            let parts = stream::unfold(0, move |number| {
                let gate = gate.clone();
                async move {
                    if number > 0 {
                        gate.gate.notified().await;
                    }
                    let event = Bytes::from(format!("data: {number}\n\n"));
                    (number < 3).then(|| (Ok::<_, Infallible>(Frame::data(event)), number + 1))
                }
            });
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(BodyExt::boxed(StreamBody::new(Box::pin(parts))))
                .expect("a response")
        }
        "/gate" => {
            let mut left = Abandoned(seen.clone(), false);
            seen.gate.notified().await;
            left.1 = true;
            Response::new(full("open"))
        }
        "/never" => {
            let _left = Abandoned(seen.clone(), false);
            std::future::pending::<()>().await;
            unreachable!()
        }
        // A hook's script: it answers with its own query.
        "/hook" => {
            let text = |name: &str| request.headers().get(name).and_then(|it| it.to_str().ok());
            let words = ["service", "index", "subdomain"].map(|name| {
                let name = format!("x-hoody-edge-{name}");
                text(&name).unwrap_or("-").to_owned()
            });
            let query = request.uri().query().unwrap_or_default();
            let said = percent_decode_str(query).decode_utf8_lossy().into_owned();
            let body = request.into_body().collect().await.expect("a body");
            let told = serde_json::from_slice(&body.to_bytes()).expect("JSON");
            let mut all = seen.told.lock().expect("nobody panics with it");
            all.push((words.join(" "), told));
            Response::new(full(said))
        }
        // Its exec service, which has scripts in one directory.
        "/api/v1/exec/scripts/list" => {
            let count = match request.uri().query() {
                Some("subdomain=shop") => 2,
                _ => 0,
            };
            let list = json!({ "directory": "/scripts", "count": count, "scripts": [] });
            Response::new(full(list.to_string()))
        }
        "/ws" => websocket(request),
        // Switches, and counts what comes once it is told to.
        "/listen" => {
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(&mut request).await.expect("upgraded");
                let mut stream = TokioIo::new(upgraded);
                while !seen.read_uploads.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let mut bytes = [0; 16 << 10];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    seen.received.fetch_add(read as u64, Ordering::SeqCst);
                }
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .body(full(""))
                .expect("a response")
        }
        // Switches, and echoes bytes.
        "/raw" => {
            let over_http2 = request.method() == http::Method::CONNECT;
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(&mut request).await.expect("upgraded");
                let mut stream = TokioIo::new(upgraded);
                let mut bytes = [0; 16 << 10];
                // One at a time, as many servers do it: what it writes must go before it reads on.
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    if &bytes[..read] == b"leave" || stream.write_all(&bytes[..read]).await.is_err()
                    {
                        break;
                    }
                    let _ = stream.flush().await;
                }
            });
            let mut response = Response::new(full(""));
            if !over_http2 {
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = response.headers_mut();
                headers.insert("connection", http::HeaderValue::from_static("upgrade"));
                headers.insert("upgrade", http::HeaderValue::from_static("websocket"));
            }
            response
        }
        // Echoes what comes, and ends with trailers.
        "/echo.Echo/Say" => {
            let body = request.into_body();
            let echo = stream::unfold(Some(body), |body| async {
                let mut body = body?;
                match body.frame().await {
                    Some(Ok(frame)) => Some((Ok::<_, Infallible>(frame), Some(body))),
                    Some(Err(_)) => None,
                    None => {
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                        Some((Ok(Frame::trailers(trailers)), None))
                    }
                }
            });
            Response::builder()
                .header("content-type", "application/grpc")
                .body(BodyExt::boxed(StreamBody::new(echo)))
                .expect("a response")
        }
        // Fails before it says anything: its status is in the headers (gRPC over HTTP/2, trailers
        // alone).
        "/echo.Echo/Fail" => Response::builder()
            .header("content-type", "application/grpc+proto")
            .header("grpc-status", "5")
            .header("grpc-message", "nothing%20here")
            .body(full(""))
            .expect("a response"),
        // Fails in the middle.
        "/echo.Echo/Break" => {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("13"));
            trailers.insert("x-detail-bin", http::HeaderValue::from_static("AAEC"));
            let parts = [
                Frame::data(Bytes::from_static(b"\0\0\0\0\x02hi")),
                Frame::trailers(trailers),
            ];
            let parts = stream::iter(parts.map(Ok::<_, Infallible>));
            Response::builder()
                .header("content-type", "application/grpc")
                .body(BodyExt::boxed(StreamBody::new(parts)))
                .expect("a response")
        }
        // Answers with the headers that it is asked for.
        "/say" => {
            let mut response = Response::new(full("said"));
            for line in request.headers().get_all("x-say") {
                let line = line.to_str().expect("text");
                let (name, value) = line.split_once(": ").expect("a name and a value");
                let name: http::HeaderName = name.parse().expect("a name");
                response
                    .headers_mut()
                    .append(name, value.parse().expect("a value"));
            }
            response
        }
        // A file, of which a part may be asked for.
        "/file" => {
            let range = request
                .headers()
                .get("range")
                .and_then(|it| it.to_str().ok());
            let range = range.and_then(|it| it.strip_prefix("bytes=")?.split_once('-'));
            let response = Response::builder().header("accept-ranges", "bytes");
            match range {
                None => response.body(full(file())),
                Some((first, last)) => {
                    let first: usize = first.parse().expect("a number");
                    let last = last.parse().unwrap_or(FILE_BYTES - 1);
                    response
                        .status(StatusCode::PARTIAL_CONTENT)
                        .header(
                            "content-range",
                            format!("bytes {first}-{last}/{FILE_BYTES}"),
                        )
                        .body(full(file()[first..=last].to_vec()))
                }
            }
            .expect("a response")
        }
        // Made by gzip once and for all.
        "/gzip" => Response::builder()
            .header("content-encoding", "gzip")
            .body(full(GZIP))
            .expect("a response"),
        "/page" => Response::builder()
            .header("content-type", "text/html")
            .body(full("<!doctype html><title>a page</title><body>a page"))
            .expect("a response"),
        // A worker that would like to have more than its directory.
        "/deep/worker.js" => Response::builder()
            .header("content-type", "text/javascript")
            .header("service-worker-allowed", "/")
            .body(full("self.onmessage = () => {}"))
            .expect("a response"),
        "/status" => Response::builder()
            .status(StatusCode::IM_A_TEAPOT)
            .header("x-mine", "kept")
            .body(full("short and stout"))
            .expect("a response"),
        _ => {
            let headers: Vec<(String, String)> = request
                .headers()
                .iter()
                .map(|(name, value)| {
                    (
                        name.to_string(),
                        String::from_utf8_lossy(value.as_bytes()).into_owned(),
                    )
                })
                .collect();
            let method = request.method().to_string();
            let target = request.uri().to_string();
            let body = match request.into_body().collect().await {
                Ok(body) => body.to_bytes().len(),
                Err(_) => return Ok(Response::new(full("cut off"))),
            };
            let told =
                json!({ "method": method, "target": target, "headers": headers, "body": body });
            Response::new(full(told.to_string()))
        }
    })
}

fn websocket(mut request: Request<Incoming>) -> Response<Body> {
    let key = request.headers().get("sec-websocket-key").cloned();
    let over_http2 = request.method() == http::Method::CONNECT;
    let accept = key.map(|key| derive_accept_key(key.as_bytes()));
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.expect("upgraded");
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let (mut write, mut read) = socket.split();
        // At once, with the handshake: the case in which a tunnel may be lost.
        let _ = write.send("hello".into()).await;
        while let Some(Ok(message)) = read.next().await {
            if (message.is_text() || message.is_binary()) && write.send(message).await.is_err() {
                break;
            }
        }
    });
    if over_http2 {
        return Response::new(full(""));
    }
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", accept.expect("a key"))
        .body(full(""))
        .expect("a response")
}
