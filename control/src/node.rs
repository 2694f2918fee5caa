//! What the machine below is: read once at the start.

use std::path::Path;

/// Facts of the host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Host {
    pub cpu_model: Option<String>,
    pub cpus: u32,
    /// Bytes.
    pub memory: u64,
    /// Bytes of the file system that holds the state.
    pub disk: u64,
    /// `amd64`, `arm64`.
    pub architecture: &'static str,
    /// Changes with every boot.
    pub boot: String,
}

impl Host {
    /// Look at the machine; what cannot be read is absent or zero.
    pub fn observe(state: &Path) -> Host {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Host {
            cpu_model: field(&cpuinfo, "model name").map(str::to_owned),
            cpus: std::thread::available_parallelism()
                .ok()
                .and_then(|n| u32::try_from(n.get()).ok())
                .unwrap_or(1),
            memory: memory(),
            disk: rustix::fs::statvfs(state).map_or(0, |facts| facts.f_blocks * facts.f_frsize),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            boot: boot.trim().to_owned(),
        }
    }
}

/// Bytes of memory of this machine; zero where that cannot be read.
pub fn memory() -> u64 {
    const KIB: u64 = 1024;
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    field(&meminfo, "MemTotal")
        .and_then(|text| text.strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * KIB)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_a_boot() {
        let host = Host::observe(Path::new("/"));
        assert!(host.memory > 0 && host.disk > 0 && host.cpus > 0 && !host.boot.is_empty());
    }
}
