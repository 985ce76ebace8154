//! What the service needs of the operating system beyond what `nix` does safely and everywhere.
//!
//! A backend provides `look`, `clear` and `abandon`.

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod backend;

#[cfg(not(target_os = "linux"))]
#[path = "other.rs"]
mod backend;

mod detach;

pub(super) use backend::{Standing, abandon, clear, look};
pub(super) use detach::{Fork, close_inherited, die_of, fork};
