//! A proxy that takes the place of another one: nobody notices.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use routes::table::{Change, Whole};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::gates::{echoes, ends, only, password};
use crate::logs::{log_path, logged};
use crate::rig::{Container, Heard, Rig, eventually};

type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

async fn connected(rig: &Rig) -> Sender {
    let stream = TokioIo::new(rig.tcp().await);
    let made = hyper::client::conn::http1::handshake(stream).await;
    let (sender, connection) = made.expect("a connection");
    tokio::spawn(connection);
    sender
}

/// Requests without a pause, over connections that are kept for as long as the proxy keeps them.
async fn load(rig: &Rig, host: &str, stop: &AtomicBool, answered: &AtomicUsize) {
    let mut sender = connected(rig).await;
    while !stop.load(Ordering::SeqCst) {
        if sender.ready().await.is_err() {
            sender = connected(rig).await;
        }
        let ask = Request::get("/status")
            .header("host", host)
            .body(Full::default());
        let answer = sender.send_request(ask.expect("a request")).await;
        let answer = answer.expect("no request is lost");
        let last = answer
            .headers()
            .get("connection")
            .is_some_and(|it| it == "close");
        assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
        Heard::from(answer).await;
        answered.fetch_add(1, Ordering::SeqCst);
        if last {
            sender = connected(rig).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_successor_takes_over_and_nothing_is_lost() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let rig = rig;
    let host = web.host("terminal-1");
    let url = format!("ws://{host}/ws");
    let (mut socket, _) = client_async(&url, rig.tcp().await)
        .await
        .expect("a WebSocket");
    let hello = socket.next().await.expect("open").expect("a message");
    assert_eq!(hello, Message::from("hello"));
    // One that waits between two requests, and an answer that is under way.
    let mut idle = connected(&rig).await;
    let ask = |path: &str| {
        let ask = Request::get(path)
            .header("host", &host)
            .body(Full::default());
        ask.expect("a request")
    };
    Heard::from(idle.send_request(ask("/")).await.expect("an answer")).await;
    let mut waiting = connected(&rig).await;
    let asked = web.seen().requests.load(Ordering::SeqCst);
    let gate = tokio::spawn({
        let ask = ask("/gate");
        async move { waiting.send_request(ask).await.expect("an answer") }
    });
    let under_way = || (web.seen().requests.load(Ordering::SeqCst) > asked).then_some(());
    eventually(under_way).await;

    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let address = rig.http;
    let clients = futures::future::join_all((0..8).map(|_| load(&rig, &host, &stop, &answered)));
    let story = async {
        let enough = |more: usize| {
            let from = answered.load(Ordering::SeqCst);
            let answered = &answered;
            eventually(move || (answered.load(Ordering::SeqCst) >= from + more).then_some(()))
        };
        enough(50).await;
        for _ in 0..3 {
            rig.succeed(async || enough(50).await).await;
        }
        // What was open before is open still.
        socket.send("still here".into()).await.expect("sent");
        let echo = socket.next().await.expect("open").expect("a message");
        assert_eq!(echo, Message::from("still here"));
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(clients, story);
    let heard = Heard::from(idle.send_request(ask("/")).await.expect("an answer")).await;
    assert_eq!(
        (heard.status, heard.header("connection")),
        (StatusCode::OK, Some("close"))
    );
    web.seen().gate.notify_one();
    assert_eq!(
        Heard::from(gate.await.expect("no panic")).await.text(),
        "open"
    );
    drop(socket);
    assert_eq!(rig.latest(), address, "the address is the same");
    assert_eq!(rig.get(&host, "/").await.status, StatusCode::OK);
}

/// A client of HTTP/2 is told to go, and its requests are answered.
#[tokio::test]
async fn a_client_of_http_2_is_told_to_go() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let rig = rig;
    let host = web.host("terminal-1");
    let mut h2 = rig.h2(&host).await;
    let ask = |path: &str| {
        let ask = Request::get(format!("https://{host}{path}")).body(Full::new(Bytes::new()));
        ask.expect("a request")
    };
    let gate = h2.send_request(ask("/gate"));
    let asked = async {
        let asked = || (web.seen().requests.load(Ordering::SeqCst) == 1).then_some(());
        eventually(asked).await;
        rig.succeed(async || ()).await;
        web.seen().gate.notify_one();
    };
    let (answer, ()) = tokio::join!(gate, asked);
    assert_eq!(Heard::from(answer.expect("an answer")).await.text(), "open");
    let mut gone = false;
    for _ in 0..500 {
        gone = h2.ready().await.is_err() || h2.is_closed();
        if gone {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(gone, "it is told to go");
    let mut again = rig.h2(&host).await;
    let heard = Heard::from(again.send_request(ask("/")).await.expect("an answer")).await;
    assert_eq!(heard.status, StatusCode::OK);
}

/// A successor that asks and says nothing more takes nothing away.
#[tokio::test]
async fn a_successor_that_fails_changes_nothing() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let rig = rig;
    let host = web.host("terminal-1");
    for _ in 0..3 {
        let stream = tokio::net::UnixStream::connect(&rig.config.handover).await;
        drop(stream.expect("it is offered"));
        assert_eq!(rig.get(&host, "/").await.status, StatusCode::OK);
    }
    rig.succeed(async || ()).await;
    assert_eq!(rig.get(&host, "/").await.status, StatusCode::OK);
}

type WebSocket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

async fn websocket(rig: &Rig, web: &Container, path: &str) -> WebSocket {
    let url = format!("ws://{}{path}", web.host("terminal-1"));
    let opened = client_async(&url, rig.tcp().await).await;
    let (mut socket, _) = opened.expect("a WebSocket");
    let hello = socket.next().await.expect("open").expect("a message");
    assert_eq!(hello, Message::from("hello"));
    socket
}

/// Say again what there is, as control does where it connects.
async fn say_all(rig: &mut Rig, generation: u64, all: &[&Container]) {
    rig.hang_up();
    let places = all.iter().map(|web| web.place.clone()).collect();
    let whole = Whole {
        places,
        ..Whole::default()
    };
    rig.push(generation, Change::Whole(whole)).await;
}

/// What goes on over a proxy that leaves is held against the rules that its successor is told,
/// however many there are between.
#[tokio::test]
async fn a_changed_rule_ends_what_goes_on_over_the_old_proxy() {
    let mut rig = Rig::start().await;
    let (mut web, mut next_door, gone) = (
        rig.running().await,
        rig.running().await,
        rig.running().await,
    );
    let mut first = websocket(&rig, &web, "/ws").await;
    rig.succeed(async || ()).await;
    say_all(&mut rig, 100, &[&web, &next_door, &gone]).await;
    let mut second = websocket(&rig, &next_door, "/ws").await;
    let mut third = websocket(&rig, &gone, "/ws").await;
    rig.succeed(async || ()).await;
    say_all(&mut rig, 200, &[&web, &next_door, &gone]).await;
    let mut untouched = websocket(&rig, &next_door, "/ws").await;
    for socket in [&mut first, &mut second, &mut third] {
        echoes(socket).await;
    }
    web.place.access = Some(only(vec![password()]).into());
    rig.push(201, Change::Upsert(web.place.clone())).await;
    assert!(ends(&mut first).await);
    echoes(&mut second).await;
    rig.push(202, Change::Remove(gone.place.container)).await;
    assert!(ends(&mut third).await);
    next_door.place.access = Some(only(vec![password()]).into());
    rig.push(203, Change::Upsert(next_door.place.clone())).await;
    assert!(ends(&mut second).await);
    assert!(ends(&mut untouched).await);
}

/// What a successor finds on disk may be old or damaged; until control has told it what there is, it
/// tells others nothing.
#[tokio::test]
async fn a_damaged_table_on_disk_ends_nothing_at_the_old_proxy() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let mut socket = websocket(&rig, &web, "/ws").await;
    let table = &rig.config.table;
    let kept = table.parent().expect("a directory");
    for entry in std::fs::read_dir(kept).expect("it is there") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.starts_with("table") {
            std::fs::write(&path, "{").expect("written");
        }
    }
    rig.succeed(async || ()).await;
    // several reviews long
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        echoes(&mut socket).await;
    }
    say_all(&mut rig, 100, &[&web]).await;
    echoes(&mut socket).await;
    rig.push(101, Change::Remove(web.place.container)).await;
    assert!(ends(&mut socket).await);
}

/// One process writes the log of a container, in one order, whoever served the request.
#[tokio::test]
async fn the_log_of_a_container_has_one_writer() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let mut open = Vec::new();
    let mut paths = Vec::new();
    for turn in 0..3 {
        let path = format!("/ws?turn={turn}");
        open.push(websocket(&rig, &web, &path).await);
        rig.get(&web.host("files-1"), &format!("/turn={turn}"))
            .await;
        paths.push(path);
        rig.succeed(async || ()).await;
        say_all(&mut rig, 100 * (turn + 1), &[&web]).await;
    }
    // The beginning of each is written; the oldest ends last.
    for path in &paths {
        logged(&rig, &web, path, 1).await;
    }
    let before = std::fs::read_dir(log_path(&rig, &web)).expect("it is there");
    let before = before.count();
    while let Some(socket) = open.pop() {
        drop(socket);
        let path = paths.pop().expect("one each");
        let both = logged(&rig, &web, &path, 2).await;
        assert_eq!(both[1]["kind"], "response", "{both:?}");
        assert_eq!(both[0]["traceId"], both[1]["traceId"]);
        rig.get(&web.host("files-1"), "/between").await;
    }
    // Six of the WebSockets and three others, which say `turn`.
    let all = logged(&rig, &web, "turn=", 9).await;
    let ids: Vec<u64> = all
        .iter()
        .filter_map(|entry| entry["id"].as_u64())
        .collect();
    assert_eq!(ids.len(), 9);
    assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");
    // On disk it is the same, and the newest began one file at most.
    let after = std::fs::read_dir(log_path(&rig, &web)).expect("it is there");
    assert!(after.count() <= before + 1);
    rig.restart().await;
    assert_eq!(logged(&rig, &web, "turn=", 9).await, all);
    // The access log of the node has every request, in whole lines.
    for turn in 0..3 {
        rig.logged(&format!("/ws?turn={turn}")).await;
        rig.logged(&format!("/turn={turn}")).await;
    }
}

/// Where the successor is killed, what it was to write goes to the one after it.
#[tokio::test]
async fn the_successor_may_be_killed() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let (mut ending, mut cut) = (
        websocket(&rig, &web, "/ws?a").await,
        websocket(&rig, &web, "/ws?b").await,
    );
    rig.succeed(async || ()).await;
    rig.crash().await;
    say_all(&mut rig, 300, &[&web]).await;
    echoes(&mut ending).await;
    drop(ending);
    let both = logged(&rig, &web, "/ws?a", 2).await;
    assert_eq!(both[1]["kind"], "response", "{both:?}");
    web.place.access = Some(only(vec![password()]).into());
    rig.push(301, Change::Upsert(web.place.clone())).await;
    assert!(ends(&mut cut).await);
}

/// Of two proxies at once, the one that leaves shows the log as the other writes it, and leaves
/// it to the other to clear it.
#[tokio::test]
async fn the_old_proxy_shows_what_the_new_one_writes() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let logs = web.host("logs-1");
    let (mut reader, mut clearer) = (connected(&rig).await, connected(&rig).await);
    let ask = |request: http::request::Builder| {
        let request = request.header("host", &logs).body(Full::default());
        request.expect("a request")
    };
    for sender in [&mut reader, &mut clearer] {
        let heard = sender
            .send_request(ask(Request::get("/_logs?last=9")))
            .await;
        Heard::from(heard.expect("an answer")).await;
    }
    rig.succeed(async || ()).await;
    say_all(&mut rig, 100, &[&web]).await;
    rig.get(&web.host("files-1"), "/after").await;
    logged(&rig, &web, "/after", 1).await;
    let heard = clearer.send_request(ask(Request::delete("/_logs"))).await;
    let heard = Heard::from(heard.expect("an answer")).await;
    assert_eq!(heard.status, StatusCode::SERVICE_UNAVAILABLE);
    let read = ask(Request::get("/_logs?last=9&level=info&search=/after"));
    let heard = reader.send_request(read).await.expect("an answer");
    let heard = Heard::from(heard).await;
    assert_eq!(heard.header("connection"), Some("close"));
    assert_eq!(heard.json().as_array().map(Vec::len), Some(1), "{heard:?}");
}
