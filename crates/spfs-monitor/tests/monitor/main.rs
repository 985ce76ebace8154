//! The monitor, on real processes.

mod cleanup;
mod common;
mod early;
mod heartbeat;
mod input;
mod leaving;
#[cfg(target_os = "linux")] // what a process costs is read of Linux's /proc
mod quiet;
mod record;
mod story;
mod successor;
