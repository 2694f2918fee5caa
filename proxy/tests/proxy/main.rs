//! The proxy as its clients, its kits and control see it: real sockets, kits in this process.

mod attacks;
mod feed;
mod kit;
mod limits;
mod logs;
mod refusals;
mod requests;
mod rig;
mod streams;
