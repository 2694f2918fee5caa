//! Commands that need no session: a shell of their own, with pipes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::command::{Command, Stream};
use crate::keeper::exit_code;
use crate::launch::Launch;
use crate::system::processes;
use crate::workdir::Workdir;
use accounts::Account;

/// Commands at work at once; more wait for their turn.
const MAX_AT_WORK: usize = 64;
/// Commands whose processes left behind are watched at once.
const MAX_LEFT_BEHIND: usize = 256;
/// Output read at once.
const CHUNK: usize = 16 << 10;
/// After the end of a command, output of what it started may follow for as long as the pipes are
/// not quiet for this long, and no longer than that in all.
const QUIET: Duration = Duration::from_millis(150);
const FOLLOWS: Duration = Duration::from_secs(1);
/// How long processes that a command left in the background may live.
const LEFT_BEHIND: Duration = Duration::from_secs(300);
/// From being told to end to being killed.
const UNTIL_KILL: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Debug)]
pub struct OneShot {
    pub command: Arc<Command>,
    pub account: Account,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub directory: PathBuf,
    pub environment: BTreeMap<String, String>,
    pub deadline: Option<Instant>,
    /// What the program reads; gone when the command has ended.
    pub files: Option<Workdir>,
}

/// Those at work.
#[derive(Debug)]
pub struct OneShots {
    turns: Arc<Semaphore>,
    left_behind: Arc<Semaphore>,
    at_work: Mutex<Vec<(String, mpsc::Sender<bool>)>>,
}

impl Default for OneShots {
    fn default() -> Self {
        OneShots {
            turns: Arc::new(Semaphore::new(MAX_AT_WORK)),
            left_behind: Arc::new(Semaphore::new(MAX_LEFT_BEHIND)),
            at_work: Mutex::default(),
        }
    }
}

impl OneShots {
    /// Run it as soon as there is a place.
    pub fn run(self: &Arc<Self>, shot: OneShot) {
        let (stop, stopped) = mpsc::channel(4);
        self.list().push((shot.command.id.clone(), stop));
        let shots = self.clone();
        tokio::spawn(async move {
            let id = shot.command.id.clone();
            shots.work(shot, stopped).await;
            shots.list().retain(|(known, _)| *known != id);
        });
    }

    /// End the command of this id: interrupt it, or with `force` kill it. Whether it was there.
    pub fn abort(&self, id: &str, force: bool) -> bool {
        let list = self.list();
        let Some((_, stop)) = list.iter().find(|(known, _)| known == id) else {
            return false;
        };
        // A full channel holds orders of the same kind already.
        let _ = stop.try_send(force);
        true
    }

    pub fn are_at_work(&self) -> bool {
        !self.list().is_empty()
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<(String, mpsc::Sender<bool>)>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(&self, shot: OneShot, mut stopped: mpsc::Receiver<bool>) {
        let command = shot.command.clone();
        let _turn = tokio::select! {
            turn = self.turns.clone().acquire_owned() => turn.expect("it is never closed"),
            () = at(shot.deadline) => {
                command.note_timeout();
                return command.fail("its time was over before its turn came");
            }
            Some(_) = stopped.recv() => {
                command.note_abort();
                return command.fail("it was aborted before it began");
            }
        };
        let child = Launch {
            program: shot.program.clone(),
            arguments: shot.arguments,
            account: shot.account.clone(),
            environment: shot.environment,
            directory: shot.directory.clone(),
        }
        .on_pipes();
        match child {
            Ok(child) => {
                command.start();
                let place = self.left_behind.clone().try_acquire_owned().ok();
                attend(child, command, shot.deadline, stopped, place).await;
            }
            Err(error) => command.fail(format!(
                "could not start {}: {error}",
                shot.program.display()
            )),
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Read what it writes, wait for its end, and end it when told to or when its time is over.
async fn attend(
    mut child: Child,
    command: Arc<Command>,
    deadline: Option<Instant>,
    mut stopped: mpsc::Receiver<bool>,
    place: Option<OwnedSemaphorePermit>,
) {
    let group = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
        .expect("it was not waited for");
    let mut out = Pipe::new(child.stdout.take());
    let mut err = Pipe::new(child.stderr.take());
    let mut kill_at = None;
    let mut deadline = deadline;
    let status = loop {
        tokio::select! {
            bytes = out.read() => command.wrote(Stream::Out, bytes),
            bytes = err.read() => command.wrote(Stream::Err, bytes),
            status = child.wait() => break status,
            () = at(deadline) => {
                deadline = None;
                command.note_timeout();
                signal_group(group, Signal::TERM);
                kill_at = Some(Instant::now() + UNTIL_KILL);
            }
            () = at(kill_at) => {
                kill_at = Some(Instant::now() + UNTIL_KILL);
                processes::signal_session(group, Signal::KILL);
            }
            Some(force) = stopped.recv() => {
                command.note_abort();
                if force {
                    processes::signal_session(group, Signal::KILL);
                } else {
                    signal_group(group, Signal::INT);
                }
            }
        }
    };
    // All it wrote is in the pipes; what it started may still write.
    let mut quiet = Instant::now();
    let last = quiet + FOLLOWS;
    quiet += QUIET;
    while !(out.is_ended() && err.is_ended()) {
        tokio::select! {
            biased;
            bytes = out.read() => command.wrote(Stream::Out, bytes),
            bytes = err.read() => command.wrote(Stream::Err, bytes),
            () = sleep_until(quiet.min(last)) => break,
        }
        if Instant::now() >= last {
            break;
        }
        quiet = Instant::now() + QUIET;
    }
    match status {
        Ok(status) => command.complete(exit_code(status)),
        Err(error) => command.fail(format!("could not learn how it ended: {error}")),
    }
    if !(out.is_ended() && err.is_ended()) {
        tokio::spawn(let_be(group, out, err, place));
    }
}

/// Let processes that a command left behind write into nothing for a while, then end them.
async fn let_be(session: Pid, mut out: Pipe, mut err: Pipe, place: Option<OwnedSemaphorePermit>) {
    let until = if place.is_some() {
        Instant::now() + LEFT_BEHIND
    } else {
        Instant::now()
    };
    while !(out.is_ended() && err.is_ended()) {
        tokio::select! {
            _ = out.read() => {}
            _ = err.read() => {}
            () = sleep_until(until) => {
                processes::signal_session(session, Signal::KILL);
                return;
            }
        }
    }
}

fn signal_group(group: Pid, signal: Signal) {
    // It may be gone, which is what is wanted.
    let _ = rustix::process::kill_process_group(group, signal);
}

/// The reading end of a pipe, until it ends.
struct Pipe {
    from: Option<Box<dyn AsyncRead + Send + Unpin>>,
    buffer: Vec<u8>,
}

impl Pipe {
    fn new(from: Option<impl AsyncRead + Send + Unpin + 'static>) -> Pipe {
        Pipe {
            from: from.map(|from| Box::new(from) as _),
            buffer: vec![0; CHUNK],
        }
    }

    fn is_ended(&self) -> bool {
        self.from.is_none()
    }

    /// The next bytes; waits for ever when there are no more.
    async fn read(&mut self) -> &[u8] {
        loop {
            let Some(from) = &mut self.from else {
                std::future::pending().await
            };
            match from.read(&mut self.buffer).await {
                Ok(0) => self.from = None,
                Ok(count) => return &self.buffer[..count],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.from = None,
            }
            if self.from.is_none() {
                return &[];
            }
        }
    }
}
