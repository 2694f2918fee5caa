//! The proxy as its clients, its kits and control see it: real sockets, kits in this process.

mod attacks;
mod conformance;
mod feed;
mod floods;
mod frames;
mod isolation;
mod kit;
mod limits;
mod protocols;
mod recorder;
mod refusals;
mod requests;
mod rig;
mod smuggling;
mod streams;
mod traps;
mod websockets;
