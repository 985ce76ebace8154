//! What was found out about callers, each pinned: as long as the pin says that it is alive, its number is nobody else's.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::Result;
use crate::pid::Pid;
use crate::process::Process;
use crate::state::State;
use crate::sys;

/// One value for each caller, or none, in shards that do not know of each other: those who look take turns with nobody but
/// those who put something into the same shard.
#[derive(Debug)]
pub(super) struct Cache<V> {
    shards: Box<[Line<V>]>,
    /// What was found out before this was counted up is worth nothing.
    generation: AtomicU64,
    /// Counted up by every change of the routes.
    changes: AtomicU64,
}

/// On a cache line of its own, whatever the processor fetches beside it.
#[derive(Debug)]
#[repr(align(128))]
struct Line<V> {
    shard: RwLock<Shard<V>>,
    /// How many descriptors it may hold.
    room: usize,
}

#[derive(Debug)]
struct Shard<V> {
    entries: HashMap<Pid, Entry<V>, BuildHasherDefault<Spread>>,
    /// Each of them once, in the order in which they are looked at.
    queue: VecDeque<Pid>,
}

#[derive(Debug)]
struct Entry<V> {
    pin: Pin,
    generation: u64,
    /// With the number of its route.
    value: Option<(u64, Arc<V>)>,
    /// Since it was looked at last.
    used: AtomicBool,
}

/// Who asks, pinned.
#[derive(Debug)]
pub(super) enum Pin {
    Process(Process),
    /// Not the one that has its process's number.
    Thread(sys::Thread),
}

/// As which kind of number it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum As {
    Process,
    Thread,
}

/// What the changes had come to at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    generation: u64,
    changes: u64,
}

const SHARDS: usize = 64;
/// How many others are looked at for each that is put in: more than one, so that the ended never outnumber the living.
const LOOKS: usize = 2;

impl<V> Cache<V> {
    /// For so many descriptors.
    pub(super) fn new(budget: usize) -> Cache<V> {
        let shards = budget.clamp(1, SHARDS);
        let line = |index: usize| Line {
            shard: RwLock::new(Shard { entries: HashMap::default(), queue: VecDeque::new() }),
            room: budget / shards + usize::from(index < budget % shards),
        };
        Cache {
            shards: (0..shards).map(line).collect(),
            generation: AtomicU64::new(0),
            changes: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> Moment {
        Moment {
            generation: self.generation.load(Ordering::SeqCst),
            changes: self.changes.load(Ordering::SeqCst),
        }
    }

    /// What was found out about it, if that is still so.
    #[inline]
    pub(super) fn look(&self, number: Pid, kind: As) -> Result<Option<Option<Arc<V>>>> {
        let generation = self.generation.load(Ordering::SeqCst);
        let shard = self.shard(number).read();
        let Some(entry) = shard.entries.get(&number).filter(|entry| entry.generation == generation) else {
            return Ok(None);
        };
        let alive = match (&entry.pin, kind) {
            (Pin::Process(process), _) => process.state()? == State::Running,
            (Pin::Thread(thread), As::Thread) => thread.is_alive()?,
            (Pin::Thread(_), As::Process) => false,
        };
        if !alive {
            return Ok(None);
        }
        // Not written to by everybody every time.
        if !entry.used.load(Ordering::Relaxed) {
            entry.used.store(true, Ordering::Relaxed);
        }
        Ok(Some(entry.value.as_ref().map(|(_, value)| Arc::clone(value))))
    }

    /// Keeps what was found out at that moment.
    pub(super) fn keep(&self, number: Pid, pin: Pin, value: Option<(u64, Arc<V>)>, found: Moment) {
        let line = self.shard(number);
        if line.room == 0 {
            return;
        }
        let entry = Entry { pin, generation: found.generation, value, used: AtomicBool::new(false) };
        // Whatever is dropped may have something to say to us: not under the lock.
        let mut dropped = Vec::new();
        let mut shard = line.write();
        // Whoever changes the routes counts first, and then takes out what is not to stay.
        if self.changes.load(Ordering::SeqCst) != found.changes {
            drop(shard);
            return;
        }
        match shard.entries.insert(number, entry) {
            Some(before) => dropped.push(before),
            None => shard.queue.push_back(number),
        }
        shard.sweep(number, line.room, &mut dropped);
        drop(shard);
    }

    /// A route has come, or has been taken away from members that live: everybody is to be found out about anew.
    pub(super) fn forget_all(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// A route has gone, with all its members, or with `forget_all`: nothing of it stays.
    pub(super) fn forget_route(&self, route: u64) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.clear(|entry| entry.value.as_ref().is_some_and(|(number, _)| *number == route));
    }

    /// Gives some descriptors back; `false` if there are none.
    pub(super) fn shed(&self) -> bool {
        for line in &self.shards {
            let mut shard = line.write();
            let mut dropped = Vec::new();
            while let Some(number) = shard.queue.pop_front() {
                dropped.extend(shard.entries.remove(&number));
            }
            drop(shard);
            if !dropped.is_empty() {
                return true;
            }
        }
        false
    }

    fn clear(&self, mut is_out: impl FnMut(&Entry<V>) -> bool) {
        for line in &self.shards {
            if !line.read().entries.values().any(&mut is_out) {
                continue;
            }
            let mut shard = line.write();
            let Shard { entries, queue } = &mut *shard;
            let out: Vec<Pid> =
                entries.iter().filter(|(_, entry)| is_out(entry)).map(|(number, _)| *number).collect();
            let dropped: Vec<_> = out.iter().filter_map(|number| entries.remove(number)).collect();
            queue.retain(|number| entries.contains_key(number));
            drop(shard);
            drop(dropped);
        }
    }

    fn shard(&self, number: Pid) -> &Line<V> {
        let mut spread = Spread::default();
        spread.write_u32(number.get());
        // The upper bits: the lower ones choose the bucket.
        &self.shards[(spread.finish() >> 48) as usize % self.shards.len()]
    }
}

impl<V> Line<V> {
    fn read(&self) -> RwLockReadGuard<'_, Shard<V>> {
        self.shard.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shard<V>> {
        self.shard.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Shard<V> {
    /// The clock's hand: who has ended goes; and where there is no room, whoever was not asked for since the hand was there
    /// last. `new` was put in just now.
    fn sweep(&mut self, new: Pid, room: usize, dropped: &mut Vec<Entry<V>>) {
        let mut looks = 0;
        // Twice round, everybody's turn has come.
        while looks < LOOKS || self.entries.len() > room && looks <= 2 * self.queue.len() + LOOKS {
            looks += 1;
            let Some(number) = self.queue.pop_front() else { return };
            let Some(entry) = self.entries.get(&number) else { continue };
            let crowded = self.entries.len() > room && number != new;
            let is_out = if entry.pin.has_ended() {
                number != new
            } else {
                crowded && !entry.used.swap(false, Ordering::Relaxed)
            };
            if is_out {
                dropped.extend(self.entries.remove(&number));
            } else {
                self.queue.push_back(number);
            }
        }
    }
}

impl Pin {
    /// For sure.
    fn has_ended(&self) -> bool {
        match self {
            Pin::Process(process) => process.state().is_ok_and(|state| state != State::Running),
            Pin::Thread(thread) => thread.is_alive().is_ok_and(|alive| !alive),
        }
    }
}

/// The kernel gives these numbers, one after the other; an odd factor keeps neighbours apart.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(u32::from(byte)));
    }

    fn write_u32(&mut self, number: u32) {
        // 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
