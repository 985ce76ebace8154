//! The operating system, and the only home of `unsafe`, `libc` and `cfg(target_os)`.
//!
//! A backend provides
//!
//! - directories that are opened once and never left: [`open_directory`], [`open_beneath`];
//! - what a file is: [`attributes`], [`attributes_at`], [`xattr`], [`xattr_names`];
//! - [`Session`]: a mount that shows views, and ends without leaving a dead one behind;
//! - [`raise_file_limit`].

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "extended attributes are read by calls that no crate wraps")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
pub(crate) use macos::*;

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("spfs-vfs knows Linux and macOS");

/// How something in a layer is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    /// Anything, a symbolic link included, to be asked about.
    Node,
    /// A directory, to look names up in.
    Directory,
    /// A directory, to be listed.
    Listing,
    /// A file, to be read.
    File,
}
