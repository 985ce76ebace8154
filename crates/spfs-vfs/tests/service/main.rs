//! The service as people and programs meet it: the real binary, real mounts, real processes.
// Nothing is mounted elsewhere yet; what the command says there is tried in tests/usage.rs
#![cfg(target_os = "linux")]

mod control;
mod ends;
mod lifecycle;
mod limits;
mod permissions;
mod refusals;
mod world;
