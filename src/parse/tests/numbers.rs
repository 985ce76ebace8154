use proptest::prelude::*;

use crate::parse::{decimal, signed};

/// Numbers near every edge, as often as others.
fn edges() -> impl Strategy<Value = String> {
    let near = |edge: i128| (-2_i128..=2).prop_map(move |step| (edge + step).to_string());
    prop_oneof![
        near(0),
        near(i64::MAX.into()),
        near(i64::MIN.into()),
        near(u64::MAX.into()),
        any::<i128>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        "[-+]?0?[0-9]{0,22}",
        "[-+0-9 _.eEx/:٣]{0,8}",
    ]
}

proptest! {
    #[test]
    fn decimal_reads_what_std_reads_and_would_print_the_same(text in edges()) {
        let std = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
        prop_assert_eq!(decimal(text.as_bytes()), std);
    }

    #[test]
    fn signed_reads_what_std_reads_and_would_print_the_same(text in edges()) {
        let std = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
        prop_assert_eq!(signed(text.as_bytes()), std);
    }

    #[test]
    fn any_number_is_read_back(number: u64, small: i64) {
        prop_assert_eq!(decimal(number.to_string().as_bytes()), Some(number));
        prop_assert_eq!(signed(small.to_string().as_bytes()), Some(small));
    }

    #[test]
    fn any_bytes_at_all_are_read_or_refused(bytes: Vec<u8>) {
        let text = std::str::from_utf8(&bytes).ok();
        let std = text.and_then(|text| text.parse::<u64>().ok().filter(|number| number.to_string() == text));
        prop_assert_eq!(decimal(&bytes), std);
    }
}
