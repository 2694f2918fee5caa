//! Containers that sleep, and a control that wakes them or does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{Empty, Full};
use routes::access::{Policy, Rule};
use routes::domain::Alias;
use routes::sleep::{Call, Said, Sleep};
use routes::table::{Change, State};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::Notify;

use crate::gates::{basic, only, password};
use crate::rig::{Container, Heard, Rig, alias, alias_host, eventually};

/// Control's side of the wake: it counts what it is asked, and says the same each time.
struct Waker {
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Waker {
    /// Answers once it is let.
    fn says(rig: &Rig, said: Said, let_go: Arc<Notify>) -> Waker {
        let _ = std::fs::remove_file(&rig.config.wake);
        let listener = UnixListener::bind(&rig.config.wake).expect("a socket");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.expect("a line");
                let call = serde_json::from_str(&line).expect("a call");
                if !matches!(call, Call::Wake(_)) {
                    continue;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let_go.notified().await;
                let answer = serde_json::to_string(&said).expect("JSON");
                let answer = stream.write_all(format!("{answer}\n").as_bytes()).await;
                answer.expect("the proxy hears it");
            }
        });
        Waker { asked, task }
    }

    fn at_once(rig: &Rig, said: Said) -> Waker {
        let always = Arc::new(Notify::new());
        let again = always.clone();
        let waker = Waker::says(rig, said, always);
        tokio::spawn(async move {
            loop {
                again.notify_one();
                tokio::task::yield_now().await;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        });
        waker
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A container in this state that may be woken.
async fn sleeping(rig: &mut Rig, state: State) -> Container {
    let mut web = rig.container(state).await;
    web.place.sleep = Sleep::default();
    rig.upsert(&web.place).await;
    web
}

async fn set(rig: &mut Rig, web: &mut Container, state: State) {
    web.place.state = state;
    rig.upsert(&web.place).await;
}

/// Wait until so many requests are held.
async fn held(rig: &Rig, count: usize) {
    for _ in 0..1_000 {
        if rig.metric("hoody_proxy_held_requests").await == count as f64 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{count} requests are not held");
}

fn get(host: &str) -> Request<Empty<Bytes>> {
    let ask = Request::get("/").header("host", host);
    ask.body(Empty::new()).expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wake_serves_all_who_wait() {
    for state in [State::Stopped, State::Paused] {
        let mut rig = Rig::start().await;
        let go = Arc::new(Notify::new());
        let control = Waker::says(&rig, Said::Waking, go.clone());
        let mut web = sleeping(&mut rig, state).await;
        let host = web.host("terminal-1");
        let bound = rig.http;
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let request = get(&host);
                tokio::spawn(async move { send(bound, request).await })
            })
            .collect();
        held(&rig, 50).await;
        eventually(|| (control.asked() == 1).then_some(())).await;
        go.notify_one();
        set(&mut rig, &mut web, State::Starting).await;
        set(&mut rig, &mut web, State::Running).await;
        for heard in join_all(waiting).await {
            assert_eq!(heard.expect("no panic").status, StatusCode::OK);
        }
        assert_eq!(control.asked(), 1, "it was asked for once");
        held(&rig, 0).await;
    }
}

async fn send<B>(bound: std::net::SocketAddr, request: Request<B>) -> Heard
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let socket = tokio::net::TcpStream::connect(bound).await;
    let io = hyper_util::rt::TokioIo::new(socket.expect("it listens"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .expect("a connection");
    tokio::spawn(connection);
    Heard::from(sender.send_request(request).await.expect("an answer")).await
}

/// The body of what waits is taken when it goes on; HTTP/2 and WebSockets wait like the rest.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_is_held_until_the_kit_answers() {
    let mut rig = Rig::start().await;
    let control = Waker::at_once(&rig, Said::Waking);
    let mut web = sleeping(&mut rig, State::Stopped).await;
    let host = web.host("terminal-1");
    let bound = rig.http;
    let upload = Request::post("/upload").header("host", &host);
    let upload = upload.body(Full::new(Bytes::from(vec![7; 300_000])));
    let upload = upload.expect("a request");
    let upload = tokio::spawn(async move { send(bound, upload).await });
    let mut h2 = rig.h2(&host).await;
    let grpc = Request::post(format!("https://{host}/"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::new()))
        .expect("a request");
    let grpc = tokio::spawn(async move { h2.send_request(grpc).await });
    let mut socket = rig.tcp().await;
    let ask = format!(
        "GET /raw HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(ask.as_bytes()).await.expect("written");
    held(&rig, 3).await;
    assert!(control.asked() >= 1);
    web.seen().read_uploads.store(true, Ordering::SeqCst);
    set(&mut rig, &mut web, State::Running).await;
    assert_eq!(upload.await.expect("no panic").text(), "300000");
    let grpc = grpc.await.expect("no panic").expect("an answer");
    assert_eq!(grpc.status(), StatusCode::OK);
    let mut head = String::new();
    let mut socket = BufReader::new(socket);
    socket.read_line(&mut head).await.expect("a line");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_will_not_wait_is_told_when_to_come_back() {
    let mut rig = Rig::with(|config| config.limits.wake.page = std::time::Duration::ZERO).await;
    let _control = Waker::at_once(&rig, Said::Waking);
    let web = sleeping(&mut rig, State::Stopped).await;
    let ask = || Request::get("/").header("host", web.host("terminal-1"));
    let heard = rig.ask(ask().header("prefer", "wait=0")).await;
    assert_eq!(heard.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(heard.code(), "container_starting");
    assert_eq!(heard.header("retry-after"), Some("2"));
    let page = rig.ask(ask().header("accept", "text/html")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.text().contains("http-equiv=\"refresh\""));
    assert!(page.text().contains("role=\"status\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_control_refuses_is_said() {
    let mut rig = Rig::start().await;
    let web = sleeping(&mut rig, State::Paused).await;
    let host = web.host("terminal-1");
    let heard = rig.get(&host, "/").await;
    assert_eq!(heard.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(heard.code(), "wake_unavailable", "control is away");
    assert_eq!(heard.header("retry-after"), Some("2"));
    for (said, code, retry) in [
        (Said::No, "container_paused", None),
        (Said::Later(17), "wake_limited", Some("17")),
    ] {
        let _control = Waker::at_once(&rig, said);
        let heard = rig.get(&host, "/").await;
        assert_eq!(heard.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            (heard.code().as_str(), heard.header("retry-after")),
            (code, retry)
        );
    }
    // Words that are none.
    let listener = {
        let _ = std::fs::remove_file(&rig.config.wake);
        UnixListener::bind(&rig.config.wake).expect("a socket")
    };
    let liar = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let _ = stream.write_all(&vec![b'x'; 1 << 20]).await;
    });
    assert_eq!(rig.get(&host, "/").await.code(), "wake_unavailable");
    liar.abort();
}

/// Nobody is woken for those who may not come in, for the log, or where the owner does not want it.
#[tokio::test(flavor = "multi_thread")]
async fn gates_come_before_the_wake() {
    let mut rig = Rig::start().await;
    let control = Waker::at_once(&rig, Said::Waking);
    let mut web = sleeping(&mut rig, State::Stopped).await;
    let host = web.host("terminal-1");
    let logs = rig.get(&web.host("logs-1"), "/api/v1/logs").await;
    assert_ne!(logs.status, StatusCode::SERVICE_UNAVAILABLE);
    web.place.access = Some(Arc::new(Policy {
        default: Rule::Deny,
        ..Policy::open()
    }));
    rig.upsert(&web.place).await;
    assert_eq!(rig.get(&host, "/").await.code(), "access_denied");
    web.place.access = Some(Arc::new(only(vec![password()])));
    rig.upsert(&web.place).await;
    assert_eq!(rig.get(&host, "/").await.code(), "authentication_required");
    web.place.access = None;
    web.place.sleep.wakes = false;
    rig.upsert(&web.place).await;
    assert_eq!(rig.get(&host, "/").await.code(), "container_stopped");
    assert_eq!(control.asked(), 0);
    web.place.access = Some(Arc::new(only(vec![password()])));
    web.place.sleep.wakes = true;
    rig.upsert(&web.place).await;
    let bound = rig.http;
    let ask = Request::get("/").header("host", &host);
    let ask = ask.header("authorization", basic("ann", "secret"));
    let ask = ask.body(Empty::<Bytes>::new()).expect("a request");
    let asked = tokio::spawn(async move { send(bound, ask).await });
    held(&rig, 1).await;
    set(&mut rig, &mut web, State::Running).await;
    let heard = asked.await.expect("no panic");
    assert_eq!(heard.status, StatusCode::OK);
    assert!(heard.told("authorization").is_empty(), "it is kept back");
}

/// What changes while somebody waits holds for them, too.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_judged_by_what_holds_then() {
    let mut rig = Rig::start().await;
    let _control = Waker::at_once(&rig, Said::Waking);
    let mut web = sleeping(&mut rig, State::Stopped).await;
    let shop = alias("shop", &web, "terminal-1");
    rig.push(100, Change::Alias(shop.clone())).await;
    let bound = rig.http;
    let ask = |host: String| tokio::spawn(async move { send(bound, get(&host)).await });
    let (direct, by_alias) = (ask(web.host("terminal-1")), ask(alias_host("shop")));
    held(&rig, 2).await;
    let elsewhere = Alias {
        door: "files-1".parse().expect("a door"),
        ..shop
    };
    rig.push(101, Change::Alias(elsewhere)).await;
    web.place.access = Some(Arc::new(Policy {
        default: Rule::Deny,
        ..Policy::open()
    }));
    web.place.state = State::Running;
    rig.push(102, Change::Upsert(web.place.clone())).await;
    assert_eq!(direct.await.expect("no panic").code(), "access_denied");
    assert_eq!(by_alias.await.expect("no panic").code(), "unknown_host");
    assert_eq!(web.seen().requests.load(Ordering::SeqCst), 0);

    // What fails, or goes, keeps nobody waiting.
    web.place.access = None;
    web.place.state = State::Stopped;
    rig.push(103, Change::Upsert(web.place.clone())).await;
    let waits = ask(web.host("terminal-1"));
    held(&rig, 1).await;
    web.place.state = State::Failed;
    rig.push(104, Change::Upsert(web.place.clone())).await;
    assert_eq!(waits.await.expect("no panic").code(), "container_failed");
    web.place.state = State::Stopping;
    rig.push(105, Change::Upsert(web.place.clone())).await;
    let waits = ask(web.host("terminal-1"));
    held(&rig, 1).await;
    rig.push(106, Change::Remove(web.place.container)).await;
    assert_eq!(waits.await.expect("no panic").code(), "unknown_container");
}

/// Those who wait for one container are bounded, and others are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_one_container_is_bounded() {
    let mut rig = Rig::start().await;
    let control = Waker::at_once(&rig, Said::Waking);
    let mut web = sleeping(&mut rig, State::Starting).await;
    let other = rig.running().await;
    let host = web.host("terminal-1");
    let bound = rig.http;
    let waiting: Vec<_> = (0..256)
        .map(|_| {
            let request = get(&host);
            tokio::spawn(async move { send(bound, request).await })
        })
        .collect();
    held(&rig, 256).await;
    let heard = rig.get(&host, "/").await;
    assert_eq!(heard.code(), "wake_crowded");
    assert_eq!(heard.header("retry-after"), Some("2"));
    let heard = rig.get(&other.host("terminal-1"), "/").await;
    assert_eq!(heard.status, StatusCode::OK);
    set(&mut rig, &mut web, State::Running).await;
    for heard in join_all(waiting).await {
        assert_eq!(heard.expect("no panic").status, StatusCode::OK);
    }
    assert_eq!(control.asked(), 0, "what starts needs no wake");
}
