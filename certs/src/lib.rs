//! Certificates for the names of a node, found by the name a client asks for.
//!
//! Read in this order: [`names`] (exact name, wildcard, none), [`resolver`] (what a TLS listener
//! asks, and what may be swapped under it), [`authority`] (the private certificate authority),
//! [`local`] (its certificates for one node: made, kept, renewed), [`store`] (files that are
//! whole or absent), [`clock`]; [`challenge`] (how a name is shown to be ours), [`dns`] (a name
//! server for the node's zones, and other ways to show it), [`acme`] (certificates from a
//! directory), [`files`] (certificates that somebody else makes), [`pair`] (what the two read),
//! [`holding`] (what there is, until when).
//!
//! This crate knows neither the proxy nor containers: names come in, certificates come out. It
//! runs no task of its own but the threads of [`Local::renew_in_background`],
//! [`Files::look_in_background`] and [`Acme::start`].
//!
//! OCSP is left out on purpose: what is made here is short-lived instead, and Let's Encrypt
//! has given it up.

pub mod acme;
pub mod authority;
pub mod challenge;
pub mod clock;
pub mod dns;
pub mod files;
pub mod holding;
pub mod local;
pub mod names;
pub mod pair;
pub mod resolver;
pub mod store;

mod error;

pub use acme::Acme;
pub use challenge::{ChallengeError, DnsChallenge};
pub use clock::{Clock, SystemClock};
pub use error::Error;
pub use files::Files;
pub use holding::{Class, Holding, Holdings};
pub use local::Local;
pub use names::Names;
pub use resolver::Resolver;

/// An error and what it came from, as one text.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
