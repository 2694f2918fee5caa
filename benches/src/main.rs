//! Measurements on a running node, against packaged peers in the same run.
//!
//! `cargo run --release -p benches -- life`, `… -- hop` and so on ask the questions in [`life`],
//! [`claim`], [`disks`], [`density`], [`idle`] and [`hop`] of a node that runs; `… -- edge`, `… -- effect`, `… -- dns`, `… -- terminal` and
//! `… -- exec` need none and ask those in [`edge`], [`effect`], [`dns`], [`terminal`] and [`exec`].
//! Each prints a table and writes `benches/results/<name>.json` with the machine's description
//! beside the numbers.

mod api;
mod certificate;
mod claim;
mod density;
mod disks;
mod dns;
mod edge;
mod effect;
mod exec;
mod figures;
mod hop;
mod idle;
mod life;
mod server;
mod terminal;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The allocator of a node.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measure a running node, or the proxy alone.
#[derive(Parser)]
struct Arguments {
    /// The profile that `hoody up` wrote: API URL, token and certificate authority.
    #[arg(long, default_value = "/root/.config/hoody/default.json")]
    profile: PathBuf,
    /// Where results are written.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// How long until a new container, and one that was stopped, answers at its URL?
    Life {
        #[arg(long, default_value_t = 20)]
        count: usize,
    },
    /// How long until a container answers that is given a machine which was kept ready?
    Claim {
        #[arg(long, default_value_t = 20)]
        count: usize,
        /// Callers at once.
        #[arg(long, value_delimiter = ',', default_values_t = [1, 10])]
        callers: Vec<usize>,
    },
    /// How long do a snapshot, a restore, a copy and a sync take, of little and of much?
    Disks {
        #[arg(long, default_value_t = 20)]
        count: usize,
        /// Sizes, in MB.
        #[arg(long, value_delimiter = ',', default_values_t = [10, 5000])]
        megabytes: Vec<u64>,
    },
    /// How many machines are up at once, each answering at its URL, and what does each hold?
    Density(density::Settings),
    /// What does an idle container hold?
    Idle {
        #[arg(long, default_value_t = 20)]
        count: usize,
        /// Seconds of rest before measuring.
        #[arg(long, default_value_t = 30)]
        rest: u64,
    },
    /// What does the proxy add to a reply of 1 KiB?
    Hop {
        /// Requests of each round.
        #[arg(long, default_value_t = 4000)]
        requests: usize,
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// State directory of the node, for the direct path to a container's socket.
        #[arg(long, default_value = "/var/lib/hoody")]
        state: PathBuf,
    },
    /// How long until a change at the API is in effect at the proxy?
    Effect {
        /// Sizes of the table.
        #[arg(long, value_delimiter = ',', default_values_t = [10, 100_000])]
        routes: Vec<usize>,
        #[arg(long, default_value_t = 200)]
        changes: usize,
    },
    /// How fast is the proxy beside packaged ones that do the same job?
    Edge(edge::Settings),
    /// How many questions for names does one core answer, beside packaged name servers?
    Dns(dns::Settings),
    /// How fast is a terminal, beside the one that Jupyter has?
    Terminal(terminal::Settings),
    /// What does the kit add to the answer of a script, beside a bare `Deno.serve`?
    Exec(exec::Settings),
    /// Be one of the servers of a measurement.
    #[command(hide = true)]
    Serve {
        #[command(subcommand)]
        part: Part,
    },
}

/// Servers that a measurement starts in processes of their own.
#[derive(Subcommand)]
enum Part {
    /// Large bodies and tunnels, on a socket.
    Upstream { socket: PathBuf },
    /// The proxy as a node runs it.
    Ours {
        http: SocketAddr,
        https: SocketAddr,
        /// Where the certificate is.
        certificates: PathBuf,
        state: PathBuf,
    },
    /// Pingora with nothing of ours.
    Bare {
        http: SocketAddr,
        https: SocketAddr,
        certificates: PathBuf,
        small: PathBuf,
        large: PathBuf,
    },
    /// The name server as a node runs it.
    Names { address: SocketAddr },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // The bare Pingora makes its own runtimes.
    if let Question::Serve {
        part:
            Part::Bare {
                http,
                https,
                certificates,
                small,
                large,
            },
    } = &arguments.question
    {
        return edge::bare::serve(*http, *https, certificates, small, large);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(Box::pin(ask(arguments)))
}

async fn ask(arguments: Arguments) -> anyhow::Result<()> {
    let node = || api::Api::open(&arguments.profile);
    let (name, result) = match arguments.question {
        Question::Life { count } => ("life", life::ask(&node()?, count).await?),
        Question::Claim { count, callers } => {
            ("claim", claim::ask(&node()?, count, &callers).await?)
        }
        Question::Disks { count, megabytes } => {
            ("disks", disks::ask(&node()?, count, &megabytes).await?)
        }
        Question::Density(settings) => ("density", density::ask(&node()?, &settings).await?),
        Question::Idle { count, rest } => ("idle", idle::ask(&node()?, count, rest).await?),
        Question::Hop {
            requests,
            rounds,
            state,
        } => ("hop", hop::ask(&node()?, requests, rounds, &state).await?),
        Question::Effect { routes, changes } => {
            ("effect", Box::pin(effect::ask(&routes, changes)).await?)
        }
        Question::Edge(settings) => ("edge", Box::pin(edge::ask(&settings)).await?),
        Question::Dns(settings) => ("dns", dns::ask(&settings).await?),
        Question::Terminal(settings) => ("terminal", Box::pin(terminal::ask(&settings)).await?),
        Question::Exec(settings) => ("exec", exec::ask(&settings).await?),
        Question::Serve { part } => {
            return match part {
                Part::Names { address } => dns::serve(address).await,
                Part::Upstream { socket } => edge::upstream::serve(&socket).await,
                Part::Ours {
                    http,
                    https,
                    certificates,
                    state,
                } => edge::ours::serve(http, https, &certificates, &state).await,
                Part::Bare { .. } => unreachable!("it has no runtime of ours"),
            };
        }
    };
    figures::write(&arguments.results.join(format!("{name}.json")), &result)
}
