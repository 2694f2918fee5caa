//! Orders at a real directory.

#![allow(clippy::unwrap_used)]

mod demand;
mod life;
mod pebble;
mod rig;
mod wire;
