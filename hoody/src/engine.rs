//! The container engine of this machine, set up by scripts.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use nix::ifaddrs::getifaddrs;

use crate::config::Config;

const SCRIPT: &str = "engine.sh";
const IMAGE_SCRIPT: &str = "build.sh";
/// The exit code of the scripts for: this machine cannot run system containers, try what you may.
const CANNOT: i32 = 3;

/// This machine cannot run system containers. Why was said already.
#[derive(Debug, thiserror::Error)]
#[error("this machine cannot run system containers; --runtime local runs them as plain processes")]
pub struct Cannot;

/// Have the engine run, with all that the node needs of it. Quick where it does already. Fails
/// with [`Cannot`] where nothing would help.
pub fn start(config: &Config) -> anyhow::Result<()> {
    run(Command::new(script(&config.setup, SCRIPT)?).args(arguments(config, "start")))
        .context("the engine did not start")
}

/// Have the base image in the engine, built where it is missing.
pub fn image(config: &Config) -> anyhow::Result<()> {
    let mut command = Command::new(script(&config.recipe, IMAGE_SCRIPT)?);
    command
        .arg("--cache")
        .arg(&config.images)
        .args(["--import", &config.engine_name]);
    run(&mut command).context("there is no base image")
}

/// Remove what [`start`] made: the project, the pool, the bridge and all that is in them.
pub fn purge(config: &Config) -> anyhow::Result<()> {
    run(Command::new(script(&config.setup, SCRIPT)?).args(arguments(config, "purge")))
        .context("what the engine keeps was not removed; do this again once the cause is gone")
}

/// The command line that has the engine run; none where its script is not there.
pub fn start_line(config: &Config) -> Option<Vec<OsString>> {
    let mut words = vec![script(&config.setup, SCRIPT).ok()?.into_os_string()];
    words.extend(arguments(config, "start"));
    Some(words)
}

fn arguments(config: &Config, act: &str) -> Vec<OsString> {
    let ports = format!("{},{}", config.http, config.https);
    let mut words: Vec<OsString> = vec![
        act.into(),
        "--name".into(),
        config.engine_name.clone().into(),
    ];
    words.extend([
        "--state".into(),
        config.state.clone().into(),
        "--ports".into(),
        ports.into(),
    ]);
    if let Some(bytes) = config.pool_size {
        words.extend(["--pool-size".into(), format!("{bytes}B").into()]);
    }
    if config.merges_memory && act == "start" {
        // What starts it asks the kernel: this program does.
        let program = std::env::current_exe().unwrap_or_else(|_| "hoody".into());
        words.extend(["--merged-by".into(), program.into()]);
    }
    words
}

fn script(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let script = directory.join(name);
    if !script.is_file() {
        bail!(
            "there is no {}; --setup and --recipe name the directories of the scripts",
            script.display()
        );
    }
    Ok(script)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    // Its words are for whoever waits; what `hoody` itself prints must stay readable by programs.
    let program = PathBuf::from(command.get_program());
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status();
    let status = status.with_context(|| format!("could not run {}", program.display()))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(CANNOT) => Err(Cannot.into()),
        _ => bail!("{} failed: {status}", program.display()),
    }
}

/// Whether it answers.
pub fn answers(config: &Config) -> bool {
    std::os::unix::net::UnixStream::connect(&config.engine_socket).is_ok()
}

/// The address of this machine on the engine's bridge: where containers reach it.
pub fn gateway(config: &Config) -> Option<IpAddr> {
    let bridge = format!("{}0", config.engine_name);
    getifaddrs()
        .ok()?
        .filter(|interface| interface.interface_name == bridge)
        .find_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip().into()))
}

/// The mounts at or under a directory, the innermost last (proc_pid_mountinfo(5)).
pub fn mounts_under(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text =
        std::fs::read("/proc/self/mountinfo").context("could not read the list of mounts")?;
    let text = String::from_utf8_lossy(&text);
    let mounts = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape);
    Ok(mounts
        .map(PathBuf::from)
        .filter(|mount| mount.starts_with(directory))
        .collect())
}

/// Spaces and the like are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_listed_by_where_they_are() {
        assert!(
            mounts_under(Path::new("/"))
                .unwrap()
                .iter()
                .any(|mount| mount == Path::new("/"))
        );
        assert!(mounts_under(Path::new("/nowhere")).unwrap().is_empty());
    }

    #[test]
    fn escapes_are_read() {
        for (text, plain) in [
            ("/a\\040b", "/a b"),
            ("/a", "/a"),
            ("/a\\134b", "/a\\b"),
            ("/a\\x", "/a\\x"),
        ] {
            assert_eq!(unescape(text), plain);
        }
    }
}
