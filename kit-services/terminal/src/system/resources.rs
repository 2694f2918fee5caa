//! Memory, processors, disks.

use std::collections::HashMap;
use std::fs;

use schemars::JsonSchema;
use serde::Serialize;

use super::processes::round;

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Memory {
    pub total_bytes: u64,
    pub used_bytes: u64,
    pub available_bytes: u64,
    pub used_percent: f64,
    pub swap_total_bytes: u64,
    pub swap_used_bytes: u64,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Processor {
    /// Processors this machine may use.
    pub cores: usize,
    pub load_1min: f64,
    pub load_5min: f64,
    pub load_15min: f64,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Disk {
    pub mount: &'static str,
    pub total_bytes: u64,
    pub used_bytes: u64,
    pub available_bytes: u64,
    pub used_percent: f64,
}

/// Memory of the machine (`/proc/meminfo`, which a container's LXCFS limits to its own).
pub fn memory() -> Memory {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let values: HashMap<&str, u64> = text
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name, value.trim().trim_end_matches(" kB").parse().ok()?))
        })
        .collect();
    let bytes = |name: &str| values.get(name).copied().unwrap_or(0) * 1024;
    let (total, available) = (bytes("MemTotal"), bytes("MemAvailable"));
    let used = total.saturating_sub(available);
    Memory {
        total_bytes: total,
        used_bytes: used,
        available_bytes: available,
        used_percent: percent(used, total),
        swap_total_bytes: bytes("SwapTotal"),
        swap_used_bytes: bytes("SwapTotal").saturating_sub(bytes("SwapFree")),
    }
}

pub fn processor() -> Processor {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut loads = text.split(' ').map(|text| text.parse().unwrap_or(0.0));
    let mut load = || loads.next().unwrap_or(0.0);
    Processor {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        load_1min: load(),
        load_5min: load(),
        load_15min: load(),
    }
}

/// The file system of the machine; none where it cannot be asked.
pub fn disk() -> Option<Disk> {
    let stat = rustix::fs::statvfs("/").ok()?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize;
    let available = stat.f_bavail * stat.f_frsize;
    Some(Disk {
        mount: "/",
        total_bytes: stat.f_blocks * stat.f_frsize,
        used_bytes: used,
        available_bytes: available,
        used_percent: percent(used, used + available),
    })
}

/// Seconds since boot.
pub fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0)
}

fn percent(part: u64, whole: u64) -> f64 {
    round(100.0 * part as f64 / whole.max(1) as f64)
}
