//! What runs the machines, and how little control needs to know of it.
//!
//! [`Runtime`] has three implementations: `incus` (system containers), `local` (one supervised kit
//! process per container, for hosts that cannot run system containers) and `fake` (the kit in this
//! process, for tests). The trait speaks of machines; the words of an engine stay in its module.

pub mod fake;
pub mod incus;
pub mod local;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use routes::Id;
use routes::table::Owners;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::firewall::Filters;
use crate::relay::Upstream;

/// What a machine is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub id: Id,
    pub project: Id,
    /// Host name inside the machine.
    pub hostname: String,
    /// Image to make it from; the runtime's default where none is named.
    pub image: Option<String>,
    /// Environment of every program in it.
    pub environment: Vec<(String, String)>,
    /// Key that may log in over SSH.
    pub ssh_public_key: Option<String>,
    /// Whether the machine carries the kit.
    pub kit: bool,
    /// Whether the engine starts it when the host boots.
    pub autostart: bool,
    /// Whether it has a disk in memory at `/ramdisk`, which outlives its restarts.
    pub ramdisk: bool,
    /// Whether it has the host's `/dev/kvm`.
    pub kvm: bool,
    pub limits: Limits,
}

/// Upper bounds on what a machine takes; none where absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Thousandths of a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
}

impl Limits {
    /// Whatever holds of both: of each the lower.
    pub fn within(self, outer: Limits) -> Limits {
        fn lower<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        Limits {
            cpu: lower(self.cpu, outer.cpu),
            memory: lower(self.memory, outer.memory),
            disk: lower(self.disk, outer.disk),
            processes: lower(self.processes, outer.processes),
        }
    }
}

/// What a machine may reach over the network, and what may reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub egress: Egress,
    pub filters: Filters,
}

/// How what a machine sends leaves the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Egress {
    Direct,
    Blocked,
    /// TCP and names through a proxy, all else not at all.
    Proxied(Upstream),
}

/// A directory of one machine that another sees below [`SHARES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub id: Id,
    pub source: Id,
    /// On the source's own disk; absolute and without detours.
    pub path: String,
    pub writable: bool,
}

/// What each machine sees of others, by the names below [`SHARES`].
pub type Shares = BTreeMap<Id, BTreeMap<String, Share>>;

/// Where a machine sees what others share with it.
pub const SHARES: &str = "/hoody/shares";

/// A share that a machine should see and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unshared {
    pub share: Id,
    pub target: Id,
    pub why: NoDirectory,
}

/// Why a directory of a machine is not shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoDirectory {
    #[error("there is no `{0}` on the disk of the container")]
    Missing(String),
    #[error("`{0}` is no directory")]
    NotOne(String),
    #[error("`{0}` leads over a symbolic link; name the directory that it leads to")]
    Link(String),
    #[error("container {0} is not made yet")]
    NotMade(Id),
    #[error("container {0} sees shares from its next start on; restart it")]
    NextStart(Id),
    #[error("{0}")]
    Host(String),
}

/// What the runtime sees of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub id: Id,
    pub power: Power,
    /// Where its kit's socket appears: the directory it shares with the host.
    pub directory: PathBuf,
    /// The host user ids of its users.
    pub owners: Owners,
    /// Whether the kit's socket is there.
    pub ready: bool,
    /// Changes with every start.
    pub incarnation: u64,
    pub address: Option<Ipv4Addr>,
}

/// Whether a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Power {
    /// Only remains of a machine (a directory, a mount): deletion has to go on.
    Remains,
    Off,
    On,
    Frozen,
    /// Between two of the others; look again.
    Changing,
    /// The engine says it is broken.
    Broken,
}

/// What a machine uses, as totals since its start and as of now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    pub cpu_time: Duration,
    pub memory: u64,
    /// The part of it that cannot be taken back; none where that is not known.
    pub memory_held: Option<u64>,
    pub memory_limit: Option<u64>,
    /// None where it is not counted.
    pub disk: Option<u64>,
    pub disk_limit: Option<u64>,
    pub processes: u64,
    pub received: u64,
    pub sent: u64,
}

/// What a program run in a machine said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// What a copy is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub id: Id,
    /// One of its snapshots; its disk as it is now where none is named.
    pub snapshot: Option<String>,
}

/// Why the runtime could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("no machine {0}")]
    NoMachine(Id),
    #[error("no snapshot `{name}` of machine {id}")]
    NoSnapshot { id: Id, name: String },
    #[error("no image `{0}`; list them with `hoody images list`")]
    NoImage(String),
    #[error("the runtime cannot {0}")]
    Unsupported(&'static str),
    /// It may work later: the engine is away, busy, or slow.
    #[error("{act} failed for now: {reason}")]
    Transient { act: &'static str, reason: String },
    /// It will fail the same way again.
    #[error("{act} failed: {reason}")]
    Permanent { act: &'static str, reason: String },
}

const UNREADY: &str = "keep machines ready in advance";

/// What runs machines. Every act is idempotent: asked twice, or again after a crash anywhere in
/// between, it ends in the same state.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Bytes that the disks of all machines share, where the runtime can bound each of them.
    fn space(&self) -> Option<u64> {
        None
    }

    /// Whether its machines can have a disk in memory.
    fn has_ramdisks(&self) -> bool {
        false
    }

    /// Whether the host has `/dev/kvm` and a machine can be given it.
    fn has_kvm(&self) -> bool {
        false
    }

    /// `incus`, `local` or `fake`.
    fn name(&self) -> &'static str;

    /// All machines and all remains of machines that belong to this node.
    async fn observe(&self) -> Result<Vec<Observed>, RuntimeError>;

    /// One machine; `None` where nothing of it is left.
    async fn observe_one(&self, id: Id) -> Result<Option<Observed>, RuntimeError>;

    /// Make it, with all it shares with the host. It is off.
    async fn create(&self, machine: &Machine) -> Result<(), RuntimeError>;

    /// Turn it on. Returns when the engine has started it; [`Observed::ready`] comes later.
    async fn start(&self, id: Id) -> Result<(), RuntimeError>;

    /// Ask it to shut down, and wait until it is off or the grace is over.
    async fn stop(&self, id: Id, grace: Duration) -> Result<(), RuntimeError>;

    /// Turn it off at once.
    async fn kill(&self, id: Id) -> Result<(), RuntimeError>;

    async fn freeze(&self, id: Id) -> Result<(), RuntimeError>;

    async fn thaw(&self, id: Id) -> Result<(), RuntimeError>;

    /// Remove it and everything it shares with the host, whatever state it is in.
    async fn delete(&self, id: Id) -> Result<(), RuntimeError>;

    /// Make what can change on an existing machine as `machine` says: environment, limits,
    /// autostart, key. What needs a restart holds from the next start on.
    async fn update(&self, machine: &Machine) -> Result<(), RuntimeError>;

    /// Keep what its disk holds now under a name; it may run. How many bytes the snapshot holds,
    /// where that is counted.
    async fn snapshot(&self, id: Id, name: &str) -> Result<Option<u64>, RuntimeError>;

    /// Make its disk what it was in the snapshot. It is off; it keeps its address, maybe not
    /// its owners, and has to be told its settings again by an update.
    async fn restore(&self, id: Id, name: &str) -> Result<(), RuntimeError>;

    /// Remove a snapshot, also one that was only half taken.
    async fn drop_snapshot(&self, id: Id, name: &str) -> Result<(), RuntimeError>;

    /// Make it with the disk of another, which may run, and an identity of its own. It is off.
    async fn copy(&self, machine: &Machine, source: &Source) -> Result<(), RuntimeError>;

    /// Make the disk of a machine that is off what its source's is now; it keeps its identity,
    /// and has to be told its settings again by an update.
    async fn sync(&self, machine: &Machine, source: Id) -> Result<(), RuntimeError>;

    /// Whether machines can be kept ready in advance; those below are of no use otherwise.
    fn keeps_ready(&self) -> bool {
        false
    }

    /// Tells what a machine that is made of this image now is made of: where it says something else
    /// than before, one that was made before is out of date.
    async fn edition(&self, image: &str) -> Result<String, RuntimeError> {
        let _ = image;
        Err(RuntimeError::Unsupported(UNREADY))
    }

    /// Wait until what its start set off is over, so that it has all that makes it one of its own.
    async fn settle(&self, id: Id) -> Result<(), RuntimeError> {
        let _ = id;
        Err(RuntimeError::Unsupported(UNREADY))
    }

    /// Whether a machine that is kept ready, as this database says, is that by the engine's word as
    /// well: where the database is an old copy, it may hold somebody's data by now.
    async fn is_nobodys(&self, id: Id) -> Result<bool, RuntimeError> {
        let _ = id;
        Ok(false)
    }

    /// Make a machine that was kept ready the one that is described: it is on afterwards, with name,
    /// variables, key and devices, before any of its programs serves anybody. `seen` is how it was
    /// last seen, on or frozen. What the engine itself has to know may be left to
    /// [`Runtime::adopt`].
    async fn claim(&self, machine: &Machine, seen: &Observed) -> Result<Observed, RuntimeError> {
        let _ = (machine, seen);
        Err(RuntimeError::Unsupported(UNREADY))
    }

    /// Have the engine know what a claim did. `unchanged` where nothing in `machine` has changed
    /// since.
    async fn adopt(&self, machine: &Machine, unchanged: bool) -> Result<(), RuntimeError> {
        let _ = (machine, unchanged);
        Err(RuntimeError::Unsupported(UNREADY))
    }

    /// Whether [`Runtime::enforce`] can do anything.
    fn keeps_policies(&self) -> bool {
        false
    }

    /// Have these policies hold, from the machine's host on, where nobody in it can undo them; each
    /// machine that is not named is free. A runtime that keeps policies starts no machine before
    /// it has been told them. Asked again, it repairs what others did to them.
    async fn enforce(&self, policies: BTreeMap<Id, Policy>) -> Result<(), RuntimeError> {
        let _ = policies;
        Err(RuntimeError::Unsupported(
            "say what a machine may reach over the network",
        ))
    }

    /// Whether [`Runtime::share`] can do anything.
    fn shares_directories(&self) -> bool {
        false
    }

    /// Whether this directory can be shared now.
    async fn directory(&self, id: Id, path: &str) -> Result<(), NoDirectory> {
        let _ = (id, path);
        Err(NoDirectory::Host(
            "the runtime cannot share directories".to_owned(),
        ))
    }

    /// Have machines, on or off, see exactly these directories of others; which they do not see, and
    /// why. What is shared for reading is read-only for root in the machine as well, and nothing
    /// that a source does to its directories shows more of it. Asked again, it repairs what others
    /// did to them.
    async fn share(&self, shares: Shares) -> Result<Vec<Unshared>, RuntimeError> {
        let _ = shares;
        Err(RuntimeError::Unsupported("share directories"))
    }

    /// Run a program in it as its root.
    async fn exec(&self, id: Id, argv: &[&str]) -> Result<Ran, RuntimeError>;

    async fn usage(&self, id: Id) -> Result<Usage, RuntimeError>;

    /// Images a machine can be made from.
    async fn images(&self) -> Result<Vec<Image>, RuntimeError>;

    /// Ids of machines that changed outside of the calls above. Lossy: whoever lags observes all.
    fn changes(&self) -> broadcast::Receiver<Id>;
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The name by which containers ask for it: `debian-13`.
    pub name: String,
    pub description: String,
    /// Compressed size in bytes.
    pub size: u64,
    /// Creation time, seconds since the epoch.
    pub created: i64,
    /// Whether it is made from when no image is named.
    pub default: bool,
}
