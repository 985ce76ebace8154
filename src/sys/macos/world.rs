//! What stays the same while this process lives, and the clock of start times.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::handle::PID_NAMESPACE;
use crate::error::Result;
use crate::identity::{BootId, StartTime};
use crate::parse::uuid;
use crate::sys::posix;

/// Where this process stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) boot: Option<BootId>,
    pub(crate) pid_namespace: Option<u64>,
}

/// How long start times take to tell two processes apart.
pub(crate) const TICK: Duration = Duration::from_micros(1);

pub(crate) fn world() -> Result<World> {
    Ok(World { boot: boot(), pid_namespace: Some(PID_NAMESPACE) })
}

/// kern.bootsessionuuid. Some sandboxes refuse it.
///
/// Kept without a lock: a fork by one thread while another is in here must not leave the child one that is never unlocked.
pub(super) fn boot() -> Option<BootId> {
    static HALVES: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    if KNOWN.load(Ordering::Acquire) == 0 {
        // Whoever comes here at the same time writes the same.
        let id = read_boot()?;
        let (first, second) = (u128::from_be_bytes(id) >> 64, u128::from_be_bytes(id));
        HALVES[0].store(first as u64, Ordering::Relaxed);
        HALVES[1].store(second as u64, Ordering::Relaxed);
        KNOWN.store(1, Ordering::Release);
    }
    let [first, second] = [0, 1].map(|half: usize| u128::from(HALVES[half].load(Ordering::Relaxed)));
    Some(BootId((first << 64 | second).to_be_bytes()))
}

fn read_boot() -> Option<[u8; 16]> {
    use sysctl::Sysctl;
    let text = sysctl::Ctl::new("kern.bootsessionuuid").and_then(|name| name.value_string()).ok()?;
    uuid::boot_session(text.as_bytes())
}

/// The start time of a process that was forked at that moment of the monotonic clock, if nobody has set the wall clock
/// since.
pub(crate) fn ticks_at(monotonic: u64) -> u64 {
    let ago = Duration::from_nanos(posix::monotonic().saturating_sub(monotonic));
    u64::try_from(now().saturating_sub(ago).as_micros()).unwrap_or(u64::MAX)
}

/// By the wall clock: `None` if that has been set back since.
pub(crate) fn age(start: &StartTime) -> Option<Duration> {
    now().checked_sub(Duration::from_micros(start.ticks))
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
