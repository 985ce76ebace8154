//! `pidigree id` and `pidigree alive`

use crate::common::{
    NOBODY, idle, of_another, pidigree, pidigree_in, token, token_of_the_dead, with_field, zombie,
};

#[test]
fn a_token_is_one_line_that_finds_its_process() {
    let (_family, pid) = idle();
    let ran = pidigree(&["id", &pid]).ended_with(0);
    let token = ran.stdout.strip_suffix('\n').expect("a line");
    assert!(token.starts_with(&format!("p1:{pid}:")), "{token}");
    assert!(!token.contains(char::is_whitespace));

    assert_eq!(pidigree(&["alive", token]).ended_with(0).stdout, "running\n");
    assert_eq!(pidigree(&["alive", "--quiet", token]).ended_with(0).stdout, "");
    let json = pidigree(&["alive", "--json", token]).ended_with(0).json();
    let expected = serde_json::json!({
        "pid": pid.parse::<u32>().unwrap(), "state": "running", "reason": null, "token": token,
    });
    assert_eq!(json, [expected]);
}

#[test]
fn a_zombie_has_ended() {
    let (_family, pid) = zombie(0);
    let ran = pidigree(&["alive", &token(&pid)]).ended_with(1);
    assert!(ran.stdout.starts_with("zombie: "), "{ran:?}");
}

#[test]
fn the_dead_are_gone() {
    let token = token_of_the_dead();
    let ran = pidigree(&["alive", &token]).ended_with(1);
    assert!(ran.stdout.starts_with("gone: "), "{ran:?}");
    let json = pidigree(&["alive", "--json", &token]).ended_with(1).json();
    assert_eq!(json[0]["state"], "gone");
}

#[test]
fn another_bearer_of_the_pid_is_not_the_process() {
    let (_family, pid) = idle();
    let ran = pidigree(&["alive", &of_another(&token(&pid))]).ended_with(1);
    assert!(ran.stdout.starts_with("gone: "), "{ran:?}");
}

#[test]
fn nothing_of_another_boot_runs() {
    let (_family, pid) = idle();
    let other_boot = with_field(&token(&pid), 'b', "0123456789abcdef0123456789abcdef");
    let ran = pidigree(&["alive", &other_boot]).ended_with(1);
    assert!(ran.stdout.starts_with("gone: "), "{ran:?}");
    assert!(ran.stdout.contains("boot"), "{ran:?}");
    // Also where the namespace is another one, too.
    pidigree(&["alive", &with_field(&other_boot, 'n', "1")]).ended_with(1);
}

#[test]
fn what_cannot_be_proven_is_unknown() {
    let (_family, pid) = idle();
    let unproven = format!("p1:{pid}");
    let foreign = with_field(&token(&pid), 'n', "1");
    for (token, why) in [(unproven, "prove"), (foreign, "namespace")] {
        let ran = pidigree(&["alive", &token]).ended_with(3);
        assert!(ran.stdout.starts_with("unknown: "), "{ran:?}");
        assert!(ran.stdout.contains(why), "{ran:?}");
        assert_eq!(pidigree(&["alive", "--json", &token]).ended_with(3).json()[0]["state"], "unknown");
        assert_eq!(pidigree(&["alive", "-q", &token]).ended_with(3).stdout, "");
    }
    // But if nobody has the PID, it is proven; unless nobody knows in which namespace that was.
    pidigree(&["alive", &token(&pid).replacen(&pid, NOBODY, 1)]).ended_with(1);
    pidigree(&["alive", &format!("p1:{NOBODY}")]).ended_with(3);
}

#[test]
fn a_thread_that_got_the_pid_is_not_the_process() {
    let family = pidigree_testkit::Family::spawn("thread [ say thread pause ] say root pause");
    let fact = family.fact("thread");
    let (pid, tid) = (fact.pid.to_string(), fact.tid.to_string());
    pidigree(&["alive", &token(&pid).replacen(&pid, &tid, 1)]).ended_with(1);
}

#[test]
fn without_descriptors_nothing_is_found_out() {
    let (_family, pid) = idle();
    let token = token(&pid);
    // What the dynamic loader needs, and not one more.
    let ran = pidigree_in(&["nofile", "4", "4"], &["wait", "--timeout", "1s", &token]);
    ran.failed_naming("descriptors");
}

#[test]
fn what_is_no_token_is_told_what_one_is() {
    for bad in ["", "p1", "p1:", "p1:0", "p1:-1", "p2:5", "p1:5:x7", "p1:5:", "p1:5:b00", "hello", "p1:5\n"] {
        pidigree(&["alive", bad]).failed_naming("not an identity token");
    }
    pidigree(&["alive", "77"]).failed_naming("pidigree id 77");
    pidigree(&["alive", "-1"]).failed_naming("-1");
}
