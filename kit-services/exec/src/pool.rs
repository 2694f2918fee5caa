//! Which script has a process, and when it gets another one.
//!
//! A process is started by the first request and kept. It is left for a new one when the script, or
//! a file that it was made from, changes; what it is at, it ends. One that nobody asked anything for
//! a while is ended. One that has loaded nothing yet is kept ready, so that a new script does not
//! wait for the runtime.

use std::collections::{HashMap, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use kit::Fault;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};

use crate::directives::Directives;
use crate::line::Lines;
use crate::place::{Deployment, RelPath};
use crate::process::{Process, Said, StartError};
use crate::root::Facts;
use crate::{Exec, packages};

/// Processes at once: each has about 45 MiB of memory before it does anything.
pub const PROCESSES: usize = 32;
/// Processes that are being started at once.
const STARTING: usize = 4;
/// How long a script may take to be loaded, what it imports included.
const LOAD: Duration = Duration::from_secs(20);
/// After how long a process that is asked nothing is ended, and how often that is looked for.
const IDLE: Duration = Duration::from_secs(5 * 60);
const LOOK: Duration = Duration::from_secs(20);
/// What a process that was left for a new one gets to end what it is at.
const DRAIN: Duration = Duration::from_secs(30);
/// Requests that took too long and may still be at work in a process; then it gets no more.
const ABANDONED: usize = 16;
/// Processes of one script that may end by themselves in so much time.
const CRASHES: usize = 5;
const CRASH_TIME: Duration = Duration::from_secs(10);
/// A file that is this new may be half written: where it cannot be read, it is looked at again.
const FRESH: Duration = Duration::from_millis(300);
const AGAIN: Duration = Duration::from_millis(50);
const TRIES: usize = 8;
/// Messages of a process that wait.
const SAID: usize = 1024;
/// Scripts whose directives are kept.
const HEADERS: usize = 4096;
/// Answers that the kit owes one process.
const ASKED: usize = 64;

/// Which version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let facts = std::fs::metadata(path).ok()?;
        Some(Stamp {
            inode: facts.ino(),
            size: facts.size(),
            modified: (facts.mtime(), facts.mtime_nsec()),
        })
    }
}

/// A process that has loaded nothing yet.
#[derive(Debug)]
struct Spare {
    process: Arc<Process>,
    said: mpsc::Receiver<Said>,
    /// The file of its variables, and which version it was started with.
    variables: Option<(PathBuf, Option<Stamp>)>,
}

/// A script in its process.
#[derive(Debug)]
pub struct Script {
    pub path: RelPath,
    pub deployment: Deployment,
    pub process: Arc<Process>,
    pub lines: Lines,
    pub log: LogLevel,
    /// Files that it was made from, and which version of each; `None` for one that is not there.
    watched: Vec<(PathBuf, Option<Stamp>)>,
    abandoned: AtomicUsize,
    last: Mutex<Instant>,
    left: AtomicBool,
}

/// What of a script's words is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Nothing,
    Errors,
    Standard,
    All,
}

impl LogLevel {
    pub fn of(directives: &Directives) -> LogLevel {
        match directives.log_level() {
            "none" => LogLevel::Nothing,
            "minimal" => LogLevel::Errors,
            "standard" => LogLevel::Standard,
            _ => LogLevel::All,
        }
    }
    fn keeps(self, level: &str) -> bool {
        match self {
            LogLevel::Nothing => false,
            LogLevel::Errors => level == "error",
            LogLevel::Standard => level != "debug",
            LogLevel::All => true,
        }
    }
}

impl Script {
    fn is_current(&self) -> bool {
        !self.process.is_over()
            && self.abandoned.load(Ordering::Relaxed) < ABANDONED
            && self
                .watched
                .iter()
                .all(|(path, stamp)| Stamp::of(path) == *stamp)
    }

    /// A request begins.
    pub fn enter(self: &Arc<Script>) -> Entered {
        self.process.in_flight.fetch_add(1, Ordering::SeqCst);
        Entered(self.clone())
    }

    pub fn busy(&self) -> usize {
        self.process.in_flight.load(Ordering::SeqCst)
    }

    /// A request took too long, and may be at work still.
    pub fn abandon(&self) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(self.process.clone().end_if_deaf());
    }

    fn idle_since(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that a process has; given back when it is dropped.
#[derive(Debug)]
pub struct Entered(Arc<Script>);

impl Drop for Entered {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.process.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a script says of itself, as of a version of its file.
#[derive(Clone, Debug)]
struct Header {
    facts: Facts,
    directives: Arc<Directives>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Held while a process is started: others wait for it.
    script: tokio::sync::Mutex<Option<Arc<Script>>>,
    crashes: Mutex<VecDeque<Instant>>,
    /// Requests at once.
    pub running: AtomicUsize,
    current: Mutex<Weak<Script>>,
}

/// The processes of all scripts.
#[derive(Debug)]
pub struct Pool {
    slots: Mutex<HashMap<RelPath, Arc<Slot>>>,
    headers: Mutex<HashMap<RelPath, Header>>,
    spare: Mutex<Option<Spare>>,
    making_spare: AtomicBool,
    starting: Semaphore,
    looked_after: AtomicBool,
    /// Processes that were left, and end what they are at.
    leaving: AtomicUsize,
    pub starts: AtomicU64,
}

impl Default for Pool {
    fn default() -> Self {
        Pool {
            slots: Mutex::default(),
            headers: Mutex::default(),
            spare: Mutex::default(),
            making_spare: AtomicBool::new(false),
            starting: Semaphore::new(STARTING),
            looked_after: AtomicBool::new(false),
            leaving: AtomicUsize::new(0),
            starts: AtomicU64::new(0),
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place among the requests of one script.
#[derive(Debug)]
pub struct Turn(Arc<Slot>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pool {
    fn slot(&self, path: &RelPath) -> Arc<Slot> {
        held(&self.slots).entry(path.clone()).or_default().clone()
    }

    /// The scripts that have a process.
    pub fn scripts(&self) -> Vec<Arc<Script>> {
        held(&self.slots)
            .values()
            .filter_map(|slot| held(&slot.current).upgrade())
            .filter(|script| !script.process.is_over())
            .collect()
    }

    /// How many requests a script has.
    pub fn running(&self, path: &RelPath) -> usize {
        held(&self.slots)
            .get(path)
            .map_or(0, |slot| slot.running.load(Ordering::SeqCst))
    }

    /// A place among the requests of a script, where there is one.
    pub fn turn(&self, path: &RelPath, most: usize) -> Option<Turn> {
        let slot = self.slot(path);
        let taken = slot
            .running
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
                (now < most).then_some(now + 1)
            });
        // not `then_some`: a turn that was not given would be given back
        taken.is_ok().then(|| Turn(slot))
    }

    /// Leave the processes that fit; what they are at, they end. How many there were.
    pub fn leave(&self, fits: impl Fn(&Script) -> bool) -> usize {
        let mut left = 0;
        for script in self.scripts() {
            if fits(&script) && !script.left.swap(true, Ordering::SeqCst) {
                left += 1;
            }
        }
        left
    }

    /// The process that is kept ready was started before something that it would have to know.
    pub fn forget_spare(&self) {
        held(&self.spare).take();
    }

    /// End all processes at once.
    pub fn end_all(&self, why: &str) {
        held(&self.spare).take();
        for script in self.scripts() {
            script.left.store(true, Ordering::SeqCst);
            script.process.end(why);
        }
    }
}

impl Exec {
    /// What a script says of itself, read anew where its file is another one.
    pub fn directives(&self, path: &RelPath, facts: &Facts) -> Result<Arc<Directives>, Fault> {
        let pool = self.pool();
        if let Some(header) = held(&pool.headers).get(path)
            && header.facts == *facts
        {
            return Ok(header.directives.clone());
        }
        let (text, facts) = self.root().text(path)?;
        let directives = Arc::new(Directives::read(&text));
        let mut headers = held(&pool.headers);
        if headers.len() >= HEADERS {
            headers.clear();
        }
        headers.insert(
            path.clone(),
            Header {
                facts,
                directives: directives.clone(),
            },
        );
        Ok(directives)
    }

    /// The script in a process that is of this version.
    pub async fn script(
        &self,
        deployment: &Deployment,
        path: &RelPath,
        directives: &Arc<Directives>,
    ) -> Result<Arc<Script>, Fault> {
        let slot = self.pool().slot(path);
        // nobody has to wait who finds it running
        let current = held(&slot.current).upgrade();
        if let Some(script) = current
            && !script.left.load(Ordering::SeqCst)
            && script.is_current()
        {
            return Ok(script);
        }
        let mut place = slot.script.lock().await;
        if let Some(script) = place.as_ref() {
            if !script.left.load(Ordering::SeqCst) && script.is_current() {
                return Ok(script.clone());
            }
            self.crashed(&slot, script)?;
        }
        if let Some(old) = place.take() {
            self.retire(old);
        }
        let script = self.load(deployment, path, directives).await?;
        *held(&slot.current) = Arc::downgrade(&script);
        *place = Some(script.clone());
        Ok(script)
    }

    /// Count a process that ended by itself; refuse to start another where that happens often.
    fn crashed(&self, slot: &Slot, script: &Script) -> Result<(), Fault> {
        if !script.process.is_over() || script.left.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut crashes = held(&slot.crashes);
        let now = Instant::now();
        crashes.retain(|at| now.duration_since(*at) < CRASH_TIME);
        if crashes.len() >= CRASHES {
            return Err(Fault::unavailable(format!(
                "the script {} ended {CRASHES} times in {} seconds, the last time because {}; it is started again in a moment",
                script.path,
                CRASH_TIME.as_secs(),
                script.process.ending(),
            ))
            .code("SCRIPT_CRASHES")
            .retry_after(CRASH_TIME));
        }
        // it is counted once, when it is replaced
        script.left.store(true, Ordering::SeqCst);
        crashes.push_back(now);
        Ok(())
    }

    fn retire(&self, script: Arc<Script>) {
        if script.process.is_over() {
            return;
        }
        let exec = self.clone();
        self.pool().leaving.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let until = Instant::now() + DRAIN;
            while script.busy() > 0 && Instant::now() < until && !script.process.is_over() {
                sleep(AGAIN).await;
            }
            script
                .process
                .end("another version of the script took its place");
            exec.pool().leaving.fetch_sub(1, Ordering::SeqCst);
        });
    }

    async fn load(
        &self,
        deployment: &Deployment,
        path: &RelPath,
        directives: &Arc<Directives>,
    ) -> Result<Arc<Script>, Fault> {
        let mut tries = 0;
        loop {
            tries += 1;
            let before = Stamp::of(&self.root().absolute(path));
            match self.load_once(deployment, path, directives).await {
                Err(fault) if fault.code == Some("SCRIPT_INVALID") && tries < TRIES => {
                    let file = self.root().absolute(path);
                    let changed = Stamp::of(&file) != before;
                    if !changed && !is_fresh(&file) {
                        return Err(fault);
                    }
                    sleep(AGAIN).await;
                }
                other => return other,
            }
        }
    }

    async fn load_once(
        &self,
        deployment: &Deployment,
        path: &RelPath,
        directives: &Arc<Directives>,
    ) -> Result<Arc<Script>, Fault> {
        let text = self.root().text(path)?.0;
        packages::provide(self, path, &text).await?;
        self.make_room()?;
        let starting = self
            .pool()
            .starting
            .acquire()
            .await
            .expect("it is never closed");
        let absolute = self.root().absolute(path);
        let began = SystemTime::now();
        let stamp = Stamp::of(&absolute);
        let Spare {
            process,
            mut said,
            variables,
        } = self.process().await?;
        let watching = process.clone();
        let message = json!({
            "t": "load",
            "script": absolute,
            "name": path.as_str(),
            "root": self.root().path,
            "base": self.root().absolute(&deployment.directory()),
            "http": process.http,
            "mode": directives.mode(),
            "execId": deployment.id,
            "subdomain": deployment.subdomain,
            "rawBody": directives.raw_body(),
            "websocket": directives.websocket(),
            "websocketPre": directives.websocket_pre(),
            "shared": self.shared().join(deployment, &process),
            "ai": {
                "enabled": directives.ai(),
                "model": directives.text("aiModel"),
                "temperature": directives.value("aiTemperature"),
                "maxTokens": directives.value("aiMaxTokens"),
                "key": directives.text("aiKey"),
            },
        });
        process.tell(&message);
        let log = LogLevel::of(directives);
        let listener = Listener {
            exec: self.clone(),
            deployment: deployment.clone(),
            name: path.to_string(),
            process: Arc::downgrade(&process),
            log,
            asked: Arc::new(Semaphore::new(ASKED)),
        };
        let answer = timeout(LOAD, async {
            loop {
                match said.recv().await {
                    None => return Err(watching.ending_soon().await.to_string()),
                    Some(Said::Message(message)) => match message["t"].as_str() {
                        Some("ready") => return Ok(Ok(message)),
                        Some("failed") => return Ok(Err(message)),
                        _ => listener.hear(&message),
                    },
                    Some(line) => listener.line(line),
                }
            }
        });
        let ready = match answer.await {
            Ok(Ok(Ok(ready))) => ready,
            Ok(Ok(Err(failed))) => {
                process.end("its script could not be loaded");
                let message = failed["message"].as_str().unwrap_or("it cannot be read");
                let stack = failed["stack"].as_str().unwrap_or_default();
                self.logs().script("error", path.as_str(), None, stack);
                return Err(invalid(path, message));
            }
            Ok(Err(ending)) => return Err(ended(path, &ending)),
            Err(_) => {
                process.end("its script was not loaded in time");
                return Err(Fault::new(
                    http::StatusCode::GATEWAY_TIMEOUT,
                    format!(
                        "the script {path} was not loaded within {} seconds",
                        LOAD.as_secs()
                    ),
                )
                .code("SCRIPT_LOAD_TIMEOUT"));
            }
        };
        tokio::spawn(listener.listen(said));
        drop(starting);
        let mut watched = vec![(absolute.clone(), stamp)];
        watched.extend(variables);
        for other in ready["watched"].as_array().into_iter().flatten() {
            let Some(other) = other.as_str().map(PathBuf::from) else {
                continue;
            };
            if other == absolute {
                continue;
            }
            let stamp = Stamp::of(&other);
            let changed = std::fs::metadata(&other)
                .and_then(|facts| facts.modified())
                .is_ok_and(|time| time >= began);
            // one that changed meanwhile may have been read before: it counts as another one
            let stamp = stamp.filter(|_| !changed);
            watched.push((other, stamp));
        }
        self.pool().starts.fetch_add(1, Ordering::Relaxed);
        self.look_after();
        self.make_spare();
        Ok(Arc::new(Script {
            path: path.clone(),
            deployment: deployment.clone(),
            process,
            lines: Lines::default(),
            log,
            watched,
            abandoned: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
            left: AtomicBool::new(false),
        }))
    }

    /// A process that has loaded nothing: the one that is ready, or a new one.
    async fn process(&self) -> Result<Spare, Fault> {
        let spare = held(&self.pool().spare).take();
        let fits = |spare: &Spare| {
            let mut variables = spare.variables.iter();
            !spare.process.is_over() && variables.all(|(path, stamp)| Stamp::of(path) == *stamp)
        };
        match spare.filter(fits) {
            Some(spare) => Ok(spare),
            None => self.another().await,
        }
    }

    async fn another(&self) -> Result<Spare, Fault> {
        let (sender, said) = mpsc::channel(SAID);
        // before it starts: variables that change meanwhile are found to be others
        let file = self.launcher()?.environment.file();
        let variables = file.map(|path| (path.to_owned(), Stamp::of(path)));
        Ok(Spare {
            process: self.launch("host.js", sender).await?,
            said,
            variables,
        })
    }

    pub async fn launch(
        &self,
        program: &str,
        said: mpsc::Sender<Said>,
    ) -> Result<Arc<Process>, Fault> {
        let launcher = self.launcher()?;
        launcher.start(program, said).await.map_err(|error| {
            let cause = std::error::Error::source(&error)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            tracing::warn!("no process for a script: {error}{cause}");
            match error {
                StartError::NoRuntime(_) => Fault::unavailable(format!(
                    "scripts cannot run here: {error}. `hoody up` brings it; hoody/setup/deno.sh installs it by hand"
                ))
                .code("RUNTIME_MISSING"),
                error => Fault::unavailable(format!("the script could not be started: {error}{cause}"))
                    .code("RUNTIME_FAILED")
                    .retry_after(Duration::from_secs(1)),
            }
        })
    }

    fn make_spare(&self) {
        let pool = self.pool();
        if held(&pool.spare).is_some() || pool.making_spare.swap(true, Ordering::SeqCst) {
            return;
        }
        let exec = self.clone();
        tokio::spawn(async move {
            let made = exec.another().await;
            let pool = exec.pool();
            if let Ok(spare) = made {
                *held(&pool.spare) = Some(spare);
            }
            pool.making_spare.store(false, Ordering::SeqCst);
        });
    }

    /// End the process that was asked nothing for longest, where there are too many.
    fn make_room(&self) -> Result<(), Fault> {
        let mut scripts = self.pool().scripts();
        let leaving = self.pool().leaving.load(Ordering::SeqCst);
        if scripts.len() + leaving < PROCESSES {
            return Ok(());
        }
        scripts.retain(|script| script.busy() == 0);
        scripts.sort_by_key(|script| script.idle_since());
        let Some(oldest) = scripts.first() else {
            return Err(Fault::unavailable(format!(
                "{PROCESSES} scripts are at work, which is the limit; try again in a moment"
            ))
            .code("TOO_MANY_SCRIPTS")
            .retry_after(Duration::from_secs(1)));
        };
        oldest.left.store(true, Ordering::SeqCst);
        oldest.process.end("other scripts needed its place");
        Ok(())
    }

    /// See that processes that are asked nothing end. There is one task for as long as there are any.
    fn look_after(&self) {
        if self.pool().looked_after.swap(true, Ordering::SeqCst) {
            return;
        }
        let exec = self.downgrade();
        tokio::spawn(async move {
            loop {
                sleep(LOOK).await;
                let Some(exec) = exec.upgrade() else { return };
                let pool = exec.pool();
                let scripts = pool.scripts();
                for script in &scripts {
                    let left = script.left.load(Ordering::SeqCst);
                    let gone = exec.root().file(&script.path).is_none();
                    let idle = script.idle_since().elapsed() > IDLE;
                    if script.busy() == 0 && (idle || left || gone) {
                        script.left.store(true, Ordering::SeqCst);
                        script.process.end("nobody asked it anything for a while");
                    }
                }
                held(&pool.slots).retain(|_, slot| {
                    Arc::strong_count(slot) > 1
                        || slot.running.load(Ordering::SeqCst) > 0
                        || held(&slot.current)
                            .upgrade()
                            .is_some_and(|script| !script.process.is_over())
                });
                if pool.scripts().is_empty() {
                    held(&pool.spare).take();
                    pool.looked_after.store(false, Ordering::SeqCst);
                    return;
                }
            }
        });
    }
}

fn is_fresh(path: &Path) -> bool {
    std::fs::metadata(path)
        .and_then(|facts| facts.modified())
        .is_ok_and(|time| time.elapsed().unwrap_or_default() < FRESH)
}

fn invalid(path: &RelPath, message: &str) -> Fault {
    Fault::internal(format!("the script {path} cannot be loaded: {message}")).code("SCRIPT_INVALID")
}

/// The answer where a process ended while it had a request.
pub fn ended(path: &RelPath, ending: &str) -> Fault {
    Fault::new(
        http::StatusCode::BAD_GATEWAY,
        format!(
            "the script {path} ended before it answered: {ending}. The next request starts it anew"
        ),
    )
    .code("SCRIPT_ENDED")
}

/// Hears what a script says of its own accord.
struct Listener {
    exec: Exec,
    deployment: Deployment,
    name: String,
    process: Weak<Process>,
    log: LogLevel,
    asked: Arc<Semaphore>,
}

impl Listener {
    async fn listen(self, mut said: mpsc::Receiver<Said>) {
        while let Some(said) = said.recv().await {
            match said {
                Said::Message(message) => self.hear(&message),
                line => self.line(line),
            }
        }
    }

    fn line(&self, said: Said) {
        if let Said::Line(text) = said
            && self.log.keeps("info")
        {
            self.exec.logs().script("info", &self.name, None, &text);
        }
    }

    fn hear(&self, message: &Value) {
        let text = |name: &str| message[name].as_str();
        match text("t") {
            Some("log") => {
                let level = text("level").unwrap_or("info");
                if self.log.keeps(level) {
                    self.exec.logs().script(
                        level,
                        &self.name,
                        text("id"),
                        text("text").unwrap_or_default(),
                    );
                }
            }
            Some("shared") => self.share(message),
            Some("ask") => self.answer(message),
            _ => {}
        }
    }

    fn share(&self, message: &Value) {
        let Some(process) = self.process.upgrade() else {
            return;
        };
        let key = message["key"].as_str().unwrap_or_default();
        let shared = self.exec.shared();
        let set = shared.set(
            &self.deployment,
            key,
            message["json"].as_str(),
            Some(process.id),
        );
        if let Err(error) = &set {
            let text = format!("shared.{key} is not kept: {error}");
            self.exec.logs().script("error", &self.name, None, &text);
        }
        let version = set.unwrap_or_else(|_| shared.version(&self.deployment));
        process.tell(&json!({ "t": "ack", "seq": message["seq"], "version": version }));
    }

    /// What only the kit can do for a script.
    fn answer(&self, message: &Value) {
        let Some(process) = self.process.upgrade() else {
            return;
        };
        let id = message["id"].clone();
        let reply = move |process: &Process, answer: Result<Value, Fault>| {
            process.tell(&match answer {
                Ok(value) => json!({ "t": "reply", "id": id, "ok": true, "value": value }),
                Err(fault) => json!({
                    "t": "reply", "id": id, "ok": false, "error": fault.message, "code": fault.code,
                }),
            });
        };
        let Ok(turn) = self.asked.clone().try_acquire_owned() else {
            let busy = Fault::unavailable(format!("the script waits for {ASKED} answers already"));
            return reply(&process, Err(busy.code("TOO_MANY_EVALS")));
        };
        let (exec, message) = (self.exec.clone(), message.clone());
        tokio::spawn(async move {
            let answer = match message["what"].as_str() {
                Some("eval") => exec.eval(&message).await,
                _ => Err(Fault::bad_request("the kit does not know what is asked")),
            };
            reply(&process, answer);
            drop(turn);
        });
    }
}
