//! How fast the edge is, beside packaged proxies that do the same job in the same run.
//!
//! In reading order: [`ground`] (names, certificate, processes), [`upstream`], [`rivals`] (who is
//! compared and what each is told), [`ours`] and [`bare`] (the two that are built here),
//! [`client`], then one file for each question: [`saturation`], [`paced`], [`handshakes`],
//! [`bulk`], [`tunnels`], [`resolving`], [`gates`]. [`cost`] reads what a rival used.
//!
//! The rivals have one core, load generators and upstreams another. Rounds are short and the
//! rivals take turns in each, so that what else the machine does meets all of them; the medians
//! are reported. Processor time per request is counted by the kernel for the rival alone and is
//! what other load disturbs the least.

pub mod bare;
mod bulk;
mod client;
pub mod cost;
mod gates;
mod ground;
mod handshakes;
pub mod ours;
mod paced;
mod resolving;
mod rivals;
mod saturation;
mod tunnels;
pub mod upstream;

use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value, json};

use self::bulk::Direction;
use self::client::{Client, Protocol};
use self::ground::Ground;
use self::rivals::{Kind, Rival};
use crate::figures::{load, median};

/// What is asked, and how thoroughly.
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// Rounds of each question; medians are reported.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each round.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Routes of every rival that has routes.
    #[arg(long, default_value_t = 10_000)]
    routes: usize,
    /// Requests a second where all rivals are offered the same.
    #[arg(long, default_value_t = 3_000.0)]
    rate: f64,
    /// Idle WebSockets.
    #[arg(long, default_value_t = 5_000)]
    tunnels: usize,
    /// The core of the rivals.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// The core of upstreams and load generators.
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Only these rivals, by name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these questions, by name.
    #[arg(long, value_delimiter = ',')]
    ask: Vec<String>,
}

/// The questions, by the names of their results.
const QUESTIONS: [&str; 7] = [
    "saturation",
    "paced",
    "handshakes",
    "bulk",
    "tunnels",
    "routes",
    "gates",
];
/// The numbers of routes between which nothing may be lost.
const FEW: usize = 11;
const MANY: usize = 100_000;

impl Settings {
    fn asks(&self, question: &str) -> bool {
        self.ask.is_empty() || self.ask.iter().any(|asked| asked == question)
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Start all rivals and ask them every question in turn.
pub async fn ask(settings: &Settings) -> anyhow::Result<Value> {
    for asked in &settings.ask {
        anyhow::ensure!(
            QUESTIONS.contains(&&**asked),
            "there is no question {asked}; it is one of {QUESTIONS:?}"
        );
    }
    pin(settings.load_core)?;
    let load_before = load();
    let ground = Ground::prepare()?;
    let _small = upstream::small(&ground, settings.load_core)?;
    let _large = upstream::large(&ground, settings.load_core)?;
    let client = Client::new()?;
    let mut rivals = Vec::new();
    for kind in Kind::ALL {
        if settings.only.is_empty() || settings.only.iter().any(|only| only == kind.name()) {
            let name = kind.name().to_owned();
            let rival = Rival::start(kind, name, settings.routes, &ground, settings.core);
            rivals.push(rival.with_context(|| format!("could not start {}", kind.name()))?);
        }
    }
    let mut result = Map::new();
    let versions = Kind::ALL
        .iter()
        .filter_map(|kind| Some((kind.name().to_owned(), kind.version()?.into())));
    result.insert("peers".into(), Value::Object(versions.collect()));
    let setting = json!({
        "rounds": settings.rounds, "seconds": settings.seconds, "routes": settings.routes,
        "rate": settings.rate, "reply_bytes": ground::REPLY_BYTES, "hosts_visited": ground::VISITED,
        "upstream": "unix socket, for all", "profile": PROFILE,
    });
    result.insert("setting".into(), setting);
    if settings.asks("saturation") {
        result.insert(
            "saturation".into(),
            saturate(settings, &ground, &rivals, &Protocol::ALL).await?,
        );
    }
    if settings.asks("paced") {
        result.insert("paced".into(), pace(settings, &client, &rivals).await?);
    }
    if settings.asks("handshakes") {
        result.insert(
            "handshakes".into(),
            shake(settings, &client, &rivals).await?,
        );
    }
    if settings.asks("bulk") {
        result.insert("bulk".into(), transfer(settings, &client, &rivals).await?);
    }
    if settings.asks("tunnels") {
        result.insert("tunnels".into(), hold(settings, &client, &ground).await?);
    }
    if settings.asks("routes") {
        result.insert("routes".into(), route(settings, &ground).await?);
    }
    if settings.asks("gates") {
        result.insert("gates".into(), guard(settings, &client, &ground).await?);
    }
    result.insert("load_before".into(), load_before.into());
    result.insert("load_after".into(), load().into());
    Ok(Value::Object(result))
}

const PROFILE: &str = if cfg!(debug_assertions) {
    "debug"
} else {
    "release"
};

/// Put this process, and all it starts, on one core.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).context("could not pin the load generators")
}

/// Samples of one rival, by what was measured.
#[derive(Default)]
struct Samples(Vec<(&'static str, Vec<f64>)>);

impl Samples {
    fn add(&mut self, name: &'static str, value: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name, vec![value])),
        }
    }

    /// The medians, printed on one line and as JSON.
    fn medians(&self, title: &str) -> Value {
        let mut line = format!("{title:<40}");
        let mut medians = Map::new();
        for (name, values) in &self.0 {
            let value = (median(values) * 100.0).round() / 100.0;
            line += &format!("  {name} {value}");
            medians.insert((*name).into(), value.into());
        }
        println!("{line}");
        Value::Object(medians)
    }
}

/// One table: a row for each rival, and what ours costs over the bare Pingora in the median round.
fn table(title: &str, rivals: &[Rival], rows: &[Samples], cost: &str) -> Value {
    let mut table = Map::new();
    for (rival, samples) in rivals.iter().zip(rows) {
        let medians = samples.medians(&format!("{title} {}", rival.name));
        table.insert(rival.name.clone(), medians);
    }
    let of = |kind: Kind| {
        let at = rivals.iter().position(|rival| rival.kind == kind)?;
        let (_, values) = rows[at].0.iter().find(|(name, _)| *name == cost)?;
        Some(values)
    };
    if let (Some(ours), Some(bare)) = (of(Kind::Ours), of(Kind::Bare)) {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(bare)
            .map(|(ours, bare)| ours / bare)
            .collect();
        let ratio = (median(&ratios) * 1000.0).round() / 1000.0;
        println!("{title}: ours has {ratio} times the {cost} of the bare Pingora");
        table.insert("ours_to_bare".into(), ratio.into());
    }
    Value::Object(table)
}

fn blank(rivals: &[Rival]) -> Vec<Samples> {
    rivals.iter().map(|_| Samples::default()).collect()
}

async fn saturate(
    settings: &Settings,
    ground: &Ground,
    rivals: &[Rival],
    protocols: &[Protocol],
) -> anyhow::Result<Value> {
    let mut result = Map::new();
    for &protocol in protocols {
        let mut rows = blank(rivals);
        for _ in 0..settings.rounds {
            for (rival, row) in rivals.iter().zip(&mut rows) {
                let round = saturation::round(ground, rival, protocol, settings.time()).await?;
                row.add("per_second", round.per_second);
                row.add("cpu_us", round.cpu_us);
                // What it would take with its core for itself: other load takes part of the core.
                row.add("per_core_second", 1e6 / round.cpu_us);
                row.add("core", round.core);
                row.add("p50_us", round.p50_us);
                row.add("p99_us", round.p99_us);
                row.add("p999_us", round.p999_us);
            }
        }
        let title = format!("saturation {}", protocol.name());
        result.insert(
            protocol.name().into(),
            table(&title, rivals, &rows, "cpu_us"),
        );
    }
    Ok(Value::Object(result))
}

async fn pace(settings: &Settings, client: &Client, rivals: &[Rival]) -> anyhow::Result<Value> {
    let mut result = Map::new();
    for protocol in Protocol::ALL {
        let mut rows = blank(rivals);
        for _ in 0..settings.rounds {
            for (rival, row) in rivals.iter().zip(&mut rows) {
                let time = settings.time();
                let round = paced::round(client, rival, protocol, settings.rate, time).await?;
                row.add("p50_us", round.p50_us);
                row.add("p99_us", round.p99_us);
                row.add("p999_us", round.p999_us);
                row.add("cpu_us", round.cpu_us);
            }
        }
        let title = format!("paced {}", protocol.name());
        result.insert(
            protocol.name().into(),
            table(&title, rivals, &rows, "cpu_us"),
        );
    }
    Ok(Value::Object(result))
}

async fn shake(settings: &Settings, client: &Client, rivals: &[Rival]) -> anyhow::Result<Value> {
    let mut rows = blank(rivals);
    for _ in 0..settings.rounds {
        for (rival, row) in rivals.iter().zip(&mut rows) {
            let round = handshakes::round(client, rival, settings.time()).await?;
            row.add("per_second", round.per_second);
            row.add("cpu_us", round.cpu_us);
        }
    }
    Ok(table("handshakes", rivals, &rows, "cpu_us"))
}

async fn transfer(settings: &Settings, client: &Client, rivals: &[Rival]) -> anyhow::Result<Value> {
    let mut result = Map::new();
    for (direction, name) in [(Direction::Down, "down"), (Direction::Up, "up")] {
        for protocol in [Protocol::Plain, Protocol::TlsH1] {
            let mut rows = blank(rivals);
            for _ in 0..settings.rounds {
                for (rival, row) in rivals.iter().zip(&mut rows) {
                    let round = bulk::round(client, rival, protocol, direction).await?;
                    row.add("mib_per_second", round.mib_per_second);
                    row.add("cpu_us_per_mib", round.cpu_us_per_mib);
                }
            }
            let name = format!("{name}_{}", protocol.name());
            let rows = table(&format!("64 MiB {name}"), rivals, &rows, "cpu_us_per_mib");
            result.insert(name, rows);
        }
    }
    Ok(Value::Object(result))
}

/// On rivals that have done nothing yet: what earlier load left behind would hide what is held.
async fn hold(settings: &Settings, client: &Client, ground: &Ground) -> anyhow::Result<Value> {
    let mut result = Map::new();
    for protocol in [Protocol::Plain, Protocol::TlsH1] {
        let (mut rivals, mut rows) = (Vec::new(), Vec::new());
        for kind in Kind::ALL {
            if !settings.only.is_empty() && !settings.only.iter().any(|only| only == kind.name()) {
                continue;
            }
            let rival = Rival::start(
                kind,
                kind.name().into(),
                settings.routes,
                ground,
                settings.core,
            )?;
            tunnels::hold(client, &rival, protocol, 1).await?; // what is only made once
            let held = tunnels::hold(client, &rival, protocol, settings.tunnels).await?;
            let mut row = Samples::default();
            row.add("kib_each", held.kib_each);
            row.add("kib_each_after", held.kib_each_after);
            rivals.push(rival);
            rows.push(row);
        }
        let title = format!("{} idle WebSockets {}", settings.tunnels, protocol.name());
        result.insert(
            protocol.name().into(),
            table(&title, &rivals, &rows, "kib_each"),
        );
    }
    Ok(Value::Object(result))
}

/// Ours with few and with many routes.
async fn route(settings: &Settings, ground: &Ground) -> anyhow::Result<Value> {
    let mut rivals = Vec::new();
    for routes in [FEW, settings.routes, MANY] {
        let name = format!("ours_{routes}");
        rivals.push(Rival::start(
            Kind::Ours,
            name,
            routes,
            ground,
            settings.core,
        )?);
    }
    let mut result = Map::new();
    let requests = saturate(settings, ground, &rivals, &[Protocol::TlsH1]).await?;
    result.insert("saturation".into(), requests);
    let mut lookup = Map::new();
    for rival in &rivals {
        let mut samples = Samples::default();
        for _ in 0..settings.rounds {
            samples.add("host_to_place_ns", resolving::round(rival.routes)?);
        }
        let medians = samples.medians(&format!("{} routes", rival.routes));
        lookup.insert(rival.routes.to_string(), medians);
    }
    result.insert("lookup_of_random_hosts".into(), Value::Object(lookup));
    Ok(Value::Object(result))
}

/// Ours with and without gates.
async fn guard(settings: &Settings, client: &Client, ground: &Ground) -> anyhow::Result<Value> {
    let (kind, name) = (Kind::Ours, "ours_gates".to_owned());
    let rival = Rival::start(kind, name, settings.routes, ground, settings.core)?;
    let mut result = Map::new();
    for (name, samples) in gates::ask(settings, client, ground, &rival).await? {
        result.insert(name.into(), samples.medians(&format!("gate {name}")));
    }
    Ok(Value::Object(result))
}
