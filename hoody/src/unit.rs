//! The node as a service of systemd, where systemd runs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::config::{Config, Runtime};
use crate::{engine, files};

const DIRECTORY: &str = "/etc/systemd/system";

/// The unit of one node.
pub struct Unit {
    name: String,
    path: PathBuf,
    state: PathBuf,
}

impl Unit {
    /// The unit of this node, where there can be one: systemd is the system's and we are root.
    pub fn of(config: &Config) -> Option<Unit> {
        let has_systemd = Path::new("/run/systemd/system").is_dir();
        (has_systemd && rustix::process::geteuid().is_root())
            .then(|| Unit::named(config, Path::new(DIRECTORY)))
    }

    fn named(config: &Config, directory: &Path) -> Unit {
        let name = match config.engine_name.as_str() {
            "hoody" => "hoody.service".to_owned(),
            other => format!("hoody-{other}.service"),
        };
        Unit {
            path: directory.join(&name),
            name,
            state: config.state.clone(),
        }
    }

    /// Have the unit installed as this program wants it, and start it, also at every boot.
    pub fn start(&self, config: &Config, program: &Path) -> anyhow::Result<()> {
        self.write(config, program)?;
        systemctl(&["daemon-reload"])?;
        systemctl(&["enable", "--quiet", &self.name])?;
        systemctl(&["restart", &self.name]).with_context(|| {
            format!(
                "the service did not start; look at `systemctl status {}`",
                self.name
            )
        })
    }

    fn write(&self, config: &Config, program: &Path) -> anyhow::Result<()> {
        if self.path.exists() && !self.is_ours() {
            bail!(
                "{} is the unit of another node; give this one a name of its own with --engine-name",
                self.path.display()
            );
        }
        files::write(&self.path, self.text(config, program).as_bytes(), 0o644)
    }

    fn text(&self, config: &Config, program: &Path) -> String {
        // After a boot the engine's firewall is not there yet. Without the engine the node still serves.
        let before = match (config.runtime, engine::start_line(config)) {
            (Runtime::Incus, Some(words)) => {
                let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                format!("ExecStartPre=-{}\n", words.join(" "))
            }
            _ => String::new(),
        };
        // The processes of the local runtime are containers: they outlive the node.
        let kill = match config.runtime {
            Runtime::Incus => "mixed",
            Runtime::Local => "process",
        };
        format!(
            "{mark}\n\
             [Unit]\n\
             Description=Hoody node {node}\n\
             Wants=network-online.target\n\
             After=network-online.target incus.service\n\
             \n\
             [Service]\n\
             Type=exec\n\
             {before}\
             ExecStart={program} node --state {state}\n\
             Restart=always\n\
             RestartSec=2\n\
             KillMode={kill}\n\
             TimeoutStartSec=180\n\
             TimeoutStopSec=60\n\
             LimitNOFILE=1048576\n\
             \n\
             [Install]\n\
             WantedBy=multi-user.target\n",
            mark = self.mark(),
            node = config.node,
            program = quoted(program.as_os_str()),
            state = quoted(self.state.as_os_str()),
        )
    }

    /// Stop it. Returns whether it ran.
    pub fn stop(&self) -> anyhow::Result<bool> {
        let active = || {
            Command::new("systemctl")
                .args(["is-active", "--quiet", &self.name])
                .status()
        };
        if !self.is_ours() || !active().is_ok_and(|status| status.success()) {
            return Ok(false);
        }
        systemctl(&["stop", &self.name])?;
        Ok(true)
    }

    /// Take it out of the system, if it is there and this node's.
    pub fn remove(&self) -> anyhow::Result<()> {
        if !self.is_ours() {
            return Ok(());
        }
        systemctl(&["disable", "--quiet", "--now", &self.name])?;
        files::remove(&self.path)?;
        systemctl(&["daemon-reload"])
    }

    /// The first line of a unit that this node wrote.
    fn mark(&self) -> String {
        format!(
            "# Written by `hoody up` for the node in {}",
            self.state.display()
        )
    }

    fn is_ours(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|text| text.lines().next() == Some(&*self.mark()))
    }
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    let words = arguments.join(" ");
    let status = Command::new("systemctl")
        .args(arguments)
        .status()
        .context("could not run systemctl")?;
    if !status.success() {
        bail!("`systemctl {words}` failed: {status}");
    }
    Ok(())
}

/// One word of a command line of systemd (systemd.service(5)).
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let escaped = word
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_systemd() {
        assert_eq!(
            quoted(OsStr::new("/a b/100%/$x\"")),
            "\"/a b/100%%/$$x\\\"\""
        );
    }
}
