//! Ending the node. Containers run on, and what they keep stays.

use std::fs::File;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{ArgMatches, Command};
use rustix::process::Signal;

use crate::config::{self, Config};
use crate::node::{self, NODE, ROLES};
use crate::process::Process;
use crate::progress::{say, wait};
use crate::state::State;
use crate::unit::Unit;

/// Both roles drain, one after the other, before the supervisor ends.
const PATIENCE: Duration = Duration::from_secs(45);
/// From being killed to being gone.
const KILLED: Duration = Duration::from_secs(5);
/// How long another command may take that changes the node.
const TURN: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(200);

pub fn command() -> Command {
    config::options(
        Command::new("down").about("Stop this machine's node; containers and data stay"),
    )
}

pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let config = Config::load(matches)?;
    let state = State::open(&config.state)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let _lock = wait("another command is changing this node", change_lock(&state)).await?;
        let ran = wait("waiting for the node to end", stop(&config, &state)).await?;
        say(if ran {
            "the node is down; containers and data stay"
        } else {
            "the node was down already"
        });
        Ok(ExitCode::SUCCESS)
    })
}

/// Wait for this command's turn to change the node.
pub async fn change_lock(state: &State) -> anyhow::Result<File> {
    let path = state.change_lock();
    let deadline = tokio::time::Instant::now() + TURN;
    loop {
        if let Some(lock) = node::lock(&path)? {
            return Ok(lock);
        }
        if tokio::time::Instant::now() >= deadline {
            bail!(
                "another command has been changing this node for long; see who holds {}",
                path.display()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// End the node and whatever is left of it. Returns whether there was something to end.
pub async fn stop(config: &Config, state: &State) -> anyhow::Result<bool> {
    let (config, state) = (config.clone(), state.clone());
    tokio::task::spawn_blocking(move || stop_all(&config, &state)).await?
}

fn stop_all(config: &Config, state: &State) -> anyhow::Result<bool> {
    let mut ran = match Unit::of(config) {
        Some(unit) => unit.stop()?,
        None => false,
    };
    // Roles end with their supervisor; one that was killed may have left them.
    for role in [NODE].into_iter().chain(ROLES.into_iter().rev()) {
        let path = state.pid(role);
        if let Some(process) = Process::read(&path).filter(Process::is_alive) {
            ran = true;
            if !process.end(Signal::TERM, PATIENCE)? {
                say(&format!("{role} did not end by itself; killing it"));
                if !process.end(Signal::KILL, KILLED)? {
                    bail!("process {} of {role} cannot be ended", process.pid);
                }
            }
        }
        crate::files::remove(&path)?;
    }
    crate::files::remove(&state.running())?;
    Ok(ran)
}
