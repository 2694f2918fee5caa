//! The traps of Pingora that the edge must not fall into. Those that are not here have their tests
//! where their subject is:
//!
//! | trap | test |
//! |---|---|
//! | a tunnel is torn down right after its 101 | `streams::no_websocket_is_lost_after_its_handshake`, `tunnels::what_is_said_right_before_the_end_arrives` |
//! | an empty last DATA frame ends a body twice | `streams::an_empty_last_part_does_not_disturb_the_next_request` |
//! | kept connections and later headers have no deadline | `limits::slow_clients_are_let_go` |
//! | HTTP/2 without TLS waits for 24 bytes | `conformance::http_2_by_prior_knowledge_leaves_short_requests_alone` |
//! | headers have no deadline as a whole | `limits::slow_clients_are_let_go`, `floods::slow_headers_and_slow_bodies_hold_nobody_up` |
//! | a silent WebSocket dies after a minute | `streams::a_silent_websocket_lives_until_its_own_limit` |
//! | idle HTTP/2 connections live for ever | `limits::an_idle_http_2_connection_is_closed` |
//! | idle connections hold much memory | here |
//! | an idle WebSocket holds the buffers of its beginning | `tunnels::an_idle_tunnel_holds_little_memory` |
//! | upper case and dots in hosts miss | `requests::a_request_reaches_its_kit_with_what_the_proxy_knows`, `requests::a_certificate_is_for_the_hosts_it_names` |
//! | a WebSocket over HTTP/2 goes on untranslated | `protocols::a_websocket_over_http_2_echoes`, `protocols::nothing_but_a_websocket_is_tunnelled_over_http_2` |
//! | TRACE, bare LF, two lengths pass | `smuggling`, `attacks::requests_that_mean_two_things_are_refused` |
//! | peers have no deadlines, the pool never empties | here |
//! | slow bodies and slow readers stay | `floods::slow_headers_and_slow_bodies_hold_nobody_up`, `limits::a_reader_that_stops_is_let_go`, `floods::a_stalled_window_is_let_go` |
//! | a client that leaves is an error in the log | here |

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::protocols::resident;
use crate::rig::{Heard, Rig, eventually};

/// What an idle connection may hold: the client's end, the proxy's, and their TLS sessions, for
/// all of them are in this process.
const IDLE_BYTES: u64 = 160 << 10;

#[tokio::test]
async fn idle_connections_hold_little_memory() {
    const COUNT: usize = 400;
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let ask = format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let open = async || {
        let mut stream = rig.tls(&host, &[b"http/1.1"]).await.expect("a connection");
        stream.write_all(ask.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        while !answer.ends_with(b"short and stout") {
            assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0);
        }
        stream
    };
    // Whatever is made once is there by now.
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(open().await);
    }
    let before = resident();
    for _ in 0..COUNT {
        held.push(open().await);
    }
    let each = resident().saturating_sub(before) / COUNT as u64;
    assert!(each < IDLE_BYTES, "an idle connection holds {each} bytes");
    rig.comes_to("hoody_proxy_connections", 450.0).await;
}

#[tokio::test]
async fn kits_have_deadlines_and_the_pool_empties() {
    let mut rig = Rig::with(|config| {
        config.limits.upstream = Duration::from_millis(300);
        config.limits.connect = Duration::from_millis(300);
        config.limits.pool = Duration::from_millis(200);
        config.workers = 1;
    })
    .await;
    let mut web = rig.running().await;
    let host = web.host("terminal-1");
    // One that hears and does not answer.
    assert_eq!(rig.get(&host, "/never").await.code(), "service_timeout");
    // One that waits in the pool for longer than it may.
    let connections = || web.seen().connections.load(Ordering::SeqCst);
    assert_eq!(rig.get(&host, "/").await.status, StatusCode::OK);
    let before = connections();
    assert_eq!(rig.get(&host, "/").await.status, StatusCode::OK);
    assert_eq!(connections(), before, "it is used again");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(rig.get(&host, "/").await.status, StatusCode::OK);
    assert_eq!(connections(), before + 1, "it has been given up");
    // One that does not even take connections.
    web.kit = None;
    let _ = std::fs::remove_file(web.socket());
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (family, kind) = (
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
    );
    let deaf = rustix::net::socket_with(family, kind, flags, None).expect("a socket");
    let address = rustix::net::SocketAddrUnix::new(web.socket()).expect("an address");
    rustix::net::bind(&deaf, &address).expect("bound");
    rustix::net::listen(&deaf, 0).expect("listens");
    let filled =
        std::os::unix::net::UnixStream::connect(web.socket()).expect("the one there is room for");
    let heard = rig.get(&host, "/").await;
    assert!(matches!(heard.status.as_u16(), 502 | 504), "{heard:?}");
    drop((deaf, filled));
}

/// A kit that stops in the middle of an answer: it is not waited for, it is not asked again, and
/// what it said does not seem to be all.
#[tokio::test]
async fn a_kit_that_stops_in_the_middle_is_given_up() {
    let mut rig = Rig::with(|config| config.limits.upstream = Duration::from_millis(300)).await;
    let mut web = rig.running().await;
    web.kit = None;
    std::fs::remove_file(web.socket()).expect("removed");
    let listener = tokio::net::UnixListener::bind(web.socket()).expect("a socket");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").await;
            kept.push(stream);
        }
    });
    let host = web.host("terminal-1");
    let request = format!("GET /half HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let heard = rig.raw(request.as_bytes()).await;
    assert!(heard.starts_with("HTTP/1.1 200 "), "{heard}");
    assert!(heard.contains("half"), "{heard}");
    assert!(!heard.ends_with("0\r\n\r\n"), "it seems to be all: {heard}");
    let line = rig.logged("/half").await;
    assert_eq!(line["fault"], "upstream: read_timeout", "{line}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Many streams of one HTTP/2 connection to a kit: one that is not read holds up itself alone.
#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_no_other() {
    let mut rig = Rig::with(|config| config.workers = 1).await;
    let web = rig.running().await;
    let host = web.host("http-50051");
    let call = |path: &str| {
        Request::post(format!("https://{host}{path}"))
            .header("content-type", "application/grpc")
            .body(Full::new(Bytes::from_static(b"hello")))
            .expect("a request")
    };
    let mut unread = Vec::new();
    for _ in 0..8 {
        // Over a connection of its own, whose window fills: nobody takes anything out.
        let mut reader = rig.h2(&host).await;
        let answer = reader.send_request(call("/download?4096")).await;
        unread.push((answer.expect("an answer"), reader));
    }
    let mut sender = rig.h2(&host).await;
    for _ in 0..20 {
        let answer = sender.send_request(call("/echo.Echo/Say")).await;
        let heard = Heard::from(answer.expect("an answer")).await;
        assert_eq!(heard.text(), "hello");
    }
    drop(unread);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The only test that sets the log of this process.
#[tokio::test]
async fn a_client_that_leaves_is_no_error_in_the_log() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter(format!("warn,{},proxy::request=debug", proxy::QUIET))
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .with_writer(move || writer.clone())
        .init();
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let mut socket = rig.tcp().await;
    let ask = format!("GET /never HTTP/1.1\r\nHost: {host}\r\n\r\n");
    socket.write_all(ask.as_bytes()).await.expect("written");
    let asked = || (web.seen().requests.load(Ordering::SeqCst) == 1).then_some(());
    eventually(asked).await;
    drop(socket);
    rig.logged("/never").await;
    for nonsense in [
        "",
        "x",
        "GET",
        "\r\n\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxxxx",
    ] {
        let mut socket = rig.tcp().await;
        socket
            .write_all(nonsense.as_bytes())
            .await
            .expect("written");
        drop(socket);
    }
    let mut h2 = rig.h2(&host).await;
    let ask = Request::get(format!("https://{host}/never")).body(Full::new(Bytes::new()));
    let never = h2.send_request(ask.expect("a request"));
    let left = tokio::time::timeout(Duration::from_millis(100), never).await;
    assert!(left.is_err());
    drop(h2);
    let both = || {
        let log = rig.log();
        let lines = log.iter().filter(|line| line["target"] == "/never");
        (lines.count() == 2).then_some(())
    };
    eventually(both).await;

    // A request is a span, which is a part of the client's trace or begins one.
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let traced = |parent: &str| {
        Request::get("/traced")
            .header("host", &host)
            .header("traceparent", parent)
            .header("tracestate", "a=b")
    };
    let heard = rig.ask(traced(&format!("00-{trace}-{parent}-00"))).await;
    let [passed] = &heard.told("traceparent")[..] else {
        panic!("one parent");
    };
    assert!(
        passed.starts_with(&format!("00-{trace}-")) && passed.ends_with("-00"),
        "{passed}"
    );
    assert!(!passed.contains(parent), "{passed}");
    assert_eq!(heard.told("tracestate"), ["a=b"]);
    let begun = rig.ask(traced("nonsense")).await;
    let [made] = &begun.told("traceparent")[..] else {
        panic!("one parent");
    };
    assert!(made.len() == 55 && !made.contains(trace), "{made}");
    assert!(begun.told("tracestate").is_empty());
    let text = || String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("text");
    let span = || text().contains(&format!("trace_id={trace}")).then_some(());
    eventually(span).await;
    let text = text();
    for field in [
        &format!("parent_id={parent}"),
        "method=",
        "kind=\"kit\"",
        "status=200",
    ] {
        assert!(text.contains(field), "{field}: {text}");
    }
    for level in [" ERROR ", " WARN "] {
        assert!(!text.contains(level), "{text}");
    }
}

/// Where nobody traces, what the client says goes on as it came.
#[tokio::test]
async fn a_trace_goes_on_untouched() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let ask = Request::get("/")
        .header("host", web.host("terminal-1"))
        .header("traceparent", parent)
        .header("tracestate", "a=b,c=d");
    let heard = rig.ask(ask).await;
    assert_eq!(heard.told("traceparent"), [parent]);
    assert_eq!(heard.told("tracestate"), ["a=b,c=d"]);
    let heard = rig.get(&web.host("terminal-1"), "/").await;
    assert!(heard.told("traceparent").is_empty());
}
