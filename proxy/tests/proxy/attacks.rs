//! A container that replaces its socket, and clients whose requests mean two things.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use routes::table::{KIT_SOCKET, Owners};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::Kit;
use crate::rig::{Container, Rig, eventually};

/// Let `replace` put something else where the kit's socket was.
async fn replaced(replace: impl FnOnce(&Path, &Path)) -> (Rig, Container, Kit, u16) {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    assert_eq!(
        rig.get(&web.host("terminal-1"), "/").await.status,
        StatusCode::OK
    );
    // A server of the host, such as the engine's.
    let outside = rig.directory.path().join("engine.sock");
    let engine = Kit::serve(&outside);
    web.kit = None;
    std::fs::remove_file(web.socket()).expect("removed");
    replace(&web.socket(), &outside);
    let begun = Instant::now();
    let html = Request::get("/")
        .header("host", web.host("terminal-1"))
        .header("accept", "text/html");
    let heard = rig.ask(html).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "it does not hang");
    if heard.status != StatusCode::OK {
        assert!(heard.text().contains("service_failed"), "{}", heard.text());
        assert!(!heard.text().contains("sock") && !heard.text().contains("/tmp"));
    }
    let status = heard.status.as_u16();
    (rig, web, engine, status)
}

async fn refused(reason: &str, replace: impl FnOnce(&Path, &Path)) {
    let (rig, _web, engine, status) = replaced(replace).await;
    assert_eq!(status, 502, "{reason}");
    assert_eq!(
        engine.seen.connections.load(Ordering::SeqCst),
        0,
        "the host was reached"
    );
    let metric = format!("hoody_proxy_upstream_errors_total{{reason=\"{reason}\"}}");
    rig.comes_to(&metric, 1.0).await;
    let fault = format!("upstream: {reason}");
    eventually(|| rig.log().into_iter().find(|line| line["fault"] == fault)).await;
}

#[tokio::test]
async fn a_link_to_a_socket_of_the_host_is_not_followed() {
    refused("socket_refused", |socket, outside| {
        symlink(outside, socket).expect("a link");
    })
    .await;
}

#[tokio::test]
async fn a_relative_link_is_not_followed() {
    refused("socket_refused", |socket, _| {
        symlink("../../engine.sock", socket).expect("a link");
    })
    .await;
}

#[tokio::test]
async fn a_link_through_proc_is_not_followed() {
    refused("socket_refused", |socket, outside| {
        let directory = std::fs::File::open(outside.parent().expect("a parent")).expect("opened");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&directory);
        symlink(format!("/proc/self/fd/{fd}/engine.sock"), socket).expect("a link");
        std::mem::forget(directory);
    })
    .await;
}

#[tokio::test]
async fn a_fifo_does_not_hold_anything_up() {
    refused("not_a_socket", |socket, _| {
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, socket, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a FIFO");
    })
    .await;
}

#[tokio::test]
async fn a_file_is_not_a_socket() {
    refused("not_a_socket", |socket, _| {
        std::fs::write(socket, "x").expect("a file");
    })
    .await;
}

#[tokio::test]
async fn a_directory_is_not_a_socket() {
    refused("not_a_socket", |socket, outside| {
        std::fs::create_dir(socket).expect("a directory");
        symlink(outside, socket.join(KIT_SOCKET)).expect("a link");
    })
    .await;
}

#[tokio::test]
async fn a_link_to_a_directory_is_not_followed() {
    refused("socket_refused", |socket, outside| {
        symlink(outside.parent().expect("a parent"), socket).expect("a link");
    })
    .await;
}

#[tokio::test]
async fn nothing_at_all_is_a_failed_service() {
    refused("no_socket", |_, _| {}).await;
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_a_failed_service() {
    refused("connect_refused", |socket, _| {
        drop(std::os::unix::net::UnixListener::bind(socket).expect("a socket"));
    })
    .await;
}

#[tokio::test]
async fn a_socket_of_its_own_works() {
    let mut kit = None;
    let (_rig, _web, engine, status) = replaced(|socket, _| kit = Some(Kit::serve(socket))).await;
    assert_eq!(status, 200);
    assert_eq!(engine.seen.connections.load(Ordering::SeqCst), 0);
    assert_eq!(
        kit.expect("it serves")
            .seen
            .connections
            .load(Ordering::SeqCst),
        1
    );
}

#[tokio::test]
async fn a_socket_of_another_user_is_refused() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    // As if the socket, which this test owns, had been linked in from outside.
    web.place.owners = Owners {
        base: 4_000_000_000,
        count: 65_536,
    };
    web.place.incarnation += 1;
    rig.upsert(&web.place).await;
    let heard = rig.get(&web.host("terminal-1"), "/").await;
    assert_eq!(heard.code(), "service_failed");
    assert_eq!(web.seen().connections.load(Ordering::SeqCst), 0);
    let metric = "hoody_proxy_upstream_errors_total{reason=\"foreign_owner\"}";
    rig.comes_to(metric, 1.0).await;
}

#[tokio::test]
async fn a_directory_that_became_a_link_is_not_followed() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let elsewhere = rig.directory.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a directory");
    let engine = Kit::serve(&elsewhere.join(KIT_SOCKET));
    web.kit = None;
    std::fs::remove_dir_all(&web.place.directory).expect("removed");
    symlink(&elsewhere, &web.place.directory).expect("a link");
    assert_eq!(
        rig.get(&web.host("terminal-1"), "/").await.code(),
        "service_failed"
    );
    assert_eq!(engine.seen.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_kit_that_never_accepts_is_given_up() {
    let mut rig = Rig::with(|config| config.limits.connect = Duration::from_millis(300)).await;
    let mut web = rig.running().await;
    web.kit = None;
    std::fs::remove_file(web.socket()).expect("removed");
    let full = std::os::unix::net::UnixListener::bind(web.socket()).expect("a socket");
    rustix::net::listen(&full, 0).expect("a queue of one");
    let _held: Vec<_> = (0..4)
        .map_while(|_| {
            let flags = rustix::net::SocketFlags::NONBLOCK;
            let kind = rustix::net::SocketType::STREAM;
            let unix = rustix::net::AddressFamily::UNIX;
            let socket = rustix::net::socket_with(unix, kind, flags, None).expect("a socket");
            let to = rustix::net::SocketAddrUnix::new(web.socket()).expect("an address");
            rustix::net::connect(&socket, &to).ok().map(|()| socket)
        })
        .collect();
    let heard = rig.get(&web.host("terminal-1"), "/").await;
    assert_eq!(
        (heard.status, heard.code().as_str()),
        (StatusCode::GATEWAY_TIMEOUT, "service_timeout")
    );
}

/// A connection to a container that was restarted is never used for the new one.
#[tokio::test]
async fn a_new_incarnation_gets_new_connections() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let host = web.host("terminal-1");
    for _ in 0..20 {
        rig.get(&host, "/").await;
    }
    let before = web.seen().connections.load(Ordering::SeqCst);
    assert!(before <= 2, "one a worker: {before}");
    web.place.incarnation += 1;
    rig.upsert(&web.place).await;
    rig.get(&host, "/").await;
    assert_eq!(web.seen().connections.load(Ordering::SeqCst), before + 1);
}

/// A kit that was restarted behind pooled connections answers the next request.
#[tokio::test]
async fn a_restarted_kit_answers_at_once() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    for _ in 0..20 {
        assert_eq!(
            rig.get(&web.host("terminal-1"), "/").await.status,
            StatusCode::OK
        );
        web.kit = None;
        web.kit = Some(Kit::serve(&web.socket()));
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_failed_service() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    web.kit = None;
    for nonsense in [
        "nonsense\r\n\r\n",
        "",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
    ] {
        let _ = std::fs::remove_file(web.socket());
        let listener = tokio::net::UnixListener::bind(web.socket()).expect("a socket");
        let speaks = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("accepts");
                let mut request = [0; 1024];
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, nonsense.as_bytes()).await;
            }
        });
        let heard = rig.get(&web.host("terminal-1"), "/").await;
        assert_eq!(
            (heard.status.as_u16(), heard.code().as_str()),
            (502, "service_failed")
        );
        speaks.abort();
    }
}

#[tokio::test]
async fn requests_that_mean_two_things_are_refused() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let cases: &[(&str, String)] = &[
        (
            "TRACE",
            format!("TRACE / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
        ),
        (
            "CONNECT",
            format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ),
        (
            "no host",
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n".into(),
        ),
        ("no host in 1.0", "GET / HTTP/1.0\r\n\r\n".into()),
        (
            "two hosts",
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"),
        ),
        ("bare LF", format!("GET / HTTP/1.1\nHost: {host}\n\n")),
        (
            "one bare LF",
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: 1\nY: 2\r\n\r\n"),
        ),
        (
            "folding",
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: 1\r\n 2\r\n\r\n"),
        ),
        (
            "CL.TE",
            format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 6\r\n\
                 Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"
            ),
        ),
        (
            "TE.CL",
            format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\
                 content-length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n"
            ),
        ),
        (
            "TE.TE",
            format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\
                 Transfer-Encoding: identity\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "identity, chunked",
            format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: identity, chunked\r\n\r\n\
                 0\r\n\r\n"
            ),
        ),
        (
            "xchunked",
            format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "two lengths",
            format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n\
                 abcd"
            ),
        ),
        (
            "a signed length",
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: +3\r\n\r\nabc"),
        ),
        (
            "a space before the colon",
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length : 3\r\n\r\nabc"),
        ),
        (
            "a null",
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: a\0b\r\n\r\n"),
        ),
    ];
    for (what, request) in cases {
        let answer = rig.raw(request.as_bytes()).await;
        let refused = answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 405");
        assert!(refused, "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
    }
    assert_eq!(web.seen().requests.load(Ordering::SeqCst), 0);
    // The rig still works.
    let heard = rig.get(&host, "/").await;
    assert_eq!(heard.status, StatusCode::OK);
    eventually(|| (web.seen().requests.load(Ordering::SeqCst) == 1).then_some(())).await;
}

/// What a client gets from a kit that answers everything with these bytes, and then hangs up.
async fn answered(rig: &mut Rig, bytes: Vec<u8>) -> String {
    let mut web = rig.running().await;
    web.kit = None;
    std::fs::remove_file(web.socket()).expect("removed");
    let listener = tokio::net::UnixListener::bind(web.socket()).expect("a socket");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&bytes).await;
            });
        }
    });
    let host = web.host("terminal-1");
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    rig.raw(request.as_bytes()).await
}

#[tokio::test]
async fn a_kit_that_leaves_http_unasked_is_a_failed_service() {
    let mut rig = Rig::start().await;
    let lie = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nevil";
    let heard = answered(&mut rig, lie.into()).await;
    assert!(heard.starts_with("HTTP/1.1 502 "), "{heard}");
    assert!(!heard.contains("evil"), "{heard}");
    rig.comes_to("hoody_proxy_websockets", 0.0).await;
}

#[tokio::test]
async fn a_kit_that_announces_without_end_is_a_failed_service() {
    let mut rig = Rig::start().await;
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let heard = answered(&mut rig, (hint.repeat(3) + last).into()).await;
    assert!(heard.ends_with("\r\n\r\nok"), "{heard}");
    assert_eq!(heard.matches(" 103 ").count(), 3, "{heard}");
    let heard = answered(&mut rig, (hint.repeat(1000) + last).into()).await;
    assert!(heard.matches(" 103 ").count() <= 64, "{heard}");
    assert!(!heard.ends_with("ok"), "{heard}");
}
