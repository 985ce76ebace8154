use proptest::prelude::*;

use crate::parse::{check, timens_offsets::boottime};

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("boottime".to_owned()),
        Just("7".to_owned()),
        Just("monotonic".to_owned()),
        (-9_223_372_040_i64..=-9_223_372_030).prop_map(|number| number.to_string()),
        (9_223_372_030_i64..=9_223_372_040).prop_map(|number| number.to_string()),
        (0..2_000_000_000_u32).prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        "[-+]?0?[0-9]{0,3}",
    ]
}

proptest! {
    #[test]
    fn what_the_kernel_prints_is_read(
        other in -4_000_000_000_i64..4_000_000_000,
        seconds in -4_000_000_000_i64..4_000_000_000,
        nanoseconds in 0..1_000_000_000_i64,
    ) {
        // seq_printf of "%-10s %10lld %9ld\n".
        let text = format!("{:<10} {other:>10} {:>9}\n{:<10} {seconds:>10} {nanoseconds:>9}\n", "monotonic", 0, "boottime");
        prop_assert_eq!(boottime(text.as_bytes()), Some(seconds * 1_000_000_000 + nanoseconds));
        for cut in 0..text.len() {
            prop_assert_eq!(boottime(&text.as_bytes()[..cut]), None);
        }
    }

    #[test]
    fn any_words_keep_the_promises(lines in prop::collection::vec(prop::collection::vec(word(), 0..5), 0..4), newline: bool) {
        let lines: Vec<String> = lines.iter().map(|words| words.join(" ")).collect();
        let mut text = lines.join("\n");
        if newline {
            text.push('\n');
        }
        check::timens_offsets(text.as_bytes());
    }
}
