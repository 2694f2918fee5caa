//! The exec service: a TypeScript or JavaScript file in the directory of scripts is an endpoint.
//!
//! Read in this order: [`place`] (what scripts are named), [`root`] (their files), [`routing`] (from
//! a path to a script), [`directives`] (what a script says of itself), [`process`] (a process of the
//! runtime), [`pool`] (which script has one), [`line`](mod@line) and [`execute`] (a request to it), then what
//! stands around: [`shared`], [`schedule`], [`packages`], [`sandbox`], [`tools`], [`logs`],
//! [`metrics`], [`templates`], [`document`], [`sdk`]. [`ops`] is the adapter to HTTP.
//!
//! Nothing is started before the first call. Every script has a process of its own (Deno), which it
//! shares with nobody: what loops, exits or fills its memory ends alone, and requests that it had
//! are answered 502. This crate knows nothing of containers, of the proxy or of other services.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use axum::response::Response;
use kit::{Fault, Wire};
use serde_json::json;
use sha2::{Digest, Sha256};

mod account;
pub mod directives;
mod document;
mod execute;
mod line;
pub mod logs;
mod metrics;
mod ops;
mod packages;
pub mod place;
mod pool;
mod process;
mod root;
pub mod routing;
mod sandbox;
pub mod schedule;
mod sdk;
mod shared;
mod templates;
mod tools;

pub use ops::api;

#[cfg(test)]
mod tests;

use accounts::Account;
use logs::Logs;
use metrics::Metrics;
use pool::Pool;
use process::Launcher;
use root::Root;
use sandbox::Sandboxes;
use schedule::Schedules;
use shared::Shared;
use tools::Tools;

/// How the service is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of all scripts.
    pub scripts: PathBuf,
    pub logs: PathBuf,
    /// What the runtime fetched and compiled.
    pub cache: PathBuf,
    /// Sockets of processes. Emptied at the first call.
    pub run: PathBuf,
    /// What has to survive a restart.
    pub state: PathBuf,
    /// Where the runtime is installed: `deno` and `acorn.mjs`.
    pub runtime: PathBuf,
    /// Whom scripts run as, where the kit may become others and the user exists.
    pub user: Option<String>,
    pub home: PathBuf,
    /// Variables of every script, beside those of a login.
    pub environment: BTreeMap<String, String>,
    /// The page that browsers get where no script answers.
    pub page: Option<fn() -> Response>,
}

/// The service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Exec(Arc<Inner>);

#[derive(Debug)]
pub struct Inner {
    config: Config,
    account: Option<Account>,
    root: Root,
    logs: Logs,
    metrics: Metrics,
    shared: Shared,
    pool: Pool,
    tools: Tools,
    sandboxes: Sandboxes,
    schedules: Schedules,
    installs: tokio::sync::Mutex<()>,
    launcher: Mutex<Option<Arc<Launcher>>>,
    begun: Mutex<Instant>,
    restarting: AtomicBool,
}

impl Deref for Exec {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    pub fn config(&self) -> &Config {
        &self.config
    }
    fn root(&self) -> &Root {
        &self.root
    }
    fn logs(&self) -> &Logs {
        &self.logs
    }
    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
    fn shared(&self) -> &Shared {
        &self.shared
    }
    fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether something would be lost with this process: a request, a run, or a WebSocket.
    pub fn is_busy(&self) -> bool {
        self.metrics.is_busy() || self.installs.try_lock().is_err()
    }

    /// How processes are started; what that needs is put in its place at the first call.
    fn launcher(&self) -> Result<Arc<Launcher>, Fault> {
        let mut launcher = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(launcher) = launcher.as_ref()
            && launcher.parts.join("acorn.mjs").exists()
        {
            return Ok(launcher.clone());
        }
        let made = self.make_launcher().map_err(|error| {
            Fault::unavailable(format!(
                "scripts cannot run here: {error}. `hoody up` brings the runtime; hoody/setup/deno.sh installs it by hand"
            ))
            .code("RUNTIME_MISSING")
        })?;
        Ok(launcher.insert(Arc::new(made)).clone())
    }

    fn make_launcher(&self) -> std::io::Result<Launcher> {
        let config = &self.config;
        self.root.make()?;
        if std::fs::symlink_metadata(&config.run).is_ok_and(|facts| facts.is_dir()) {
            // sockets of a kit that is gone
            std::fs::remove_dir_all(&config.run)?;
        }
        std::fs::create_dir_all(&config.run)?;
        std::fs::create_dir_all(&config.cache)?;
        if let Some(account) = &self.account {
            std::os::unix::fs::chown(&config.cache, Some(account.uid), Some(account.gid))?;
        }
        let acorn = std::fs::read(config.runtime.join("acorn.mjs")).map_err(|error| {
            std::io::Error::new(
                error.kind(),
                format!("there is no runtime in {}", config.runtime.display()),
            )
        })?;
        let parts: [(&str, &[u8]); 7] = [
            ("host.js", include_bytes!("../runtime/host.js")),
            ("compile.js", include_bytes!("../runtime/compile.js")),
            ("ai.js", include_bytes!("../runtime/ai.js")),
            ("tools.js", include_bytes!("../runtime/tools.js")),
            ("types.js", include_bytes!("../runtime/types.js")),
            ("sandbox.js", include_bytes!("../runtime/sandbox.js")),
            ("acorn.mjs", &acorn),
        ];
        let mut hash = Sha256::new();
        for (name, bytes) in parts {
            hash.update(name);
            hash.update(bytes);
        }
        let digest = hash.finalize();
        let edition: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        // beside the scripts, whose packages the runtime finds from there
        let directory = place::RelPath::default().join(&format!(".hoody-cache/runtime-{edition}"));
        let failed =
            |error: root::FileError| std::io::Error::other(kit::Fault::from(error).message);
        self.root.make_directory(&directory).map_err(failed)?;
        for (name, bytes) in parts {
            self.root
                .write(&directory.join(name), bytes, root::Over::Replace)
                .map_err(failed)?;
        }
        Ok(Launcher::new(
            config.runtime.join("deno"),
            self.root.absolute(&directory),
            config.run.clone(),
            config.cache.clone(),
            self.root.path.clone(),
            self.account.clone(),
            account::Environment {
                home: config.home.clone(),
                machine: config.user.is_some(),
                extra: config.environment.clone(),
            },
        ))
    }
}

/// A handle that does not keep the service alive.
#[derive(Clone, Debug)]
pub struct WeakExec(Weak<Inner>);

impl WeakExec {
    pub fn upgrade(&self) -> Option<Exec> {
        self.0.upgrade().map(Exec)
    }
}

impl Exec {
    pub fn new(config: Config) -> Exec {
        let root_user = rustix::process::geteuid().is_root();
        let account = config
            .user
            .as_deref()
            .filter(|_| root_user)
            .and_then(Account::named);
        let owner = account.as_ref().map(|account| (account.uid, account.gid));
        let exec = Exec(Arc::new(Inner {
            root: Root::new(config.scripts.clone(), owner),
            logs: Logs::new(config.logs.clone()),
            schedules: Schedules::default(),
            metrics: Metrics::default(),
            shared: Shared::default(),
            pool: Pool::default(),
            tools: Tools::default(),
            sandboxes: Sandboxes::default(),
            installs: tokio::sync::Mutex::new(()),
            launcher: Mutex::new(None),
            begun: Mutex::new(Instant::now()),
            restarting: AtomicBool::new(false),
            account,
            config,
        }));
        if tokio::runtime::Handle::try_current().is_ok() && exec.has_schedules() {
            exec.start_schedules();
        }
        exec
    }

    /// Whether a script runs by itself, so that the service has to be there without being called.
    pub fn wants_to_run(state: &Path) -> bool {
        state.join(schedule::MARK).exists()
    }

    fn downgrade(&self) -> WeakExec {
        WeakExec(Arc::downgrade(&self.0))
    }

    /// Processes end, and requests start new ones.
    fn begin_restart(&self, reason: String, drain: std::time::Duration) {
        if self.restarting.swap(true, Ordering::SeqCst) {
            return; // one is under way
        }
        let exec = self.clone();
        tokio::spawn(async move { exec.restart(&reason, drain).await });
    }

    async fn restart(&self, reason: &str, drain: std::time::Duration) {
        let until = Instant::now() + drain;
        self.pool.leave(|_| true);
        while self.metrics.is_busy() && Instant::now() < until {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        self.pool
            .end_all(&format!("the service was restarted: {reason}"));
        self.tools.end();
        self.sandboxes.end();
        self.launcher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.restarting.store(false, Ordering::SeqCst);
    }
}

/// Payload bare; failures as `{error, code, timestamp, details?}`.
pub const WIRE: Wire = Wire {
    success: |_, reply| reply,
    failure,
};

fn failure(fault: &Fault) -> serde_json::Value {
    let code = fault.code.unwrap_or(match fault.status.as_u16() {
        400 => "BAD_REQUEST",
        401 => "UNAUTHORIZED",
        403 => "FORBIDDEN",
        404 => "NOT_FOUND",
        405 => "METHOD_NOT_ALLOWED",
        409 => "CONFLICT",
        413 => "TOO_LARGE",
        503 => "UNAVAILABLE",
        _ => "INTERNAL_ERROR",
    });
    let mut body = json!({ "error": fault.message, "code": code, "timestamp": logs::now() });
    if !fault.fields.is_empty() {
        let fields = fault.fields.iter();
        let fields: Vec<_> = fields
            .map(|field| json!({ "path": field.path, "message": field.message }))
            .collect();
        body["details"] = json!({ "fields": fields });
    }
    body
}
