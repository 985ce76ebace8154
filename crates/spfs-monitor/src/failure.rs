//! Why it is not watched: an exit code, and one line for standard error.

/// The exit codes; `help.rs` tells people what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It is watched; in the foreground: it is over, and has been cleaned up.
    Done,
    /// The cleanup failed; the record is kept.
    Unclean,
    /// Nothing was begun and nothing changed.
    Error,
    /// Another monitor watches this runtime.
    Watched,
    /// A cleanup was begun, and nobody can tell how it ended.
    Unknown,
    /// As a shell shows the end by this signal: it has left, and the record is kept.
    Left(i32),
}

impl Code {
    pub(crate) fn number(self) -> u8 {
        match self {
            Code::Done => 0,
            Code::Unclean => 1,
            Code::Error => 2,
            Code::Watched => 3,
            Code::Unknown => 4,
            Code::Left(signal) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure::with(Code::Error, message)
    }

    pub(crate) fn with(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }
}

impl From<pidigree::Error> for Failure {
    fn from(error: pidigree::Error) -> Failure {
        Failure::new(error.to_string())
    }
}
