//! What getdents64(2) fills a buffer with: `struct linux_dirent64`, one behind the other.

use crate::parse::decimal;
use crate::pid::Pid;

/// d_ino (8), d_off (8), d_reclen (2), d_type (1), then the name and a NUL.
const NAME: usize = 19;

/// Hands over the PID of each entry that is named by one, and its inode's number: the processes in a listing of `/proc`, the
/// threads in one of `/proc/PID/task`. `None` if the records do not fit the buffer.
pub(crate) fn pids(mut records: &[u8], mut each: impl FnMut(Pid, u64)) -> Option<()> {
    while !records.is_empty() {
        let length = usize::from(u16::from_ne_bytes([*records.get(16)?, *records.get(17)?]));
        let inode = u64::from_ne_bytes(*records.first_chunk()?);
        let name = records.get(NAME..length)?;
        let end = name.iter().position(|&byte| byte == 0)?;
        if let Some(pid) =
            decimal(&name[..end]).and_then(|number| u32::try_from(number).ok()).and_then(Pid::new)
        {
            each(pid, inode);
        }
        records = &records[length..];
    }
    Some(())
}
