//! UUIDs that name a boot, in hexadecimal with hyphens: `/proc/sys/kernel/random/boot_id`, in lower case with a newline;
//! and XNU's `kern.bootsessionuuid`, in upper case with a NUL.

/// Reads the form of Linux, the newline or none behind it.
pub(crate) fn parse(text: &[u8]) -> Option<[u8; 16]> {
    grouped(text.strip_suffix(b"\n").unwrap_or(text), b'a')
}

/// Reads the form of XNU, the NUL or none behind it.
pub(crate) fn boot_session(text: &[u8]) -> Option<[u8; 16]> {
    grouped(text.strip_suffix(b"\0").unwrap_or(text), b'A')
}

/// Reads 32 lower-case hexadecimal digits.
pub(crate) fn hex(digits: &[u8]) -> Option<[u8; 16]> {
    bytes(digits, b'a')
}

/// `ten` is the digit of that value: of which case the letters are.
fn grouped(text: &[u8], ten: u8) -> Option<[u8; 16]> {
    let mut digits = [0; 32];
    let mut groups = text.split(|&byte| byte == b'-');
    let mut filled = 0;
    for length in [8, 4, 4, 4, 12] {
        let group = groups.next().filter(|group| group.len() == length)?;
        digits[filled..filled + length].copy_from_slice(group);
        filled += length;
    }
    if groups.next().is_some() {
        return None;
    }
    bytes(&digits, ten)
}

fn bytes(digits: &[u8], ten: u8) -> Option<[u8; 16]> {
    if digits.len() != 32 {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0], ten)? << 4 | nibble(pair[1], ten)?;
    }
    Some(bytes)
}

fn nibble(digit: u8, ten: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        _ => digit.checked_sub(ten).filter(|&above| above < 6).map(|above| above + 10),
    }
}
