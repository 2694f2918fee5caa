//! The proxy as its clients, its kits and control see it: real sockets, kits in this process.

mod aliases;
mod attacks;
mod feed;
mod gates;
mod kit;
mod limits;
mod links;
mod logs;
mod refusals;
mod requests;
mod rig;
mod signin;
mod streams;
