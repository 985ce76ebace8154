//! The mount that shows views.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::layers::Stack;
use crate::sys::{self, Session};
use crate::views::View;
use crate::{Error, Views};

/// How a mount works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MountOptions {
    /// How many threads answer requests. As many as there are processors, but 2 to 8, by default.
    pub threads: usize,
    /// Whether other users than the one that mounts may use the mount (`allow_other`). They may by default: who may enter which
    /// view, its owner and mode say.
    pub allow_other: bool,
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        MountOptions { threads: processors.clamp(2, 8), allow_other: true }
    }
}

/// A mount. Dropping it unmounts: no dead mount stays behind, in a panic neither.
///
/// It is read-only, nosuid and nodev, and the kernel checks permissions. It is Linux's FUSE; on macOS nothing can be mounted yet.
pub struct Mount {
    session: Session,
    path: PathBuf,
}

impl Mount {
    /// Mounts at a directory and starts to answer.
    ///
    /// A dead mount that an earlier service left there is unmounted first.
    ///
    /// # Errors
    ///
    /// - [`is_busy`](Error::is_busy): a service is there and works, or something dead that is not ours.
    /// - [`is_unsupported`](Error::is_unsupported): this system cannot do it.
    /// - [`is_invalid`](Error::is_invalid): the mount point is not there or no directory.
    pub fn new(mountpoint: &Path, views: Views, options: MountOptions) -> Result<Mount, Error> {
        Mount::of(mountpoint, Shown::Views(views), &options)
    }

    /// Mounts one stack of layers, for everybody: its root is the root of the mount, and nobody is routed.
    ///
    /// # Errors
    ///
    /// As [`Mount::new`], and as [`Stack::open`].
    pub fn of_layers(mountpoint: &Path, layers: &[PathBuf], options: MountOptions) -> Result<Mount, Error> {
        sys::raise_file_limit();
        let view = View::alone(Stack::open(layers)?);
        Mount::of(mountpoint, Shown::Alone(Arc::new(view)), &options)
    }

    fn of(mountpoint: &Path, shown: Shown, options: &MountOptions) -> Result<Mount, Error> {
        if options.threads == 0 {
            return Err(Error::invalid("a mount needs at least one thread".to_owned()));
        }
        let session = Session::start(mountpoint, shown, options)?;
        let path = session.path().to_owned();
        tracing::info!(mountpoint = %path.display(), threads = options.threads, "mounted");
        Ok(Mount { session, path })
    }

    /// Returns where it is mounted, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns something to wait on for the end of the mount, by whomever: `umount`, say.
    ///
    /// A mount that was detached lazily while something of it was in use ends with that use.
    pub fn ended(&self) -> Ended {
        self.session.ended()
    }

    /// Returns how many requests of the kernel were answered so far. What the kernel remembers it does not ask for, and what it
    /// forgets is not counted.
    pub fn requests(&self) -> u64 {
        self.session.requests()
    }

    /// Unmounts. Whatever is still in use of it answers `ENOTCONN` from now on.
    ///
    /// # Errors
    ///
    /// The kernel refuses, and says why.
    pub fn unmount(self) -> Result<(), Error> {
        self.session.finish().map_err(|error| Error::path("unmount", &self.path, error))
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a mount shows.
pub(crate) enum Shown {
    /// `self` and `views`.
    Views(Views),
    /// One view for all.
    Alone(Arc<View>),
}

/// The end of a mount, to be waited for. Its descriptor is readable (hung up) once the mount has ended, so it composes with poll,
/// epoll and tokio's `AsyncFd`.
#[derive(Clone, Debug)]
pub struct Ended(Arc<OwnedFd>);

impl Ended {
    /// The writing end is to be dropped at the end.
    pub(crate) fn pair() -> io::Result<(Ended, io::PipeWriter)> {
        let (read, write) = io::pipe()?;
        Ok((Ended(Arc::new(read.into())), write))
    }

    /// Waits for the end of the mount, and returns whether it came in time.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let begun = std::time::Instant::now();
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
            let limit = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
            });
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match nix::poll::poll(&mut fds, limit) {
                Ok(1..) => return true,
                Ok(_) | Err(_) if left.is_some_and(|left| left.is_zero()) => return false,
                Ok(_) | Err(_) => {}
            }
        }
    }
}

impl AsFd for Ended {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Ended {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
