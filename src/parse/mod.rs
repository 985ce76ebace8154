//! Bytes to facts. Slices in, values out: no I/O, no `cfg`, no `unsafe`, no panics on any input. What is cut is refused,
//! never read as less than it was. Every parser here has a fuzz target of its name; what it promises is written down
//! once, in `check.rs`, for the fuzzer and for the tests, which also compare it with the `procfs` crate.

pub(crate) mod cgroup;
#[cfg(any(test, fuzzing))]
pub(crate) mod check;
pub(crate) mod children;
pub(crate) mod cn_proc;
pub(crate) mod dirent;
pub(crate) mod keyed;
pub(crate) mod kinfo_proc;
pub(crate) mod proc_stat;
pub(crate) mod timens_offsets;
pub(crate) mod token;
pub(crate) mod unique_info;
pub(crate) mod uuid;

/// Reads a number as the kernel prints it: decimal digits alone, no sign, no leading zero, within 64 bits.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    match text {
        [b'0'] => return Some(0),
        [b'0', ..] | [] => return None,
        _ => {}
    }
    text.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// As [`decimal`], with a minus sign allowed.
pub(crate) fn signed(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some([b'0', ..]) => None,
        Some(digits) => 0_i64.checked_sub_unsigned(decimal(digits)?),
        None => i64::try_from(decimal(text)?).ok(),
    }
}

/// A field of a struct, as wide as the number that is made of it. `None` if it is not within.
pub(crate) fn field<const WIDTH: usize>(bytes: &[u8], at: usize) -> Option<[u8; WIDTH]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
pub(crate) mod tests;
