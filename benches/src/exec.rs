//! What the kit adds to a script: a warm `hello` through the kit's socket beside the same answer of
//! a bare `Deno.serve`, in the same run; how long a new script takes to its first answer; and what
//! one holds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::figures::{percentile, summary};
use crate::server::Server;

const BARE: &str =
    "Deno.serve({ path: Deno.args[0], onListen() {} }, () => Response.json({ hello: 'world' }))";
const SCRIPT: &str = "return { hello: 'world' }";
/// Connections of the measurement of throughput.
const CONNECTIONS: usize = 16;

#[derive(Args)]
pub struct Settings {
    #[arg(long, default_value = "target/release/kitd")]
    kitd: PathBuf,
    /// Directory of the `deno` that `hoody/setup/deno.sh` installed.
    #[arg(long)]
    runtime: PathBuf,
    /// Requests of each round.
    #[arg(long, default_value_t = 2000)]
    requests: usize,
    /// Rounds that take turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// New scripts whose first answer is waited for.
    #[arg(long, default_value_t = 20)]
    scripts: usize,
}

pub async fn ask(settings: &Settings) -> anyhow::Result<Value> {
    let Settings {
        ref runtime,
        requests,
        rounds,
        scripts,
        ..
    } = *settings;
    let place = tempfile::Builder::new().prefix("exec").tempdir()?;
    let bare_socket = place.path().join("bare.sock");
    let program = place.path().join("bare.js");
    std::fs::write(&program, BARE)?;
    let log = place.path().join("bare.log");
    let mut deno = Command::new(runtime.join("deno"));
    deno.args(["run", "--quiet", "-A"])
        .arg(&program)
        .arg(&bare_socket);
    let mut bare = Server::start(&deno, None, &log)?;
    bare.until(|| listens(&bare_socket), &log)
        .context("is Deno there? hoody/setup/deno.sh installs it")?;

    let home = place.path().join("home");
    let directory = home.join("hoody-exec/scripts/default/1");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("hello.ts"), SCRIPT)?;
    // The kit looks for the runtime beside itself.
    let tree = place.path().join("kit");
    std::fs::create_dir_all(tree.join("bin"))?;
    std::fs::copy(&settings.kitd, tree.join("bin/kitd"))?;
    std::os::unix::fs::symlink(runtime, tree.join("deno"))?;
    let kit_socket = place.path().join("kit.sock");
    let log = place.path().join("kit.log");
    let mut kitd = Command::new(tree.join("bin/kitd"));
    kitd.args(["--local", "--socket"])
        .arg(&kit_socket)
        .arg("--home")
        .arg(&home)
        .env("KITD_LOG", "warn");
    let mut kit = Server::start(&kitd, None, &log)?;
    kit.until(|| listens(&kit_socket), &log)?;

    let (mut bare_times, mut script_times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        bare_times.extend(round(&bare_socket, "/hello", requests).await?);
        script_times.extend(round(&kit_socket, "/hello", requests).await?);
    }
    let (bare_rate, script_rate) = (
        rate(&bare_socket, requests).await?,
        rate(&kit_socket, requests).await?,
    );

    let mut first = Vec::new();
    for nth in 0..scripts {
        std::fs::write(directory.join(format!("new{nth}.ts")), SCRIPT)?;
        let began = Instant::now();
        let mut line = connect(&kit_socket).await?;
        once(&mut line, &format!("/new{nth}")).await?;
        first.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(300)).await; // the next one is made ready
    }
    let listed = get(&kit_socket, "/api/v1/exec/monitor/scripts").await?;
    let mut memory: Vec<f64> = listed["scripts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|script| Some(script["memoryBytes"].as_f64()? / f64::from(1 << 20)))
        .collect();
    memory.sort_by(f64::total_cmp);
    drop((bare, kit));

    let (bare_median, script_median) =
        (percentile(&bare_times, 0.5), percentile(&script_times, 0.5));
    let added = script_median.saturating_sub(bare_median).as_secs_f64() * 1e6;
    let result = json!({
        "bare": summary("Deno.serve, bare", &bare_times),
        "script": summary("a script through the kit's socket", &script_times),
        "kit_adds_us": added.round(),
        "ratio": (script_median.as_secs_f64() / bare_median.as_secs_f64() * 100.0).round() / 100.0,
        "bare_per_second": bare_rate.round(),
        "script_per_second": script_rate.round(),
        "throughput_ratio": (script_rate / bare_rate * 100.0).round() / 100.0,
        "first_answer": summary("first answer of a new script", &first),
        "resident_mib_of_a_script": memory.get(memory.len() / 2).map(|mib| mib.round()),
    });
    println!(
        "the kit adds {} µs; {} against {} requests a second",
        result["kit_adds_us"], result["script_per_second"], result["bare_per_second"]
    );
    Ok(result)
}

fn listens(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

type Line = SendRequest<Empty<Bytes>>;

async fn connect(socket: &Path) -> anyhow::Result<Line> {
    let (line, connection) = handshake(TokioIo::new(UnixStream::connect(socket).await?)).await?;
    tokio::spawn(connection);
    Ok(line)
}

async fn once(line: &mut Line, path: &str) -> anyhow::Result<Bytes> {
    line.ready().await?;
    let request = Request::get(path)
        .header("host", "bench")
        .header("x-hoody-edge-service", "exec")
        .header("x-hoody-edge-index", "1")
        .body(Empty::new())?;
    let answer = line.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    ensure!(
        status == 200,
        "{path} answered {status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(body)
}

async fn get(socket: &Path, path: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(
        &once(&mut connect(socket).await?, path).await?,
    )?)
}

async fn round(socket: &Path, path: &str, requests: usize) -> anyhow::Result<Vec<Duration>> {
    let mut line = connect(socket).await?;
    for _ in 0..requests / 5 {
        once(&mut line, path).await?; // warm up
    }
    let mut times = Vec::with_capacity(requests);
    for _ in 0..requests {
        let began = Instant::now();
        once(&mut line, path).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Requests a second over several connections.
async fn rate(socket: &Path, requests: usize) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let socket: PathBuf = socket.to_owned();
        tasks.push(tokio::spawn(async move {
            let mut line = connect(&socket).await?;
            for _ in 0..requests / 4 {
                once(&mut line, "/hello").await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok((CONNECTIONS * (requests / 4)) as f64 / began.elapsed().as_secs_f64())
}
