//! Certificates for the names of a node, found by the name a client asks for.
//!
//! Read in this order: [`names`] (exact name, wildcard, none), [`resolver`] (what a TLS listener
//! asks, and what may be swapped under it), [`authority`] (the private certificate authority),
//! [`local`] (its certificates for one node: made, kept, renewed), [`store`] (files that are
//! whole or absent), [`clock`]; [`challenge`] (how a name is shown to be
//! ours), [`dns`] (a name server for the node's zones, and other ways to show it).
//!
//! This crate knows neither the proxy nor containers: names come in, certificates come out. It
//! runs no task of its own but the thread of [`Local::renew_in_background`].
//!
//! OCSP is left out on purpose: the authority is private, and a leaf lives for three months.

pub mod authority;
pub mod challenge;
pub mod clock;
pub mod dns;
pub mod local;
pub mod names;
pub mod resolver;
pub mod store;

mod error;

pub use challenge::{ChallengeError, DnsChallenge};
pub use clock::{Clock, SystemClock};
pub use error::Error;
pub use local::Local;
pub use names::Names;
pub use resolver::Resolver;
