//! `/proc/sys/kernel/random/boot_id`: a UUID in lower-case hexadecimal with hyphens, and a newline.

/// Reads the kernel's form.
pub(crate) fn parse(text: &[u8]) -> Option<[u8; 16]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
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
    hex(&digits)
}

/// Reads 32 lower-case hexadecimal digits.
pub(crate) fn hex(digits: &[u8]) -> Option<[u8; 16]> {
    if digits.len() != 32 {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
