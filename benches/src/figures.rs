//! Medians, percentiles and where they came from.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// The value below which this share of the samples lies (nearest rank).
pub fn percentile(samples: &[Duration], share: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort();
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The middle of the samples (of the two in the middle, the upper one).
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// How busy the machine was during the last minute.
pub fn load() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Median, p95 and extremes in milliseconds, also printed.
pub fn summary(name: &str, samples: &[Duration]) -> Value {
    let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let (median, p95) = (percentile(samples, 0.5), percentile(samples, 0.95));
    println!(
        "{name:<44} median {:>9.3} ms   p95 {:>9.3} ms   n {}",
        millis(median),
        millis(p95),
        samples.len()
    );
    json!({
        "median_ms": millis(median),
        "p95_ms": millis(p95),
        "min_ms": millis(percentile(samples, 0.0)),
        "max_ms": millis(percentile(samples, 1.0)),
        "samples": samples.len(),
    })
}

/// Write a result with the machine it came from.
pub fn write(path: &Path, result: &Value) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let whole = json!({ "machine": machine(), "result": result });
    std::fs::write(path, format!("{whole:#}\n"))?;
    println!("written to {}", path.display());
    Ok(())
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once([':', '=']))
            .map(|(_, value)| value.trim().trim_matches('"').to_owned())
    };
    json!({
        "processor": field(&read("/proc/cpuinfo"), "model name"),
        // Not those that this process may use: a measurement may have pinned itself to one.
        "cores": read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count(),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "system": field(&read("/etc/os-release"), "PRETTY_NAME"),
        "load": read("/proc/loadavg").split(' ').next(),
    })
}
