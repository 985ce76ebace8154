//! `/proc/PID/task/TID/children`: PIDs, each followed by a space.

use crate::parse::decimal;
use crate::pid::Pid;

/// Hands over each PID. `None` if anything else stands in the list; a child in no visible namespace is listed as 0 and
/// passed over.
pub(crate) fn parse(list: &[u8], mut each: impl FnMut(Pid)) -> Option<()> {
    for number in list
        .split(|&byte| byte == b' ' || byte == b'\n')
        .filter(|number| !number.is_empty())
    {
        let number = u32::try_from(decimal(number)?).ok()?;
        match Pid::new(number) {
            Some(pid) => each(pid),
            None if number == 0 => {}
            None => return None,
        }
    }
    Some(())
}
