//! As many requests as a rival takes: wrk for HTTP/1.1, h2load for HTTP/2.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;
use tokio::process::Command;

use super::client::Protocol;
use super::cost;
use super::ground::{Ground, host, visited};
use super::rivals::Rival;

/// Requests under way at once. Over HTTP/2 they are streams of fewer connections.
const UNDER_WAY: usize = 64;
const H2_CONNECTIONS: usize = 8;

/// What one round gave.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub per_second: f64,
    pub requests: u64,
    /// Processor time of the rival per request, in microseconds.
    pub cpu_us: f64,
    /// The share of its core that the rival had.
    pub core: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
}

#[derive(Deserialize)]
struct Said {
    requests: u64,
    bad: u64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    pub host: String,
    /// A header beside the usual ones.
    pub brings: Option<(&'static str, String)>,
}

/// One round of `time`, on the visited hosts.
pub async fn round(
    ground: &Ground,
    rival: &Rival,
    protocol: Protocol,
    time: Duration,
) -> anyhow::Result<Round> {
    let visited = visited(rival.routes).into_iter().map(|route| Ask {
        host: host(route),
        brings: None,
    });
    round_of(ground, rival, protocol, time, &visited.collect::<Vec<_>>()).await
}

/// One round of `time`, asking for these in turn.
pub async fn round_of(
    ground: &Ground,
    rival: &Rival,
    protocol: Protocol,
    time: Duration,
    asks: &[Ask],
) -> anyhow::Result<Round> {
    let began = std::time::Instant::now();
    let before = cost::processor(rival.pid());
    let said = match protocol {
        Protocol::Plain | Protocol::TlsH1 => wrk(ground, rival, protocol, time, asks).await?,
        Protocol::TlsH2 => h2load(ground, rival, time, &asks[0].host).await?,
    };
    let spent = cost::processor(rival.pid()) - before;
    let taken = began.elapsed();
    ensure!(
        said.bad == 0 && said.requests > 0,
        "{} answered {} of {} requests late, with something else than 200, or not at all",
        rival.name,
        said.bad,
        said.requests
    );
    Ok(Round {
        requests: said.requests,
        per_second: said.requests as f64 / time.as_secs_f64(),
        cpu_us: spent.as_secs_f64() * 1e6 / said.requests as f64,
        core: spent.as_secs_f64() / taken.as_secs_f64(),
        p50_us: said.p50_us,
        p99_us: said.p99_us,
        p999_us: said.p999_us,
    })
}

/// Every request is the next of those that a file lists, a line each: a host, and after it a
/// header that is sent along.
const SCRIPT: &str = r#"
local requests, at = {}, 0
-- Whether names below localhost are resolved depends on the machine.
function wrk.resolve(host, service)
  wrk.addrs = wrk.lookup("127.0.0.1", service)
end
function init(args)
  for line in io.lines(args[1]) do
    local host, name, value = line:match("^(%S+) ?(%S*) ?(.*)$")
    local headers = { Host = host, ["User-Agent"] = "wrk" }
    if name ~= "" then headers[name] = value end
    requests[#requests + 1] = wrk.format("GET", "/small", headers)
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\n{"requests":%d,"bad":%d,"p50_us":%f,"p99_us":%f,"p999_us":%f}\n',
    summary.requests, e.status + e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"#;

async fn wrk(
    ground: &Ground,
    rival: &Rival,
    protocol: Protocol,
    time: Duration,
    asks: &[Ask],
) -> anyhow::Result<Said> {
    let (script, hosts) = (ground.path("wrk.lua"), ground.path("hosts"));
    std::fs::write(&script, SCRIPT)?;
    let lines = asks.iter().map(|ask| match &ask.brings {
        Some((name, value)) => format!("{} {name} {value}\n", ask.host),
        None => format!("{}\n", ask.host),
    });
    std::fs::write(&hosts, lines.collect::<String>())?;
    let scheme = match protocol {
        Protocol::Plain => "http",
        _ => "https",
    };
    // The name in the URL is what TLS asks for.
    let url = format!(
        "{scheme}://{}:{}/",
        asks[0].host,
        protocol.address(rival).port()
    );
    let output = Command::new("wrk")
        .args(["--threads", "1", "--connections", &UNDER_WAY.to_string()])
        .args(["--duration", &format!("{}s", time.as_secs())])
        .arg("--script")
        .arg(&script)
        .args([&*url, "--"])
        .arg(&hosts)
        .kill_on_drop(true)
        .output()
        .await
        .context("wrk is a load generator: hoody/setup/packages.sh bench")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with('{'));
    let line = line.with_context(|| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        format!("wrk gave no result: {text} {complaint}")
    })?;
    Ok(serde_json::from_str(line)?)
}

/// All requests name one host: h2load knows one authority.
async fn h2load(
    ground: &Ground,
    rival: &Rival,
    time: Duration,
    name: &str,
) -> anyhow::Result<Said> {
    let log = ground.path("h2load.log");
    let _ = std::fs::remove_file(&log); // of the round before
    let output = Command::new("h2load")
        .args(["--threads", "1", "--clients", &H2_CONNECTIONS.to_string()])
        .args([
            "--max-concurrent-streams",
            &(UNDER_WAY / H2_CONNECTIONS).to_string(),
        ])
        .args(["--duration", &time.as_secs().to_string()])
        .arg(format!("--connect-to={}", rival.https))
        .arg(format!("--log-file={}", log.display()))
        .arg(format!("https://{name}:{}/small", rival.https.port()))
        .kill_on_drop(true)
        .output()
        .await
        .context("h2load is a load generator: hoody/setup/packages.sh bench")?;
    ensure!(
        output.status.success(),
        "h2load failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    read_log(&log)
}

/// Lines of `start, status, microseconds`.
fn read_log(log: &Path) -> anyhow::Result<Said> {
    let text = std::fs::read_to_string(log)?;
    let (mut times, mut bad) = (Vec::new(), 0);
    for line in text.lines() {
        let mut columns = line.split('\t').skip(1);
        if columns.next() != Some("200") {
            bad += 1;
        }
        let time = columns.next().and_then(|time| time.parse::<f64>().ok());
        times.push(time.context("h2load's log has another form than known")?);
    }
    ensure!(!times.is_empty(), "h2load made no request");
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((share * times.len() as f64) as usize).min(times.len() - 1)];
    Ok(Said {
        requests: times.len() as u64,
        bad,
        p50_us: at(0.5),
        p99_us: at(0.99),
        p999_us: at(0.999),
    })
}
