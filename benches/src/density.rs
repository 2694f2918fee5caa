//! How many machines are up at once, and what each takes of the host's memory?
//!
//! What a machine holds is what the host has less of: its programs, the kernel's part, and what the
//! engine and the proxy keep for it. Files that the kernel only keeps at hand do not count.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::api::{Api, Container};
use crate::figures::summary;

const KSM: &str = "/sys/kernel/mm/ksm";
/// Longer than this no measurement waits for the kernel to look through all memory.
const SCAN_MOST: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct Settings {
    /// Machines that are measured.
    #[arg(long, default_value_t = 60)]
    count: usize,
    /// Made at once.
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// Seconds of rest before measuring.
    #[arg(long, default_value_t = 30)]
    rest: u64,
    /// Then more are made, until there are so many or the host has too little left.
    #[arg(long, default_value_t = 400)]
    most: usize,
    /// Memory in MiB that the host keeps.
    #[arg(long, default_value_t = 2048)]
    keep: u64,
}

pub async fn ask(api: &Api, settings: &Settings) -> anyhow::Result<Value> {
    let rest = Duration::from_secs(settings.rest);
    tokio::time::sleep(rest).await;
    let before = available()?;
    let mut machines = Vec::new();
    let measured = measure(api, settings, before, &mut machines).await;
    // Whatever went wrong, nothing of it stays.
    for some in machines.chunks(settings.at_once.max(1)) {
        for ended in join_all(some.iter().map(|machine| api.delete(machine))).await {
            ended?;
        }
    }
    measured
}

async fn measure(
    api: &Api,
    settings: &Settings,
    before: u64,
    machines: &mut Vec<Container>,
) -> anyhow::Result<Value> {
    let mut times = Vec::new();
    while machines.len() < settings.count {
        let some = settings.at_once.min(settings.count - machines.len());
        times.extend(more(api, some, machines).await?);
    }
    let made = summary("POST containers → first 200, several at once", &times);
    tokio::time::sleep(Duration::from_secs(settings.rest)).await;
    if reads("run") == Some(1) {
        scanned().await;
    }
    let each = per_machine(before, machines.len())?;
    println!("{} machines, {each:.1} MiB each", machines.len());
    let at_count = json!({
        "machines": machines.len(),
        "create_to_first_200": made,
        "first_200_again": all_answer(api, machines).await?,
        "mib_each": each,
        "ksm": ksm(),
    });
    let mut ended = format!("{} were asked for", settings.most);
    while machines.len() < settings.most {
        let left = available()? >> 20;
        if left < settings.keep {
            ended = format!("{left} MiB were left");
            break;
        }
        let some = settings.at_once.min(settings.most - machines.len());
        if let Err(error) = more(api, some, machines).await {
            ended = format!("{error:#}");
            break;
        }
    }
    let each = per_machine(before, machines.len())?;
    println!("{} machines, {each:.1} MiB each; {ended}", machines.len());
    Ok(json!({
        "at_count": at_count,
        "at_most": {
            "machines": machines.len(),
            "ended_because": ended,
            "first_200_again": all_answer(api, machines).await?,
            "mib_each": each,
            "ksm": ksm(),
        },
    }))
}

/// Make some at once; how long each took until it answered at its URL.
async fn more(
    api: &Api,
    some: usize,
    machines: &mut Vec<Container>,
) -> anyhow::Result<Vec<Duration>> {
    let first = machines.len();
    let one = |turn: usize| async move {
        let began = Instant::now();
        let made = api.create(&format!("dense-{}", first + turn)).await?;
        let answered = api.answered(&made, began).await;
        anyhow::Ok((made, answered))
    };
    let mut times = Vec::new();
    let mut failed = None;
    for made in join_all((0..some).map(one)).await {
        match made {
            Ok((machine, answered)) => {
                machines.push(machine);
                match answered {
                    Ok(time) => times.push(time),
                    Err(error) => failed = Some(error),
                }
            }
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(times),
    }
}

/// Each answers at its URL, one after another.
async fn all_answer(api: &Api, machines: &[Container]) -> anyhow::Result<Value> {
    let mut times = Vec::new();
    for machine in machines {
        times.push(api.answered(machine, Instant::now()).await?);
    }
    Ok(summary("a URL of each, one after another", &times))
}

fn per_machine(before: u64, machines: usize) -> anyhow::Result<f64> {
    let held = before.saturating_sub(available()?) as f64 / f64::from(1 << 20);
    Ok((held / machines.max(1) as f64 * 10.0).round() / 10.0)
}

/// Memory that the host could still give, in bytes.
fn available() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .context("the kernel says how much memory is available")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

/// Wait until the kernel has looked through all memory twice: a page is merged when it is found the
/// same a second time.
async fn scanned() {
    let began = Instant::now();
    let first = reads("full_scans").unwrap_or_default();
    while began.elapsed() < SCAN_MOST && reads("full_scans").unwrap_or_default() < first + 2 {
        tokio::time::sleep(LOOK).await;
    }
}

fn reads(file: &str) -> Option<i64> {
    let text = std::fs::read_to_string(Path::new(KSM).join(file)).ok()?;
    text.trim().parse().ok()
}

/// What the kernel merged; the profit is what is saved less what the bookkeeping takes.
fn ksm() -> Value {
    json!({
        "run": reads("run"),
        "pages_shared": reads("pages_shared"),
        "pages_sharing": reads("pages_sharing"),
        "full_scans": reads("full_scans"),
        "general_profit_bytes": reads("general_profit"),
    })
}
