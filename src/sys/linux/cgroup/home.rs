//! The cgroup that the calling thread is in, as a directory.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use crate::error::{Error, Result};
use crate::parse::cgroup::{self, Mount};
use crate::pid::Pid;
use crate::sys::backend::cgroup::name::Name;
use crate::sys::backend::cgroup::{MAKE, id_of, is_cgroup, open_directory, read_at, refused};
use crate::sys::backend::procfs;
use crate::sys::backend::world::need_proc_now;

/// An open directory of cgroup2, proven to be the cgroup of the calling process.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) path: PathBuf,
    pub(super) directory: File,
    /// The id of the cgroup that is the top of what is mounted there: all that `path` goes through is below it.
    pub(super) root: u64,
}

impl Home {
    pub(super) fn find() -> Result<Home> {
        let unsupported = |reason| Error::unsupported(None, MAKE, reason);
        need_proc_now(None, MAKE)?;
        // Of a process, /proc/self is its main thread, which may have ended.
        let own = read(c"/proc/thread-self/cgroup")?;
        let own = cgroup::own(&own).ok_or_else(|| unsupported("this kernel has no cgroup2"))?;
        let mounts = cgroup::mounts(&read(c"/proc/thread-self/mountinfo")?).ok_or_else(|| {
            Error::malformed(None, MAKE, "mountinfo is not laid out as proc_pid_mountinfo(5) says")
        })?;
        if mounts.is_empty() {
            return Err(unsupported("no cgroup2 is mounted here"));
        }
        // The later one covers the earlier one.
        for mount in mounts.iter().rev() {
            let Some(rest) = cgroup::below(&mount.root, own) else { continue };
            match Home::at(mount, rest) {
                Ok(Some(home)) => return Ok(home),
                // Not to be reached by its path, or by ours.
                Ok(None) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::ELOOP) => {}
                Err(errno) => return Err(refused(errno)),
            }
        }
        Err(unsupported(
            "no cgroup2 mounted here shows the cgroup that this process is in (another cgroup namespace's?)",
        ))
    }

    /// `None` if that directory is another one: the list of mounts says where each was mounted, not what covers it.
    fn at(mount: &Mount, rest: &[u8]) -> Result<Option<Home>, Errno> {
        let point = open_directory(AT_FDCWD, Path::new(OsStr::from_bytes(&mount.point)))?;
        if !is_cgroup2(&point)? {
            return Ok(None);
        }
        let path = PathBuf::from(OsStr::from_bytes(&[&mount.point, rest].concat()));
        let directory = open_directory(AT_FDCWD, &path)?;
        if !is_cgroup2(&directory)? {
            return Ok(None);
        }
        let (me, mut found) = (Pid::current(), false);
        // EOPNOTSUPP in a threaded one.
        let list = read_at(&directory, Path::new("cgroup.procs"))?;
        cgroup::procs(&list, |pid| found |= pid == me).ok_or(Errno::EIO)?;
        Ok(if found { Some(Home { path, root: id_of(&point)?, directory }) } else { None })
    }
}

/// Whether the cgroups that this path went through are to be seen at its start now, as they were when it was made: then one
/// that cannot be found there is gone. Cgroups change neither their name nor their place.
pub(super) fn is_seen_from_here(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).and_then(Name::parse);
    name.is_some_and(|name| {
        path.ancestors().skip(1).any(|ancestor| {
            open_directory(AT_FDCWD, ancestor)
                .is_ok_and(|directory| is_cgroup(&directory, name.root).unwrap_or(false))
        })
    })
}

fn read(path: &CStr) -> Result<Vec<u8>> {
    procfs::read_all(path).map_err(|errno| Error::os(None, MAKE, errno.into()))
}

fn is_cgroup2(directory: impl AsFd) -> Result<bool, Errno> {
    Ok(fstatfs(directory)?.filesystem_type() == CGROUP2_SUPER_MAGIC)
}
