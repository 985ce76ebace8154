//! The calls that everything here is made of. In tests a scripted kernel stands in their place.

use std::fmt::Debug;
use std::time::Duration;

use nix::errno::Errno;

use super::abi::{CTL_KERN, KERN_PROC, KERN_PROC_ALL, KERN_PROC_PID};
use crate::error::{Error, Result};
use crate::identity::{BootId, StartTime};
use crate::parse::kinfo_proc::{self, KinfoProc};
use crate::parse::unique_info::{self, UniqueInfo};
use crate::pid::Pid;
use crate::state::ExitStatus;

/// What is asked of XNU. Errors are those of the calls; `Clone` is of a reference.
pub(crate) trait Kernel: Clone + Debug + Send + Sync {
    /// A kqueue.
    type Queue: Debug + Send + Sync;

    /// sysctl(3). Returns how much was filled; without a buffer, how much there would be.
    fn sysctl(&self, name: &[i32], buffer: Option<&mut [u8]>) -> Result<usize, Errno>;

    /// proc_pidinfo of libproc.h, PROC_PIDUNIQIDENTIFIERINFO, zombies too.
    fn unique_info(&self, pid: i32, buffer: &mut [u8]) -> Result<usize, Errno>;

    fn queue(&self) -> Result<Self::Queue, Errno>;

    /// kevent(2): makes these changes, and replaces `events` by what there is, at most as much as it has room for.
    fn kevent(
        &self,
        queue: &Self::Queue,
        changes: &[Event],
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> Result<(), Errno>;

    /// kill(2).
    fn kill(&self, pid: i32, signal: i32) -> Result<(), Errno>;

    /// waitid(2) with WNOWAIT and WNOHANG: how a child of ours ended that has not been reaped.
    fn child_status(&self, pid: i32) -> Option<ExitStatus>;

    /// kern.bootsessionuuid.
    fn boot(&self) -> Option<BootId>;
}

/// struct kevent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) ident: usize,
    pub(crate) filter: i16,
    pub(crate) flags: u16,
    pub(crate) notes: u32,
    pub(crate) data: i64,
    pub(crate) key: usize,
}

/// What the kernel said of a PID, all of it of one process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) info: KinfoProc,
    /// Where it is not refused.
    pub(super) unique: Option<UniqueInfo>,
}

impl Seen {
    pub(super) fn start(&self) -> StartTime {
        start_of(&self.info)
    }

    pub(super) fn parent(&self) -> Option<Pid> {
        Pid::from_raw(self.info.parent())
    }
}

/// Microseconds of the wall clock at its fork.
pub(super) fn start_of(info: &KinfoProc) -> StartTime {
    let micros = info.start.unsigned_abs() * 1_000_000 + u64::from(info.start_micros.unsigned_abs());
    StartTime { ticks: micros, offset: 0 }
}

const RETRIES: usize = 16;

/// Looks at whoever has this PID.
pub(super) fn look<K: Kernel>(kernel: &K, pid: Pid, tried: &'static str) -> Result<Seen> {
    for _ in 0..RETRIES {
        // Two calls by PID: of one process if it had the PID before and after.
        let before = unique_of(kernel, pid);
        let Some(info) = process_of(kernel, pid, tried)? else {
            return Err(Error::gone(pid, tried));
        };
        let after = unique_of(kernel, pid);
        if before.map(|one| one.unique) == after.map(|one| one.unique) {
            return Ok(Seen { info, unique: after });
        }
    }
    Err(Error::unstable(pid, tried))
}

/// `None` where it is refused, or nobody has the PID.
pub(super) fn unique_of<K: Kernel>(kernel: &K, pid: Pid) -> Option<UniqueInfo> {
    let mut buffer = [0; unique_info::SIZE];
    let length = kernel.unique_info(pid.raw(), &mut buffer).ok()?;
    UniqueInfo::parse(buffer.get(..length)?)
}

/// `struct kinfo_proc`, as it is. `None` if nobody has the PID: that is a success with nothing in it (trap 28).
pub(super) fn entry_of<K: Kernel>(
    kernel: &K,
    pid: Pid,
    tried: &'static str,
) -> Result<Option<[u8; kinfo_proc::SIZE]>> {
    let mut buffer = [0; kinfo_proc::SIZE];
    let length = kernel
        .sysctl(&[CTL_KERN, KERN_PROC, KERN_PROC_PID, pid.raw()], Some(&mut buffer))
        .map_err(|errno| Error::os(pid, tried, errno.into()))?;
    match length {
        0 => Ok(None),
        kinfo_proc::SIZE => Ok(Some(buffer)),
        _ => Err(Error::malformed(pid, tried, "the kernel does not answer with one process")),
    }
}

fn process_of<K: Kernel>(kernel: &K, pid: Pid, tried: &'static str) -> Result<Option<KinfoProc>> {
    let Some(entry) = entry_of(kernel, pid, tried)? else { return Ok(None) };
    match KinfoProc::parse(&entry) {
        Some(info) if info.pid == pid.raw() => Ok(Some(info)),
        _ => Err(Error::malformed(
            pid,
            tried,
            "the kernel does not answer with the process that was asked for",
        )),
    }
}

/// All processes, zombies too, by PID. Those that come or go meanwhile may be in it or not.
pub(super) fn table<K: Kernel>(kernel: &K, tried: &'static str) -> Result<Vec<KinfoProc>> {
    const NAME: [i32; 4] = [CTL_KERN, KERN_PROC, KERN_PROC_ALL, 0];
    let failed = |errno: Errno| Error::os(None, tried, errno.into());
    for _ in 0..RETRIES {
        let expected = kernel.sysctl(&NAME, None).map_err(failed)?;
        let mut buffer = vec![0; expected + expected / 8 + 16 * kinfo_proc::SIZE];
        match kernel.sysctl(&NAME, Some(&mut buffer)) {
            Ok(length) => {
                let all = buffer.get(..length).and_then(kinfo_proc::all);
                let mut all = all.ok_or_else(|| Error::malformed(None, tried, "the process table is cut"))?;
                // The kernel's own, which is nobody's process.
                all.retain(|one| one.pid > 0);
                all.sort_unstable_by_key(|one| one.pid);
                // Listed among the living and, by then, among the zombies.
                all.dedup_by_key(|one| one.pid);
                return Ok(all);
            }
            // It has grown by more than that.
            Err(Errno::ENOMEM) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Err(Error::malformed(None, tried, "the process table grows faster than it can be read"))
}
