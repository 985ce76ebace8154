//! Lines of a key and a value: `/proc/PID/status`, `/proc/PID/fdinfo/FD` (both `Key:\tvalue`) and `/proc/stat`
//! (`key value`).

use crate::parse::signed;

/// The number behind a key, such as `Tgid:` or `processes`, on the first line that starts with it. `None` if no line does,
/// if anything but one number follows, or if the line is cut.
pub(crate) fn number(text: &[u8], key: &str) -> Option<i64> {
    let value = text.split_inclusive(|&byte| byte == b'\n').find_map(|line| {
        let value = line.strip_prefix(key.as_bytes())?;
        let blank = value.iter().take_while(|&&byte| byte == b'\t' || byte == b' ').count();
        // Else it is a longer key.
        (blank > 0).then(|| &value[blank..])
    })?;
    signed(value.strip_suffix(b"\n")?)
}
