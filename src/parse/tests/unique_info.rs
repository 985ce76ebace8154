use proptest::prelude::*;

use crate::parse::check;
use crate::parse::unique_info::UniqueInfo;

const SIZE: usize = 56;

/// As the kernel lays it out: the UUID of the program, two numbers, the version of the PID, and what is reserved.
fn answer(uuid: [u8; 16], unique: u64, parent: u64, version: i32, rest: [u8; 20]) -> [u8; SIZE] {
    let mut answer = Vec::from(uuid);
    answer.extend(unique.to_le_bytes());
    answer.extend(parent.to_le_bytes());
    answer.extend(version.to_le_bytes());
    answer.extend(rest);
    answer.try_into().unwrap()
}

#[test]
fn nothing_but_the_program_and_the_two_numbers_is_read() {
    let whole = answer([0xa5; 16], 70_123, 1, 1_234, [0xa5; 20]);
    let read = UniqueInfo::parse(&whole);
    assert_eq!(read, Some(UniqueInfo { executable: [0xa5; 16], unique: 70_123, parent_unique: 1 }));
    for at in 0..SIZE {
        let mut other = whole;
        other[at] ^= 1;
        assert_eq!(UniqueInfo::parse(&other) == read, at >= 32, "byte {at}");
    }
}

proptest! {
    #[test]
    fn all_is_read_as_they_were_written(
        uuid: [u8; 16],
        unique: u64,
        parent_unique: u64,
        version: i32,
        rest: [u8; 20],
    ) {
        let whole = answer(uuid, unique, parent_unique, version, rest);
        prop_assert_eq!(UniqueInfo::parse(&whole), Some(UniqueInfo { executable: uuid, unique, parent_unique }));
        check::unique_info(&whole);
    }

    #[test]
    fn an_answer_that_is_cut_or_longer_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..2 * SIZE)) {
        prop_assert_eq!(UniqueInfo::parse(&bytes).is_some(), bytes.len() == SIZE);
        check::unique_info(&bytes);
    }
}
