//! WebSockets, over a real connection.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::Bench;

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn serve(bench: &Bench) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = bench.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("ws://{address}")
}

async fn next(socket: &mut Socket) -> Message {
    let next = tokio::time::timeout(std::time::Duration::from_secs(15), socket.next());
    next.await
        .expect("in time")
        .expect("it goes on")
        .expect("a frame")
}

async fn text(socket: &mut Socket) -> Value {
    let message = next(socket).await;
    serde_json::from_str(message.to_text().unwrap()).unwrap_or_else(|_| panic!("{message:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_hear_their_own_sockets_and_no_others() {
    let bench = Bench::new();
    bench.put(
        "rooms/[room].ts",
        "// @mode worker\n// @websocket\nconst room = metadata.parameters.room\nlet began = metadata.method\n\
         ws.open = (socket, req) => socket.send({ hello: room, q: socket.data.query.who ?? null, began })\n\
         ws.message = (socket, data) => { if (data === 'die') Deno.exit(1); if (data === 'bye') return socket.close(4001, 'as you wish'); ws.broadcast(JSON.stringify({ room, text: typeof data === 'string' ? data : [...data] })) }\n\
         ws.close = () => { shared.closes = (shared.closes ?? 0) + 1 }\n\
         if (metadata.method === 'WEBSOCKET_INIT') return\n\
         if (req.method === 'POST') ws.broadcast({ room, text: req.body.text })\n\
         return { sockets: ws.connections.size }",
    );
    let base = serve(&bench).await;
    let open = async |path: &str| {
        connect_async(format!("{base}{path}"))
            .await
            .expect("it opens")
            .0
    };
    let mut one = open("/rooms/red?who=ann").await;
    let mut two = open("/rooms/red").await;
    let mut other = open("/rooms/blue").await;
    assert_eq!(
        text(&mut one).await,
        json!({ "hello": "red", "q": "ann", "began": "WEBSOCKET_INIT" })
    );
    assert_eq!(text(&mut two).await["q"], Value::Null);
    assert_eq!(text(&mut other).await["hello"], "blue");
    one.send(Message::text("hi")).await.unwrap();
    for socket in [&mut one, &mut two] {
        assert_eq!(text(socket).await, json!({ "room": "red", "text": "hi" }));
    }
    two.send(Message::binary(vec![1, 2])).await.unwrap();
    assert_eq!(text(&mut one).await["text"], json!([1, 2]));
    text(&mut two).await;
    let posted = bench
        .post("/rooms/red", json!({ "text": "from http" }))
        .await
        .expect(200);
    assert_eq!(posted.json()["sockets"], 2);
    assert_eq!(text(&mut one).await["text"], "from http");
    text(&mut two).await;
    let stats = bench.get("/api/v1/exec/monitor/stats").await.json();
    assert_eq!(stats["websocket"]["active"], 3);
    one.send(Message::text("bye")).await.unwrap();
    let Message::Close(Some(frame)) = next(&mut one).await else {
        panic!("no close")
    };
    assert_eq!(
        (u16::from(frame.code), frame.reason.as_str()),
        (4001, "as you wish")
    );
    drop(one);
    other.send(Message::text("still here")).await.unwrap();
    assert_eq!(text(&mut other).await["text"], "still here");
    two.send(Message::text("die")).await.unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), other.next()).await;
    assert!(
        !matches!(ended, Ok(Some(Ok(Message::Text(_))))),
        "{ended:?}"
    );
    bench
        .until("all are counted", async || {
            bench.get("/api/v1/exec/monitor/stats").await.json()["websocket"]["active"] == 0
        })
        .await;
    // and the next one is served by a new process
    let mut again = open("/rooms/red").await;
    assert_eq!(text(&mut again).await["hello"], "red");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_refused_where_its_script_does_not_take_it() {
    let bench = Bench::new();
    bench.put("plain.ts", "return 1");
    bench.put("half.ts", "// @websocket\nreturn 1");
    bench.put("in/pre.ts", "if (!metadata.query.key) return 'no'");
    bench.put(
        "in/room.ts",
        "// @mode worker\n// @websocket\nws.open = (socket) => socket.send({ in: true })",
    );
    bench.put("token.ts", "// @mode worker\n// @websocket\n// @token abc\nws.open = (socket) => socket.send({ in: true })");
    let base = serve(&bench).await;
    for path in ["/plain", "/half"] {
        let (mut socket, _) = connect_async(format!("{base}{path}"))
            .await
            .expect("it opens");
        let Message::Close(Some(frame)) = next(&mut socket).await else {
            panic!("no close")
        };
        assert_eq!(u16::from(frame.code), 4400);
    }
    for (path, status) in [("/in/room", 403), ("/token", 401), ("/nothing", 404)] {
        match connect_async(format!("{base}{path}")).await {
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
                assert_eq!(answer.status().as_u16(), status, "{path}")
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    for path in ["/in/room?key=1", "/token?token=abc"] {
        let (mut socket, _) = connect_async(format!("{base}{path}"))
            .await
            .expect("it opens");
        assert_eq!(text(&mut socket).await["in"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_sockets_are_open_at_once_up_to_the_limit() {
    let bench = Bench::new();
    bench.put("many.ts", "// @mode worker\n// @websocket\n// @concurrent 300\nws.message = (socket, data) => socket.send({ n: ws.connections.size })");
    let base = serve(&bench).await;
    let mut sockets = Vec::new();
    for _ in 0..300 {
        sockets.push(
            connect_async(format!("{base}/many"))
                .await
                .expect("it opens")
                .0,
        );
    }
    match connect_async(format!("{base}/many")).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
            assert_eq!(answer.status().as_u16(), 503)
        }
        other => panic!("{other:?}"),
    }
    let last = sockets.last_mut().unwrap();
    last.send(Message::text("x")).await.unwrap();
    assert_eq!(text(last).await["n"], 300);
    drop(sockets);
    bench
        .until("all are gone", async || {
            bench.get("/api/v1/exec/monitor/stats").await.json()["websocket"]["active"] == 0
        })
        .await;
    connect_async(format!("{base}/many"))
        .await
        .expect("there is room again");
}
