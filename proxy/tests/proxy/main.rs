//! The proxy as its clients, its kits and control see it: real sockets, kits in this process.

mod aliases;
mod attacks;
mod feed;
mod gates;
mod hooks;
mod hosts;
mod kit;
mod limits;
mod links;
mod refusals;
mod requests;
mod rig;
mod signin;
mod streams;
