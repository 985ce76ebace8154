use proptest::prelude::*;

use crate::parse::{check, dirent};

/// As the kernel lays out a record: d_ino, d_off, d_reclen, d_type, d_name, a NUL, and zeros up to a multiple of 8.
pub(super) fn record(inode: u64, offset: i64, kind: u8, name: &[u8]) -> Vec<u8> {
    let length = (19 + name.len() + 1).next_multiple_of(8);
    let mut record = Vec::with_capacity(length);
    record.extend(inode.to_ne_bytes());
    record.extend(offset.to_ne_bytes());
    record.extend((length as u16).to_ne_bytes());
    record.push(kind);
    record.extend(name);
    record.resize(length, 0);
    record
}

pub(super) fn read(records: &[u8]) -> Option<Vec<(u32, u64)>> {
    let mut entries = Vec::new();
    dirent::pids(records, |pid, inode| entries.push((pid.get(), inode))).map(|()| entries)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => (1..=i32::MAX as u32).prop_map(|pid| pid.to_string().into_bytes()),
        1 => any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        1 => "0?[0-9]{0,3}[ x]?".prop_map(String::into_bytes),
        1 => prop::collection::vec(1..=255_u8, 0..255),
    ]
}

fn records() -> impl Strategy<Value = Vec<(u64, i64, u8, Vec<u8>)>> {
    prop::collection::vec((any::<u64>(), any::<i64>(), any::<u8>(), name()), 0..12)
}

fn buffer(records: &[(u64, i64, u8, Vec<u8>)]) -> Vec<u8> {
    let bytes = records.iter().map(|(inode, offset, kind, name)| record(*inode, *offset, *kind, name));
    bytes.collect::<Vec<_>>().concat()
}

proptest! {
    #[test]
    fn exactly_the_names_that_are_pids_are_found(records in records()) {
        let expected: Vec<(u32, u64)> = records
            .iter()
            .filter_map(|(inode, .., name)| {
                let name = std::str::from_utf8(name).ok()?;
                let pid: i32 = name.parse().ok()?;
                (pid > 0 && pid.to_string() == name).then_some((pid as u32, *inode))
            })
            .collect();
        prop_assert_eq!(read(&buffer(&records)), Some(expected));
    }

    #[test]
    fn a_buffer_cut_within_a_record_is_refused(records in records()) {
        let whole = buffer(&records);
        let mut ends = vec![0];
        for (inode, offset, kind, name) in &records {
            ends.push(ends.last().unwrap() + record(*inode, *offset, *kind, name).len());
        }
        for cut in 0..=whole.len() {
            prop_assert_eq!(read(&whole[..cut]).is_some(), ends.contains(&cut));
        }
    }

    /// A wrong length must not make it read out of bounds, nor, being 0, forever.
    #[test]
    fn a_record_of_any_length_comes_to_an_end(records in records(), which: prop::sample::Index, length: u16) {
        for length in [length, length % 64, 0] {
            let mut lied = records.clone();
            lied.push((1, 1, 4, b"4242".to_vec()));
            let which = which.index(lied.len());
            let at = buffer(&lied[..which]).len();
            let mut bytes = buffer(&lied);
            bytes[at + 16..at + 18].copy_from_slice(&length.to_ne_bytes());
            check::dirent(&bytes);
            if length < 20 {
                prop_assert_eq!(read(&bytes), None);
            }
        }
    }

    #[test]
    fn any_input_keeps_the_promises(bytes in prop::collection::vec(prop_oneof![Just(0), 0..40_u8, any::<u8>()], 0..200)) {
        check::dirent(&bytes);
    }
}
