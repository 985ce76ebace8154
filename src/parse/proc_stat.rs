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

/// Reads what one read of the file gave.
pub(crate) fn parse(line: &[u8]) -> Option<ProcStat> {
    let open = line.iter().position(|&byte| byte == b'(')?;
    let close = line.iter().rposition(|&byte| byte == b')')?;
    let pid = u32::try_from(decimal(line[..open].strip_suffix(b" ")?)?).ok()?;
    let mut fields = Fields { rest: line.get(close + 1..)?.strip_prefix(b" ")? };

    let state = match fields.next()? {
        &[state] => state,
        _ => return None,
    };
    let ppid = u32::try_from(decimal(fields.next()?)?).ok()?;
    let session = match fields.nth(6 - 5)? {
        b"-1" => 0,
        session => u32::try_from(decimal(session)?).ok()?,
    };
    let num_threads = u32::try_from(decimal(fields.nth(20 - 7)?)?).ok()?;
    let starttime = decimal(fields.nth(22 - 21)?)?;
    let exit_signal = i32::try_from(signed(fields.nth(38 - 23)?)?).ok()?;
    Some(ProcStat { pid, state, ppid, session, num_threads, starttime, exit_signal })
}

/// Reads field 52: how the process ended, as waitpid(2) would say it. The kernel prints 0 to those who may not ptrace
/// the process, so this is an answer only for a reader that is known to be allowed.
pub(crate) fn exit_code(line: &[u8]) -> Option<i32> {
    let close = line.iter().rposition(|&byte| byte == b')')?;
    let mut fields = Fields { rest: line.get(close + 1..)?.strip_prefix(b" ")? };
    i32::try_from(signed(fields.nth(52 - 3)?)?).ok()
}

/// What stands before each single space and before the newline. What neither follows was cut, and is not a field.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| matches!(byte, b' ' | b'\n'))?;
        let (field, rest) = (&self.rest[..end], &self.rest[end + 1..]);
        self.rest = rest;
        Some(field)
    }
}
