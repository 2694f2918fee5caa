//! The log of a container's requests: `logs-N`, the one service that does not live in the
//! container. The proxy writes it and mounts it.
//!
//! Read in this order: [`scope`] (whose log it is), [`capture`] and [`redact`] (what is taken from
//! a request, and what never is), [`entry`] (one line of the log, in [`json`]), [`segment`] (files
//! of lines),
//! [`log`] (the log of one container: a ring in memory, segments on disk), [`store`] (all logs and
//! their bounds), [`query`] and [`stats`] (reading), [`stream`] (following), [`rate`], [`ops`].
//!
//! Writing is for one thread and never waits for a reader; readers look at what is there. Every
//! request carries its [`Scope`], set by whoever mounts the router: nothing that a client sends
//! can name another. Bodies are never logged. This crate knows nothing of the proxy and of the
//! table of containers beyond a question: is there such a container?

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use kit::Api;
use serde_json::Value;
use tokio::sync::Semaphore;

pub mod capture;
pub mod entry;
pub mod json;
mod log;
mod ops;
mod page;
mod query;
mod rate;
pub mod redact;
mod scope;
mod segment;
mod stats;
mod store;
mod stream;

pub use capture::Capture;
pub use entry::{Draft, Event, Exchange, Kind, Level};
pub use scope::{Key, Scope};
pub use store::{Limits, Store};

#[cfg(test)]
mod tests;

/// Logs read from disk at once, of all containers: each reads megabytes.
const READS: usize = 4;

/// The service; cheap to clone.
#[derive(Clone)]
pub struct Logs(Arc<Service>);

struct Service {
    store: Store,
    rate: rate::Rate,
    reads: Semaphore,
    streams: AtomicUsize,
}

impl Logs {
    /// Logs below this directory, of the containers that `known` knows. Nothing is read before the
    /// first use.
    pub fn new(
        directory: PathBuf,
        limits: Limits,
        known: impl Fn(Key) -> bool + Send + Sync + 'static,
    ) -> Logs {
        Logs(Arc::new(Service {
            store: Store::new(directory, limits, known),
            rate: rate::Rate::default(),
            reads: Semaphore::new(READS),
            streams: AtomicUsize::new(0),
        }))
    }

    /// Where entries are written.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The service with its page. A request must carry its [`Scope`] as an extension.
    pub fn router(&self) -> Router {
        page::add(ops::api(self).router())
    }
}

/// The operations of the service.
pub fn api(logs: &Logs) -> Api {
    ops::api(logs)
}

/// The OpenAPI document of the service.
pub fn document() -> Value {
    api(&Logs::new(PathBuf::new(), Limits::default(), |_| false)).document()
}
