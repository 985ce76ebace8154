//! The folder that is mounted on: claimed before, and looked at afterwards.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;
use tracing::warn;

use super::sys::{self, Standing};
use crate::failure::{Failure, Kind};

/// How often to look anew, when what was looked at was mounted or unmounted meanwhile.
const TRIES: usize = 16;

/// How often a lock is asked for again: between fork and exec, a child of its last holder has it for a moment.
const LENT: usize = 10;

/// The folder below the mount, held by a lock: nobody else mounts here while this lives.
#[derive(Debug)]
pub(super) struct Mountpoint {
    path: PathBuf,
    below: Flock<File>,
}

impl Mountpoint {
    /// Claims a folder to mount on. Mounts there whose program has ended are taken away first.
    pub(super) fn claim(path: &Path) -> Result<Mountpoint, Failure> {
        let path = resolve(path)?;
        let at = path.display();
        for _ in 0..TRIES {
            let pin = match sys::look(&path).map_err(|error| explain(&path, &error))? {
                Standing::Free(pin) => pin,
                Standing::Fuse => {
                    return Err(Failure::new(
                        Kind::Taken,
                        format!("a FUSE file system is mounted at {at}; stop its service, or umount {at}"),
                    ));
                }
                Standing::Dead(pin) => {
                    warn!("the program that was mounted at {at} has ended; its mount is taken away");
                    sys::clear(&pin).map_err(|error| {
                        Failure::error(format!(
                            "a dead mount stands at {at} and cannot be taken away: {error}"
                        ))
                    })?;
                    continue;
                }
            };
            let below = lock(&pin, &path)?;
            // Somebody may have mounted between the look and the lock, and ended since
            if is_still(&below, &path) {
                is_empty(&pin, &path)?;
                return Ok(Mountpoint { path, below });
            }
        }
        Err(Failure::new(Kind::Taken, format!("others keep mounting and unmounting at {at}")))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether something is mounted on the folder.
    pub(super) fn is_covered(&self) -> io::Result<bool> {
        let (below, found) = (self.below.metadata()?, fs::metadata(&self.path)?);
        Ok((below.dev(), below.ino()) != (found.dev(), found.ino()))
    }
}

/// The path without links, also of a dead mount, which answers nothing.
fn resolve(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: &io::Error| explain(path, error);
    let resolved = match fs::canonicalize(path) {
        Ok(resolved) => resolved,
        Err(error) if error.raw_os_error() == Some(Errno::ENOTCONN as i32) => {
            let absolute = std::path::absolute(path).map_err(|error| failed(&error))?;
            match (absolute.parent(), absolute.file_name()) {
                (Some(parent), Some(name)) => {
                    fs::canonicalize(parent).map_err(|error| failed(&error))?.join(name)
                }
                _ => absolute,
            }
        }
        Err(error) => return Err(failed(&error)),
    };
    if resolved.parent().is_none() {
        return Err(Failure::error("nothing is mounted on the root folder; name one below it"));
    }
    Ok(resolved)
}

fn explain(path: &Path, error: &io::Error) -> Failure {
    let at = path.display();
    match error.kind() {
        ErrorKind::NotFound => {
            Failure::error(format!("there is no folder {at} to mount on; make it first: mkdir {at}"))
        }
        ErrorKind::NotADirectory => {
            Failure::error(format!("{at} is no folder, and nothing can be mounted on it"))
        }
        ErrorKind::PermissionDenied => Failure::new(Kind::Denied, format!("{at} cannot be entered: {error}")),
        _ => Failure::error(format!("cannot mount on {at}: {error}")),
    }
}

/// Locks the very folder that is pinned, whatever is mounted on it by now.
fn lock(pin: &OwnedFd, path: &Path) -> Result<Flock<File>, Failure> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = openat(pin, ".", flags, Mode::empty()).map_err(|error| explain(path, &error.into()))?;
    let mut folder = File::from(folder);
    for _ in 0..LENT {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((file, Errno::EWOULDBLOCK)) => folder = file,
            Err((_, error)) => return Err(explain(path, &error.into())),
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(Failure::new(
        Kind::Taken,
        format!(
            "another spfs-fuse, with a socket of its own, is starting, serving or ending at {}",
            path.display()
        ),
    ))
}

fn is_still(below: &File, path: &Path) -> bool {
    match (sys::look(path), below.metadata()) {
        (Ok(Standing::Free(pin)), Ok(held)) => File::from(pin)
            .metadata()
            .is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino())),
        _ => false,
    }
}

fn is_empty(pin: &OwnedFd, path: &Path) -> Result<(), Failure> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let failed = |error: Errno| explain(path, &error.into());
    let mut folder = Dir::openat(pin, ".", flags, Mode::empty()).map_err(failed)?;
    for entry in folder.iter() {
        let name = entry.map_err(failed)?.file_name().to_bytes().to_owned();
        if name != b"." && name != b".." {
            return Err(Failure::error(format!(
                "{} is not empty: a mount would hide what is in there, such as {}",
                path.display(),
                String::from_utf8_lossy(&name)
            )));
        }
    }
    Ok(())
}
