//! The terminal of a browser: the `tty` WebSocket, through the proxy.

use futures::{SinkExt, StreamExt};
use serde_json::json;
use tests::Rig;
use tests::rig::{Container, PATIENCE};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::terminal::Terminal;

const WS: &str = "/api/v1/terminal/ws";

/// A browser's side of a terminal.
struct Tty {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    output: String,
    /// What the frame `3` said.
    id: String,
}

impl Tty {
    async fn connect(rig: &Rig, container: &Container, query: &str) -> Tty {
        let path = format!("{WS}?{query}");
        let mut socket = rig
            .websocket(container, "terminal", &path, Some("tty"))
            .await
            .expect("it connects");
        let greeting = json!({ "command": "{", "columns": 90, "rows": 20 }).to_string();
        socket
            .send(Message::text(greeting))
            .await
            .expect("it listens");
        Tty {
            socket,
            output: String::new(),
            id: String::new(),
        }
    }

    async fn send(&mut self, text: &str) {
        self.socket
            .send(Message::binary(format!("0{text}").into_bytes()))
            .await
            .expect("it listens");
    }

    /// Take one frame; the code of the last one.
    async fn take(&mut self) -> Option<CloseCode> {
        let frame = tokio::time::timeout(PATIENCE, self.socket.next())
            .await
            .expect("a frame comes");
        match frame.expect("the stream goes on").expect("a frame") {
            Message::Binary(bytes) => {
                let text = String::from_utf8_lossy(&bytes[1..]).into_owned();
                match bytes[0] {
                    b'0' => self.output.push_str(&text),
                    b'3' => self.id = text,
                    _ => {}
                }
                None
            }
            Message::Close(frame) => Some(frame.expect("a reason is given").code),
            Message::Text(text) => panic!("clients read text frames as something else: {text}"),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        }
    }

    async fn until(&mut self, text: &str) {
        while !self.output.contains(text) {
            assert_eq!(
                self.take().await,
                None,
                "before {text:?} came: {:?}",
                self.output
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_outlives_its_clients_and_is_shared() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    let web = &terminal.container;
    let mut first = Tty::connect(&rig, web, "terminal_id=3&shell=bash").await;
    first.send("echo size $(stty size); LEFT=behind\r").await;
    first.until("size 20 90").await;
    assert_eq!(first.id, "3");
    drop(first);

    // another client, later, is shown what there was and finds the same shell
    let mut second = Tty::connect(&rig, web, "terminal_id=3").await;
    second.until("size 20 90").await;
    second.send("echo $LEFT-$((2 + 2))\r").await;
    second.until("behind-4").await;

    // a third looks only
    let mut third = Tty::connect(&rig, web, "terminal_id=3&readonly=true").await;
    third.until("behind-4").await;
    third.send("echo INTRU''DER\r").await;
    second.send("echo both''-see\r").await;
    second.until("both-see").await;
    third.until("both-see").await;
    assert!(!third.output.contains("INTRUDER"), "{}", third.output);

    // much output arrives whole
    second.send("seq 1 20000; echo END''-OF-IT\r").await;
    second.until("END-OF-IT").await;
    assert!(second.output.contains("\n19999\r\n20000\r\n"));

    second.send("exit\r").await;
    let code = loop {
        if let Some(code) = second.take().await {
            break code;
        }
    };
    assert_eq!(u16::from(code), 4000);
    rig.until("the session is over", || async {
        terminal.get("/terminal/sessions").await.json() == json!([])
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_connected_is_refused_with_a_status() {
    let rig = Rig::start().await;
    let terminal = Terminal::of(&rig).await;
    for (query, status) in [
        ("terminal_id=many", 400),
        ("shell=/no/such/shell", 400),
        ("ssh_host=elsewhere", 400),
        ("pid=1", 501),
    ] {
        let path = format!("{WS}?{query}");
        match rig
            .websocket(&terminal.container, "terminal", &path, Some("tty"))
            .await
        {
            Err(Error::Http(refused)) => assert_eq!(refused.status().as_u16(), status, "{query}"),
            other => panic!("{query}: {other:?}"),
        }
    }
    // without an upgrade there is nothing to see
    terminal.get("/terminal/ws").await.expect(426);

    // nor where the container is off for good
    let stop = format!("/api/v1/containers/{}/force-stop", terminal.container.id);
    rig.post(&stop, json!({})).await.expect(200);
    rig.reached(&terminal.container, "stopped").await;
    match rig
        .websocket(&terminal.container, "terminal", WS, Some("tty"))
        .await
    {
        Err(Error::Http(refused)) => assert_eq!(refused.status().as_u16(), 503),
        other => panic!("{other:?}"),
    }
    rig.stop().await;
}
