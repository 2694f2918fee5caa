//! WebSockets, events and large bodies: passed on as they come, held back as they must.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::rig::{Container, Heard, Rig, eventually};

const MIB: u64 = 1 << 20;
/// More than all buffers between client and kit hold together: those of the kernel on both
/// sockets and of the proxy between them.
const BUFFERS: u64 = 24 * MIB;

async fn websocket(rig: &Rig, web: &Container) -> WebSocketStream<tokio::net::TcpStream> {
    let url = format!("ws://{}/ws", web.host("terminal-1"));
    let (mut socket, answer) = client_async(url, rig.tcp().await)
        .await
        .expect("a WebSocket");
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(
        socket.next().await.expect("open").expect("a message"),
        Message::from("hello")
    );
    socket
}

#[tokio::test]
async fn a_websocket_echoes() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let mut socket = websocket(&rig, &web).await;
    for size in [0usize, 1, 125, 126, 65_536, 1 << 20] {
        let message = Message::binary(vec![size as u8; size]);
        socket.send(message.clone()).await.expect("sent");
        assert_eq!(
            socket.next().await.expect("open").expect("a message"),
            message,
            "{size}"
        );
    }
    rig.comes_to("hoody_proxy_websockets", 1.0).await;
    socket.close(None).await.expect("closed");
    let line = rig.logged("/ws").await;
    assert_eq!(
        (&line["status"], &line["websocket"]),
        (&101.into(), &true.into())
    );
    rig.comes_to("hoody_proxy_websockets", 0.0).await;
}

#[tokio::test]
async fn a_websocket_over_tls_echoes() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let stream = rig.tls(&host, &[b"http/1.1"]).await.expect("a connection");
    let (mut socket, _) = client_async(format!("ws://{host}/ws"), stream)
        .await
        .expect("open");
    assert_eq!(
        socket.next().await.expect("open").expect("a message"),
        Message::from("hello")
    );
    socket.send("ping".into()).await.expect("sent");
    assert_eq!(
        socket.next().await.expect("open").expect("a message"),
        Message::from("ping")
    );
}

/// Trap: a tunnel is torn down right after its 101.
#[tokio::test]
async fn no_websocket_is_lost_after_its_handshake() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    for _ in 0..10 {
        let sockets = (0..50).map(|_| async {
            let mut socket = websocket(&rig, &web).await;
            socket.send("x".into()).await.expect("sent");
            assert_eq!(
                socket.next().await.expect("open").expect("a message"),
                Message::from("x")
            );
        });
        futures::future::join_all(sockets).await;
    }
}

/// Trap: a tunnel whose client is silent dies after the time for bodies.
#[tokio::test]
async fn a_silent_websocket_lives_until_its_own_limit() {
    let mut rig = Rig::with(|config| {
        config.limits.body = Duration::from_millis(100);
        config.limits.headers = Duration::from_millis(100);
        config.limits.keepalive = Duration::from_millis(100);
        config.limits.tunnel = Duration::from_millis(900);
    })
    .await;
    let web = rig.running().await;
    let mut socket = websocket(&rig, &web).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    socket.send("still".into()).await.expect("sent");
    assert_eq!(
        socket.next().await.expect("open").expect("a message"),
        Message::from("still")
    );
    tokio::time::sleep(Duration::from_millis(600)).await;
    socket.send("here".into()).await.expect("sent");
    assert_eq!(
        socket.next().await.expect("open").expect("a message"),
        Message::from("here")
    );
    let end = tokio::time::timeout(Duration::from_secs(3), socket.next()).await;
    assert!(!matches!(end.expect("it ends"), Some(Ok(Message::Text(_)))));
}

#[tokio::test]
async fn a_websocket_ends_on_both_sides_when_its_client_leaves() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    drop(websocket(&rig, &web).await);
    rig.logged("/ws").await;
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    for h2 in [false, true] {
        let uri = if h2 {
            format!("https://{host}/events")
        } else {
            "/events".to_owned()
        };
        let ask = Request::get(uri);
        let ask = if h2 { ask } else { ask.header("host", &host) };
        let ask = ask.body(Full::new(Bytes::new())).expect("a request");
        let mut answer = if h2 {
            rig.h2(&host)
                .await
                .send_request(ask)
                .await
                .expect("an answer")
        } else {
            rig.send(ask).await
        };
        for number in 0..3 {
            let part = answer.body_mut().frame();
            let part = tokio::time::timeout(Duration::from_secs(2), part).await;
            let part = part
                .expect("it comes at once")
                .expect("open")
                .expect("a part");
            assert_eq!(
                part.into_data().expect("data"),
                format!("data: {number}\n\n")
            );
            // Only now is the next one sent.
            web.seen().gate.notify_one();
        }
        let rest = answer.into_body().collect().await.expect("it ends");
        assert!(rest.to_bytes().is_empty());
    }
}

#[tokio::test]
async fn an_upload_waits_for_its_kit() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("files-1");
    let chunk = Bytes::from(vec![1u8; 64 << 10]);
    let total = 64 * MIB;
    for h2 in [false, true] {
        web.seen().read_uploads.store(false, Ordering::SeqCst);
        web.seen().received.store(0, Ordering::SeqCst);
        let offered = Arc::new(AtomicU64::new(0));
        let (count, part) = (offered.clone(), chunk.clone());
        let parts = stream::iter(0..total / (64 << 10)).map(move |_| {
            count.fetch_add(part.len() as u64, Ordering::SeqCst);
            Ok::<_, Infallible>(Frame::data(part.clone()))
        });
        let body = BodyExt::boxed(StreamBody::new(parts));
        let ask = Request::post(if h2 {
            format!("https://{host}/upload")
        } else {
            "/upload".into()
        });
        let ask = if h2 { ask } else { ask.header("host", &host) };
        let ask = ask.body(body).expect("a request");
        let answer = async {
            if !h2 {
                return rig.send(ask).await;
            }
            let stream = rig.tls(&host, &[b"h2"]).await.expect("a connection");
            let (mut sender, connection) = hyper::client::conn::http2::handshake(
                hyper_util::rt::TokioExecutor::new(),
                hyper_util::rt::TokioIo::new(stream),
            )
            .await
            .expect("a connection");
            tokio::spawn(connection);
            sender.send_request(ask).await.expect("an answer")
        };
        let watch = async {
            // Until the client can push no more.
            let mut last = u64::MAX;
            while last != offered.load(Ordering::SeqCst) || last == 0 {
                last = offered.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            assert!(
                last < BUFFERS,
                "{last} bytes were taken before the kit read one"
            );
            web.seen().read_uploads.store(true, Ordering::SeqCst);
        };
        let (answer, ()) = tokio::join!(answer, watch);
        assert_eq!(
            Heard::from(answer).await.text(),
            total.to_string(),
            "h2: {h2}"
        );
    }
}

#[tokio::test]
async fn a_download_waits_for_its_reader() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let total = 64 * MIB;
    let mut socket = rig.tcp().await;
    let ask = format!(
        "GET /download?{} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        total / (64 << 10),
        web.host("files-1")
    );
    socket.write_all(ask.as_bytes()).await.expect("written");
    let sent = || web.seen().received.load(Ordering::SeqCst);
    let mut last = u64::MAX;
    while last != sent() || last == 0 {
        last = sent();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert!(
        last < BUFFERS,
        "{last} bytes were sent to a client that read none"
    );
    let mut read = 0u64;
    let mut part = vec![0; 1 << 20];
    loop {
        match socket.read(&mut part).await.expect("read") {
            0 => break,
            bytes => read += bytes as u64,
        }
    }
    assert!(read > total, "{read}");
}

#[tokio::test]
async fn the_kit_learns_that_a_client_left() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let mut socket = rig.tcp().await;
    let ask = format!(
        "GET /never HTTP/1.1\r\nHost: {}\r\n\r\n",
        web.host("terminal-1")
    );
    socket.write_all(ask.as_bytes()).await.expect("written");
    let requests = || web.seen().requests.load(Ordering::SeqCst);
    eventually(|| (requests() == 1).then_some(())).await;
    drop(socket);
    eventually(|| (web.seen().abandoned.load(Ordering::SeqCst) == 1).then_some(())).await;
    assert_eq!(rig.logged("/never").await["status"], 499);
}

/// Trap: an empty last part of an HTTP/2 body ends the chunked body twice, and what follows on the
/// same connection is read as another request.
#[tokio::test]
async fn an_empty_last_part_does_not_disturb_the_next_request() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let stream = rig.tls(&host, &[b"h2"]).await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .expect("a connection");
    tokio::spawn(connection);
    for round in 0..20 {
        let parts = [Bytes::from("12345"), Bytes::new(), Bytes::new()];
        let parts = stream::iter(parts).then(|part| async move {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Frame::data(part))
        });
        let ask = Request::post(format!("https://{host}/")).body(StreamBody::new(Box::pin(parts)));
        let ask = ask.expect("a request");
        let answer = sender.send_request(ask).await.expect("an answer");
        let heard = Heard::from(answer).await;
        assert_eq!(heard.status, StatusCode::OK, "{round}");
        assert_eq!(heard.json()["body"], 5);
    }
    assert_eq!(web.seen().requests.load(Ordering::SeqCst), 20);
}

/// A part of an upload may be empty, or be the head of a chunk alone, without being its end.
#[tokio::test]
async fn an_upload_in_odd_pieces_arrives_whole() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let mut socket = rig.tcp().await;
    let head = format!("POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in [
        &head,
        "5\r\n",
        "abc",
        "de\r",
        "\n1",
        "0\r\n",
        "0123456789abcdef\r\n",
        "0",
        "\r\n\r\n",
    ] {
        socket.write_all(piece.as_bytes()).await.expect("written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut answer = vec![0; 4_096];
    let bytes = socket.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..bytes]).into_owned();
    assert!(answer.contains(r#""body":21"#), "{answer}");
}

#[tokio::test]
async fn a_client_that_waits_to_continue_is_told_to() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let mut socket = rig.tcp().await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("written");
    let mut answer = vec![0; 4_096];
    let bytes = socket.read(&mut answer).await.expect("an answer");
    assert!(answer[..bytes].starts_with(b"HTTP/1.1 100 Continue\r\n"));
    socket.write_all(b"hello").await.expect("written");
    let bytes = socket.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..bytes]).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains(r#""body":5"#),
        "{answer}"
    );
}

#[tokio::test]
async fn draining_lets_requests_end_and_takes_no_more() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let ask = Request::get("/gate").header("host", web.host("terminal-1"));
    let ask = ask.body(Full::new(Bytes::new())).expect("a request");
    let address = rig.http;
    let proxy = rig.take();
    let stop = async {
        eventually(|| (web.seen().requests.load(Ordering::SeqCst) == 1).then_some(())).await;
        let stopping = tokio::spawn(proxy.stop());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
        web.seen().gate.notify_one();
        stopping.await.expect("it stops");
    };
    let (answer, ()) = tokio::join!(rig.send(ask), stop);
    assert_eq!(Heard::from(answer).await.text(), "open");
}
