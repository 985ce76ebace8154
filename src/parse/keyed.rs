//! Lines of a key and a value: `/proc/PID/status`, `/proc/PID/fdinfo/FD` (both `Key:\tvalue`) and `/proc/stat`
//! (`key value`).

use crate::parse::signed;

/// The number behind a key, such as `Tgid:` or `processes`, that starts a line. `None` if no line does, or if no number
/// follows.
pub(crate) fn number(text: &[u8], key: &str) -> Option<i64> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let value = line.strip_prefix(key.as_bytes())?;
        let blank = value
            .iter()
            .take_while(|&&byte| byte == b'\t' || byte == b' ')
            .count();
        if blank == 0 { None } else { signed(&value[blank..]) }
    })
}
