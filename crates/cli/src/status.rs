//! How a process ended, as it is shown.

use std::fmt;

use pidigree::{ExitStatus, Signal};
use serde::Serialize;

/// For people: `exit code 3`, `signal 15 (SIGTERM)`, `status unknown`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown(pub(crate) ExitStatus);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ExitStatus::Signal(number) => match Signal::new(number) {
                Some(signal) => write!(f, "signal {number} ({signal})"),
                None => write!(f, "signal {number}"),
            },
            status => write!(f, "{status}"),
        }
    }
}

/// For programs; null where it does not apply.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    status: Option<&'static str>,
    code: Option<i32>,
    signal: Option<i32>,
    signal_name: Option<String>,
}

impl Status {
    /// `None` of a process that has not ended.
    pub(crate) fn of(status: Option<ExitStatus>) -> Status {
        let (status, code, signal) = match status {
            Some(ExitStatus::Code(code)) => (Some("exited"), Some(code), None),
            Some(ExitStatus::Signal(signal)) => (Some("killed"), None, Some(signal)),
            Some(ExitStatus::Unknown) => (Some("unknown"), None, None),
            None => (None, None, None),
        };
        let signal_name = signal.and_then(Signal::new).map(|signal| signal.to_string());
        Status { status, code, signal, signal_name }
    }
}

/// Whether it is known to have gone wrong.
pub(crate) fn is_failure(status: ExitStatus) -> bool {
    !status.success() && status != ExitStatus::Unknown
}
