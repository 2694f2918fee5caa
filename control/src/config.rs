//! What control is told at its start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::certificates::Certificates;

/// Settings of the control plane. The limits have names and defaults; a test may tighten them.
#[derive(Debug, Clone)]
pub struct Config {
    /// The state directory of the node: `/var/lib/hoody`.
    pub state: PathBuf,
    /// The node's label in hostnames, and the `server_name` of its containers.
    pub node: String,
    /// The domain below which `api.` and `containers.` stand.
    pub domain: String,
    /// The port of HTTPS that URLs name, unless it is 443.
    pub https_port: u16,
    /// Who knows the node's certificates.
    pub certificates: Option<Certificates>,
    /// Loopback address that answers `/metrics`; none where absent.
    pub metrics: Option<SocketAddr>,
    pub limits: Limits,
    /// What each machine may take; no bound where absent.
    pub machine_limits: crate::runtime::Limits,
    /// Machines that are kept ready in advance; none where it does not say.
    pub prespawn: crate::prespawn::Settings,
    pub pace: Pace,
}

/// Upper bounds on what callers may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    pub containers_per_node: u32,
    pub projects_per_user: u32,
    pub tokens_per_user: u32,
    pub aliases_per_container: u32,
    pub snapshots_per_container: u32,
    /// Directories that one container offers to others.
    pub shares_per_container: u32,
    /// Directories that one container may see of others.
    pub shares_per_target: u32,
    /// Failed logins of one account from one address in half an hour.
    pub login_failures: u32,
    /// Failed logins from one address in half an hour, whatever the accounts.
    pub login_failures_per_address: u32,
    /// Refreshes of one session in half an hour.
    pub refreshes: u32,
}

/// How the reconciler paces itself.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Everything is looked at this often, nudged or not.
    pub sweep: Duration,
    /// How long a machine may take to shut down before it is turned off.
    pub grace: Duration,
    /// Wait between two looks at a kit that is not there yet.
    pub ready_poll: Duration,
    /// After this long a running machine counts as running, whatever its kit does.
    pub ready_patience: Duration,
    /// What a minute of an idle policy is; shorter for tests alone.
    pub idle_minute: Duration,
    /// Machines that are kept ready are made when nobody has asked for one for so long: a boot takes
    /// the processors that those who ask need.
    pub refill_pause: Duration,
    /// The engine is told of a claimed machine so long after its claim: what is asked of it at first has
    /// the processors until then.
    pub adopt_pause: Duration,
    /// First wait after a failed step; doubles up to `backoff_most`.
    pub backoff_least: Duration,
    pub backoff_most: Duration,
    /// Permanent failures of a container's steps in a row before it is given up as failed.
    pub attempts: u32,
    /// Creates, starts and deletions under way at once.
    pub heavy_steps: usize,
    /// Other steps under way at once; a stop waits for its machine, mostly.
    pub light_steps: usize,
}

impl Config {
    pub fn new(
        state: impl Into<PathBuf>,
        node: impl Into<String>,
        domain: impl Into<String>,
    ) -> Self {
        Config {
            state: state.into(),
            node: node.into(),
            domain: domain.into(),
            https_port: 443,
            certificates: None,
            metrics: None,
            limits: Limits::default(),
            machine_limits: crate::runtime::Limits::default(),
            prespawn: crate::prespawn::Settings::default(),
            pace: Pace::default(),
        }
    }

    /// The URL of a host of this node.
    pub fn url(&self, host: &str) -> String {
        match self.https_port {
            443 => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        }
    }

    /// The socket on which the API answers.
    pub fn socket(&self) -> PathBuf {
        self.state.join("run").join("control.sock")
    }

    /// The socket on which the proxy takes the routing table.
    pub fn feed(&self) -> PathBuf {
        self.state.join("run").join("feed.sock")
    }

    /// The socket on which the proxy says which containers are waited for.
    pub fn wake(&self) -> PathBuf {
        self.state.join("run").join("wake.sock")
    }

    pub fn database(&self) -> PathBuf {
        database(&self.state)
    }
}

/// Where the database of a state directory is.
pub fn database(state: &Path) -> PathBuf {
    state.join("control.db")
}

/// Where the keys of a state directory are.
pub fn secrets(state: &Path) -> PathBuf {
    state.join("secrets")
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            containers_per_node: 1000,
            projects_per_user: 1000,
            tokens_per_user: 1000,
            aliases_per_container: 100,
            snapshots_per_container: 100,
            shares_per_container: 100,
            shares_per_target: 50,
            login_failures: 1000,
            login_failures_per_address: 4000, // an office behind one address
            refreshes: 30,
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            sweep: Duration::from_secs(30),
            grace: Duration::from_secs(30),
            ready_poll: Duration::from_millis(15),
            ready_patience: Duration::from_secs(30),
            idle_minute: Duration::from_secs(60),
            refill_pause: Duration::from_millis(500),
            adopt_pause: Duration::from_millis(250),
            backoff_least: Duration::from_millis(500),
            backoff_most: Duration::from_secs(60),
            attempts: 3,
            heavy_steps: 4,
            light_steps: 16,
        }
    }
}
