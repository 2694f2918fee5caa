//! The state directory: everything a node keeps, and the mark that says who made it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::files;

/// The file that makes a directory ours.
const MARK: &str = ".hoody";

/// A state directory that `hoody` made.
#[derive(Debug, Clone)]
pub struct State {
    root: PathBuf,
    mark: Mark,
}

/// What is written on the mark: where it belongs, and what was made elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// A copy of a state directory is not the state directory.
    state: PathBuf,
    /// The client profile that was made for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<PathBuf>,
}

impl State {
    /// The state directory at `root`, made where there is none.
    pub fn create(root: &Path) -> anyhow::Result<State> {
        match State::read(root)? {
            Some(state) => state.arrange(),
            None => {
                if !is_empty(root)? {
                    bail!(
                        "{} is in use by something else (it has no file {MARK}); name another directory with --state",
                        root.display()
                    );
                }
                files::directory(root, 0o755)?;
                let state = State {
                    root: root.to_owned(),
                    mark: Mark {
                        state: root.to_owned(),
                        profile: None,
                    },
                };
                state.write_mark()?;
                state.arrange()
            }
        }
    }

    /// The state directory at `root`, which has to be there.
    pub fn open(root: &Path) -> anyhow::Result<State> {
        State::read(root)?.with_context(|| {
            format!(
                "there is no node in {} (it has no file {MARK}); make one with `hoody up`",
                root.display()
            )
        })
    }

    /// The state directory at `root`, if there is one.
    pub fn read(root: &Path) -> anyhow::Result<Option<State>> {
        let path = root.join(MARK);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("could not read {}", path.display()));
            }
        };
        let mark: Mark = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged", path.display()))?;
        if mark.state != root {
            bail!(
                "{} is the state directory of {}, copied or moved; use it there",
                root.display(),
                mark.state.display()
            );
        }
        Ok(Some(State {
            root: root.to_owned(),
            mark,
        }))
    }

    /// Make the directories, readable by those who need them.
    fn arrange(self) -> anyhow::Result<State> {
        files::directory(&self.root, 0o755)?;
        for (name, mode) in [
            ("run", 0o700), // sockets: whoever connects is believed
            ("logs", 0o750),
            ("pki", 0o755),
            ("proxy", 0o700),
            ("kit", 0o755), // mounted in every container
            ("kit/bin", 0o755),
            ("kit/ca", 0o755),
            ("containers", 0o711),
        ] {
            files::directory(&self.root.join(name), mode)?;
        }
        Ok(self)
    }

    fn write_mark(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&self.mark).expect("a mark is plain JSON");
        files::write(&self.root.join(MARK), &text, 0o600)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn mark(&self) -> PathBuf {
        self.root.join(MARK)
    }

    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    pub fn kit(&self) -> PathBuf {
        self.root.join("kit")
    }

    pub fn log(&self, role: &str) -> PathBuf {
        self.root.join("logs").join(format!("{role}.log"))
    }

    /// The file with the process of a role.
    pub fn pid(&self, role: &str) -> PathBuf {
        self.root.join("run").join(format!("{role}.pid"))
    }

    /// Held by the process that runs the node.
    pub fn lock(&self) -> PathBuf {
        self.root.join("run/node.lock")
    }

    /// Held by the command that changes the node: one at a time.
    pub fn change_lock(&self) -> PathBuf {
        self.root.join("run/change.lock")
    }

    /// What the running node was started as.
    pub fn running(&self) -> PathBuf {
        self.root.join("run/node.running")
    }

    pub fn profile(&self) -> Option<&Path> {
        self.mark.profile.as_deref()
    }

    /// Remember a profile that was made for this node.
    pub fn remember_profile(&mut self, path: &Path) -> anyhow::Result<()> {
        if self.mark.profile.as_deref() != Some(path) {
            self.mark.profile = Some(path.to_owned());
            self.write_mark()?;
        }
        Ok(())
    }
}

/// Whether there is nothing at `root`, or a directory with nothing in it.
fn is_empty(root: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(root) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("could not look into {}", root.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("theirs"), "").unwrap();
        let error = State::create(root.path())
            .expect_err("not ours")
            .to_string();
        assert!(error.contains("in use by something else"), "{error}");
        assert!(!root.path().join(MARK).exists());
    }

    #[test]
    fn a_copy_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (here, there) = (root.path().join("here"), root.path().join("there"));
        State::create(&here).unwrap();
        fs::create_dir(&there).unwrap();
        fs::copy(here.join(MARK), there.join(MARK)).unwrap();
        let error = State::open(&there).expect_err("a copy").to_string();
        assert!(error.contains("copied or moved"), "{error}");
    }

    #[test]
    fn making_it_again_keeps_what_is_known() {
        let root = tempfile::tempdir().unwrap();
        let mut state = State::create(root.path()).unwrap();
        state
            .remember_profile(Path::new("/home/x/.config/hoody/default.json"))
            .unwrap();
        let again = State::create(root.path()).unwrap();
        assert_eq!(again.profile(), state.profile());
        assert_eq!(State::open(root.path()).unwrap().mark, state.mark);
    }
}
