//! Machines that are entries of a map, for tests: the kit runs in this process, and any step can
//! be made to fail or to hang at any of its points.
//!
//! The world outlives the control plane that uses it, as an engine does: a test drops the one,
//! opens another on the same database, and looks at what became of the world.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use routes::Id;
use routes::table::{KIT_SOCKET, Owners};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;

use super::{Image, Machine, Observed, Power, Ran, Runtime, RuntimeError, Usage};

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
    Delete,
}

/// Where in an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Moment {
    Before,
    /// Half of it is done: of creation and deletion, only the directory is there.
    Midway,
    After,
}

/// What goes wrong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Transient,
    Permanent,
    /// It never returns: the moment to take control away.
    Hang,
}

impl Act {
    pub const ALL: [Act; 8] = [
        Act::Create,
        Act::Start,
        Act::Stop,
        Act::Kill,
        Act::Freeze,
        Act::Thaw,
        Act::Update,
        Act::Delete,
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
            Act::Delete => "delete",
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
    /// Everything that was asked, in order.
    asked: Mutex<Vec<(Act, Id)>>,
    hung: watch::Sender<u32>,
    changes: broadcast::Sender<Id>,
}

struct Entry {
    power: Power,
    machine: Option<Machine>,
    incarnation: u64,
    kit: Option<AbortHandle>,
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
                hung: watch::Sender::new(0),
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
                    machines.insert(
                        id,
                        Entry {
                            power,
                            machine: None,
                            incarnation: 0,
                            kit: None,
                        },
                    );
                }
            }
        }
        self.world.changes.send(id).ok();
    }

    /// What the runtime was last told a machine is.
    pub fn machine(&self, id: Id) -> Option<Machine> {
        self.machines()
            .get(&id)
            .and_then(|entry| entry.machine.clone())
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
            let entry = machines.entry(id).or_insert(Entry {
                power: Power::Off,
                machine: None,
                incarnation: 0,
                kit: None,
            });
            entry.machine = Some(machine.clone());
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

    async fn exec(&self, _id: Id, _argv: &[&str]) -> Result<Ran, RuntimeError> {
        Err(RuntimeError::Unsupported(
            "run programs in a machine of tests",
        ))
    }

    async fn usage(&self, id: Id) -> Result<Usage, RuntimeError> {
        if self.machines().contains_key(&id) {
            Ok(Usage::default())
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
