//! What stays the same while this process lives: asked once, and again in a child of fork.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::statfs::{FsType, fstatfs};
use nix::time::{ClockId, clock_gettime};

use crate::error::{Error, Result};
use crate::identity::{BootId, StartTime};
use crate::parse;
use crate::pid::Pid;
use crate::sys::backend::procfs;
use crate::sys::backend::syscall::{self, PIDFD_THREAD, PidfdInfo};
use crate::sys::posix;

/// Where this process stands, and what its kernel or sandbox lets it do.
#[derive(Debug)]
pub(crate) struct World {
    /// This process, without a system call.
    pub(super) me: Pid,
    /// pidfd_open(2), Linux 5.3.
    pub(super) pidfd: bool,
    /// Pidfds are inodes of pidfs, whose numbers no two processes of a boot share: Linux 6.9.
    pub(super) pidfs: bool,
    /// PIDFD_THREAD, Linux 6.9.
    pub(super) thread: bool,
    /// PIDFD_GET_INFO, Linux 6.13.
    pub(super) info: bool,
    /// pidfd_send_signal(2), Linux 5.1.
    pub(super) signal: bool,
    /// /proc/PID/task/TID/children, a build option of the kernel.
    pub(super) children: bool,
    pub(super) proc: Proc,
    /// What our time namespace adds to CLOCK_BOOTTIME.
    pub(super) time_offset: Option<i64>,
    pub(crate) boot: Option<BootId>,
    pub(crate) pid_namespace: Option<u64>,
}

/// What is mounted at /proc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proc {
    Ours,
    Absent,
    /// The procfs of another PID namespace: its numbers are not ours.
    Foreign,
}

/// The file system type of pidfds since Linux 6.9; before, they share an anonymous inode (trap 7).
const PIDFS_MAGIC: FsType = FsType(0x5049_4446);

/// # Errors
///
/// [`is_limit`](Error::is_limit) where there was no descriptor left to probe with. Nothing is remembered then.
#[inline]
pub(crate) fn world() -> Result<&'static World> {
    match remembered().world() {
        Some(world) => Ok(world),
        None => probe_and_remember(),
    }
}

#[cold]
fn probe_and_remember() -> Result<&'static World> {
    let world = probe().map_err(|errno| Error::os(None, "find out what this kernel offers", errno.into()))?;
    crate::debug!(?world, "probed");
    Ok(remembered().remember(world))
}

struct Remembered {
    world: AtomicPtr<World>,
    /// Not 0 in the process for which `world` was probed.
    here: &'static AtomicU8,
    /// That process, where the kernel cannot reset `here` for us.
    pid: Option<AtomicU32>,
}

/// No lock: a fork by one thread while another is in here must not leave the child one that is never unlocked.
#[inline]
fn remembered() -> &'static Remembered {
    static REMEMBERED: AtomicPtr<Remembered> = AtomicPtr::new(std::ptr::null_mut());
    // SAFETY: only pointers from `Box::leak` are stored, and never freed.
    match unsafe { REMEMBERED.load(Ordering::Acquire).as_ref() } {
        Some(remembered) => remembered,
        None => first(&REMEMBERED),
    }
}

/// Of threads that come here at once, one wins, and the others leak a page.
#[cold]
fn first(place: &AtomicPtr<Remembered>) -> &'static Remembered {
    static NEVER_WIPED: AtomicU8 = AtomicU8::new(0);
    let wiped = syscall::wiped_on_fork();
    let ours = Box::leak(Box::new(Remembered {
        world: AtomicPtr::new(std::ptr::null_mut()),
        here: wiped.unwrap_or(&NEVER_WIPED),
        pid: wiped.is_none().then(|| AtomicU32::new(0)),
    }));
    match place.compare_exchange(std::ptr::null_mut(), ours, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => ours,
        // SAFETY: as in `remembered`: it is not null, and was leaked by the thread that won.
        Err(theirs) => unsafe { &*theirs },
    }
}

impl Remembered {
    #[inline]
    fn world(&self) -> Option<&'static World> {
        if self.here.load(Ordering::Acquire) == 0 {
            return None;
        }
        if let Some(pid) = &self.pid {
            if pid.load(Ordering::Relaxed) != Pid::current().get() {
                return None;
            }
        }
        // SAFETY: `here` is only set after a pointer from `Box::leak` was stored, and it is never freed.
        unsafe { self.world.load(Ordering::Acquire).as_ref() }
    }

    /// Leaks one small value for each generation of forks that asks.
    fn remember(&self, world: World) -> &'static World {
        let world: &'static World = Box::leak(Box::new(world));
        self.world.store(std::ptr::from_ref(world).cast_mut(), Ordering::Release);
        if let Some(pid) = &self.pid {
            pid.store(Pid::current().get(), Ordering::Relaxed);
        }
        self.here.store(1, Ordering::Release);
        world
    }
}

fn probe() -> Result<World, Errno> {
    let me = Pid::current();
    let proc = proc_now()?;
    let mut world = World {
        me,
        pidfd: false,
        pidfs: false,
        thread: false,
        info: false,
        signal: false,
        children: false,
        proc,
        time_offset: None,
        boot: None,
        pid_namespace: None,
    };
    if !cfg!(pidigree_force_procfs) {
        if let Some(fd) = offered(syscall::pidfd_open(me, 0))? {
            world.pidfd = true;
            world.info = offered(syscall::pidfd_info(fd.as_fd(), PidfdInfo::PID))?.is_some();
            world.signal = offered(syscall::pidfd_send_signal(fd.as_fd(), 0))?.is_some();
            // An inode number has 64 bits only where `ino_t` has.
            world.pidfs = size_of::<libc::ino_t>() == 8 && is_on_pidfs(&fd)?;
            let tid = Pid::from_raw(nix::unistd::gettid().as_raw()).unwrap_or(me);
            world.thread = offered(syscall::pidfd_open(tid, PIDFD_THREAD))?.is_some();
        }
    }
    if proc == Proc::Absent {
        return Ok(world);
    }
    // These are of this process and boot, whichever namespace's numbers the procfs shows.
    world.boot =
        read(c"/proc/sys/kernel/random/boot_id")?.and_then(|text| parse::uuid::parse(&text)).map(BootId);
    world.pid_namespace = inode("/proc/thread-self/ns/pid");
    world.time_offset = time_offset()?;
    if proc == Proc::Ours {
        world.children = read(c"/proc/thread-self/children")?.is_some();
        if !world.signal {
            // It takes a directory of /proc as well as a pidfd.
            let directory = procfs::open_directory(me)?;
            world.signal = offered(syscall::pidfd_send_signal(directory.as_fd(), 0))?.is_some();
        }
    }
    Ok(world)
}

/// What is mounted at /proc at this moment: setns(2), chroot(2) and mount(2) can change it.
fn proc_now() -> Result<Proc, Errno> {
    match procfs::own_pid() {
        Ok(pid) if pid == Pid::current() && is_own_number_alone()? => Ok(Proc::Ours),
        Ok(_) => Ok(Proc::Foreign),
        Err(errno) if is_shortage(errno) => Err(errno),
        Err(_) => Ok(Proc::Absent),
    }
}

/// `None` for a call that is not offered; an error only for a shortage, which says nothing about that.
fn offered<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(errno) if is_shortage(errno) => Err(errno),
        Err(_) => Ok(None),
    }
}

fn is_on_pidfs(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(offered(fstatfs(fd))?.is_some_and(|fs| fs.filesystem_type() == PIDFS_MAGIC))
}

fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)
}

fn read(path: &std::ffi::CStr) -> Result<Option<Vec<u8>>, Errno> {
    offered(procfs::read_all(path))
}

/// A number can be ours in two namespaces at once. The procfs of an outer one shows a process's numbers in all of those
/// below it; before Linux 4.1 it shows none, and the number has to do.
fn is_own_number_alone() -> Result<bool, Errno> {
    let Some(text) = read(c"/proc/thread-self/status")? else { return Ok(false) };
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"NStgid:"));
    let numbers =
        |line: &[u8]| line.split(u8::is_ascii_whitespace).filter(|number| !number.is_empty()).count();
    Ok(line.is_none_or(|line| numbers(line) == 1))
}

fn inode(path: &str) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// Kernels without time namespaces shift nothing. A process whose children are to live in another time namespace than
/// itself is only told the children's offset, so its own is not known. (Of a process, /proc/self is its main thread, which
/// may have ended.)
fn time_offset() -> Result<Option<i64>, Errno> {
    let own = match std::fs::metadata("/proc/thread-self/ns/time") {
        Ok(metadata) => metadata.ino(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(0)),
        Err(_) => return Ok(None),
    };
    if inode("/proc/thread-self/ns/time_for_children") != Some(own) {
        return Ok(None);
    }
    Ok(read(c"/proc/thread-self/timens_offsets")?
        .or(read(c"/proc/self/timens_offsets")?)
        .and_then(|text| parse::timens_offsets::boottime(&text)))
}

/// Ticks of CLOCK_BOOTTIME that have passed, on the scale of the start times in /proc/PID/stat.
pub(super) fn ticks() -> Result<u64, Errno> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let (seconds, nanoseconds) = (now.tv_sec() as u64, now.tv_nsec() as u64);
    Ok(seconds * TICKS_PER_SECOND + nanoseconds / (1_000_000_000 / TICKS_PER_SECOND))
}

/// The tick, on the scale of start times, at that moment of the monotonic clock. The tick before it if the machine was
/// suspended since.
pub(crate) fn ticks_at(monotonic: u64) -> u64 {
    let boottime = posix::nanoseconds(ClockId::CLOCK_BOOTTIME);
    let ago = posix::monotonic().saturating_sub(monotonic);
    boottime.saturating_sub(ago) / (1_000_000_000 / TICKS_PER_SECOND)
}

/// USER_HZ: 100 on every architecture that Rust has a standard library for (the kernel rounds to it for user space,
/// whatever its own CONFIG_HZ).
const TICKS_PER_SECOND: u64 = 100;

/// How long start times take to tell two processes apart.
pub(crate) const TICK: Duration = Duration::from_millis(1000 / TICKS_PER_SECOND);

pub(crate) fn age(start: &StartTime) -> Option<Duration> {
    let world = world().ok()?;
    if world.time_offset != Some(start.offset) {
        return None;
    }
    let passed = ticks().ok()?.checked_sub(start.ticks)?;
    Some(Duration::from_millis(passed.checked_mul(1000 / TICKS_PER_SECOND)?))
}

/// Not after unshare(2) or setns(2) of a PID namespace, which are for the children alone.
pub(crate) fn children_are_here() -> bool {
    let inode = |name: &str| nix::sys::stat::stat(name).map(|stat| stat.st_ino);
    match (inode("/proc/thread-self/ns/pid"), inode("/proc/thread-self/ns/pid_for_children")) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        // ENOENT: unshared, and no child has made it yet.
        (Ok(_), Err(_)) => false,
        // Without /proc, or the namespaces, there is nothing to compare.
        (Err(_), _) => true,
    }
}

impl World {
    /// Refuses to read numbers of another PID namespace. What was found before is believed of a /proc that is ours; see
    /// `need_proc_now`.
    #[inline]
    pub(super) fn need_proc(&self, pid: impl Into<Option<Pid>>, tried: &'static str) -> Result<()> {
        if self.proc == Proc::Ours { Ok(()) } else { need_proc_now(pid, tried) }
    }
}

/// The same, looked up at this moment: for what reads many files anyway, and would take another namespace's listing for
/// ours.
#[cold]
pub(super) fn need_proc_now(pid: impl Into<Option<Pid>>, tried: &'static str) -> Result<()> {
    let pid = pid.into();
    match proc_now().map_err(|errno| Error::os(pid, tried, errno.into()))? {
        Proc::Ours => Ok(()),
        Proc::Absent => Err(Error::unsupported(pid, tried, "it takes /proc, and none is mounted here")),
        Proc::Foreign => Err(Error::unsupported(
            pid,
            tried,
            "it takes /proc, and the one here shows another PID namespace; mount a fresh one (unshare --mount-proc)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trap 7: before pidfs every pidfd had the one inode of anonymous files, which must not pass for an identity.
    #[test]
    fn only_pidfs_numbers_processes() {
        let anonymous = nix::sys::eventfd::EventFd::new().unwrap();
        let another = nix::sys::eventfd::EventFd::new().unwrap();
        let inode = |fd: &nix::sys::eventfd::EventFd| nix::sys::stat::fstat(fd).unwrap().st_ino;
        assert_eq!(inode(&anonymous), inode(&another), "the trap");
        assert_eq!(is_on_pidfs(&anonymous), Ok(false));
        assert_eq!(is_on_pidfs(std::fs::File::open("/proc/self").unwrap()), Ok(false));

        let Ok(own) = syscall::pidfd_open(Pid::current(), 0) else {
            return;
        };
        let parent = Pid::from_raw(nix::unistd::getppid().as_raw()).unwrap();
        if is_on_pidfs(&own) == Ok(true) {
            let parent = syscall::pidfd_open(parent, 0).unwrap();
            let inodes = [&own, &parent].map(|fd| nix::sys::stat::fstat(fd).unwrap().st_ino);
            assert_ne!(inodes[0], inodes[1]);
        }
    }
}
