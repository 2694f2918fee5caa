//! The commands of a session, one after the other.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::Keeper;
use crate::running::{self, Running, Stop};
use crate::session::{Job, Phase};
use crate::system::processes;

/// Commands that wait for their turn.
const MAX_QUEUE: usize = 1024;
/// How long a half-typed line is left alone before a command takes the prompt.
const TYPING: Duration = Duration::from_millis(300);
/// How long the prompt may take to come back after a half-typed line was cancelled.
const SETTLING: Duration = Duration::from_secs(1);
/// How often to look whether the shell is in the foreground again.
const FOREGROUND: Duration = Duration::from_millis(50);
/// From interrupt to kill, and from kill to killing the shell.
const UNTIL_KILL: Duration = Duration::from_millis(500);
const INTERRUPT: u8 = 0x03;
const ENTER: u8 = b'\r';

impl Keeper {
    /// Take a job into the queue; given back where the session is ending.
    pub(super) fn enqueue(&mut self, job: Box<Job>) -> Option<Box<Job>> {
        if self.closing.is_some() || self.exit.is_some() {
            return Some(job);
        }
        self.history.note(&job.command);
        if self.queue.len() >= MAX_QUEUE {
            job.command.fail(format!(
                "{MAX_QUEUE} commands wait in this terminal already"
            ));
            self.history.note(&job.command);
        } else {
            self.queue.push_back(*job);
        }
        None
    }

    /// Start the command whose turn it is, when the shell waits for a line.
    pub(super) fn start_next(&mut self) {
        if self.current.is_some()
            || self.closing.is_some()
            || self.exit.is_some()
            || self.phase != Phase::Prompt
        {
            return;
        }
        let now = Instant::now();
        while !self.queue.is_empty() {
            if let Some(until) = self.settling.filter(|until| *until > now) {
                self.again = Some(until);
                return;
            }
            if self.pty.foreground() != Some(self.leader) {
                self.again = Some(now + FOREGROUND);
                return;
            }
            if let Some(at) = self.half_typed {
                if at + TYPING > now {
                    self.again = Some(at + TYPING);
                    return;
                }
                self.half_typed = None;
                self.settling = Some(now + SETTLING);
                self.again = self.settling;
                self.pending.push_back(INTERRUPT);
                self.type_pending();
                return;
            }
            self.settling = None;
            let job = self.queue.pop_front().expect("it is not empty");
            self.number += 1;
            let prepared = Running::prepare(
                &job,
                self.number,
                &self.secret,
                self.flavour,
                &self.workdir,
                &self.account,
                self.size,
            );
            match prepared {
                Ok(running) => {
                    self.current = Some(running);
                    self.phase = Phase::Busy;
                    self.type_trigger();
                    return;
                }
                Err(error) => {
                    job.command
                        .fail(format!("could not prepare the command: {error}"));
                    self.history.note(&job.command);
                }
            }
        }
    }

    /// Type the line that begins the command at work.
    pub(super) fn type_trigger(&mut self) {
        self.pending
            .extend(self.flavour.trigger(self.number).as_bytes());
        self.pending.push_back(ENTER);
        self.type_pending();
    }

    pub(super) fn end_if_drained(&mut self) {
        if let Some(running) = &self.current
            && let Some((code, until)) = running.ended
            && (running.is_drained() || until <= Instant::now())
        {
            self.end_command(code);
        }
    }

    /// The command at work ended with this code.
    pub(super) fn end_command(&mut self, code: i32) {
        if let Some(running) = self.put_down() {
            running.command.complete(code);
            self.history.note(&running.command);
        }
    }

    /// Take what is left of the command at work.
    pub(super) fn put_down(&mut self) -> Option<Running> {
        let mut running = self.current.take()?;
        self.outbox.append(&mut running.withheld);
        let (shown, held) = running.drain(&self.workdir);
        running::with_returns(&shown, &mut self.outbox);
        for source in held {
            // Beyond the bound a pipe is closed, and who writes to it next is told so.
            if let Ok(place) = self.followed.clone().try_acquire_owned() {
                running::follow(source, self.strays.0.clone(), place);
            }
        }
        running.clean(&self.workdir);
        Some(running)
    }

    pub(super) fn fail_command(&mut self, message: &str) {
        if let Some(running) = self.put_down() {
            running.command.fail(message);
            self.history.note(&running.command);
        }
    }

    pub(super) fn abort(&mut self, id: &str, force: bool) {
        if let Some(at) = self.queue.iter().position(|job| job.command.id == id) {
            let job = self.queue.remove(at).expect("it was found there");
            job.command.note_abort();
            job.command.fail("it was aborted before it began");
            self.history.note(&job.command);
        } else if let Some(running) = self
            .current
            .as_mut()
            .filter(|running| running.command.id == id)
        {
            running.command.note_abort();
            if !running.begun {
                // As a key, which has the terminal forget the line that was typed.
                self.pending.push_back(INTERRUPT);
                self.type_pending();
            } else if force {
                self.stop(Stop::Kill);
            } else {
                self.interrupt();
            }
        }
    }

    /// Interrupt whatever is in the foreground.
    pub(super) fn interrupt(&self) {
        // In the foreground is a program's group, or the shell's own while it runs builtins.
        let group = self.pty.foreground().unwrap_or(self.leader);
        let _ = rustix::process::kill_process_group(group, Signal::INT);
    }

    /// Go to this step of ending the command at work.
    pub(super) fn stop(&mut self, step: Stop) {
        let Some(running) = &mut self.current else {
            return;
        };
        let next = Instant::now() + UNTIL_KILL;
        running.stopping = Some((step, next));
        match step {
            Stop::Interrupt => self.interrupt(),
            Stop::Kill => {
                let group = self.pty.foreground().unwrap_or(self.leader);
                if group == self.leader {
                    // What the shell runs in its own group goes; the shell gets an interrupt.
                    for stat in processes::of_session(self.leader) {
                        let is_shell = stat.pid == self.leader.as_raw_nonzero().get();
                        if stat.group == group.as_raw_nonzero().get() && !is_shell {
                            processes::signal(stat.pid, Signal::KILL);
                        }
                    }
                    self.interrupt();
                } else {
                    let _ = rustix::process::kill_process_group(group, Signal::KILL);
                }
            }
            Stop::KillShell => {
                tracing::warn!(terminal.id = %self.name, "killed the shell of terminal {}, which did not let go of a command", self.name);
                let _ = rustix::process::kill_process(self.leader, Signal::KILL);
            }
        }
    }
}
