//! Processes.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, Signal};
use schemars::JsonSchema;
use serde::Serialize;

/// Longest text read from one file of a process.
const MAX_TEXT: usize = 64 << 10;

/// `/proc/{pid}/stat`, as far as it is used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub pid: i32,
    /// The program's name, at most 15 bytes of it.
    pub name: String,
    pub state: char,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    /// Processor time used, in ticks.
    pub ticks: u64,
    pub threads: u32,
    /// When it started, in ticks since boot.
    pub started: u64,
    /// Resident pages.
    pub pages: u64,
}

impl Stat {
    /// The state of one process; none when there is no such process.
    pub fn of(pid: i32) -> Option<Stat> {
        Stat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(line: &[u8]) -> Option<Stat> {
        let line = String::from_utf8_lossy(line);
        // The name is in parentheses and may hold any of them.
        let (open, close) = (line.find('(')?, line.rfind(')')?);
        let pid = line[..open].trim().parse().ok()?;
        let name = line.get(open + 1..close)?.to_owned();
        let fields: Vec<&str> = line[close + 1..].split_whitespace().collect();
        let number = |field: usize| {
            fields
                .get(field - 3)
                .and_then(|text| text.parse::<i64>().ok())
        };
        let count = |field: usize| number(field).and_then(|number| u64::try_from(number).ok());
        Some(Stat {
            pid,
            name,
            state: fields.first()?.chars().next()?,
            parent: i32::try_from(number(4)?).ok()?,
            group: i32::try_from(number(5)?).ok()?,
            session: i32::try_from(number(6)?).ok()?,
            ticks: count(14)? + count(15)?,
            threads: u32::try_from(count(20)?).ok()?,
            started: count(22)?,
            pages: count(24)?,
        })
    }

    pub fn is_zombie(&self) -> bool {
        self.state == 'Z' || self.state == 'X'
    }
}

/// All processes.
pub fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Stat::of)
        .collect()
}

/// The living processes of a session.
pub fn of_session(session: Pid) -> Vec<Stat> {
    let session = session.as_raw_nonzero().get();
    all()
        .into_iter()
        .filter(|stat| stat.session == session && !stat.is_zombie())
        .collect()
}

/// Send a signal to a process that was seen a moment ago. It may be gone, which is no failure.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Send a signal to all processes of a session.
pub fn signal_session(session: Pid, what: Signal) {
    for stat in of_session(session) {
        signal(stat.pid, what);
    }
}

/// A process as it is listed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Process {
    pub pid: i32,
    pub ppid: i32,
    /// The program's name, at most 15 bytes of it.
    pub name: String,
    pub user: String,
    /// One letter, as `ps` has it: R running, S sleeping, D waiting for a disk, T stopped, Z dead.
    pub state: String,
    /// Processor time over the life of the process, in percent of one processor.
    pub cpu_percent: f64,
    /// Resident memory, in percent of the machine's.
    pub memory_percent: f64,
    /// Resident memory, in bytes.
    pub memory_bytes: u64,
    pub threads: u32,
    /// When it started, in clock ticks since boot: with the pid it names the process for good.
    pub start_time_ticks: u64,
    /// The command line, its words separated by spaces.
    pub command: String,
}

/// What a listing needs to know once.
pub struct Machine {
    users: HashMap<u32, String>,
    uptime_ticks: f64,
    memory: u64,
    page: u64,
}

/// Clock ticks a second in all that `/proc` says; fixed for every architecture that runs this.
const TICKS: f64 = 100.0;

impl Machine {
    pub fn look() -> Machine {
        let users = fs::read_to_string("/etc/passwd")
            .unwrap_or_default()
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
            })
            .collect();
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime: f64 = uptime
            .split(' ')
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0.0);
        Machine {
            users,
            uptime_ticks: uptime * TICKS,
            memory: super::resources::memory().total_bytes,
            page: rustix::param::page_size() as u64,
        }
    }

    pub fn user(&self, uid: u32) -> String {
        self.users
            .get(&uid)
            .cloned()
            .unwrap_or_else(|| uid.to_string())
    }

    /// Everything that a listing says of one process.
    pub fn describe(&self, stat: Stat) -> Process {
        let directory = format!("/proc/{}", stat.pid);
        let uid = fs::metadata(&directory).map(|meta| meta.uid()).unwrap_or(0);
        let memory_bytes = stat.pages * self.page;
        let age = (self.uptime_ticks - stat.started as f64).max(1.0);
        Process {
            pid: stat.pid,
            ppid: stat.parent,
            user: self.user(uid),
            state: stat.state.to_string(),
            cpu_percent: round(100.0 * stat.ticks as f64 / age),
            memory_percent: round(100.0 * memory_bytes as f64 / self.memory.max(1) as f64),
            memory_bytes,
            threads: stat.threads,
            start_time_ticks: stat.started,
            command: words(&directory, "cmdline").join(" "),
            name: stat.name,
        }
    }
}

/// To two decimals.
pub fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// A file of a process whose words end in zero bytes.
fn words(directory: &str, file: &str) -> Vec<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(format!("{directory}/{file}")) {
        // What cannot be read is not shown.
        let _ = file.take(MAX_TEXT as u64).read_to_end(&mut bytes);
    }
    bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// One process, in detail.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Details {
    #[serde(flatten)]
    pub process: Process,
    pub uid: Option<u32>,
    /// The words of the command line.
    pub cmdline: Vec<String>,
    /// The program file; null where the kit may not see it.
    pub exe: Option<String>,
    /// The working directory; null where the kit may not see it.
    pub cwd: Option<String>,
    /// Process group and session.
    pub pgid: i32,
    pub sid: i32,
    /// Open file descriptors; null where the kit may not see them.
    pub fds: Option<usize>,
    pub children: Vec<i32>,
}

/// Details of one process; none when there is no such process.
pub fn details(pid: i32) -> Option<Details> {
    let stat = Stat::of(pid)?;
    let directory = format!("/proc/{pid}");
    let link = |name: &str| {
        fs::read_link(format!("{directory}/{name}"))
            .ok()
            .map(|path| path.to_string_lossy().into_owned())
    };
    Some(Details {
        uid: fs::metadata(&directory).ok().map(|meta| meta.uid()),
        cmdline: words(&directory, "cmdline"),
        exe: link("exe"),
        cwd: link("cwd"),
        pgid: stat.group,
        sid: stat.session,
        fds: fs::read_dir(format!("{directory}/fd"))
            .ok()
            .map(Iterator::count),
        children: all()
            .iter()
            .filter(|other| other.parent == pid)
            .map(|other| other.pid)
            .collect(),
        process: Machine::look().describe(stat),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_program_names_are_read_to_their_end() {
        let line = b"42 (a) R 1 (b)) S 1 42 42 34816 50 4194560 1 2 3 4 10 5 0 0 20 0 3 0 777 1000 55 18446744073709551615 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            (stat.pid, stat.name.as_str(), stat.state),
            (42, "a) R 1 (b)", 'S')
        );
        assert_eq!((stat.parent, stat.group, stat.session), (1, 42, 42));
        assert_eq!(
            (stat.ticks, stat.threads, stat.started, stat.pages),
            (15, 3, 777, 55)
        );
        for wrong in [
            b"".as_slice(),
            b"42",
            b"42 (x",
            b"42 (x) ",
            b")(",
            b"x (y) S 1",
        ] {
            assert_eq!(Stat::parse(wrong), None);
        }
    }

    #[test]
    fn this_process_is_among_them() {
        let me = std::process::id() as i32;
        assert!(all().iter().any(|stat| stat.pid == me));
        let details = details(me).unwrap();
        assert_eq!(details.process.pid, me);
        assert!(details.process.memory_bytes > 0 && !details.cmdline.is_empty());
    }
}
