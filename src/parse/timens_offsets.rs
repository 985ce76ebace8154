//! `/proc/PID/timens_offsets`: a line for each clock, `boottime    SECONDS NANOSECONDS`.

use crate::parse::signed;

/// What the time namespace adds to CLOCK_BOOTTIME, in nanoseconds.
pub(crate) fn boottime(text: &[u8]) -> Option<i64> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let mut words = line
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        if !matches!(words.next()?, b"boottime" | b"7") {
            return None;
        }
        let (seconds, nanoseconds) = (signed(words.next()?)?, signed(words.next()?)?);
        seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
    })
}
