//! Tunnels over HTTP/1.1 from their answer to their end: what comes with it, who waits for whom,
//! what is told at the end, and that nothing is left.

use std::time::Duration;

use futures::future::join_all;
use proxy::Config;
use routes::access::Policy;
use routes::table::{Change, State};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::gates::{only, password, rule};
use crate::protocols::resident;
use crate::rig::{Container, Rig, eventually};

/// For anything that must come.
const PATIENCE: Duration = Duration::from_secs(30);

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}
type Client = BufReader<Box<dyn Io>>;

/// A kit that hands over its connections when the head of a request has been read.
struct Raw {
    connections: mpsc::UnboundedReceiver<BufReader<UnixStream>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Raw {
    fn serve(web: &mut Container) -> Raw {
        web.kit = None;
        let _ = std::fs::remove_file(web.socket());
        let listener = UnixListener::bind(web.socket()).expect("a socket");
        let (send, connections) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                let send = send.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    if head(&mut stream).await.ends_with("\r\n\r\n") {
                        let _ = send.send(stream);
                    }
                });
            }
        });
        Raw { connections, task }
    }

    async fn next(&mut self) -> BufReader<UnixStream> {
        within(self.connections.recv()).await.expect("it is served")
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, what).await;
    done.expect("it comes")
}

async fn head(stream: &mut (impl AsyncBufReadExt + Unpin)) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            break;
        }
    }
    head
}

const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn ask(host: &str, path: &str, protocol: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

async fn connect(rig: &Rig, web: &Container, secure: bool) -> Client {
    let host = web.host("http-9000");
    let stream: Box<dyn Io> = match secure {
        true => Box::new(rig.tls(&host, &[b"http/1.1"]).await.expect("a connection")),
        false => Box::new(rig.tcp().await),
    };
    BufReader::new(stream)
}

/// Ask for a tunnel, saying `first` with it; the kit answers with `with` behind its head.
async fn open(
    rig: &Rig,
    web: &Container,
    kit: &mut Raw,
    secure: bool,
    first: &[u8],
    with: &[u8],
) -> (Client, BufReader<UnixStream>) {
    let mut client = connect(rig, web, secure).await;
    let ask = ask(&web.host("http-9000"), "/tunnel", "websocket");
    let ask = [ask.as_bytes(), first].concat();
    client.write_all(&ask).await.expect("written");
    client.flush().await.expect("written");
    let mut served = kit.next().await;
    let answer = [SWITCH.as_bytes(), with].concat();
    served.write_all(&answer).await.expect("written");
    let answer = within(head(&mut client)).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    (client, served)
}

async fn expect(stream: &mut (impl AsyncRead + Unpin), bytes: &[u8]) {
    let mut came = vec![0; bytes.len()];
    within(stream.read_exact(&mut came)).await.expect("read");
    assert!(came == bytes, "{:?}", String::from_utf8_lossy(&came));
}

/// All that still comes; an abrupt end is one, too.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = within(stream.read_to_end(&mut rest)).await;
    rest
}

async fn nothing_is_left(rig: &Rig) {
    for gauge in ["hoody_proxy_websockets", "hoody_proxy_connections"] {
        let mut left = f64::NAN;
        for _ in 0..1_000 {
            left = rig.metric(gauge).await;
            if left == 0.0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(left, 0.0, "{gauge}");
    }
}

/// The payload of a close, code first, where that is what all of these bytes are.
fn close(bytes: &[u8], masked: bool) -> Option<u16> {
    let length = usize::from(*bytes.get(1)? & 0x7f);
    let (mask, payload) = match masked {
        true => (bytes.get(2..6)?, bytes.get(6..)?),
        false => (&[0; 4][..], bytes.get(2..)?),
    };
    let whole = bytes[0] == 0x88 && (bytes[1] & 0x80 != 0) == masked && payload.len() == length;
    let payload: Vec<u8> = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, key)| byte ^ key)
        .collect();
    std::str::from_utf8(payload.get(2..)?).ok()?;
    whole.then(|| u16::from_be_bytes([payload[0], payload[1]]))
}

#[tokio::test]
async fn what_comes_with_the_heads_arrives_first() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let mut kit = Raw::serve(&mut web);
    // What a client sends beyond what is read with its head has to wait for the answer.
    for size in [1, 1_000] {
        let (up, down) = (vec![b'u'; size], vec![b'd'; 60 * size]);
        for secure in [false, true] {
            let (mut client, mut served) = open(&rig, &web, &mut kit, secure, &up, &down).await;
            client.write_all(b"more").await.expect("written");
            client.flush().await.expect("written");
            expect(&mut served, &[&up[..], b"more"].concat()).await;
            served.write_all(b"more").await.expect("written");
            expect(&mut client, &[&down[..], b"more"].concat()).await;
        }
    }
    nothing_is_left(&rig).await;
}

#[tokio::test]
async fn one_side_may_end_before_the_other() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let mut kit = Raw::serve(&mut web);
    for secure in [false, true] {
        // The client has said all, and waits for the answer.
        let (mut client, mut served) = open(&rig, &web, &mut kit, secure, b"", b"").await;
        client.write_all(b"question").await.expect("written");
        client.shutdown().await.expect("closed");
        assert_eq!(rest(&mut served).await, b"question");
        served.write_all(b"answer").await.expect("written");
        drop(served);
        assert_eq!(rest(&mut client).await, b"answer");

        // The kit has, even with its answer.
        for with in [&b"all"[..], b""] {
            let mut client = connect(&rig, &web, secure).await;
            let ask = ask(&web.host("http-9000"), "/tunnel", "websocket");
            client.write_all(ask.as_bytes()).await.expect("written");
            client.flush().await.expect("written");
            let mut served = kit.next().await;
            let answer = [SWITCH.as_bytes(), with].concat();
            served.write_all(&answer).await.expect("written");
            served.shutdown().await.expect("closed");
            let answer = within(head(&mut client)).await;
            assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
            assert_eq!(rest(&mut client).await, with);
            client.write_all(b"thanks").await.expect("written");
            client.shutdown().await.expect("closed");
            assert_eq!(rest(&mut served).await, b"thanks");
        }
    }
    nothing_is_left(&rig).await;
    assert!(rig.log().iter().all(|line| line.get("fault").is_none()));
}

/// Trap: a tunnel is torn down right after its 101, with what came before.
#[tokio::test]
async fn what_is_said_right_before_the_end_arrives() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let mut kit = Raw::serve(&mut web);
    let words = vec![b'w'; 300_000];
    for round in 0..100 {
        let mut client = connect(&rig, &web, round % 2 == 0).await;
        let ask = ask(&web.host("http-9000"), "/tunnel", "websocket");
        client.write_all(ask.as_bytes()).await.expect("written");
        client.flush().await.expect("written");
        let mut served = kit.next().await;
        let size = [0, 1, 10_000, 300_000][round % 4];
        let answer = [SWITCH.as_bytes(), &words[..size]].concat();
        let said = async {
            served.write_all(&answer).await.expect("written");
            drop(served);
        };
        let heard = async {
            let answer = within(head(&mut client)).await;
            assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
            rest(&mut client).await.len()
        };
        assert_eq!(tokio::join!(said, heard).1, size, "{round}");

        // And what the client says, which then leaves.
        let (mut client, mut served) = open(&rig, &web, &mut kit, round % 2 == 0, b"", b"").await;
        client.write_all(&words[..size]).await.expect("written");
        client.flush().await.expect("written");
        client.shutdown().await.expect("closed");
        drop(client);
        assert_eq!(rest(&mut served).await.len(), size, "{round}");
    }
    drop(kit);
    nothing_is_left(&rig).await;
}

#[tokio::test]
async fn a_forbidden_websocket_is_told_so() {
    let mut rig = Rig::start().await;
    for secure in [false, true] {
        let mut web = rig.running().await;
        let mut kit = Raw::serve(&mut web);
        // At the end of a frame, in the middle of one, after its end, and one that reads nothing.
        let (mut whole, _one) = open(&rig, &web, &mut kit, secure, b"", b"\x82\x01x").await;
        let (mut half, _two) = open(&rig, &web, &mut kit, secure, b"", b"\x82\x05x").await;
        let (mut closed, _three) = open(&rig, &web, &mut kit, secure, b"", b"\x88\x00").await;
        expect(&mut whole, b"\x82\x01x").await;
        expect(&mut half, b"\x82\x05x").await;
        expect(&mut closed, b"\x88\x00").await;
        // Another protocol has no frames.
        let mut other = connect(&rig, &web, secure).await;
        let ask = ask(&web.host("http-9000"), "/other", "tcp");
        other.write_all(ask.as_bytes()).await.expect("written");
        other.flush().await.expect("written");
        let mut four = kit.next().await;
        let switch = SWITCH.replace("websocket", "tcp");
        four.write_all(switch.as_bytes()).await.expect("written");
        within(head(&mut other)).await;
        rule(&mut rig, &mut web, Some(only(vec![password()]))).await;
        let said = rest(&mut whole).await;
        assert_eq!(close(&said, false), Some(1008), "{said:?}");
        assert_eq!(rest(&mut half).await, b"");
        assert_eq!(rest(&mut closed).await, b"");
        assert_eq!(rest(&mut other).await, b"");
    }
    nothing_is_left(&rig).await;
}

/// Rules that are asked of everybody end what they no longer allow even where nobody reads.
#[tokio::test]
async fn a_forbidden_websocket_that_reads_nothing_is_cut_off() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    rule(&mut rig, &mut web, Some(Policy::open())).await;
    let mut kit = Raw::serve(&mut web);
    let (client, mut served) = open(&rig, &web, &mut kit, false, b"", b"").await;
    // Until nothing more is taken.
    let part = vec![0; 64 << 10];
    let write = async {
        loop {
            let more = tokio::time::timeout(Duration::from_millis(500), served.write_all(&part));
            if !matches!(more.await, Ok(Ok(()))) {
                break;
            }
        }
    };
    within(write).await;
    rule(&mut rig, &mut web, Some(only(vec![password()]))).await;
    let line = rig.logged("/tunnel").await;
    assert_eq!(line["refusal"], "access_denied");
    nothing_is_left(&rig).await;
    drop(client);
}

#[tokio::test]
async fn a_websocket_whose_container_goes_is_told_so() {
    let mut rig = Rig::start().await;
    // Stopped, one whose program left alone, and deleted.
    for (state, code) in [(State::Stopping, Some(1001)), (State::Running, None)] {
        let mut web = rig.running().await;
        let mut kit = Raw::serve(&mut web);
        let (mut client, served) = open(&rig, &web, &mut kit, true, b"", b"\x81\x02hi").await;
        expect(&mut client, b"\x81\x02hi").await;
        web.place.state = state;
        rig.upsert(&web.place).await;
        drop(served);
        let said = rest(&mut client).await;
        assert_eq!(close(&said, false), code, "{said:?}");
        assert!(code.is_some() || said.is_empty());
    }
    let mut web = rig.running().await;
    let mut kit = Raw::serve(&mut web);
    let (mut client, _served) = open(&rig, &web, &mut kit, false, b"", b"\x81\x02hi").await;
    expect(&mut client, b"\x81\x02hi").await;
    rig.push(200, Change::Remove(web.place.container)).await;
    assert_eq!(close(&rest(&mut client).await, false), Some(1001));
    nothing_is_left(&rig).await;
}

fn hasty(config: &mut Config) {
    config.limits.drain = Duration::from_millis(200);
    config.limits.leave = Duration::from_millis(200);
}

#[tokio::test]
async fn both_sides_of_a_websocket_are_told_that_the_proxy_goes() {
    for hand_over in [false, true] {
        let mut rig = Rig::with(hasty).await;
        let mut web = rig.running().await;
        let mut kit = Raw::serve(&mut web);
        let (mut client, mut served) = open(&rig, &web, &mut kit, true, b"", b"").await;
        let (mut half, mut late) = open(&rig, &web, &mut kit, false, b"\x81", b"\x81").await;
        expect(&mut half, b"\x81").await;
        expect(&mut late, b"\x81").await;
        let ends = async {
            let (told, said) = tokio::join!(rest(&mut client), rest(&mut served));
            assert_eq!(close(&told, false), Some(1001), "{told:?}");
            assert_eq!(close(&said, true), Some(1001), "{said:?}");
            assert!(tokio::join!(rest(&mut half), rest(&mut late)) == (vec![], vec![]));
        };
        match hand_over {
            true => {
                rig.succeed(async || ()).await;
                ends.await;
            }
            false => {
                tokio::join!(rig.take().stop(), ends);
            }
        }
        let lines = || {
            rig.log()
                .iter()
                .filter(|it| it["websocket"] == true)
                .count()
        };
        eventually(|| (lines() == 2).then_some(())).await;
    }
}

/// Nobody holds up the end of a proxy by not reading.
#[tokio::test]
async fn a_proxy_ends_though_nobody_reads() {
    let mut rig = Rig::with(hasty).await;
    let mut web = rig.running().await;
    let mut kit = Raw::serve(&mut web);
    let (client, mut served) = open(&rig, &web, &mut kit, false, b"", b"").await;
    let part = vec![0; 64 << 10];
    let write = async {
        while let Ok(Ok(())) =
            tokio::time::timeout(Duration::from_millis(500), served.write_all(&part)).await
        {
        }
    };
    within(write).await;
    within(rig.take().stop()).await;
    rig.logged("/tunnel").await;
    drop(client);
}

#[tokio::test]
async fn a_silent_websocket_is_told_why_it_ends() {
    let mut rig = Rig::with(|config| config.limits.tunnel = Duration::from_millis(300)).await;
    let mut web = rig.running().await;
    let mut kit = Raw::serve(&mut web);
    let (mut client, mut served) = open(&rig, &web, &mut kit, false, b"", b"").await;
    let (told, _) = tokio::join!(rest(&mut client), rest(&mut served));
    assert_eq!(close(&told, false), Some(1001), "{told:?}");
    nothing_is_left(&rig).await;
    let expired = "hoody_proxy_connections_expired_total{phase=\"tunnel\"}";
    rig.comes_to(expired, 1.0).await;
}

/// A side that takes nothing ends the tunnel, and is named.
#[tokio::test]
async fn who_takes_nothing_is_cut_off() {
    let mut rig = Rig::with(|config| config.limits.send = Duration::from_millis(300)).await;
    let mut web = rig.running().await;
    let mut kit = Raw::serve(&mut web);
    let part = vec![0; 1 << 20];
    let (client, mut served) = open(&rig, &web, &mut kit, false, b"", b"").await;
    within(async { while served.write_all(&part).await.is_ok() {} }).await;
    assert_eq!(
        rig.logged("/tunnel").await["fault"],
        "client: write_timeout"
    );
    drop((client, served));
    let (mut client, served) = open(&rig, &web, &mut kit, false, b"", b"").await;
    within(async { while client.write_all(&part).await.is_ok() {} }).await;
    let faults = || {
        let log = rig.log();
        log.into_iter()
            .find(|it| it["fault"] == "upstream: write_timeout")
    };
    eventually(faults).await;
    drop((client, served));
    nothing_is_left(&rig).await;
}

#[tokio::test]
async fn the_log_counts_both_directions_of_a_tunnel() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let mut kit = Raw::serve(&mut web);
    let (up, down) = (vec![1; 700_000], vec![2; 500_000]);
    let (client, served) = open(&rig, &web, &mut kit, true, b"first", b"word").await;
    let ((mut from_kit, mut to_kit), (mut from_client, mut to_client)) =
        (tokio::io::split(served), tokio::io::split(client));
    let (one, other, _, _) = tokio::join!(
        async {
            let mut came = vec![0; 5 + up.len()];
            within(from_kit.read_exact(&mut came)).await
        },
        async {
            let mut came = vec![0; 4 + down.len()];
            within(from_client.read_exact(&mut came)).await
        },
        async {
            to_client.write_all(&up).await.expect("written");
            to_client.flush().await.expect("written");
        },
        async { to_kit.write_all(&down).await.expect("written") },
    );
    one.and(other).expect("all comes");
    assert!(rig.log().is_empty(), "it is not over");
    to_client.shutdown().await.expect("closed");
    to_kit.shutdown().await.expect("closed");
    let line = rig.logged("/tunnel").await;
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"]),
        (&700_005.into(), &500_004.into())
    );
    assert_eq!(
        (&line["status"], &line["websocket"]),
        (&101.into(), &true.into())
    );
    nothing_is_left(&rig).await;
    rig.comes_to("hoody_proxy_request_bytes_total", 700_005.0)
        .await;
}

/// What an idle tunnel may hold: the proxy's part and the sockets of both ends, which are in this
/// process. In Pingora it is some 60 KiB.
const IDLE_BYTES: u64 = 24 << 10;

#[tokio::test]
async fn an_idle_tunnel_holds_little_memory() {
    const COUNT: usize = 500;
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let mut kit = Raw::serve(&mut web);
    let ask = ask(&web.host("http-9000"), "/tunnel", "websocket");
    let mut begin = async || {
        let mut client = rig.tcp().await;
        client.write_all(ask.as_bytes()).await.expect("written");
        let mut served = kit.next().await.into_inner();
        served.write_all(SWITCH.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert_ne!(within(client.read_buf(&mut answer)).await.expect("read"), 0);
        }
        // Once in each direction, so that it is on its own.
        client.write_all(b"up").await.expect("written");
        expect(&mut served, b"up").await;
        served.write_all(b"down").await.expect("written");
        expect(&mut client, b"down").await;
        (client, served)
    };
    // Whatever is made once is there by now.
    let mut held = Vec::with_capacity(100 + COUNT);
    for _ in 0..100 {
        held.push(begin().await);
    }
    let before = resident();
    for _ in 0..COUNT {
        held.push(begin().await);
    }
    let each = resident().saturating_sub(before) / COUNT as u64;
    assert!(each < IDLE_BYTES, "an idle tunnel holds {each} bytes");
}

/// However a tunnel ends, what it held is given back: more of them come than may be open at once.
#[tokio::test]
async fn nothing_is_left_of_a_thousand_tunnels() {
    const AT_ONCE: usize = 50;
    let mut rig = Rig::with(|config| config.limits.connections = AT_ONCE + 5).await;
    let mut web = rig.running().await;
    let mut kit = Raw::serve(&mut web);
    for round in 0..20 {
        let mut open_ones = Vec::new();
        for _ in 0..AT_ONCE {
            open_ones.push(open(&rig, &web, &mut kit, round % 2 == 0, b"", b"").await);
        }
        rig.comes_to("hoody_proxy_websockets", AT_ONCE as f64).await;
        let ends = open_ones.into_iter().enumerate();
        join_all(ends.map(async |(number, (mut client, mut served))| {
            client.write_all(b"last").await.expect("written");
            client.flush().await.expect("written");
            expect(&mut served, b"last").await;
            match number % 4 {
                0 => drop(client),
                1 => drop(served),
                2 => {
                    client.shutdown().await.expect("closed");
                    rest(&mut served).await;
                }
                _ => {
                    served.shutdown().await.expect("closed");
                    rest(&mut client).await;
                }
            }
        }))
        .await;
        nothing_is_left(&rig).await;
    }
    let lines = || {
        rig.log()
            .iter()
            .filter(|it| it["websocket"] == true)
            .count()
    };
    eventually(|| (lines() == 1_000).then_some(())).await;
}

/// A tunnel counts as a connection until it ends.
#[tokio::test]
async fn a_tunnel_keeps_its_place_among_connections() {
    let mut rig = Rig::with(|config| config.limits.connections = 2).await;
    let mut web = rig.running().await;
    let mut kit = Raw::serve(&mut web);
    let one = open(&rig, &web, &mut kit, false, b"", b"").await;
    let two = open(&rig, &web, &mut kit, true, b"", b"").await;
    let mut third = rig.tcp().await;
    assert_eq!(rest(&mut third).await, b"", "it is closed at once");
    drop(one);
    let free = async {
        loop {
            let mut client = connect(&rig, &web, false).await;
            let ask = ask(&web.host("http-9000"), "/tunnel", "websocket");
            let _ = client.write_all(ask.as_bytes()).await;
            let wait = tokio::time::timeout(Duration::from_millis(200), kit.connections.recv());
            if let Ok(Some(served)) = wait.await {
                break (client, served);
            }
        }
    };
    drop(within(free).await);
    drop(two);
    nothing_is_left(&rig).await;
}
