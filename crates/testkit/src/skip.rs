//! Tests that this machine cannot run say so.

use std::fmt::Display;

/// The answer of a probe, for [`require!`](crate::require).
pub trait Probe {
    /// Why the thing asked for is missing, or `None` if it is there.
    fn missing(&self) -> Option<String>;
}

impl Probe for bool {
    fn missing(&self) -> Option<String> {
        (!self).then(String::new)
    }
}

impl<T> Probe for Option<T> {
    fn missing(&self) -> Option<String> {
        self.is_none().then(String::new)
    }
}

impl<T, E: Display> Probe for Result<T, E> {
    fn missing(&self) -> Option<String> {
        self.as_ref().err().map(|error| format!(": {error}"))
    }
}

/// Skips the calling test unless a probe (`bool`, `Option` or `Result`) holds: prints `SKIPPED test: reason` to
/// standard error and returns from the function.
///
/// Where `PIDIGREE_NO_SKIP=1` is set, as on the CI machine, a test that would be skipped panics instead.
///
/// # Example
///
/// ```
/// # use pidigree_testkit::{is_root, require};
/// # fn only_root() {
/// require!(is_root(), "needs root");
/// # }
/// ```
#[macro_export]
macro_rules! require {
    ($probe:expr, $($reason:tt)+) => {
        if let Some(detail) = $crate::Probe::missing(&$probe) {
            if $crate::skip(&format!("{}{detail}", format_args!($($reason)+))) {
                return;
            }
        }
    };
}

/// Says that the calling test is skipped, and returns whether it is. [`require!`](crate::require) then returns, too.
///
/// It is not where a [`stage`](crate::stage) has started this process and its body has not begun: what a test requires
/// before that, it required outside.
///
/// # Panics
///
/// Where `PIDIGREE_NO_SKIP=1` is set.
#[must_use]
pub fn skip(reason: &str) -> bool {
    if crate::stage::before_body() {
        return false;
    }
    let staged = std::env::var(crate::stage::STAGE).ok();
    let thread = std::thread::current();
    let test = staged.as_deref().or(thread.name()).unwrap_or("test");
    let forbidden = std::env::var_os("PIDIGREE_NO_SKIP").is_some_and(|value| value == "1");
    assert!(!forbidden, "{test} must not be skipped here (PIDIGREE_NO_SKIP=1), but {reason}");
    // Not eprintln: libtest captures that, and a skip nobody sees is a test nobody has
    let line = format!("SKIPPED {test}: {reason}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    true
}
