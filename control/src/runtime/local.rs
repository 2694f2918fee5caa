//! One supervised kit process per container, each in a directory of its own, for hosts that cannot
//! run system containers.
//!
//! ```text
//! {root}/{id}/machine.json   what it is made from; written last: without it there are only remains
//!            /process.json   the process that runs it, by id and start time
//!            /kit.log        what the kit says, since its last start
//!            /run/kit.sock   the directory it shares with the proxy
//!            /home/          all it may write to
//!            /snapshots/     what it was
//! ```
//!
//! Where bubblewrap works the process has its own process ids and mounts: the host is read-only
//! and the node's state hidden. It is still a process of the same user with the host's network:
//! no isolation is promised. Processes outlive control; the next one finds them by their files,
//! and by a mark in their environment those that no file tells of.

mod disk;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use routes::Id;
use routes::table::{KIT_SOCKET, Owners};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::{Image, Machine, Observed, Power, Ran, Runtime, RuntimeError, Source, Usage};

/// Names the container in the environment of its processes.
const MARK: &str = "HOODY_CONTAINER";
/// The longest path a Unix socket may have.
const SOCKET_PATH: usize = 107;
/// Changes that wait for a slow listener.
const CHANGES: usize = 256;
/// How often processes are looked at that are not our children.
const WATCH: Duration = Duration::from_secs(1);
const STOP_POLL: Duration = Duration::from_millis(20);
/// Once the kit is gone, what it left behind has this long to follow.
const FOLLOW: Duration = Duration::from_secs(1);
/// A program run in a machine may take this long and say this much.
const EXEC: Duration = Duration::from_secs(60);
const EXEC_OUTPUT: u64 = 1 << 20;
/// Files counted for the size of a home; a larger one is reported as what was counted.
const FILES: usize = 200_000;
/// The one image there is.
const IMAGE: &str = "local";

/// Where the machines are and what runs in them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of all machines.
    pub root: PathBuf,
    /// The kit.
    pub kitd: PathBuf,
    /// Directories of the host that machines do not see: the node's state.
    pub hidden: Vec<PathBuf>,
    /// The program `bwrap`, where it should be used if it works.
    pub bubblewrap: Option<PathBuf>,
    /// Where programs are looked for in a machine.
    pub path: String,
}

impl Settings {
    pub fn new(root: impl Into<PathBuf>, kitd: impl Into<PathBuf>) -> Settings {
        let bubblewrap = Path::new("/usr/bin/bwrap");
        Settings {
            root: root.into(),
            kitd: kitd.into(),
            hidden: Vec::new(),
            bubblewrap: bubblewrap.exists().then(|| bubblewrap.to_owned()),
            path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        }
    }
}

/// How often, and how many times, to look whether a machine has stopped.
const STOP_LOOK: Duration = Duration::from_millis(5);
const STOP_LOOKS: u32 = 400;

/// Runs machines as processes.
pub struct Local {
    settings: Settings,
    /// Whether bubblewrap was tried and works.
    wrapped: bool,
    shared: Arc<Shared>,
}

struct Shared {
    /// The processes that were alive when last seen.
    alive: Mutex<HashMap<Id, Process>>,
    changes: broadcast::Sender<Id>,
}

/// Why processes cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("could not make the directory of machines {path}")]
    MakeDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("there is no kit at {0}; build it with `make`")]
    NoKit(PathBuf),
}

/// A process that can be told from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    /// Clock ticks between the boot and its start.
    started: u64,
    boot: u128,
    incarnation: u64,
}

/// What is kept of [`Machine`].
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    project: Id,
    hostname: String,
    environment: Vec<(String, String)>,
    kit: bool,
}

/// A line of the process table.
struct Line {
    pid: i32,
    parent: i32,
    state: char,
    started: u64,
    ticks: u64,
    pages: u64,
}

impl Local {
    /// Look at the host and take up what an earlier control left running.
    pub async fn open(settings: Settings) -> Result<Local, LocalError> {
        let path = settings.root.clone();
        make_directory(&path).map_err(|source| LocalError::MakeDirectory { path, source })?;
        if !settings.kitd.is_file() {
            return Err(LocalError::NoKit(settings.kitd));
        }
        let shared = Arc::new(Shared {
            alive: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES),
        });
        let mut local = Local {
            settings,
            wrapped: false,
            shared,
        };
        local.wrapped = local.try_bubblewrap().await;
        tracing::info!(
            bubblewrap = local.wrapped,
            "containers are processes of this host"
        );
        tokio::spawn(watch(Arc::downgrade(&local.shared)));
        Ok(local)
    }

    /// Whether machines have processes and mounts of their own.
    pub fn wrapped(&self) -> bool {
        self.wrapped
    }

    async fn try_bubblewrap(&self) -> bool {
        const TRY: Duration = Duration::from_secs(10);
        let Some(bubblewrap) = &self.settings.bubblewrap else {
            return false;
        };
        let mut command = Command::new(bubblewrap);
        command
            .args(self.wrapping(None, "machine"))
            .arg("/bin/true")
            .env_clear()
            .kill_on_drop(true);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match tokio::time::timeout(TRY, command.status()).await {
            Ok(Ok(status)) if status.success() => true,
            tried => {
                tracing::warn!(
                    ?tried,
                    "bubblewrap does not work here; machines are plain processes"
                );
                false
            }
        }
    }

    /// Arguments of bubblewrap before the program.
    fn wrapping(&self, machine: Option<&Path>, hostname: &str) -> Vec<std::ffi::OsString> {
        let mut args: Vec<std::ffi::OsString> = Vec::new();
        let mut add =
            |words: &[&std::ffi::OsStr]| args.extend(words.iter().map(|word| (*word).to_owned()));
        let word = std::ffi::OsStr::new;
        add(&[
            word("--unshare-pid"),
            word("--unshare-ipc"),
            word("--unshare-uts"),
        ]);
        add(&[
            word("--hostname"),
            word(hostname),
            word("--cap-drop"),
            word("ALL"),
        ]);
        add(&[
            word("--ro-bind"),
            word("/"),
            word("/"),
            word("--dev"),
            word("/dev"),
        ]);
        add(&[word("--proc"), word("/proc"), word("--tmpfs"), word("/tmp")]);
        for private in ["/root", "/home"]
            .map(Path::new)
            .into_iter()
            .chain(self.settings.hidden.iter().map(PathBuf::as_path))
        {
            if private.is_dir() {
                add(&[word("--tmpfs"), private.as_os_str()]);
            }
        }
        let kitd = self.settings.kitd.as_os_str();
        add(&[word("--ro-bind"), kitd, kitd]);
        if let Some(machine) = machine {
            for own in ["home", "run"].map(|name| machine.join(name)) {
                add(&[word("--bind"), own.as_os_str(), own.as_os_str()]);
            }
            add(&[word("--chdir"), machine.join("home").as_os_str()]);
        }
        args
    }

    fn directory(&self, id: Id) -> PathBuf {
        self.settings.root.join(id.to_string())
    }

    fn alive(&self) -> MutexGuard<'_, HashMap<Id, Process>> {
        self.shared.alive()
    }

    /// A command that runs in the machine.
    fn command(
        &self,
        id: Id,
        kept: &Kept,
        program: &std::ffi::OsStr,
        args: &[std::ffi::OsString],
    ) -> Command {
        let directory = self.directory(id);
        let home = directory.join("home");
        let mut command = match &self.settings.bubblewrap {
            Some(bubblewrap) if self.wrapped => {
                let mut command = Command::new(bubblewrap);
                command
                    .args(self.wrapping(Some(&directory), &kept.hostname))
                    .arg(program);
                command
            }
            _ => Command::new(program),
        };
        command
            .args(args)
            .env_clear()
            .env("PATH", &self.settings.path)
            .env("LANG", "C.UTF-8")
            .env("HOME", &home)
            .envs(kept.environment.iter().map(|(key, value)| (key, value)))
            .env(MARK, id.to_string())
            .current_dir(&home)
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    fn look(&self, id: Id) -> Option<Observed> {
        let directory = self.directory(id);
        if !directory.is_dir() {
            return None;
        }
        let (power, incarnation) = if directory.join("machine.json").is_file() {
            match read_process(&directory).and_then(|process| Some((process, line_of(process)?))) {
                Some((process, line)) => {
                    self.alive().insert(id, process);
                    let power = if matches!(line.state, 'T' | 't') {
                        Power::Frozen
                    } else {
                        Power::On
                    };
                    (power, process.incarnation)
                }
                None => (Power::Off, 0),
            }
        } else {
            (Power::Remains, 0)
        };
        let run = directory.join("run");
        let ready = run.join(KIT_SOCKET).exists();
        let owners = Owners {
            base: rustix::process::geteuid().as_raw(),
            count: 1,
        };
        Some(Observed {
            id,
            power,
            directory: run,
            owners,
            ready,
            incarnation,
            address: None,
        })
    }

    /// Whether a kit there can be connected to.
    fn fits(&self, act: &'static str, id: Id) -> Result<(), RuntimeError> {
        let socket = self.directory(id).join("run").join(KIT_SOCKET);
        if socket.as_os_str().len() <= SOCKET_PATH {
            return Ok(());
        }
        Err(RuntimeError::Permanent {
            act,
            reason: format!(
                "the path of its socket is longer than {SOCKET_PATH} bytes; use a shorter state directory"
            ),
        })
    }

    /// Send a signal to all processes of a machine; how many there were.
    fn signal(&self, id: Id, signal: Signal) -> usize {
        let processes = processes_of(id, read_process(&self.directory(id)));
        for line in &processes {
            if let Some(pid) = Pid::from_raw(line.pid) {
                kill_process(pid, signal).ok(); // it may have ended by itself
            }
        }
        processes.len()
    }

    /// Kill until nothing is left: what forks while it is being killed is met in the next round.
    async fn exterminate(&self, id: Id) -> Result<(), RuntimeError> {
        const ROUNDS: u32 = 250;
        for _ in 0..ROUNDS {
            if self.signal(id, Signal::KILL) == 0 {
                return Ok(());
            }
            tokio::time::sleep(STOP_POLL).await;
        }
        Err(RuntimeError::Transient {
            act: "kill",
            reason: "some of its processes do not end".to_owned(),
        })
    }
}

impl Shared {
    fn alive(&self) -> MutexGuard<'_, HashMap<Id, Process>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, id: Id, process: Process) {
        let mut alive = self.alive();
        if alive.get(&id) == Some(&process) {
            alive.remove(&id);
            drop(alive);
            self.changes.send(id).ok();
        }
    }
}

/// Notice the end of processes, those included that an earlier control started.
async fn watch(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(WATCH).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let known: Vec<(Id, Process)> = shared
            .alive()
            .iter()
            .map(|(id, process)| (*id, *process))
            .collect();
        for (id, process) in known {
            if line_of(process).is_none() {
                shared.ended(id, process);
            }
        }
    }
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

fn failed(act: &'static str) -> impl Fn(std::io::Error) -> RuntimeError {
    move |error| RuntimeError::Permanent {
        act,
        reason: error.to_string(),
    }
}

/// Write a file that is there whole or not at all.
fn write(path: &Path, value: &impl Serialize) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let file = File::create(&beside)?;
    serde_json::to_writer(&file, value)?;
    file.sync_all()?;
    std::fs::rename(beside, path)
}

fn read_process(directory: &Path) -> Option<Process> {
    serde_json::from_slice(&std::fs::read(directory.join("process.json")).ok()?).ok()
}

fn read_kept(id: Id, directory: &Path) -> Result<Kept, RuntimeError> {
    let text = match std::fs::read(directory.join("machine.json")) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(RuntimeError::NoMachine(id));
        }
        Err(error) => return Err(failed("read the machine")(error)),
    };
    serde_json::from_slice(&text).map_err(|error| RuntimeError::Permanent {
        act: "read the machine",
        reason: error.to_string(),
    })
}

/// Which boot this is; process ids and start times mean nothing in another.
fn boot() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or_default()
}

/// The process, if it is still the one that was meant.
fn line_of(process: Process) -> Option<Line> {
    line(process.pid).filter(|line| {
        line.started == process.started
            && process.boot == boot()
            && !matches!(line.state, 'Z' | 'X')
    })
}

/// proc_pid_stat(5).
fn line(pid: i32) -> Option<Line> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?; // the name in front may hold anything
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |place: usize| fields.get(place).and_then(|text| text.parse::<u64>().ok());
    Some(Line {
        pid,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        started: number(19)?,
        pages: number(21)?,
    })
}

/// All processes of a machine: those that carry its mark, its own, and all that descend from them.
fn processes_of(id: Id, main: Option<Process>) -> Vec<Line> {
    let mark = format!("{MARK}={id}");
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut lines: Vec<Line> = Vec::new();
    let mut ours: HashSet<i32> = HashSet::new();
    if let Some(main) = main.and_then(line_of) {
        ours.insert(main.pid);
    }
    for file in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = file
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let Some(line) =
            line(pid).filter(|line| !matches!(line.state, 'Z' | 'X') && line.pid != own)
        else {
            continue;
        };
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == mark.as_bytes())
        {
            ours.insert(pid);
        }
        lines.push(line);
    }
    loop {
        let before = ours.len();
        for line in &lines {
            if ours.contains(&line.parent) {
                ours.insert(line.pid);
            }
        }
        if ours.len() == before {
            break;
        }
    }
    lines.retain(|line| ours.contains(&line.pid));
    lines
}

/// Bytes below a directory, up to [`FILES`] files.
fn size(directory: &Path) -> u64 {
    let mut bytes = 0;
    let mut left = FILES;
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for file in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Some(rest) = left.checked_sub(1) else {
                return bytes;
            };
            left = rest;
            let Ok(facts) = file.metadata() else { continue };
            if facts.is_dir() {
                open.push(file.path());
            } else {
                bytes += facts.len();
            }
        }
    }
    bytes
}

async fn read_some(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(mut stream) = stream {
        (&mut stream)
            .take(EXEC_OUTPUT)
            .read_to_end(&mut out)
            .await
            .ok(); // what was read counts
        tokio::io::copy(&mut stream, &mut tokio::io::sink())
            .await
            .ok(); // the rest must not block it
    }
    out
}

#[async_trait]
impl Runtime for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn observe(&self) -> Result<Vec<Observed>, RuntimeError> {
        let names =
            std::fs::read_dir(&self.settings.root).map_err(|error| RuntimeError::Transient {
                act: "look at the machines",
                reason: error.to_string(),
            })?;
        let ids = names
            .flatten()
            .filter_map(|file| file.file_name().to_str()?.parse::<Id>().ok());
        Ok(ids.filter_map(|id| self.look(id)).collect())
    }

    async fn observe_one(&self, id: Id) -> Result<Option<Observed>, RuntimeError> {
        Ok(self.look(id))
    }

    async fn create(&self, machine: &Machine) -> Result<(), RuntimeError> {
        if let Some(image) = machine.image.as_deref().filter(|image| *image != IMAGE) {
            return Err(RuntimeError::NoImage(image.to_owned()));
        }
        self.fits("create", machine.id)?;
        let directory = self.directory(machine.id);
        make_directory(&directory.join("home")).map_err(failed("create"))?;
        make_directory(&directory.join("run")).map_err(failed("create"))?;
        self.update(machine).await
    }

    async fn update(&self, machine: &Machine) -> Result<(), RuntimeError> {
        let directory = self.directory(machine.id);
        if !directory.is_dir() {
            return Err(RuntimeError::NoMachine(machine.id));
        }
        let kept = Kept {
            project: machine.project,
            hostname: machine.hostname.clone(),
            environment: machine.environment.clone(),
            kit: machine.kit,
        };
        write(&directory.join("machine.json"), &kept).map_err(failed("update"))
    }

    async fn start(&self, id: Id) -> Result<(), RuntimeError> {
        let directory = self.directory(id);
        let kept = read_kept(id, &directory)?;
        let before = read_process(&directory);
        if before.and_then(line_of).is_some() {
            return Ok(());
        }
        // A start that was cut short, or what an earlier life left behind.
        self.exterminate(id).await?;
        let home = directory.join("home");
        let socket = directory.join("run").join(KIT_SOCKET);
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("start")(error));
            }
            _ => {}
        }
        let (program, args): (&std::ffi::OsStr, Vec<std::ffi::OsString>) = if kept.kit {
            let args = [
                "--socket".into(),
                socket.into(),
                "--home".into(),
                home.into(),
                "--local".into(),
            ];
            (self.settings.kitd.as_os_str(), args.into())
        } else {
            ("sleep".as_ref(), vec!["infinity".into()]) // a machine that is on, and no more
        };
        let log = File::create(directory.join("kit.log")).map_err(failed("start"))?;
        let mut command = self.command(id, &kept, program, &args);
        command
            .stdout(log.try_clone().map_err(failed("start"))?)
            .stderr(log);
        let mut child = command.spawn().map_err(failed("start"))?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .unwrap_or_default();
        // The node's own roles are spared longer where memory runs out; what they run is not.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0");
        let Some(line) = line(pid) else {
            return Err(RuntimeError::Transient {
                act: "start",
                reason: "the kit ended at once".to_owned(),
            });
        };
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let incarnation = u64::try_from(now.as_millis())
            .unwrap_or_default()
            .max(before.map_or(0, |before| before.incarnation + 1));
        let process = Process {
            pid,
            started: line.started,
            boot: boot(),
            incarnation,
        };
        if let Err(error) = write(&directory.join("process.json"), &process) {
            self.exterminate(id).await?;
            return Err(failed("start")(error));
        }
        self.alive().insert(id, process);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let ended = child.wait().await;
            tracing::debug!(container.id = %id, ?ended, "the process of container {id} ended");
            shared.ended(id, process);
        });
        Ok(())
    }

    async fn stop(&self, id: Id, grace: Duration) -> Result<(), RuntimeError> {
        let directory = self.directory(id);
        read_kept(id, &directory)?;
        let main = read_process(&directory);
        self.signal(id, Signal::TERM);
        self.signal(id, Signal::CONT);
        let mut until = Instant::now() + grace;
        let mut following = false;
        while Instant::now() < until {
            if !following && main.and_then(line_of).is_none() {
                following = true;
                until = until.min(Instant::now() + FOLLOW);
            }
            if following && processes_of(id, main).is_empty() {
                break;
            }
            tokio::time::sleep(STOP_POLL).await;
        }
        self.kill(id).await
    }

    async fn kill(&self, id: Id) -> Result<(), RuntimeError> {
        self.exterminate(id).await?;
        std::fs::remove_file(self.directory(id).join("run").join(KIT_SOCKET)).ok(); // or it is gone
        Ok(())
    }

    async fn freeze(&self, id: Id) -> Result<(), RuntimeError> {
        read_kept(id, &self.directory(id))?;
        // Twice: what forked in the first round is met in the second.
        self.signal(id, Signal::STOP);
        self.signal(id, Signal::STOP);
        // A process stops a moment after it was told to.
        for _ in 0..STOP_LOOKS {
            if self.look(id).is_none_or(|seen| seen.power != Power::On) {
                break;
            }
            tokio::time::sleep(STOP_LOOK).await;
        }
        Ok(())
    }

    async fn thaw(&self, id: Id) -> Result<(), RuntimeError> {
        read_kept(id, &self.directory(id))?;
        self.signal(id, Signal::CONT);
        Ok(())
    }

    async fn delete(&self, id: Id) -> Result<(), RuntimeError> {
        self.exterminate(id).await?;
        self.alive().remove(&id);
        let directory = self.directory(id);
        match std::fs::remove_file(directory.join("machine.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("delete")(error));
            }
            _ => {}
        }
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(directory)).await;
        match removed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Ok(Err(error)) => Err(RuntimeError::Transient {
                act: "delete",
                reason: error.to_string(),
            }),
            Err(error) => Err(RuntimeError::Transient {
                act: "delete",
                reason: error.to_string(),
            }),
        }
    }

    async fn snapshot(&self, id: Id, name: &str) -> Result<Option<u64>, RuntimeError> {
        self.take_snapshot(id, name).await
    }

    async fn restore(&self, id: Id, name: &str) -> Result<(), RuntimeError> {
        self.bring_back(id, name).await
    }

    async fn drop_snapshot(&self, id: Id, name: &str) -> Result<(), RuntimeError> {
        self.remove_snapshot(id, name).await
    }

    async fn copy(&self, machine: &Machine, source: &Source) -> Result<(), RuntimeError> {
        self.fits("copy", machine.id)?;
        if self.directory(machine.id).join("machine.json").is_file() {
            return Ok(());
        }
        self.bring_over("copy", machine.id, source).await?;
        self.update(machine).await
    }

    async fn sync(&self, machine: &Machine, source: Id) -> Result<(), RuntimeError> {
        let source = Source {
            id: source,
            snapshot: None,
        };
        self.bring_over("sync", machine.id, &source).await
    }

    async fn exec(&self, id: Id, argv: &[&str]) -> Result<Ran, RuntimeError> {
        let kept = read_kept(id, &self.directory(id))?;
        let Some((program, args)) = argv.split_first() else {
            return Err(RuntimeError::Permanent {
                act: "exec",
                reason: "no program was named".to_owned(),
            });
        };
        let args: Vec<std::ffi::OsString> = args.iter().map(Into::into).collect();
        let mut command = self.command(id, &kept, program.as_ref(), &args);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(failed("exec"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let all = async { tokio::join!(child.wait(), read_some(stdout), read_some(stderr)) };
        let (status, stdout, stderr) =
            tokio::time::timeout(EXEC, all)
                .await
                .map_err(|_| RuntimeError::Transient {
                    act: "exec",
                    reason: format!("it took longer than {EXEC:?}"),
                })?;
        let status = status.map_err(failed("exec"))?;
        const BY_SIGNAL: i32 = 128; // as shells say it
        use std::os::unix::process::ExitStatusExt;
        let code = status
            .code()
            .or_else(|| status.signal().map(|signal| BY_SIGNAL + signal))
            .unwrap_or(-1);
        Ok(Ran {
            code,
            stdout,
            stderr,
        })
    }

    async fn usage(&self, id: Id) -> Result<Usage, RuntimeError> {
        const TICK: Duration = Duration::from_millis(10); // USER_HZ is 100 on every Linux we run on
        let directory = self.directory(id);
        read_kept(id, &directory)?;
        let processes = processes_of(id, read_process(&directory));
        let ticks: u64 = processes.iter().map(|line| line.ticks).sum();
        let pages: u64 = processes.iter().map(|line| line.pages).sum();
        let home = directory.join("home");
        let disk = tokio::task::spawn_blocking(move || size(&home)).await.ok();
        let page = u64::try_from(rustix::param::page_size()).unwrap_or_default();
        Ok(Usage {
            cpu_time: TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)),
            memory: pages * page,
            disk,
            processes: processes.len() as u64,
            ..Usage::default()
        })
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(vec![Image {
            name: IMAGE.to_owned(),
            description: "A directory and a process of the host".to_owned(),
            size: 0,
            created: 0,
            default: true,
        }])
    }

    fn changes(&self) -> broadcast::Receiver<Id> {
        self.shared.changes.subscribe()
    }
}
