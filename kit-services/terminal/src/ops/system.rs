//! What runs on the machine.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kit::{Call, Fault, Operation, Route};
use rustix::process::{Pid, Signal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Terminal;
use crate::system::ports::{self, Port};
use crate::system::processes::{self, Details, Machine, Process, Stat};
use crate::system::resources::{self, Disk, Memory, Processor};

/// Read from `/proc` without holding up others.
pub(super) async fn read<T: Send + 'static>(
    what: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(what)
        .await
        .map_err(|_| Fault::internal("reading the state of the machine failed"))
}

/// By what to sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    Cpu,
    Memory,
    #[default]
    Pid,
    Name,
}

/// List the processes of the machine.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ListProcesses {
    /// The busiest or largest come first.
    #[serde(default)]
    sort: Sort,
    /// At most so many.
    limit: Option<usize>,
    /// Only those with this in their name, in capital or small letters.
    filter: Option<String>,
}

/// Processes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Processes {
    processes: Vec<Process>,
    /// How many there are, with those beyond the limit.
    total: usize,
}

impl Operation for ListProcesses {
    const ROUTE: Route = Route::get("/api/v1/system/processes")
        .named("listSystemProcesses")
        .cli("terminal processes list");
    type Service = Terminal;
    type Reply = Processes;

    async fn run(self, _: Terminal, _: Call) -> Result<Processes, Fault> {
        read(move || {
            let machine = Machine::look();
            let filter = self
                .filter
                .map(|filter| filter.to_lowercase())
                .unwrap_or_default();
            let mut processes: Vec<Process> = processes::all()
                .into_iter()
                .filter(|stat| stat.name.to_lowercase().contains(&filter))
                .map(|stat| machine.describe(stat))
                .collect();
            match self.sort {
                Sort::Cpu => processes.sort_by(|a, b| b.cpu_percent.total_cmp(&a.cpu_percent)),
                Sort::Memory => {
                    processes.sort_by_key(|process| std::cmp::Reverse(process.memory_bytes))
                }
                Sort::Pid => processes.sort_by_key(|process| process.pid),
                Sort::Name => processes.sort_by(|a, b| a.name.cmp(&b.name)),
            }
            let total = processes.len();
            processes.truncate(self.limit.unwrap_or(total));
            Processes { processes, total }
        })
        .await
    }
}

/// Everything about one process.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct GetProcess {
    /// Process id.
    pid: i32,
}

impl Operation for GetProcess {
    const ROUTE: Route = Route::get("/api/v1/system/processes/{pid}")
        .named("getProcessDetails")
        .cli("terminal processes get");
    type Service = Terminal;
    type Reply = Details;

    async fn run(self, _: Terminal, _: Call) -> Result<Details, Fault> {
        let pid = self.pid;
        read(move || processes::details(pid))
            .await?
            .ok_or_else(|| no_process(pid))
    }
}

fn no_process(pid: i32) -> Fault {
    Fault::not_found(format!(
        "no process {pid}; list them with GET /api/v1/system/processes"
    ))
    .code("PROCESS_NOT_FOUND")
}

/// A signal by number or name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SignalName {
    Number(i32),
    Name(String),
}

const SIGNALS: &[(&str, Signal)] = &[
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ILL", Signal::ILL),
    ("TRAP", Signal::TRAP),
    ("ABRT", Signal::ABORT),
    ("BUS", Signal::BUS),
    ("FPE", Signal::FPE),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("SEGV", Signal::SEGV),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("CHLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
    ("VTALRM", Signal::VTALARM),
    ("PROF", Signal::PROF),
    ("WINCH", Signal::WINCH),
    ("IO", Signal::IO),
    ("SYS", Signal::SYS),
];

impl SignalName {
    fn read(&self) -> Result<Signal, Fault> {
        let found = match self {
            SignalName::Number(number) => Signal::from_named_raw(*number),
            SignalName::Name(name) => match name.parse() {
                Ok(number) => Signal::from_named_raw(number),
                Err(_) => {
                    let name = name.to_uppercase();
                    let name = name.strip_prefix("SIG").unwrap_or(&name);
                    SIGNALS
                        .iter()
                        .find(|(known, _)| *known == name)
                        .map(|(_, signal)| *signal)
                }
            },
        };
        found.ok_or_else(|| {
            Fault::bad_request("signal must be a name such as SIGTERM or its number")
                .code("UNKNOWN_SIGNAL")
                .field("/signal", "unknown")
        })
    }
}

fn signal_name(signal: Signal) -> String {
    SIGNALS
        .iter()
        .find(|(_, known)| *known == signal)
        .map_or_else(
            || signal.as_raw().to_string(),
            |(name, _)| format!("SIG{name}"),
        )
}

/// Which processes are meant.
struct Target {
    pid: Option<i32>,
    name: Option<String>,
    descendants: bool,
}

/// What came of a signal.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Signalled {
    success: bool,
    message: String,
    affected_pids: Vec<i32>,
}

impl Target {
    /// The processes, the ones they descend from first.
    fn find(&self) -> Result<Vec<i32>, Fault> {
        let name = self.name.as_deref().filter(|name| !name.is_empty());
        let all = processes::all();
        let mut found: Vec<i32> = match (self.pid, name) {
            (Some(pid), None) => {
                if is_guarded(pid) {
                    return Err(Fault::forbidden(format!(
                        "process {pid} is one that the machine or this kit stands on"
                    ))
                    .code("PROTECTED_PROCESS"));
                }
                if !all.iter().any(|stat| stat.pid == pid) {
                    return Err(no_process(pid));
                }
                vec![pid]
            }
            (None, Some(name)) => {
                let is_meant =
                    |stat: &&Stat| stat.name.eq_ignore_ascii_case(name) && !is_guarded(stat.pid);
                let found: Vec<i32> = all.iter().filter(is_meant).map(|stat| stat.pid).collect();
                if found.is_empty() {
                    return Err(Fault::not_found(format!(
                        "no process of this name; names are cut after 15 bytes: {}",
                        name.chars()
                            .take(64)
                            .filter(|character| !character.is_control())
                            .collect::<String>()
                    ))
                    .code("PROCESS_NOT_FOUND"));
                }
                found
            }
            _ => return Err(Fault::bad_request("give either pid or name").code("VALIDATION_ERROR")),
        };
        if self.descendants {
            let mut at = 0;
            while at < found.len() {
                let parent = found[at];
                for stat in &all {
                    if stat.parent == parent && !found.contains(&stat.pid) && !is_guarded(stat.pid)
                    {
                        found.push(stat.pid);
                    }
                }
                at += 1;
            }
        }
        Ok(found)
    }

    async fn signal(self, signal: Signal) -> Result<Signalled, Fault> {
        read(move || {
            let mut affected = Vec::new();
            let mut denied = None;
            for pid in self.find()? {
                let Some(target) = Pid::from_raw(pid) else {
                    continue;
                };
                match rustix::process::kill_process(target, signal) {
                    Ok(()) => affected.push(pid),
                    Err(rustix::io::Errno::SRCH) => {}
                    Err(_) => denied = Some(pid),
                }
            }
            if let (Some(pid), true) = (denied, affected.is_empty()) {
                return Err(
                    Fault::forbidden(format!("this kit may not signal process {pid}"))
                        .code("NOT_PERMITTED"),
                );
            }
            Ok(Signalled {
                success: !affected.is_empty(),
                message: format!(
                    "Signal {} sent to {} process(es)",
                    signal_name(signal),
                    affected.len()
                ),
                affected_pids: affected,
            })
        })
        .await?
    }
}

/// The first process, the kernel's, this one and the one it was started by.
fn is_guarded(pid: i32) -> bool {
    let own = std::process::id();
    let parent = rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
    pid <= 2 || i64::from(pid) == i64::from(own) || pid == parent
}

/// Send a signal to a process, or to all of one name.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SendSignal {
    /// Process id.
    pid: Option<i32>,
    /// Name of the program: every process of this name is meant.
    name: Option<String>,
    /// Name or number; SIGTERM where not given.
    signal: Option<SignalName>,
    /// SIGKILL, or where false SIGTERM, whatever `signal` says.
    force: Option<bool>,
}

impl Operation for SendSignal {
    const ROUTE: Route = Route::post("/api/v1/system/process/signal")
        .named("sendProcessSignal")
        .cli("terminal processes signal");
    type Service = Terminal;
    type Reply = Signalled;

    async fn run(self, _: Terminal, _: Call) -> Result<Signalled, Fault> {
        let signal = match (self.force, &self.signal) {
            (Some(true), _) => Signal::KILL,
            // `force: false` beside a signal is what clients send who fill in every field.
            (_, Some(signal)) => signal.read()?,
            (_, None) => Signal::TERM,
        };
        Target {
            pid: self.pid,
            name: self.name,
            descendants: false,
        }
        .signal(signal)
        .await
    }
}

/// Stop a process, or all of one name, until it is told to go on.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Freeze {
    /// Process id.
    pid: Option<i32>,
    /// Name of the program: every process of this name is meant.
    name: Option<String>,
    /// And all that they started.
    #[serde(default)]
    include_descendants: bool,
}

impl Operation for Freeze {
    const ROUTE: Route = Route::post("/api/v1/system/processes/freeze").named("freezeProcess");
    type Service = Terminal;
    type Reply = Signalled;

    async fn run(self, _: Terminal, _: Call) -> Result<Signalled, Fault> {
        Target {
            pid: self.pid,
            name: self.name,
            descendants: self.include_descendants,
        }
        .signal(Signal::STOP)
        .await
    }
}

/// Have a stopped process, or all of one name, go on.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Unfreeze {
    /// Process id.
    pid: Option<i32>,
    /// Name of the program: every process of this name is meant.
    name: Option<String>,
    /// And all that they started.
    #[serde(default)]
    include_descendants: bool,
}

impl Operation for Unfreeze {
    const ROUTE: Route = Route::post("/api/v1/system/processes/unfreeze").named("unfreezeProcess");
    type Service = Terminal;
    type Reply = Signalled;

    async fn run(self, _: Terminal, _: Call) -> Result<Signalled, Fault> {
        Target {
            pid: self.pid,
            name: self.name,
            descendants: self.include_descendants,
        }
        .signal(Signal::CONT)
        .await
    }
}

/// List the ports that programs listen on.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ListPorts {
    /// tcp, udp, or both with a comma between.
    protocol: Option<String>,
    /// Only those of this user.
    user: Option<String>,
    /// Only this one.
    port: Option<u16>,
    /// Only those bound to these addresses, with commas between.
    ip: Option<String>,
    /// Not those of these programs, with commas between.
    skip_program: Option<String>,
    /// Only those that answer HTTP.
    #[serde(default)]
    http_only: bool,
    /// Only those of the kit itself.
    #[serde(default)]
    hoody_only: bool,
}

fn words(list: Option<&String>) -> Option<Vec<String>> {
    let words: Vec<String> = list?
        .split(',')
        .map(|word| word.trim().to_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    (!words.is_empty()).then_some(words)
}

impl Operation for ListPorts {
    const ROUTE: Route = Route::get("/api/v1/system/ports")
        .named("listNetworkPorts")
        .cli("terminal system ports");
    type Service = Terminal;
    type Reply = Vec<Port>;

    async fn run(self, _: Terminal, _: Call) -> Result<Vec<Port>, Fault> {
        let (protocols, addresses, skipped) = (
            words(self.protocol.as_ref()),
            words(self.ip.as_ref()),
            words(self.skip_program.as_ref()),
        );
        let own = std::process::id();
        let mut ports = read(ports::listening).await?;
        ports.retain(|port| {
            let program = port.program.as_deref().unwrap_or_default().to_lowercase();
            protocols
                .as_ref()
                .is_none_or(|protocols| protocols.iter().any(|protocol| protocol == port.protocol))
                && self
                    .user
                    .as_ref()
                    .is_none_or(|user| user.is_empty() || *user == port.user)
                && self.port.is_none_or(|number| number == port.port)
                && addresses
                    .as_ref()
                    .is_none_or(|addresses| addresses.contains(&port.ip))
                && !skipped
                    .as_ref()
                    .is_some_and(|skipped| skipped.contains(&program))
                && (!self.hoody_only
                    || port.pid.is_some_and(|pid| i64::from(pid) == i64::from(own)))
        });
        if self.http_only {
            let answers = futures::future::join_all(ports.iter().map(speaks_http)).await;
            let mut answers = answers.into_iter();
            ports.retain(|_| answers.next().unwrap_or(false));
        }
        Ok(ports)
    }
}

/// Whether something answers HTTP at a port.
async fn speaks_http(port: &Port) -> bool {
    const PATIENCE: Duration = Duration::from_millis(500);
    let Ok(address) = port.ip.parse::<IpAddr>() else {
        return false;
    };
    if port.protocol != "tcp" {
        return false;
    }
    let address = match address {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        address => address,
    };
    let ask = async {
        let mut stream =
            tokio::net::TcpStream::connect(SocketAddr::new(address, port.port)).await?;
        stream
            .write_all(b"HEAD / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            .await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        Ok::<bool, std::io::Error>(&answer == b"HTTP/")
    };
    matches!(tokio::time::timeout(PATIENCE, ask).await, Ok(Ok(true)))
}

/// How much of the machine is in use.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Resources {}

/// Memory, processors, disk.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Usage {
    memory: Memory,
    cpu: Processor,
    disk: Option<Disk>,
    /// Seconds since the machine started.
    uptime_seconds: f64,
    processes: usize,
}

impl Operation for Resources {
    const ROUTE: Route = Route::get("/api/v1/system/resources")
        .named("getSystemResources")
        .cli("terminal system resources");
    type Service = Terminal;
    type Reply = Usage;

    async fn run(self, _: Terminal, _: Call) -> Result<Usage, Fault> {
        read(|| Usage {
            memory: resources::memory(),
            cpu: resources::processor(),
            disk: resources::disk(),
            uptime_seconds: resources::uptime(),
            processes: processes::all().len(),
        })
        .await
    }
}
