//! Room for the engine in a machine's full disk.
//!
//! The engine keeps its own record of a machine in the machine's volume, and writes it anew at
//! every start. Where the machine has filled its disk, that fails, and nobody could get in to make
//! room. So the bound is moved away for the time of a start (`btrfs-qgroup(8)`), from outside of
//! the volume: what is done within it would be counted again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// What a start may write beyond the bound: some records of a few KiB, and what they take of trees.
const SPARE: u64 = 64 << 20;
const BTRFS: Duration = Duration::from_secs(10);

/// The volume of a machine, bounded.
pub struct Room {
    pool: PathBuf,
    group: String,
    bound: u64,
}

impl Room {
    /// Move the bound of a volume, relative to its pool, away by a little.
    pub async fn make(pool: &Path, volume: &Path, bound: u64) -> Result<Room, String> {
        let volume = pool.join(volume);
        let id = btrfs(&["inspect-internal", "rootid"], &[&volume]).await?;
        let id: u64 = id
            .trim()
            .parse()
            .map_err(|_| format!("btrfs says that the volume has the number {id:?}"))?;
        let room = Room {
            pool: pool.to_owned(),
            group: format!("0/{id}"),
            bound,
        };
        room.limit(bound.saturating_add(SPARE)).await?;
        Ok(room)
    }

    /// Where it was.
    pub async fn end(self) -> Result<(), String> {
        self.limit(self.bound).await
    }

    async fn limit(&self, bytes: u64) -> Result<(), String> {
        let words = ["qgroup", "limit", &bytes.to_string(), &self.group];
        btrfs(&words, &[&self.pool]).await.map(drop)
    }
}

async fn btrfs(words: &[&str], paths: &[&Path]) -> Result<String, String> {
    let ran = Command::new("btrfs")
        .args(words)
        .args(paths)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ran = tokio::time::timeout(BTRFS, ran)
        .await
        .map_err(|_| format!("btrfs {} takes too long", words.join(" ")))?
        .map_err(|error| format!("btrfs cannot be run: {error}"))?;
    match ran.status.success() {
        true => Ok(String::from_utf8_lossy(&ran.stdout).into_owned()),
        false => Err(format!(
            "btrfs {} failed: {}",
            words.join(" "),
            String::from_utf8_lossy(&ran.stderr).trim()
        )),
    }
}
