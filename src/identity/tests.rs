//! `same_process` is held against simulated machines, where it is known who is who.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use proptest::prelude::*;

use super::*;
use crate::parse::tests::token;

mod world;

use Sameness::*;

/// Identities that meet each other's values often: three of each kind.
fn few() -> impl Strategy<Value = Identity> {
    let number = || prop::option::of(0..3_u64);
    (
        1..4_u32,
        number(),
        prop::option::of((0..3_u64, prop::sample::select(&[0, 0, 7, -10_000_000][..]))),
        any::<bool>(),
        number(),
        prop::option::of(0..3_u8),
    )
        .prop_map(|(pid, unique, start, settled, pid_namespace, boot)| Identity {
            pid: Pid::new(pid).unwrap(),
            unique,
            start: start.map(|(ticks, offset)| StartTime { ticks, offset }),
            settled: settled && start.is_some(),
            pid_namespace,
            boot: boot.map(|boot| BootId([boot; 16])),
        })
}

fn differ<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

proptest! {
    #[test]
    fn equality_is_an_equivalence_that_hash_respects(a in few(), b in few(), c in few()) {
        prop_assert_eq!(a, a);
        prop_assert_eq!(a == b, b == a);
        if a == b && b == c {
            prop_assert_eq!(a, c);
        }
        let state = RandomState::new();
        if a == b {
            prop_assert_eq!(state.hash_one(a), state.hash_one(b));
        }
        let all = [a, b, c, a];
        let distinct = 1 + usize::from(a != b) + usize::from(a != c && b != c);
        prop_assert_eq!(HashSet::from(all).len(), distinct);
    }

    #[test]
    fn equality_is_of_what_was_recorded(a in few(), b in few()) {
        let who = |x: &Identity| (x.boot.map(|boot| boot.0), x.pid_namespace, x.pid.get(), x.unique);
        let when = |x: &Identity| x.start.map(|start| (start.ticks, start.offset));
        // The start time is part of it only where there is no unique id.
        let equal = who(&a) == who(&b) && (a.unique.is_some() || when(&a) == when(&b));
        prop_assert_eq!(a == b, equal);
    }

    #[test]
    fn what_is_learnt_later_does_not_change_a_key(identity in token::identity(), ticks: u64, settled: bool) {
        let settled_later = Identity { settled: identity.start.is_some(), ..identity };
        prop_assert_eq!(identity, settled_later);
        let start = Some(StartTime { ticks, offset: 0 });
        if identity.unique.is_some() {
            prop_assert_eq!(identity, Identity { start, settled, ..identity });
            prop_assert_eq!(identity, Identity { start: None, settled: false, ..identity });
        }
    }

    #[test]
    fn equal_is_never_different(a in few(), b in few()) {
        if a == b {
            prop_assert_ne!(a.same_process(&b), Different);
        }
    }

    #[test]
    fn sameness_is_symmetric(a in few(), b in few()) {
        prop_assert_eq!(a.same_process(&b), b.same_process(&a));
    }

    #[test]
    fn an_identity_is_itself_exactly_where_that_can_be_proven(identity in few()) {
        let unique = identity.unique.is_some();
        let time = identity.settled && identity.pid_namespace.is_some();
        let expected = if identity.boot.is_some() && (unique || time) { Same } else { Unknown };
        prop_assert_eq!(identity.same_process(&identity), expected);
    }

    #[test]
    fn each_proof_of_two_processes_is_accepted(a in few(), b in few()) {
        let said = a.same_process(&b);
        // Trap 7: the unique id and the start time begin anew with each boot.
        if differ(a.boot, b.boot) || differ(a.unique, b.unique) {
            prop_assert_eq!(said, Different);
        }
        if a.pid_namespace.is_some() && a.pid_namespace == b.pid_namespace && a.pid != b.pid {
            prop_assert_eq!(said, Different);
        }
        if let (Some(x), Some(y), None) = (a.start, b.start, a.unique.or(b.unique)) {
            if x.offset == y.offset && x.ticks != y.ticks {
                prop_assert_eq!(said, Different);
            }
        }
    }

    #[test]
    fn nothing_is_the_same_without_a_known_boot_and_a_proof(a in few(), b in few()) {
        if a.same_process(&b) == Same {
            prop_assert!(a.boot.is_some() && a.boot == b.boot);
            let unique = a.unique.is_some() && a.unique == b.unique;
            let time = a.settled && b.settled && a.start == b.start && a.pid == b.pid
                && a.pid_namespace.is_some() && a.pid_namespace == b.pid_namespace;
            prop_assert!(unique || time);
        }
    }

    /// Trap 14: the kernel rounds after it shifts, so not even the difference of two offsets helps.
    #[test]
    fn start_times_under_different_offsets_prove_nothing(a in few(), ticks in 0..3_u64, settled: bool) {
        let first = a.start.unwrap_or(StartTime { ticks: 0, offset: 0 });
        for unique in [None, Some(7)] {
            // One of the two has no unique id, so all there is to go by is the start time.
            let b = Identity { start: Some(StartTime { ticks, offset: 1 }), settled, unique, ..a };
            let a = Identity { unique: None, start: Some(first), ..a };
            prop_assert_eq!(a.same_process(&b), Unknown);
        }
    }
}

#[test]
fn a_token_of_another_boot_is_of_another_process() {
    let here: Identity = "p1:7:u70123:s115756:n4026531836:b0a1b2c3d4e5f60718293a4b5c6d7e8f9".parse().unwrap();
    let there: Identity =
        "p1:7:u70123:s115756:n4026531836:b0a1b2c3d4e5f60718293a4b5c6d7e8fa".parse().unwrap();
    assert_eq!(here.same_process(&there), Different);
    assert_ne!(here, there);
    let nowhere: Identity = "p1:7:u70123:s115756:n4026531836".parse().unwrap();
    assert_eq!(here.same_process(&nowhere), Unknown);
    assert_eq!(nowhere.same_process(&nowhere), Unknown);
}

#[cfg(feature = "serde")]
mod serde {
    use super::*;

    proptest! {
        #[test]
        fn an_identity_is_its_token(identity in token::identity()) {
            let json = serde_json::to_string(&identity).unwrap();
            prop_assert_eq!(&json, &format!("\"{identity}\""));
            let back: Identity = serde_json::from_str(&json).unwrap();
            crate::parse::check::assert_same_fields(&back, &identity);
            // Also where the text has escapes and where it must be owned.
            let escaped = json.replace('p', "\\u0070");
            let back: Identity = serde_json::from_str(&escaped).unwrap();
            prop_assert_eq!(back, identity);
            let back: Identity = serde_json::from_reader(json.as_bytes()).unwrap();
            prop_assert_eq!(back, identity);
            let back: Identity = serde_json::from_value(serde_json::to_value(identity).unwrap()).unwrap();
            prop_assert_eq!(back, identity);
        }

        #[test]
        fn a_pid_is_its_number(pid in token::pid()) {
            let json = serde_json::to_string(&pid).unwrap();
            prop_assert_eq!(&json, &pid.to_string());
            prop_assert_eq!(serde_json::from_str::<Pid>(&json).unwrap(), pid);
        }

        #[test]
        fn no_other_number_is_a_pid(number: i64) {
            let read = serde_json::from_str::<Pid>(&number.to_string()).ok();
            let expected = u32::try_from(number).ok().and_then(Pid::new);
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for json in ["0", "-1", "2147483648", "4294967297", "1.5", "\"7\"", "null", "[7]", "true"] {
            assert!(serde_json::from_str::<Pid>(json).is_err(), "{json}");
        }
        for json in ["7", "\"\"", "\"p1:0\"", "\"p1:7:\"", "\"p1:7\\n\"", "null", "{\"pid\":7}"] {
            let error = serde_json::from_str::<Identity>(json).expect_err(json).to_string();
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
