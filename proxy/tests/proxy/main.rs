//! The proxy as its clients, its kits and control see it: real sockets, kits in this process.

mod aliases;
mod attacks;
mod conformance;
mod feed;
mod floods;
mod frames;
mod gates;
mod handover;
mod hooks;
mod hosts;
mod isolation;
mod kit;
mod limits;
mod links;
mod logs;
mod protocols;
mod recorder;
mod refusals;
mod requests;
mod rig;
mod signin;
mod smuggling;
mod streams;
mod traps;
mod uploads;
mod websockets;
