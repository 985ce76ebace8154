//! One mount, a view of its own for every process tree: the file system of SPFS.
//!
//! - [`layers`]: read-only directories stacked into one tree, upper first, with the whiteouts of OCI images.
//! - [`views`]: which process trees there are, and which stack each of them sees.
//! - [`mount`]: the FUSE mount that shows them.
//! - [`service`]: a mount, and a socket to say who sees what in it; [`client`] says it, in the words of [`proto`], at a
//!   [`socket`]. What goes wrong there is a [`failure`].
//!
//! The root of a mount holds `views/ID/…`, a directory for each view, and `self`, a symbolic link that leads whoever reads it
//! into the view of its own tree (into `views/default`, which is empty, if it has none). A process is routed when it goes
//! through `self`, and never below it; so a name below `views` means one thing, whoever asks, and the kernel may remember it.
#![deny(unsafe_code)]

pub mod client;
#[cfg_attr(target_vendor = "apple", expect(dead_code, reason = "nothing is mounted there yet"))]
mod error;
pub mod failure;
pub mod layers;
#[cfg_attr(target_vendor = "apple", expect(dead_code, reason = "nothing is mounted there yet"))]
pub mod mount;
pub mod proto;
pub mod service;
pub mod socket;
mod sys;
#[cfg_attr(target_vendor = "apple", expect(dead_code, reason = "nothing is mounted there yet"))]
pub mod views;

pub use error::Error;
pub use mount::{Mount, MountOptions};
pub use views::{Owner, ViewId, ViewInfo, Views};
