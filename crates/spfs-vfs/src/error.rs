//! What goes wrong between processes, layers and mount points.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong, about which path or process, and what to do about it.
///
/// One opaque type. Ask it with the `is_*` predicates.
pub struct Error(Box<Inner>);

enum Inner {
    Process { tried: &'static str, source: pidigree::Error },
    Path { tried: &'static str, path: PathBuf, source: io::Error },
    Busy { path: PathBuf, reason: &'static str },
    Unsupported { reason: &'static str },
    Invalid { reason: String },
    System { tried: &'static str, source: io::Error },
}

impl Error {
    pub(crate) fn process(tried: &'static str, source: pidigree::Error) -> Error {
        Error(Box::new(Inner::Process { tried, source }))
    }

    pub(crate) fn path(tried: &'static str, path: &Path, source: io::Error) -> Error {
        Error(Box::new(Inner::Path { tried, path: path.to_owned(), source }))
    }

    pub(crate) fn busy(path: &Path, reason: &'static str) -> Error {
        Error(Box::new(Inner::Busy { path: path.to_owned(), reason }))
    }

    pub(crate) fn unsupported(reason: &'static str) -> Error {
        Error(Box::new(Inner::Unsupported { reason }))
    }

    pub(crate) fn invalid(reason: String) -> Error {
        Error(Box::new(Inner::Invalid { reason }))
    }

    pub(crate) fn system(tried: &'static str, source: io::Error) -> Error {
        Error(Box::new(Inner::System { tried, source }))
    }

    /// Returns what `pidigree` said, where this is about a process.
    pub fn as_process(&self) -> Option<&pidigree::Error> {
        match &*self.0 {
            Inner::Process { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Returns whether the process has ended, or its PID names another one now.
    pub fn is_gone(&self) -> bool {
        self.as_process().is_some_and(pidigree::Error::is_gone)
    }

    /// Returns whether the process is the root of a view already.
    pub fn is_already_routed(&self) -> bool {
        self.as_process().is_some_and(pidigree::Error::is_already_routed)
    }

    /// Returns whether there is something at the mount point that must not be covered: a mount that works.
    pub fn is_busy(&self) -> bool {
        matches!(*self.0, Inner::Busy { .. })
    }

    /// Returns whether this system cannot do it, whoever asks.
    pub fn is_unsupported(&self) -> bool {
        match &*self.0 {
            Inner::Unsupported { .. } => true,
            Inner::Process { source, .. } => source.is_unsupported(),
            _ => false,
        }
    }

    /// Returns whether the request itself is wrong: no layers, or a layer or mount point that is no directory or not there.
    pub fn is_invalid(&self) -> bool {
        match &*self.0 {
            Inner::Invalid { .. } => true,
            Inner::Path { source, .. } => {
                matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
            Inner::Process { source, .. } => source.is_invalid(),
            _ => false,
        }
    }

    /// Returns whether a limit was met, such as that on open files.
    pub fn is_limit(&self) -> bool {
        match &*self.0 {
            Inner::Process { source, .. } => source.is_limit(),
            Inner::Path { source, .. } | Inner::System { source, .. } => {
                matches!(
                    nix::errno::Errno::from_raw(source.raw_os_error().unwrap_or(0)),
                    nix::errno::Errno::EMFILE | nix::errno::Errno::ENFILE
                )
            }
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Inner::Process { tried, source } => write!(f, "{tried}: {source}"),
            Inner::Path { tried, path, source } => write!(f, "{tried} {}: {source}", path.display()),
            Inner::Busy { path, reason } => write!(f, "mount at {}: {reason}", path.display()),
            Inner::Unsupported { reason } => f.write_str(reason),
            Inner::Invalid { reason } => f.write_str(reason),
            Inner::System { tried, source } => write!(f, "{tried}: {source}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.0 {
            Inner::Process { source, .. } => Some(source),
            Inner::Path { source, .. } | Inner::System { source, .. } => Some(source),
            Inner::Busy { .. } | Inner::Unsupported { .. } | Inner::Invalid { .. } => None,
        }
    }
}
