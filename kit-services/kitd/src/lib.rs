//! The kit: everything a container answers at its URLs, in one process.
//!
//! The proxy connects to one unix socket and names the service in a header; [`dispatch`] finds it
//! in [`services`], which is the list of all services there are, and starts it on its first call.
//!
//! Read in this order: [`services`], [`dispatch`], [`pages`] (the web pages), [`ports`] (any
//! other server in the container), [`websocket`] (WebSockets over HTTP/2), [`loopback`] (the container's own use of its URLs),
//! [`trust`] (the private CA), [`surroundings`] (the host's proxy settings), [`upgrade`] (making way
//! for a newer kit), [`identity`] (whose machine it is, where that is settled late).
//!
//! The kit knows nothing of other containers, of the control plane or of how the proxy routes.

pub mod dispatch;
pub mod identity;
pub mod loopback;
pub mod pages;
pub mod ports;
pub mod services;
pub mod settings;
pub mod surroundings;
pub mod trust;
pub mod upgrade;
pub mod websocket;

pub use dispatch::Kit;
pub use settings::Settings;
