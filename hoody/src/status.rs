//! What of the node runs.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::config::{self, Config, Runtime};
use crate::engine;
use crate::node::{self, NODE};
use crate::process::Process;
use crate::state::State;

/// The exit code for a node that does not run, as service scripts have it (LSB, status).
const DOWN: u8 = 3;

pub fn command() -> Command {
    config::options(Command::new("status").about("Show what of this machine's node runs"))
}

pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let config = Config::load(matches)?;
    let state = State::open(&config.state)?;
    let mut up = true;
    for role in [NODE].into_iter().chain(node::roles(&config)) {
        match Process::read(&state.pid(role)).filter(Process::is_alive) {
            Some(process) => println!(
                "{role:<9}process {}, log {}",
                process.pid,
                state.log(role).display()
            ),
            None => {
                up = false;
                println!("{role:<9}down, log {}", state.log(role).display());
            }
        }
    }
    match config.runtime {
        Runtime::Incus if engine::answers(&config) => println!(
            "{:<9}answers at {}",
            "engine",
            config.engine_socket.display()
        ),
        Runtime::Incus => {
            up = false;
            println!(
                "{:<9}does not answer at {}",
                "engine",
                config.engine_socket.display()
            );
        }
        Runtime::Local => println!("{:<9}none: containers are plain processes", "engine"),
    }
    println!("{:<9}{}", "API", config.api_url());
    println!("{:<9}{}", "state", config.state.display());
    Ok(if up {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DOWN)
    })
}
