//! Every operation of the script does what `--help` says, as the system and wait statuses see it.

mod common;

#[cfg(target_os = "linux")] // for what only /proc says
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use common::stat;
#[cfg(target_os = "linux")] // for what needs a world that only Linux has
use pidigree_testkit::stage;
use pidigree_testkit::{Fact, Family, binary, eventually, is_root, require};

fn ppid(pid: u32) -> u32 {
    stat(pid, 4).and_then(|ppid| ppid.parse().ok()).unwrap_or_else(|| panic!("{pid} has ended"))
}

fn exit_code(script: &str) -> Option<i32> {
    Family::spawn(script).child().wait().expect("a child can be waited for").code()
}

#[test]
fn facts_are_true() {
    let family = Family::spawn(["fork", "[", "say", "kid", "pause", "]", "say", "root", "pause"].as_slice());
    let (root, kid) = (family.fact("root"), family.fact("kid"));
    assert_eq!((root.pid, root.tid, root.ppid), (family.root_pid(), family.root_pid(), std::process::id()));
    assert_eq!((kid.tid, kid.ppid), (kid.pid, root.pid));
    assert_eq!(ppid(kid.pid), root.pid);
    assert_eq!(stat(kid.pid, 6), Some(kid.sid.to_string()));
}

#[test]
fn a_family_ends_with_its_guard() {
    let family =
        Family::spawn("double-fork [ say stray pause ] thread [ await ] fork [ await ] say root pause");
    let pids = [family.fact("stray").pid, family.fact("root").pid];
    let starts = pids.map(|pid| stat(pid, 22));
    drop(family);
    for (pid, start) in pids.into_iter().zip(starts) {
        // An orphan's zombie waits for init
        eventually("the member has gone", || (stat(pid, 22) != start || stat(pid, 3)? == "Z").then_some(()));
    }
}

#[test]
fn a_stopped_member_ends_too() {
    let family = Family::spawn("say root pause");
    let root = family.fact("root").pid;
    family.signal(root, libc::SIGSTOP);
    drop(family);
    assert_eq!(stat(root, 3), None);
}

#[test]
fn a_stuck_member_is_killed_in_the_end() {
    // Continued from the first stop, it goes to the second
    let stop = libc::SIGSTOP;
    let family = Family::spawn(format!("fork [ say kid raise {stop} raise {stop} pause ] pause"));
    let (kid, root) = (family.fact("kid").pid, family.root_pid());
    drop(family);
    assert_ne!(stat(kid, 4), Some(root.to_string()));
    assert!(stat(kid, 3).is_none_or(|state| state != "T"));
}

#[test]
fn end_lets_every_member_exit_with_0() {
    let mut family = Family::spawn("fork [ say kid pause ] say root pause");
    let kid = family.fact("kid").pid;
    family.end();
    family.wait_all();
    family.wait_ended(kid);
    assert_eq!(family.child().wait().expect("a child can be waited for").code(), Some(0));
    family.wait_gone(kid);
}

#[test]
fn exit_raise_and_the_end_of_the_script_give_the_status() {
    assert_eq!(exit_code("fork [ exit 1 ]"), Some(0));
    assert_eq!(exit_code("exit 41 exit 42"), Some(41));
    assert_eq!(exit_code("fork [ raise 9 ] reap exit 3"), Some(3));
    assert_eq!(exit_code("reap"), Some(70), "a script that cannot be carried out says so");
    // Only Linux has realtime signals
    let realtime = if cfg!(target_os = "linux") { Some(35) } else { None };
    // SIGUSR1 is blocked for await, SIGSEGV has Rust's own handler, SIGPIPE is ignored by Rust
    let signals = [libc::SIGKILL, libc::SIGTERM, libc::SIGUSR1, libc::SIGSEGV, libc::SIGPIPE];
    for signal in signals.into_iter().chain(realtime) {
        let mut family = Family::spawn(format!("raise {signal} pause"));
        let status = family.child().wait().expect("a child can be waited for");
        assert_eq!((status.signal(), status.core_dumped()), (Some(signal), false));
    }
}

#[test]
fn await_is_ended_by_a_poke_even_an_early_one() {
    let family = Family::spawn("say ready await say one await say two pause");
    let pid = family.fact("ready").pid;
    family.poke(pid);
    assert_eq!(family.fact("one").pid, pid);
    family.poke(pid);
    assert_eq!(family.fact("two").pid, pid);
}

#[test]
fn await_works_in_a_thread_and_over_exec() {
    let family = Family::spawn("thread [ say t await say poked pause ] say main pause");
    let thread = family.fact("t");
    family.poke(thread.pid);
    assert_eq!(family.fact("poked").tid, thread.tid);

    let family = Family::spawn("say before exec [ await say after pause ]");
    family.poke(family.fact("before").pid);
    assert_eq!(family.fact("after").pid, family.root_pid());
}

#[test]
fn reap_leaves_no_zombie_and_without_it_there_is_one() {
    let family = Family::spawn("fork [ say kid exit 5 ] say root await reap say reaped pause");
    let kid = family.fact("kid").pid;
    family.wait_ended(kid);
    assert_eq!(stat(kid, 3).as_deref(), Some("Z"));
    family.poke(family.fact("root").pid);
    let _ = family.fact("reaped");
    family.wait_gone(kid);
    assert_eq!(stat(kid, 4).filter(|ppid| *ppid == family.root_pid().to_string()), None);

    let family = Family::spawn("fork [ say kid ] fork [ say kid ] fork [ say kid ] reap-all say done pause");
    let _ = family.fact("done");
    for kid in family.facts("kid", 3) {
        family.wait_gone(kid.pid);
    }
}

#[test]
fn threads_share_the_process() {
    let family = Family::spawn("thread [ say t fork [ say kid pause ] pause ] say main pause");
    let (main, thread, kid) = (family.fact("main"), family.fact("t"), family.fact("kid"));
    assert_eq!((thread.pid, thread.ppid), (main.pid, main.ppid));
    assert_ne!(thread.tid, main.tid);
    assert_eq!((kid.ppid, kid.tid), (main.pid, kid.pid));
    // Nothing but /proc lists threads
    #[cfg(target_os = "linux")]
    {
        assert!(fs::exists(format!("/proc/{}/task/{}", main.pid, thread.tid)).expect("/proc can be read"));
        let children = fs::read_to_string(format!("/proc/{}/task/{}/children", main.pid, thread.tid));
        if let Ok(children) = children {
            assert_eq!(children.trim(), kid.pid.to_string());
        }
    }
}

#[cfg(target_os = "linux")] // nothing but /proc lists threads
#[test]
fn a_thread_that_runs_out_ends_alone() {
    let family = Family::spawn("thread [ say t ] say main pause");
    let thread = family.fact("t");
    let task = format!("/proc/{}/task/{}", thread.pid, thread.tid);
    eventually("the thread ends", || (!fs::exists(&task).ok()?).then_some(()));
    assert_ne!(stat(family.fact("main").pid, 3).as_deref(), Some("Z"));
}

#[test]
fn thread_exit_in_the_main_thread_leaves_the_others_alive() {
    let mut family = Family::spawn("thread [ say t await say still await exit 7 ] thread-exit");
    let thread = family.fact("t");
    // Elsewhere no process is shown as its main thread
    #[cfg(target_os = "linux")]
    eventually("the main thread ends", || (stat(thread.pid, 3)? == "Z").then_some(()));
    assert!(family.child().try_wait().expect("a child can be waited for").is_none());
    family.poke(thread.pid);
    assert_eq!(family.fact("still"), Fact { name: "still".into(), ..thread.clone() });
    family.poke(thread.pid);
    assert_eq!(family.child().wait().expect("a child can be waited for").code(), Some(7));
}

#[test]
fn exec_from_another_thread_keeps_the_pid() {
    let start = |pid| stat(pid, 22);
    let family = Family::spawn("thread [ say t await exec [ fork [ say kid pause ] say new pause ] ] pause");
    let thread = family.fact("t");
    let before = start(thread.pid);
    family.poke(thread.pid);
    let new = family.fact("new");
    assert_eq!((new.pid, new.tid), (thread.pid, thread.pid));
    assert_eq!(start(new.pid), before);
    assert_eq!(family.fact("kid").ppid, new.pid);
    assert_eq!(exit_code("exec [ ]"), Some(0));
}

#[test]
fn orphaned_waits_for_the_parents_end() {
    let family =
        Family::spawn("fork [ fork [ say born orphaned say kid pause ] say parent await exit 0 ] pause");
    let parent = family.fact("parent").pid;
    let born = family.fact("born");
    assert_eq!(born.ppid, parent);
    family.poke(parent);
    let kid = family.fact("kid");
    assert_eq!(kid.pid, born.pid);
    assert_ne!(kid.ppid, parent);
    assert_eq!(ppid(kid.pid), kid.ppid);
}

#[cfg(target_os = "linux")] // macOS has no subreapers
#[test]
fn a_subreaper_adopts_orphans_and_daemons() {
    let family =
        Family::spawn("subreaper fork [ fork [ orphaned say a pause ] ] double-fork [ say b pause ] pause");
    let (orphan, daemon) = (family.fact("a"), family.fact("b"));
    assert_eq!((orphan.ppid, daemon.ppid), (family.root_pid(), family.root_pid()));
    assert_eq!(stat(daemon.pid, 6), Some(daemon.sid.to_string()));
    assert_ne!(daemon.sid, daemon.pid, "a daemon leads no session");
    assert_ne!(daemon.sid, orphan.sid);
}

#[cfg(target_os = "linux")] // macOS has no CLONE_PARENT
#[test]
fn clone_parent_makes_a_sibling() {
    let family = Family::spawn("fork [ say elder clone-parent [ say younger pause ] pause ] say root pause");
    assert_eq!(family.fact("younger").ppid, family.fact("elder").ppid);
    assert_eq!(ppid(family.fact("younger").pid), family.root_pid());
    // A sibling of the root is a child of this process, and is reaped by the guard
    let family = Family::spawn("clone-parent [ say sibling pause ] pause");
    let sibling = family.fact("sibling");
    assert_eq!(sibling.ppid, std::process::id());
    drop(family);
    assert_ne!(stat(sibling.pid, 4), Some(std::process::id().to_string()));
}

#[cfg(target_os = "linux")] // macOS has no namespaces
#[test]
fn enter_pid_has_children_live_elsewhere() {
    require!(is_root(), "needs root, to enter PID namespaces");
    let world = Family::builder().launcher(&["in-ns", "pid,mount"]).spawn("say first pause");
    world.fact("first");
    let children = format!("/proc/{0}/task/{0}/children", world.root_pid());
    let init = fs::read_to_string(children).expect("children");
    let family = Family::spawn(format!("enter-pid {init} fork [ say kid pause ] say root pause"));
    assert_eq!(family.fact("kid").ppid, 0, "its parent is outside");
    assert_eq!(family.fact("root").ppid, std::process::id());
}

#[cfg(target_os = "linux")] // macOS has no userfaultfd
#[test]
fn held_forks_a_child_that_has_a_pid_and_is_not_there() {
    let test = "held_forks_a_child_that_has_a_pid_and_is_not_there";
    require!(is_root(), "needs root, for userfaultfd and a PID namespace");
    stage(test, &["in-ns", "pid,mount"], || {
        let family = Family::spawn("held given [ say kid pause ] say root pause");
        let root = family.fact("given").pid;
        let last = fs::read_to_string("/proc/sys/kernel/ns_last_pid").expect("the PID given last");
        let kid = last.trim().parse().expect("a number");
        assert_eq!(stat(kid, 4), None, "it is not there");
        assert!(family.heard("kid").is_empty());
        family.poke(root);
        let fact = family.fact("kid");
        assert_eq!((fact.pid, fact.ppid), (kid, root));
        assert_eq!(family.fact("root").pid, root);
        let descriptors = |pid| fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count();
        let other = Family::spawn("say root pause");
        let plain = other.fact("root").pid;
        // Either may have one more for the moment in which it begins to wait.
        eventually("nothing of it is left", || (descriptors(root) == descriptors(plain)).then_some(()));
        // And its end is the end of one that is held.
        let family = Family::spawn("fork [ held given [ pause ] ] pause");
        family.fact("given");
        drop(family);
    });
}

#[cfg(target_os = "linux")] // macOS has no dumpable flag
#[test]
fn setsid_name_and_undumpable_change_what_proc_says() {
    let family =
        Family::spawn(r"fork [ setsid name a)\sR\s1\s(\n say x undumpable await say y pause ] pause");
    let x = family.fact("x");
    assert_eq!((x.sid, stat(x.pid, 6)), (x.pid, Some(x.pid.to_string())));
    assert_eq!(fs::read(format!("/proc/{}/comm", x.pid)).expect("a name"), b"a) R 1 (\n\n");
    family.poke(x.pid);
    let y = family.fact("y");
    let owner = |path: &str| {
        std::os::unix::fs::MetadataExt::uid(
            &fs::metadata(format!("/proc/{}/{path}", y.pid)).expect("metadata"),
        )
    };
    assert_eq!(owner("stat"), 0, "what is not dumpable belongs to root in /proc");
    assert_eq!(
        owner(""),
        fs::metadata("/proc/self").map_or(0, |it| std::os::unix::fs::MetadataExt::uid(&it))
    );
}

#[cfg(target_os = "linux")] // it is /proc that says all ids
#[test]
fn setuid_drops_everything() {
    require!(is_root(), "needs root");
    let family = Family::spawn("fork [ setuid 65534 say nobody exec [ say again pause ] ] pause");
    let status = fs::read_to_string(format!("/proc/{}/status", family.fact("again").pid)).expect("a status");
    for line in ["Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "Groups:\t \n"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert_eq!(family.fact("again").pid, family.fact("nobody").pid);
}

#[test]
fn a_family_starts_as_another_user() {
    require!(is_root(), "needs root");
    let family = Family::builder().uid(65534).spawn("fork [ say kid await say poked pause ] pause");
    let kid = family.fact("kid").pid;
    // It is /proc that says all ids
    #[cfg(target_os = "linux")]
    {
        let status = fs::read_to_string(format!("/proc/{kid}/status")).expect("a status");
        assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    }
    family.poke(kid);
    let _ = family.fact("poked");
}

#[cfg(target_os = "linux")] // macOS has no subreapers
#[test]
fn hopper_hands_on_through_its_generations() {
    let mut family =
        Family::spawn("say first subreaper fork [ hopper 50 setsid-every 7 say last pause ] pause");
    let (first, last) = (family.fact("first"), family.fact("last"));
    assert_ne!(last.sid, first.sid, "the 49th generation called setsid");
    assert_ne!(last.sid, last.pid, "the 50th did not");
    assert!(family.child().try_wait().expect("a child can be waited for").is_none());
}

#[test]
fn a_hopper_goes_on_without_the_root_and_ends_with_the_lifeline() {
    // Without a fork around it, the root itself is the first to go
    let mut family = Family::spawn("hopper 3 say last orphaned say alone pause");
    assert_ne!(family.fact("last").pid, family.root_pid());
    assert_eq!(family.child().wait().expect("a child can be waited for").code(), Some(0));
    let _ = family.fact("alone");
    // And for ever ends with the lifeline
    let family = Family::spawn("hopper 0");
    family.end();
    family.wait_all();
}

#[cfg(target_os = "linux")] // macOS has no subreapers
#[test]
fn hopper_forks_twice_and_holds_if_told_to() {
    let family = Family::spawn(
        "subreaper fork [ hopper 3 double-every 3 hold 1000 orphaned say last pause ] say root pause",
    );
    let (last, root) = (family.fact("last"), family.fact("root"));
    // The middle process of the third generation was its leader, and has ended.
    assert_ne!(last.sid, root.sid);
    assert_ne!(last.sid, last.pid);
    assert!(stat(last.sid, 3).is_none_or(|state| state == "Z"));
    assert_eq!(ppid(last.pid), root.pid);
}

#[test]
fn bomb_forks_as_often_as_told() {
    let family = Family::spawn("bomb 100 say boom pause");
    let pids: std::collections::HashSet<u32> =
        family.facts("boom", 101).iter().map(|fact| fact.pid).collect();
    assert_eq!(pids.len(), 101);
    assert!(!family.has_ended());
    family.end();
    family.wait_all();
    assert_eq!(family.heard("boom").len(), 101);
}

#[test]
fn spawn_starts_a_child_with_an_image_of_its_own() {
    let family = Family::spawn(
        ["spawn", "[", "name", "kid", "say", "kid", "pause", "]", "say", "root", "pause"].as_slice(),
    );
    let (kid, root) = (family.fact("kid"), family.fact("root"));
    assert_eq!(ppid(kid.pid), root.pid);
    // It is /proc that tells words apart
    #[cfg(target_os = "linux")]
    {
        let words = fs::read(format!("/proc/{}/cmdline", kid.pid)).expect("it runs");
        assert!(words.ends_with(b"\0name\0kid\0say\0kid\0pause\0"), "{words:?}");
    }
}

#[test]
fn a_blocked_signal_is_taken() {
    let mut family = Family::spawn("block 15 say ready take 15 exit 7");
    let root = family.fact("ready").pid;
    family.signal(root, 15);
    assert_eq!(family.child().wait().expect("a child can be waited for").code(), Some(7));
    // The end of the lifeline is the end of waiting, too
    let mut family = Family::spawn("block 15 take 15 exit 7");
    family.end();
    assert_eq!(family.child().wait().expect("a child can be waited for").code(), Some(0));
}

#[cfg(target_os = "linux")] // macOS has no namespaces
#[test]
fn unshare_mount_leaves_the_mount_namespace() {
    require!(is_root(), "needs root, to have mount namespaces");
    let family = Family::spawn("fork [ unshare-mount say elsewhere pause ] say here pause");
    let namespace =
        |name| fs::read_link(format!("/proc/{}/ns/mnt", family.fact(name).pid)).expect("it lives");
    assert_ne!(namespace("elsewhere"), namespace("here"));
}

#[test]
fn a_family_is_started_as_the_test_likes() {
    let (family, mut child) = Family::builder().spawn_by("say root await exit 3", |command| {
        command.env("PIDIGREE_HERE", "yes").spawn().expect("it can be run")
    });
    let root = family.fact("root").pid;
    assert_eq!(root, child.id());
    // It is /proc that shows environments
    #[cfg(target_os = "linux")]
    {
        let environment = fs::read(format!("/proc/{root}/environ")).expect("it lives");
        assert!(environment.windows(17).any(|window| window == b"PIDIGREE_HERE=yes"));
    }
    assert!(!family.has_ended());
    family.poke(root);
    family.wait_all();
    assert!(family.has_ended());
    drop(family);
    assert_eq!(child.wait().expect("left to the test").code(), Some(3));
}

#[cfg(target_os = "linux")] // nothing but /proc counts forks
#[test]
fn storm_forks_and_reaps() {
    let forks = || {
        let stat = fs::read_to_string("/proc/stat").expect("/proc/stat");
        let line = stat.lines().find_map(|line| line.strip_prefix("processes ")).expect("a fork counter");
        line.parse::<u64>().expect("a number")
    };
    let before = forks();
    let family = Family::spawn("storm 500 say calm pause");
    let root = family.fact("calm").pid;
    assert!(forks() - before >= 500);
    let children = fs::read_to_string(format!("/proc/{root}/task/{root}/children"));
    assert_eq!(children.unwrap_or_default(), "");
}

#[test]
fn a_storm_for_ever_ends_with_the_lifeline() {
    let family = Family::spawn("say begin storm 0");
    let _ = family.fact("begin");
    family.end();
    family.wait_all();
}

#[test]
fn a_wrong_script_panics_in_the_test() {
    let outcome = std::panic::catch_unwind(|| Family::spawn("fork [ say").child().id());
    assert!(outcome.is_err());
    let help = Command::new(binary()).arg("--help").output().expect("the binary runs");
    assert!(help.status.success() && help.stdout.starts_with(b"pidigree-testkit OP"));
    let wrong = Command::new(binary()).arg("dance").output().expect("the binary runs");
    assert_eq!(wrong.status.code(), Some(2));
}
