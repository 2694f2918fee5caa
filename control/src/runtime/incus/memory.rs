//! Memory of a machine that the kernel cannot take back, from the statistics of its control group
//! (`memory.stat` of cgroup v1 and v2).

use std::path::Path;

use super::freezer::group;

/// Where each version has the hierarchy, and what it calls the parts: memory of programs, and files
/// that are nowhere but in memory.
const VERSIONS: [(&str, [&str; 2]); 2] = [
    ("/sys/fs/cgroup/memory", ["total_rss", "total_shmem"]),
    ("/sys/fs/cgroup", ["anon", "shmem"]),
];

/// Bytes that a machine holds on to; nothing where that is not known.
pub fn held(project: &str, instance: &str) -> Option<u64> {
    VERSIONS.iter().find_map(|(root, parts)| {
        let path = Path::new(root).join(group(project, instance));
        let text = std::fs::read_to_string(path.join("memory.stat")).ok()?;
        sum(&text, parts)
    })
}

fn sum(text: &str, parts: &[&str]) -> Option<u64> {
    parts.iter().try_fold(0u64, |sum, part| {
        let value = text.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            (name == *part).then(|| value.trim().parse::<u64>().ok())?
        })?;
        sum.checked_add(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_summed() {
        let text = "cache 100\nrss 1\ntotal_cache 90\ntotal_rss 20\ntotal_shmem 3\n";
        assert_eq!(sum(text, &["total_rss", "total_shmem"]), Some(23));
        assert_eq!(sum(text, &["anon", "shmem"]), None);
        assert_eq!(sum("anon x\nshmem 1\n", &["anon", "shmem"]), None);
        assert_eq!(sum("", &["anon"]), None);
    }
}
