//! A tracker that is killed leaves a tree that its successor goes on with, and nothing else.
#![cfg(feature = "serde")]

mod common;
#[macro_use]
#[path = "common/every.rs"]
mod every;
#[path = "common/trees.rs"]
mod trees;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::pid;
use pidigree::{Backend, ExitStatus, Identity, OnTrackerDeath, Pid, Process, Tree, TreeEvent, TreeState};
#[cfg(target_os = "linux")] // of what is lost, and only a netlink buffer loses anything
use pidigree::{Emptied, Promise, Signal};
use pidigree_testkit::{DEADLINE, Family, eventually, handed_on, require};
use trees::{PATIENCE, emptied, on, works};

on_every_backend!(
    a_successor_goes_on,
    a_tree_that_ended_meanwhile_is_empty,
    a_successor_has_a_successor,
    a_tree_that_has_ended_says_so_when_adopted,
    who_is_excluded_holds_nothing,
);

#[cfg(target_os = "linux")] // a kqueue does not show all of a chain that forks and ends, as its coverage says
on_every_backend!(a_successor_goes_on_after_a_hopper);
#[cfg(target_os = "linux")] // only a netlink buffer overflows
mod a_successor_goes_on_in_a_storm {
    on_every_backend!(a_successor_goes_on_in_a_storm: cgroup Cgroup, proc_connector ProcConnector, subreaper Subreaper);
}

/// Another process that follows a tree, and saves it, until it is killed.
struct Tracker {
    family: Family,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Tracker {
    /// This executable again, with this test alone, which is to call [`follow_for_ever`] first of all.
    fn start(test: &str, script: &str) -> Tracker {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state");
        let executable = std::env::current_exe().unwrap();
        let (executable, file_word) = (executable.to_str().unwrap(), file.to_str().unwrap());
        // The harness takes the file for the name of one more test; there is none of that name.
        let words = ["hand-on", executable, "--exact", test, "--nocapture", file_word];
        let family = Family::builder().launcher(&words).spawn(script);
        Tracker { family, file, _folder: folder }
    }

    fn state(&self) -> TreeState {
        let saved = eventually("the tracker saves its tree", || std::fs::read(&self.file).ok());
        serde_json::from_slice(&saved).unwrap()
    }

    /// By SIGKILL, in the middle of whatever it does.
    fn die(&mut self) {
        let child = self.family.child();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// What the tracker does, in its own process, until it is killed; elsewhere nothing.
fn follow_for_ever(backend: Backend, then: OnTrackerDeath) {
    let Some(mut command) = handed_on() else { return };
    let file = std::env::args().next_back().unwrap();
    let (tree, _child) = on(backend).on_tracker_death(then).spawn(&mut command).unwrap();
    drop(command);
    write(&serde_json::to_vec(&tree.save()).unwrap(), Path::new(&file));
    while matches!(tree.next_event(None), Ok(Some(_))) {}
    loop {
        std::thread::park();
    }
}

/// As whoever reads it must find it: whole, or not at all.
fn write(saved: &[u8], file: &Path) {
    let part = file.with_extension("part");
    std::fs::write(&part, saved).unwrap();
    std::fs::rename(part, file).unwrap();
}

/// The name by which the harness knows a test of this backend.
fn name(test: &str, backend: Backend) -> String {
    format!("{test}::{}", backend.name().replace('-', "_"))
}

/// What is there of a tree besides its members: its cgroup, its helper.
struct Left {
    cgroup: Option<PathBuf>,
    helper: Option<Process>,
}

impl Left {
    fn of(backend: Backend, root: u32) -> Left {
        let cgroup = (backend == Backend::Cgroup).then(|| cgroup_of(root));
        let above = Process::open(pid(root)).unwrap().parent().unwrap();
        let helper = if backend == Backend::Subreaper { above } else { None };
        Left { cgroup, helper }
    }

    fn must_go(&self, backend: Backend) {
        if let Some(cgroup) = &self.cgroup {
            eventually("its cgroup is removed", || (!cgroup.exists()).then_some(()));
        }
        if let Some(helper) = &self.helper {
            let ended = helper.wait(Some(DEADLINE)).unwrap();
            assert!(ended.is_some(), "{backend}: the helper runs on");
        }
    }
}

/// Where a process is in the one hierarchy of cgroup v2.
fn cgroup_of(process: u32) -> PathBuf {
    let cgroups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let unified = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
    };
    let cgroup = mounts.lines().find_map(unified).unwrap().join(path);
    let name = cgroup.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("pidigree-") && cgroup.exists(), "{}", cgroup.display());
    cgroup
}

fn pids(members: &[Identity]) -> BTreeSet<Pid> {
    members.iter().map(Identity::pid).collect()
}

fn a_successor_goes_on(backend: Backend) {
    follow_for_ever(backend, OnTrackerDeath::Leave);
    let script = "fork [ say first await double-fork [ say daemon await ] exit 0 ] say root await exit 5";
    let mut tracker = Tracker::start(&name("a_successor_goes_on", backend), script);
    let family = &tracker.family;
    let (first, root) = (family.fact("first").pid, family.fact("root").pid);
    let state = tracker.state();
    assert_eq!((state.backend(), state.root().pid()), (backend, pid(root)));
    let left = Left::of(backend, root);
    tracker.die();

    // While nobody follows it: a member forks, orphans, ends.
    tracker.family.poke(first);
    let daemon = tracker.family.fact("daemon").pid;
    tracker.family.wait_ended(first);
    let tree = Tree::adopt(&state).unwrap();
    assert_eq!(tree.backend(), backend);
    // By the mark that it has as long as it lives.
    assert_eq!(tree.coverage().reason.contains("PIDIGREE_TREE_"), backend == Backend::Poll, "{backend}");
    assert_eq!(tree.root().pid(), pid(root));
    assert_eq!(tree.wait_empty(Some(Duration::from_millis(20))).unwrap(), None, "{backend}");
    assert!(tree.contains(pid(root)).unwrap());
    if matches!(backend, Backend::Cgroup | Backend::Subreaper) {
        assert_eq!(pids(&tree.members()), BTreeSet::from([pid(root), pid(daemon)]), "{backend}");
    }
    tracker.family.poke(root);
    tracker.family.wait_ended(root);
    assert_eq!(
        tree.wait_empty(Some(Duration::from_millis(100))).unwrap(),
        None,
        "{backend}: the daemon lives"
    );
    assert!(!tree.is_empty());
    tracker.family.poke(daemon);
    let emptied = emptied(&tree, &tracker.family);
    assert_eq!(emptied.root.pid(), pid(root));
    let told: Vec<_> = std::iter::from_fn(|| tree.next_event(Some(Duration::ZERO)).unwrap()).collect();
    assert_eq!(told.last(), Some(&TreeEvent::Empty(emptied)), "{backend}");
    drop(tree);
    left.must_go(backend);
}

#[cfg(target_os = "linux")]
fn a_successor_goes_on_after_a_hopper(backend: Backend) {
    follow_for_ever(backend, OnTrackerDeath::Leave);
    let script = "say first hopper 2000 setsid-every 7 double-every 13 say last await";
    let mut tracker = Tracker::start(&name("a_successor_goes_on_after_a_hopper", backend), script);
    let state = tracker.state();
    tracker.die();
    let tree = Tree::adopt(&state).unwrap();
    let last = eventually("the last generation", || {
        let heard = tracker.family.heard("last");
        assert_eq!(tree.wait_empty(Some(Duration::from_millis(1))).unwrap(), None, "{backend}");
        heard.first().map(|fact| fact.pid)
    });
    assert_eq!(tree.wait_empty(Some(Duration::from_millis(50))).unwrap(), None, "{backend}");
    tracker.family.poke(last);
    emptied(&tree, &tracker.family);
}

/// What the tracker does whose events are lost, in its own process, until it is killed. It is told who the first orphan is,
/// and saves its tree; or one that lacks that orphan, because nobody has told of it and that has not been made up for.
#[cfg(target_os = "linux")]
fn follow_into_a_loss(backend: Backend, lacking: bool) {
    let Some(mut command) = handed_on() else { return };
    let file = PathBuf::from(std::env::args().next_back().unwrap());
    let (tree, _child) = on(backend).event_buffer(1).spawn(&mut command).unwrap();
    drop(command);
    let orphan = eventually("the first orphan is there", || std::fs::read_to_string(orphaned(&file)).ok());
    let orphan: Pid = orphan.parse().unwrap();
    eventually("events are lost", || (tree.coverage().members == Promise::BestEffort).then_some(()));
    let state = serde_json::to_value(tree.save()).unwrap();
    let known = |of: &str| serde_json::from_value::<Vec<Identity>>(state["lineage"][of].clone()).unwrap();
    let is_orphan = |one: &Identity| one.pid() == orphan;
    if lacking && known("members").iter().chain(&known("suspects")).any(is_orphan) {
        // A scan has been proven nevertheless.
        std::process::exit(FOUND);
    }
    write(&serde_json::to_vec(&state).unwrap(), &file);
    loop {
        std::thread::park();
    }
}

/// How a tracker ends that knows an orphan though it was to lack it.
#[cfg(target_os = "linux")]
const FOUND: i32 = 75;

/// Where the tracker is told.
#[cfg(target_os = "linux")]
fn orphaned(file: &Path) -> PathBuf {
    file.with_extension("orphaned")
}

/// Orphans of the loss, of the time when nobody follows, and of the time after it, in a storm all the while: the gale.
#[cfg(target_os = "linux")]
const ORPHANS: [&str; 3] = ["first", "second", "third"];

/// A tracker that was killed when it had saved, after the first orphan, and what it saved.
#[cfg(target_os = "linux")]
fn killed_in_a_loss(test: &str) -> (Tracker, TreeState) {
    // Between an orphan and what is done next is more time than starts are rounded by.
    let orphans = ORPHANS
        .map(|name| format!("await storm 300 double-fork [ say {name} await ] storm 300 say after-{name} "));
    let script = format!(
        "fork [ say gale storm 0 ] fork [ say stormer {} exit 0 ] say root await exit 5",
        orphans.concat()
    );
    for _ in 0..20 {
        let mut tracker = Tracker::start(test, &script);
        let stormer = tracker.family.fact("stormer").pid;
        // While it hears nothing, more happens than waits for it.
        let process = Process::from_child(tracker.family.child()).unwrap();
        process.signal("STOP".parse().unwrap()).unwrap();
        tracker.family.poke(stormer);
        let first = tracker.family.fact("first").pid;
        tracker.family.fact("after-first");
        write(first.to_string().as_bytes(), &orphaned(&tracker.file));
        process.signal("CONT".parse().unwrap()).unwrap();
        let found = eventually("the tracker saves its tree", || {
            let ended = tracker.family.child().try_wait().unwrap();
            assert!(ended.is_none_or(|status| status.code() == Some(FOUND)), "the tracker has failed");
            (ended.is_some() || tracker.file.exists()).then_some(ended.is_some())
        });
        if !found {
            let state = tracker.state();
            tracker.die();
            return (tracker, state);
        }
    }
    panic!("nothing is lost");
}

/// Follows it in the storm that goes on to its end, which is that of each orphan in turn.
#[cfg(target_os = "linux")]
fn is_adopted_in_a_storm(backend: Backend, test: &str) {
    // Three, so that each of the orphans is the last once.
    for round in 0..pidigree_testkit::rounds(3) {
        // Who fork all the time: no scan proves anything meanwhile.
        let strangers = Family::spawn("storm 0");
        let (tracker, state) = killed_in_a_loss(test);
        let family = &tracker.family;
        let [root, gale, stormer] = ["root", "gale", "stormer"].map(|name| family.fact(name).pid);
        let left = Left::of(backend, root);
        family.poke(stormer);
        family.fact("after-second");
        let tree = Tree::adopt(&state).unwrap();
        assert_eq!(tree.backend(), backend);
        family.poke(stormer);
        eventually("the storm is over", || {
            let empty = tree.wait_empty(Some(Duration::from_millis(1))).unwrap();
            assert_eq!(empty, None, "{backend}: in the storm");
            family.heard("after-third").pop()
        });
        drop(strangers);
        Process::open(pid(gale)).unwrap().signal(Signal::KILL).unwrap();
        family.wait_ended(gale);
        family.poke(root);
        family.wait_ended(root);
        if backend == Backend::ProcConnector {
            // Who is whose is settled then.
            while !matches!(tree.next_event(Some(PATIENCE)).unwrap().unwrap(), TreeEvent::Resynced { .. }) {}
        }
        let mut orphans = ORPHANS;
        orphans.rotate_left(round % 3 + 1);
        for name in orphans {
            let orphan = family.fact(name).pid;
            // On a busy machine more may have been lost, and it takes a scan to prove something.
            let empty = tree.wait_empty(Some(Duration::from_millis(300))).unwrap();
            assert_eq!(empty, None, "{backend}: {name} lives");
            assert!(!tree.is_empty(), "{backend}: {name} lives");
            if matches!(backend, Backend::Cgroup | Backend::Subreaper) {
                // At once while nothing was lost; after that, with the next look at who is in there.
                eventually(&format!("{backend}: {name} is a member"), || {
                    tree.contains(pid(orphan)).unwrap().then_some(())
                });
            }
            family.poke(orphan);
            family.wait_ended(orphan);
        }
        family.wait_all();
        let emptied = emptied_but_for_strangers(tree);
        assert_eq!(emptied.root.pid(), pid(root), "{backend}");
        let known = matches!(emptied.status, ExitStatus::Code(5) | ExitStatus::Unknown);
        assert!(known, "{backend}: {:?}", emptied.status);
        left.must_go(backend);
    }
}

/// Where the kernel does not count, a loss stays one until a scan has proven who is there, and in a storm none does.
#[cfg(target_os = "linux")]
#[test]
fn a_successor_makes_up_for_a_loss_that_it_was_left() {
    let test = "a_successor_makes_up_for_a_loss_that_it_was_left";
    follow_into_a_loss(Backend::ProcConnector, true);
    require!(pidigree_testkit::is_root(), "needs root, to be rid of it");
    pidigree_testkit::stage(test, &["in-ns", "mount", "--uid", "65534"], || {
        require!(works(Backend::ProcConnector), "the connector cannot be had here");
        is_adopted_in_a_storm(Backend::ProcConnector, test);
    });
}

/// And where it does, what it has counted ends with the tracker.
#[cfg(target_os = "linux")]
fn a_successor_goes_on_in_a_storm(backend: Backend) {
    follow_into_a_loss(backend, false);
    let test = name("a_successor_goes_on_in_a_storm", backend);
    // In a process of its own: what others start there meanwhile, on a busy machine, waits for the scans.
    pidigree_testkit::stage(&test, &["in-ns", "mount"], || is_adopted_in_a_storm(backend, &test));
}

/// All of the tree has ended. Whoever lives is a stranger, and was started meanwhile, on a busy machine: such a one may hold the
/// end back until somebody says that it is none of it, and nobody else may.
#[cfg(target_os = "linux")]
fn emptied_but_for_strangers(mut tree: Tree) -> Emptied {
    let begun = std::time::Instant::now();
    loop {
        if let Some(emptied) = tree.wait_empty(Some(Duration::from_secs(1))).unwrap() {
            return emptied;
        }
        assert!(tree.members().is_empty(), "{}: {:?}", tree.backend(), tree.members());
        assert!(begun.elapsed() < PATIENCE, "{}: nobody is left who could be a member", tree.backend());
        let mut builder = Tree::builder();
        for entry in pidigree::Snapshot::capture().unwrap().iter() {
            // Or it has ended since.
            if let Ok(stranger) = Process::open(entry.pid) {
                builder = builder.exclude(&stranger);
            }
        }
        tree = builder.adopt(&tree.save()).unwrap();
    }
}

fn a_tree_that_ended_meanwhile_is_empty(backend: Backend) {
    follow_for_ever(backend, OnTrackerDeath::Leave);
    let script = "double-fork [ say daemon await ] say root await exit 5";
    let mut tracker = Tracker::start(&name("a_tree_that_ended_meanwhile_is_empty", backend), script);
    let (root, daemon) = (tracker.family.fact("root").pid, tracker.family.fact("daemon").pid);
    let state = tracker.state();
    let left = Left::of(backend, root);
    tracker.die();
    tracker.family.poke(daemon);
    tracker.family.poke(root);
    tracker.family.wait_all();
    if let Some(helper) = &left.helper {
        assert!(helper.wait(Some(DEADLINE)).unwrap().is_some(), "a helper ends with its tree");
    }
    let tree = Tree::adopt(&state).unwrap();
    let emptied = emptied(&tree, &tracker.family);
    assert_eq!(emptied.root.pid(), pid(root));
    let known = matches!(emptied.status, ExitStatus::Code(5) | ExitStatus::Unknown);
    assert!(known, "{backend}: {:?}", emptied.status);
    drop(tree);
    left.must_go(backend);
}

fn a_successor_has_a_successor(backend: Backend) {
    follow_for_ever(backend, OnTrackerDeath::Leave);
    let script = "fork [ say one await ] fork [ say two await ] say root await exit 5";
    let mut tracker = Tracker::start(&name("a_successor_has_a_successor", backend), script);
    let members = ["one", "two", "root"].map(|name| tracker.family.fact(name).pid);
    let mut state = tracker.state();
    let left = Left::of(backend, members[2]);
    tracker.die();
    for member in members {
        let tree = Tree::adopt(&state).unwrap();
        assert_eq!(tree.wait_empty(Some(Duration::from_millis(5))).unwrap(), None, "{backend}");
        assert!(tree.contains(pid(member)).unwrap(), "{backend}: {member}");
        tracker.family.poke(member);
        tracker.family.wait_ended(member);
        state = serde_json::from_slice(&serde_json::to_vec(&tree.save()).unwrap()).unwrap();
    }
    let tree = Tree::adopt(&state).unwrap();
    emptied(&tree, &tracker.family);
    drop(tree);
    left.must_go(backend);
}

fn a_tree_that_has_ended_says_so_when_adopted(backend: Backend) {
    let (family, tree, mut child) = trees::spawn(&on(backend), "exit 5");
    child.wait().unwrap();
    let emptied = emptied(&tree, &family);
    let adopted = Tree::adopt(&tree.save()).unwrap();
    assert!(adopted.is_empty(), "{backend}");
    let again = adopted.wait_empty(Some(PATIENCE)).unwrap().unwrap();
    assert_eq!((again.root, again.status, again.members), (emptied.root, emptied.status, emptied.members));
}

/// Who came while nobody followed it, and is nobody's child any more, could be a member; unless somebody says who it is.
fn who_is_excluded_holds_nothing(backend: Backend) {
    follow_for_ever(backend, OnTrackerDeath::Leave);
    let mut tracker =
        Tracker::start(&name("who_is_excluded_holds_nothing", backend), "say root await exit 5");
    let root = tracker.family.fact("root").pid;
    let state = tracker.state();
    tracker.die();
    let others = Family::spawn("double-fork [ say other await ] say parent pause");
    let other = others.fact("other").pid;
    let known = Tree::builder().exclude(&Process::open(pid(other)).unwrap()).adopt(&state).unwrap();
    let unknown = Tree::adopt(&state).unwrap();
    tracker.family.poke(root);
    emptied(&known, &tracker.family);
    if backend == Backend::ProcConnector {
        assert_eq!(unknown.wait_empty(Some(Duration::from_millis(20))).unwrap(), None, "nobody told it");
    }
    assert!(!others.has_ended());
    others.poke(other);
    others.wait_ended(other);
    emptied(&unknown, &tracker.family);
}

/// However young it was, and though it is nobody's child any more, or a child of the root's ancestors.
#[cfg(target_os = "linux")] // on macOS nothing is scanned for
#[test]
fn who_was_there_when_it_was_saved_holds_nothing() {
    require!(works(Backend::ProcConnector), "the connector cannot be had here");
    let (family, tree, _child) = trees::spawn(&on(Backend::ProcConnector), "say root await exit 5");
    let root = family.fact("root").pid;
    let others = Family::spawn("double-fork [ say other await ] say parent pause");
    let other = others.fact("other").pid;
    others.fact("parent");
    let saved = serde_json::to_vec(&tree.save()).unwrap();
    drop(tree);
    let tree = Tree::adopt(&serde_json::from_slice(&saved).unwrap()).unwrap();
    family.poke(root);
    emptied(&tree, &family);
    assert!(!others.has_ended());
    others.poke(other);
}

/// As those that were before wrote it down.
#[test]
fn a_state_without_what_was_added_later_is_read() {
    let (family, tree, _child) = trees::spawn(&Tree::builder(), "say root await");
    let root = family.fact("root").pid;
    let mut state = serde_json::to_value(tree.save()).unwrap();
    state["lineage"].as_object_mut().unwrap().remove("strangers");
    state["since"] = 0.into();
    let adopted = Tree::adopt(&serde_json::from_value(state).unwrap()).unwrap();
    assert!(adopted.contains(pid(root)).unwrap());
    family.poke(root);
    emptied(&adopted, &family);
}

#[test]
fn a_state_of_another_world_is_foreign() {
    let (family, tree, _child) = trees::spawn(&Tree::builder(), "say root await");
    family.fact("root");
    let mut state = serde_json::to_value(tree.save()).unwrap();
    let token = state["root"].as_str().unwrap().to_owned();
    let boot = tree.root().boot_id();
    require!(boot, "the token carries no boot");
    let boot = boot.unwrap().to_string().replace('-', "");
    let other = token.replace(&boot, "0123456789ab4cde8f0123456789abcd");
    assert_ne!(other, token);
    state["root"] = other.into();
    let state: TreeState = serde_json::from_value(state).unwrap();
    let error = Tree::adopt(&state).expect_err("that world is over");
    assert!(error.is_foreign(), "{error}");
}

/// What a dead tracker has left empty goes when the next one comes.
#[test]
fn a_cgroup_that_nobody_adopts_is_swept() {
    require!(works(Backend::Cgroup), "cgroup cannot be had here");
    follow_for_ever(Backend::Cgroup, OnTrackerDeath::Leave);
    let test = "a_cgroup_that_nobody_adopts_is_swept";
    let mut tracker = Tracker::start(test, "say root await");
    let root = tracker.family.fact("root").pid;
    drop(tracker.state());
    let cgroup = cgroup_of(root);
    tracker.die();
    let spawn_some = || {
        // Not each of them looks.
        for _ in 0..40 {
            works(Backend::Cgroup).unwrap();
        }
    };
    spawn_some();
    assert!(cgroup.exists(), "somebody is in it");
    tracker.family.poke(root);
    tracker.family.wait_all();
    eventually("it is swept", || {
        spawn_some();
        (!cgroup.exists()).then_some(())
    });
}

#[cfg(target_os = "linux")] // the helper is a subreaper
#[test]
fn a_tree_is_killed_with_its_tracker() {
    follow_for_ever(Backend::Subreaper, OnTrackerDeath::Kill);
    let bystander = Family::spawn("say bystander pause");
    let script = "block 15 fork [ say kid pause ] double-fork [ say daemon pause ] \
                  fork [ hopper 0 setsid-every 3 ] say root pause";
    let mut tracker = Tracker::start("a_tree_is_killed_with_its_tracker", script);
    let members = ["kid", "daemon", "root"].map(|name| tracker.family.fact(name).pid);
    let members = members.map(|member| Process::open(pid(member)).unwrap());
    let left = Left::of(Backend::Subreaper, members[2].pid().get());
    drop(tracker.state());
    tracker.die();
    // All of them, the hopper too, and not because of the lifeline, which is open.
    tracker.family.wait_all();
    for member in &members {
        assert_ne!(member.wait(Some(DEADLINE)).unwrap(), None);
        assert!(matches!(member.state(), Ok(state) if state != pidigree::State::Running));
    }
    left.must_go(Backend::Subreaper);
    assert!(!bystander.has_ended());
    Process::open(pid(bystander.fact("bystander").pid)).unwrap().signal(pidigree::Signal::TERM).unwrap();
}

#[cfg(target_os = "linux")] // the helper is a subreaper
#[test]
fn only_the_helper_can_kill_with_the_tracker() {
    for backend in [Backend::Cgroup, Backend::ProcConnector, Backend::Poll] {
        let builder = on(backend).on_tracker_death(OnTrackerDeath::Kill);
        let error = builder.spawn(&mut std::process::Command::new("true")).expect_err(backend.name());
        assert!(error.is_unsupported(), "{backend}: {error}");
    }
    let builder = Tree::builder().on_tracker_death(OnTrackerDeath::Kill);
    let (tree, mut child) = builder.spawn(&mut std::process::Command::new("true")).unwrap();
    assert_eq!(tree.backend(), Backend::Subreaper);
    assert!(child.wait().unwrap().success());
    assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some());
}

#[cfg(target_os = "linux")] // the helper is a subreaper
#[test]
fn it_is_not_killed_with_its_handle() {
    let builder = Tree::builder().on_tracker_death(OnTrackerDeath::Kill);
    let (family, tree, mut child) = trees::spawn(&builder, "fork [ say kid await ] say root await exit 5");
    let (root, kid) = (family.fact("root").pid, family.fact("kid").pid);
    let helper = child.process().parent().unwrap().expect("it stands between");
    drop(tree);
    // Were it killed, that would take but a moment.
    assert_eq!(child.process().wait(Some(Duration::from_millis(100))).unwrap(), None);
    family.poke(root);
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(5), "who alone knows it goes on to tell");
    family.poke(kid);
    family.wait_all();
    eventually("the helper is reaped", || (helper.state().unwrap() == pidigree::State::Gone).then_some(()));
}
