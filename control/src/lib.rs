//! The control plane of a node: the API that people and programs call, the desired state of every
//! container in SQLite, and the reconciler that makes the machines so.
//!
//! Read in this order: [`config`], [`container`] (what a container should do next, pure),
//! [`runtime`] (what runs machines), [`store`] (the database, a file per noun), [`reconcile`]
//! (desired against observed), [`limits`] (what one may take), [`prespawn`] (machines that are kept ready before anybody asks),
//! [`policies`] (who may reach whom over the network, with [`firewall`], and [`relay`], a process
//! of its own), [`shares`] (who sees which directory of whom), [`rules`] (who may reach what), [`edge`] (rows as the proxy knows
//! them), [`publish`] (what the proxy is told), [`wake`] (what it tells), [`idle`] (who sleeps because
//! of it), [`inside`] (what the node itself asks of the kit in a machine), [`certificates`] (what visitors are shown), [`auth`] (who is calling), [`api`] (the operations,
//! a file per noun), [`stream`] (what happens, as it happens), [`provision`] (the first run).
//!
//! The API writes what is wanted and nudges; the reconciler does the rest, and does it again after
//! a crash anywhere. This crate knows neither Pingora nor certificates nor the services of a kit.

pub mod api;
pub mod auth;
pub mod certificates;
pub mod config;
pub mod container;
pub mod edge;
pub mod firewall;
pub mod idle;
pub mod inside;
pub mod limits;
pub mod metrics;
pub mod node;
pub mod policies;
pub mod prespawn;
pub mod provision;
pub mod publish;
pub mod ready;
pub mod reconcile;
pub mod relay;
pub mod rules;
pub mod runtime;
pub mod secrets;
pub mod serve;
pub mod shares;
pub mod store;
pub mod stream;
pub mod tasks;
pub mod time;
pub mod wake;
pub mod words;

mod control;

pub use api::{api, document, router};
pub use config::Config;
pub use control::{Control, OpenError};
pub use provision::{Administrator, ProvisionError, first_run, mint_token};
pub use runtime::Runtime;
pub use serve::{ServeError, serve};
