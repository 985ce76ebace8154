//! How long a test may wait, and for what.

use std::time::{Duration, Instant};

/// How long a test waits for an event that must come: far longer than any machine needs.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Asks until there is an answer, and returns it.
///
/// This is for facts that the kernel announces by no event (a main thread that ended before its process). Where there
/// is an event, wait for that.
///
/// # Panics
///
/// When [`DEADLINE`] has passed without an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether this process has the effective user id 0.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// How often to try what a race could break: as often as `PIDIGREE_ROUNDS` says, or as is usual.
#[must_use]
pub fn rounds(usual: usize) -> usize {
    std::env::var("PIDIGREE_ROUNDS")
        .map_or(usual, |rounds| rounds.parse().expect("PIDIGREE_ROUNDS is a number"))
}
