//! Stories of a whole node in one process, and tests of the workspace itself.
//!
//! A file per noun. Every reply is judged by the wire contract as it comes; the stories add what a
//! schema cannot say: that changes are seen, and that what is wrong is refused.

mod auth;
mod authority;
mod certificates;
mod containers;
mod direction;
mod documents;
mod edge;
mod env;
mod events;
mod exec;
mod files;
mod files_remote;
mod files_root;
mod logs;
mod mcp;
mod network;
mod node;
mod projects;
mod proxy;
mod realms;
mod smoke;
mod snapshots;
mod sqlite;
mod storage;
mod terminal;
mod terminal_drops;
mod terminal_screen;
mod terminal_system;
mod terminal_ws;
mod tokens;
mod users;
mod wake;
mod wire;
