//! A proxy that takes the place of another one: nobody notices.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::rig::{Heard, Rig, eventually};

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
