//! Removing all that was made: the containers, what the engine keeps for them, the service, the
//! profile, the state directory. Nothing else: what has not our mark is refused.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use rustix::mount::{UnmountFlags, unmount};

use crate::client::profile::Profile;
use crate::config::{self, Config, Runtime};
use crate::progress::{say, wait};
use crate::state::State;
use crate::unit::Unit;
use crate::{down, engine, files, node, trust};

pub fn command() -> Command {
    let yes = Arg::new("yes")
        .long("yes")
        .action(ArgAction::SetTrue)
        .help("Really do it");
    config::options(Command::new("purge").about(
        "Remove this machine's node with all its containers and everything else that `hoody up` made",
    ))
    .arg(yes)
}

pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let config = Config::load(matches)?;
    let state = State::open(&config.state)?;
    if !matches.get_flag("yes") {
        bail!(
            "this removes the node in {} with all its containers and what is in them, for good; say --yes if that \
             is what you want",
            state.root().display()
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(Box::pin(purge(&config, &state)))?;
    Ok(ExitCode::SUCCESS)
}

async fn purge(config: &Config, state: &State) -> anyhow::Result<()> {
    let _lock = wait(
        "another command is changing this node",
        down::change_lock(state),
    )
    .await?;
    if wait("waiting for the node to end", down::stop(config, state)).await? {
        say("stopped the node");
    }
    remove_containers(config, state).await?;
    if config.runtime == Runtime::Incus {
        engine::purge(config)?;
    }
    if let Some(unit) = Unit::of(config) {
        unit.remove()?;
    }
    trust::forget(state);
    unmount_under(state.root())?;
    remove_profile(state)?;
    remove_directory(state)?;
    say(&format!(
        "removed {} and all that belonged to it",
        state.root().display()
    ));
    if !config.images.starts_with(&config.state) && config.images.exists() {
        say(&format!(
            "built images are kept outside of it, in {}; they stay",
            config.images.display()
        ));
    }
    Ok(())
}

/// Delete every container, also those of which only remains are left.
async fn remove_containers(config: &Config, state: &State) -> anyhow::Result<()> {
    let directory = state.root().join("containers");
    let is_empty = fs::read_dir(&directory).map_or(true, |mut entries| entries.next().is_none());
    if is_empty && config.runtime == Runtime::Local {
        return Ok(());
    }
    let machines = match node::machines(config, state).await {
        Ok(machines) => machines,
        Err(error) if config.runtime == Runtime::Incus => {
            // The engine's own script removes what is in it, and says so if it cannot.
            say(&format!("the containers are left to the engine: {error:#}"));
            return Ok(());
        }
        Err(error) => return Err(error.context("the containers were not removed")),
    };
    for machine in machines
        .observe()
        .await
        .context("the containers could not be listed")?
    {
        let removing = format!("removing container {}", machine.id);
        let removed = wait(&removing, machines.delete(machine.id)).await;
        removed.with_context(|| format!("container {} was not removed", machine.id))?;
        say(&format!("removed container {}", machine.id));
    }
    Ok(())
}

/// Take off what is mounted in the state directory, the innermost first, and make sure of it: a
/// mount that stayed would be emptied with the directory.
fn unmount_under(root: &Path) -> anyhow::Result<()> {
    let mounts = engine::mounts_under(root)?;
    for mount in mounts.iter().rev() {
        unmount(mount, UnmountFlags::NOFOLLOW)
            .with_context(|| format!("could not unmount {}", mount.display()))?;
    }
    match engine::mounts_under(root)?.first() {
        Some(mount) => bail!(
            "{} is still mounted; unmount it, then do this again",
            mount.display()
        ),
        None => Ok(()),
    }
}

/// Remove the client profile that was made for this node, unless it is another's by now.
fn remove_profile(state: &State) -> anyhow::Result<()> {
    let Some(path) = state.profile() else {
        return Ok(());
    };
    let ca = certs::Local::certificate_path(&state.pki());
    if Profile::read(path)?.is_some_and(|profile| profile.ca_cert.as_deref() == Some(&*ca)) {
        files::remove(path)?;
        say(&format!("removed the profile {}", path.display()));
    }
    Ok(())
}

/// Remove the state directory; its mark goes last, so that a purge that was cut off can go on.
fn remove_directory(state: &State) -> anyhow::Result<()> {
    let (root, mark) = (state.root(), state.mark());
    let failed = |path: &Path| format!("could not remove {}", path.display());
    for entry in
        fs::read_dir(root).with_context(|| format!("could not look into {}", root.display()))?
    {
        let path = entry
            .with_context(|| format!("could not look into {}", root.display()))?
            .path();
        if path == mark {
            continue;
        }
        let is_directory = path.symlink_metadata().is_ok_and(|facts| facts.is_dir());
        let removed = if is_directory {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| failed(&path))?;
    }
    files::remove(&mark)?;
    fs::remove_dir(root).with_context(|| failed(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(state: &Path, yes: bool) -> ArgMatches {
        let mut words = vec![
            "purge".to_owned(),
            "--runtime=local".to_owned(),
            format!("--state={}", state.display()),
        ];
        words.extend(yes.then(|| "--yes".to_owned()));
        command().get_matches_from(words)
    }

    #[test]
    fn what_we_did_not_make_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let theirs = root.path().join("theirs");
        fs::write(&theirs, "precious").unwrap();
        let error = run(&matches(root.path(), true)).unwrap_err().to_string();
        assert!(error.contains("there is no node in"), "{error}");
        assert_eq!(fs::read_to_string(theirs).unwrap(), "precious");
    }

    #[test]
    fn a_copy_of_what_we_made_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (here, there) = (root.path().join("here"), root.path().join("there"));
        State::create(&here).unwrap();
        fs::rename(&here, &there).unwrap();
        let error = run(&matches(&there, true)).unwrap_err().to_string();
        assert!(error.contains("copied or moved"), "{error}");
        assert!(there.exists());
    }

    #[test]
    fn nothing_goes_without_a_yes() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        State::create(&state).unwrap();
        let error = run(&matches(&state, false)).unwrap_err().to_string();
        assert!(error.contains("--yes"), "{error}");
        assert!(state.join("run").exists());
    }

    #[test]
    fn all_of_the_state_goes_and_nothing_it_points_at() {
        let root = tempfile::tempdir().unwrap();
        let (path, theirs) = (root.path().join("state"), root.path().join("theirs"));
        fs::write(&theirs, "precious").unwrap();
        let mut state = State::create(&path).unwrap();
        std::os::unix::fs::symlink(&theirs, path.join("link")).unwrap();
        std::os::unix::fs::symlink(root.path(), path.join("logs/link")).unwrap();
        let ca = certs::Local::certificate_path(&state.pki());
        let profile = root.path().join("profiles/default.json");
        Profile {
            api_url: "https://x".into(),
            ca_cert: Some(ca),
            ..Profile::default()
        }
        .write(&profile)
        .unwrap();
        state.remember_profile(&profile).unwrap();
        run(&matches(&path, true)).unwrap();
        assert!(!path.exists());
        assert!(!profile.exists());
        assert_eq!(fs::read_to_string(theirs).unwrap(), "precious");
    }

    #[test]
    fn a_profile_of_another_node_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        let mut state = State::create(&path).unwrap();
        let profile = root.path().join("default.json");
        Profile {
            api_url: "https://other".into(),
            ca_cert: Some("/other/ca.crt".into()),
            ..Profile::default()
        }
        .write(&profile)
        .unwrap();
        state.remember_profile(&profile).unwrap();
        run(&matches(&path, true)).unwrap();
        assert!(profile.exists());
    }
}
