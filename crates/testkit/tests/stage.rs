//! `stage` runs the body inside, once, and notices when it did not.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pidigree_testkit::{require, stage};

const LAUNCH: &[&str] = &["nofile", "123", "456"];

fn soft_limit() -> bool {
    let limits = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    limits.expect("a limit").0 == 123
}

fn failure(test: &str, launch: &[&str], body: impl FnOnce()) -> String {
    let outcome = catch_unwind(AssertUnwindSafe(|| stage(test, launch, body)));
    if std::env::var("PIDIGREE_STAGE").is_ok_and(|staged| staged == test) {
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        return String::new();
    }
    *outcome.expect_err("the stage fails").downcast::<String>().expect("a message")
}

#[test]
fn the_body_runs_inside_and_not_outside() {
    let mut inside = false;
    stage("the_body_runs_inside_and_not_outside", LAUNCH, || {
        assert!(soft_limit());
        inside = true;
    });
    assert_eq!(inside, soft_limit());
}

#[test]
fn a_panic_inside_is_one_outside_with_the_output() {
    let name = "a_panic_inside_is_one_outside_with_the_output";
    let message = failure(name, LAUNCH, || {
        eprintln!("a word on the way");
        panic!("broken promise");
    });
    if !soft_limit() {
        assert!(message.contains("a word on the way") && message.contains("broken promise"), "{message}");
    }
}

#[test]
fn an_exit_inside_is_noticed() {
    let message = failure("an_exit_inside_is_noticed", LAUNCH, || std::process::exit(0));
    assert!(soft_limit() || message.contains("did not run"), "{message}");
}

#[test]
fn a_misspelt_test_is_noticed() {
    let message = failure("a_mispelt_test_is_noticed", LAUNCH, || ());
    assert!(message.contains("is that its name?"), "{message}");
}

#[test]
fn a_skip_inside_skips_the_rest() {
    if std::env::var_os("PIDIGREE_NO_SKIP").is_some() {
        // Nothing may be skipped there, not even for this test
        return;
    }
    stage("a_skip_inside_skips_the_rest", LAUNCH, || {
        require!(Err::<(), _>("none"), "needs a {}", "miracle");
        unreachable!();
    });
}

#[test]
fn a_world_that_cannot_be_made_skips_the_test() {
    let name = "a_world_that_cannot_be_made_skips_the_test";
    let launch = ["nofile", "9", "8"];
    let outcome = catch_unwind(|| stage(name, &launch, || unreachable!()));
    assert_eq!(outcome.is_err(), std::env::var("PIDIGREE_NO_SKIP").is_ok_and(|value| value == "1"));
}

#[test]
fn a_test_may_have_several_stages_and_requires_outside() {
    let name = "a_test_may_have_several_stages_and_requires_outside";
    require!(!soft_limit(), "what holds outside need not hold inside");
    stage(name, LAUNCH, || assert!(soft_limit()));
    stage(name, &["nofile", "124", "456"], || assert!(!soft_limit()));
}

#[cfg(target_os = "linux")] // macOS has no seccomp
#[test]
fn a_denial_may_come_late_and_is_for_every_thread() {
    stage("a_denial_may_come_late_and_is_for_every_thread", LAUNCH, || {
        assert!(std::fs::File::open("/dev/null").is_ok());
        let (go, wait) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            wait.recv().expect("the word to go on");
            std::fs::File::open("/dev/null").map(drop).map_err(|error| error.raw_os_error())
        });
        pidigree_testkit::deny_from_now("EIO", "openat");
        go.send(()).expect("the other thread listens");
        assert_eq!(other.join().expect("it ends"), Err(Some(5)));
    });
}
