//! Machines that are entries of a map, for tests: the kit runs in this process, and any step can
//! be made to fail or to hang at any of its points.
//!
//! The world outlives the control plane that uses it, as an engine does: a test drops the one,
//! opens another on the same database, and looks at what became of the world.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use routes::Id;
use routes::table::{KIT_SOCKET, Owners};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;

use super::{
    Image, Machine, NoDirectory, Observed, Policy, Power, Ran, Runtime, RuntimeError, Share,
    Shares, Source, Unshared, Usage,
};

/// Serves the kit of a container on [`KIT_SOCKET`] in the directory until it is aborted.
pub type Serve = Arc<dyn Fn(Id, PathBuf) -> AbortHandle + Send + Sync>;

/// Changes that wait for a slow listener.
const CHANGES: usize = 256;

/// What a runtime can be asked to do to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Act {
    Create,
    Start,
    Stop,
    Kill,
    Freeze,
    Thaw,
    Update,
    Copy,
    Snapshot,
    Drop,
    Restore,
    Sync,
    Delete,
    Settle,
    Claim,
    Adopt,
    /// Of all machines at once.
    Share,
}

/// Where in an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Moment {
    Before,
    /// Half of it is done: of creation, copying and deletion, only the directory is there; of a
    /// snapshot its name, of a sync some of the files, of sharing the first of what changes.
    Midway,
    After,
}

/// What goes wrong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Transient,
    Permanent,
    /// There is no room, which is permanent as well.
    DiskFull,
    /// It never returns: the moment to take control away.
    Hang,
}

impl Act {
    pub const ALL: [Act; 17] = [
        Act::Create,
        Act::Start,
        Act::Stop,
        Act::Kill,
        Act::Freeze,
        Act::Thaw,
        Act::Update,
        Act::Copy,
        Act::Snapshot,
        Act::Drop,
        Act::Restore,
        Act::Sync,
        Act::Delete,
        Act::Settle,
        Act::Claim,
        Act::Adopt,
        Act::Share,
    ];

    fn name(self) -> &'static str {
        match self {
            Act::Create => "create",
            Act::Start => "start",
            Act::Stop => "stop",
            Act::Kill => "kill",
            Act::Freeze => "freeze",
            Act::Thaw => "thaw",
            Act::Update => "update",
            Act::Copy => "copy",
            Act::Snapshot => "snapshot",
            Act::Drop => "drop",
            Act::Restore => "restore",
            Act::Sync => "sync",
            Act::Delete => "delete",
            Act::Settle => "settle",
            Act::Claim => "claim",
            Act::Adopt => "adopt",
            Act::Share => "share",
        }
    }
}

impl Moment {
    pub const ALL: [Moment; 3] = [Moment::Before, Moment::Midway, Moment::After];
}

/// A handle of the world; cheap to clone.
#[derive(Clone)]
pub struct Fake {
    world: Arc<World>,
}

struct World {
    root: PathBuf,
    serve: Serve,
    machines: Mutex<BTreeMap<Id, Entry>>,
    faults: Mutex<Vec<Fault>>,
    /// Everything that was asked of a machine, in order.
    asked: Mutex<Vec<(Act, Id)>>,
    policies: Mutex<BTreeMap<Id, Policy>>,
    /// What machines see of others.
    shared: Mutex<Shares>,
    /// Directories that cannot be shared.
    barred: Mutex<BTreeMap<(Id, String), NoDirectory>>,
    hung: watch::Sender<u32>,
    identities: AtomicU64,
    /// What each machine holds, in bytes.
    memory: AtomicU64,
    disk: AtomicU64,
    edition: Mutex<String>,
    changes: broadcast::Sender<Id>,
}

struct Entry {
    power: Power,
    machine: Option<Machine>,
    incarnation: u64,
    kit: Option<AbortHandle>,
    disk: Disk,
    snapshots: BTreeMap<String, Kept>,
}

/// What is on the disk of a machine: texts under names.
type Files = BTreeMap<String, String>;

#[derive(Default)]
struct Disk {
    files: Files,
    /// Tells machines apart; no two have the same.
    identity: u64,
}

#[derive(Default)]
struct Kept {
    files: Files,
    /// False of one that was only begun.
    whole: bool,
}

impl Entry {
    fn new(power: Power) -> Entry {
        Entry {
            power,
            machine: None,
            incarnation: 0,
            kit: None,
            disk: Disk::default(),
            snapshots: BTreeMap::new(),
        }
    }
}

struct Fault {
    act: Act,
    moment: Moment,
    trouble: Trouble,
    times: u32,
}

impl Fake {
    /// A world whose machines keep their directories below `root`.
    pub fn new(root: impl Into<PathBuf>, serve: Serve) -> Fake {
        Fake {
            world: Arc::new(World {
                root: root.into(),
                serve,
                machines: Mutex::default(),
                faults: Mutex::default(),
                asked: Mutex::default(),
                policies: Mutex::default(),
                shared: Mutex::default(),
                barred: Mutex::default(),
                hung: watch::Sender::new(0),
                identities: AtomicU64::new(1),
                memory: AtomicU64::new(0),
                disk: AtomicU64::new(0),
                edition: Mutex::default(),
                changes: broadcast::Sender::new(CHANGES),
            }),
        }
    }

    /// A world whose kits accept connections and say nothing.
    pub fn silent(root: impl Into<PathBuf>) -> Fake {
        Fake::new(
            root,
            Arc::new(|_, directory| {
                tokio::spawn(async move {
                    match tokio::net::UnixListener::bind(directory.join(KIT_SOCKET)) {
                        Ok(listener) => while listener.accept().await.is_ok() {},
                        Err(error) => tracing::error!(%error, "the silent kit could not listen"),
                    }
                })
                .abort_handle()
            }),
        )
    }

    fn machines(&self) -> MutexGuard<'_, BTreeMap<Id, Entry>> {
        self.world
            .machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self, id: Id) -> PathBuf {
        self.world.root.join(id.to_string())
    }

    /// Make the next `times` such acts go wrong.
    pub fn trouble(&self, act: Act, moment: Moment, trouble: Trouble, times: u32) {
        let fault = Fault {
            act,
            moment,
            trouble,
            times,
        };
        self.world
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(fault);
    }

    /// From now on everything goes well.
    pub fn heal(&self) {
        self.world
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Wait until an act hangs, `n` since the beginning.
    pub async fn hung(&self, n: u32) {
        self.world
            .hung
            .subscribe()
            .wait_for(|hung| *hung >= n)
            .await
            .ok();
    }

    /// Everything that was asked so far.
    pub fn asked(&self) -> Vec<(Act, Id)> {
        self.world
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Change a machine behind everybody's back: it dies, or a stranger removes it.
    pub fn happen(&self, id: Id, power: Option<Power>) {
        {
            let mut machines = self.machines();
            match (power, machines.get_mut(&id)) {
                (None, _) => {
                    if let Some(entry) = machines.remove(&id) {
                        unserve(&entry, &self.directory(id));
                    }
                    std::fs::remove_dir_all(self.directory(id)).ok();
                }
                (Some(power), Some(entry)) => {
                    if power != Power::On {
                        unserve(entry, &self.directory(id));
                        entry.kit = None;
                    }
                    entry.power = power;
                }
                (Some(power), None) => {
                    machines.insert(id, Entry::new(power));
                }
            }
        }
        self.world.changes.send(id).ok();
    }

    /// What the runtime was last told a machine may reach.
    pub fn policy(&self, id: Id) -> Option<Policy> {
        let policies = self.world.policies.lock();
        policies
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    /// What a machine sees of others, by name.
    pub fn shared(&self, id: Id) -> BTreeMap<String, Share> {
        let shared = self.world.shared.lock();
        shared
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
            .unwrap_or_default()
    }

    /// What all machines see of others.
    pub fn all_shared(&self) -> Shares {
        let shared = self.world.shared.lock();
        shared.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Take away what machines see of others, as a boot of the host does.
    pub fn forget_shared(&self) {
        let shared = self.world.shared.lock();
        shared.unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// From now on a directory of a machine cannot be shared, or can where there is no reason.
    pub fn bar(&self, id: Id, path: &str, why: Option<NoDirectory>) {
        let mut barred = self
            .world
            .barred
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => barred.insert((id, path.to_owned()), why),
            None => barred.remove(&(id, path.to_owned())),
        };
    }

    /// Why a directory cannot be shared.
    fn barred(&self, id: Id, path: &str) -> Option<NoDirectory> {
        if !self.machines().contains_key(&id) {
            return Some(NoDirectory::NotMade(id));
        }
        let barred = self.world.barred.lock();
        let barred = barred.unwrap_or_else(PoisonError::into_inner);
        barred.get(&(id, path.to_owned())).cloned()
    }

    /// Change what machines see, between two moments.
    fn see<T>(&self, change: impl FnOnce(&mut Shares) -> T) -> T {
        let shared = self.world.shared.lock();
        change(&mut shared.unwrap_or_else(PoisonError::into_inner))
    }

    /// What the runtime was last told a machine is.
    pub fn machine(&self, id: Id) -> Option<Machine> {
        self.machines()
            .get(&id)
            .and_then(|entry| entry.machine.clone())
    }

    /// Write a file on the disk of a machine, as a program in it would.
    pub fn write(&self, id: Id, name: &str, text: &str) {
        if let Some(entry) = self.machines().get_mut(&id) {
            entry.disk.files.insert(name.to_owned(), text.to_owned());
        }
    }

    /// A file on the disk of a machine.
    pub fn read(&self, id: Id, name: &str) -> Option<String> {
        self.machines().get(&id)?.disk.files.get(name).cloned()
    }

    /// What tells a machine from all others.
    pub fn identity(&self, id: Id) -> Option<u64> {
        Some(self.machines().get(&id)?.disk.identity)
    }

    /// The names of a machine's snapshots, half-taken ones included.
    pub fn snapshots(&self, id: Id) -> Vec<String> {
        self.machines()
            .get(&id)
            .map(|entry| entry.snapshots.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// What every machine holds from now on, in bytes.
    pub fn hold(&self, memory: u64) {
        self.world.memory.store(memory, Ordering::Relaxed);
    }

    /// From now on every machine has filled so much of its disk.
    pub fn fill(&self, disk: u64) {
        self.world.disk.store(disk, Ordering::Relaxed);
    }

    /// From now on machines are made of something else.
    pub fn publish(&self, edition: &str) {
        let kept = self.world.edition.lock();
        edition.clone_into(&mut kept.unwrap_or_else(PoisonError::into_inner));
    }

    /// Give a machine that has none an identity.
    fn identify(&self, entry: &mut Entry) {
        if entry.disk.identity == 0 {
            entry.disk.identity = self.world.identities.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn note(&self, act: Act, id: Id) {
        self.world
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((act, id));
    }

    /// What a copy of this is made from.
    fn source(&self, source: &Source) -> Result<Files, RuntimeError> {
        let machines = self.machines();
        let entry = machines
            .get(&source.id)
            .ok_or(RuntimeError::NoMachine(source.id))?;
        match &source.snapshot {
            None => Ok(entry.disk.files.clone()),
            Some(name) => whole(entry, source.id, name),
        }
    }

    /// Change a machine that has to be there, between two moments of an act.
    fn with(
        &self,
        id: Id,
        change: impl FnOnce(&mut Entry) -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        let mut machines = self.machines();
        change(machines.get_mut(&id).ok_or(RuntimeError::NoMachine(id))?)
    }

    /// Ids of everything there is, directories without a machine included.
    pub fn everything(&self) -> Vec<Id> {
        let mut ids: Vec<Id> = self.machines().keys().copied().collect();
        for file in std::fs::read_dir(&self.world.root)
            .into_iter()
            .flatten()
            .flatten()
        {
            ids.extend(
                file.file_name()
                    .to_str()
                    .and_then(|name| name.parse::<Id>().ok()),
            );
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    async fn moment(&self, act: Act, moment: Moment) -> Result<(), RuntimeError> {
        let trouble = {
            let mut faults = self
                .world
                .faults
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let fault = faults
                .iter_mut()
                .find(|fault| fault.act == act && fault.moment == moment && fault.times > 0);
            fault.map(|fault| {
                fault.times -= 1;
                fault.trouble
            })
        };
        let reason = || format!("the test wants it to, {moment:?}");
        match trouble {
            None => Ok(()),
            Some(Trouble::Transient) => Err(RuntimeError::Transient {
                act: act.name(),
                reason: reason(),
            }),
            Some(Trouble::Permanent) => Err(RuntimeError::Permanent {
                act: act.name(),
                reason: reason(),
            }),
            Some(Trouble::DiskFull) => Err(RuntimeError::Permanent {
                act: act.name(),
                reason: "write: no space left on device".to_owned(),
            }),
            Some(Trouble::Hang) => {
                self.world.hung.send_modify(|hung| *hung += 1);
                std::future::pending().await
            }
        }
    }

    /// An act that changes one machine: `change` gets it, and the directory it shares.
    async fn change(
        &self,
        act: Act,
        id: Id,
        change: impl FnOnce(&mut Entry, &Path) -> Result<(), RuntimeError> + Send,
    ) -> Result<(), RuntimeError> {
        self.world
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((act, id));
        self.moment(act, Moment::Before).await?;
        self.moment(act, Moment::Midway).await?;
        {
            let mut machines = self.machines();
            let entry = machines.get_mut(&id).ok_or(RuntimeError::NoMachine(id))?;
            change(entry, &self.directory(id))?;
        }
        self.moment(act, Moment::After).await
    }

    fn look(&self, id: Id, entry: Option<&Entry>) -> Option<Observed> {
        let directory = self.directory(id);
        let power = match entry {
            Some(entry) => entry.power,
            None if directory.exists() => Power::Remains,
            None => return None,
        };
        let incarnation = entry.map_or(0, |entry| entry.incarnation);
        let owners = Owners {
            base: rustix::process::geteuid().as_raw(),
            count: 1,
        };
        let ready = directory.join(KIT_SOCKET).exists();
        Some(Observed {
            id,
            power,
            directory,
            owners,
            ready,
            incarnation,
            address: None,
        })
    }
}

/// What a snapshot holds that was taken to its end.
fn whole(entry: &Entry, id: Id, name: &str) -> Result<Files, RuntimeError> {
    match entry.snapshots.get(name) {
        Some(kept) if kept.whole => Ok(kept.files.clone()),
        _ => Err(RuntimeError::NoSnapshot {
            id,
            name: name.to_owned(),
        }),
    }
}

/// A disk in use is neither replaced nor brought to another's state.
fn off(act: Act, entry: &Entry) -> Result<(), RuntimeError> {
    if entry.power == Power::Off {
        return Ok(());
    }
    Err(RuntimeError::Permanent {
        act: act.name(),
        reason: "its disk is in use".to_owned(),
    })
}

fn unserve(entry: &Entry, directory: &Path) {
    if let Some(kit) = &entry.kit {
        kit.abort();
    }
    std::fs::remove_file(directory.join(KIT_SOCKET)).ok();
}

fn failed(act: &'static str) -> impl Fn(std::io::Error) -> RuntimeError {
    move |error| RuntimeError::Permanent {
        act,
        reason: error.to_string(),
    }
}

#[async_trait]
impl Runtime for Fake {
    fn has_ramdisks(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "fake"
    }

    async fn observe(&self) -> Result<Vec<Observed>, RuntimeError> {
        let ids = self.everything();
        let machines = self.machines();
        Ok(ids
            .into_iter()
            .filter_map(|id| self.look(id, machines.get(&id)))
            .collect())
    }

    async fn observe_one(&self, id: Id) -> Result<Option<Observed>, RuntimeError> {
        Ok(self.look(id, self.machines().get(&id)))
    }

    async fn create(&self, machine: &Machine) -> Result<(), RuntimeError> {
        let id = machine.id;
        self.world
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((Act::Create, id));
        if machine
            .image
            .as_deref()
            .is_some_and(|name| name != "debian-13")
        {
            return Err(RuntimeError::NoImage(
                machine.image.clone().unwrap_or_default(),
            ));
        }
        self.moment(Act::Create, Moment::Before).await?;
        std::fs::create_dir_all(self.directory(id)).map_err(failed("create"))?;
        self.moment(Act::Create, Moment::Midway).await?;
        {
            let mut machines = self.machines();
            let entry = machines.entry(id).or_insert_with(|| Entry::new(Power::Off));
            entry.machine = Some(machine.clone());
            self.identify(entry);
        }
        self.moment(Act::Create, Moment::After).await
    }

    async fn start(&self, id: Id) -> Result<(), RuntimeError> {
        let serve = self.world.serve.clone();
        self.change(Act::Start, id, move |entry, directory| {
            if entry.power == Power::On {
                return Ok(());
            }
            unserve(entry, directory);
            entry.power = Power::On;
            entry.incarnation += 1;
            let kit = entry.machine.as_ref().is_none_or(|machine| machine.kit);
            entry.kit = kit.then(|| serve(id, directory.to_owned()));
            Ok(())
        })
        .await
    }

    async fn stop(&self, id: Id, _grace: Duration) -> Result<(), RuntimeError> {
        self.change(Act::Stop, id, |entry, directory| {
            unserve(entry, directory);
            entry.power = Power::Off;
            Ok(())
        })
        .await
    }

    async fn kill(&self, id: Id) -> Result<(), RuntimeError> {
        self.change(Act::Kill, id, |entry, directory| {
            unserve(entry, directory);
            entry.power = Power::Off;
            Ok(())
        })
        .await
    }

    async fn freeze(&self, id: Id) -> Result<(), RuntimeError> {
        self.change(Act::Freeze, id, |entry, _| {
            entry.power = Power::Frozen;
            Ok(())
        })
        .await
    }

    async fn thaw(&self, id: Id) -> Result<(), RuntimeError> {
        self.change(Act::Thaw, id, |entry, _| {
            entry.power = Power::On;
            Ok(())
        })
        .await
    }

    async fn delete(&self, id: Id) -> Result<(), RuntimeError> {
        self.world
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((Act::Delete, id));
        self.moment(Act::Delete, Moment::Before).await?;
        if let Some(entry) = self.machines().remove(&id) {
            unserve(&entry, &self.directory(id));
        }
        self.see(|shared| {
            shared.remove(&id);
            for seen in shared.values_mut() {
                seen.retain(|_, share| share.source != id);
            }
        });
        self.moment(Act::Delete, Moment::Midway).await?;
        match std::fs::remove_dir_all(self.directory(id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("delete")(error));
            }
            _ => {}
        }
        self.moment(Act::Delete, Moment::After).await
    }

    async fn update(&self, machine: &Machine) -> Result<(), RuntimeError> {
        let machine = machine.clone();
        self.change(Act::Update, machine.id, move |entry, _| {
            entry.machine = Some(machine);
            Ok(())
        })
        .await
    }

    async fn snapshot(&self, id: Id, name: &str) -> Result<Option<u64>, RuntimeError> {
        self.note(Act::Snapshot, id);
        self.moment(Act::Snapshot, Moment::Before).await?;
        self.with(id, |entry| {
            entry.snapshots.entry(name.to_owned()).or_default();
            Ok(())
        })?;
        self.moment(Act::Snapshot, Moment::Midway).await?;
        let mut size = 0;
        self.with(id, |entry| {
            let files = entry.disk.files.clone();
            size = files
                .iter()
                .map(|(name, text)| name.len() + text.len())
                .sum();
            let kept = entry.snapshots.entry(name.to_owned()).or_default();
            if !kept.whole {
                *kept = Kept { files, whole: true };
            }
            Ok(())
        })?;
        self.moment(Act::Snapshot, Moment::After).await?;
        Ok(u64::try_from(size).ok())
    }

    async fn restore(&self, id: Id, name: &str) -> Result<(), RuntimeError> {
        self.change(Act::Restore, id, |entry, _| {
            off(Act::Restore, entry)?;
            entry.disk.files = whole(entry, id, name)?;
            Ok(())
        })
        .await
    }

    async fn drop_snapshot(&self, id: Id, name: &str) -> Result<(), RuntimeError> {
        self.change(Act::Drop, id, |entry, _| {
            entry.snapshots.remove(name);
            Ok(())
        })
        .await
    }

    async fn copy(&self, machine: &Machine, source: &Source) -> Result<(), RuntimeError> {
        let id = machine.id;
        self.note(Act::Copy, id);
        self.moment(Act::Copy, Moment::Before).await?;
        let files = self.source(source)?;
        std::fs::create_dir_all(self.directory(id)).map_err(failed("copy"))?;
        self.moment(Act::Copy, Moment::Midway).await?;
        {
            let mut machines = self.machines();
            let entry = machines.entry(id).or_insert_with(|| {
                let mut entry = Entry::new(Power::Off);
                entry.disk.files = files;
                entry
            });
            entry.machine = Some(machine.clone());
            self.identify(entry);
        }
        self.moment(Act::Copy, Moment::After).await
    }

    async fn sync(&self, machine: &Machine, source: Id) -> Result<(), RuntimeError> {
        self.note(Act::Sync, machine.id);
        self.moment(Act::Sync, Moment::Before).await?;
        let files = self.source(&Source {
            id: source,
            snapshot: None,
        })?;
        self.with(machine.id, |entry| {
            off(Act::Sync, entry)?;
            entry.disk.files.extend(files.clone());
            Ok(())
        })?;
        self.moment(Act::Sync, Moment::Midway).await?;
        self.with(machine.id, |entry| {
            entry.disk.files = files;
            Ok(())
        })?;
        self.moment(Act::Sync, Moment::After).await
    }

    fn keeps_ready(&self) -> bool {
        true
    }

    async fn edition(&self, image: &str) -> Result<String, RuntimeError> {
        if image != "debian-13" {
            return Err(RuntimeError::NoImage(image.to_owned()));
        }
        let edition = self.world.edition.lock();
        Ok(edition.unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn settle(&self, id: Id) -> Result<(), RuntimeError> {
        self.change(Act::Settle, id, |_, _| Ok(())).await
    }

    async fn is_nobodys(&self, id: Id) -> Result<bool, RuntimeError> {
        let machine = self.machine(id);
        Ok(machine.is_none_or(|machine| machine.project == Id([0; 12])))
    }

    async fn claim(&self, machine: &Machine, seen: &Observed) -> Result<Observed, RuntimeError> {
        let told = machine.clone();
        self.change(Act::Claim, machine.id, move |entry, _| {
            if !matches!(entry.power, Power::On | Power::Frozen) {
                return Err(RuntimeError::Permanent {
                    act: Act::Claim.name(),
                    reason: "it is off".to_owned(),
                });
            }
            entry.machine = Some(told);
            entry.power = Power::On;
            Ok(())
        })
        .await?;
        Ok(Observed {
            power: Power::On,
            ready: true,
            ..seen.clone()
        })
    }

    async fn adopt(&self, machine: &Machine, unchanged: bool) -> Result<(), RuntimeError> {
        let told = machine.clone();
        self.change(Act::Adopt, machine.id, move |entry, _| {
            if unchanged {
                entry.machine = Some(told);
            }
            Ok(())
        })
        .await
    }

    fn keeps_policies(&self) -> bool {
        true
    }

    async fn enforce(&self, policies: BTreeMap<Id, Policy>) -> Result<(), RuntimeError> {
        let mut kept = self
            .world
            .policies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *kept = policies;
        Ok(())
    }

    fn shares_directories(&self) -> bool {
        true
    }

    async fn directory(&self, id: Id, path: &str) -> Result<(), NoDirectory> {
        self.barred(id, path).map_or(Ok(()), Err)
    }

    async fn share(&self, shares: Shares) -> Result<Vec<Unshared>, RuntimeError> {
        self.moment(Act::Share, Moment::Before).await?;
        let mut wanted = Shares::new();
        let mut unshared = Vec::new();
        for (target, seen) in shares {
            for (name, share) in seen {
                match self.barred(share.source, &share.path) {
                    None => {
                        let seen = wanted.entry(target).or_default();
                        seen.insert(name, share);
                    }
                    Some(why) => unshared.push(Unshared {
                        share: share.id,
                        target,
                        why,
                    }),
                }
            }
        }
        // What is not wanted goes first; of the rest, one comes before anything can be in the way.
        self.see(|shared| {
            shared.retain(|target, seen| {
                seen.retain(|name, share| {
                    wanted.get(target).and_then(|wanted| wanted.get(name)) == Some(share)
                });
                !seen.is_empty()
            });
            let first = wanted.iter().find_map(|(target, seen)| {
                let has = shared.get(target);
                let mut new = seen
                    .iter()
                    .filter(|(name, _)| !has.is_some_and(|has| has.contains_key(*name)));
                new.next().map(|new| (*target, new))
            });
            if let Some((target, (name, share))) = first {
                let seen = shared.entry(target).or_default();
                seen.insert(name.clone(), share.clone());
            }
        });
        self.moment(Act::Share, Moment::Midway).await?;
        self.see(|shared| *shared = wanted);
        self.moment(Act::Share, Moment::After).await?;
        Ok(unshared)
    }

    async fn exec(&self, _id: Id, _argv: &[&str]) -> Result<Ran, RuntimeError> {
        Err(RuntimeError::Unsupported(
            "run programs in a machine of tests",
        ))
    }

    async fn usage(&self, id: Id) -> Result<Usage, RuntimeError> {
        if self.machines().contains_key(&id) {
            Ok(Usage {
                memory: self.world.memory.load(Ordering::Relaxed),
                memory_held: Some(self.world.memory.load(Ordering::Relaxed)),
                disk: Some(self.world.disk.load(Ordering::Relaxed)),
                ..Usage::default()
            })
        } else {
            Err(RuntimeError::NoMachine(id))
        }
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(vec![Image {
            name: "debian-13".to_owned(),
            description: "Debian 13 (trixie)".to_owned(),
            size: 200 << 20,
            created: 1_790_000_000,
            default: true,
        }])
    }

    fn changes(&self) -> broadcast::Receiver<Id> {
        self.world.changes.subscribe()
    }
}
