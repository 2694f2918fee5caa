//! Names: an authoritative name server for the zones of a node, and the other ways to show the
//! world a TXT record.
//!
//! Read in this order: [`zone`] (which names there are, and what stands at them: RFC 1034, 4592),
//! [`answer`] (bytes of a question in, bytes of an answer out: a pure function), [`limit`] (how
//! much is said to whom), [`server`] (sockets; the challenges that come and go), `shown` (where they
//! are kept for more than one process), [`update`] (a
//! name server of somebody else's: RFC 2136), [`program`] (whatever else), [`ask`] (questions to
//! other name servers), [`check`] (whether the world finds us, in words).
//!
//! The server answers for its zones and nothing else: it asks nobody, follows nothing, transfers
//! nothing and takes no updates. Messages are read and written by hickory's protocol crate. The
//! sockets are our own, because that library's server bounds neither how many connections it
//! keeps nor how much it says to whom.

pub mod answer;
pub mod ask;
pub mod check;
pub mod limit;
pub mod program;
#[cfg(test)]
mod scripted;
pub mod server;
mod shown;
pub mod update;
pub mod zone;

pub use limit::Limits;
pub use program::Program;
pub use server::{Server, Sockets};
pub use update::Update;
pub use zone::ZoneSettings;

pub use hickory_proto;
