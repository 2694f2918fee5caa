//! What runs on the machine, read from `/proc` (proc(5)).

pub mod ports;
pub mod processes;
pub mod resources;
