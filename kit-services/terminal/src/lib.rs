//! The terminal service: shells on pseudo-terminals that outlive their clients, and commands
//! whose output and exit code are never lost.
//!
//! Read in this order: [`session`] (what a session is), [`keeper`] (the task that owns one),
//! [`shell`], [`marks`] and [`running`] (how a shell is asked to run a command), [`oneshot`]
//! (commands without a session), [`ssh`] and [`socks5`] (on other machines), [`command`] (what came of a command), [`execute`] (from a
//! request to one of these). [`screen`], [`scrollback`] and [`keys`] are what automation stands
//! on, [`picture`] draws the screen and [`album`] keeps what was drawn, [`drops`] takes files that
//! were dropped onto a terminal, [`system`] is the machine's own state. [`ops`] and [`socket`] are the adapters to HTTP and
//! WebSocket; nothing else knows either.
//!
//! Nothing is started or allocated before the first call. A session ends when its shell ends,
//! when it is deleted, or when it stood idle for very long with nobody looking; it does not
//! survive the kit. This crate knows nothing of containers, of the proxy or of other services.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use kit::{Api, Fault};
use tokio::sync::{Semaphore, SemaphorePermit};

use accounts::{Account, AccountError};
use command::Commands;
use drops::Drops;
use execute::Opened;
use id::TerminalId;
use oneshot::OneShots;
use session::{Close, End, Phase, Session, Spec};

mod album;
mod command;
mod drops;
mod execute;
mod id;
mod keeper;
mod keys;
mod launch;
mod marks;
mod oneshot;
mod ops;
mod picture;
mod pty;
mod running;
mod screen;
mod scrollback;
mod session;
mod shell;
mod socket;
pub mod socks5;
mod ssh;
mod system;
mod workdir;

#[cfg(test)]
mod tests;

/// Sessions at once.
const MAX_SESSIONS: usize = 256;
/// Terminals that were lost on other machines and are remembered; the oldest are forgotten.
const MAX_LOST: usize = 256;
/// Pictures drawn at once; each may take 48 MiB for a moment, and a processor.
const MAX_PICTURES: usize = 2;

/// How the service is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The shell of new sessions; the user's own where none is given.
    pub default_shell: Option<PathBuf>,
    /// Whom sessions run as where the caller names nobody, this user exists, and the kit may.
    pub default_user: String,
    /// Home of everybody, where the kit is one process among others of a machine that is not its
    /// own; each account's own where none is given.
    pub home: Option<PathBuf>,
    /// Where the files of sessions go. It belongs to this service alone and is emptied at the
    /// first call.
    pub state: PathBuf,
    /// Variables of every program, beside those of a login.
    pub environment: BTreeMap<String, String>,
    /// How long a session may stand idle: nobody looks, its shell waits, nothing runs in it.
    pub idle: Duration,
    /// The same for sessions that were asked for as ephemeral.
    pub ephemeral_idle: Duration,
    /// Where files that were dropped onto a terminal go; this service's alone.
    pub drops: PathBuf,
    /// Where pictures of screens are kept; this service's alone.
    pub pictures: PathBuf,
    /// Where X servers have their sockets; none where the machine's are not this kit's to tell of.
    pub displays: Option<PathBuf>,
    /// Where systemd was told what to supervise; none as above.
    pub units: Option<PathBuf>,
    /// The command that connects ssh through a SOCKS5 proxy, given `--socks5 FILE --to HOST:PORT`:
    /// see [`socks5`]. Without one there are no sessions through proxies.
    pub connector: Option<PathBuf>,
    /// systemd-run(1), by which the machine is restarted and shut down; none as above.
    pub power: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Config {
            default_shell: None,
            default_user: "user".to_owned(),
            home: None,
            state: PathBuf::from("/run/hoody-terminal"),
            environment: BTreeMap::new(),
            idle: DAY,
            ephemeral_idle: Duration::from_secs(300),
            drops: PathBuf::from("/var/lib/hoody/drops"),
            pictures: PathBuf::from("/var/lib/hoody/screenshots"),
            displays: Some(PathBuf::from("/tmp/.X11-unix")),
            units: Some(PathBuf::from("/etc/systemd/system")),
            connector: None,
            power: Some(PathBuf::from("/usr/bin/systemd-run")),
        }
    }
}

/// The service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Terminal(Arc<Service>);

#[derive(Debug)]
struct Service {
    config: Config,
    /// Made at the first call.
    work: OnceLock<Work>,
}

#[derive(Debug)]
struct Work {
    sessions: Mutex<HashMap<TerminalId, Arc<Session>>>,
    /// Terminals whose sessions on other machines were lost, and which machines those were.
    lost: Mutex<VecDeque<(TerminalId, String)>>,
    commands: Arc<Commands>,
    one_shots: Arc<OneShots>,
    next_ephemeral: Mutex<u16>,
    drops: Arc<Drops>,
    pictures: Semaphore,
    /// What pages told of themselves.
    reports: AtomicU64,
}

impl Terminal {
    pub fn new(config: Config) -> Terminal {
        Terminal(Arc::new(Service {
            config,
            work: OnceLock::new(),
        }))
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The account that `wanted` names, or that programs run as where nobody is named.
    fn account(&self, wanted: Option<&str>) -> Result<Account, AccountError> {
        let config = self.config();
        let mut account = Account::choose(wanted, &config.default_user)?;
        if let Some(home) = &config.home {
            account.home.clone_from(home);
        }
        Ok(account)
    }

    fn work(&self) -> &Work {
        self.0.work.get_or_init(|| {
            running::forget_old(&self.config().state);
            Work {
                sessions: Mutex::default(),
                lost: Mutex::default(),
                commands: Arc::default(),
                one_shots: Arc::default(),
                next_ephemeral: Mutex::default(),
                drops: Arc::new(Drops::new(self.config().drops.clone())),
                pictures: Semaphore::new(MAX_PICTURES),
                reports: AtomicU64::new(0),
            }
        })
    }

    fn map(&self) -> MutexGuard<'_, HashMap<TerminalId, Arc<Session>>> {
        self.work()
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn commands(&self) -> &Arc<Commands> {
        &self.work().commands
    }

    pub fn one_shots(&self) -> Arc<OneShots> {
        self.work().one_shots.clone()
    }

    fn drops(&self) -> Arc<Drops> {
        self.work().drops.clone()
    }

    /// Leave to draw a picture, for as long as it is held.
    async fn picture_turn(&self) -> SemaphorePermit<'_> {
        let turn = self.work().pictures.acquire().await;
        turn.expect("it is never closed")
    }

    fn reports(&self) -> &AtomicU64 {
        &self.work().reports
    }

    /// Whether something would be lost with this process: a session, or a command at work.
    pub fn is_busy(&self) -> bool {
        self.0
            .work
            .get()
            .is_some_and(|work| work.one_shots.are_at_work())
            || !self.sessions().is_empty()
    }

    /// The sessions at work, by number.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        if self.0.work.get().is_none() {
            return Vec::new();
        }
        let mut sessions: Vec<_> = self
            .map()
            .values()
            .filter(|session| !session.is_over())
            .cloned()
            .collect();
        sessions.sort_by_key(|session| session.id);
        sessions
    }

    /// The session of this terminal.
    pub fn session(&self, id: TerminalId) -> Option<Arc<Session>> {
        self.map()
            .get(&id)
            .filter(|session| !session.is_over())
            .cloned()
    }

    /// The session of this terminal, which must be there.
    pub fn existing(&self, id: TerminalId) -> Result<Arc<Session>, Fault> {
        self.session(id).ok_or_else(|| {
            Fault::not_found(format!(
                "no session in terminal {id}; make one with POST /api/v1/terminal/create, or list them with GET /api/v1/terminal/sessions"
            ))
            .code("SESSION_NOT_FOUND")
        })
    }

    /// Forget the sessions that are over.
    fn sweep(&self, sessions: &mut HashMap<TerminalId, Arc<Session>>) {
        sessions.retain(|id, session| {
            let is_over = session.is_over();
            if let (true, Some(target)) = (is_over, &session.target)
                && !matches!(session.view().phase, Phase::Ended(End::Closed(_)))
            {
                let mut lost = self.lost();
                lost.retain(|(known, _)| known != id);
                if lost.len() >= MAX_LOST {
                    lost.pop_front();
                }
                lost.push_back((*id, target.clone()));
            }
            !is_over
        });
    }

    fn lost(&self) -> MutexGuard<'_, VecDeque<(TerminalId, String)>> {
        self.work()
            .lost
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Let a terminal be on this machine again.
    pub fn come_home(&self, id: TerminalId) {
        self.sweep(&mut self.map());
        self.lost().retain(|(known, _)| *known != id);
    }

    /// Refuse to take this machine for another: what was to run there must not run here because
    /// the connection was lost.
    fn not_lost(&self, id: TerminalId) -> Result<(), Fault> {
        self.sweep(&mut self.map());
        let lost = self.lost();
        let Some((_, target)) = lost.iter().find(|(known, _)| *known == id) else {
            return Ok(());
        };
        Err(Fault::conflict(format!(
            "the session of terminal {id} was on {target} and is over; make one with POST /api/v1/terminal/create, there or here"
        ))
        .code("SSH_SESSION_OVER"))
    }

    /// Start a session, unless somebody else just did.
    fn start(&self, spec: Spec) -> Result<(Arc<Session>, Opened), Fault> {
        let mut sessions = self.map();
        self.sweep(&mut sessions);
        if let Some(session) = sessions.get(&spec.id) {
            return Ok((session.clone(), Opened::Found));
        }
        if sessions.len() >= MAX_SESSIONS {
            return Err(Fault::unavailable(format!(
                "{MAX_SESSIONS} sessions are at work, which is the limit; delete some of them"
            ))
            .code("TOO_MANY_SESSIONS"));
        }
        let (id, service) = (spec.id, Arc::downgrade(&self.0));
        let on_end = move || {
            if let Some(service) = service.upgrade() {
                let terminal = Terminal(service);
                terminal.sweep(&mut terminal.map());
            }
        };
        let session = Session::start(spec, on_end).map_err(|error| {
            let cause = std::error::Error::source(&error)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            tracing::warn!(terminal.id = %id, "could not start terminal {id}: {error}{cause}");
            Fault::internal(format!("could not start terminal {id}: {error}{cause}"))
        })?;
        let session = Arc::new(session);
        sessions.insert(id, session.clone());
        Ok((session, Opened::New))
    }

    /// End the session of a terminal and wait until it is over. Whether there was one.
    pub async fn close(&self, id: TerminalId, why: Close) -> bool {
        let Some(session) = self.session(id) else {
            return false;
        };
        session.close(why).await;
        self.map()
            .retain(|known, other| *known != id || !Arc::ptr_eq(other, &session));
        true
    }

    /// A number for a terminal that nobody named.
    pub fn next_ephemeral(&self) -> TerminalId {
        let sessions = self.map();
        let mut next = self
            .work()
            .next_ephemeral
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            *next = next.wrapping_add(1).max(id::FIRST_EPHEMERAL);
            let id = TerminalId::new(*next).expect("it is at least the first of them");
            if !sessions.contains_key(&id) {
                return id;
            }
        }
    }
}

/// The operations of the service.
pub fn api(terminal: &Terminal) -> Api {
    ops::api(terminal)
}
