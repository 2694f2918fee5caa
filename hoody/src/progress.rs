//! What a person sees while something takes long.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Whoever waits longer than this is told what for.
const QUIET: Duration = Duration::from_secs(2);
/// And told again this often.
const AGAIN: Duration = Duration::from_secs(5);

/// Say that something is done, or about to be.
pub fn say(words: &str) {
    eprintln!("hoody: {words}");
}

/// Wait for something; where it takes long, say so.
pub async fn wait<T>(what: &str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let mut tick = interval_at(started + QUIET, AGAIN);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = tick.tick() => say(&format!("{what} ({} s so far)", started.elapsed().as_secs())),
        }
    }
}
