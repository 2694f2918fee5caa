//! Disks of machines are counted, and counted again where the kernel has stopped.
//!
//! A bound on a disk is one on what btrfs counts (btrfs-quota(8)). Where its numbers no longer fit, when
//! a disk is deleted for one, it marks them inconsistent and counts nothing more in the whole pool:
//! nobody's bound holds any longer, until somebody asks for a recount.

use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use super::{Incus, pool};

/// How long machines may be without bounds before it is seen. A look is the read of one small file.
const LOOK: Duration = Duration::from_secs(1);
/// A recount that takes longer than this is waited for no more; it goes on.
const RECOUNT: Duration = Duration::from_secs(60);
const MOUNTS: &str = "/proc/self/mountinfo";
const FILE_SYSTEMS: &str = "/sys/fs/btrfs";

/// See to it for as long as the runtime is there.
pub async fn keep(incus: Weak<Incus>) {
    // Found in a list of all mounts, of which a host with many machines has thousands.
    let mut found = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(pool) = incus.upgrade().map(|incus| pool(&incus.settings)) else {
            return;
        };
        if found.as_ref().is_none_or(|flag: &PathBuf| !flag.exists()) {
            found = flag(&pool);
        }
        if found.as_deref().is_some_and(is_set) {
            recount(&pool).await;
        }
    }
}

async fn recount(pool: &Path) {
    tracing::warn!("the kernel has stopped counting disks; having it count them anew");
    let mut command = tokio::process::Command::new("btrfs");
    command.args(["quota", "rescan", "-w"]).arg(pool);
    command.stdin(std::process::Stdio::null());
    match tokio::time::timeout(RECOUNT, command.output()).await {
        Ok(Ok(ran)) if ran.status.success() => {}
        Ok(Ok(ran)) => {
            let said = String::from_utf8_lossy(&ran.stderr);
            tracing::warn!("disks are not counted: {}", said.trim());
        }
        Ok(Err(error)) => tracing::warn!(%error, "could not run btrfs: disks are not counted"),
        Err(_) => {}
    }
}

/// The file in which the kernel says whether its numbers fit; none where the pool is no btrfs.
fn flag(pool: &Path) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string(MOUNTS).ok()?;
    let device = device(&mounts, pool)?;
    let device = std::fs::canonicalize(device).ok()?;
    let found = std::fs::read_dir(FILE_SYSTEMS).ok()?.flatten();
    found
        .map(|entry| entry.path())
        .find(|path| {
            path.join("devices")
                .join(device.file_name().unwrap_or_default())
                .exists()
        })
        .map(|path| path.join("qgroups/inconsistent"))
}

fn is_set(flag: &Path) -> bool {
    std::fs::read_to_string(flag).is_ok_and(|text| text.trim() == "1")
}

/// The device that is mounted there (proc_pid_mountinfo(5)).
fn device(mounts: &str, pool: &Path) -> Option<PathBuf> {
    mounts.lines().rev().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let at = before.split(' ').nth(4)?;
        let mut after = after.split(' ');
        let (kind, device) = (after.next()?, after.next()?);
        (kind == "btrfs" && Path::new(at) == pool).then(|| PathBuf::from(device))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_a_pool_is_found() {
        let mounts = "\
            22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n\
            40 22 0:50 / /pools/one rw,noatime - btrfs /dev/loop0 rw,space_cache=v2\n\
            41 22 0:51 / /pools/two rw - btrfs /dev/loop1 rw\n\
            42 22 0:52 / /pools/three rw - tmpfs none rw\n";
        let found = |pool: &str| device(mounts, Path::new(pool));
        assert_eq!(found("/pools/one"), Some("/dev/loop0".into()));
        assert_eq!(found("/pools/two"), Some("/dev/loop1".into()));
        assert_eq!(found("/pools/three"), None);
        assert_eq!(found("/pools"), None);
    }

    #[test]
    fn a_flag_that_is_not_there_is_not_set() {
        let place = tempfile::tempdir().unwrap();
        let flag = place.path().join("inconsistent");
        assert!(!is_set(&flag));
        for (text, set) in [("0\n", false), ("1\n", true)] {
            std::fs::write(&flag, text).unwrap();
            assert_eq!(is_set(&flag), set);
        }
    }
}
