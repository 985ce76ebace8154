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
    fn a_boot_session_is_read_in_upper_case_with_a_nul_or_none(bytes: [u8; 16]) {
        let text = BootId(bytes).to_string().to_uppercase();
        prop_assert_eq!(uuid::boot_session(text.as_bytes()), Some(bytes));
        prop_assert_eq!(uuid::boot_session(format!("{text}\0").as_bytes()), Some(bytes));
        for behind in ["\0\0", "\n", "\n\0", "\0\n", "0"] {
            prop_assert_eq!(uuid::boot_session(format!("{text}{behind}").as_bytes()), None);
        }
        for cut in 0..text.len() {
            prop_assert_eq!(uuid::boot_session(&text.as_bytes()[..cut]), None);
        }
    }

    #[test]
    fn the_two_forms_are_not_mixed(bytes: [u8; 16], lower in 0..16_usize) {
        // A letter in each byte, for the case to make a difference.
        let bytes = bytes.map(|byte| byte | 0x0a);
        let text = BootId(bytes).to_string();
        prop_assert_eq!(uuid::boot_session(text.as_bytes()), None);
        prop_assert_eq!(uuid::parse(text.to_uppercase().as_bytes()), None);
        prop_assert_eq!(uuid::parse(format!("{text}\0").as_bytes()), None);
        let mut mixed = text.to_uppercase().into_bytes();
        let digits: Vec<usize> = (0..mixed.len()).filter(|&at| mixed[at] != b'-').collect();
        mixed[digits[2 * lower + 1]].make_ascii_lowercase();
        prop_assert_eq!(uuid::boot_session(&mixed), None);
        check::uuid(&mixed);
    }

    #[test]
    fn one_wrong_byte_is_noticed(bytes: [u8; 16], at in 0..36_usize, byte: u8) {
        let mut text = BootId(bytes).to_string().into_bytes();
        let mut upper = text.to_ascii_uppercase();
        text[at] = byte;
        check::uuid(&text);
        upper[at] = byte;
        check::uuid(&upper);
    }
}
