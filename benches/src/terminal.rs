//! How fast is a terminal in a browser, beside the one that Jupyter has?
//!
//! The kit's terminal service and terminado (Debian's python3-terminado) run bash on this machine and
//! are asked by the same WebSocket client, in turn. ttyd, the nearest relative, is in no suite of
//! Debian any more. The kit is reached by its unix socket, as the proxy reaches it; terminado by the
//! loopback.
//!
//! - How long does a large file take that is written to the terminal?
//! - How long until a key is echoed?
//! - After a flood of output, how long until Ctrl-C is echoed?
//! - What does the server hold for a session at rest?

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Request;

use crate::edge::cost;
use crate::figures::{load, median, percentile};
use crate::server::{Server, free_address, listens};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The peer, which is a library: its shortest server.
const PEER: &str = "\
import sys, tornado.ioloop, tornado.web, terminado
manager = terminado.UniqueTermManager(shell_command=['bash', '--norc'])
routes = [(r'/ws', terminado.TermSocket, {'term_manager': manager})]
tornado.web.Application(routes).listen(int(sys.argv[1]), '127.0.0.1')
tornado.ioloop.IOLoop.current().start()
";

#[derive(Args)]
pub struct Settings {
    /// The kit's program.
    #[arg(long, default_value = "target/release/kitd")]
    kitd: PathBuf,
    /// The Python that has terminado.
    #[arg(long, default_value = "/usr/bin/python3")]
    python: PathBuf,
    /// Rounds of each server; the medians are told.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Size of the file.
    #[arg(long, default_value_t = 16)]
    megabytes: usize,
    /// Keys that are pressed one after another, each round.
    #[arg(long, default_value_t = 300)]
    keys: usize,
    /// Seconds of the flood.
    #[arg(long, default_value_t = 60)]
    flood: u64,
    /// Sessions at rest.
    #[arg(long, default_value_t = 50)]
    sessions: usize,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A client of a terminal.
struct Line {
    socket: WebSocketStream<Box<dyn Stream>>,
    is_ours: bool,
}

impl Line {
    async fn open(
        stream: Box<dyn Stream>,
        request: Request<()>,
        is_ours: bool,
    ) -> anyhow::Result<Line> {
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        let mut line = Line { socket, is_ours };
        if is_ours {
            let size = json!({ "command": "{", "columns": 100, "rows": 30 }).to_string();
            line.socket.send(Message::text(size)).await?;
        }
        line.input("PS1='$ '; echo READY-$((40+2))\r").await?;
        line.until(b"READY-42\r\n").await?;
        Ok(line)
    }

    async fn input(&mut self, text: &str) -> anyhow::Result<()> {
        let message = if self.is_ours {
            Message::binary([b"0", text.as_bytes()].concat())
        } else {
            Message::text(json!(["stdin", text]).to_string())
        };
        Ok(self.socket.send(message).await?)
    }

    /// The next piece of output.
    async fn output(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            match self.socket.next().await.context("the line ended")?? {
                Message::Binary(bytes) if bytes.first() == Some(&b'0') => {
                    return Ok(bytes[1..].to_vec());
                }
                Message::Text(text) => {
                    let (kind, output): (String, Value) = serde_json::from_str(&text)?;
                    if kind == "stdout" {
                        return Ok(output.as_str().unwrap_or_default().as_bytes().to_vec());
                    }
                }
                Message::Close(frame) => bail!("the line was closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Read until the output has this in it; how many bytes that were.
    async fn until(&mut self, end: &[u8]) -> anyhow::Result<usize> {
        let read = async {
            let (mut count, mut tail) = (0, Vec::new());
            loop {
                let bytes = self.output().await?;
                count += bytes.len();
                tail.extend_from_slice(&bytes);
                if tail.windows(end.len()).any(|window| window == end) {
                    return Ok(count);
                }
                let surplus = tail.len().saturating_sub(end.len());
                tail.drain(..surplus);
            }
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .with_context(|| format!("{:?} did not come", String::from_utf8_lossy(end)))?
    }
}

/// A server of terminals.
struct Rival {
    name: &'static str,
    place: Place,
    server: Server,
    next: u16,
}

enum Place {
    Ours(PathBuf),
    Peer(SocketAddr),
}

impl Rival {
    /// A client of a session of its own.
    async fn line(&mut self) -> anyhow::Result<Line> {
        self.next += 1;
        match &self.place {
            Place::Ours(socket) => {
                let url = format!(
                    "ws://kit/api/v1/terminal/ws?terminal_id={}&shell=bash",
                    self.next
                );
                let mut request = url.into_client_request()?;
                let headers = request.headers_mut();
                headers.insert("x-hoody-edge-service", "terminal".parse()?);
                headers.insert("sec-websocket-protocol", "tty".parse()?);
                let stream = UnixStream::connect(socket).await?;
                Line::open(Box::new(stream), request, true).await
            }
            Place::Peer(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let request = format!("ws://{address}/ws").into_client_request()?;
                Line::open(Box::new(stream), request, false).await
            }
        }
    }
}

fn ours(home: &Path, settings: &Settings) -> anyhow::Result<Rival> {
    let (socket, log) = (home.join("kit.sock"), home.join("kit.log"));
    std::fs::create_dir_all(home.join("home"))?;
    let mut command = Command::new(&settings.kitd);
    command
        .args(["--local", "--socket"])
        .arg(&socket)
        .arg("--home")
        .arg(home.join("home"));
    let mut server = Server::start(&command, None, &log)?;
    server.until(|| socket.exists(), &log)?;
    Ok(Rival {
        name: "hoody",
        place: Place::Ours(socket),
        server,
        next: 0,
    })
}

fn peer(home: &Path, settings: &Settings) -> anyhow::Result<Rival> {
    let (address, log) = (free_address()?, home.join("peer.log"));
    let mut command = Command::new(&settings.python);
    command.args(["-c", PEER, &address.port().to_string()]);
    let mut server = Server::start(&command, None, &log)?;
    server
        .until(|| listens(address), &log)
        .context("is terminado installed? hoody/setup/packages.sh bench")?;
    Ok(Rival {
        name: "terminado",
        place: Place::Peer(address),
        server,
        next: 0,
    })
}

#[derive(Default)]
struct Samples {
    megabytes_per_second: Vec<f64>,
    processor_per_megabyte_ms: Vec<f64>,
    keys: Vec<Duration>,
}

pub async fn ask(settings: &Settings) -> anyhow::Result<Value> {
    let home = tempfile::tempdir()?;
    let home = home.path();
    let file = home.join("large");
    let line = "The quick brown fox jumps over the lazy dog while a terminal shows all of it, \
                line after line, 1\n";
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file)?);
    let lines = (settings.megabytes << 20) / line.len();
    for _ in 0..lines {
        out.write_all(line.as_bytes())?;
    }
    out.flush()?;
    let size = lines * line.len();
    let load_before = load();
    let mut rivals = [ours(home, settings)?, peer(home, settings)?];
    let mut samples: HashMap<&str, Samples> = HashMap::new();
    for _ in 0..settings.rounds {
        // In turn, so that what else the machine does meets both.
        for rival in &mut rivals {
            let samples = samples.entry(rival.name).or_default();
            round(rival, &file, size, settings.keys, samples).await?;
        }
    }
    let mut result = Map::new();
    for rival in &mut rivals {
        let samples = &samples[rival.name];
        let interrupt = flood(rival, Duration::from_secs(settings.flood)).await?;
        let held = rest(rival, settings.sessions).await?;
        let millis = |time: Duration| (time.as_secs_f64() * 1e5).round() / 1e2;
        let row = json!({
            "output_mb_per_s": rounded(median(&samples.megabytes_per_second)),
            "output_processor_ms_per_mb": rounded(median(&samples.processor_per_megabyte_ms)),
            "key_echo_p50_ms": millis(percentile(&samples.keys, 0.5)),
            "key_echo_p95_ms": millis(percentile(&samples.keys, 0.95)),
            "interrupt_after_flood_ms": millis(interrupt.0),
            "flood_mb": interrupt.1 >> 20,
            "kib_per_idle_session": held.0,
            "server_kib": held.1,
        });
        println!("{:<10}{row}", rival.name);
        result.insert(rival.name.into(), row);
    }
    let ratio = |key: &str| {
        let of = |name: &str| result[name][key].as_f64().unwrap_or(f64::NAN);
        rounded(of("hoody") / of("terminado"))
    };
    let ratios = json!({
        "output_mb_per_s": ratio("output_mb_per_s"),
        "output_processor_ms_per_mb": ratio("output_processor_ms_per_mb"),
        "key_echo_p50_ms": ratio("key_echo_p50_ms"),
        "interrupt_after_flood_ms": ratio("interrupt_after_flood_ms"),
        "kib_per_idle_session": ratio("kib_per_idle_session"),
    });
    println!("hoody / terminado: {ratios}");
    result.insert("hoody_by_terminado".into(), ratios);
    result.insert(
        "setting".into(),
        json!({
            "rounds": settings.rounds, "megabytes": settings.megabytes, "keys_each_round": settings.keys,
            "flood_seconds": settings.flood, "idle_sessions": settings.sessions,
            "kitd": settings.kitd, "terminado": version(&settings.python)?,
            "load_before": load_before, "load_after": load(),
        }),
    );
    Ok(Value::Object(result))
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn version(python: &Path) -> anyhow::Result<String> {
    let said = Command::new(python)
        .args(["-c", "import terminado; print(terminado.__version__)"])
        .output()?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

async fn round(
    rival: &mut Rival,
    file: &Path,
    size: usize,
    keys: usize,
    samples: &mut Samples,
) -> anyhow::Result<()> {
    let mut line = rival.line().await?;
    let processor = cost::processor(rival.server.pid());
    let began = Instant::now();
    line.input(&format!("cat {}; echo END-$((40+2))\r", file.display()))
        .await?;
    let count = line.until(b"END-42\r\n").await?;
    let took = began.elapsed();
    ensure!(
        count >= size,
        "{} lost output: {count} of {size}",
        rival.name
    );
    let megabytes = size as f64 / f64::from(1 << 20);
    samples
        .megabytes_per_second
        .push(megabytes / took.as_secs_f64());
    let used = cost::processor(rival.server.pid()).saturating_sub(processor);
    samples
        .processor_per_megabyte_ms
        .push(used.as_secs_f64() * 1e3 / megabytes);
    // The kernel's echo, not the shell's: what is left is the way there and back.
    line.input("cat >/dev/null\r").await?;
    line.until(b"cat >/dev/null\r\n").await?;
    for at in 0..keys {
        let key = char::from(b'a' + (at % 26) as u8).to_string();
        let began = Instant::now();
        line.input(&key).await?;
        line.until(key.as_bytes()).await?;
        samples.keys.push(began.elapsed());
    }
    line.input("\u{3}exit\r").await
}

/// How long until Ctrl-C is echoed after this much of `yes`, and how many bytes that were.
async fn flood(rival: &mut Rival, time: Duration) -> anyhow::Result<(Duration, usize)> {
    let mut line = rival.line().await?;
    line.input("yes\r").await?;
    let until = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < until {
        count += line.output().await?.len();
    }
    let began = Instant::now();
    line.input("\u{3}").await?;
    line.until(b"^C").await?;
    let took = began.elapsed();
    line.input("exit\r").await?;
    Ok((took, count))
}

/// KiB that the server holds for each of so many sessions at rest, and for all it does.
async fn rest(rival: &mut Rival, sessions: usize) -> anyhow::Result<(u64, u64)> {
    const REST: Duration = Duration::from_secs(3);
    tokio::time::sleep(REST).await;
    let before = cost::own_memory(rival.server.pid());
    let mut lines = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        lines.push(rival.line().await?);
    }
    tokio::time::sleep(REST).await;
    let after = cost::own_memory(rival.server.pid());
    drop(lines);
    Ok((
        (after.saturating_sub(before) >> 10) / sessions.max(1) as u64,
        after >> 10,
    ))
}
