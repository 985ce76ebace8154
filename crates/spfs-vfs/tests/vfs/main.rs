//! Views, seen through a real mount by real processes.
#![cfg(target_os = "linux")] // nothing can be mounted elsewhere yet

mod callers;
mod comings;
mod common;
mod layers;
mod model;
mod mounts;
mod readonly;
mod reuse;
mod same;
mod trees;
mod users;
