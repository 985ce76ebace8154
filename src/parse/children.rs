//! `/proc/PID/task/TID/children`: PIDs, each followed by a space.

use crate::parse::decimal;
use crate::pid::Pid;

/// Hands over each PID. `None` if anything else stands in the list, or its last number is cut; a child in no visible
/// namespace is listed as 0 and passed over.
pub(crate) fn parse(list: &[u8], mut each: impl FnMut(Pid)) -> Option<()> {
    for number in list.split_inclusive(|&byte| byte == b' ') {
        let number = u32::try_from(decimal(number.strip_suffix(b" ")?)?).ok()?;
        match Pid::new(number) {
            Some(pid) => each(pid),
            None if number == 0 => {}
            None => return None,
        }
    }
    Some(())
}
