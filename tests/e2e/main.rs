//! Stories on real containers. They need a running node: `tests/e2e/run.sh` makes one of its own,
//! runs these, and removes it.

mod command;
mod crash;
mod life;
mod machine;
mod network;
mod prespawn;
mod services;
mod shares;
mod terminal;
