//! SQLite databases over HTTP: SQL, a key-value store, and Hrana for the clients of libsql.
//!
//! Read in this order: [`name`] (which file a request means), [`watch`] and [`connection`] (what a
//! statement may do, and for how long), [`store`] (the databases that are open, whose turn it is),
//! [`value`], [`text`] and [`run`] (values, SQL as text, statements), then what is built on them:
//! [`transaction`], [`kv`], [`copy`], [`transfer`], [`hrana`], [`history`], and [`ops`], where all of it meets HTTP. [`limits`] has every bound.
//!
//! Statements are anybody's. What they may do is decided when they are prepared (the authorizer),
//! how long they take while they run (the progress handler), and how much they take by SQLite's own
//! limits. The service knows no other service.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;

pub mod body;
pub mod connection;
pub mod copy;
pub mod csv;
pub mod fault;
pub mod history;
pub mod hrana;
pub mod kv;
pub mod limits;
pub mod name;
pub mod ops;
pub mod pointer;
pub mod run;
pub mod store;
pub mod text;
pub mod transaction;
pub mod transfer;
pub mod value;
pub mod watch;

pub use ops::api;

#[cfg(test)]
mod tests;

/// Where the service works.
#[derive(Debug, Clone)]
pub struct Config {
    /// What `/` is in a request: the root of the machine, or a directory.
    pub root: PathBuf,
    /// Where the service keeps what is its own.
    pub state: PathBuf,
    /// Whose the directory of databases is: the owner of this.
    pub home: Option<PathBuf>,
    /// How long an unused database stays open.
    pub idle: Duration,
    /// The page.
    pub page: Option<fn() -> Response>,
}

impl Config {
    pub fn new(root: PathBuf, state: PathBuf) -> Config {
        Config {
            root,
            state,
            home: None,
            idle: limits::IDLE,
            page: None,
        }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Sqlite(Arc<Inner>);

/// What the clones of a handle share.
#[derive(Debug)]
pub struct Inner {
    pub store: Arc<store::Store>,
    pub history: Arc<history::History>,
    pub config: Config,
    pub bodies: body::Budget,
    /// What waits to be taken by its reader.
    pub answers: body::Budget,
    pub turns: hrana::stream::Turns,
    pub transfers: ops::transfer::Turns,
    pub waiting: Arc<hrana::http::Waiting>,
    tended: std::sync::Once,
}

impl Deref for Sqlite {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Sqlite {
    pub fn new(config: Config) -> Sqlite {
        let below = name::DIRECTORY.trim_start_matches('/');
        let store = store::Store::new(config.root.join(below), config.home.clone(), config.idle);
        Sqlite(Arc::new(Inner {
            store: Arc::new(store),
            history: Arc::new(history::History::new(config.state.join("history.db"))),
            config,
            bodies: body::Budget::default(),
            answers: body::Budget::default(),
            turns: hrana::stream::Turns::default(),
            transfers: ops::transfer::Turns::default(),
            waiting: Arc::default(),
            tended: std::sync::Once::new(),
        }))
    }

    /// Begin to close what is idle, once.
    fn tend(&self) {
        let pace = (self.config.idle / 4).clamp(Duration::from_millis(10), Duration::from_secs(15));
        self.tended.call_once(|| {
            self.store.tend(pace);
            self.waiting.tend();
        });
    }

    /// Whether somebody has a stream that would end with the process.
    pub fn is_busy(&self) -> bool {
        self.turns.streams.available_permits() < hrana::STREAMS
    }
}
