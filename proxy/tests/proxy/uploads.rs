//! Bodies over HTTP/2 that do not come any more, and requests that are full in both directions.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use crate::frames::{ACK, END_HEADERS, Fields, Outcome, Raw, block, fields, frame, kind};
use crate::gates::{only, password, rule};
use crate::rig::{API, Heard, Rig, eventually};

/// For the next part of a body.
const BODY: Duration = Duration::from_millis(500);
/// The same where a kit is waited for: well within what that excuses.
const SLOW_BODY: Duration = Duration::from_secs(2);
/// For anything that must come.
const PATIENCE: Duration = Duration::from_secs(30);

const LATE: &str = "hoody_proxy_connections_expired_total{phase=\"body\"}";
const REFUSED: &str = "hoody_proxy_refusals_total{code=\"request_timeout\"}";

async fn rig() -> Rig {
    rig_for(BODY).await
}

async fn rig_for(body: Duration) -> Rig {
    Rig::with(|config| config.limits.body = body).await
}

fn post(host: &str, path: &str, more: &[(&str, &str)]) -> Fields {
    let line = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", host),
    ];
    fields(&[&line[..], more].concat())
}

async fn begin(raw: &mut Raw, stream: u32, headers: &Fields, part: &[u8]) {
    let block = block(headers);
    raw.send(&frame(kind::HEADERS, END_HEADERS, stream, &block))
        .await;
    raw.send(&frame(kind::DATA, 0, stream, part)).await;
}

/// Many requests whose bodies stop, of a known and an unknown length: each is answered, its kit
/// learns of its end, and others are served before and after, over the same connection, too.
#[tokio::test]
async fn a_body_that_stops_over_http_2_is_ended() {
    let mut rig = rig().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    for h2c in [false, true] {
        let mut raw = Raw::over(&rig, &host, h2c).await;
        // Without a table every status is written out.
        raw.send(&frame(kind::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]))
            .await;
        let streams: Vec<u32> = (0..40).map(|number| 2 * number + 1).collect();
        for &stream in &streams {
            let length = [("content-length", "100")];
            let more = if stream % 4 == 1 { &length[..] } else { &[] };
            begin(&mut raw, stream, &post(&host, "/body", more), b"abc").await;
        }
        let get = fields(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/"),
            (":authority", &host),
        ]);
        raw.request(1_001, &get, &[]).await;
        let mut told = std::collections::HashMap::new();
        while told.len() <= streams.len() {
            let (stream, outcome) = raw.any_outcome().await;
            told.entry(stream).or_insert(outcome);
        }
        assert_eq!(told.remove(&1_001), Some(Outcome::Status(200)));
        for stream in streams {
            assert_eq!(told[&stream], Outcome::Status(408), "stream {stream}");
        }
        raw.request(1_003, &get, &[]).await;
        assert_eq!(raw.outcome(1_003).await, Outcome::Status(200));
    }
    rig.comes_to(LATE, 80.0).await;
    rig.comes_to(REFUSED, 80.0).await;
    assert_eq!(rig.get(&host, "/").await.status, StatusCode::OK);
    rig.logged("/body").await;
}

/// What the proxy reads itself, and what goes to control, has the same time.
#[tokio::test]
async fn nobody_waits_for_a_body_that_stops() {
    let mut rig = rig().await;
    let _control = rig.control();
    let mut web = rig.running().await;
    rule(&mut rig, &mut web, Some(only(vec![password()]))).await;
    let open = rig.running().await;
    let host = web.host("terminal-1");
    let origin = format!("https://{host}");
    let form = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", &origin),
    ];
    let logs = open.host("logs-1");
    for (host, path, more) in [
        (host.as_str(), "/.hoody/sign-in", &form[..]),
        (&logs, "/_logs", &[]),
        (API, "/api/v1/projects", &[]),
    ] {
        let mut raw = Raw::tls(&rig, host).await;
        begin(&mut raw, 1, &post(host, path, more), b"a").await;
        assert_eq!(raw.outcome(1).await, Outcome::Status(408), "{host}{path}");
        assert!(raw.lives().await);
    }
}

type Parts = mpsc::Sender<Bytes>;

/// A request over HTTP/2 whose body is sent part by part.
async fn sending(
    rig: &Rig,
    host: &str,
    request: http::request::Builder,
) -> (
    Parts,
    tokio::task::JoinHandle<http::Response<hyper::body::Incoming>>,
) {
    let stream = rig.tls(host, &[b"h2"]).await.expect("a connection");
    let made =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = made.expect("a connection");
    tokio::spawn(connection);
    let (parts, came) = mpsc::channel::<Bytes>(1);
    let body = stream::unfold(came, |mut came| async {
        let part = came.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(part)), came))
    });
    let request = request
        .body(StreamBody::new(Box::pin(body)))
        .expect("a request");
    let answer =
        tokio::spawn(async move { sender.send_request(request).await.expect("an answer") });
    (parts, answer)
}

/// A client is not to blame where its kit does not read, and has its time again after that.
#[tokio::test]
async fn a_kit_that_does_not_read_is_waited_for() {
    let mut rig = rig_for(SLOW_BODY).await;
    let web = rig.running().await;
    let host = web.host("files-1");
    web.seen().read_uploads.store(false, Ordering::SeqCst);
    let ask = Request::post(format!("https://{host}/upload"));
    let (parts, answer) = sending(&rig, &host, ask).await;
    parts
        .send(vec![1; 150_000].into())
        .await
        .expect("it is taken");
    tokio::time::sleep(SLOW_BODY + BODY).await;
    web.seen().read_uploads.store(true, Ordering::SeqCst);
    let received = || web.seen().received.load(Ordering::SeqCst);
    eventually(|| (received() == 150_000).then_some(())).await;
    parts
        .send(vec![1; 50_000].into())
        .await
        .expect("it is taken");
    drop(parts);
    let heard = Heard::from(answer.await.expect("no panic")).await;
    assert_eq!(heard.text(), "200000");
    rig.comes_to(LATE, 0.0).await;
}

/// What a kit leaves unread is in the window of the whole connection: all its bodies wait with it.
#[tokio::test]
async fn a_kit_that_does_not_read_excuses_its_neighbours() {
    let mut rig = rig_for(SLOW_BODY).await;
    let web = rig.running().await;
    let host = web.host("files-1");
    web.seen().read_uploads.store(false, Ordering::SeqCst);
    let mut raw = Raw::tls(&rig, &host).await;
    raw.send(&frame(kind::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]))
        .await;
    // The proxy's windows count when its settings are acknowledged.
    assert!(raw.lives().await);
    raw.send(&frame(kind::SETTINGS, ACK, 0, &[])).await;
    begin(&mut raw, 1, &post(&host, "/upload", &[]), &[1; 16_384]).await;
    for _ in 0..12 {
        raw.send(&frame(kind::DATA, 0, 1, &[1; 16_384])).await;
    }
    begin(&mut raw, 3, &post(&host, "/", &[]), b"abc").await;
    tokio::time::sleep(SLOW_BODY + BODY).await;
    rig.comes_to(LATE, 0.0).await;
    // When it has read, both have stopped.
    web.seen().read_uploads.store(true, Ordering::SeqCst);
    let mut told = std::collections::HashMap::new();
    while told.len() < 2 {
        let (stream, outcome) = raw.any_outcome().await;
        assert_ne!(stream, 0, "{outcome:?}: {told:?}");
        told.entry(stream).or_insert(outcome);
    }
    assert_eq!(told[&1], Outcome::Status(408));
    assert_eq!(told[&3], Outcome::Status(408));
    rig.comes_to(LATE, 2.0).await;
}

/// A call of gRPC may be silent for as long as it likes.
#[tokio::test]
async fn a_silent_call_lives_on() {
    let mut rig = rig().await;
    let web = rig.running().await;
    let host = web.host("http-50051");
    let ask = Request::post(format!("https://{host}/echo.Echo/Say"));
    let ask = ask
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (parts, answer) = sending(&rig, &host, ask).await;
    let mut answer = answer.await.expect("no panic");
    for number in 0..2u8 {
        tokio::time::sleep(2 * BODY).await;
        let message = Bytes::from(vec![number; 10]);
        parts.send(message.clone()).await.expect("it is taken");
        let part = answer
            .body_mut()
            .frame()
            .await
            .expect("open")
            .expect("a part");
        assert_eq!(part.into_data().expect("data"), message);
    }
    drop(parts);
    let rest = answer.into_body().collect().await.expect("it ends");
    assert_eq!(rest.trailers().expect("trailers")["grpc-status"], "0");
}

/// Trap: while Pingora waits to write to a kit, it reads nothing from it; a kit that answers while
/// it is asked, and reads on when its answer is taken, would wait for ever.
#[tokio::test]
async fn a_request_that_is_full_in_both_directions_goes_on() {
    const PARTS: usize = 256;
    const PART: usize = 128 << 10;
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("http-8000");
    for way in ["http", "https", "h2", "h2c"] {
        let body = stream::iter(0..PARTS)
            .map(|number| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![number as u8; PART]))));
        let body = StreamBody::new(Box::pin(body));
        let target = match way {
            "h2" | "h2c" => format!("https://{host}/echo.Echo/Say"),
            _ => "/echo.Echo/Say".to_owned(),
        };
        let ask = Request::post(target);
        let ask = match way {
            "h2" | "h2c" => ask,
            _ => ask.header("host", &host),
        };
        let ask = ask.body(body).expect("a request");
        let told = async {
            match way {
                "http" => rig.send(ask).await,
                "https" => {
                    let stream = rig.tls(&host, &[b"http/1.1"]).await.expect("a connection");
                    let made = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
                    let (mut sender, connection) = made.expect("a connection");
                    tokio::spawn(connection);
                    sender.send_request(ask).await.expect("an answer")
                }
                _ => {
                    let stream: Box<dyn crate::websockets::Io> = match way {
                        "h2" => Box::new(rig.tls(&host, &[b"h2"]).await.expect("a connection")),
                        _ => Box::new(rig.tcp().await),
                    };
                    let made = hyper::client::conn::http2::handshake(
                        TokioExecutor::new(),
                        TokioIo::new(stream),
                    );
                    let (mut sender, connection) = made.await.expect("a connection");
                    tokio::spawn(connection);
                    sender.send_request(ask).await.expect("an answer")
                }
            }
        };
        let mut bytes = 0;
        let all = async {
            let mut answer = told.await;
            while let Some(frame) = answer.body_mut().frame().await {
                let Ok(part) = frame.expect("a part").into_data() else {
                    continue;
                };
                let mut rest = &part[..];
                while !rest.is_empty() {
                    let (one, more) = rest.split_at(rest.len().min(PART - bytes % PART));
                    let number = (bytes / PART) as u8;
                    assert!(one == vec![number; one.len()], "{way}: at {bytes}");
                    bytes += one.len();
                    rest = more;
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, all).await;
        assert!(ended.is_ok(), "{way}: it stands still at {bytes}");
        assert_eq!(bytes, PARTS * PART, "{way}");
    }
}

/// A connection that was for one large body carries no other request.
#[tokio::test]
async fn a_large_body_has_a_connection_to_itself() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("files-1");
    let connections = || web.seen().connections.load(Ordering::SeqCst);
    let send = async |bytes: usize| {
        let ask = Request::post("/").header("host", &host);
        let ask = ask
            .body(Full::new(Bytes::from(vec![0; bytes])))
            .expect("a request");
        let heard = Heard::from(rig.send(ask).await).await;
        assert_eq!(heard.json()["body"], bytes);
    };
    for number in 1..4 {
        send(100_000).await;
        assert_eq!(connections(), number);
    }
    // Small ones share: every worker keeps one.
    for _ in 0..6 {
        send(1_000).await;
    }
    assert!(connections() <= 3 + rig.config.workers, "{}", connections());
}
