use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::pid::Pid;

/// Which process: an answer that outlives PID reuse, the process itself, and a reboot.
///
/// An identity is a PID together with what the kernel knows to tell its bearers apart: a kernel-unique id where
/// there is one (pidfs, Linux 6.9 and later; macOS), the start time, and the world the PID is valid in (boot and PID
/// namespace). It is a plain value: copy it, hash it, print it as a *token* and read that back in another process.
///
/// # Equality
///
/// `==` and `Hash` compare what was recorded: boot, PID namespace, PID, and the unique id or else the start time.
/// They are total, so identities can be keys. Whether two identities *are one process* is a different question,
/// which can have no answer: ask [`same_process`](Identity::same_process).
///
/// # The token
///
/// [`Display`](fmt::Display) writes, and [`FromStr`] reads, one line without spaces, safe in shells and file names:
///
/// ```text
/// p1:4242:u70123:s115756:n4026531836:b0a1b2c3d4e5f60718293a4b5c6d7e8f9
/// ```
///
/// `p1` is the version of the format, then the PID, then whatever is known, always in this order:
/// `u` the kernel-unique id; `s` the start time in clock ticks since boot, on macOS in microseconds since 1970 (`y` instead, when it was recorded within
/// the tick in which the process started), with `@NANOSECONDS` behind it in a time namespace that shifts it; `n` the
/// inode of the PID namespace (0 on macOS); `b` the boot id. Every identity has exactly one token; the format is stable.
///
/// # Example: is it still the process that I recorded?
///
/// ```
/// use pidigree::{Identity, Pid, Process};
///
/// let init = Pid::new(1).unwrap();
/// let token = Identity::of(init)?.to_string();
/// // ... kept in a file, read by another program ...
/// let recorded: Identity = token.parse()?;
/// let process = Process::reopen(&recorded)?;
/// assert_eq!(process.pid(), init);
/// # Ok::<(), pidigree::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Identity {
    pub(crate) pid: Pid,
    pub(crate) unique: Option<u64>,
    pub(crate) start: Option<StartTime>,
    /// The process was alive after the tick of `start` had passed. Of two processes with one PID and one start
    /// tick, the first has ended within that tick, so at most one of them can be recorded so.
    pub(crate) settled: bool,
    pub(crate) pid_namespace: Option<u64>,
    pub(crate) boot: Option<BootId>,
}

/// When a process started: on Linux clock ticks (1/100 s) since boot, in the time namespace of the reader; on macOS
/// microseconds of the wall clock, which can have been set since, so they are compared for equality alone.
///
/// Two processes can have the same one, and even the same PID with it: it is evidence, not an identity.
///
/// # References
///
/// proc_pid_stat(5) field 22, time_namespaces(7)
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StartTime {
    pub(crate) ticks: u64,
    /// What the reader's time namespace adds to the boot-time clock, in nanoseconds. Times under different offsets
    /// are never compared: the kernel rounds after adding.
    pub(crate) offset: i64,
}

/// A boot of one machine: a random number that the kernel draws when it starts.
///
/// # References
///
/// proc_sys_kernel(5), `random/boot_id`
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId(pub(crate) [u8; 16]);

/// Whether two identities are one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sameness {
    /// Proven to be one process.
    Same,
    /// Proven to be two.
    Different,
    /// What was recorded can prove neither.
    Unknown,
}

impl Identity {
    /// Returns the identity of the process that has this PID now.
    ///
    /// # Errors
    ///
    /// As [`Process::open`](crate::Process::open).
    ///
    /// # Races
    ///
    /// The identity is of one process, whole; but which process bore the PID at this moment is up to the caller to
    /// know. Use [`Process::from_child`](crate::Process::from_child) or a handle where that matters.
    pub fn of(pid: Pid) -> Result<Identity> {
        Ok(*crate::Process::open(pid)?.identity())
    }

    /// Returns the PID, as seen in the PID namespace in which this was recorded.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns the start time, where it could be read.
    pub fn start_time(&self) -> Option<StartTime> {
        self.start
    }

    /// Returns the number that the kernel gives to no other process of this boot, where it has one.
    pub fn unique_id(&self) -> Option<u64> {
        self.unique
    }

    /// Returns the boot in which the process runs or ran, where it could be read.
    pub fn boot_id(&self) -> Option<BootId> {
        self.boot
    }

    /// Returns the inode number of the PID namespace in which the PID is valid, where it could be read.
    pub fn pid_namespace(&self) -> Option<u64> {
        self.pid_namespace
    }

    /// Compares what was recorded and says what that proves; never a guess.
    ///
    /// Symmetric. Unique ids decide where both sides have one. Without them, an equal PID and start time prove one
    /// process only if both sides were recorded after the clock tick of the start had passed (before that, the PID
    /// can be reused within the same tick, and a process recorded there is `Unknown`); a different start time always
    /// proves two.
    ///
    /// Identities of different boots are `Different`. An identity that does not know its boot is never the `Same` as
    /// another.
    ///
    /// # Cost
    ///
    /// No system call.
    pub fn same_process(&self, other: &Identity) -> Sameness {
        use Sameness::*;
        let (one_boot, two_boots) = compare(self.boot, other.boot);
        let (one_namespace, _) = compare(self.pid_namespace, other.pid_namespace);
        let (one_unique, two_uniques) = compare(self.unique, other.unique);
        // A process has one PID in one namespace, for life.
        if two_boots || two_uniques || (one_namespace && self.pid != other.pid) {
            return Different;
        }
        if one_unique {
            return if one_boot { Same } else { Unknown };
        }
        match (self.start, other.start) {
            (Some(a), Some(b)) if a.offset == b.offset => {
                if a.ticks != b.ticks {
                    Different
                } else if one_boot && one_namespace && self.settled && other.settled {
                    Same
                } else {
                    Unknown
                }
            }
            _ => Unknown,
        }
    }

    /// For sure: not within one clock tick, nor by clocks that cannot be compared.
    pub(crate) fn started_before(&self, other: &Identity) -> bool {
        match (self.start, other.start) {
            (Some(its), Some(others)) => its.offset == others.offset && its.ticks < others.ticks,
            _ => false,
        }
    }

    fn key(&self) -> impl Hash + Eq + use<> {
        // The start time beside a unique id is evidence for readers without unique ids, and may come later.
        let start = if self.unique.is_some() { None } else { self.start };
        (self.boot, self.pid_namespace, self.pid, self.unique, start)
    }
}

/// (both known and equal, both known and different)
fn compare<T: PartialEq>(a: Option<T>, b: Option<T>) -> (bool, bool) {
    match (a, b) {
        (Some(a), Some(b)) => (a == b, a != b),
        _ => (false, false),
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p1:{}", self.pid)?;
        if let Some(unique) = self.unique {
            write!(f, ":u{unique}")?;
        }
        if let Some(start) = self.start {
            write!(f, ":{}{}", if self.settled { 's' } else { 'y' }, start.ticks)?;
            if start.offset != 0 {
                write!(f, "@{}", start.offset)?;
            }
        }
        if let Some(namespace) = self.pid_namespace {
            write!(f, ":n{namespace}")?;
        }
        if let Some(BootId(bytes)) = self.boot {
            f.write_str(":b")?;
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

impl FromStr for Identity {
    type Err = Error;

    /// Reads a token.
    ///
    /// # Errors
    ///
    /// [`is_invalid`](Error::is_invalid) for anything that `Display` would not have written.
    fn from_str(text: &str) -> Result<Identity> {
        crate::parse::token::parse(text).ok_or_else(|| {
            Error::invalid(format!(
                "{:?} is not an identity token: expected p1:PID:…, one line, as the program that recorded it printed it",
                text.chars().take(120).collect::<String>()
            ))
        })
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Identity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Identity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Identity, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl StartTime {
    /// Returns how long ago that was, to 10 ms, time in suspend included; `None` in a time namespace other than the
    /// one that it was read in, or where the clock is younger than the start (the identity of another boot).
    pub fn elapsed(&self) -> Option<Duration> {
        crate::sys::age(self)
    }
}

impl fmt::Debug for StartTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StartTime({} ticks since boot)", self.ticks)
    }
}

impl fmt::Display for BootId {
    /// Writes the kernel's own form, a UUID.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootId({self})")
    }
}

#[cfg(test)]
mod tests;
