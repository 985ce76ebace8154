//! What is mounted where: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountLine {
    pub(super) id: u64,
    /// `st_dev` of what is on it.
    pub(super) device: u64,
    pub(super) kind: Vec<u8>,
    pub(super) source: Vec<u8>,
}

/// Returns what is mounted at a path, which must be canonical, the topmost last.
pub(super) fn mounts_at(path: &Path) -> io::Result<Vec<MountLine>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .filter(|(at, _)| at == path)
        .map(|(_, line)| line)
        .collect())
}

fn parse(line: &[u8]) -> Option<(PathBuf, MountLine)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let (major, minor) = std::str::from_utf8(fields.nth(1)?).ok()?.split_once(':')?;
    let device = nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?);
    let at = unescape(fields.nth(1)?);
    // Optional fields end with a hyphen
    fields.find(|field| *field == b"-")?;
    let (kind, source) = (unescape(fields.next()?), unescape(fields.next()?));
    Some((PathBuf::from(OsString::from_vec(at)), MountLine { id, device, kind, source }))
}

/// Blanks, tabs, newlines and backslashes are written in octal.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let byte = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        if let Some(byte) = byte {
            rest = &after[3..];
            plain.push(byte);
        } else {
            plain.push(*first);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{MountLine, parse};

    #[test]
    fn a_mount_point_with_blanks_is_found() {
        let line =
            br"36 35 98:0 /mnt1 /mnt\040two\134 rw,noatime shared:1 master:2 - fuse spfs rw,errors=continue";
        let (at, mount) = parse(line).unwrap();
        assert_eq!(at.to_str(), Some("/mnt two\\"));
        assert_eq!(
            mount,
            MountLine {
                id: 36,
                device: nix::sys::stat::makedev(98, 0),
                kind: b"fuse".to_vec(),
                source: b"spfs".to_vec()
            }
        );
        assert_eq!(parse(b"36 35 98:0 / / rw - ext3 /dev/root rw").unwrap().1.kind, b"ext3");
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 98:0 / / rw"), None);
    }
}
