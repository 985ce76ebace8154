use proptest::prelude::*;

use crate::parse::{check, keyed};

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        "(Tgid|Pid|NSpid|Tgid_):[\t ]{0,3}-?[0-9]{0,20}[ kB]{0,2}",
        "process(es)?(_running)? {0,2}[0-9]{0,20}",
        "Name:\t[a-z:\t ]{0,15}",
        Just(String::new()),
    ]
}

proptest! {
    #[test]
    fn the_number_is_found_wherever_the_line_stands(
        before in prop::collection::vec("[A-Z][a-z]{1,8}:\t[ -~]{0,20}\n", 0..5),
        number: i64,
        after in "([ -~\t]{0,20}\n){0,3}",
    ) {
        let text = format!("{}Key:\t{number}\n{after}", before.concat());
        prop_assume!(!before.iter().any(|line| line.starts_with("Key:")));
        prop_assert_eq!(keyed::number(text.as_bytes(), "Key:"), Some(number));
    }

    #[test]
    fn a_number_that_is_cut_is_not_one(number: i64) {
        let text = format!("State:\tR\nTgid:\t{number}\n");
        for cut in 0..text.len() {
            prop_assert_eq!(keyed::number(&text.as_bytes()[..cut], "Tgid:"), None);
        }
    }

    #[test]
    fn any_lines_keep_the_promises(lines in prop::collection::vec(line(), 0..6), newline: bool) {
        let mut text = lines.join("\n");
        if newline {
            text.push('\n');
        }
        check::keyed(text.as_bytes());
    }
}

#[test]
fn the_first_line_with_the_key_decides() {
    assert_eq!(keyed::number(b"Pid:\tx\nPid:\t5\n", "Pid:"), None);
    assert_eq!(keyed::number(b"processes_running 3\nprocesses 7\n", "processes"), Some(7));
    assert_eq!(keyed::number(b"Pid:\t-1\n", "Pid:"), Some(-1));
}
