//! The cgroups below one: members may make some.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Relative paths, each behind that of the cgroup it is in. What vanishes meanwhile is passed over. Holds one descriptor
/// at a time, however deep they are.
pub(super) fn list(top: &File) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    let mut next = 0;
    while next < found.len() {
        match children(top, &found[next]) {
            Ok(names) => {
                for name in names {
                    found.push(found[next].join(name));
                }
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {}
            Err(error) => return Err(error),
        }
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

/// Names of the cgroups right below one, which `path` leads to from `top`.
pub(super) fn children(top: &File, path: &Path) -> io::Result<Vec<PathBuf>> {
    // By the descriptor, whatever is mounted over its path by now.
    let itself = PathBuf::from(format!("/proc/thread-self/fd/{}", top.as_raw_fd()));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(itself.join(path))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().into());
        }
    }
    Ok(names)
}

/// Removes the directory `name` of `parent`, which `top` is open on, and those below, deepest first. EBUSY if somebody is
/// in one of them; ask before whether the whole is populated: an empty one among others may be about to be used.
pub(super) fn remove(parent: &File, name: &Path, top: &File) -> io::Result<()> {
    for path in list(top)?.iter().rev() {
        match unlinkat(top, path.as_path(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
}
