use proptest::prelude::*;

use crate::identity::{BootId, Identity, StartTime};
use crate::parse::check;
use crate::pid::Pid;

pub(crate) fn pid() -> impl Strategy<Value = Pid> {
    prop_oneof![Just(1), Just(i32::MAX as u32), 1..=i32::MAX as u32].prop_map(|pid| Pid::new(pid).unwrap())
}

/// Any identity that could be recorded somewhere: each part known or not, each value in its whole range.
pub(crate) fn identity() -> impl Strategy<Value = Identity> {
    let number = || prop_oneof![Just(0), Just(u64::MAX), any::<u64>()];
    let offset = prop_oneof![Just(0), Just(-1), Just(i64::MIN), Just(i64::MAX), any::<i64>()];
    (
        pid(),
        prop::option::of(number()),
        prop::option::of((number(), offset)),
        any::<bool>(),
        prop::option::of(number()),
        prop::option::of(any::<[u8; 16]>()),
    )
        .prop_map(|(pid, unique, start, settled, pid_namespace, boot)| Identity {
            pid,
            unique,
            start: start.map(|(ticks, offset)| StartTime { ticks, offset }),
            settled: settled && start.is_some(),
            pid_namespace,
            boot: boot.map(BootId),
        })
}

/// One of which all is known, so that its token has every field.
fn whole() -> impl Strategy<Value = Identity> {
    (pid(), 10_000_000..u64::MAX, any::<u64>(), 1..i64::MAX, any::<bool>(), any::<[u8; 16]>()).prop_map(
        |(pid, number, ticks, offset, settled, boot)| Identity {
            pid,
            unique: Some(number),
            start: Some(StartTime { ticks, offset }),
            settled,
            pid_namespace: Some(number),
            // A letter, for upper case to change something.
            boot: Some(BootId(boot.map(|byte| byte | 0x0a))),
        },
    )
}

fn assert_refused(text: &str) {
    let error = match text.parse::<Identity>() {
        Ok(identity) => panic!("{text:?} was read as {identity}"),
        Err(error) => error,
    };
    assert!(error.is_invalid(), "{error:?}");
    assert_eq!(error.pid(), None);
    let message = error.to_string();
    assert!(!message.contains(char::is_control), "{message:?} is not one line");
    let start: String = text.chars().take(120).collect();
    assert!(message.contains(&format!("{start:?}")), "{message} does not show {start:?}");
    assert!(message.len() < 2048, "{message}");
    check::token(text.as_bytes());
}

proptest! {
    #[test]
    fn every_field_survives_the_token(identity in identity()) {
        let token = identity.to_string();
        check::assert_same_fields(&token.parse().unwrap(), &identity);
        check::token(token.as_bytes());
    }

    #[test]
    fn a_token_is_one_word_safe_in_shells_and_file_names(identity in identity()) {
        let token = identity.to_string();
        prop_assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":@-".contains(&byte)), "{}", token);
        prop_assert!(token.starts_with("p1:"));
        prop_assert!(token.len() < 160, "{}", token.len());
    }

    #[test]
    fn no_two_identities_share_a_token(a in identity(), b in identity()) {
        if a.to_string() == b.to_string() {
            check::assert_same_fields(&a, &b);
        }
    }

    #[test]
    fn fields_in_another_order_or_twice_are_refused(
        identity in whole(),
        (from, to) in (1..6_usize, 1..6_usize).prop_filter("two places", |(from, to)| from != to),
    ) {
        let token = identity.to_string();
        let fields: Vec<&str> = token.split(':').collect();
        let mut swapped = fields.clone();
        swapped.swap(from, to);
        // The PID has no letter, so it stays one only in its own place.
        assert_refused(&swapped.join(":"));
        let mut twice = fields.clone();
        twice.insert(from, fields[to]);
        assert_refused(&twice.join(":"));
        let mut empty = fields.clone();
        empty.insert(from, "");
        assert_refused(&empty.join(":"));
        let mut bare = fields.clone();
        bare[from] = &fields[from][..usize::from(from > 1)];
        assert_refused(&bare.join(":"));
    }

    #[test]
    fn a_number_written_otherwise_is_refused(identity in whole(), field in 1..5_usize, how in 0..7_usize) {
        let token = identity.to_string();
        let fields: Vec<&str> = token.split(':').collect();
        let (letter, number) = fields[field].split_at(usize::from(field > 1));
        let other = match how {
            0 => format!("{letter}0{number}"),
            1 => format!("{letter}+{number}"),
            2 => format!("{letter}-{number}"),
            3 => format!("{letter}18446744073709551616"),
            4 => format!("{letter}{}", "9".repeat(200)),
            5 => format!("{letter} {number}"),
            _ => format!("{letter}0x{number}"),
        };
        let mut written = fields.clone();
        written[field] = &other;
        assert_refused(&written.join(":"));
    }

    #[test]
    fn whatever_stands_around_a_token_is_refused(
        identity in identity(),
        extra in prop_oneof![" ", "\n", "\r\n", "\t", ":", "\0", "\u{2028}", "\u{1b}\\[2J", "[a-z]", "\u{feff}"],
    ) {
        let token = identity.to_string();
        assert_refused(&format!("{extra}{token}"));
        // A digit more can make another token; none of these can.
        let behind = format!("{token}{extra}");
        assert_refused(&behind);
    }

    #[test]
    fn upper_case_and_other_versions_are_refused(identity in whole(), version in "p(0|2|01|1[0-9]|)|q1|P1|") {
        let token = identity.to_string();
        assert_refused(&token.to_uppercase());
        let (rest, boot) = token.rsplit_once(":b").unwrap();
        assert_refused(&format!("{rest}:b{}", boot.to_uppercase()));
        assert_refused(&token.replacen("p1", &version, 1));
    }

    #[test]
    fn a_boot_id_of_another_length_is_refused(identity in whole(), less in 1..=32_usize) {
        let token = identity.to_string();
        assert_refused(&token[..token.len() - less]);
        assert_refused(&format!("{token}0"));
    }

    /// Any single change: refused, or the one token of some other identity.
    #[test]
    fn what_is_accepted_is_what_would_be_printed(
        identity in identity(),
        at: prop::sample::Index,
        how in 0..4_usize,
        with in prop_oneof![Just(':'), Just('@'), Just('-'), prop::char::range('0', '9'), any::<char>()],
    ) {
        let mut text: Vec<char> = identity.to_string().chars().collect();
        let place = at.index(text.len());
        match how {
            0 => text[place] = with,
            1 => text.insert(place, with),
            2 => drop(text.remove(place)),
            _ => text.truncate(place),
        }
        let text: String = text.into_iter().collect();
        match text.parse::<Identity>() {
            Ok(read) => prop_assert_eq!(read.to_string(), text),
            Err(_) => assert_refused(&text),
        }
    }

    #[test]
    fn any_text_keeps_the_promises(text in "(p1:)?([0-9]{1,11})?(:[usynb@][0-9a-f@-]{0,33}){0,5}") {
        check::token(text.as_bytes());
    }

    #[test]
    fn any_text_at_all_keeps_the_promises(text in "\\PC{0,40}", bytes: Vec<u8>) {
        check::token(text.as_bytes());
        check::token(&bytes);
    }
}

#[test]
fn an_offset_of_nothing_has_one_form_only() {
    for text in [
        "p1:5:s9@0",
        "p1:5:s9@-0",
        "p1:5:s9@",
        "p1:5:s@9",
        "p1:5:s9@9@9",
        "p1:5:@9",
        "p1:5:s9:y9",
        "p1:5:y9:s9",
    ] {
        assert_refused(text);
    }
}

#[test]
fn a_hostile_text_is_shown_harmlessly_and_not_in_full() {
    assert_refused("p1:5\u{1b}]0;owned\u{7}\n\u{202e}\u{2028}");
    assert_refused(&"\n".repeat(100_000));
    assert_refused(&"\u{10ffff}".repeat(10_000));
}

#[test]
fn the_token_in_the_documentation_is_one() {
    let token = "p1:4242:u70123:s115756:n4026531836:b0a1b2c3d4e5f60718293a4b5c6d7e8f9";
    let identity: Identity = token.parse().unwrap();
    assert_eq!(identity.to_string(), token);
    assert_eq!(identity.pid().get(), 4242);
    assert_eq!(identity.unique_id(), Some(70123));
    assert_eq!(identity.start_time(), Some(StartTime { ticks: 115_756, offset: 0 }));
    assert!(identity.settled);
    assert_eq!(identity.pid_namespace(), Some(4_026_531_836));
    assert_eq!(identity.boot_id().unwrap().to_string(), "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9");
}
