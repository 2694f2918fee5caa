//! A machine's processes held still (cgroup v1, `freezer-subsystem.txt` of the kernel).
//!
//! The engine writes `FROZEN`, and where not all processes stand still at once, it looks again after
//! a whole second. So the processes are brought to a standstill first, and the engine is told then:
//! it finds what it asks for. Where the host has no such hierarchy (cgroup v2 tells of the end by
//! itself), nothing is done here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

/// Where the hierarchy is mounted.
const ROOT: &str = "/sys/fs/cgroup/freezer";
const STATE: &str = "freezer.state";
const FROZEN: &str = "FROZEN";
const THAWED: &str = "THAWED";
/// Longer than this, the engine waits in its own way: a process may be in the kernel for long.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_LEAST: Duration = Duration::from_millis(1);
const LOOK_MOST: Duration = Duration::from_millis(20);

/// The freezer of one machine.
pub struct Freezer(PathBuf);

impl Freezer {
    /// Of an instance in a project of the engine.
    pub fn of(project: &str, instance: &str) -> Freezer {
        Freezer::below(Path::new(ROOT), project, instance)
    }

    fn below(root: &Path, project: &str, instance: &str) -> Freezer {
        Freezer(root.join(group(project, instance)))
    }

    /// Hold its processes still; what cannot be done in a while is left to the engine.
    pub async fn freeze(&self) {
        let until = Instant::now() + PATIENCE;
        let mut pause = LOOK_LEAST;
        while self.holds_processes() && self.write(FROZEN) {
            if self.reads(FROZEN) || Instant::now() >= until {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MOST);
        }
    }

    /// Let its processes go on, whatever the engine takes them for.
    pub fn thaw(&self) {
        if self.0.join(STATE).exists() && !self.reads(THAWED) {
            self.write(THAWED);
        }
    }

    /// Let its processes go on, and whether they do: where there is no such hierarchy, the engine
    /// has to be asked.
    pub fn lets_go(&self) -> bool {
        self.thaw();
        self.0.join(STATE).exists() && !self.is_frozen() && self.holds_processes()
    }

    /// Whether its processes are held still, or are about to be.
    pub fn is_frozen(&self) -> bool {
        self.0.join(STATE).exists() && !self.reads(THAWED) && self.holds_processes()
    }

    /// What a machine of the same name left behind holds none.
    fn holds_processes(&self) -> bool {
        let listed = std::fs::read_to_string(self.0.join("cgroup.procs"));
        listed.is_ok_and(|listed| !listed.trim().is_empty())
    }

    fn reads(&self, state: &str) -> bool {
        let read = std::fs::read_to_string(self.0.join(STATE));
        read.is_ok_and(|read| read.trim() == state)
    }

    fn write(&self, state: &str) -> bool {
        std::fs::write(self.0.join(STATE), state).is_ok()
    }
}

/// What the control group of an instance is called, in every hierarchy.
pub fn group(project: &str, instance: &str) -> String {
    match project {
        "default" => format!("lxc.payload.{instance}"),
        _ => format!("lxc.payload.{project}_{instance}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_has_processes_is_held() {
        let root = tempfile::tempdir().unwrap();
        let freezer = Freezer::below(root.path(), "node", "c-1");
        freezer.freeze().await;
        freezer.thaw();
        assert!(!freezer.is_frozen(), "there is no such hierarchy");
        assert!(!freezer.lets_go());
        let at = root.path().join("lxc.payload.node_c-1");
        assert!(!at.exists(), "and none is made");
        std::fs::create_dir(&at).unwrap();
        std::fs::write(at.join(STATE), "THAWED\n").unwrap();
        std::fs::write(at.join("cgroup.procs"), "").unwrap();
        freezer.freeze().await;
        assert_eq!(std::fs::read_to_string(at.join(STATE)).unwrap(), "THAWED\n");
        std::fs::write(at.join("cgroup.procs"), "7\n8\n").unwrap();
        freezer.freeze().await;
        assert!(freezer.is_frozen());
        assert!(freezer.lets_go());
        assert!(!freezer.is_frozen());
        let plain = Freezer::below(root.path(), "default", "c-1");
        assert_eq!(plain.0, root.path().join("lxc.payload.c-1"));
    }
}
