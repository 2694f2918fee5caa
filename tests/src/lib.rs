//! What the tests of the whole share: a node in one process, a client for its hosts, and the wire
//! contract as a judge.

pub mod client;
pub mod contract;
pub mod node;
pub mod rig;

pub use node::Node;
pub use rig::Rig;
