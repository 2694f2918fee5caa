use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::*;

type Stream = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// A browser's side of a terminal.
struct Tty {
    stream: Stream,
    output: Vec<u8>,
    titles: Vec<String>,
    /// The frames `3` and `4`.
    told: Vec<(u8, String)>,
}

impl Rig {
    async fn listen(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("ws://{address}/api/v1/terminal/ws")
    }
}

impl Tty {
    async fn dial(url: &str) -> Result<Stream, Error> {
        let mut request = url.into_client_request().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", "tty".parse().unwrap());
        let (stream, response) = tokio_tungstenite::connect_async(request).await?;
        assert_eq!(response.headers()["sec-websocket-protocol"], "tty");
        Ok(stream)
    }

    async fn connect(url: &str, columns: u16, rows: u16) -> Tty {
        let mut stream = Tty::dial(url).await.unwrap();
        let greeting = json!({ "command": "{", "columns": columns, "rows": rows }).to_string();
        stream.send(Message::text(greeting)).await.unwrap();
        Tty {
            stream,
            output: Vec::new(),
            titles: Vec::new(),
            told: Vec::new(),
        }
    }

    async fn send(&mut self, text: &str) {
        self.stream
            .send(Message::binary(format!("0{text}").into_bytes()))
            .await
            .unwrap();
    }

    /// Take one frame; the close frame ends it.
    async fn take(&mut self) -> Option<CloseFrame> {
        match tokio::time::timeout(PATIENCE, self.stream.next())
            .await
            .expect("no frame came")
        {
            Some(Ok(Message::Binary(bytes))) => {
                let text = || String::from_utf8_lossy(&bytes[1..]).into_owned();
                match bytes[0] {
                    b'0' => self.output.extend_from_slice(&bytes[1..]),
                    b'1' => self.titles.push(text()),
                    other => self.told.push((other, text())),
                }
                None
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
            Some(Ok(Message::Close(frame))) => Some(frame.expect("a reason is given")),
            other => panic!("{other:?}"),
        }
    }

    /// Read until the output has this in it.
    async fn until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.output).contains(text) {
            if let Some(frame) = self.take().await {
                panic!(
                    "closed with {frame:?} before {text:?} came: {:?}",
                    String::from_utf8_lossy(&self.output)
                );
            }
        }
    }

    async fn until_closed(&mut self) -> CloseFrame {
        loop {
            if let Some(frame) = self.take().await {
                return frame;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_clients_and_shows_what_they_missed() {
    let rig = Rig::start();
    let url = rig.listen().await + "?terminal_id=5";
    let mut first = Tty::connect(&url, 100, 40).await;
    first
        .send("echo one-$((40+2)); stty size; printf '\\033]0;my title\\007'\r")
        .await;
    first.until("one-42\r\n40 100\r\n").await;
    while first.titles.is_empty() {
        first.take().await;
    }
    assert_eq!(first.titles, ["my title"]);
    assert_eq!(
        first.told,
        [(b'3', "5".to_owned()), (b'4', "bash".to_owned())]
    );
    drop(first);
    rig.run(5, "echo while-you-were-away; printf '\\033[6n\\007'")
        .await;
    let mut second = Tty::connect(&url, 100, 40).await;
    second.until("while-you-were-away").await;
    let text = String::from_utf8_lossy(&second.output).into_owned();
    assert!(
        text.contains("one-42") && !text.contains("\u{1b}[6n") && !text.contains("7717"),
        "{text:?}"
    );
    second.send("echo again\r").await;
    second.until("\ragain\r\n").await;
    // Both see what either types.
    let mut third = Tty::connect(&url, 100, 40).await;
    third.send("echo from-the-third\r").await;
    second.until("\rfrom-the-third\r\n").await;
    third.until("\rfrom-the-third\r\n").await;
    third.send("exit 3\r").await;
    for tty in [&mut second, &mut third] {
        let frame = tty.until_closed().await;
        assert_eq!(
            (u16::from(frame.code), frame.reason.as_str()),
            (4000, "the shell ended with code 3")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_follow_the_smallest_who_may_type() {
    let rig = Rig::start();
    let url = rig.listen().await + "?terminal_id=1";
    let size = async |want: (u16, u16)| {
        eventually(async || {
            let list = rig.get("/api/v1/terminal/sessions").await;
            (list[0]["cols"] == want.0 && list[0]["rows"] == want.1).then_some(())
        })
        .await;
    };
    let large = Tty::connect(&url, 120, 50).await;
    size((120, 50)).await;
    let mut small = Tty::connect(&url, 60, 70).await;
    size((60, 50)).await;
    let viewer = Tty::connect(&format!("{url}&readonly=true"), 20, 10).await;
    small
        .stream
        .send(Message::text("1{\"columns\":70,\"rows\":20}"))
        .await
        .unwrap();
    size((70, 20)).await;
    small
        .stream
        .send(Message::text(
            "{\"command\":\"1\",\"columns\":71,\"rows\":21}",
        ))
        .await
        .unwrap();
    size((71, 21)).await;
    drop(small);
    size((120, 50)).await;
    drop(large);
    size((20, 10)).await;
    drop(viewer);
    eventually(async || {
        (rig.get("/api/v1/terminal/sessions").await[0]["clients"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_cannot_type() {
    let rig = Rig::start();
    let url = rig.listen().await;
    let mut writer = Tty::connect(&format!("{url}?terminal_id=1"), 80, 24).await;
    let mut viewer = Tty::connect(&format!("{url}?terminal_id=1&readonly"), 80, 24).await;
    viewer.send("echo from-the-viewer\r").await;
    writer.send("echo from-the-writer\r").await;
    viewer.until("\rfrom-the-writer\r\n").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    writer.send("echo end\r").await;
    writer.until("\rend\r\n").await;
    assert!(!String::from_utf8_lossy(&writer.output).contains("from-the-viewer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_is_served_too() {
    let rig = Rig::start();
    let url = rig.listen().await + "?terminal_id=1&cwd=/usr&env=A=1&cmd=ZWNobyBydW4tJEEtJFBXRA==";
    let stream = Tty::dial(&url).await.unwrap();
    let mut tty = Tty {
        stream,
        output: Vec::new(),
        titles: Vec::new(),
        told: Vec::new(),
    };
    tty.until("\rrun-1-/usr\r\n").await;
    // Unknown and broken frames are passed over.
    for frame in [
        Message::binary(Bytes::new()),
        Message::text("{"),
        Message::text("zzz"),
        Message::binary(vec![0xff; 10]),
    ] {
        tty.stream.send(frame).await.unwrap();
    }
    tty.send("echo fine\r").await;
    tty.until("\rfine\r\n").await;
    rig.ask("DELETE", "/api/v1/terminal/1", Value::Null).await;
    assert_eq!(u16::from(tty.until_closed().await.code), 4001);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_refused_before_the_upgrade() {
    let rig = Rig::start();
    let url = rig.listen().await;
    for (query, want) in [
        ("terminal_id=0x", 400),
        ("terminal_id=1&user=no-such-user", 400),
        ("terminal_id=1&shell=no-such-shell", 400),
        ("terminal_id=1&cwd=/no/such/place", 400),
        ("terminal_id=1&cmd=!", 400),
        ("terminal_id=1&ssh_host=x", 400),
        ("terminal_id=1&pid=1", 501),
    ] {
        match Tty::dial(&format!("{url}?{query}")).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), want, "{query}"),
            other => panic!("{query}: {other:?}"),
        }
    }
    assert_eq!(
        rig.ask("GET", "/api/v1/terminal/ws?terminal_id=1", Value::Null)
            .await
            .0,
        426
    );
    let mut tty = Tty::connect(&format!("{url}?terminal_id=1"), 80, 24).await;
    let huge = Message::binary(vec![b'0'; 2 << 20]);
    // A frame beyond the bound ends its connection and nothing else.
    let _ = tty.stream.send(huge).await;
    let mut other = Tty::connect(&format!("{url}?terminal_id=1"), 80, 24).await;
    other.send("echo fine\r").await;
    other.until("\rfine\r\n").await;
}

pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_the_program_and_costs_nothing() {
    let rig = Rig::start();
    let url = rig.listen().await + "?terminal_id=1";
    let written = async || {
        rig.get("/api/v1/terminal/automation/metrics").await["output_bytes"]
            .as_u64()
            .unwrap()
    };
    let still = async || {
        eventually(async || {
            let before = written().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            (written().await == before).then_some(before)
        })
        .await
    };
    let mut tty = Tty::connect(&url, 80, 24).await;
    tty.send("echo ready\r").await;
    tty.until("\rready\r\n").await;
    let before = resident();
    tty.send("yes\r").await;
    eventually(async || (written().await > 1 << 20).then_some(())).await;
    let stopped = still().await;
    assert!(
        resident() < before + (64 << 20),
        "{} more",
        resident() - before
    );
    // The program stands still, and an interrupt still reaches it.
    let begun = std::time::Instant::now();
    tty.send("\u{3}").await;
    eventually(async || {
        let list = rig.get("/api/v1/system/processes?filter=yes").await;
        let shell = rig.get("/api/v1/terminal/sessions").await[0]["pid"].clone();
        let is_there = list["processes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|process| process["ppid"] == shell);
        (!is_there).then_some(())
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert!(written().await < stopped + (4 << 20));
    tty.send("echo after-$((1+1))\r").await;
    tty.until("\rafter-2\r\n").await;

    // A pause does the same, until it is taken back.
    tty.stream.send(Message::binary("2")).await.unwrap();
    tty.send("seq 1 1000000; echo the-$((1+1))-end\r").await;
    let paused = still().await;
    assert!(paused < stopped + (8 << 20), "it is held up: {paused}");
    tty.stream.send(Message::binary("3")).await.unwrap();
    tty.until("the-2-end\r\n").await;
    let text = String::from_utf8_lossy(&tty.output);
    assert!(text.contains("\r\n999999\r\n1000000\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_is_quick_while_a_client_reads() {
    let rig = Rig::start();
    let url = rig.listen().await + "?terminal_id=1";
    let mut tty = Tty::connect(&url, 80, 24).await;
    tty.send("echo ready\r").await;
    tty.until("\rready\r\n").await;
    tty.send("yes\r").await;
    for _ in 0..200 {
        tty.take().await;
    }
    tty.output.clear();
    let begun = std::time::Instant::now();
    tty.send("\u{3}").await;
    tty.until("^C").await;
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}
