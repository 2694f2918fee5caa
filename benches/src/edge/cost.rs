//! What a server used: processor time and memory, of it and all its children.

use std::time::Duration;

/// A process and everything it has started.
fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        at += 1;
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    found
}

/// The time that all its threads have spent on a processor, to a nanosecond.
pub fn processor(pid: u32) -> Duration {
    let mut spent = 0;
    for pid in family(pid) {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let first = text.split_whitespace().next();
            spent += first.and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(spent)
}

/// The time that its threads of this name have spent on a processor.
pub fn thread(pid: u32, name: &str) -> Duration {
    let mut spent = 0;
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").trim() == name {
            let times = read("schedstat");
            let first = times.split_whitespace().next();
            spent += first.and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(spent)
}

/// The resident memory of it and all its children in bytes.
pub fn memory(pid: u32) -> u64 {
    family(pid).into_iter().map(own_memory).sum()
}

/// The resident memory of this process alone, in bytes.
pub fn own_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
