use std::fmt;

/// What has become of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// At least one of its threads has not ended. Stopped and frozen processes run too, in this sense; so does one
    /// whose main thread alone has ended.
    Running,
    /// It has ended and nobody has collected its status yet.
    Zombie,
    /// It has ended and been reaped. Its PID may name another process by now.
    Gone,
}

/// How a process ended, as far as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum ExitStatus {
    /// It called exit with this code (0 to 255).
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The kernel does not tell us: the process was somebody else's, and was reaped before it could be asked.
    Unknown,
}

impl ExitStatus {
    /// Returns whether it is known to have ended with code 0.
    pub fn success(&self) -> bool {
        *self == ExitStatus::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(f, "exit code {code}"),
            ExitStatus::Signal(signal) => write!(f, "signal {signal}"),
            ExitStatus::Unknown => f.write_str("status unknown"),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Running => "running",
            State::Zombie => "zombie",
            State::Gone => "gone",
        })
    }
}
