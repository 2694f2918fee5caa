//! Starting a program as a user, in a session of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Gid, Uid};
use tokio::process::{Child, Command};

use crate::pty::Pty;
use accounts::Account;

/// What to start, as whom, and where.
#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub account: Account,
    pub environment: BTreeMap<String, String>,
    pub directory: PathBuf,
}

impl Launch {
    /// Start it on a terminal, which becomes its controlling one.
    pub fn on_terminal(&self, pty: &Pty) -> io::Result<Child> {
        let slave = pty.slave()?;
        let mut command = self.command();
        command
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave));
        prepare(&mut command, &self.account, Controls::Terminal);
        command.spawn()
    }

    /// Start it with nothing to read and pipes to write to.
    pub fn on_pipes(&self) -> io::Result<Child> {
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        prepare(&mut command, &self.account, Controls::Nothing);
        command.spawn()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.directory)
            .kill_on_drop(true);
        command
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Controls {
    Terminal,
    Nothing,
}

/// Have the child lead a new session, take its standard input as controlling terminal where it
/// has one, and become `account` with all its groups where this process is another.
#[allow(unsafe_code)] // std can set one group only; a user has several, and a session needs setsid
fn prepare(command: &mut Command, account: &Account, controls: Controls) {
    let groups: Vec<Gid> = account
        .groups
        .iter()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let become_other = account.is_other();
    // SAFETY: the closure runs in the child between fork and exec. It makes system calls on values
    // made before the fork; it allocates nothing, takes no lock and calls nothing of libc that
    // keeps state.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            if controls == Controls::Terminal {
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            }
            if become_other {
                rustix::thread::set_thread_groups(&groups)?;
                rustix::thread::set_thread_gid(gid)?;
                rustix::thread::set_thread_uid(uid)?;
            }
            Ok(())
        });
    }
}

/// Find a program: a path as it is, a bare name along `path`.
pub fn find(program: &str, path: &str) -> Option<PathBuf> {
    if program.is_empty() || program.contains('\0') {
        return None;
    }
    if program.contains('/') {
        let program = PathBuf::from(program);
        return (program.is_absolute() && is_executable(&program)).then_some(program);
    }
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| Path::new(directory).join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
