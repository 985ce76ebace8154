use std::fmt;

use crate::error::Result;
use crate::sys;

/// What this machine, kernel and sandbox let the crate promise; see [`capabilities`].
#[derive(Clone, Debug)]
pub struct Capabilities {
    pub(crate) backend: &'static str,
    pub(crate) all: Vec<Capability>,
}

/// One question that the crate answers, and how good the answer is here.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Capability {
    /// The question, as a stable short name: `identity`, `ancestry`, `exit-status` ...
    pub question: &'static str,
    /// How good the answer is.
    pub grade: Grade,
    /// What it rests on here, or what is missing.
    pub reason: &'static str,
}

/// How good an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// Not to be had here: the call says [`is_unsupported`](crate::Error::is_unsupported).
    Unavailable,
    /// True when given, but not always to be had, or late; the reason says which.
    BestEffort,
    /// Exact.
    Proven,
}

/// Returns what is proven here and what is only best effort, in words.
///
/// What the kernel offers is found out by trying each call once; this returns what was found. It does not change while
/// the process lives.
///
/// # Errors
///
/// [`is_limit`](crate::Error::is_limit) if there was no descriptor to try with.
///
/// # Cost
///
/// For asking now and then: it starts and joins a thread and opens a socket pair, to try what only they can show.
///
/// # Example: refuse to start where a promise could not be kept
///
/// ```
/// use pidigree::Grade;
///
/// let here = pidigree::capabilities()?;
/// if here.grade("parent") == Grade::Unavailable {
///     panic!("cannot work here:\n{here}");
/// }
/// # Ok::<(), pidigree::Error>(())
/// ```
pub fn capabilities() -> Result<Capabilities> {
    sys::capabilities()
}

impl Capabilities {
    /// Returns by what processes are pinned and asked here, in a few words.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// Iterates over the questions.
    pub fn iter(&self) -> std::slice::Iter<'_, Capability> {
        self.all.iter()
    }

    /// Returns how good the answer to a question is; `Unavailable` for a question that the crate does not know.
    pub fn grade(&self, question: &str) -> Grade {
        self.iter()
            .find(|capability| capability.question == question)
            .map_or(Grade::Unavailable, |found| found.grade)
    }
}

impl<'a> IntoIterator for &'a Capabilities {
    type Item = &'a Capability;
    type IntoIter = std::slice::Iter<'a, Capability>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Capability { question, grade, reason } in self {
            writeln!(f, "{question:<12} {:<12} {reason}", grade.to_string())?;
        }
        Ok(())
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Grade::Proven => "proven",
            Grade::BestEffort => "best effort",
            Grade::Unavailable => "unavailable",
        })
    }
}
