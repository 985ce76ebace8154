//! The command, run on real processes.

mod ancestry;
mod common;
mod doctor;
mod identity;
mod kill;
mod tree;
mod usage;
mod wait;
mod watch;
