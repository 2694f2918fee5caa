//! How an operation is declared, and the faces that follow from one declaration.
//!
//! A service is a list of [`Operation`]s gathered in an [`Api`]. From that list come the HTTP
//! routes ([`http`]), the OpenAPI 3.1 document ([`openapi`]) and the MCP tools ([`mcp`]); the
//! command line is built from the OpenAPI document by whoever wants one.
//!
//! Read in this order: [`operation`] (what one is), [`api`] (how they are gathered), [`call`]
//! (what a request tells an operation), [`fault`] (how one fails), then the faces; [`pages`] serves what a person opens.
//!
//! This crate knows no service, no container and no proxy beyond the names of the headers in
//! [`call`].

pub mod api;
pub mod arguments;
pub mod call;
pub mod fault;
pub mod health;
pub mod http;
pub mod mcp;
pub mod openapi;
pub mod operation;
pub mod pages;
pub mod wire;

pub use api::{Api, Raw};
pub use call::Call;
pub use fault::Fault;
pub use operation::{Access, Operation, Route, Verb};
pub use wire::Wire;

#[cfg(test)]
mod tests;
