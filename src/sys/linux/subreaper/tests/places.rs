//! Where something is missing.

use pidigree_testkit::{is_root, require, stage};

use super::*;

const HERE: &str = "sys::backend::subreaper::tests::places";

/// close_range(2), on every architecture.
const CLOSE_RANGE: &str = "436";

/// What a helper that can do no more than close its files and kill must do.
fn closes_and_kills() {
    let mut tended = Tended::spawn(&mut shell("exec >/dev/null; cat & cat"));
    let mut output = String::new();
    tended.output.read_to_string(&mut output).unwrap();
    assert_eq!(output, "", "nobody holds the other end");
    let lifeline = tended.child.stdin.take();
    drop(tended.helper.take());
    assert_eq!(tended.code(), Some(137));
    drop(lifeline);
}

#[test]
fn without_close_range() {
    stage(&format!("{HERE}::without_close_range"), &["deny", "ENOSYS", CLOSE_RANGE], || {
        let mut tended = Tended::script("say root pause");
        tended.fact("root");
        let files = || std::fs::read_dir(format!("/proc/{}/fd", tended.helper_pid())).unwrap().count();
        eventually("the helper is ready", || (files() == 2).then_some(()));
        drop(tended);
        closes_and_kills();
    });
}

#[test]
fn without_close_range_and_proc() {
    let launch = [
        "in-ns",
        "pid,mount",
        "--empty-proc",
        "--",
        binary().to_str().unwrap(),
        "deny",
        "ENOSYS",
        CLOSE_RANGE,
    ];
    stage(&format!("{HERE}::without_close_range_and_proc"), &launch, closes_and_kills);
}

#[test]
fn with_the_proc_of_another_namespace() {
    let launch = ["in-ns", "pid,mount", "--no-proc"];
    stage(&format!("{HERE}::with_the_proc_of_another_namespace"), &launch, closes_and_kills);
}

#[test]
fn with_hidden_processes() {
    let launch = ["in-ns", "pid,mount", "--hidepid", "2", "--uid", "65534"];
    stage(&format!("{HERE}::with_hidden_processes"), &launch, closes_and_kills);
}

#[test]
fn as_another_user() {
    require!(is_root(), "needs root");
    let mut command = Command::new("cat");
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    let mut tended = Tended::spawn(&mut command);
    let lifeline = tended.child.stdin.take();
    drop(tended.helper.take());
    assert_eq!(tended.code(), Some(137));
    drop(lifeline);
}

/// Whatever is left, it is enough, or an error that says so; and nobody stays behind.
#[test]
fn without_room_for_descriptors() {
    stage(&format!("{HERE}::without_room_for_descriptors"), &["nofile", "64", "64"], || {
        let mut held = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            held.push(file);
        }
        let mut spawned = 0;
        for room in 0..8 {
            match Helper::spawn(Command::new("true").stdout(Stdio::null()), OnDeath::Leave) {
                Ok((mut helper, mut child, _)) => {
                    spawned += 1;
                    helper.go_on().unwrap();
                    assert!(child.wait().unwrap().success());
                }
                Err(error) => assert!(error.is_limit() && spawned == 0, "room for {room}: {error}"),
            }
            assert!(spawned > 0 || room < 7);
            held.pop();
        }
        // SAFETY: the call has no arguments that could be wrong.
        assert_eq!(
            // SAFETY: a null status is allowed; nothing else is a pointer.
            Errno::result(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) }),
            Err(Errno::ECHILD)
        );
    });
}

#[test]
fn where_nobody_may_be_a_subreaper() {
    let launch = ["deny", "EPERM", "prctl:PR_SET_CHILD_SUBREAPER"];
    stage(&format!("{HERE}::where_nobody_may_be_a_subreaper"), &launch, || {
        let error = Helper::spawn(&mut Command::new("true"), OnDeath::Leave).unwrap_err();
        assert!(error.is_unsupported(), "{error}");
        assert_eq!(children_here(), "");
    });
}

/// The helper would be the init of that namespace, and its PIDs are not ours.
#[test]
fn where_children_are_in_another_namespace() {
    require!(is_root(), "needs root");
    // Of this thread, which forks nothing else.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID).unwrap();
    let error = Helper::spawn(Command::new("cat").stdin(Stdio::piped()), OnDeath::Leave).unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    assert_eq!(children_here(), "");
}
