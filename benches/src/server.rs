//! Servers of a measurement's own, and where they listen.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one may take to end after it was asked to.
const GOODBYE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);

/// A server of the measurement's own; it ends with the measurement, however that ends.
pub struct Server(Child);

impl Server {
    /// Start it, on this core alone where one is named. What it says is kept in a file.
    pub fn start(command: &Command, core: Option<usize>, log: &Path) -> anyhow::Result<Server> {
        let mut pinned = Command::new("setpriv");
        pinned.args(["--pdeathsig", "TERM"]);
        if let Some(core) = core {
            pinned.args(["taskset", "--cpu-list", &core.to_string()]);
        }
        pinned
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(log)?)
            .stderr(std::fs::File::options().append(true).open(log)?);
        for (name, value) in command.get_envs() {
            pinned.env(name, value.unwrap_or_default());
        }
        let child = pinned
            .spawn()
            .with_context(|| format!("could not start {}", command.get_program().display()))?;
        Ok(Server(child))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Wait until something can be connected to; an error where the server ended before.
    pub fn until(&mut self, ready: impl Fn() -> bool, log: &Path) -> anyhow::Result<()> {
        let began = Instant::now();
        while !ready() {
            let ended = self.0.try_wait()?;
            ensure!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "a server does not listen; its last words: {}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first: a server that is killed leaves its workers behind.
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < GOODBYE {
            if let Ok(Some(_)) = self.0.try_wait() {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let _ = self.0.kill(); // it fails where it has ended by itself
        let _ = self.0.wait();
    }
}

/// Whether a server accepts connections here.
pub fn listens(address: SocketAddr) -> bool {
    std::net::TcpStream::connect_timeout(&address, LOOK).is_ok()
}

/// An address on the loopback that nobody listens on.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}
