//! macOS.

/// There is no call that closes a range.
pub(crate) fn close_from_3() -> bool {
    false
}
