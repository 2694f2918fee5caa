//! WebSockets as bytes: whatever one side writes, right or wrong, the other side reads, and the
//! other way round. The proxy has no opinion on what they say.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::rig::{Container, Rig, eventually};

/// For anything that must come.
const PATIENCE: Duration = Duration::from_secs(30);

pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// How a WebSocket is opened.
const WAYS: [&str; 4] = ["http", "https", "h2", "h2c"];

/// An open WebSocket to a kit that echoes bytes.
async fn open(rig: &Rig, web: &Container, way: &str) -> Box<dyn Io> {
    let host = web.host("http-9000");
    match way {
        "http" => switch(rig.tcp().await, &host).await,
        "https" => {
            let stream = rig.tls(&host, &[b"http/1.1"]).await.expect("a connection");
            switch(stream, &host).await
        }
        "h2" => {
            let stream = rig.tls(&host, &[b"h2"]).await.expect("a connection");
            connect(stream, &host).await
        }
        _ => connect(rig.tcp().await, &host).await,
    }
}

async fn switch(stream: impl Io + 'static, host: &str) -> Box<dyn Io> {
    let mut stream = BufReader::new(stream);
    let ask = format!(
        "GET /raw HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.expect("written");
    stream.flush().await.expect("written");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(
            stream.read_line(&mut head).await.expect("a line"),
            0,
            "{head}"
        );
    }
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    Box::new(stream)
}

async fn connect(stream: impl Io + 'static, host: &str) -> Box<dyn Io> {
    let stream = TokioIo::new(stream);
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
    let (mut sender, connection) = made.expect("a connection");
    tokio::spawn(connection);
    let ask = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://{host}/raw"))
        .extension(Protocol::from_static("websocket"))
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let mut answer = sender.send_request(ask).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let upgraded = hyper::upgrade::on(&mut answer).await.expect("a stream");
    Box::new(TokioIo::new(upgraded))
}

/// A masked frame (RFC 6455, section 5.2), as a client sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        middle @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend_from_slice(&mask);
    frame.extend(
        payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ mask[at % 4]),
    );
    frame
}

const FIN: u8 = 0x80;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What is written, by what it is.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let mut corpus: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |what: &str, frames: &[Vec<u8>]| corpus.push((what.to_owned(), frames.concat()));
    for size in [0usize, 1, 125, 126, 127, 65_535, 65_536, 4 << 20] {
        add(
            &format!("text of {size}"),
            &[frame(FIN | TEXT, &vec![b'*'; size])],
        );
        add(
            &format!("binary of {size}"),
            &[frame(FIN | BINARY, &vec![0xfe; size])],
        );
    }
    let parts = |count: u8, size: usize| -> Vec<Vec<u8>> {
        (0..count)
            .map(|number| {
                let kind = if number == 0 { TEXT } else { 0 };
                let end = if number + 1 == count { FIN } else { 0 };
                frame(kind | end, &vec![b'a' + number % 26; size])
            })
            .collect()
    };
    add("a message in two parts", &parts(2, 10));
    add("a message in many parts", &parts(200, 1_000));
    add("a message in empty parts", &parts(20, 0));
    let mut mixed = parts(5, 100);
    for at in (1..5).rev() {
        mixed.insert(at, frame(FIN | PING, &[at as u8; 125]));
        mixed.insert(at, frame(FIN | PONG, b""));
    }
    add("pings between parts", &mixed);
    add("a storm of pings", &vec![frame(FIN | PING, b"x"); 10_000]);
    add(
        "a storm of empty pongs",
        &vec![frame(FIN | PONG, b""); 10_000],
    );
    for text in ["κόσμε", "\u{10ffff}", "\u{0}", "\u{feff}a", "日本語", "🦀"] {
        add(
            &format!("text {text:?}"),
            &[frame(FIN | TEXT, text.as_bytes())],
        );
    }
    // A letter that is cut in two by a frame.
    let crab = "🦀".as_bytes();
    add(
        "a letter in two frames",
        &[frame(TEXT, &crab[..2]), frame(FIN, &crab[2..])],
    );
    for bad in [
        &[0xff][..],
        &[0xc0, 0xaf],
        &[0xed, 0xa0, 0x80],
        &[0xf4, 0x90, 0x80, 0x80],
        &[0xce],
    ] {
        add(&format!("no UTF-8 {bad:x?}"), &[frame(FIN | TEXT, bad)]);
    }
    // Rules that an endpoint keeps, and a proxy does not look at.
    add("a reserved bit", &[frame(FIN | 0x40 | TEXT, b"x")]);
    add("all reserved bits", &[frame(FIN | 0x70 | TEXT, b"x")]);
    for kind in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        add(&format!("kind {kind}"), &[frame(FIN | kind, b"x")]);
    }
    add("a ping in parts", &[frame(PING, b"x"), frame(FIN, b"y")]);
    add("a ping that is too large", &[frame(FIN | PING, &[0; 126])]);
    add("a part of nothing", &[frame(FIN, b"x")]);
    add("no mask", &[vec![FIN | TEXT, 1, b'x']]);
    add(
        "a length in too many bytes",
        &[vec![FIN | BINARY, 0x80 | 126, 0, 1, 0, 0, 0, 0, b'x']],
    );
    add(
        "a length beyond all",
        &[vec![
            FIN | BINARY,
            0x80 | 127,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
        ]],
    );
    let codes = [
        0u16, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1011, 1015, 1016, 2999, 3000,
        4999, 5000, 65_535,
    ];
    for code in codes {
        let payload = [&code.to_be_bytes()[..], b"why"].concat();
        add(&format!("close {code}"), &[frame(FIN | CLOSE, &payload)]);
    }
    add("close without a code", &[frame(FIN | CLOSE, b"")]);
    add("close with half a code", &[frame(FIN | CLOSE, &[3])]);
    add("close with too much", &[frame(FIN | CLOSE, &[3; 126])]);
    add(
        "more after the close",
        &[
            frame(FIN | CLOSE, &[3, 232]),
            frame(FIN | TEXT, b"still here"),
        ],
    );
    corpus
}

#[tokio::test]
async fn bytes_arrive_unchanged_in_both_directions() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    for way in WAYS {
        let mut stream = open(&rig, &web, way).await;
        for (what, bytes) in corpus() {
            // In pieces that end where no frame does.
            for piece in bytes.chunks(19_973) {
                stream.write_all(piece).await.expect("written");
                stream.flush().await.expect("written");
                let mut echo = vec![0; piece.len()];
                let heard = tokio::time::timeout(PATIENCE, stream.read_exact(&mut echo)).await;
                let heard = heard.unwrap_or_else(|_| panic!("{way}: {what} does not come"));
                heard.expect("read");
                assert!(echo == piece, "{way}: {what}");
            }
        }
    }
}

/// Trap: while Pingora waits to write to a kit, it reads nothing from it; a kit that waits to be
/// read before it reads on, as this one does, would wait for ever.
#[tokio::test]
async fn a_tunnel_that_is_full_in_both_directions_goes_on() {
    const MIB: usize = 32;
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    for way in ["http", "https"] {
        let (mut read, mut write) = tokio::io::split(open(&rig, &web, way).await);
        let wrote = tokio::spawn(async move {
            for number in 0..MIB {
                write
                    .write_all(&vec![number as u8; 1 << 20])
                    .await
                    .expect("written");
            }
            write.flush().await.expect("written");
            write
        });
        for number in 0..MIB {
            let mut echo = vec![0; 1 << 20];
            let heard = tokio::time::timeout(PATIENCE, read.read_exact(&mut echo)).await;
            heard
                .unwrap_or_else(|_| panic!("{way}: it goes on"))
                .expect("read");
            assert!(echo.iter().all(|&byte| byte == number as u8), "{way}");
        }
        drop(wrote.await.expect("no panic"));
    }
}

/// What a kit has not read yet when its client leaves still reaches it.
#[tokio::test]
async fn last_words_arrive() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    web.seen().read_uploads.store(false, Ordering::SeqCst);
    let mut socket = rig.tcp().await;
    let ask = format!(
        "GET /listen HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        web.host("http-9000")
    );
    socket.write_all(ask.as_bytes()).await.expect("written");
    let mut head = [0; 12];
    socket.read_exact(&mut head).await.expect("read");
    assert_eq!(&head, b"HTTP/1.1 101");
    // More than the buffers of the kit's socket, and less than all there are.
    let words = vec![7u8; 1 << 20];
    socket.write_all(&words).await.expect("written");
    socket.shutdown().await.expect("closed");
    tokio::time::sleep(Duration::from_millis(200)).await;
    web.seen().read_uploads.store(true, Ordering::SeqCst);
    eventually(|| (web.seen().received.load(Ordering::SeqCst) == 1 << 20).then_some(())).await;
}

/// Whichever side ends without a word, the other one learns of it.
#[tokio::test]
async fn an_end_without_a_close_is_an_end() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    for way in WAYS {
        let mut stream = open(&rig, &web, way).await;
        stream
            .write_all(&frame(TEXT, b"half a mess"))
            .await
            .expect("written");
        stream.flush().await.expect("written");
        let mut echo = [0; 17];
        stream.read_exact(&mut echo).await.expect("read");
        drop(stream);
    }
    while rig.metric("hoody_proxy_websockets").await > 0.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut open_ones = Vec::new();
    for way in WAYS {
        open_ones.push((way, open(&rig, &web, way).await));
    }
    for (way, mut stream) in open_ones {
        // The kit goes as soon as it hears this.
        stream.write_all(b"leave").await.expect("written");
        stream.flush().await.expect("written");
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
        let _ = end.await.unwrap_or_else(|_| panic!("{way}: it ends"));
        assert!(rest.is_empty(), "{way}");
    }
}
