//! Nobody holds our end any more, and the tree is to end with us.

use super::*;

/// Lets go of the helper, and waits for its end: the tree's.
#[track_caller]
fn assert_killed(mut tended: Tended) {
    let (root, lifeline) = (tended.root, tended.child.stdin.take());
    drop(tended.helper.take());
    let helper = Handle::open(tended.helper_pid()).unwrap();
    assert!(helper.wait(Some(DEADLINE)).unwrap(), "{} and {root} are not gone", tended.child.id());
    // Every member that lives holds this, which nobody has closed.
    let mut rest = String::new();
    tended.output.read_to_string(&mut rest).unwrap();
    drop(lifeline);
}

#[test]
fn all_of_a_tree_is_killed() {
    let script = "fork [ fork [ fork [ setsid say deep pause ] pause ] double-fork [ say daemon pause ] pause ] \
                  thread [ fork [ pause ] pause ] clone-parent [ pause ] pause";
    let mut tended = Tended::script(script);
    let said = [tended.line(), tended.line()].concat();
    assert!(said.contains("deep") && said.contains("daemon"), "{said}");
    tended.assert_silent();
    assert_killed(tended);
}

#[test]
fn the_status_is_mirrored_even_so() {
    let mut tended = Tended::script("pause");
    let lifeline = tended.child.stdin.take();
    drop(tended.helper.take());
    assert_eq!(tended.code(), Some(137));
    drop(lifeline);
}

#[test]
fn who_stands_still_is_killed() {
    let mut tended = Tended::script("fork [ say kid pause ] pause");
    let (kid, _) = tended.fact("kid");
    signal(kid, Signal::SIGSTOP);
    signal(tended.root, Signal::SIGSTOP);
    assert_killed(tended);
}

#[test]
fn more_children_than_one_reading_lists() {
    let mut tended = Tended::script(&format!("{} say all pause", ["fork [ pause ]"; 400].join(" ")));
    tended.fact("all");
    tended.root_ends();
    assert_killed(tended);
}

/// The kernel hands over a page at a time, and we take less.
#[test]
fn a_list_of_children_is_cut_at_no_number() {
    let children = pidigree_testkit::idle_children(1_000);
    let mut listed = Vec::new();
    kill::each_listed(|pid| listed.push(pid as u32)).unwrap();
    assert_eq!(listed, children.pids());
}

/// Each is a child of the helper for less than a millisecond.
#[test]
fn a_hopper_is_caught() {
    for script in ["hopper 0", "hopper 0 setsid-every 3 double-every 2"] {
        let mut tended = Tended::script(script);
        for _ in 0..50 {
            assert!(matches!(tended.next(), Report::Ended { .. }));
        }
        assert_killed(tended);
    }
}

#[test]
fn a_storm_of_forks_is_caught() {
    let mut tended = Tended::script("fork [ storm 0 ] fork [ fork [ storm 0 ] pause ] say both storm 0");
    tended.fact("both");
    assert_killed(tended);
}

#[test]
fn a_fork_bomb_loses() {
    let tended = Tended::script("bomb 2000 pause");
    let root = tended.root;
    eventually("it goes off", || (!children_of(root).is_empty()).then_some(()));
    assert_killed(tended);
}

/// A root that has not been told about, and one that ended before.
#[test]
fn before_it_was_told_to_go_on_too() {
    let mut script = Command::new(binary());
    assert_killed(Tended::spawn_held(script.args(["fork", "[", "pause", "]", "pause"]), OnDeath::Kill));
    assert_killed(Tended::spawn_held(script.args(["exit", "0"]), OnDeath::Kill));
}

#[test]
fn left_alone_it_waits_for_the_last_one() {
    let mut script = Command::new(binary());
    script.args("fork [ say kid pause ] await exit 6".split(' '));
    let mut tended = Tended::spawn_held(&mut script, OnDeath::Leave);
    let (kid, _) = tended.fact("kid");
    drop(tended.helper.take());
    // Its socket is the first thing to go.
    eventually("the helper knows", || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", tended.helper_pid())).unwrap().count();
        (files == 1).then_some(())
    });
    signal(tended.root, Signal::SIGUSR1);
    eventually("the root is reaped", || (state(tended.root) == State::Gone).then_some(()));
    assert_eq!((state(kid), state(tended.helper_pid())), (State::Running, State::Running));
    tended.end();
    assert_eq!(tended.code(), Some(6));
}

impl Tended {
    /// Its children are the helper's from here on.
    fn root_ends(&mut self) {
        signal(self.root, Signal::SIGKILL);
        assert_eq!(ends(&[self.next()]), [(self.root, ExitStatus::Signal(9))]);
    }
}
