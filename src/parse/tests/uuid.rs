use proptest::prelude::*;

use crate::identity::BootId;
use crate::parse::{check, uuid};

proptest! {
    #[test]
    fn a_boot_id_is_read_as_it_is_printed(bytes: [u8; 16]) {
        let text = BootId(bytes).to_string();
        prop_assert_eq!(uuid::parse(text.as_bytes()), Some(bytes));
        prop_assert_eq!(uuid::parse(format!("{text}\n").as_bytes()), Some(bytes));
        prop_assert_eq!(uuid::parse(format!("{text}\n\n").as_bytes()), None);
        for cut in 0..text.len() {
            prop_assert_eq!(uuid::parse(&text.as_bytes()[..cut]), None);
        }
    }

    #[test]
    fn one_wrong_byte_is_noticed(bytes: [u8; 16], at in 0..36_usize, byte: u8) {
        let mut text = BootId(bytes).to_string().into_bytes();
        text[at] = byte;
        check::uuid(&text);
    }
}
