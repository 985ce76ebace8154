use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A signal, by its number on this system.
///
/// # Example: by name, as people write it
///
/// ```
/// use pidigree::Signal;
///
/// assert_eq!("TERM".parse::<Signal>()?, Signal::TERM);
/// assert_eq!("SIGKILL".parse::<Signal>()?, Signal::KILL);
/// assert_eq!("9".parse::<Signal>()?, Signal::KILL);
/// assert!("0".parse::<Signal>().is_err());
/// # Ok::<(), pidigree::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// SIGHUP.
    pub const HUP: Signal = Signal(1);
    /// SIGINT.
    pub const INT: Signal = Signal(2);
    /// SIGQUIT.
    pub const QUIT: Signal = Signal(3);
    /// SIGKILL, which cannot be caught.
    pub const KILL: Signal = Signal(9);
    /// SIGTERM.
    pub const TERM: Signal = Signal(15);

    /// Makes a signal of its number; `None` below 1 and above 64. Signal 0 is none: ask
    /// [`Process::state`](crate::Process::state) instead.
    pub const fn new(number: i32) -> Option<Signal> {
        if number >= 1 && number <= 64 { Some(Signal(number)) } else { None }
    }

    /// Returns the number.
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = Error;

    /// Reads a number or a name of signal(7), with or without `SIG`, in either case.
    fn from_str(text: &str) -> Result<Signal> {
        let number = match crate::parse::decimal(text.as_bytes()) {
            Some(number) => i32::try_from(number).ok(),
            None => {
                let name = text.to_ascii_uppercase();
                crate::sys::signal_number(name.strip_prefix("SIG").unwrap_or(&name))
            }
        };
        number.and_then(Signal::new).ok_or_else(|| {
            Error::invalid(format!(
                "{text:?} is not a signal: expected a name such as TERM or a number from 1 to 64"
            ))
        })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match crate::sys::signal_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_people_write_them() {
        for (text, number) in
            [("TERM", 15), ("sigterm", 15), ("SIGKILL", 9), ("9", 9), ("64", 64), ("int", 2)]
        {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for bad in ["", "0", "-9", "65", "SIG", "SIGSIGTERM", "TERM ", "NOSUCH", "99999999999"] {
            let error = bad.parse::<Signal>().expect_err(bad);
            assert!(error.is_invalid() && error.to_string().contains(bad), "{error}");
        }
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
        assert_eq!(Signal::new(50).unwrap().to_string(), "signal 50");
    }
}
