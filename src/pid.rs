use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A process ID: a number from 1 to 2,147,483,647, and nothing more is promised about it.
///
/// The kernel reuses PIDs. A `Pid` that named one process a moment ago may name another now, or none, or a
/// thread. Turn it into a [`Process`](crate::Process) at the edge of your program and decide on that; or keep an
/// [`Identity`](crate::Identity) where the answer must outlive the handle.
///
/// The number is as seen in the PID namespace of the calling process.
///
/// # Example: at the edge
///
/// ```
/// use pidigree::Pid;
///
/// let pid: Pid = "4242".parse()?;
/// assert_eq!(pid.get(), 4242);
/// assert!("0".parse::<Pid>().is_err());
/// assert!(Pid::new(u32::MAX).is_none());
/// # Ok::<(), pidigree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(NonZeroU32);

impl Pid {
    /// Makes a `Pid` of a number, or `None` for 0 and for numbers above `i32::MAX`, which no process can have.
    pub const fn new(number: u32) -> Option<Pid> {
        if number > i32::MAX as u32 {
            return None;
        }
        match NonZeroU32::new(number) {
            Some(number) => Some(Pid(number)),
            None => None,
        }
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// Returns the PID of the calling process.
    ///
    /// # References
    ///
    /// getpid(2)
    pub fn current() -> Pid {
        Pid::new(std::process::id()).expect("the kernel numbers processes from 1 to i32::MAX")
    }

    /// The same number as the kernel's `pid_t`; never 0 and never negative, so never "a group" to kill(2).
    pub(crate) const fn raw(self) -> i32 {
        self.0.get() as i32
    }

    /// What a `pid_t` from the kernel names; `None` for 0 and below (no process, or none that we may see).
    pub(crate) fn from_raw(raw: i32) -> Option<Pid> {
        u32::try_from(raw).ok().and_then(Pid::new)
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pid({})", self.0)
    }
}

impl From<Pid> for u32 {
    fn from(pid: Pid) -> u32 {
        pid.get()
    }
}

impl TryFrom<u32> for Pid {
    type Error = Error;

    fn try_from(number: u32) -> Result<Pid> {
        Pid::new(number).ok_or_else(|| Error::not_a_pid(&number.to_string()))
    }
}

impl FromStr for Pid {
    type Err = Error;

    /// Reads decimal digits.
    ///
    /// # Errors
    ///
    /// [`is_invalid`](Error::is_invalid) for anything but a number from 1 to 2,147,483,647: signs, spaces and
    /// leading zeros too.
    fn from_str(text: &str) -> Result<Pid> {
        crate::parse::decimal(text.as_bytes())
            .and_then(|number| u32::try_from(number).ok())
            .and_then(Pid::new)
            .ok_or_else(|| Error::not_a_pid(text))
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Pid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.get())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Pid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Pid, D::Error> {
        let number = <u32 as serde::Deserialize>::deserialize(deserializer)?;
        Pid::try_from(number).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_a_process_can_have_are_pids() {
        for bad in ["", "0", "-1", "+5", " 5", "5 ", "05", "2147483648", "99999999999", "5x", "٣"] {
            let error = bad.parse::<Pid>().expect_err(bad);
            assert!(error.is_invalid(), "{bad}: {error}");
            assert!(error.to_string().contains(bad), "{error} does not name {bad:?}");
        }
        assert_eq!("2147483647".parse::<Pid>().unwrap().raw(), i32::MAX);
        assert_eq!(Pid::from_raw(-1), None);
        assert_eq!(Pid::from_raw(0), None);
    }
}
