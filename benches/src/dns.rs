//! How many questions for names does one core answer, beside packaged name servers?
//!
//! Ours, Knot DNS and NSD have the same zone, one core and one worker each; dnsperf and a client
//! that asks one question at a time have the other core. A third of the questions is each for a
//! host beneath the wildcard (no two of which are the same), for a name that does not exist, and
//! for the values of a challenge. Nothing is limited, as in the peers' defaults.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use certs::dns::{Limits, Server as Names, Sockets, ZoneSettings};
use certs::{DnsChallenge, SystemClock};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::edge::cost;
use crate::figures::{load, median, percentile};
use crate::server::{Server, free_address};

const ZONE: &str = "n.example.org";
const CHALLENGE: &str = "_acme-challenge.n.example.org";
/// Questions in the file that dnsperf goes through.
const QUESTIONS: usize = 30_000;
/// Questions under way at once.
const UNDER_WAY: usize = 64;

#[derive(Args)]
pub struct Settings {
    /// Rounds of each server; the medians are told.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of a round.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Questions that are asked one after another for the latency.
    #[arg(long, default_value_t = 5_000)]
    alone: usize,
    /// The core of the servers; the other one is the clients'.
    #[arg(long, default_value_t = 1)]
    core: usize,
}

/// A name server, and what it is called.
struct Rival {
    name: &'static str,
    address: SocketAddr,
    server: Server,
}

pub async fn ask(settings: &Settings) -> anyhow::Result<Value> {
    let home = tempfile::tempdir()?;
    let home = home.path();
    std::fs::write(home.join("zone"), zone_file())?;
    std::fs::write(home.join("questions"), questions())?;
    let rivals = [
        ours(home, settings)?,
        knot(home, settings)?,
        nsd(home, settings)?,
    ];
    crate::edge::pin(usize::from(settings.core == 0))?;
    let load_before = load();
    let mut result = Map::new();
    let setting = json!({
        "rounds": settings.rounds, "seconds": settings.seconds, "under_way": UNDER_WAY,
        "questions": QUESTIONS, "transport": "UDP over the loopback",
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "knot": version("knot"), "nsd": version("nsd"), "dnsperf": version("dnsperf"),
    });
    result.insert("setting".into(), setting);
    let mut rounds: Vec<Vec<Round>> = rivals.iter().map(|_| Vec::new()).collect();
    for _ in 0..settings.rounds {
        // In turn, so that what else the machine does meets all of them.
        for (rival, rounds) in rivals.iter().zip(&mut rounds) {
            rounds.push(round(rival, home, settings)?);
        }
    }
    for (rival, rounds) in rivals.iter().zip(&rounds) {
        let of = |value: fn(&Round) -> f64| {
            let values: Vec<f64> = rounds.iter().map(value).collect();
            (median(&values) * 100.0).round() / 100.0
        };
        let row = json!({
            "per_second": of(|round| round.per_second),
            "processor_us": of(|round| round.processor_us),
            "per_core_second": (1e6 / of(|round| round.processor_us)).round(),
            "lost": of(|round| round.lost),
            "alone_p50_us": of(|round| round.p50_us),
            "alone_p99_us": of(|round| round.p99_us),
            "memory_mib": (cost::memory(rival.server.pid()) >> 20),
        });
        println!("{:<6}{row}", rival.name);
        result.insert(rival.name.into(), row);
    }
    result.insert("load_before".into(), load_before.into());
    result.insert("load_after".into(), load().into());
    Ok(Value::Object(result))
}

struct Round {
    per_second: f64,
    /// Processor time of the server for one answer.
    processor_us: f64,
    lost: f64,
    p50_us: f64,
    p99_us: f64,
}

fn round(rival: &Rival, home: &Path, settings: &Settings) -> anyhow::Result<Round> {
    let pid = rival.server.pid();
    let before = cost::processor(pid);
    let output = Command::new("dnsperf")
        .args([
            "-s",
            "127.0.0.1",
            "-p",
            &rival.address.port().to_string(),
            "-d",
        ])
        .arg(home.join("questions"))
        .args([
            "-l",
            &settings.seconds.to_string(),
            "-q",
            &UNDER_WAY.to_string(),
        ])
        .args(["-c", "4", "-T", "1", "-t", "1"])
        .output()
        .context("dnsperf is not installed: hoody/setup/packages.sh bench")?;
    let spent = cost::processor(pid).saturating_sub(before);
    let text = String::from_utf8_lossy(&output.stdout);
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        let first = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        first.with_context(|| format!("dnsperf does not tell `{name}`: {text}"))
    };
    let completed = figure("Queries completed:")?;
    ensure!(completed > 0.0, "{} answers nothing: {text}", rival.name);
    let times = alone(rival.address, settings.alone)?;
    Ok(Round {
        per_second: figure("Queries per second:")?,
        processor_us: spent.as_secs_f64() * 1e6 / completed,
        lost: figure("Queries lost:")?,
        p50_us: percentile(&times, 0.5).as_secs_f64() * 1e6,
        p99_us: percentile(&times, 0.99).as_secs_f64() * 1e6,
    })
}

/// One question at a time, each for a host of its own.
fn alone(at: SocketAddr, count: usize) -> anyhow::Result<Vec<Duration>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(at)?;
    let mut times = Vec::with_capacity(count);
    let mut answer = [0; 1_500];
    for number in 0..count {
        let host = certs::dns::zone::name(&format!("h{number}.{ZONE}"))?;
        let asked = certs::dns::ask::question(&host, certs::dns::hickory_proto::rr::RecordType::A);
        let asked = asked.to_vec()?;
        let began = Instant::now();
        socket.send(&asked)?;
        socket.recv(&mut answer)?;
        times.push(began.elapsed());
        ensure!(answer[..2] == asked[..2], "an answer to another question");
    }
    Ok(times)
}

fn questions() -> String {
    (0..QUESTIONS)
        .map(|number| match number % 3 {
            0 => format!("p{number}-c-http-1.{ZONE} A\n"),
            1 => format!("{number}.deep.{ZONE} A\n"),
            _ => format!("{CHALLENGE} TXT\n"),
        })
        .collect()
}

const VALUES: [&str; 2] = [
    "0123456789012345678901234567890123456789012",
    "abcdefghijabcdefghijabcdefghijabcdefghijabc",
];

/// The zone as the peers read it: what [`serve`] has.
fn zone_file() -> String {
    let [one, two] = VALUES;
    format!(
        "$ORIGIN {ZONE}.\n@ 3600 SOA ns hostmaster 1 3600 600 604800 60\n@ 3600 NS ns\nns 300 A 192.0.2.1\n\
         @ 300 A 192.0.2.1\n* 300 A 192.0.2.1\nx.deep 300 A 192.0.2.1\n\
         _acme-challenge 1 TXT \"{one}\"\n_acme-challenge 1 TXT \"{two}\"\n"
    )
}

/// Be our name server.
pub async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let zone = ZoneSettings {
        origin: ZONE.into(),
        hosts: [ZONE, "*.n.example.org", "x.deep.n.example.org"]
            .map(str::to_owned)
            .into(),
        addresses: vec![[192, 0, 2, 1].into()],
        servers: Vec::new(),
        issuers: Vec::new(),
    };
    let server = Arc::new(Names::new(vec![zone], Limits::default(), SystemClock)?);
    for value in VALUES {
        server.present(CHALLENGE, value).await?;
    }
    let sockets = Sockets {
        udp: vec![UdpSocket::bind(address)?],
        tcp: vec![std::net::TcpListener::bind(address)?],
    };
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    server.serve(sockets, stopped).await?;
    Ok(())
}

fn ours(home: &Path, settings: &Settings) -> anyhow::Result<Rival> {
    let address = free_address()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "names", &address.to_string()]);
    start("ours", address, &command, home, settings)
}

fn knot(home: &Path, settings: &Settings) -> anyhow::Result<Rival> {
    let address = free_address()?;
    let (at, port) = (home.display(), address.port());
    let text = format!(
        "server:\n  rundir: \"{at}\"\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         database:\n  storage: \"{at}\"\n\
         zone:\n  - domain: {ZONE}\n    storage: \"{at}\"\n    file: zone\n"
    );
    let file = home.join("knot.conf");
    std::fs::write(&file, text)?;
    let mut command = Command::new("knotd");
    command.arg("-c").arg(&file);
    start("knot", address, &command, home, settings)
}

fn nsd(home: &Path, settings: &Settings) -> anyhow::Result<Rival> {
    let address = free_address()?;
    let (at, port) = (home.display(), address.port());
    let text = format!(
        "server:\n  ip-address: 127.0.0.1@{port}\n  server-count: 1\n  username: \"\"\n  zonesdir: \"{at}\"\n  \
           pidfile: \"{at}/nsd.pid\"\n  xfrdfile: \"{at}/xfrd\"\n  zonelistfile: \"{at}/zones\"\n  xfrdir: \"{at}\"\n  \
           rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\n\
         remote-control:\n  control-enable: no\n\
         zone:\n  name: {ZONE}\n  zonefile: zone\n"
    );
    let file = home.join("nsd.conf");
    std::fs::write(&file, text)?;
    let mut command = Command::new("nsd");
    command.arg("-d").arg("-c").arg(&file);
    start("nsd", address, &command, home, settings)
}

fn start(
    name: &'static str,
    address: SocketAddr,
    command: &Command,
    home: &Path,
    settings: &Settings,
) -> anyhow::Result<Rival> {
    let log = home.join(format!("{name}.log"));
    let mut server = Server::start(command, Some(settings.core), &log)
        .with_context(|| format!("could not start {name}"))?;
    let answers = || alone(address, 1).is_ok();
    server.until(answers, &log)?;
    Ok(Rival {
        name,
        address,
        server,
    })
}

/// The version of a Debian package.
fn version(package: &str) -> Option<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", package])
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()
}
