//! `hoody`: the command of a node and of those who use it.
//!
//! Read in this order: `config` (what a node is told, and by whom), `up` (from nothing to a
//! computer behind a URL), `node` (the processes of a node), `supervise` (keeping them up),
//! `down`, `status`, `trust` (the private authority, and who believes it), `purge` (and back to
//! nothing), `dns` (the node's names), `client` (the verbs of the API and the kits).
//!
//! Beside them: `state` (the directory that all of it is in), `kit` (what containers get),
//! `certs` (certificates), `engine` and `unit` (the engine's scripts, the service manager), `visit`
//! (asking the node over HTTPS), `merge` (memory that containers share), `addresses`, `ports`, `process`, `logs`, `files`, `progress`.
//!
//! Only this file and `config` read the environment.

mod addresses;
mod certs;
mod client;
mod config;
mod dns;
mod down;
mod engine;
mod files;
mod kit;
mod logs;
mod merge;
mod node;
mod ports;
mod process;
mod progress;
mod purge;
mod state;
mod status;
mod supervise;
mod trust;
mod unit;
mod up;
mod visit;

use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, Command};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A subcommand that concerns the node on this machine.
struct Role {
    name: &'static str,
    command: fn() -> Command,
    run: fn(&ArgMatches) -> anyhow::Result<ExitCode>,
}

/// Every subcommand that is not a verb of a client.
const ROLES: &[Role] = &[
    Role {
        name: "up",
        command: up::command,
        run: up::run,
    },
    Role {
        name: "down",
        command: down::command,
        run: down::run,
    },
    Role {
        name: "status",
        command: status::command,
        run: status::run,
    },
    Role {
        name: certs::CERTS,
        command: certs::command,
        run: certs::run,
    },
    Role {
        name: "purge",
        command: purge::command,
        run: purge::run,
    },
    Role {
        name: "trust",
        command: trust::command,
        run: trust::run,
    },
    Role {
        name: dns::NAME,
        command: dns::command,
        run: dns::run,
    },
    Role {
        name: "node",
        command: node::command,
        run: node::run,
    },
    Role {
        name: "control",
        command: node::control_command,
        run: node::run_control,
    },
    Role {
        name: "relay",
        command: node::relay_command,
        run: node::run_relay,
    },
    Role {
        name: "proxy",
        command: node::proxy_command,
        run: node::run_proxy,
    },
    Role {
        name: merge::NAME,
        command: merge::command,
        run: merge::run,
    },
];

/// Roles with subcommands of their own, which are no verbs of a client.
const OWN: [&str; 2] = [certs::CERTS, dns::NAME];

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hoody: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let provider = rustls::crypto::ring::default_provider();
    provider
        .install_default()
        .ok()
        .context("the TLS provider was installed twice")?;
    let matches = command().get_matches();
    let (name, arguments) = matches.subcommand().expect("clap asks for a subcommand");
    match ROLES.iter().find(|role| role.name == name) {
        Some(role) if OWN.contains(&name) || arguments.subcommand().is_none() => {
            (role.run)(arguments)
        }
        _ => client::run(name, arguments),
    }
}

fn command() -> Command {
    Command::new("hoody")
        .about("Computers behind URLs: run a node, use its containers")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(subcommands())
}

fn subcommands() -> Vec<Command> {
    let mut verbs = client::commands();
    let mut all: Vec<Command> = Vec::new();
    for role in ROLES {
        let command = (role.command)();
        let namesake = verbs.iter().position(|verb| verb.get_name() == role.name);
        all.push(match namesake {
            Some(at) => shared(&command, verbs.remove(at)),
            None => command,
        });
    }
    all.extend(verbs);
    all
}

/// One command for a role and the verbs of the same name: `hoody proxy` runs the proxy, `hoody
/// proxy list` asks the API.
fn shared(role: &Command, verbs: Command) -> Command {
    let about = role.get_about().cloned().unwrap_or_default();
    verbs
        .about(about)
        .args(role.get_arguments())
        .subcommand_required(false)
        .arg_required_else_help(false)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_commands_are_well_formed() {
        super::command().debug_assert();
    }
}
