//! A command that was asked for: how far it is, and what it wrote.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::id::TerminalId;

/// What is kept of each of standard output and error: the first and the last half of this.
pub const MAX_OUTPUT: usize = 8 << 20;
/// Results kept, and the bytes of output kept in all of them; the oldest finished ones go first.
const MAX_RESULTS: usize = 2048;
const MAX_RESULT_BYTES: usize = 64 << 20;
/// Output kept of all commands, those at work included. Beyond it, less than [`MAX_OUTPUT`] of each
/// is kept, and flagged as such.
const MAX_ALL_OUTPUT: usize = 256 << 20;
/// How long a finished command can be asked about, by where it ran.
const KEPT_EPHEMERAL: Duration = Duration::from_secs(300);
const KEPT_SESSION: Duration = Duration::from_secs(3600);

/// How far a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for its turn in its terminal.
    Queued,
    /// It waits for what it was told to wait for.
    Pending,
    Running,
    /// It ended; `exit_code` says how.
    Completed,
    /// It was aborted or could not be run; `message` says why.
    Failed,
    TimedOut,
}

impl Status {
    pub fn is_final(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::TimedOut)
    }
}

/// A command and what came of it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CommandResult {
    pub command_id: String,
    pub terminal_id: String,
    pub status: Status,
    /// What it wrote to standard output. Bytes that are not UTF-8 are replaced here and exact in
    /// `stdout_base64`.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// How it ended: 128 and the signal's number where a signal ended it; null while it runs.
    pub exit_code: Option<i32>,
    pub timed_out: bool,
    /// It was ended by a call to abort it.
    #[serde(skip_serializing_if = "is_false")]
    pub aborted: bool,
    /// The exact bytes of standard output, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// The exact bytes of standard error, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// More was written than is kept: the middle of `stdout` is left out, and a line says so.
    #[serde(skip_serializing_if = "is_false")]
    pub stdout_truncated: bool,
    /// As `stdout_truncated`, for `stderr`.
    #[serde(skip_serializing_if = "is_false")]
    pub stderr_truncated: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was asked for (RFC 3339).
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes references"
)]
fn is_false(value: &bool) -> bool {
    !value
}

/// What may still be kept of the output of all commands.
#[derive(Debug)]
pub struct Budget(AtomicUsize);

impl Default for Budget {
    fn default() -> Self {
        Budget(AtomicUsize::new(MAX_ALL_OUTPUT))
    }
}

impl Budget {
    /// Take up to `wanted` bytes.
    fn take(&self, wanted: usize) -> usize {
        let mut taken = 0;
        // The closure always gives a value, so that the update does not fail.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                taken = wanted.min(left);
                Some(left - taken)
            });
        taken
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Output as it is gathered: its beginning and its end, and how much there was.
#[derive(Debug)]
pub struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: usize,
    /// The tail grows no more: its oldest bytes make place for new ones.
    is_full: bool,
    /// A carriage return that may belong to a line end.
    held_return: bool,
    budget: Arc<Budget>,
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.budget.give(self.kept());
    }
}

impl Capture {
    const HALF: usize = MAX_OUTPUT / 2;

    fn new(budget: &Arc<Budget>) -> Capture {
        Capture {
            head: Vec::new(),
            tail: VecDeque::new(),
            total: 0,
            is_full: false,
            held_return: false,
            budget: budget.clone(),
        }
    }

    /// Bytes as they were written.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len();
        let mut rest = bytes;
        if self.tail.is_empty() && !self.is_full {
            let wanted = rest.len().min(Self::HALF - self.head.len());
            let taken = self.budget.take(wanted);
            self.is_full = taken < wanted;
            let head;
            (head, rest) = rest.split_at(taken);
            self.head.extend_from_slice(head);
        }
        let rest = &rest[rest.len().saturating_sub(Self::HALF)..];
        if !self.is_full {
            let wanted = rest.len().min(Self::HALF - self.tail.len());
            let taken = self.budget.take(wanted);
            self.is_full = taken < wanted || self.tail.len() + taken == Self::HALF;
            let (grown, rest) = rest.split_at(taken);
            self.tail.extend(grown);
            self.rotate(rest);
        } else {
            self.rotate(rest);
        }
    }

    /// Let the oldest bytes of the tail make place for these.
    fn rotate(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.tail.len())..];
        self.tail.drain(..bytes.len());
        self.tail.extend(bytes);
    }

    /// Bytes that went through a terminal, which wrote each line end as carriage return and line
    /// feed: the way back.
    pub fn push_from_terminal(&mut self, bytes: &[u8]) {
        let mut plain = Vec::with_capacity(bytes.len() + 1);
        for byte in bytes {
            if std::mem::take(&mut self.held_return) && *byte != b'\n' {
                plain.push(b'\r');
            }
            if *byte == b'\r' {
                self.held_return = true;
            } else {
                plain.push(*byte);
            }
        }
        self.push(&plain);
    }

    /// No more will come.
    fn end(&mut self) {
        if std::mem::take(&mut self.held_return) {
            self.push(b"\r");
        }
        self.head.shrink_to_fit();
        self.tail.shrink_to_fit();
    }

    fn is_truncated(&self) -> bool {
        self.total > self.head.len() + self.tail.len()
    }

    fn bytes(&self) -> Vec<u8> {
        let (front, back) = self.tail.as_slices();
        if self.is_truncated() {
            let left_out = self.total - self.head.len() - self.tail.len();
            let line = format!("\n[... {left_out} bytes left out ...]\n");
            [&self.head, line.as_bytes(), front, back].concat()
        } else {
            [&self.head, front, back].concat()
        }
    }

    /// The text, and where that is not exact the bytes.
    fn text(&self) -> (String, Option<String>) {
        match String::from_utf8(self.bytes()) {
            Ok(text) => (text, None),
            Err(error) => {
                let bytes = error.into_bytes();
                (
                    String::from_utf8_lossy(&bytes).into_owned(),
                    Some(BASE64.encode(&bytes)),
                )
            }
        }
    }

    fn kept(&self) -> usize {
        self.head.len() + self.tail.len()
    }
}

/// Which of its two streams a command wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// One command, shared by who asked for it and where it runs.
#[derive(Debug)]
pub struct Command {
    pub id: String,
    pub terminal: TerminalId,
    pub text: String,
    pub ephemeral: bool,
    pub created: Timestamp,
    progress: Mutex<Progress>,
    status: watch::Sender<Status>,
}

#[derive(Debug)]
struct Progress {
    stdout: Capture,
    stderr: Capture,
    exit_code: Option<i32>,
    timed_out: bool,
    aborted: bool,
    message: Option<String>,
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
}

impl Command {
    pub fn new(
        id: String,
        terminal: TerminalId,
        text: String,
        ephemeral: bool,
        budget: &Arc<Budget>,
    ) -> Arc<Command> {
        let progress = Progress {
            stdout: Capture::new(budget),
            stderr: Capture::new(budget),
            exit_code: None,
            timed_out: false,
            aborted: false,
            message: None,
            started: None,
            finished: None,
        };
        Arc::new(Command {
            id,
            terminal,
            text,
            ephemeral,
            created: Timestamp::now(),
            progress: Mutex::new(progress),
            status: watch::Sender::new(Status::Queued),
        })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    pub fn is_finished(&self) -> bool {
        self.status().is_final()
    }

    /// It waits for something before it may take its turn.
    pub fn hold(&self) {
        self.status.send_replace(Status::Pending);
    }

    /// It may take its turn now.
    pub fn release(&self) {
        self.status.send_replace(Status::Queued);
    }

    pub fn start(&self) {
        self.progress().started = Some(Timestamp::now());
        self.status.send_replace(Status::Running);
    }

    pub fn wrote(&self, stream: Stream, bytes: &[u8]) {
        let mut progress = self.progress();
        match stream {
            Stream::Out => progress.stdout.push(bytes),
            Stream::Err => progress.stderr.push(bytes),
        }
    }

    /// It wrote to its terminal.
    pub fn wrote_to_terminal(&self, bytes: &[u8]) {
        self.progress().stdout.push_from_terminal(bytes);
    }

    /// Its time is over; it is being ended.
    pub fn note_timeout(&self) {
        self.progress().timed_out = true;
    }

    /// Somebody asked to end it.
    pub fn note_abort(&self) {
        self.progress().aborted = true;
    }

    pub fn is_aborted(&self) -> bool {
        self.progress().aborted
    }

    /// It ended with this code.
    pub fn complete(&self, exit_code: i32) {
        self.finish(Some(exit_code), None);
    }

    /// It was not run, or what it ran in is gone.
    pub fn fail(&self, message: impl Into<String>) {
        self.finish(None, Some(message.into()));
    }

    fn finish(&self, exit_code: Option<i32>, message: Option<String>) {
        let status = {
            let mut progress = self.progress();
            if progress.finished.is_some() {
                return;
            }
            progress.finished = Some(Timestamp::now());
            progress.exit_code = exit_code;
            progress.stdout.end();
            progress.stderr.end();
            let status = match (progress.timed_out, progress.aborted, &message) {
                (true, _, _) => Status::TimedOut,
                (_, true, _) | (_, _, Some(_)) => Status::Failed,
                _ => Status::Completed,
            };
            progress.message = match status {
                Status::TimedOut => {
                    message.or_else(|| Some("it took longer than its timeout".to_owned()))
                }
                Status::Failed if progress.aborted => {
                    message.or_else(|| Some("it was aborted".to_owned()))
                }
                _ => message,
            };
            status
        };
        self.status.send_replace(status);
    }

    /// Wait until it is finished.
    pub async fn finished(&self) {
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self
            .status
            .subscribe()
            .wait_for(|status| status.is_final())
            .await;
    }

    /// How far it is now.
    pub fn result(&self) -> CommandResult {
        let status = self.status();
        let progress = self.progress();
        let (stdout, stdout_base64) = progress.stdout.text();
        let (stderr, stderr_base64) = progress.stderr.text();
        CommandResult {
            command_id: self.id.clone(),
            terminal_id: self.terminal.to_string(),
            status,
            stdout,
            stderr,
            exit_code: progress.exit_code,
            timed_out: progress.timed_out && status.is_final(),
            aborted: progress.aborted && status.is_final(),
            stdout_base64,
            stderr_base64,
            stdout_truncated: progress.stdout.is_truncated(),
            stderr_truncated: progress.stderr.is_truncated(),
            message: progress.message.clone(),
            created_at: self.created.to_string(),
            started_at: progress.started.map(|at| at.to_string()),
            finished_at: progress.finished.map(|at| at.to_string()),
            duration_ms: progress
                .started
                .zip(progress.finished)
                .map(|(start, end)| end.as_millisecond() - start.as_millisecond()),
        }
    }

    /// One line of history.
    pub fn summary(&self) -> Summary {
        const SHOWN: usize = 4096;
        let status = self.status();
        let progress = self.progress();
        Summary {
            command_id: self.id.clone(),
            command: self.text.chars().take(SHOWN).collect(),
            status,
            exit_code: progress.exit_code,
            created_at: self.created.to_string(),
            started_at: progress.started.map(|at| at.to_string()),
            finished_at: progress.finished.map(|at| at.to_string()),
        }
    }

    fn kept_bytes(&self) -> usize {
        let progress = self.progress();
        self.text.len() + progress.stdout.kept() + progress.stderr.kept()
    }
}

/// A command in a terminal's history.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Summary {
    pub command_id: String,
    /// The command, at most its first 4096 characters.
    pub command: String,
    pub status: Status,
    pub exit_code: Option<i32>,
    pub created_at: String,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
}

/// The commands that can be asked about.
#[derive(Debug)]
pub struct Commands {
    pub budget: Arc<Budget>,
    kept: Mutex<Kept>,
    ephemeral: Duration,
    session: Duration,
}

impl Default for Commands {
    fn default() -> Self {
        Commands::keeping(KEPT_EPHEMERAL, KEPT_SESSION)
    }
}

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<String, Arc<Command>>,
    /// Finished ones, in the order in which they finished.
    finished: VecDeque<Finished>,
    bytes: usize,
    /// Whether somebody is there to forget what is too old.
    swept: bool,
}

#[derive(Debug)]
struct Finished {
    command: Arc<Command>,
    until: Instant,
    bytes: usize,
}

/// Why a command could not be added.
#[derive(Debug, thiserror::Error)]
pub enum AddCommand {
    #[error("a command with the id `{id}` is still at work; wait for it or abort it")]
    InUse { id: String },
    #[error("{count} commands are at work, which is the limit; try again when some are finished")]
    TooMany { count: usize },
}

impl Commands {
    /// Keep finished commands for so long, by where they ran.
    pub fn keeping(ephemeral: Duration, session: Duration) -> Commands {
        Commands {
            budget: Arc::default(),
            kept: Mutex::default(),
            ephemeral,
            session,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keep a command, and forget it some time after it is finished.
    pub fn add(self: &Arc<Self>, command: &Arc<Command>) -> Result<(), AddCommand> {
        {
            let mut kept = self.kept();
            if kept
                .by_id
                .get(&command.id)
                .is_some_and(|known| !known.is_finished())
            {
                return Err(AddCommand::InUse {
                    id: command.id.clone(),
                });
            }
            while kept.by_id.len() >= MAX_RESULTS {
                if !kept.forget_oldest() {
                    return Err(AddCommand::TooMany {
                        count: kept.by_id.len(),
                    });
                }
            }
            kept.by_id.insert(command.id.clone(), command.clone());
        }
        let (commands, command) = (Arc::downgrade(self), command.clone());
        tokio::spawn(async move {
            command.finished().await;
            if let Some(commands) = commands.upgrade() {
                commands.finished(command);
            }
        });
        Ok(())
    }

    pub fn get(&self, id: &str) -> Option<Arc<Command>> {
        self.kept().by_id.get(id).cloned()
    }

    fn finished(self: &Arc<Self>, command: Arc<Command>) {
        let mut kept = self.kept();
        let bytes = command.kept_bytes();
        let until = Instant::now()
            + if command.ephemeral {
                self.ephemeral
            } else {
                self.session
            };
        kept.bytes += bytes;
        kept.finished.push_back(Finished {
            command,
            until,
            bytes,
        });
        while kept.bytes > MAX_RESULT_BYTES && kept.finished.len() > 1 {
            kept.forget_oldest();
        }
        if !std::mem::replace(&mut kept.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Forget what is too old; when to look again, if anything is left.
    fn expire(&self) -> Option<Instant> {
        let mut kept = self.kept();
        let now = Instant::now();
        let mut at = 0;
        while at < kept.finished.len() {
            if kept.finished[at].until <= now {
                let finished = kept
                    .finished
                    .remove(at)
                    .expect("the index is below the length");
                kept.forget(&finished);
            } else {
                at += 1;
            }
        }
        let next = kept.finished.iter().map(|finished| finished.until).min();
        kept.swept = next.is_some();
        if next.is_none() {
            kept.finished.shrink_to_fit();
            kept.by_id.shrink_to_fit();
        }
        next
    }
}

impl Kept {
    fn forget_oldest(&mut self) -> bool {
        let Some(finished) = self.finished.pop_front() else {
            return false;
        };
        self.forget(&finished);
        true
    }

    fn forget(&mut self, finished: &Finished) {
        self.bytes -= finished.bytes;
        // A caller may have used the id again since.
        if self
            .by_id
            .get(&finished.command.id)
            .is_some_and(|known| Arc::ptr_eq(known, &finished.command))
        {
            self.by_id.remove(&finished.command.id);
        }
    }
}

/// Forget commands when their time comes, until there are none.
async fn sweep(commands: Weak<Commands>) {
    const LEAST: Duration = Duration::from_millis(500); // one pass for all that expire together
    loop {
        let Some(next) = commands.upgrade().and_then(|commands| commands.expire()) else {
            return;
        };
        tokio::time::sleep_until(next.max(Instant::now() + LEAST)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_through_a_terminal_and_back_is_exact() {
        let written = b"one\ntwo\r\nthree\r\r\nfour\rfive\n";
        let mut shown = Vec::new();
        for byte in written {
            if *byte == b'\n' {
                shown.push(b'\r');
            }
            shown.push(*byte);
        }
        for size in 1..shown.len() {
            let mut capture = Capture::new(&Arc::default());
            shown
                .chunks(size)
                .for_each(|chunk| capture.push_from_terminal(chunk));
            assert_eq!(
                capture.bytes().escape_ascii().to_string(),
                written.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn more_than_is_kept_loses_its_middle_and_says_so() {
        let mut capture = Capture::new(&Arc::default());
        let total = MAX_OUTPUT + 1000;
        for chunk in (0..total)
            .map(|at| (at % 251) as u8)
            .collect::<Vec<_>>()
            .chunks(777)
        {
            capture.push(chunk);
        }
        assert!(capture.is_truncated());
        assert!(capture.kept() == MAX_OUTPUT);
        let bytes = capture.bytes();
        assert_eq!(bytes.last(), Some(&(((total - 1) % 251) as u8)));
        let line = b"\n[... 1000 bytes left out ...]\n";
        assert_eq!(&bytes[Capture::HALF..Capture::HALF + line.len()], line);
    }

    #[test]
    fn all_commands_together_keep_no_more_than_the_budget() {
        let budget = Arc::new(Budget(AtomicUsize::new(1000)));
        let mut first = Capture::new(&budget);
        first.push(&[b'a'; 900]);
        let mut second = Capture::new(&budget);
        for part in [b'b', b'c', b'd'] {
            second.push(&[part; 80]);
        }
        assert!(!first.is_truncated() && second.is_truncated());
        assert_eq!((first.kept(), second.kept()), (900, 100));
        first.push(&[b'z'; 50]);
        assert!(first.is_truncated(), "what comes later is left out");
        drop((first, second));
        assert_eq!(budget.0.load(Ordering::Relaxed), 1000);
    }

    #[tokio::test]
    async fn finished_commands_are_forgotten_in_time_and_by_number() {
        let commands = Arc::new(Commands::keeping(Duration::from_millis(200), KEPT_SESSION));
        let terminal = TerminalId::new(1).unwrap();
        let first = Command::new("1".into(), terminal, "true".into(), true, &commands.budget);
        let second = Command::new("2".into(), terminal, "true".into(), false, &commands.budget);
        for command in [&first, &second] {
            commands.add(command).unwrap();
            assert!(matches!(
                commands.add(command),
                Err(AddCommand::InUse { .. })
            ));
            command.complete(0);
        }
        assert!(commands.get("1").is_some());
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(commands.get("1").is_none() && commands.get("2").is_some());
        for number in 3..MAX_RESULTS + 10 {
            let command = Command::new(
                number.to_string(),
                terminal,
                "true".into(),
                true,
                &commands.budget,
            );
            commands.add(&command).unwrap();
            command.complete(0);
            tokio::task::yield_now().await;
        }
        assert!(commands.get("2").is_none());
        assert_eq!(commands.kept().by_id.len(), MAX_RESULTS);
    }
}
