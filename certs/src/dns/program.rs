//! Challenges shown by a program of the administrator's.
//!
//! It is run as `PROGRAM present|withdraw NAME VALUE`, without a shell, and says by exit code 0
//! that the record is where the world finds it, or gone. Anything else is a failure, told with the
//! last line that it wrote.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::challenge::{ChallengeError, DnsChallenge};

/// For a program to end. Providers take minutes to spread a record.
const DEADLINE: Duration = Duration::from_secs(300);
/// What is kept of each of its outputs; the rest is read and forgotten, so that it can go on.
const OUTPUT_BYTES: usize = 4 << 10;
/// What is told of its last line.
const LINE_CHARS: usize = 300;

/// A program that shows challenges.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    deadline: Duration,
}

impl Program {
    pub fn new(path: PathBuf) -> Program {
        Program {
            path,
            deadline: DEADLINE,
        }
    }

    pub fn with_deadline(mut self, deadline: Duration) -> Program {
        self.deadline = deadline;
        self
    }

    async fn run(&self, verb: &'static str, name: &str, value: &str) -> Result<(), ChallengeError> {
        let path = self.path.display();
        let failed = |why: String, is_passing| ChallengeError {
            verb,
            name: name.to_owned(),
            why,
            is_passing,
        };
        let fault = |error: io::Error| failed(format!("{path} cannot be run: {error}"), false);
        let mut command = Command::new(&self.path);
        command
            .args([verb, name, value])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: at the deadline its children end with it.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(fault)?;
        let group = Group(child.id());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = timeout(self.deadline, async {
            let outputs = futures::future::join(last(stdout), last(stderr));
            let (status, outputs) = futures::future::join(child.wait(), outputs).await;
            (status, outputs)
        });
        let Ok((status, (stdout, stderr))) = ended.await else {
            drop(group);
            let seconds = self.deadline.as_secs();
            return Err(failed(
                format!("{path} did not end within {seconds} s"),
                true,
            ));
        };
        std::mem::forget(group); // it has ended, and its number may be another's by now
        let status = status.map_err(fault)?;
        if status.success() {
            return Ok(());
        }
        let line = [stderr, stdout]
            .into_iter()
            .find_map(|output| last_line(&output));
        let said = line.map_or("without a word".to_owned(), |line| format!("with: {line}"));
        Err(failed(format!("{path} ended by {status} {said}"), true))
    }
}

/// A group of processes that ends when this is dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|pid| i32::try_from(pid).ok());
        if let Some(group) = pid.and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// The end of what a program writes.
async fn last(output: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut output) = output else {
        return kept;
    };
    let mut part = [0; 4 << 10];
    while let Ok(length @ 1..) = output.read(&mut part).await {
        kept.extend(&part[..length]);
        let beyond = kept.len().saturating_sub(OUTPUT_BYTES);
        kept.drain(..beyond);
    }
    kept
}

fn last_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let line = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())?;
    let printable = |letter: char| if letter.is_control() { ' ' } else { letter };
    Some(line.chars().take(LINE_CHARS).map(printable).collect())
}

#[async_trait]
impl DnsChallenge for Program {
    async fn present(&self, name: &str, value: &str) -> Result<(), ChallengeError> {
        self.run("present", name, value).await
    }

    async fn withdraw(&self, name: &str, value: &str) -> Result<(), ChallengeError> {
        self.run("withdraw", name, value).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn program(directory: &Path, script: &str) -> Program {
        let path = directory.join("show");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Program::new(path)
    }

    #[tokio::test]
    async fn its_arguments_are_its_own() {
        let home = tempfile::tempdir().unwrap();
        let told = home.path().join("told");
        let script = format!(
            "for word; do printf '%s\\n' \"$word\"; done >> '{}'",
            told.display()
        );
        let program = program(home.path(), &script);
        let name = "_acme-challenge.$(touch x);`id`.test";
        program.present(name, "-v a&b").await.unwrap();
        program.withdraw(name, "-v a&b").await.unwrap();
        let expected = format!("present\n{name}\n-v a&b\nwithdraw\n{name}\n-v a&b\n");
        assert_eq!(fs::read_to_string(told).unwrap(), expected);
    }

    #[tokio::test]
    async fn a_failure_is_told_with_its_last_words() {
        for (script, words) in [
            (
                "echo first; echo 'no such zone' >&2; exit 3",
                "exit status: 3 with: no such zone",
            ),
            ("echo 'only here'; exit 1", "with: only here"),
            ("exit 1", "without a word"),
            ("kill -9 $$", "signal: 9"),
            // Its output is longer than what is kept, and than a pipe.
            ("yes | head -c 1000000; echo end >&2; exit 1", "with: end"),
            (
                "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1",
                "with: xxx",
            ),
        ] {
            let home = tempfile::tempdir().unwrap();
            let error = program(home.path(), script).present("a.test", "v").await;
            let error = error.expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
            assert!(error.len() < 1_000, "{error}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_told() {
        let program = Program::new("/nowhere/show".into());
        let error = program
            .present("a.test", "v")
            .await
            .expect_err("no program");
        assert!(
            error.to_string().contains("/nowhere/show cannot be run"),
            "{error}"
        );
        assert!(!error.is_passing);
    }

    #[tokio::test]
    async fn whoever_never_ends_is_ended_with_its_children() {
        let home = tempfile::tempdir().unwrap();
        let pid = home.path().join("pid");
        let script = format!("sleep 1000 & echo $! > '{}'; wait", pid.display());
        // Long enough for a busy machine to get as far as the second line.
        let program = program(home.path(), &script).with_deadline(Duration::from_secs(3));
        let error = program.present("a.test", "v").await.expect_err("it waits");
        assert!(error.to_string().contains("did not end within"), "{error}");
        assert!(error.is_passing);
        let child = fs::read_to_string(pid).unwrap();
        let stat = Path::new("/proc").join(child.trim()).join("stat");
        for _ in 0..1_000 {
            match fs::read_to_string(&stat) {
                Ok(stat) if !stat.contains(") Z ") => {}
                _ => return, // gone, or dead and not yet taken notice of
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the child of the program lives on");
    }
}
