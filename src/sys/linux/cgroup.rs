//! A fresh cgroup v2 directory for one tree. Whoever is forked in it is in it, whoever its parent becomes; it says itself
//! whether anybody is left; and while anybody is, the kernel lets nobody remove it.

mod below;
mod home;
mod name;
mod sweep;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use nix::sys::uio::pread;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Error, Result};
use crate::parse::{self, keyed};
use crate::pid::Pid;
use crate::sys::backend::cgroup::home::Home;
use crate::sys::backend::cgroup::name::Name;
use crate::sys::backend::handle::Handle;
use crate::sys::backend::procfs::{self, ProcPath};

/// One cgroup, and never another. When dropped it is removed if nobody is in it; if somebody is, it stays: for a successor
/// who knows its path and id, or for the next tracker in the same cgroup, who removes it once it is empty.
///
/// A descriptor of it is locked (flock(2), shared) all the time: that is how a tracker that still needs an empty one is
/// told from one that is dead, in whichever PID namespace it lived.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    id: u64,
    directory: File,
    events: File,
}

const MAKE: &str = "make a cgroup for the tree";
const LOOK: &str = "look at the cgroup of the tree";

/// How many this process has made, those of the process that it was forked from included.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// A sweep looks at every cgroup beside the new one, so that a thousand trees would cost a million looks.
const SWEEP_EVERY: u64 = 32;

impl Cgroup {
    /// Makes one below the cgroup that the calling thread is in. Before that, removes what dead trackers have left there.
    ///
    /// # Errors
    ///
    /// [`is_denied`](Error::is_denied) where this user may not divide that cgroup, [`is_unsupported`](Error::is_unsupported)
    /// where nobody can: no cgroup2, none that shows that cgroup, read-only, threaded. Leaves nothing behind.
    ///
    /// # References
    ///
    /// cgroups(7), the kernel's admin-guide/cgroup-v2.rst, "Delegation Containment"
    pub(crate) fn create() -> Result<Cgroup> {
        let home = Home::find()?;
        let owner = Handle::open(Pid::current())?.identity(false);
        // Moving a process takes the right to write to this file of the cgroup above both, which is where it comes from,
        // and to that of the new one.
        open_at(&home.directory, c"cgroup.procs", OFlag::O_WRONLY).map_err(refused)?;
        for _ in 0..64 {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            if count % SWEEP_EVERY == 0 {
                sweep::sweep(&home);
            }
            let name = Name { owner, root: home.root, count }.to_string();
            match mkdirat(&home.directory, name.as_str(), Mode::from_bits_truncate(0o755)) {
                Ok(()) => {}
                Err(Errno::EEXIST) => continue,
                Err(errno) => return Err(refused(errno)),
            }
            let made = Cgroup::claim(&home, &name);
            if !matches!(made, Ok(Some(_))) {
                let _ = unlinkat(&home.directory, name.as_str(), UnlinkatFlags::RemoveDir);
            }
            // Else it was swept between the two: until it is locked, nobody can know that it is needed.
            if let Some(cgroup) = made? {
                return Ok(cgroup);
            }
        }
        Err(Error::malformed(None, MAKE, "others remove each one as soon as it is there"))
    }

    /// `None` if somebody else has it, or has removed it.
    fn claim(home: &Home, name: &str) -> Result<Option<Cgroup>> {
        let lost = |errno| matches!(errno, Errno::ENOENT | Errno::ENODEV | Errno::EWOULDBLOCK);
        let path = home.path.join(name);
        let cgroup = match open_directory(&home.directory, Path::new(name))
            .and_then(|directory| match lock(&directory, libc::LOCK_SH) {
                Err(Errno::EWOULDBLOCK) => Err(Errno::EWOULDBLOCK),
                // Where there are no locks nobody sweeps either.
                _ => Ok(directory),
            })
            .and_then(|directory| Cgroup::of(path, directory))
        {
            Ok(cgroup) => cgroup,
            Err(errno) if lost(errno) => return Ok(None),
            Err(errno) => return Err(refused(errno)),
        };
        open_at(&cgroup.directory, c"cgroup.procs", OFlag::O_WRONLY).map_err(refused)?;
        // Below a threaded one it says "domain invalid", and takes no process.
        match read_at(&cgroup.directory, Path::new("cgroup.type")) {
            Ok(text) if text != b"domain\n" => Err(refused(Errno::EOPNOTSUPP)),
            // Before Linux 4.14 there are no others.
            Ok(_) | Err(Errno::ENOENT) => Ok(Some(cgroup)),
            Err(errno) => Err(refused(errno)),
        }
    }

    /// Finds one again, by the path and the id that it had. `None` if it is not there any more, which is proof that nobody
    /// is in it.
    ///
    /// # Errors
    ///
    /// [`is_foreign`](Error::is_foreign) where that cannot be told, because the cgroups that the path went through are not
    /// to be seen here: in another cgroup namespace, or where cgroup2 is mounted elsewhere.
    pub(crate) fn reopen(path: &Path, id: u64) -> Result<Option<Cgroup>> {
        const TRIED: &str = "find the cgroup of the tree again";
        let failed = |errno: Errno| Error::os(None, TRIED, errno.into());
        let found = match open_directory(AT_FDCWD, path) {
            Ok(directory) if is_cgroup(&directory, id).map_err(failed)? => {
                // If a sweep has it, it is empty, and whether it stays does not matter.
                let _ = lock(&directory, libc::LOCK_SH);
                match Cgroup::of(path.to_owned(), directory) {
                    Ok(cgroup) => return Ok(Some(cgroup)),
                    Err(errno) => Err(errno),
                }
            }
            Ok(_) => Err(Errno::ENOENT),
            Err(errno) => Err(errno),
        };
        match found {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV) if home::is_seen_from_here(path) => Ok(None),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV) => Err(Error::foreign(
                None,
                TRIED,
                "what is mounted there now does not show the cgroups that it was among",
            )),
            Err(errno) => Err(failed(errno)),
            Ok(cgroup) => Ok(Some(cgroup)),
        }
    }

    fn of(path: PathBuf, directory: File) -> Result<Cgroup, Errno> {
        let events = open_at(&directory, c"cgroup.events", OFlag::O_RDONLY)?;
        let id = id_of(&directory)?;
        Ok(Cgroup { path, id, directory, events })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The number that the kernel gives to no other cgroup of this boot.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Puts a process in, and with it whatever it starts from now on. The PID must be pinned by the caller, as that of a child
    /// is that has not been reaped.
    pub(crate) fn add(&self, pid: Pid) -> Result<()> {
        open_at(&self.directory, c"cgroup.procs", OFlag::O_WRONLY)
            .and_then(|procs| nix::unistd::write(procs, pid.to_string().as_bytes()))
            .map(drop)
            .map_err(|errno| Error::os(pid, "give a cgroup of its own to process", errno.into()))
    }

    /// The file that changes when it becomes empty or populated, or is frozen or thawed (trap 3): poll(2) with POLLPRI. It
    /// stays ready until `is_populated` is asked, and for good once the cgroup is removed.
    pub(crate) fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Whether anybody is in it or in a cgroup below. Zombies do not count.
    pub(crate) fn is_populated(&self) -> Result<bool> {
        is_populated(&self.events).map_err(|errno| Error::os(None, LOOK, errno.into()))
    }

    /// Who is in it or in a cgroup below, in ascending order. One that moves from one of them to another meanwhile can be
    /// missed. Not among them: zombies, and processes of PID namespaces that cannot be seen from ours.
    pub(crate) fn members(&self) -> Result<Vec<Pid>> {
        let failed = |error: io::Error| Error::os(None, "list the members of the cgroup of the tree", error);
        let mut members = Vec::new();
        let below = below::list(&self.directory).map_err(failed)?;
        for path in std::iter::once(PathBuf::new()).chain(below) {
            let read = read_at(&self.directory, &path.join("cgroup.procs"));
            let parsed = match read {
                Ok(text) => parse::cgroup::procs(&text, |pid| members.push(pid)),
                Err(Errno::ENOENT | Errno::ENODEV) => continue,
                // Threaded: whoever has a thread there is listed in the one above that is not.
                Err(Errno::EOPNOTSUPP) if !path.as_os_str().is_empty() => continue,
                Err(errno) => return Err(failed(errno.into())),
            };
            parsed.ok_or_else(|| failed(Errno::EIO.into()))?;
        }
        members.sort_unstable();
        members.dedup();
        Ok(members)
    }

    /// Whether the calling process is in it or in a cgroup below.
    pub(crate) fn contains_self(&self) -> Result<bool> {
        Ok(self.members()?.binary_search(&Pid::current()).is_ok())
    }

    /// Through which cgroups one reaches the one that a process is in, as a text in which each has its name between slashes;
    /// `None` if it cannot be read.
    pub(crate) fn names_above(pid: Pid) -> Option<Vec<u8>> {
        procfs::read_all(ProcPath::new(pid, "/cgroup").as_c_str()).ok()
    }

    /// Moves the calling process, with all its threads, to the cgroup above, if it is in this one.
    pub(crate) fn leave(&self) -> Result<()> {
        if !self.contains_self()? {
            return Ok(());
        }
        open_at(&self.directory, c"../cgroup.procs", OFlag::O_WRONLY)
            .and_then(|procs| nix::unistd::write(procs, b"0"))
            .map(drop)
            .map_err(|errno| Error::os(None, "leave the cgroup of the tree", errno.into()))
    }

    /// Kills everybody in it and below, those included that are just being forked. `false` where the kernel cannot do that
    /// (before 5.14).
    pub(crate) fn kill(&self) -> Result<bool> {
        let killed = open_at(&self.directory, c"cgroup.kill", OFlag::O_WRONLY)
            .and_then(|file| nix::unistd::write(file, b"1"));
        match killed {
            Ok(_) | Err(Errno::ENODEV) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(Error::os(None, "kill the cgroup of the tree", errno.into())),
        }
    }

    /// Removes it and the cgroups below; `false` if anybody is in one of them. Unreaped zombies are in the way of nothing.
    pub(crate) fn remove(&self) -> Result<bool> {
        let failed = |error: io::Error| Error::os(None, "remove the cgroup of the tree", error);
        let Some(name) = self.path.file_name() else { return Ok(false) };
        // A cgroup made below it meanwhile, or an ending process that the kernel has not let go of yet.
        for _ in 0..16 {
            if self.is_populated()? {
                return Ok(false);
            }
            // Alone, which takes no descriptor: there may be none left.
            let removed =
                match unlinkat(&self.directory, &Path::new("..").join(name), UnlinkatFlags::RemoveDir) {
                    Err(Errno::EBUSY | Errno::ENOTEMPTY) => open_directory(&self.directory, Path::new(".."))
                        .map_err(io::Error::from)
                        .and_then(|parent| below::remove(&parent, Path::new(name), &self.directory)),
                    removed => removed.map_err(io::Error::from),
                };
            match removed.as_ref().map_err(raw_errno) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(true),
                Err(Errno::EBUSY) => {}
                Err(_) => removed.map_err(failed)?,
            }
        }
        Ok(false)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// What it means that a cgroup cannot be made.
fn refused(errno: Errno) -> Error {
    let unsupported = |reason| Error::unsupported(None, MAKE, reason);
    let said = |kind, reason: &str| Error::os(None, MAKE, io::Error::new(kind, reason));
    match errno {
        Errno::EROFS => unsupported("cgroup2 is mounted read-only here"),
        Errno::EOPNOTSUPP => {
            unsupported("the cgroup that this process is in is threaded, and no process can be put below it")
        }
        Errno::EACCES | Errno::EPERM => said(
            io::ErrorKind::PermissionDenied,
            "the cgroup that this process is in is not delegated to it (start it with systemd-run --user --scope?)",
        ),
        Errno::EAGAIN | Errno::ENOSPC => said(
            io::ErrorKind::Other,
            "the cgroups above allow no more below them (cgroup.max.descendants, cgroup.max.depth)",
        ),
        errno => Error::os(None, MAKE, errno.into()),
    }
}

fn open_at<P: ?Sized + nix::NixPath>(directory: impl AsFd, path: &P, flags: OFlag) -> Result<File, Errno> {
    openat(directory, path, flags | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
}

fn open_directory(at: impl AsFd, path: &Path) -> Result<File, Errno> {
    open_at(at, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

fn read_at(directory: &File, path: &Path) -> Result<Vec<u8>, Errno> {
    let file = open_at(directory, path, OFlag::O_RDONLY)?.into();
    let mut text = Vec::new();
    procfs::read_to_end(&file, &mut text)?;
    Ok(text)
}

/// A removed one has nobody in it.
fn is_populated(events: &File) -> Result<bool, Errno> {
    let mut text = [0; 256];
    match pread(events, &mut text, 0) {
        Ok(length) => {
            keyed::number(&text[..length], "populated").map(|number| number != 0).ok_or(Errno::EBADMSG)
        }
        Err(Errno::ENODEV) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn is_cgroup(directory: &File, id: u64) -> Result<bool, Errno> {
    Ok(fstatfs(directory)?.filesystem_type() == CGROUP2_SUPER_MAGIC && id_of(directory)? == id)
}

fn id_of(directory: &File) -> Result<u64, Errno> {
    directory.metadata().map(|metadata| metadata.ino()).map_err(|error| raw_errno(&error))
}

/// Never waits for whoever has the lock. It ends with the last copy of the descriptor, however the process ends.
fn lock(directory: &File, how: i32) -> Result<(), Errno> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let result = unsafe { libc::flock(directory.as_raw_fd(), how | libc::LOCK_NB) };
    Errno::result(result).map(drop)
}

fn raw_errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests;
