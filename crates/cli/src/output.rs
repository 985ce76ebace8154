//! Lines on standard output, for people and for programs.

use std::borrow::Cow;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::time::Duration;

use anstream::AutoStream;
use nix::poll::PollTimeout;
use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::failure::Failure;

/// Standard output, without colours unless it is a terminal that wants them. A line is out when it is written.
pub(crate) fn lines() -> AutoStream<StdoutLock<'static>> {
    anstream::stdout().lock()
}

/// The same for many lines at once: to be flushed.
pub(crate) fn pages() -> BufWriter<AutoStream<StdoutLock<'static>>> {
    BufWriter::with_capacity(1 << 16, lines())
}

/// How many columns there are; `None` where standard output is no terminal and lines are as long as they are.
pub(crate) fn width() -> Option<usize> {
    terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0))
}

/// The same of standard error.
pub(crate) fn error_width() -> Option<usize> {
    terminal_size::terminal_size_of(io::stderr()).map(|(width, _)| usize::from(width.0))
}

pub(crate) fn json(out: &mut impl Write, object: &impl Serialize) -> Result<(), Failure> {
    // At once, so that lines of several programs on one pipe stay whole.
    let mut line = serde_json::to_vec(object)?;
    line.push(b'\n');
    Ok(out.write_all(&line)?)
}

/// Replaces what would move the cursor, change colours or reverse the text by what Rust writes for it.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// Cuts text to this many columns, and shows that it did.
pub(crate) fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    let mut used = 0;
    let mut cut = String::new();
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        // One column is for the ellipsis.
        if used >= columns {
            break;
        }
        cut.push(c);
    }
    if columns > 0 {
        cut.push('…');
    }
    Cow::Owned(cut)
}

/// As poll(2) takes it; rounded up, so that it does not wake just before.
pub(crate) fn milliseconds(left: Option<Duration>) -> PollTimeout {
    let rounded = |left: Duration| i32::try_from(left.as_nanos().div_ceil(1_000_000)).ok();
    match left {
        None => PollTimeout::NONE,
        Some(left) => rounded(left).and_then(|ms| PollTimeout::try_from(ms).ok()).unwrap_or(PollTimeout::MAX),
    }
}

/// `0.3s`, `12s`, `5m09s`, `3h02m`, `4d05h`: two units at most, as wide as six columns for 999 days.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 10 => format!("{seconds}.{}s", age.subsec_millis() / 100),
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// As `age`, but below a second to the millisecond: for what is measured by events.
pub(crate) fn short(time: Duration) -> String {
    if time.as_secs() == 0 { format!("{}ms", time.as_millis()) } else { age(time) }
}

/// As a number for programs, to the 10 ms that it is known to.
pub(crate) fn seconds(age: Duration) -> f64 {
    (age.as_secs_f64() * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{age, columns, cut, printable, short};

    #[test]
    fn text_is_cut_to_columns_not_bytes() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("ab", 1), "…");
        assert_eq!(cut("ab", 0), "");
        for width in 0..9 {
            assert!(columns(&cut("x日y本z語", width)) <= width);
        }
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(printable("a b é"), "a b é");
        assert_eq!(printable("a\nb\x1b[31m\u{202e}"), "a\\nb\\u{1b}[31m\\u{202e}");
    }

    #[test]
    fn ages_have_two_units() {
        for (milliseconds, text) in [
            (0, "0.0s"),
            (9_990, "9.9s"),
            (10_000, "10s"),
            (309_000, "5m09s"),
            (3 * 3_600_000 + 120_000, "3h02m"),
            (4 * 86_400_000 + 5 * 3_600_000, "4d05h"),
        ] {
            assert_eq!(age(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(short(Duration::from_micros(12_900)), "12ms");
        assert_eq!(short(Duration::from_millis(1_250)), "1.2s");
    }
}
