//! `/proc/PID/timens_offsets`: a line for each clock, `boottime    SECONDS NANOSECONDS`.

use crate::parse::{decimal, signed};

/// What the time namespace adds to CLOCK_BOOTTIME, in nanoseconds. `None` if no line says so, whole and within range.
pub(crate) fn boottime(text: &[u8]) -> Option<i64> {
    text.split_inclusive(|&byte| byte == b'\n').find_map(|line| {
        let mut words = line.strip_suffix(b"\n")?.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        if !matches!(words.next()?, b"boottime" | b"7") {
            return None;
        }
        let (seconds, nanoseconds) = (signed(words.next()?)?, decimal(words.next()?)?);
        if nanoseconds >= 1_000_000_000 || words.next().is_some() {
            return None;
        }
        i64::try_from(i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)).ok()
    })
}
