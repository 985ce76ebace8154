//! A mount, from the moment it is there until nothing of it is left.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use fuser::{Config, INodeNo, Notifier, SessionACL};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use nix::sys::statvfs::statvfs;

use super::answers::{Answers, VIEWS};
use super::filesystem::Requests;
use super::mountinfo::{MountLine, mounts_at};
use crate::Error;
use crate::mount::{Ended, MountOptions, Shown};
use crate::views::{Audience, ViewId};

/// What mountinfo names as our source: so a later service knows what an earlier one left.
const SOURCE: &str = "spfs";

const DEVICE: &str = "/dev/fuse";

/// How long a mount may take to say that it is alive, or its threads to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A mount and the threads that answer for it.
pub(crate) struct Session {
    mounted: Arc<Mounted>,
    runner: Mutex<Option<JoinHandle<()>>>,
    ended: Ended,
    requests: Arc<AtomicU64>,
    _kernel: Arc<dyn Audience>,
}

impl Session {
    pub(crate) fn start(mountpoint: &Path, shown: Shown, options: &MountOptions) -> Result<Session, Error> {
        let path = canonical(mountpoint).map_err(|error| Error::path("mount at", mountpoint, error))?;
        make_room(&path)?;
        if !path.is_dir() {
            return Err(Error::path("mount at", &path, Errno::ENOTDIR.into()));
        }
        let views = match &shown {
            Shown::Views(views) => Some(views.clone()),
            Shown::Alone(_) => None,
        };
        let requests = Arc::new(AtomicU64::new(0));
        let answers =
            Answers::new(shown, requests.clone()).map_err(|error| Error::system("read the layers", error))?;
        if !Path::new(DEVICE).exists() {
            let reason =
                "there is no /dev/fuse here: load the module (modprobe fuse), or run where FUSE is allowed";
            return Err(Error::unsupported(reason));
        }
        let (ended, end) = Ended::pair().map_err(|error| Error::system("make a pipe", error))?;
        let (device, mounted) = Mounted::new(path.clone(), options.allow_other)
            .map_err(|error| Error::path("mount at", &path, error))?;
        let mounted = Arc::new(mounted);
        // Until somebody answers, an error must not leave it behind
        let undo = |error: Error| {
            if let Err(error) = mounted.detach() {
                tracing::error!(mountpoint = %path.display(), %error, "cannot unmount");
            }
            error
        };

        let mut config = Config::default();
        config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(options.threads);
        config.clone_fd = options.threads > 1;
        let acl = config.acl;
        let session = fuser::Session::from_fd(Requests(answers), device, acl, config)
            .map_err(|error| undo(Error::path("start to answer for the mount at", &path, error)))?;

        let kernel: Arc<dyn Audience> =
            Arc::new(Kernel { notifier: session.notifier(), device: mounted.device });
        if let Some(views) = views {
            views.show_to(Arc::downgrade(&kernel));
        }
        let last = mounted.clone();
        let runner = std::thread::Builder::new().name("spfs-mount".to_owned());
        let runner = runner.spawn(move || {
            // Held to the end, that of a panic included
            let _end = end;
            match session.run() {
                Ok(()) => tracing::info!(mountpoint = %last.path.display(), "the mount has ended"),
                Err(error) => {
                    tracing::error!(mountpoint = %last.path.display(), %error, "the mount has broken")
                }
            }
            // Nobody answers any more. Most often because it was unmounted: whoever mounted there since may have its number.
            if last.is_dead()
                && let Err(error) = last.detach()
            {
                tracing::error!(mountpoint = %last.path.display(), %error, "cannot unmount");
            }
        });
        let runner = runner.map_err(|error| undo(Error::system("start a thread", error)))?;
        Ok(Session { mounted, runner: Mutex::new(Some(runner)), ended, requests, _kernel: kernel })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mounted.path
    }

    pub(crate) fn ended(&self) -> Ended {
        self.ended.clone()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn finish(&self) -> io::Result<()> {
        let mut runner = self.runner.lock().unwrap_or_else(PoisonError::into_inner);
        if runner.is_none() {
            return Ok(());
        }
        // What has ended took its mount along
        if !self.ended.wait(Some(Duration::ZERO)) {
            self.mounted.detach()?;
        }
        let Some(runner) = runner.take() else { return Ok(()) };
        if self.ended.wait(Some(PATIENCE)) {
            let _ = runner.join();
        } else {
            // Somebody detached it lazily and somebody uses it: it ends with this process
            tracing::warn!(mountpoint = %self.mounted.path.display(), "unmounted, but still in use");
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::error!(mountpoint = %self.mounted.path.display(), %error, "cannot unmount");
        }
    }
}

/// Tells the kernel of views that leave.
struct Kernel {
    notifier: Notifier,
    device: u64,
}

impl Audience for Kernel {
    fn withdrawn(&self, id: ViewId) {
        let name = id.to_string();
        if let Err(error) = self.notifier.inval_entry(INodeNo(VIEWS), name.as_ref()) {
            // At worst the kernel goes on to remember a number that is never given again
            tracing::debug!(view = %id, %error, "the kernel was not told of a view that left");
        }
    }

    fn device(&self) -> u64 {
        self.device
    }
}

/// What mount(2) did, to be undone.
struct Mounted {
    path: PathBuf,
    id: u64,
    device: u64,
}

impl Mounted {
    fn new(path: PathBuf, allow_other: bool) -> io::Result<(OwnedFd, Mounted)> {
        let device = nix::fcntl::open(DEVICE, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        let mut data = format!(
            "fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions",
            device.as_raw_fd()
        );
        if allow_other {
            data.push_str(",allow_other");
        }
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(SOURCE), &path, Some("fuse"), flags, Some(data.as_str()))?;
        let mut mounted = Mounted { path, id: 0, device: 0 };
        match mounts_at(&mounted.path).map(|mut mounts| mounts.pop()) {
            Ok(Some(line)) if line.is_ours() => {
                (mounted.id, mounted.device) = (line.id, line.device);
                Ok((device, mounted))
            }
            other => {
                umount2(&mounted.path, MntFlags::MNT_DETACH)?;
                Err(other
                    .err()
                    .unwrap_or_else(|| io::Error::other("it was covered by another mount at once")))
            }
        }
    }

    fn is_dead(&self) -> bool {
        matches!(ask(self.path.clone()), Some(Err(error)) if is_dead(&error))
    }

    /// Takes this mount away, and no other; not being there any more is as good.
    fn detach(&self) -> io::Result<()> {
        let mounts = mounts_at(&self.path)?;
        match mounts.iter().rposition(|line| line.id == self.id) {
            None => Ok(()),
            // Forced, so that no request waits for an answer any more; detached, because somebody may be in it
            Some(at) if at + 1 == mounts.len() => {
                let flags = MntFlags::MNT_FORCE | MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
                Ok(umount2(&self.path, flags)?)
            }
            Some(_) => Err(Errno::EBUSY.into()),
        }
    }
}

impl MountLine {
    fn is_ours(&self) -> bool {
        self.kind == b"fuse" && self.source == SOURCE.as_bytes()
    }
}

/// The path without symbolic links. What is mounted there may be dead, so its parent is asked.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if is_dead(&error) => match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                Ok(parent.canonicalize()?.join(name))
            }
            _ => Err(error),
        },
        canonical => canonical,
    }
}

fn is_dead(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENOTCONN | Errno::ECONNABORTED | Errno::ENODEV)
    )
}

/// Unmounts what an earlier service left dead, however often, and refuses what is alive.
fn make_room(path: &Path) -> Result<(), Error> {
    let failed = |error| Error::path("look at what is mounted at", path, error);
    while let Some(top) = mounts_at(path).map_err(failed)?.pop() {
        let answer = ask(path.to_owned());
        let dead = matches!(&answer, Some(Err(error)) if is_dead(error));
        match (top.is_ours(), dead) {
            (true, true) => {
                tracing::warn!(mountpoint = %path.display(), "a dead mount was left here: unmounting it");
                umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(|error| {
                    Error::path("unmount what an earlier service left at", path, error.into())
                })?;
            }
            (true, false) => {
                return Err(Error::busy(
                    path,
                    "a service works there already; stop it, or choose another place",
                ));
            }
            (false, true) => {
                return Err(Error::busy(path, "a dead mount that is not ours is there; unmount it first"));
            }
            (false, false) => break,
        }
    }
    Ok(())
}

/// Asks a mount about its space, which the kernel never answers for it, as it does about a root that it remembers; `None` if there is no
/// answer in time.
fn ask(path: PathBuf) -> Option<io::Result<()>> {
    let (told, answer) = mpsc::channel();
    let asking = std::thread::Builder::new().name("spfs-ask".to_owned()).spawn(move || {
        let _ = told.send(statvfs(&path).map(drop).map_err(io::Error::from));
    });
    match asking {
        Ok(_) => answer.recv_timeout(PATIENCE).ok(),
        Err(error) => Some(Err(error)),
    }
}

/// Raises the soft limit of open files to the hard one: each layer of each view and each open file takes one.
pub(crate) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use crate::{Mount, MountOptions};
    use pidigree_testkit::{is_root, require};

    #[test]
    fn a_panic_in_a_request_is_an_error_for_its_caller_alone() {
        require!(is_root(), "needs root to mount");
        let folder = tempfile::tempdir().unwrap();
        let (layer, at) = (folder.path().join("layer"), folder.path().join("at"));
        std::fs::create_dir(&layer).unwrap();
        std::fs::create_dir(&at).unwrap();
        std::fs::write(layer.join("file"), "text").unwrap();
        let mount = Mount::of_layers(&at, &[layer], MountOptions::default()).unwrap();
        // More often than there are threads
        for _ in 0..20 {
            let error = std::fs::metadata(at.join(super::super::answers::PANICS)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
        }
        assert_eq!(std::fs::read_to_string(at.join("file")).unwrap(), "text");
        mount.unmount().unwrap();
    }
}
