//! Processes that are found again by a file: the one that was meant, or none.
//!
//! A process id alone is reused; with the time it started and the boot it started in, it is not.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::files;

/// A process, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks between the boot and its start.
    started: u64,
    boot: String,
}

impl Process {
    /// The process that has this id now.
    pub fn of(pid: u32) -> Option<Process> {
        Some(Process {
            pid,
            started: started(pid)?,
            boot: boot(),
        })
    }

    /// The process that a file names; none where there is no such file or nothing sensible in it.
    pub fn read(path: &Path) -> Option<Process> {
        let text = fs::read_to_string(path).ok()?;
        let mut words = text.split_whitespace();
        let process = Process {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
        };
        words.next().is_none().then_some(process)
    }

    /// Let a file name it.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let Process { pid, started, boot } = self;
        files::write(path, format!("{pid} {started} {boot}\n").as_bytes(), 0o600)
    }

    pub fn is_alive(&self) -> bool {
        self.handle().is_some()
    }

    /// Send a signal and wait for the end. Returns whether it ended in time.
    pub fn end(&self, signal: Signal, patience: Duration) -> anyhow::Result<bool> {
        let Some(handle) = self.handle() else {
            return Ok(true);
        };
        match pidfd_send_signal(&handle, signal) {
            Err(Errno::SRCH) => return Ok(true),
            sent => {
                sent.with_context(|| format!("could not send a signal to process {}", self.pid))?;
            }
        }
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).context("no clock waits that long")?;
            // A handle of a process becomes readable when it ends.
            match rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("could not wait for a process"),
            }
        }
    }

    /// A handle on it while it lives. Opened before it is compared, so that it is no other's.
    fn handle(&self) -> Option<OwnedFd> {
        if self.boot != boot() {
            return None;
        }
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        (started(self.pid)? == self.started).then_some(handle)
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// When a process started; none where there is none, or only its exit code (proc_pid_stat(5)).
fn started(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let is_gone = matches!(fields.next()?, "Z" | "X");
    let started = fields.nth(18)?.parse().ok()?;
    (!is_gone).then_some(started)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleep() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    #[test]
    fn a_process_is_found_again_and_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        let mut child = sleep();
        let process = Process::of(child.id()).unwrap();
        process.write(&path).unwrap();
        let found = Process::read(&path).unwrap();
        assert_eq!(found, process);
        assert!(found.is_alive());
        assert!(found.end(Signal::TERM, Duration::from_secs(5)).unwrap());
        child.wait().unwrap();
        assert!(!found.is_alive());
        assert!(
            found.end(Signal::TERM, Duration::ZERO).unwrap(),
            "it has ended already"
        );
    }

    #[test]
    fn another_with_the_same_id_is_left_alone() {
        let mut child = sleep();
        let real = Process::of(child.id()).unwrap();
        for other in [
            Process {
                started: real.started + 1,
                ..real.clone()
            },
            Process {
                boot: "another".to_owned(),
                ..real
            },
        ] {
            assert!(!other.is_alive());
            assert!(other.end(Signal::KILL, Duration::ZERO).unwrap());
        }
        assert!(Process::of(child.id()).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn one_that_does_not_listen_is_reported() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo; while :; do sleep 0.02; done"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(child.stdout.take().unwrap()),
            &mut line,
        )
        .unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(
            !process
                .end(Signal::TERM, Duration::from_millis(200))
                .unwrap()
        );
        assert!(process.end(Signal::KILL, Duration::from_secs(5)).unwrap());
        child.wait().unwrap();
    }

    #[test]
    fn garbage_names_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        for text in ["", "1", "x y z", "1 2 3 4", "-1 2 3"] {
            fs::write(&path, text).unwrap();
            assert_eq!(Process::read(&path), None, "{text}");
        }
    }
}
