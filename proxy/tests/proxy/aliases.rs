//! Names of the node's own that lead into containers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use proxy::Resolvers;
use routes::domain::Alias;
use routes::table::Change;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::dns::Dns;
use crate::rig::{Heard, Rig, alias, alias_host as host, eventually};

#[tokio::test]
async fn an_alias_is_its_container_under_another_name() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let other = rig.running().await;
    rig.push(1_000, Change::Alias(alias("shop", &web, "http-3000")))
        .await;
    let heard = rig.get(&host("shop"), "/a/b?c=d").await;
    assert_eq!(heard.status, StatusCode::OK);
    assert_eq!(heard.json()["target"], "/a/b?c=d");
    assert_eq!(heard.told("x-hoody-edge-service"), ["http"]);
    assert_eq!(heard.told("x-hoody-edge-port"), ["3000"]);
    // The app sees the name that was asked for.
    assert_eq!(heard.told("host"), [host("shop")]);
    // The alias is moved: the next request goes where it leads now.
    rig.push(1_001, Change::Alias(alias("shop", &other, "files-2")))
        .await;
    let heard = rig.get(&host("shop"), "/").await;
    assert_eq!(heard.told("x-hoody-edge-service"), ["files"]);
    assert_eq!(heard.told("x-hoody-edge-index"), ["2"]);
}

#[tokio::test]
async fn an_alias_that_leads_nowhere_is_like_one_that_never_was() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let now = jiff_now();
    let past = Alias {
        expires: Some(now - 1),
        ..alias("past", &web, "files-1")
    };
    let future = Alias {
        expires: Some(now + 3_600_000),
        ..alias("future", &web, "files-1")
    };
    let mut lost = alias("lost", &web, "files-1");
    lost.container.0 = [0xee; 12];
    for (generation, change) in [
        (1_000, Change::Alias(past)),
        (1_001, Change::Alias(future)),
        (1_002, Change::Alias(lost)),
        (1_003, Change::Alias(alias("off", &web, "files-1"))),
        (1_004, Change::NoAlias("off".into())),
    ] {
        rig.push(generation, change).await;
    }
    assert_eq!(rig.get(&host("future"), "/").await.status, StatusCode::OK);
    let never = rig.get(&host("never"), "/").await;
    assert_eq!(never.code(), "unknown_host");
    for name in ["past", "lost", "off"] {
        let heard = rig.get(&host(name), "/").await;
        assert_eq!(
            (heard.status, &heard.body),
            (never.status, &never.body),
            "{name}"
        );
    }
}

fn jiff_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_millis()).expect("before the year 292277026")
}

/// A WebSocket by this name that has said hello.
async fn websocket(rig: &Rig, name: &str) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{name}/ws")
        .into_client_request()
        .expect("a request");
    let own = name.parse().expect("a host");
    request.headers_mut().insert("host", own);
    let opened = client_async(request, rig.tcp().await).await;
    let (mut socket, _) = opened.expect("it opens");
    let hello = socket.next().await.expect("it is open").expect("a message");
    assert_eq!(hello.into_text().expect("text"), "hello");
    socket
}

/// Whether something can be sent there and back.
async fn echoes(socket: &mut WebSocketStream<TcpStream>) -> bool {
    let said = Message::text("are you there?");
    if socket.send(said.clone()).await.is_err() {
        return false;
    }
    matches!(socket.next().await, Some(Ok(heard)) if heard == said)
}

/// Whether it ends by itself, whatever it says before.
async fn ends(socket: &mut WebSocketStream<TcpStream>) -> bool {
    let end = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(Duration::from_secs(30), end)
        .await
        .is_ok()
}

#[tokio::test]
async fn what_came_by_an_alias_ends_when_the_alias_does() {
    let dns = Dns::start().await;
    let resolvers = Resolvers::At(vec![dns.address]);
    let mut rig = Rig::with(move |config| config.resolvers = resolvers).await;
    let (web, other) = (rig.running().await, rig.running().await);
    let now = jiff_now();
    for (number, name) in ["off", "moved", "pinned", "brief", "stays"]
        .into_iter()
        .enumerate()
    {
        let mut made = alias(name, &web, "http-3000");
        if name == "brief" {
            made.expires = Some(now + 3_600_000);
        }
        rig.push(1_000 + number as u64, Change::Alias(made)).await;
        dns.leads(&format!("{name}.example.net"), &host(name));
    }
    let mut open = Vec::new();
    for name in ["off", "moved", "pinned", "brief", "stays"] {
        open.push((name, websocket(&rig, &host(name)).await));
        open.push((name, websocket(&rig, &format!("{name}.example.net")).await));
    }
    let mut direct = websocket(&rig, &web.host("http-3000")).await;
    let pinned = Alias {
        pinned: true,
        ..alias("pinned", &web, "http-3000")
    };
    rig.push(1_010, Change::NoAlias("off".into())).await;
    rig.push(1_011, Change::Alias(alias("moved", &other, "http-3000")))
        .await;
    rig.push(1_012, Change::Alias(pinned)).await;
    let over = Alias {
        expires: Some(now - 1),
        ..alias("brief", &web, "http-3000")
    };
    rig.push(1_014, Change::Alias(over)).await;
    for (name, socket) in &mut open {
        match *name {
            "stays" => assert!(echoes(socket).await),
            name => assert!(ends(socket).await, "{name}"),
        }
    }
    // What came by the container's own name has nothing to do with it.
    assert!(echoes(&mut direct).await);
    let logged = || {
        let lines = rig.log().into_iter();
        let of =
            lines.filter(|line| line["refusal"] == "unknown_host" && line["websocket"] == true);
        (of.count() == 8).then_some(())
    };
    eventually(logged).await;
    rig.comes_to("hoody_proxy_cut_total", 8.0).await;

    // A download ends short, and what has not been answered is answered like any other by now.
    let late = Request::get("/never").header("host", host("stays"));
    let late = late
        .body(http_body_util::Full::new(bytes::Bytes::new()))
        .expect("a request");
    let socket = hyper_util::rt::TokioIo::new(rig.tcp().await);
    let made = hyper::client::conn::http1::handshake(socket).await;
    let (mut sender, connection) = made.expect("a connection");
    tokio::spawn(connection);
    let before = web.seen().requests.load(Ordering::SeqCst);
    let answer = tokio::spawn(sender.send_request(late));
    eventually(|| (web.seen().requests.load(Ordering::SeqCst) > before).then_some(())).await;
    rig.push(1_015, Change::NoAlias("stays".into())).await;
    let answer = answer.await.expect("it ran").expect("an answer");
    assert_eq!(Heard::from(answer).await.code(), "unknown_host");
}

#[tokio::test]
async fn the_log_that_is_read_by_an_alias_ends_with_it() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    rig.push(1_000, Change::Alias(alias("log", &web, "logs-1")))
        .await;
    let ask = Request::get("/_logs/stream").header("host", host("log"));
    let ask = ask
        .body(http_body_util::Full::new(bytes::Bytes::new()))
        .expect("a request");
    let answer = rig.send(ask).await;
    assert_eq!(answer.status(), StatusCode::OK);
    rig.push(1_001, Change::NoAlias("log".into())).await;
    let end = http_body_util::BodyExt::collect(answer.into_body());
    let ended = tokio::time::timeout(Duration::from_secs(30), end).await;
    assert!(ended.is_ok(), "it goes on");
}

#[tokio::test]
async fn a_target_is_what_the_bare_name_shows() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let free = Alias {
        target: Some("/render?mode=ro".into()),
        ..alias("free", &web, "exec-1")
    };
    let pinned = Alias {
        name: "pinned".into(),
        pinned: true,
        ..free.clone()
    };
    rig.push(1_000, Change::Alias(free)).await;
    rig.push(1_001, Change::Alias(pinned)).await;
    for (name, asked, want) in [
        ("free", "/", Some("/render?mode=ro")),
        ("free", "/?a=1", Some("/render?mode=ro&a=1")),
        ("free", "/other?mode=rw", Some("/other?mode=rw")),
        ("pinned", "/?a=1&mode=rw", Some("/render?mode=ro&a=1")),
        ("pinned", "/render?m%6fde=rw", Some("/render?mode=ro")),
        ("pinned", "/other", None),
        ("pinned", "/render/", None),
        ("pinned", "/render/..%2fother", None),
        ("pinned", "/./render", None),
        ("pinned", "/api/v1/exec/scripts/write", None),
    ] {
        let heard = rig.get(&host(name), asked).await;
        match want {
            Some(want) => assert_eq!(heard.json()["target"], want, "{name} {asked}"),
            None => {
                assert_eq!(heard.status, StatusCode::NOT_FOUND, "{name} {asked}");
                assert_eq!(heard.code(), "alias_path_pinned", "{name} {asked}");
            }
        }
    }
    // In absolute form and over HTTP/2 it is the same path.
    let line = format!(
        "GET http://{0}/other HTTP/1.1\r\nhost: {0}\r\nconnection: close\r\n\r\n",
        host("pinned")
    );
    assert!(rig.raw(line.as_bytes()).await.contains("alias_path_pinned"));
    let mut h2 = rig.h2(&host("pinned")).await;
    for (path, status) in [("/other", 404), ("/?x=1", 200)] {
        let request = Request::get(format!("https://{}{path}", host("pinned")))
            .body(http_body_util::Full::new(bytes::Bytes::new()))
            .expect("a request");
        let answer = h2.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), status, "{path}");
    }
    // The log tells what was asked for.
    rig.logged("/?a=1").await;
}
