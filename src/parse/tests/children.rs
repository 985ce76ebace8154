use proptest::prelude::*;

use crate::parse::{check, children};

fn read(list: &[u8]) -> Option<Vec<u32>> {
    let mut pids = Vec::new();
    children::parse(list, |pid| pids.push(pid.get())).map(|()| pids)
}

proptest! {
    #[test]
    fn a_printed_list_is_read_back_without_the_invisible_children(
        numbers in prop::collection::vec(prop_oneof![Just(0), 1..=i32::MAX as u32], 0..40)
    ) {
        let list: String = numbers.iter().map(|number| format!("{number} ")).collect();
        let visible: Vec<u32> = numbers.iter().copied().filter(|&number| number != 0).collect();
        prop_assert_eq!(read(list.as_bytes()), Some(visible));
    }

    #[test]
    fn a_list_cut_within_a_number_is_refused(numbers in prop::collection::vec(1..=i32::MAX as u32, 1..20)) {
        let list: String = numbers.iter().map(|number| format!("{number} ")).collect();
        for cut in 0..list.len() {
            let whole = cut == 0 || list[..cut].ends_with(' ');
            prop_assert_eq!(read(&list.as_bytes()[..cut]).is_some(), whole);
        }
    }

    #[test]
    fn any_input_keeps_the_promises(list in "[0-9 \n-]{0,60}") {
        check::children(list.as_bytes());
    }
}
