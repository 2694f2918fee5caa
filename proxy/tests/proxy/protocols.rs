//! Everything that is spoken through the proxy besides plain requests.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream};
use http::{Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::frames::{Outcome, Raw, fields, kind};
use crate::rig::{API, Container, Heard, Rig, eventually};

type Upgraded = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// A WebSocket over HTTP/2 (RFC 8441).
async fn websocket(rig: &Rig, web: &Container, h2c: bool) -> Upgraded {
    let host = web.host("terminal-1");
    let ask = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://{host}/ws?x=y"))
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let executor = TokioExecutor::new();
    let mut sender = match h2c {
        true => {
            let stream = TokioIo::new(rig.tcp().await);
            let made = hyper::client::conn::http2::handshake(executor, stream).await;
            let (sender, connection) = made.expect("a connection");
            tokio::spawn(connection);
            sender
        }
        false => {
            let stream = rig.tls(&host, &[b"h2"]).await.expect("a connection");
            let stream = TokioIo::new(stream);
            let made = hyper::client::conn::http2::handshake(executor, stream).await;
            let (sender, connection) = made.expect("a connection");
            tokio::spawn(connection);
            sender
        }
    };
    // Until the settings have come, which allow it.
    sender.ready().await.expect("ready");
    let mut answer = sender.send_request(ask).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let upgraded = hyper::upgrade::on(&mut answer).await.expect("a stream");
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

/// Trap: a WebSocket over HTTP/2 is offered, and then passed on as something that no kit knows.
#[tokio::test]
async fn a_websocket_over_http_2_echoes() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    for h2c in [false, true] {
        let mut socket = websocket(&rig, &web, h2c).await;
        let hello = socket.next().await.expect("open").expect("a message");
        assert_eq!(hello, Message::from("hello"));
        for size in [0usize, 1, 126, 65_536, 1 << 20] {
            let message = Message::binary(vec![size as u8; size]);
            socket.send(message.clone()).await.expect("sent");
            let echo = socket.next().await.expect("open").expect("a message");
            assert_eq!(echo, message, "{size}");
        }
        rig.comes_to("hoody_proxy_websockets", 1.0).await;
        socket.close(None).await.expect("closed");
        while let Some(Ok(_)) = socket.next().await {}
        drop(socket);
        let logged = || {
            let log = rig.log();
            let lines = log.iter().filter(|line| line["target"] == "/ws?x=y");
            (lines.count() == 1 + usize::from(h2c)).then_some(())
        };
        eventually(logged).await;
        rig.comes_to("hoody_proxy_websockets", 0.0).await;
    }
    let line = rig.logged("/ws?x=y").await;
    assert_eq!(
        (&line["status"], &line["websocket"], &line["http"]),
        (&200.into(), &true.into(), &"2".into())
    );
}

#[tokio::test]
async fn a_websocket_over_http_2_lives_while_others_come_and_go() {
    let mut rig = Rig::with(|config| {
        config.limits.body = Duration::from_millis(100);
        config.limits.keepalive = Duration::from_millis(300);
    })
    .await;
    let web = rig.running().await;
    let mut socket = websocket(&rig, &web, false).await;
    socket.next().await.expect("open").expect("a message");
    tokio::time::sleep(Duration::from_millis(700)).await;
    socket.send("still".into()).await.expect("sent");
    let echo = socket.next().await.expect("open").expect("a message");
    assert_eq!(echo, Message::from("still"));
    drop(socket);
}

#[tokio::test]
async fn nothing_but_a_websocket_is_tunnelled_over_http_2() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let _control = rig.control();
    let host = web.host("terminal-1");
    let mut raw = Raw::tls(&rig, &host).await;
    // It is offered at once.
    let settings = raw.next().await.expect("in time").expect("settings");
    assert_eq!(settings.kind, kind::SETTINGS);
    assert!(
        settings
            .payload
            .chunks(6)
            .any(|it| it == [0, 8, 0, 0, 0, 1])
    );
    let connect = |protocol: &str, host: &str| {
        fields(&[
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "https"),
            (":path", "/ws"),
            (":authority", host),
        ])
    };
    raw.request(1, &connect("connect-udp", &host), &[b""]).await;
    assert_eq!(raw.outcome(1).await, Outcome::Status(405));
    raw.request(3, &connect("websocket", &host), &[b""]).await;
    assert_eq!(raw.outcome(3).await, Outcome::Status(200));
    let mut raw = Raw::tls(&rig, API).await;
    raw.request(1, &connect("websocket", API), &[b""]).await;
    assert_eq!(raw.outcome(1).await, Outcome::Status(405));
    let asked = web.seen().requests.load(Ordering::SeqCst);
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_grpc_call_gets_its_trailers() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("http-50051");
    let mut sender = {
        let stream = rig.tls(&host, &[b"h2"]).await.expect("a connection");
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("a connection");
        tokio::spawn(connection);
        sender
    };
    // Message by message: each is answered before the next one is sent.
    let (say, said) = tokio::sync::mpsc::channel::<Bytes>(1);
    let said = stream::unfold(said, |mut said| async {
        let message = said.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(message)), said))
    });
    let ask = Request::post(format!("https://{host}/echo.Echo/Say"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(Box::pin(said)))
        .expect("a request");
    let mut answer = sender.send_request(ask).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    for number in 0..5u8 {
        let message = Bytes::from(vec![number; 100]);
        say.send(message.clone()).await.expect("sent");
        let frame = answer
            .body_mut()
            .frame()
            .await
            .expect("open")
            .expect("a part");
        assert_eq!(frame.into_data().expect("data"), message);
    }
    drop(say);
    let rest = answer.into_body().collect().await.expect("it ends");
    assert_eq!(rest.trailers().expect("trailers")["grpc-status"], "0");
}

/// A message of gRPC: whether it is compressed, its length, itself.
fn message(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("short").to_be_bytes();
    [&[0][..], &length, text].concat()
}

/// Messages of every size, cut where no message ends, and every way in which a call ends.
#[tokio::test]
async fn calls_of_grpc_end_with_their_status() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("http-50051");
    let sizes = [0usize, 1, 100, 16_384, 1 << 20];
    let sent: Vec<u8> = sizes
        .iter()
        .flat_map(|&size| message(&vec![size as u8 ^ 7; size]))
        .collect();
    for (kind, method) in [
        ("application/grpc", "Say"),
        ("application/grpc+proto", "Say"),
        ("application/grpc;charset=utf-8", "Fail"),
        ("application/grpc+json", "Break"),
    ] {
        let mut sender = {
            let stream = rig.tls(&host, &[b"h2"]).await.expect("a connection");
            let stream = TokioIo::new(stream);
            let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
            let (sender, connection) = made.expect("a connection");
            tokio::spawn(connection);
            sender
        };
        let parts: Vec<Bytes> = sent.chunks(9_973).map(Bytes::copy_from_slice).collect();
        let parts = stream::iter(parts).map(|part| Ok::<_, Infallible>(Frame::data(part)));
        let ask = Request::post(format!("https://{host}/echo.Echo/{method}"))
            .header("content-type", kind)
            .header("te", "trailers")
            .header("grpc-timeout", "10S")
            .body(StreamBody::new(Box::pin(parts)))
            .expect("a request");
        let answer = sender.send_request(ask).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("it ends well");
        let trailers = body.trailers().cloned().unwrap_or_default();
        let said = body.to_bytes();
        match method {
            "Say" => {
                assert!(said == sent, "{kind}");
                assert_eq!(trailers["grpc-status"], "0");
            }
            "Fail" => {
                assert!(said.is_empty() && trailers.is_empty());
                assert_eq!(head.headers["grpc-status"], "5");
                assert_eq!(head.headers["grpc-message"], "nothing%20here");
            }
            _ => {
                assert_eq!(said, message(b"hi"));
                assert_eq!(trailers["grpc-status"], "13");
                assert_eq!(trailers["x-detail-bin"], "AAEC");
            }
        }
    }
}

#[tokio::test]
async fn http_2_without_tls_is_served() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let stream = TokioIo::new(rig.tcp().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .expect("a connection");
    tokio::spawn(connection);
    for number in 0..3usize {
        let ask = Request::post(format!("http://{host}/{number}"))
            .body(Full::new(Bytes::from(vec![0; number * 100_000])));
        let answer = sender.send_request(ask.expect("a request")).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.version(), Version::HTTP_2);
        let heard = Heard::from(answer).await;
        assert_eq!(heard.json()["body"], number * 100_000);
        assert_eq!(heard.told("x-hoody-edge-scheme"), ["http"]);
    }
}

/// A kit that is told what to say, byte by byte. It reads one request's head and hands over the
/// connection.
async fn says(
    web: &mut Container,
    speak: impl AsyncFn(BufReader<tokio::net::UnixStream>, String) + Send + Sync + 'static,
) -> tokio::task::LocalSet {
    web.kit = None;
    let _ = std::fs::remove_file(web.socket());
    let listener = UnixListener::bind(web.socket()).expect("a socket");
    let local = tokio::task::LocalSet::new();
    local.spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            speak(stream, head).await;
        }
    });
    local
}

/// Any other protocol goes on as what it is, in both directions.
#[tokio::test]
async fn any_other_upgrade_becomes_a_tunnel() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let host = web.host("http-9000");
    let local = says(&mut web, async |mut stream, head| {
        assert!(
            head.to_ascii_lowercase().contains("upgrade: tcp\r\n"),
            "{head}"
        );
        assert!(
            head.to_ascii_lowercase()
                .contains("connection: upgrade\r\n"),
            "{head}"
        );
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello";
        stream.write_all(switch.as_bytes()).await.expect("written");
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            bytes[..read].reverse();
            stream.write_all(&bytes[..read]).await.expect("written");
        }
    })
    .await;
    let talk = async {
        for method in ["GET", "POST"] {
            let mut socket = BufReader::new(rig.tcp().await);
            let ask = format!(
                "{method} /attach HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            );
            socket.write_all(ask.as_bytes()).await.expect("written");
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert_ne!(socket.read_line(&mut head).await.expect("a line"), 0);
            }
            assert!(head.starts_with("HTTP/1.1 101"), "{head}");
            let mut bytes = [0; 5];
            socket.read_exact(&mut bytes).await.expect("read");
            assert_eq!(&bytes, b"hello");
            for word in ["abcde", "\0\r\n\r\n"] {
                socket.write_all(word.as_bytes()).await.expect("written");
                socket.read_exact(&mut bytes).await.expect("read");
                bytes.reverse();
                assert_eq!(&bytes, word.as_bytes());
            }
        }
    };
    local.run_until(talk).await;
}

/// Another version of HTTP is no protocol to go on with: its requests would pass by every rule.
#[tokio::test]
async fn an_upgrade_to_http_2_is_not_passed_on() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("http-9000");
    for protocol in [
        "h2c",
        "H2C",
        "HTTP/2.0",
        "websocket, h2c",
        "TLS/1.2, HTTP/1.1",
        "h2",
    ] {
        let ask = Request::get("/")
            .header("host", &host)
            .header("connection", "upgrade, http2-settings")
            .header("upgrade", protocol)
            .header("http2-settings", "AAMAAABkAAQAAP__");
        let heard = rig.ask(ask).await;
        assert_eq!(heard.status, StatusCode::OK);
        for name in ["upgrade", "connection", "http2-settings"] {
            assert!(heard.told(name).is_empty(), "{protocol}: {name}");
        }
    }
}

#[tokio::test]
async fn hints_come_before_the_answer() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let host = web.host("http-9000");
    let local = says(&mut web, async |mut stream, _| {
        let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
                      HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer.as_bytes()).await.expect("written");
    })
    .await;
    let talk = async {
        let ask = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = rig.raw(ask.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 103 Early Hints\r\n"),
            "{answer}"
        );
        assert!(answer.contains("\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("ok"), "{answer}");
        // HTTP/2 has them left out, and its answer whole.
        let mut raw = Raw::tls(&rig, &host).await;
        let ask = fields(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/"),
            (":authority", &host),
        ]);
        raw.request(1, &ask, &[]).await;
        assert_eq!(raw.outcome(1).await, Outcome::Status(200));
    };
    local.run_until(talk).await;
}

#[tokio::test]
async fn heads_ranges_and_empty_answers_stay_what_they_are() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let host = web.host("http-9000");
    let local = says(&mut web, async |mut stream, head| {
        let path = head.split(' ').nth(1).expect("a target");
        let answer: &[u8] = match path {
            "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            "/range" => {
                assert!(head.to_ascii_lowercase().contains("range: bytes=2-4\r\n"), "{head}");
                b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/9\r\nContent-Length: 3\r\n\r\ncde"
            }
            "/none" => b"HTTP/1.1 204 No Content\r\n\r\n",
            "/same" => b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 99\r\n\r\n",
            "/empty" => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "/chunks" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "/close" => b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
            other => panic!("{other}"),
        };
        stream.write_all(answer).await.expect("written");
    })
    .await;
    let talk = async {
        let ask = |method: &str, path: &str| {
            Request::builder()
                .method(method)
                .uri(path)
                .header("host", &host)
                .header("range", "bytes=2-4")
        };
        let heard = rig.ask(ask("HEAD", "/head")).await;
        assert_eq!(
            (heard.header("content-length"), heard.text()),
            (Some("1234"), "")
        );
        let heard = rig.ask(ask("GET", "/range")).await;
        assert_eq!((heard.status.as_u16(), heard.text()), (206, "cde"));
        assert_eq!(heard.header("content-range"), Some("bytes 2-4/9"));
        let heard = rig.ask(ask("GET", "/none")).await;
        assert_eq!((heard.status.as_u16(), heard.text()), (204, ""));
        let heard = rig.ask(ask("GET", "/same")).await;
        assert_eq!(
            (heard.status.as_u16(), heard.header("etag")),
            (304, Some("\"x\""))
        );
        let heard = rig.ask(ask("GET", "/empty")).await;
        assert_eq!(
            (heard.header("content-length"), heard.text()),
            (Some("0"), "")
        );
        assert_eq!(rig.ask(ask("GET", "/chunks")).await.text(), "abc");
        assert_eq!(rig.ask(ask("GET", "/close")).await.text(), "until the end");
    };
    local.run_until(talk).await;
}

/// A client may close its own direction and wait.
#[tokio::test]
async fn a_half_closed_client_gets_its_answer() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let mut socket = rig.tcp().await;
    let ask = format!("GET /gate HTTP/1.1\r\nHost: {host}\r\n\r\n");
    socket.write_all(ask.as_bytes()).await.expect("written");
    socket.shutdown().await.expect("half closed");
    let asked = || (web.seen().requests.load(Ordering::SeqCst) == 1).then_some(());
    eventually(asked).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    web.seen().gate.notify_one();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("read");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("open"),
        "{answer}"
    );
}

/// How many bytes of memory this process holds.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("on Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.expect("a line").split_whitespace().next();
    words.expect("a number").parse::<u64>().expect("kibibytes") << 10
}

/// Upload so many chunks of 64 KiB; by how much the memory of this process grew at most.
async fn upload(chunks: u64, h2: bool) -> u64 {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("files-1");
    web.seen().read_uploads.store(true, Ordering::SeqCst);
    let chunk = Bytes::from(vec![1u8; 64 << 10]);
    let before = resident();
    let most = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let seen = most.clone();
    let parts = stream::iter(0..chunks).map(move |number| {
        if number % 64 == 0 {
            seen.fetch_max(resident().saturating_sub(before), Ordering::SeqCst);
        }
        Ok::<_, Infallible>(Frame::data(chunk.clone()))
    });
    let body = BodyExt::boxed(StreamBody::new(parts));
    let answer = if h2 {
        let stream = rig.tls(&host, &[b"h2"]).await.expect("a connection");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("a connection");
        tokio::spawn(connection);
        let ask = Request::post(format!("https://{host}/upload")).body(body);
        sender
            .send_request(ask.expect("a request"))
            .await
            .expect("an answer")
    } else {
        let ask = Request::post("/upload").header("host", &host).body(body);
        rig.send(ask.expect("a request")).await
    };
    assert_eq!(Heard::from(answer).await.text(), (chunks << 16).to_string());
    most.load(Ordering::SeqCst)
}

/// Client, proxy and kit are in one process here: this bounds them together.
const UPLOAD_MEMORY: u64 = 32 << 20;

#[tokio::test]
async fn an_upload_takes_constant_memory() {
    for h2 in [false, true] {
        let grown = upload(4 << 10, h2).await;
        assert!(grown < UPLOAD_MEMORY, "{grown} bytes for 256 MiB, h2: {h2}");
    }
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn an_upload_of_ten_gigabytes_takes_constant_memory() {
    for h2 in [false, true] {
        let grown = upload(10_000_000_000_u64.div_ceil(64 << 10), h2).await;
        assert!(grown < UPLOAD_MEMORY, "{grown} bytes for 10 GB, h2: {h2}");
    }
}

// ---- the PROXY protocol

async fn through(rig: &Rig, header: &[u8], host: &str) -> String {
    let ask = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    rig.raw(&[header, ask.as_bytes()].concat()).await
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[tokio::test]
async fn a_stated_sender_says_for_whom_it_speaks() {
    let mut rig = Rig::with(|config| {
        config.senders = vec!["127.0.0.0/8".parse().expect("a network")];
        config.limits.handshake = Duration::from_millis(500);
    })
    .await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let client = |address: &str| format!(r#"["x-hoody-edge-client","{address}"]"#);
    let answer = through(
        &rig,
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n",
        &host,
    )
    .await;
    assert!(answer.contains(&client("192.0.2.7")), "{answer}");
    assert!(
        answer.contains(r#"["x-forwarded-for","192.0.2.7"]"#),
        "{answer}"
    );
    let six = [V2, &[0x21, 0x21, 0, 36], &[0x20; 32], &[1, 2, 3, 4]].concat();
    let answer = through(&rig, &six, &host).await;
    assert!(
        answer.contains(&client("2020:2020:2020:2020:2020:2020:2020:2020")),
        "{answer}"
    );
    // A check of its own.
    let answer = through(&rig, &[V2, &[0x20, 0, 0, 0]].concat(), &host).await;
    assert!(answer.contains(&client("127.0.0.1")), "{answer}");
    assert_eq!(rig.logged("/").await["client"], "192.0.2.7");
    // Without it, or with something else, there is no service.
    for header in [
        &b""[..],
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\n",
        &[V2, &[0x21, 0x11, 0xff, 0xff]].concat(),
    ] {
        assert_eq!(through(&rig, header, &host).await, "", "{header:?}");
    }
    let malformed = "hoody_proxy_connections_dropped_total{reason=\"sender_malformed\"}";
    rig.comes_to(malformed, 4.0).await;
    // Nor for one that does not come to its end.
    assert_eq!(rig.raw(b"PROXY TCP4 192.0").await, "");
    let slow = "hoody_proxy_connections_dropped_total{reason=\"sender_slow\"}";
    rig.comes_to(slow, 1.0).await;
}

#[tokio::test]
async fn a_stated_sender_speaks_before_the_handshake() {
    let mut rig = Rig::with(|config| {
        config.senders = vec!["127.0.0.1".parse().expect("a network")];
    })
    .await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    let stream = rig
        .tls_after(header, &host, &[b"h2"])
        .await
        .expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a connection");
    tokio::spawn(connection);
    let ask = Request::get(format!("https://{host}/")).body(Full::new(Bytes::new()));
    let answer = sender.send_request(ask.expect("a request")).await;
    let heard = Heard::from(answer.expect("an answer")).await;
    assert_eq!(heard.told("x-hoody-edge-client"), ["192.0.2.7"]);
    assert_eq!(heard.told("x-hoody-edge-scheme"), ["https"]);
    assert!(rig.tls(&host, &[b"h2"]).await.is_err());
}

#[tokio::test]
async fn nobody_else_speaks_for_another() {
    let mut rig = Rig::with(|config| {
        config.senders = vec!["192.0.2.0/24".parse().expect("a network")];
    })
    .await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n";
    let answer = through(&rig, header, &host).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(rig.tls_after(header, &host, &[b"h2"]).await.is_err());
    let answer = through(&rig, &[V2, &[0x20, 0, 0, 0]].concat(), &host).await;
    assert!(!answer.contains(" 200 "), "{answer}");
    assert_eq!(web.seen().requests.load(Ordering::SeqCst), 0);
    assert!(through(&rig, b"", &host).await.starts_with("HTTP/1.1 200"));
}
