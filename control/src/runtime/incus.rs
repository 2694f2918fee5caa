//! System containers on Incus, over its REST interface.
//!
//! A machine is an instance `c-<id>` in a project of the node's own:
//!
//! - unprivileged, with a range of user ids that no other machine has;
//! - an address and a MAC address that belong together, filtered on the host's side, on a bridge
//!   port that reaches no other port;
//! - `/opt/hoody`: the kit, read-only, owned by the host's root, whom no user of the machine is;
//! - `/hoody/run`: a small tmpfs of the host for the kit's socket, owned by the machine's root, so
//!   that the owners of what is in it are users of the machine on the host as well. Nothing the
//!   machine does there can fill a disk of the host.
//! - `/hoody/shares`: what other machines share with it; see [`shares`].
//! - `/ramdisk`, where it is wanted: a tmpfs of the host that outlives its restarts. What its
//!   programs write there counts as their memory, and is never more than half of their bound.
//!
//! What machines reach over the network is settled on the host's side of their ports, before they
//! start: [`wires`] and [`filter`].
//!
//! Nesting is on, so that sandboxes and containers work inside; they stay within the machine's
//! user ids. The engine starts no machine by itself: its `/hoody/run` has to be there first.

mod claim;
mod disk;
mod filter;
mod freezer;
mod memory;
mod quota;
mod rest;
mod room;
mod shares;
mod wires;

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use http::{Method, StatusCode};
use routes::Id;
use routes::table::Owners;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, broadcast};

use super::{
    Image, Machine, NoDirectory, Observed, Policy, Power, Ran, Runtime, RuntimeError, SHARES,
    Shares, Source, Unshared, Usage,
};
use crate::ready;
use filter::mac;
pub use filter::{RELAY, RELAY_NAMES};
use freezer::Freezer;
use rest::{File, Rest, RestError};
use room::Room;
use shares::{Seat, Views};
use wires::{Place, Wires};

/// What an instance is called before its id.
const PREFIX: &str = "c-";
/// The image that machines are made from where none is named.
const IMAGE: &str = "debian-13";
/// Set on an instance when everything about it was made.
const MADE: &str = "user.hoody.made";
const PROJECT: &str = "user.hoody.project";
/// Digests of the files that the node wrote into the machine: its variables, and the keys that may
/// log in. Each is written anew only where it changed, so that what users made of the others stays.
const VARIABLES: &str = "user.hoody.files";
const KEYS: &str = "user.hoody.keys";
/// What a machine may put into the directory it shares with the host.
const SHARED_BYTES: &str = "1m";
const SHARED_INODES: &str = "64";
const KVM: &str = "/dev/kvm";
/// A disk in memory where the machine's memory has no bound.
const RAMDISK_BYTES: u64 = 1 << 30;
/// Bytes of a disk in memory for each file that may be on it: a page.
const RAMDISK_FILE: u64 = 4096;
/// User ids of each machine, as the engine hands them out.
const IDS: u32 = 65_536;
/// Changes that wait for a slow listener.
const CHANGES: usize = 1024;
const CREATE: Duration = Duration::from_secs(300);
const START: Duration = Duration::from_secs(90);
const QUICK: Duration = Duration::from_secs(60);
const EXEC: Duration = Duration::from_secs(120);
/// Waits between two attempts to listen to the engine's events.
const RECONNECT_LEAST: Duration = Duration::from_millis(200);
const RECONNECT_MOST: Duration = Duration::from_secs(10);

/// Where the engine is, and what it may use.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The engine's socket.
    pub socket: PathBuf,
    /// The name of the project and the pool; the bridge is called the same with a 0.
    pub name: String,
    /// The directory of what machines share with the host.
    pub containers: PathBuf,
    /// The read-only tree that every machine sees at `/opt/hoody`.
    pub kit: PathBuf,
    /// The socket of the relay (see [`crate::relay`]).
    pub relay: PathBuf,
}

/// Why the engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the engine is not ready; `make up` prepares it")]
    Engine(#[source] RestError),
    #[error("the bridge {bridge} has no IPv4 network; `make up` prepares it")]
    NoNetwork { bridge: String },
    #[error("could not make the directory {path}")]
    MakeDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Machines as Incus instances.
pub struct Incus {
    settings: Settings,
    rest: Rest,
    wires: Wires,
    views: Arc<Views>,
    network: Network,
    /// Bytes of the pool that the disks of all machines are in.
    space: Option<u64>,
    /// Held from choosing an address until an instance has it. It also keeps the engine from
    /// choosing ranges of user ids for two instances at once, which it has been seen to give the
    /// same.
    making: Mutex<()>,
    changes: broadcast::Sender<Id>,
}

/// The bridge's network: its own address and how many bits name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub gateway: Ipv4Addr,
    pub bits: u8,
}

/// An instance as the engine lists it.
#[derive(Debug, Deserialize)]
struct Instance {
    name: String,
    status: String,
    #[serde(default)]
    config: Map<String, Value>,
    #[serde(default)]
    devices: Map<String, Value>,
    #[serde(default)]
    last_used_at: String,
}

impl Incus {
    /// Connect to an engine that `hoody/setup/engine.sh` has prepared, and begin to listen to
    /// what happens to its machines.
    pub async fn connect(settings: Settings) -> Result<Arc<Incus>, ConnectError> {
        let rest = Rest {
            socket: settings.socket.clone(),
            project: settings.name.clone(),
        };
        std::fs::create_dir_all(&settings.containers).map_err(|source| {
            ConnectError::MakeDirectory {
                path: settings.containers.clone(),
                source,
            }
        })?;
        let bridge = format!("{}0", settings.name);
        // bridges belong to the default project, whichever project uses them
        let everywhere = Rest {
            project: "default".to_owned(),
            ..rest.clone()
        };
        let seen = everywhere
            .get(&format!("networks/{bridge}"))
            .await
            .map_err(ConnectError::Engine)?;
        let network = seen["config"]["ipv4.address"]
            .as_str()
            .and_then(Network::parse)
            .ok_or(ConnectError::NoNetwork { bridge })?;
        let pool = format!("storage-pools/{}/resources", settings.name);
        let pool = everywhere.get(&pool).await.map_err(ConnectError::Engine)?;
        let changes = broadcast::Sender::new(CHANGES);
        let incus = Arc::new(Incus {
            wires: Wires::new(&settings.name, settings.relay.clone()),
            views: Arc::new(Views::new(
                shares_of(&settings),
                disks(&settings),
                &settings.name,
            )),
            settings,
            rest,
            network,
            space: pool["space"]["total"].as_u64(),
            making: Mutex::default(),
            changes,
        });
        tokio::spawn(listen(Arc::downgrade(&incus)));
        tokio::spawn(quota::keep(Arc::downgrade(&incus)));
        Ok(incus)
    }

    /// The bridge's network.
    pub fn network(&self) -> Network {
        self.network
    }

    /// From off to on; called with what the engine says of it.
    async fn turn_on(&self, id: Id, instance: &Instance) -> Result<(), RuntimeError> {
        let owners = instance.owners();
        if owners.count == 0 {
            return Err(RuntimeError::Permanent {
                act: "start",
                reason: "the engine gave the machine no range of user ids".to_owned(),
            });
        }
        self.after_sync(id, instance).await?;
        if instance.devices.contains_key("ramdisk") {
            let ramdisk = self.ramdisk(id);
            keep_in_memory(&ramdisk, owners, ramdisk_bytes(instance.memory()))
                .map_err(|error| host("start", &ramdisk, &error))?;
        }
        if instance.devices.contains_key("run") {
            let directory = self.directory(id);
            share(&directory, owners).map_err(|error| host("start", &directory, &error))?;
        }
        self.have_view("start", id)?;
        if !instance.devices.contains_key("shares") {
            // It was made before there were any.
            let body = json!({ "devices": { "shares": shares_device(&self.settings, id) } });
            self.patch("start", id, body).await?;
        }
        if let Some(address) = instance.address() {
            let place = Place::of(address);
            if instance.place().as_ref() != Some(&place) {
                let mut port = instance.devices["eth0"].clone();
                port["host_name"] = place.interface.clone().into();
                let body = json!({ "devices": { "eth0": port } });
                self.patch("start", id, body).await?;
            }
            self.wires.admit(id, place).await?;
        }
        self.turn(
            "start",
            id,
            json!({ "action": "start", "timeout": START.as_secs() }),
            START,
        )
        .await
    }

    /// Where the engine has the volumes of machines.
    fn pool(&self) -> PathBuf {
        let engine = self.settings.socket.parent().unwrap_or(Path::new("/"));
        engine.join("storage-pools").join(&self.settings.name)
    }

    /// A machine's volume in the pool.
    fn volume(&self, id: Id) -> PathBuf {
        Path::new("containers").join(format!("{}_{PREFIX}{id}", self.settings.name))
    }

    fn freezer(&self, id: Id) -> Freezer {
        Freezer::of(&self.settings.name, &format!("{PREFIX}{id}"))
    }

    fn directory(&self, id: Id) -> PathBuf {
        self.settings.containers.join(id.to_string())
    }

    /// The machine's disk in memory: beside what is shared, whose names are ids.
    fn ramdisk(&self, id: Id) -> PathBuf {
        ramdisk_of(&self.settings, id)
    }

    async fn instance(&self, id: Id) -> Result<Option<Instance>, RestError> {
        match self.rest.get(&format!("instances/{PREFIX}{id}")).await {
            Ok(seen) => serde_json::from_value(seen)
                .map(Some)
                .map_err(|error| RestError::Broken(error.to_string())),
            Err(error) if error.is(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The instance of a machine that has to be there for an act.
    async fn existing(&self, act: &'static str, id: Id) -> Result<Instance, RuntimeError> {
        self.instance(id)
            .await
            .map_err(|error| failed(act, error))?
            .ok_or(RuntimeError::NoMachine(id))
    }

    async fn instances(&self) -> Result<Vec<Instance>, RestError> {
        let seen = self.rest.get("instances?recursion=1").await?;
        serde_json::from_value(seen).map_err(|error| RestError::Broken(error.to_string()))
    }

    fn look(&self, id: Id, instance: Option<&Instance>) -> Option<Observed> {
        let directory = self.directory(id);
        let Some(instance) = instance else {
            return directory.exists().then(|| remains(id, directory));
        };
        if !instance.is_made() {
            return Some(remains(id, directory));
        }
        let owners = instance.owners();
        let power = match instance.power() {
            // It was held still by a control that did not live to tell the engine.
            Power::On if self.freezer(id).is_frozen() => Power::Frozen,
            power => power,
        };
        Some(Observed {
            id,
            power,
            ready: power == Power::On && ready::answers(&directory, owners),
            directory,
            owners,
            incarnation: instance.incarnation(),
            address: instance.address(),
        })
    }

    /// Ask for a state and wait until it is reached.
    async fn turn(
        &self,
        act: &'static str,
        id: Id,
        body: Value,
        within: Duration,
    ) -> Result<(), RuntimeError> {
        let path = format!("instances/{PREFIX}{id}/state");
        match self.rest.work(Method::PUT, &path, body, within).await {
            Ok(_) => Ok(()),
            Err(error) if error.is(StatusCode::NOT_FOUND) => Err(RuntimeError::NoMachine(id)),
            Err(error) if already(&error) => Ok(()),
            Err(error) => Err(failed(act, error)),
        }
    }

    async fn make(&self, machine: &Machine) -> Result<(), RuntimeError> {
        let act = "create";
        let name = format!("{PREFIX}{}", machine.id);
        let image = machine.image.as_deref().unwrap_or(IMAGE);
        let directory = self.directory(machine.id);
        self.make_directories(act, machine)?;
        let making = self.making.lock().await;
        let address = self.choose_address(machine.id).await?;
        let body = json!({
            "name": name,
            "type": "container",
            "profiles": [],
            "source": { "type": "image", "alias": image },
            "config": configuration(machine, self.network, address),
            "devices": devices(machine, &self.settings, &directory, address),
        });
        let made = self
            .rest
            .work(Method::POST, "instances", body, CREATE)
            .await;
        drop(making);
        match made {
            Ok(_) => {}
            Err(error) if error.says("image not provided") || error.says("image not found") => {
                return Err(RuntimeError::NoImage(image.to_owned()));
            }
            Err(error) => return Err(failed(act, error)),
        }
        let (variables, keys) = (variable_files(machine), key_files(machine));
        let made = json!({ "config": {
            MADE: "true", VARIABLES: digest(&variables), KEYS: digest(&keys),
        } });
        self.put_files(act, &name, variables).await?;
        self.put_files(act, &name, keys).await?;
        self.patch(act, machine.id, made).await
    }

    /// What the machine's devices lead to has to be there before it is.
    fn make_directories(&self, act: &'static str, machine: &Machine) -> Result<(), RuntimeError> {
        let directory = self.directory(machine.id);
        std::fs::create_dir_all(&directory).map_err(|error| host(act, &directory, &error))?;
        self.have_view(act, machine.id)?;
        if machine.ramdisk {
            let ramdisk = self.ramdisk(machine.id);
            private(&ramdisk).map_err(|error| host(act, &ramdisk, &error))?;
        }
        Ok(())
    }

    /// The directory in which a machine sees what others share with it.
    fn have_view(&self, act: &'static str, id: Id) -> Result<(), RuntimeError> {
        let view = self.views.directory(id);
        self.views
            .admit(id)
            .map_err(|error| host(act, &view, &error))
    }

    /// Nobody sees a machine's disk any more; where it is `gone`, nor does it see theirs.
    async fn leave_views(&self, act: &'static str, id: Id, gone: bool) -> Result<(), RuntimeError> {
        let views = self.views.clone();
        let view = views.directory(id);
        tokio::task::spawn_blocking(move || views.forget(id, gone))
            .await
            .map_err(|error| host(act, &view, &error))?
            .map_err(|error| host(act, &view, &error))
    }

    /// The machines, as far as it matters to what they share.
    async fn seats(&self) -> Result<BTreeMap<Id, Seat>, RuntimeError> {
        let instances = self.instances().await;
        let instances = instances.map_err(|error| failed("share directories", error))?;
        Ok(instances
            .iter()
            .filter_map(|instance| Some((instance.id()?, instance.seat()?)))
            .collect())
    }

    /// Change a machine's settings.
    async fn patch(&self, act: &'static str, id: Id, body: Value) -> Result<(), RuntimeError> {
        let path = format!("instances/{PREFIX}{id}");
        match self.rest.work(Method::PATCH, &path, body, QUICK).await {
            Ok(_) => Ok(()),
            Err(error) if error.is(StatusCode::NOT_FOUND) => Err(RuntimeError::NoMachine(id)),
            Err(error) => Err(failed(act, error)),
        }
    }

    /// Give a machine these devices and no others.
    async fn put_devices(
        &self,
        act: &'static str,
        id: Id,
        devices: Map<String, Value>,
    ) -> Result<(), RuntimeError> {
        let path = format!("instances/{PREFIX}{id}");
        let seen = self.rest.get(&path).await;
        let mut whole = seen.map_err(|error| failed(act, error))?;
        whole["devices"] = devices.into();
        match self.rest.work(Method::PUT, &path, whole, QUICK).await {
            Ok(_) => Ok(()),
            Err(error) if error.is(StatusCode::NOT_FOUND) => Err(RuntimeError::NoMachine(id)),
            Err(error) => Err(failed(act, error)),
        }
    }

    /// An address that no machine has.
    async fn choose_address(&self, id: Id) -> Result<Ipv4Addr, RuntimeError> {
        let act = "create";
        let instances = self.instances().await.map_err(|error| failed(act, error))?;
        let taken = instances.iter().filter_map(Instance::address).collect();
        self.network
            .choose(id, &taken)
            .ok_or(RuntimeError::Permanent {
                act,
                reason: "every address of the bridge's network is taken".to_owned(),
            })
    }

    /// Write the node's files into a machine.
    async fn put_files(
        &self,
        act: &'static str,
        name: &str,
        files: Vec<File>,
    ) -> Result<(), RuntimeError> {
        for file in files {
            self.rest
                .put_file(name, file)
                .await
                .map_err(|error| failed(act, error))?;
        }
        Ok(())
    }
}

impl Network {
    /// From `10.1.2.1/20`.
    fn parse(text: &str) -> Option<Network> {
        let (gateway, bits) = text.split_once('/')?;
        let network = Network {
            gateway: gateway.parse().ok()?,
            bits: bits.parse().ok()?,
        };
        (8..=29).contains(&network.bits).then_some(network)
    }

    /// An address that nobody has: the one that the id leads to, or the next free after it.
    fn choose(self, id: Id, taken: &HashSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let size = 1u32 << (32 - u32::from(self.bits));
        let first = u32::from(self.gateway) & !(size - 1);
        let usable = size - 2; // neither the network's own nor the broadcast address
        let seed = id.0.iter().fold(0u32, |seed, byte| {
            seed.wrapping_mul(31).wrapping_add(u32::from(*byte))
        });
        (0..usable)
            .map(|step| Ipv4Addr::from(first + 1 + (seed % usable + step) % usable))
            .find(|address| *address != self.gateway && !taken.contains(address))
    }
}

fn configuration(machine: &Machine, network: Network, address: Ipv4Addr) -> Map<String, Value> {
    let mut config = settings_of(machine);
    let gateway = network.gateway;
    let fixed = [
        ("security.privileged", "false".to_owned()),
        ("security.idmap.isolated", "true".to_owned()),
        ("security.nesting", "true".to_owned()),
        // the engine's socket in the machine tells its settings and takes its word for readiness
        ("security.guestapi", "false".to_owned()),
        ("boot.autostart", "false".to_owned()),
        ("user.hostname", machine.hostname.clone()),
        (PROJECT, machine.project.to_string()),
        (
            "environment.HOODY_ADDRESS",
            format!("{address}/{}", network.bits),
        ),
        ("environment.HOODY_GATEWAY", gateway.to_string()),
        ("environment.HOODY_DNS", gateway.to_string()),
    ];
    config.extend(fixed.map(|(key, value)| (key.to_owned(), value.into())));
    config
}

/// System calls that a machine does without. The bound on its disk is one on its btrfs subvolume, and
/// a subvolume made within would have none: so none is made (ioctl_btrfs(2): `SNAP_CREATE`,
/// `SUBVOL_CREATE`, and the second version of both). The kernel looks at 32 bits of the number.
fn denied() -> String {
    ["0x50009401", "0x5000940e", "0x50009417", "0x50009418"]
        .map(|number| format!("ioctl errno 1 [1,{number},SCMP_CMP_MASKED_EQ,0xffffffff]"))
        .join("\n")
}

/// A bound on processor time: how many processors programs see and run on, and where that is not a
/// whole number, how much time of each period they get in all.
fn cpu(thousandths: Option<u32>) -> (Option<String>, Option<String>) {
    const PERIOD_MS: u32 = 100;
    let Some(cpu) = thousandths else {
        return (None, None);
    };
    let part = (cpu % 1000 != 0).then(|| {
        let ms = u64::from(cpu) * u64::from(PERIOD_MS) / 1000;
        format!("{}ms/{PERIOD_MS}ms", ms.max(1))
    });
    (Some(cpu.div_ceil(1000).to_string()), part)
}

/// What may change on an existing machine.
fn settings_of(machine: &Machine) -> Map<String, Value> {
    let limits = machine.limits;
    let mut config = Map::new();
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            config.insert(key.to_owned(), value.into());
        }
    };
    let (cpus, allowance) = cpu(limits.cpu);
    set("limits.cpu", cpus);
    set("limits.cpu.allowance", allowance);
    set(
        "limits.memory",
        limits.memory.map(|bytes| format!("{bytes}B")),
    );
    set(
        "limits.processes",
        limits.processes.map(|count| count.to_string()),
    );
    set("security.syscalls.deny", Some(denied()));
    config
}

fn root_disk(machine: &Machine, settings: &Settings) -> Value {
    let mut root = json!({ "type": "disk", "path": "/", "pool": settings.name });
    if let Some(bytes) = machine.limits.disk {
        root["size"] = format!("{bytes}B").into();
    }
    root
}

fn devices(machine: &Machine, settings: &Settings, directory: &Path, address: Ipv4Addr) -> Value {
    let mut devices = json!({
        "root": root_disk(machine, settings),
        "eth0": {
            "type": "nic",
            "name": "eth0",
            "network": format!("{}0", settings.name),
            "ipv4.address": address.to_string(),
            "hwaddr": mac(address),
            "host_name": filter::interface(address),
            "security.mac_filtering": "true",
            "security.ipv4_filtering": "true",
            "security.port_isolation": "true",
        },
    });
    if machine.kit {
        devices["kit"] = json!({
            "type": "disk", "source": settings.kit, "path": "/opt/hoody", "readonly": "true",
        });
        devices["run"] = json!({ "type": "disk", "source": directory, "path": "/hoody/run" });
    }
    devices["shares"] = shares_device(settings, machine.id);
    if machine.ramdisk {
        let source = ramdisk_of(settings, machine.id);
        devices["ramdisk"] = json!({ "type": "disk", "source": source, "path": "/ramdisk" });
    }
    if machine.kvm {
        devices["kvm"] = kvm_device();
    }
    devices
}

/// For every user of the machine: its root could let them anyway.
fn kvm_device() -> Value {
    json!({ "type": "unix-char", "source": KVM, "path": KVM, "mode": "0666" })
}

/// What is mounted there on the host, before and after its start, is mounted in the machine.
fn shares_device(settings: &Settings, id: Id) -> Value {
    json!({
        "type": "disk",
        "source": shares_of(settings).join(id.to_string()),
        "path": SHARES,
        "recursive": "true",
        "propagation": "rslave",
    })
}

/// The directories in which machines see what others share with them.
fn shares_of(settings: &Settings) -> PathBuf {
    settings.containers.with_file_name("shares")
}

/// Where the engine has its storage pool.
fn pool(settings: &Settings) -> PathBuf {
    let engine = settings.socket.parent().unwrap_or(Path::new("/"));
    engine.join("storage-pools").join(&settings.name)
}

/// Where the engine has the disks of machines.
fn disks(settings: &Settings) -> PathBuf {
    pool(settings).join("containers")
}

fn ramdisk_of(settings: &Settings, id: Id) -> PathBuf {
    settings
        .containers
        .with_file_name("ramdisks")
        .join(id.to_string())
}

/// How large a disk in memory is, of a machine with this bound on its memory.
fn ramdisk_bytes(memory: Option<u64>) -> u64 {
    memory.map_or(RAMDISK_BYTES, |bytes| bytes / 2)
}

/// The environment of a machine's programs.
fn variable_files(machine: &Machine) -> Vec<File> {
    vec![environment_file(machine), environment_script(machine)]
}

/// The key that may log in.
fn key_files(machine: &Machine) -> Vec<File> {
    const USER: u32 = 1000;
    let mut files = Vec::new();
    if let Some(key) = machine
        .ssh_public_key
        .as_deref()
        .map(str::trim)
        .filter(|key| !key.is_empty())
    {
        let line = format!("{key}\n").into_bytes();
        for (directory, keys, owner) in [
            ("/root/.ssh", "/root/.ssh/authorized_keys", 0),
            ("/home/user/.ssh", "/home/user/.ssh/authorized_keys", USER),
        ] {
            files.push(File {
                path: directory,
                bytes: None,
                mode: 0o700,
                owner,
            });
            files.push(File {
                path: keys,
                bytes: Some(line.clone()),
                mode: 0o600,
                owner,
            });
        }
    }
    files
}

/// Tells whether these are the files that were written before.
fn digest(files: &[File]) -> String {
    let mut digest = Sha256::new();
    for file in files {
        let File {
            path, mode, owner, ..
        } = file;
        digest.update(format!("{path}\0{mode}\0{owner}\0"));
        digest.update(file.bytes.as_deref().unwrap_or_default());
    }
    hex::encode(digest.finalize())
}

/// The variables that fit on a line each.
fn variables(machine: &Machine) -> impl Iterator<Item = (&str, &str)> {
    let fits = |text: &str| !text.contains(['\n', '\0']);
    machine
        .environment
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .filter(move |(key, value)| !key.contains('=') && fits(key) && fits(value))
}

/// pam_env(8) reads it for every session, and so do the terminals. Both take off the outer quotes
/// and know no escapes.
fn environment_file(machine: &Machine) -> File {
    let lines = variables(machine).map(|(key, value)| format!("{key}=\"{value}\"\n"));
    File {
        path: "/etc/environment",
        bytes: Some(lines.collect::<String>().into_bytes()),
        mode: 0o644,
        owner: 0,
    }
}

/// pam_env(8) cuts a value at `#`: login shells put back the rest, where nobody has set another.
fn environment_script(machine: &Machine) -> File {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let is_name = |key: &str| {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        key.bytes().all(word) && !key.starts_with(|first: char| first.is_ascii_digit())
    };
    let lines = variables(machine).filter_map(|(key, value)| {
        let (kept, _) = value.split_once('#').filter(|_| is_name(key))?;
        // The opening quote is then without its other, and stays.
        let forms = [
            kept.to_owned(),
            format!("\"{kept}"),
            kept.trim_end().to_owned(),
        ];
        let tests = forms.map(|form| format!("[ \"${{{key}-}}\" = {} ]", quoted(&form)));
        Some(format!(
            "if {}; then export {key}={}; fi\n",
            tests.join(" || "),
            quoted(value)
        ))
    });
    File {
        path: "/etc/profile.d/hoody-environment.sh",
        bytes: Some(lines.collect::<String>().into_bytes()),
        mode: 0o644,
        owner: 0,
    }
}

impl Instance {
    fn id(&self) -> Option<Id> {
        self.name.strip_prefix(PREFIX)?.parse().ok()
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.config.get(key)?.as_str()
    }

    fn is_made(&self) -> bool {
        self.text(MADE) == Some("true")
    }

    fn power(&self) -> Power {
        match self.status.as_str() {
            "Running" | "Ready" => Power::On,
            "Stopped" => Power::Off,
            "Frozen" => Power::Frozen,
            "Error" => Power::Broken,
            _ => Power::Changing,
        }
    }

    fn owners(&self) -> Owners {
        let base = ["volatile.idmap.base", "volatile.last_state.idmap"]
            .iter()
            .find_map(|key| self.text(key)?.parse().ok());
        // without a range nobody owns anything: no socket is taken for the machine's
        base.map_or(Owners { base: 0, count: 0 }, |base| Owners {
            base,
            count: IDS,
        })
    }

    /// None where it is not made, or nobody knows whose the ids on its disk are.
    fn seat(&self) -> Option<Seat> {
        let owners = self.owners();
        if !self.is_made() || owners.count == 0 {
            return None;
        }
        Some(Seat {
            owners,
            disk_base: disk_base(self.text("volatile.last_state.idmap").unwrap_or("[]"))?,
            sees: self.power() == Power::Off || self.devices.contains_key("shares"),
        })
    }

    /// When the engine last started it, in nanoseconds.
    fn incarnation(&self) -> u64 {
        let time = self
            .last_used_at
            .parse::<jiff::Timestamp>()
            .unwrap_or_default();
        u64::try_from(time.as_nanosecond()).unwrap_or_default()
    }

    /// The bound on its memory, as [`settings_of`] wrote it.
    fn memory(&self) -> Option<u64> {
        self.text("limits.memory")?.strip_suffix('B')?.parse().ok()
    }

    /// The bound on its disk in bytes, where it has one.
    fn disk_bound(&self) -> Option<u64> {
        let size = self.devices.get("root")?.get("size")?.as_str()?;
        size.strip_suffix('B')?.parse().ok()
    }

    /// Its end on the host, by the name that it has or will have.
    fn place(&self) -> Option<Place> {
        let address = self.address()?;
        let named = self.devices.get("eth0")?.get("host_name");
        let interface = named
            .and_then(Value::as_str)
            .or_else(|| self.text("volatile.eth0.host_name"));
        Some(match interface {
            Some(interface) => Place {
                interface: interface.to_owned(),
                address,
            },
            None => Place::of(address),
        })
    }

    fn address(&self) -> Option<Ipv4Addr> {
        self.devices
            .get("eth0")?
            .get("ipv4.address")?
            .as_str()?
            .parse()
            .ok()
    }
}

/// What user 0 of a machine is on its disk: 0 itself where the engine maps ids as it mounts it,
/// otherwise as it has written them there.
fn disk_base(written: &str) -> Option<u32> {
    #[derive(Deserialize)]
    struct Range {
        #[serde(rename = "Isuid")]
        users: bool,
        #[serde(rename = "Nsid")]
        first: u32,
        #[serde(rename = "Hostid")]
        host: u32,
    }
    let ranges: Vec<Range> = serde_json::from_str(written).ok()?;
    if ranges.is_empty() {
        return Some(0);
    }
    let users = ranges.iter().find(|range| range.users && range.first == 0);
    users.map(|range| range.host)
}

fn remains(id: Id, directory: PathBuf) -> Observed {
    Observed {
        id,
        power: Power::Remains,
        directory,
        owners: Owners { base: 0, count: 0 },
        ready: false,
        incarnation: 0,
        address: None,
    }
}

/// The engine refuses what is so already.
fn already(error: &RestError) -> bool {
    [
        "already running",
        "already stopped",
        "already frozen",
        "not frozen",
        "isn't frozen",
        "not running",
    ]
    .iter()
    .any(|words| error.says(words))
}

fn failed(act: &'static str, error: RestError) -> RuntimeError {
    let passing = match &error {
        RestError::Connect { .. } | RestError::Broken(_) | RestError::Slow(_) => true,
        RestError::Refused { code, .. } => {
            matches!(*code, 409 | 412 | 503)
                || error.says("busy")
                || error.says("database is locked")
                // a limit below what is used at the moment
                || error.says("setting cgroup item")
        }
    };
    let reason = match &error {
        RestError::Connect { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    };
    if passing {
        RuntimeError::Transient { act, reason }
    } else {
        RuntimeError::Permanent { act, reason }
    }
}

/// Whether what went wrong is that a machine's own disk is full.
fn is_full(reason: &str) -> bool {
    reason.to_ascii_lowercase().contains("quota exceeded")
}

fn host(act: &'static str, path: &Path, error: &dyn std::fmt::Display) -> RuntimeError {
    RuntimeError::Transient {
        act,
        reason: format!("{}: {error}", path.display()),
    }
}

/// Make what a machine shares with the host: an empty tmpfs that belongs to its root. Called
/// while the machine is off, so nobody is in it.
fn share(directory: &Path, owners: Owners) -> Result<(), Errno> {
    match rustix::fs::mkdir(directory, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    // What its last start left there is no more: it may have been full, or in the socket's place.
    if is_mounted(directory)? {
        rustix::mount::unmount(directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    let options = format!("size={SHARED_BYTES},nr_inodes={SHARED_INODES},mode=700");
    let options = std::ffi::CString::new(options).expect("no zero byte in it");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("tmpfs", directory, "tmpfs", flags, options.as_c_str())?;
    let opened = open(directory)?;
    let root = (Uid::from_raw(owners.base), Gid::from_raw(owners.base));
    rustix::fs::fchown(&opened, Some(root.0), Some(root.1))
}

/// A directory, and the one above it, that no other user of the host looks into.
fn private(directory: &Path) -> Result<(), Errno> {
    let above = directory.parent().unwrap_or(Path::new("/"));
    for directory in [above, directory] {
        match rustix::fs::mkdir(directory, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Have a tmpfs there that belongs to the machine's root; one that is there stays with all that is
/// on it. Called while the machine is off.
fn keep_in_memory(directory: &Path, owners: Owners, bytes: u64) -> Result<(), Errno> {
    private(directory)?;
    if is_mounted(directory)? {
        return match resize_in_memory(directory, bytes) {
            // More is on it than would fit.
            Err(Errno::INVAL) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        };
    }
    let options = format!("{},mode=1777", size_in_memory(bytes));
    let options = std::ffi::CString::new(options).expect("no zero byte in it");
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", directory, "tmpfs", flags, options.as_c_str())?;
    let opened = open(directory)?;
    let root = (Uid::from_raw(owners.base), Gid::from_raw(owners.base));
    rustix::fs::fchown(&opened, Some(root.0), Some(root.1))
}

fn size_in_memory(bytes: u64) -> String {
    format!("size={bytes},nr_inodes={}", bytes / RAMDISK_FILE)
}

fn resize_in_memory(directory: &Path, bytes: u64) -> Result<(), Errno> {
    match is_mounted(directory) {
        Ok(true) => {}
        Ok(false) | Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    }
    let options = size_in_memory(bytes);
    rustix::mount::mount_remount(
        directory,
        MountFlags::NOSUID | MountFlags::NODEV,
        options.as_str(),
    )
}

fn open(directory: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    rustix::fs::open(directory, flags, Mode::empty())
}

/// Whether a file system of its own is mounted there.
fn is_mounted(directory: &Path) -> Result<bool, Errno> {
    let here = rustix::fs::stat(directory)?;
    let above = rustix::fs::stat(directory.parent().unwrap_or(Path::new("/")))?;
    Ok(here.st_dev != above.st_dev)
}

/// Take away what a machine shared with the host.
fn unshare(directory: &Path) -> Result<(), Errno> {
    match is_mounted(directory) {
        Ok(true) => {
            rustix::mount::unmount(directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        }
        Ok(false) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    }
    match rustix::fs::rmdir(directory) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Tell of machines that change, for as long as the runtime is used.
async fn listen(incus: std::sync::Weak<Incus>) {
    let mut wait = RECONNECT_LEAST;
    loop {
        let Some(rest) = incus.upgrade().map(|incus| incus.rest.clone()) else {
            return;
        };
        match rest.events().await {
            Ok(mut socket) => {
                wait = RECONNECT_LEAST;
                while let Some(Ok(message)) = socket.next().await {
                    let Some(incus) = incus.upgrade() else { return };
                    if let Some(id) = message.to_text().ok().and_then(changed) {
                        incus.changes.send(id).ok(); // nobody may be listening
                    }
                }
                tracing::warn!("the engine's events ended; listening again");
            }
            Err(error) => tracing::warn!(%error, "the engine's events cannot be had; trying again"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RECONNECT_MOST);
    }
}

/// The machine that an event is about.
fn changed(event: &str) -> Option<Id> {
    let event: Value = serde_json::from_str(event).ok()?;
    let source = event["metadata"]["source"].as_str()?;
    let name = source.strip_prefix("/1.0/instances/")?;
    let name = name.split(['/', '?']).next()?;
    name.strip_prefix(PREFIX)?.parse().ok()
}

#[async_trait]
impl Runtime for Incus {
    fn has_kvm(&self) -> bool {
        Path::new(KVM).exists()
    }

    fn has_ramdisks(&self) -> bool {
        true
    }

    fn space(&self) -> Option<u64> {
        self.space
    }

    fn name(&self) -> &'static str {
        "incus"
    }

    async fn observe(&self) -> Result<Vec<Observed>, RuntimeError> {
        let instances = self
            .instances()
            .await
            .map_err(|error| failed("look at the machines", error))?;
        let mut seen = HashSet::new();
        let mut all = Vec::with_capacity(instances.len());
        for instance in &instances {
            if let Some(id) = instance.id() {
                seen.insert(id);
                all.extend(self.look(id, Some(instance)));
            }
        }
        let left = std::fs::read_dir(&self.settings.containers)
            .map_err(|error| host("look at the machines", &self.settings.containers, &error))?;
        for id in left
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        {
            if !seen.contains(&id) {
                all.extend(self.look(id, None));
            }
        }
        Ok(all)
    }

    async fn observe_one(&self, id: Id) -> Result<Option<Observed>, RuntimeError> {
        let instance = self
            .instance(id)
            .await
            .map_err(|error| failed("look at the machine", error))?;
        Ok(self.look(id, instance.as_ref()))
    }

    async fn create(&self, machine: &Machine) -> Result<(), RuntimeError> {
        match self
            .instance(machine.id)
            .await
            .map_err(|error| failed("create", error))?
        {
            Some(instance) if instance.is_made() => Ok(()),
            Some(_) => {
                // begun by a control that did not live to end it: begin again
                self.delete(machine.id).await?;
                self.make(machine).await
            }
            None => self.make(machine).await,
        }
    }

    async fn start(&self, id: Id) -> Result<(), RuntimeError> {
        let instance = self.existing("start", id).await?;
        if instance.power() == Power::On {
            return Ok(());
        }
        let full = match (self.turn_on(id, &instance).await, instance.disk_bound()) {
            (Err(RuntimeError::Permanent { reason, .. }), Some(bound)) if is_full(&reason) => bound,
            (done, _) => return done,
        };
        let room = |reason| RuntimeError::Permanent {
            act: "start",
            reason: format!("the disk is full, and there is no room to start in: {reason}"),
        };
        let made = Room::make(&self.pool(), &self.volume(id), full).await;
        let made = made.map_err(room)?;
        let done = self.turn_on(id, &instance).await;
        if let Err(error) = made.end().await {
            tracing::error!(container = %id, error, "the bound on a disk is too far away");
        }
        done
    }

    async fn stop(&self, id: Id, grace: Duration) -> Result<(), RuntimeError> {
        let body = json!({ "action": "stop", "timeout": grace.as_secs().max(1) });
        match self.turn("stop", id, body, grace + QUICK).await {
            // it did not shut down in time: whoever asked decides what next
            Err(RuntimeError::Permanent { reason, .. })
                if reason.contains("deadline") || reason.contains("timed out") =>
            {
                Err(RuntimeError::Transient {
                    act: "stop",
                    reason,
                })
            }
            other => other,
        }
    }

    async fn kill(&self, id: Id) -> Result<(), RuntimeError> {
        self.freezer(id).thaw(); // what is held still does not end
        self.turn(
            "kill",
            id,
            json!({ "action": "stop", "force": true, "timeout": QUICK.as_secs() }),
            QUICK,
        )
        .await
    }

    async fn freeze(&self, id: Id) -> Result<(), RuntimeError> {
        self.freezer(id).freeze().await;
        self.turn(
            "freeze",
            id,
            json!({ "action": "freeze", "timeout": QUICK.as_secs() }),
            QUICK,
        )
        .await
    }

    async fn thaw(&self, id: Id) -> Result<(), RuntimeError> {
        self.freezer(id).thaw();
        self.turn(
            "thaw",
            id,
            json!({ "action": "unfreeze", "timeout": QUICK.as_secs() }),
            QUICK,
        )
        .await
    }

    async fn delete(&self, id: Id) -> Result<(), RuntimeError> {
        let act = "delete";
        if let Some(instance) = self
            .instance(id)
            .await
            .map_err(|error| failed(act, error))?
        {
            self.forget_sync(id, instance.text(disk::SYNCED_FROM))
                .await?;
            if instance.power() == Power::Frozen {
                self.thaw(id).await?;
            }
            if instance.power() != Power::Off {
                self.kill(id).await?;
            }
            // A disk that is seen elsewhere takes its place until it is not.
            self.leave_views(act, id, false).await?;
            let path = format!("instances/{PREFIX}{id}");
            match self
                .rest
                .work(Method::DELETE, &path, Value::Null, QUICK)
                .await
            {
                Ok(_) => {}
                Err(error) if error.is(StatusCode::NOT_FOUND) => {}
                Err(error) => return Err(failed(act, error)),
            }
        }
        self.wires.forget(id).await?;
        self.leave_views(act, id, true).await?;
        let ramdisk = self.ramdisk(id);
        unshare(&ramdisk).map_err(|error| host(act, &ramdisk, &error))?;
        // The last: as long as it is there, something of the machine is.
        let directory = self.directory(id);
        unshare(&directory).map_err(|error| host(act, &directory, &error))
    }

    fn keeps_ready(&self) -> bool {
        true
    }

    async fn edition(&self, image: &str) -> Result<String, RuntimeError> {
        self.edition_of(image).await
    }

    async fn settle(&self, id: Id) -> Result<(), RuntimeError> {
        self.settle_booted(id).await
    }

    async fn is_nobodys(&self, id: Id) -> Result<bool, RuntimeError> {
        let instance = self.instance(id).await;
        let instance = instance.map_err(|error| failed("look at the machine", error))?;
        let nobody = Id([0; 12]).to_string();
        Ok(instance.is_none_or(|one| one.text(PROJECT).is_none_or(|of| *of == nobody)))
    }

    async fn claim(&self, machine: &Machine, seen: &Observed) -> Result<Observed, RuntimeError> {
        self.claim_ready(machine, seen).await
    }

    async fn adopt(&self, machine: &Machine, unchanged: bool) -> Result<(), RuntimeError> {
        self.adopt_claimed(machine, unchanged).await
    }

    fn keeps_policies(&self) -> bool {
        true
    }

    async fn enforce(&self, policies: BTreeMap<Id, Policy>) -> Result<(), RuntimeError> {
        let places = async {
            let instances = self
                .instances()
                .await
                .map_err(|error| failed("set up the network", error))?;
            let place = |instance: &Instance| Some((instance.id()?, instance.place()?));
            Ok(instances.iter().filter_map(place).collect())
        };
        self.wires.enforce(policies, places).await
    }

    fn shares_directories(&self) -> bool {
        true
    }

    async fn directory(&self, id: Id, path: &str) -> Result<(), NoDirectory> {
        let (views, path) = (self.views.clone(), path.to_owned());
        tokio::task::spawn_blocking(move || views.look(id, &path))
            .await
            .unwrap_or_else(|error| Err(NoDirectory::Host(error.to_string())))
    }

    async fn share(&self, shares: Shares) -> Result<Vec<Unshared>, RuntimeError> {
        let act = "share directories";
        // Without any, there is nothing to ask the engine.
        let seats = match shares.is_empty() {
            true => BTreeMap::new(),
            false => self.seats().await?,
        };
        let views = self.views.clone();
        let root = shares_of(&self.settings);
        tokio::task::spawn_blocking(move || views.settle(&shares, &seats))
            .await
            .map_err(|error| host(act, &root, &error))?
            .map_err(|error| host(act, &root, &error))
    }

    async fn update(&self, machine: &Machine) -> Result<(), RuntimeError> {
        let act = "update";
        let name = format!("{PREFIX}{}", machine.id);
        let instance = self.existing(act, machine.id).await?;
        let mut config = settings_of(machine);
        if instance.config.contains_key("limits.cpu") {
            // The engine leaves a machine where it was if there is no number any more.
            let all = std::thread::available_parallelism().map_or(1, usize::from);
            let all = || all.to_string().into();
            config.entry("limits.cpu").or_insert_with(all);
        }
        for key in ["limits.cpu.allowance", "limits.memory", "limits.processes"] {
            config.entry(key).or_insert_with(|| "".into()); // an empty value removes the key
        }
        config.insert("user.hostname".to_owned(), machine.hostname.clone().into());
        let ramdisk = self.ramdisk(machine.id);
        if instance.devices.contains_key("ramdisk")
            && let Err(error) = resize_in_memory(&ramdisk, ramdisk_bytes(machine.limits.memory))
        {
            // More is on it than fits: it shrinks when the host starts it anew.
            tracing::warn!(container.id = %machine.id, %error, "could not change the size of the disk in memory");
        }
        let root = root_disk(machine, &self.settings);
        if instance.devices.contains_key("kvm") && !machine.kvm {
            // A change of some devices leaves the others: one is taken away by naming those that stay.
            let mut devices = instance.devices.clone();
            devices.remove("kvm");
            self.put_devices(act, machine.id, devices).await?;
        }
        let mut devices = json!({ "root": root });
        if machine.kvm {
            devices["kvm"] = kvm_device();
        }
        let body = json!({ "config": config, "devices": devices });
        self.patch(act, machine.id, body).await?;
        for (key, files) in [
            (VARIABLES, variable_files(machine)),
            (KEYS, key_files(machine)),
        ] {
            let digest = digest(&files);
            if instance.text(key) == Some(digest.as_str()) {
                continue;
            }
            self.put_files(act, &name, files).await?;
            let written = json!({ "config": { key: digest } });
            self.patch(act, machine.id, written).await?;
        }
        Ok(())
    }

    async fn snapshot(&self, id: Id, name: &str) -> Result<Option<u64>, RuntimeError> {
        self.take_snapshot(id, name).await
    }

    async fn restore(&self, id: Id, name: &str) -> Result<(), RuntimeError> {
        self.bring_back(id, name).await
    }

    async fn drop_snapshot(&self, id: Id, name: &str) -> Result<(), RuntimeError> {
        self.remove_snapshot("drop", id, name).await
    }

    async fn copy(&self, machine: &Machine, source: &Source) -> Result<(), RuntimeError> {
        match self
            .instance(machine.id)
            .await
            .map_err(|error| failed("copy", error))?
        {
            Some(instance) if instance.is_made() => Ok(()),
            Some(_) => {
                // begun by a control that did not live to end it: begin again
                self.delete(machine.id).await?;
                self.make_copy(machine, source).await
            }
            None => self.make_copy(machine, source).await,
        }
    }

    async fn sync(&self, machine: &Machine, source: Id) -> Result<(), RuntimeError> {
        self.bring_over(machine, source).await
    }

    async fn exec(&self, id: Id, argv: &[&str]) -> Result<Ran, RuntimeError> {
        let act = "exec";
        let body = json!({
            "command": argv, "record-output": true, "wait-for-websocket": false, "interactive": false,
        });
        let path = format!("instances/{PREFIX}{id}/exec");
        let ran = match self.rest.work(Method::POST, &path, body, EXEC).await {
            Ok(ran) => ran,
            Err(error) if error.is(StatusCode::NOT_FOUND) => {
                return Err(RuntimeError::NoMachine(id));
            }
            Err(error) => return Err(failed(act, error)),
        };
        let mut outputs = Vec::with_capacity(2);
        for stream in ["1", "2"] {
            let path = ran["output"][stream]
                .as_str()
                .unwrap_or_default()
                .trim_start_matches("/1.0/");
            if path.is_empty() {
                outputs.push(Vec::new());
                continue;
            }
            outputs.push(
                self.rest
                    .bytes(path)
                    .await
                    .map_err(|error| failed(act, error))?
                    .to_vec(),
            );
            if let Err(error) = self
                .rest
                .work(Method::DELETE, path, Value::Null, QUICK)
                .await
            {
                tracing::debug!(%error, "the output of a program stays with the engine");
            }
        }
        let stderr = outputs.pop().unwrap_or_default();
        let stdout = outputs.pop().unwrap_or_default();
        let code = ran["return"]
            .as_i64()
            .and_then(|code| i32::try_from(code).ok())
            .unwrap_or(-1);
        Ok(Ran {
            code,
            stdout,
            stderr,
        })
    }

    async fn usage(&self, id: Id) -> Result<Usage, RuntimeError> {
        let state = match self
            .rest
            .get(&format!("instances/{PREFIX}{id}/state"))
            .await
        {
            Ok(state) => state,
            Err(error) if error.is(StatusCode::NOT_FOUND) => {
                return Err(RuntimeError::NoMachine(id));
            }
            Err(error) => return Err(failed("look at the usage", error)),
        };
        let number = |pointer: &str| state.pointer(pointer).and_then(Value::as_u64);
        Ok(Usage {
            cpu_time: Duration::from_nanos(number("/cpu/usage").unwrap_or_default()),
            memory: number("/memory/usage").unwrap_or_default(),
            memory_held: memory::held(&self.settings.name, &format!("{PREFIX}{id}")),
            memory_limit: number("/memory/total").filter(|total| *total > 0),
            // without a bound the engine counts nothing, and says zero or less
            disk: number("/disk/root/usage").filter(|used| *used > 0),
            disk_limit: number("/disk/root/total").filter(|total| *total > 0),
            processes: number("/processes").unwrap_or_default(),
            received: number("/network/eth0/counters/bytes_received").unwrap_or_default(),
            sent: number("/network/eth0/counters/bytes_sent").unwrap_or_default(),
        })
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        #[derive(Deserialize)]
        struct Listed {
            #[serde(default)]
            aliases: Vec<Alias>,
            #[serde(default)]
            size: u64,
            #[serde(default)]
            created_at: String,
            #[serde(default)]
            properties: Map<String, Value>,
        }
        #[derive(Deserialize)]
        struct Alias {
            name: String,
        }
        let seen = self
            .rest
            .get("images?recursion=1")
            .await
            .map_err(|error| failed("list the images", error))?;
        let listed: Vec<Listed> = serde_json::from_value(seen)
            .map_err(|error| failed("list the images", RestError::Broken(error.to_string())))?;
        Ok(listed
            .into_iter()
            .filter_map(|image| {
                let name = image.aliases.into_iter().next()?.name;
                Some(Image {
                    default: name == IMAGE,
                    description: image
                        .properties
                        .get("description")
                        .and_then(Value::as_str)
                        .unwrap_or(&name)
                        .to_owned(),
                    name,
                    size: image.size,
                    created: image
                        .created_at
                        .parse::<jiff::Timestamp>()
                        .map_or(0, jiff::Timestamp::as_second),
                })
            })
            .collect())
    }

    fn changes(&self) -> broadcast::Receiver<Id> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests;
