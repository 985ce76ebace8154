//! Where in the unified hierarchy a process is (`/proc/PID/cgroup`), where that is mounted (`/proc/PID/mountinfo`), and
//! who is in a cgroup (`cgroup.procs`).

use crate::parse::decimal;
use crate::pid::Pid;

/// A mounted cgroup2: the cgroup that is its top, and where that one is to be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) root: Vec<u8>,
    pub(crate) point: Vec<u8>,
}

/// The path on the line of the unified hierarchy, `0::PATH`. `None` if no line is that, or if the text is cut.
pub(crate) fn own(text: &[u8]) -> Option<&[u8]> {
    let lines = text.strip_suffix(b"\n")?;
    let path = lines.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    path.starts_with(b"/").then_some(path)
}

/// The mounts of cgroup2, in the order of the list: of two at one place, the later one covers the earlier one. `None` if a
/// line is not laid out as proc_pid_mountinfo(5) says, or cut.
pub(crate) fn mounts(text: &[u8]) -> Option<Vec<Mount>> {
    let mut mounts = Vec::new();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let mut fields = line.strip_suffix(b"\n")?.split(|&byte| byte == b' ');
        // Before them the two numbers of the mount and its parent, and the device.
        let (root, point) = (fields.nth(3)?, fields.next()?);
        fields.next()?;
        // Optional fields, as many as there are.
        fields.find(|field| field == b"-")?;
        if fields.next()? == b"cgroup2" {
            mounts.push(Mount { root: unescaped(root)?, point: unescaped(point)? });
        }
    }
    Some(mounts)
}

/// The rest of a path behind that of the top of a mount: empty, or with a slash before it. `None` if it does not stand below
/// that, or if it cannot be told: above the root of the cgroup namespace (`/..`) nothing has a name.
pub(crate) fn below<'p>(root: &[u8], path: &'p [u8]) -> Option<&'p [u8]> {
    let rest = path.strip_prefix(root.strip_suffix(b"/").unwrap_or(root))?;
    let rest = if rest == b"/" { b"" } else { rest };
    let named = rest.is_empty() || rest.starts_with(b"/");
    (named && !rest.split(|&byte| byte == b'/').any(|name| name == b"..")).then_some(rest)
}

/// Hands over each PID of `cgroup.procs`, one a line. `None` if anything else stands in it, or its last number is cut; a
/// process in no visible namespace is listed as 0 and passed over.
pub(crate) fn procs(list: &[u8], mut each: impl FnMut(Pid)) -> Option<()> {
    for line in list.split_inclusive(|&byte| byte == b'\n') {
        let number = u32::try_from(decimal(line.strip_suffix(b"\n")?)?).ok()?;
        match Pid::new(number) {
            Some(pid) => each(pid),
            None if number == 0 => {}
            None => return None,
        }
    }
    Some(())
}

/// The kernel writes blanks, line ends and backslashes as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Option<Vec<u8>> {
    let mut rest = field.iter();
    let mut bytes = Vec::with_capacity(field.len());
    while let Some(&byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let mut octal = 0_u8;
        for _ in 0..3 {
            let digit = rest.next()?.wrapping_sub(b'0');
            octal = octal.checked_mul(8)?.checked_add(digit).filter(|_| digit < 8)?;
        }
        bytes.push(octal);
    }
    Some(bytes)
}
