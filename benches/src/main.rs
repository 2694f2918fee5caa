//! Measurements on a running node, against packaged peers in the same run.
//!
//! `cargo run --release -p benches -- life` and `… -- hop` ask the questions in [`life`] and
//! [`hop`]; each prints a table and writes `benches/results/<name>.json` with the machine's
//! description beside the numbers.

mod api;
mod figures;
mod hop;
mod idle;
mod life;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measure a running node.
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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let api = api::Api::open(&arguments.profile)?;
    let (name, result) = match arguments.question {
        Question::Life { count } => ("life", life::ask(&api, count).await?),
        Question::Idle { count, rest } => ("idle", idle::ask(&api, count, rest).await?),
        Question::Hop {
            requests,
            rounds,
            state,
        } => ("hop", hop::ask(&api, requests, rounds, &state).await?),
    };
    figures::write(&arguments.results.join(format!("{name}.json")), &result)
}
