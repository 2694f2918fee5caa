//! Snapshots and copies of a machine's home: trees of files, that share their blocks where the
//! file system can (`cp --reflink=auto`).
//!
//! ```text
//! {root}/{id}/snapshots/{name}        a home as it was
//!            /snapshots/{name}.part   one that was only begun
//!            /home.part               what is to be the home next
//!            /home.old                what was the home
//! ```

use std::path::Path;
use std::process::Stdio;

use routes::Id;
use tokio::process::Command;

use super::{Local, Power, Runtime, RuntimeError, Source, make_directory, size};

/// What `cp` says of its failure, at most, in bytes.
const SAID: usize = 500;

impl Local {
    pub(super) async fn take_snapshot(
        &self,
        id: Id,
        name: &str,
    ) -> Result<Option<u64>, RuntimeError> {
        let act = "snapshot";
        let snapshots = self.directory(id).join("snapshots");
        make_directory(&snapshots).map_err(|error| broke(act, &error))?;
        let kept = snapshots.join(name);
        if !kept.exists() {
            let part = snapshots.join(format!("{name}.part"));
            self.copy_home(act, id, &part).await?;
            std::fs::rename(&part, &kept).map_err(|error| broke(act, &error))?;
        }
        Ok(tokio::task::spawn_blocking(move || size(&kept)).await.ok())
    }

    pub(super) async fn bring_back(&self, id: Id, name: &str) -> Result<(), RuntimeError> {
        let kept = self.directory(id).join("snapshots").join(name);
        if !kept.is_dir() {
            let name = name.to_owned();
            return Err(RuntimeError::NoSnapshot { id, name });
        }
        let part = self.directory(id).join("home.part");
        copy_tree("restore", &kept, &part).await?;
        self.replace_home("restore", id).await
    }

    pub(super) async fn remove_snapshot(&self, id: Id, name: &str) -> Result<(), RuntimeError> {
        let snapshots = self.directory(id).join("snapshots");
        remove_tree("drop", &snapshots.join(format!("{name}.part"))).await?;
        remove_tree("drop", &snapshots.join(name)).await
    }

    /// Put a copy of what the source has where the home of a machine is to be.
    pub(super) async fn bring_over(
        &self,
        act: &'static str,
        id: Id,
        source: &Source,
    ) -> Result<(), RuntimeError> {
        let directory = self.directory(id);
        make_directory(&directory.join("run")).map_err(|error| broke(act, &error))?;
        let part = directory.join("home.part");
        match &source.snapshot {
            Some(name) => {
                let kept = self.directory(source.id).join("snapshots").join(name);
                if !kept.is_dir() {
                    return Err(RuntimeError::NoSnapshot {
                        id: source.id,
                        name: name.clone(),
                    });
                }
                copy_tree(act, &kept, &part).await?;
            }
            None => self.copy_home(act, source.id, &part).await?,
        }
        self.replace_home(act, id).await
    }

    /// A copy of a home at one moment: what runs in it is halted meanwhile.
    async fn copy_home(&self, act: &'static str, id: Id, to: &Path) -> Result<(), RuntimeError> {
        let seen = self.look(id).ok_or(RuntimeError::NoMachine(id))?;
        let runs = seen.power == Power::On;
        if runs {
            self.freeze(id).await?;
        }
        let copied = copy_tree(act, &self.directory(id).join("home"), to).await;
        if runs {
            self.thaw(id).await?;
        }
        copied
    }

    /// What is in `home.part` becomes the home.
    async fn replace_home(&self, act: &'static str, id: Id) -> Result<(), RuntimeError> {
        let directory = self.directory(id);
        let [home, part, old] = ["home", "home.part", "home.old"].map(|name| directory.join(name));
        if home.exists() {
            remove_tree(act, &old).await?;
            std::fs::rename(&home, &old).map_err(|error| broke(act, &error))?;
        }
        std::fs::rename(&part, &home).map_err(|error| broke(act, &error))?;
        remove_tree(act, &old).await
    }
}

fn broke(act: &'static str, error: &std::io::Error) -> RuntimeError {
    RuntimeError::Permanent {
        act,
        reason: error.to_string(),
    }
}

/// Make a copy of a directory, in place of what is there.
async fn copy_tree(act: &'static str, from: &Path, to: &Path) -> Result<(), RuntimeError> {
    remove_tree(act, to).await?;
    let copied = Command::new("cp")
        .args(["--archive", "--reflink=auto", "--no-target-directory", "--"])
        .args([from, to])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| broke(act, &error))?;
    if copied.status.success() {
        return Ok(());
    }
    remove_tree(act, to).await?;
    let said = &copied.stderr[..copied.stderr.len().min(SAID)];
    Err(RuntimeError::Permanent {
        act,
        reason: String::from_utf8_lossy(said).trim().to_owned(),
    })
}

async fn remove_tree(act: &'static str, at: &Path) -> Result<(), RuntimeError> {
    let at = at.to_owned();
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(at)).await;
    match removed {
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => Err(broke(act, &error)),
        _ => Ok(()),
    }
}
