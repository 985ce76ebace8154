//! Scripts of families whose end others have been seen to announce too early: of each, one member outlives what they went by.

/// The root ends before anybody has looked at it, and leaves somebody, or a daemon: `left`.
pub const ENDS_FIRST: [&str; 2] = ["fork [ say left await ] exit 0", "double-fork [ say left await ] exit 0"];

/// A chain that forks and ends, at the three paces at which scans were seen to miss it, up to `last`.
pub const CHAIN: [&str; 3] = [
    "hopper 40 setsid-every 9 say last await",
    "hopper 40 setsid-every 9 hold 200 say last await",
    "hopper 40 setsid-every 9 hold 2000 say last await",
];

/// A member that goes into a mount namespace of its own: `elsewhere`. Needs root.
pub const ELSEWHERE: &str = "fork [ unshare-mount say elsewhere await ]";

/// The main thread ends, and `worker` is another thread of its process: the root, and below it.
pub const MAIN_THREAD_ENDS: [&str; 2] = [
    "thread [ say worker await exit 4 ] thread-exit",
    "fork [ thread [ say worker await exit 4 ] thread-exit ]",
];

/// Nothing of `/proc` that says more than that it is there can be read of `closed` by its own user.
pub const CLOSED: &str = "double-fork [ undumpable say closed await ]";

/// No chain of parents leads from `deep` to the root any more.
pub const DEEP: &str = "double-fork [ fork [ double-fork [ orphaned say deep await ] ] ]";
