//! What runs on the machine, read from `/proc` (proc(5)) and from where systemd and X servers keep
//! their files.

pub mod displays;
pub mod ports;
pub mod power;
pub mod processes;
pub mod resources;
pub mod units;
