//! What a verb of the service ends with when it does not do what it was asked.

use std::fmt;

use tonic::{Code, Status};

/// What kind of failure it is; as a number, the exit code of `spfs-fuse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Wrong input, or something that failed; the message says which.
    Error = 2,
    /// No service answers at the socket.
    NotServing = 3,
    /// Somebody else has the socket, the mountpoint, or a view for this process.
    Taken = 4,
    /// The process has ended.
    Ended = 5,
    /// The service is another user's, or the kernel refuses it.
    Denied = 6,
    /// The mount was ended by somebody else than its service.
    MountLost = 7,
    /// Something that cannot happen happened: the service has unmounted and ended.
    Panicked = 101,
}

/// Why something was not done. Its message is one line that names what it is about, and says what to do.
#[derive(Clone, Debug)]
pub struct Failure {
    kind: Kind,
    message: String,
}

impl Failure {
    /// Makes a failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into() }
    }

    pub(crate) fn error(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Error, message)
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the exit code of a command that fails with this.
    pub fn exit_code(&self) -> u8 {
        self.kind as u8
    }

    /// The failure of this kind whose exit code this is; `None` of other codes.
    pub(crate) fn of_exit_code(code: u8, message: String) -> Failure {
        let kinds =
            [Kind::NotServing, Kind::Taken, Kind::Ended, Kind::Denied, Kind::MountLost, Kind::Panicked];
        let kind = kinds.into_iter().find(|kind| *kind as u8 == code).unwrap_or(Kind::Error);
        Failure { kind, message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<pidigree::Error> for Failure {
    fn from(error: pidigree::Error) -> Failure {
        let kind = if error.is_gone() {
            Kind::Ended
        } else if error.is_denied() {
            Kind::Denied
        } else {
            Kind::Error
        };
        Failure::new(kind, error.to_string())
    }
}

/// As a client hears it.
impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        let kind = match status.code() {
            Code::FailedPrecondition => Kind::Ended,
            Code::AlreadyExists => Kind::Taken,
            Code::PermissionDenied => Kind::Denied,
            Code::Unavailable => Kind::NotServing,
            _ => Kind::Error,
        };
        Failure::new(kind, status.message())
    }
}

/// What the library says of a process, as the service answers it.
pub(crate) fn status_of(error: &pidigree::Error) -> Status {
    let code = if error.is_gone() {
        Code::FailedPrecondition
    } else if error.is_invalid() || error.is_thread() || error.is_foreign() {
        Code::InvalidArgument
    } else if error.is_denied() {
        Code::PermissionDenied
    } else if error.is_limit() {
        Code::ResourceExhausted
    } else if error.is_unstable() {
        Code::Aborted
    } else if error.is_unsupported() {
        Code::Unimplemented
    } else {
        Code::Internal
    };
    Status::new(code, error.to_string())
}
