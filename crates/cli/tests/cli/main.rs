//! The command, run on real processes.

mod ancestry;
mod common;
mod doctor;
mod identity;
mod kill;
mod run;
mod terminal;
mod trace;
mod tree;
mod trees;
mod usage;
mod wait;
mod watch;
