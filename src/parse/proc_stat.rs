//! `/proc/PID/stat`: one line of fields, the second of which may contain anything (trap 13).

use crate::parse::{decimal, signed};

/// The fields that this crate decides on. Names as in proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcStat {
    pub(crate) pid: u32,
    pub(crate) state: u8,
    pub(crate) ppid: u32,
    /// 0 where its leader is outside the reader's PID namespace, and where `is_reaped`.
    pub(crate) session: u32,
    pub(crate) num_threads: u32,
    /// Clock ticks since boot, in the reader's time namespace.
    pub(crate) starttime: u64,
    /// What the parent is sent at the end; -1 for a thread that is not its group's leader, and for nothing else.
    pub(crate) exit_signal: i32,
}

impl ProcStat {
    /// The number named a thread: stat answers for those too, though /proc does not list them (trap 10).
    pub(crate) fn is_thread(&self) -> bool {
        self.exit_signal == -1
    }

    /// All threads have ended. A leader that ended before its other threads is shown as `Z` too (trap 4).
    pub(crate) fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.num_threads == 1
    }

    /// The process was reaped while the kernel wrote the line: no thread, no parent and no session are left to show, and
    /// `ppid` says nothing.
    pub(crate) fn is_reaped(&self) -> bool {
        self.num_threads == 0
    }
}

/// What stands between the first `(` and the last `)`: anything (trap 13).
pub(crate) fn name(line: &[u8]) -> Option<&[u8]> {
    let close = last(b')', line)?;
    let open = line[..close].iter().position(|&byte| byte == b'(')?;
    Some(&line[open + 1..close])
}

/// Reads what one read of the file gave.
pub(crate) fn parse(line: &[u8]) -> Option<ProcStat> {
    let close = last(b')', line)?;
    let open = line[..close].iter().position(|&byte| byte == b'(')?;
    let pid = u32::try_from(decimal(line[..open].strip_suffix(b" ")?)?).ok()?;
    let rest = line.get(close + 1..)?.strip_prefix(b" ")?;

    let &[state, end, ref rest @ ..] = rest else { return None };
    if is_end(state) || !is_end(end) {
        return None;
    }
    let (ppid, rest) = number(rest)?;
    let ppid = u32::try_from(ppid).ok()?;
    let (session, rest) = match after(rest, 1)? {
        [b'-', b'1', b' ' | b'\n', rest @ ..] => (0, rest),
        rest => number(rest)?,
    };
    let session = u32::try_from(session).ok()?;
    let (num_threads, rest) = number(after(rest, 20 - 7)?)?;
    let num_threads = u32::try_from(num_threads).ok()?;
    let (starttime, rest) = number(after(rest, 22 - 21)?)?;
    let rest = after(rest, 38 - 23)?;
    let end = rest.iter().position(|&byte| is_end(byte))?;
    let exit_signal = i32::try_from(signed(&rest[..end])?).ok()?;
    Some(ProcStat { pid, state, ppid, session, num_threads, starttime, exit_signal })
}

/// Reads field 52: how the process ended, as waitpid(2) would say it. The kernel prints 0 to those who may not ptrace
/// the process, so this is an answer only for a reader that is known to be allowed.
pub(crate) fn exit_code(line: &[u8]) -> Option<i32> {
    let close = last(b')', line)?;
    let rest = after(line.get(close + 1..)?.strip_prefix(b" ")?, 52 - 3)?;
    let end = rest.iter().position(|&byte| is_end(byte))?;
    i32::try_from(signed(&rest[..end])?).ok()
}

/// Reads field 9: `PF_…` of `include/linux/sched.h`.
pub(crate) fn flags(line: &[u8]) -> Option<u32> {
    let close = last(b')', line)?;
    let (flags, _) = number(after(line.get(close + 1..)?.strip_prefix(b" ")?, 9 - 3)?)?;
    u32::try_from(flags).ok()
}

/// What stands behind a field. What no such byte follows was cut, and is not a field.
fn is_end(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n')
}

/// A number as the kernel prints it, without leading zeros, and the fields after it.
#[inline]
fn number(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut number: u64 = 0;
    let mut digits = 0;
    loop {
        match line.get(digits)? {
            digit @ b'0'..=b'9' if number > 0 || digits == 0 => {
                number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            }
            &byte if is_end(byte) && digits > 0 => return Some((number, &line[digits + 1..])),
            _ => return None,
        }
        digits += 1;
    }
}

/// Leaves out so many fields, eight bytes at a time: most of the line is of no interest here.
#[inline]
fn after(line: &[u8], mut fields: u32) -> Option<&[u8]> {
    let mut at = 0;
    while let Some(eight) = line[at..].first_chunk() {
        let mut found = equal(b' ', eight) | equal(b'\n', eight);
        let count = ((found >> 7).wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32;
        if count >= fields {
            for _ in 1..fields {
                found &= found - 1;
            }
            return Some(&line[at + found.trailing_zeros() as usize / 8 + 1..]);
        }
        fields -= count;
        at += 8;
    }
    for (index, &byte) in line.iter().enumerate().skip(at) {
        if is_end(byte) {
            fields -= 1;
            if fields == 0 {
                return Some(&line[index + 1..]);
            }
        }
    }
    None
}

/// Where a byte stands last.
#[inline]
fn last(byte: u8, line: &[u8]) -> Option<usize> {
    let mut end = line.len();
    while let Some(eight) = line[..end].last_chunk() {
        let found = equal(byte, eight);
        if found != 0 {
            return Some(end - 1 - found.leading_zeros() as usize / 8);
        }
        end -= 8;
    }
    line[..end].iter().rposition(|&other| other == byte)
}

/// The high bits of those bytes that equal `byte`; the first byte is the lowest.
#[inline]
fn equal(byte: u8, eight: &[u8; 8]) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // An equal byte becomes 0, and 0 is the only one whose high bit stays clear in all three.
    let apart = u64::from_le_bytes(*eight) ^ u64::from_ne_bytes([byte; 8]);
    !(((apart & LOW) + LOW) | apart | LOW)
}
