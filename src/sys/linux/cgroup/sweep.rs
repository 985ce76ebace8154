//! What trackers that were killed have left behind.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::sys::backend::cgroup::home::Home;
use crate::sys::backend::cgroup::name::Name;
use crate::sys::backend::cgroup::{below, is_populated, lock, open_at, open_directory};

/// Removes the empty cgroups of ours that nobody holds any more, and nothing else. Whatever stands in the way, another
/// user's rights or another sweep, leaves one where it is.
///
/// A cgroup whose tree still runs is populated: it stays, for a successor of its tracker.
pub(super) fn sweep(home: &Home) {
    for name in below::children(&home.directory, Path::new("")).unwrap_or_default() {
        if name.to_str().and_then(Name::parse).is_some() && take(home, &name).is_ok() {
            crate::debug!(?name, "removed the cgroup of a dead tracker");
        }
    }
}

fn take(home: &Home, name: &Path) -> io::Result<()> {
    let directory = open_directory(&home.directory, name)?;
    let events = open_at(&directory, c"cgroup.events", OFlag::O_RDONLY)?;
    // Before the lock: a successor of the tracker may be about to lock it.
    if is_populated(&events)? {
        return Err(Errno::EBUSY.into());
    }
    // A tracker holds it however long nobody is in it. The kernel says so, whatever PID namespace the tracker is in.
    lock(&directory, libc::LOCK_EX)?;
    if is_populated(&events)? {
        return Err(Errno::EBUSY.into());
    }
    below::remove(&home.directory, name, &directory)
}
