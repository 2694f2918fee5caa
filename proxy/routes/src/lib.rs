//! The words that the proxy and the control plane share: what a hostname means and where it leads.
//!
//! Read in this order: [`id`], [`services`] (the slugs), [`address`] (the hostname grammar),
//! [`domain`] (aliases), [`access`] (who may reach what) with [`jwt`] and [`link`], [`hook`] (what
//! scripts see first), [`sleep`] (what wakes a container), [`table`] (what leads where) with [`shards`].
//!
//! Pure: no I/O, no async runtime, no clock.

pub mod access;
pub mod address;
pub mod domain;
pub mod hook;
pub mod id;
pub mod jwt;
pub mod link;
pub mod services;
pub mod shards;
pub mod sleep;
pub mod table;

pub use address::{Address, Zone};
pub use id::Id;
pub use table::{Change, Place, State, Table};
