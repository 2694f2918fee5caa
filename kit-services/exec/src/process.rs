//! One process of the runtime: how it is started, spoken to, watched and ended.
//!
//! Each script has a process of its own. Web Workers of one process would be lighter by some
//! megabytes each, and the first of them to fill its heap would take all others with it.
//!
//! The control socket carries lines of JSON both ways. Requests go to another socket, which the
//! process serves itself, so that the kit passes bytes on and is not asked about them.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use accounts::Account;

use crate::account::Environment;

/// How long a process may take to be there.
const START: Duration = Duration::from_secs(15);
/// The heap of JavaScript in one process, in MiB.
pub const HEAP_MIB: u64 = 256;
/// Memory of one process, buffers and all; one that has more is ended.
pub const MEMORY_BYTES: u64 = 512 << 20;
/// What the kernel grants a process at most, reservations of the engine (about 600 MiB) included:
/// what grows faster than we look ends here.
const DATA_BYTES: u64 = 1536 << 20;
/// Processes and threads of the user that scripts run as, where a script starts more: a fork bomb
/// ends there, and neither root nor other programs of the user, whose own limit is higher, with it.
const USER_PROCESSES: u64 = 4096;
/// Open files of a process.
const OPEN_FILES: u64 = 8192;
/// How often memory is looked at while something is to do, and while nothing is.
const LOOK: Duration = Duration::from_millis(200);
const LOOK_IDLE: Duration = Duration::from_secs(3);
/// Lines that wait to be sent to a process that reads slowly; one that falls behind is ended.
const LINES: usize = 4096;
/// Longest line a process may say.
const LINE_BYTES: u64 = 24 << 20;
/// How long a process may be deaf before it is taken to be in an endless loop.
pub const GRACE: Duration = Duration::from_secs(1);

/// How processes are started.
#[derive(Debug)]
pub struct Launcher {
    pub deno: PathBuf,
    /// The directory with the programs that run in it.
    pub parts: PathBuf,
    /// Where sockets go; a directory for each process.
    pub run: PathBuf,
    /// Where the runtime keeps what it fetched and compiled.
    pub cache: PathBuf,
    pub directory: PathBuf,
    pub account: Option<Account>,
    pub environment: Environment,
    next: AtomicU64,
}

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the runtime is not installed: there is no {}", .0.display())]
    NoRuntime(PathBuf),
    #[error("could not make a place for its sockets")]
    Place(#[source] io::Error),
    #[error("could not start the runtime")]
    Spawn(#[source] io::Error),
    #[error("the runtime ended while it started: {0}")]
    Ended(String),
    #[error("the runtime was not there within {} seconds", START.as_secs())]
    Slow,
}

/// How a process ended, in words.
pub type Ending = Arc<str>;

/// What a process says of its own accord.
#[derive(Debug)]
pub enum Said {
    /// A message of the protocol, with its `t`.
    Message(Value),
    /// A line on its standard output or error.
    Line(String),
}

/// A process that is there.
#[derive(Debug)]
pub struct Process {
    pub id: u64,
    pub pid: u32,
    /// The socket that it serves once it has loaded a script.
    pub http: PathBuf,
    place: PathBuf,
    lines: mpsc::Sender<String>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>,
    next: AtomicU64,
    ended: watch::Receiver<Option<Ending>>,
    end: watch::Sender<Option<Ending>>,
    /// Requests that it has.
    pub in_flight: AtomicUsize,
    deaf: AtomicBool,
}

impl Launcher {
    pub fn new(
        deno: PathBuf,
        parts: PathBuf,
        run: PathBuf,
        cache: PathBuf,
        directory: PathBuf,
        account: Option<Account>,
        environment: Environment,
    ) -> Launcher {
        Launcher {
            deno,
            parts,
            run,
            cache,
            directory,
            account,
            environment,
            next: AtomicU64::new(1),
        }
    }

    /// Start the program of this name and connect to it. What it says goes to `said`.
    pub async fn start(
        &self,
        program: &str,
        said: mpsc::Sender<Said>,
    ) -> Result<Arc<Process>, StartError> {
        if !crate::root::is_program(&self.deno) {
            return Err(StartError::NoRuntime(self.deno.clone()));
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let place = self.run.join(id.to_string());
        let listener = self.listen(&place).map_err(StartError::Place)?;
        let mut command = self.command(&[
            "run",
            "--quiet",
            "--no-prompt",
            "--allow-all",
            "--no-lock",
            "--node-modules-dir=manual",
        ]);
        command
            // a request's signal tells that its client left, and nothing else
            .arg("--unstable-no-legacy-abort")
            .arg(format!("--v8-flags=--max-old-space-size={HEAP_MIB}"))
            .arg(self.parts.join(program))
            .arg(place.join("control"))
            .arg(&self.parts);
        let mut child = command.spawn().map_err(StartError::Spawn)?;
        let pid = child.id().unwrap_or_default();
        // the kernel, where memory is short, takes scripts before others
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "500");
        for output in [
            child
                .stdout
                .take()
                .map(|it| Box::new(it) as Box<dyn AsyncRead + Unpin + Send>),
            child.stderr.take().map(|it| Box::new(it) as _),
        ]
        .into_iter()
        .flatten()
        {
            tokio::spawn(read_output(output, said.clone()));
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted.map_err(StartError::Place),
            status = child.wait() => {
                let words = status.map_or_else(|error| error.to_string(), |status| describe(&status));
                Err(StartError::Ended(words))
            }
            () = tokio::time::sleep(START) => Err(StartError::Slow),
        };
        // nobody else is to connect
        let _ = std::fs::remove_file(place.join("control"));
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                kill_group(pid);
                let _ = std::fs::remove_dir_all(&place);
                return Err(error);
            }
        };
        let (lines, outbox) = mpsc::channel(LINES);
        let (ended_by, ended) = watch::channel(None);
        let (end, wish) = watch::channel(None);
        let process = Arc::new(Process {
            id,
            pid,
            http: place.join("http"),
            place,
            lines,
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            ended,
            end,
            in_flight: AtomicUsize::new(0),
            deaf: AtomicBool::new(false),
        });
        let (read, write) = stream.into_split();
        tokio::spawn(write_lines(write, outbox));
        tokio::spawn(read_lines(read, Arc::downgrade(&process), said));
        tokio::spawn(watch_over(child, Arc::downgrade(&process), wish, ended_by));
        Ok(process)
    }

    /// A command of the runtime, as whom scripts run and with what they have.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.deno);
        command
            .args(arguments)
            .env_clear()
            .envs(self.environment.of(self.account.as_ref()))
            .env("DENO_DIR", &self.cache)
            .env("DENO_NO_UPDATE_CHECK", "1")
            .env("DENO_NO_PROMPT", "1")
            .env("DENO_COMPAT", "1")
            // what the machine trusts, the host's own authority for one
            .env("DENO_TLS_CA_STORE", "system,mozilla")
            .env("NO_COLOR", "1")
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        prepare(&mut command, self.account.as_ref());
        command
    }

    fn listen(&self, place: &Path) -> io::Result<UnixListener> {
        std::fs::create_dir_all(&self.run)?;
        let _ = std::fs::remove_dir_all(place);
        std::fs::DirBuilder::new().mode(0o700).create(place)?;
        let listener = UnixListener::bind(place.join("control"))?;
        if let Some(account) = &self.account {
            for path in [place.join("control"), place.to_owned()] {
                chown(path, Some(account.uid), Some(account.gid))?;
            }
        }
        Ok(listener)
    }
}

/// Have the child lead a session of its own, become the account, be bounded, and end with the kit.
#[allow(unsafe_code)] // std knows neither sessions, nor all groups of a user, nor limits
pub fn prepare(command: &mut Command, account: Option<&Account>) {
    let other = account.filter(|account| account.uid != rustix::process::geteuid().as_raw());
    let other = other.map(|account| {
        let groups: Vec<Gid> = account.groups.iter().map(|id| Gid::from_raw(*id)).collect();
        (
            Uid::from_raw(account.uid),
            Gid::from_raw(account.gid),
            groups,
        )
    });
    // SAFETY: the closure runs in the child between fork and exec. It makes system calls on values
    // made before the fork; it allocates nothing, takes no lock and calls nothing of libc that
    // keeps state.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            for (resource, most) in [
                (Resource::Data, DATA_BYTES),
                (Resource::Nproc, USER_PROCESSES),
                (Resource::Nofile, OPEN_FILES),
                (Resource::Core, 0),
            ] {
                let hard = rustix::process::getrlimit(resource).maximum;
                let most = Some(hard.map_or(most, |hard| hard.min(most)));
                rustix::process::setrlimit(
                    resource,
                    Rlimit {
                        current: most,
                        maximum: most,
                    },
                )?;
            }
            if let Some((uid, gid, groups)) = &other {
                rustix::thread::set_thread_groups(groups)?;
                rustix::thread::set_thread_gid(*gid)?;
                rustix::thread::set_thread_uid(*uid)?;
            }
            // after the change of user, which forgets it
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
}

impl Process {
    /// Say something. A process that does not listen is ended.
    pub fn tell(&self, message: &Value) {
        self.tell_line(message.to_string());
    }

    pub fn tell_line(&self, line: String) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.lines.try_send(line) {
            self.end("it did not read what the kit had to say");
        }
    }

    /// Ask something and wait for the answer.
    pub async fn ask(&self, mut question: Value, patience: Duration) -> Result<Value, AskError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        question["id"] = id.into();
        let (sender, receiver) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, sender);
        self.tell(&question);
        let mut ended = self.ended.clone();
        let answer = tokio::select! {
            answer = timeout(patience, receiver) => match answer {
                Err(_) => Err(AskError::Slow),
                Ok(Err(_)) => Err(AskError::Ended(self.ending())),
                Ok(Ok(answer)) => answer.map_err(AskError::Said),
            },
            _ = ended.wait_for(Option::is_some) => Err(AskError::Ended(self.ending())),
        };
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        answer
    }

    /// End it if it has gone deaf: it is in a loop that nothing gets into.
    pub async fn end_if_deaf(self: Arc<Self>) {
        if self.deaf.swap(true, Ordering::SeqCst) {
            return; // somebody is asking already
        }
        if let Err(AskError::Slow) = self.ask(json!({ "t": "ping" }), GRACE).await {
            self.end("it did not give way when its time was over, and was ended");
        }
        self.deaf.store(false, Ordering::SeqCst);
    }

    /// End it, with everything that it started.
    pub fn end(&self, why: &str) {
        self.end.send_if_modified(|wish| match wish {
            None => {
                *wish = Some(why.into());
                true
            }
            Some(_) => false,
        });
    }

    pub fn is_over(&self) -> bool {
        self.ended.borrow().is_some() || self.end.borrow().is_some()
    }

    /// How it ended; what is known of it where it has not.
    pub fn ending(&self) -> Ending {
        let ended = self.ended.borrow().clone();
        ended
            .or_else(|| self.end.borrow().clone())
            .unwrap_or_else(|| "its connection broke off".into())
    }

    /// Wait a moment for it to be known how it ended.
    pub async fn ending_soon(&self) -> Ending {
        let mut ended = self.ended.clone();
        let _ = timeout(GRACE, ended.wait_for(Option::is_some)).await;
        self.ending()
    }

    fn hear(&self, message: &Value) -> bool {
        let kind = message["t"].as_str().unwrap_or_default();
        if !matches!(kind, "reply" | "pong") {
            return false;
        }
        let waiting = message["id"].as_u64().and_then(|id| {
            self.waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&id)
        });
        if let Some(waiting) = waiting {
            let answer = match kind == "pong" || message["ok"] == true {
                true => Ok(message["value"].clone()),
                false => Err(message["error"].as_str().unwrap_or("it failed").to_owned()),
            };
            // whoever asked may have gone
            let _ = waiting.send(answer);
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end("it is not needed any more");
        let _ = std::fs::remove_dir_all(&self.place);
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{0}")]
    Said(String),
    #[error("it took too long")]
    Slow,
    #[error("the process ended: {0}")]
    Ended(Ending),
}

async fn write_lines(mut to: tokio::net::unix::OwnedWriteHalf, mut lines: mpsc::Receiver<String>) {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        if to.write_all(line.as_bytes()).await.is_err() {
            return; // it is known from the process itself that it ended
        }
    }
}

async fn read_lines(
    from: tokio::net::unix::OwnedReadHalf,
    process: Weak<Process>,
    said: mpsc::Sender<Said>,
) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader)
            .take(LINE_BYTES)
            .read_until(b'\n', &mut line)
            .await;
        if !matches!(read, Ok(read) if read > 0) {
            return;
        }
        let Some(process) = process.upgrade() else {
            return;
        };
        match serde_json::from_slice::<Value>(&line) {
            Ok(message) => {
                if !process.hear(&message) && said.send(Said::Message(message)).await.is_err() {
                    return;
                }
            }
            Err(_) => process.end("it said what the kit does not understand"),
        }
    }
}

async fn read_output(from: Box<dyn AsyncRead + Unpin + Send>, said: mpsc::Sender<Said>) {
    const LINE: u64 = 8192;
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(LINE).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(read) if read > 0) {
            return;
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if said.send(Said::Line(text)).await.is_err() {
            return;
        }
    }
}

/// Wait for the end of a process, see that it keeps to its memory, and clean up after it.
async fn watch_over(
    mut child: Child,
    process: Weak<Process>,
    mut wish: watch::Receiver<Option<Ending>>,
    ended: watch::Sender<Option<Ending>>,
) {
    let pid = child.id().unwrap_or_default();
    let mut looked = Instant::now();
    let words = loop {
        let busy = process
            .upgrade()
            .is_some_and(|process| process.in_flight.load(Ordering::Relaxed) > 0);
        let pause = if busy { LOOK } else { LOOK_IDLE.min(LOOK * 5) };
        tokio::select! {
            status = child.wait() => {
                break status.map_or_else(|error| error.to_string(), |status| describe(&status));
            }
            // the sender goes with the process
            why = wished(&mut wish) => {
                kill_group(pid);
                let _ = child.wait().await;
                break why.unwrap_or_else(|| "it is not needed any more".into()).to_string();
            }
            () = tokio::time::sleep(pause) => {
                if looked.elapsed() >= pause && resident(pid) > MEMORY_BYTES {
                    kill_group(pid);
                    let _ = child.wait().await;
                    break format!("it had more than {} MiB of memory", MEMORY_BYTES >> 20);
                }
                looked = Instant::now();
            }
        }
    };
    // what it started is of its session, and goes with it
    kill_group(pid);
    ended.send_replace(Some(words.into()));
}

/// Wait for the wish that the process end.
async fn wished(wish: &mut watch::Receiver<Option<Ending>>) -> Option<Ending> {
    let wished = wish.wait_for(Option::is_some).await;
    wished.ok().and_then(|why| why.clone())
}

fn kill_group(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // none is left, mostly
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

/// Resident memory of a process in bytes; none where it is gone.
pub fn resident(pid: u32) -> u64 {
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * PAGE
}

fn describe(status: &ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        // how the engine ends where its heap is full
        (_, Some(5 | 6)) | (Some(133 | 134), _) => format!("its heap was full ({HEAP_MIB} MiB)"),
        (Some(code), _) => format!("it exited with code {code}"),
        (_, Some(signal)) => format!("it was ended by signal {signal}"),
        _ => "it ended".to_owned(),
    }
}
