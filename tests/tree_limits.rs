//! Many trees, and too many; and what is left of them afterwards: nothing.

mod common;
#[macro_use]
#[path = "common/every.rs"]
mod every;
#[path = "common/trees.rs"]
mod trees;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::pid;
use pidigree::{Backend, Process, Tree};
use pidigree_testkit::{eventually, stage};
use trees::{PATIENCE, emptied, on, spawn, works};

on_every_backend!(a_command_is_spawned_twice, sixty_four_threads_spawn_at_once, many_trees_live_side_by_side,);

/// All but the choice among them.
const BACKENDS: &[Backend] = Backend::ALL.split_at(1).1;

/// What this process has: its threads, descriptors and children, and the cgroups below it that it made.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    threads: usize,
    descriptors: usize,
    children: usize,
    cgroups: BTreeSet<PathBuf>,
}

impl Holdings {
    fn now() -> Holdings {
        let me = Process::current().unwrap();
        let mark = me.identity().to_string().replace(':', ".");
        let mut cgroups = BTreeSet::new();
        find_cgroups(&PathBuf::from("/sys/fs/cgroup"), &mark, &mut cgroups);
        Holdings {
            threads: threads(),
            descriptors: std::fs::read_dir("/dev/fd").unwrap().count(),
            children: me.children().unwrap().len(),
            cgroups,
        }
    }

    /// Or less: of the trees before, something may not have been gone yet.
    fn are_no_more_than(&self, before: &Holdings) -> bool {
        let Holdings { threads, descriptors, children, cgroups } = before;
        self.threads <= *threads
            && self.descriptors <= *descriptors
            && self.children <= *children
            && self.cgroups.is_subset(cgroups)
    }

    /// Their ends may be a moment away.
    fn are_soon_again(&self, backend: Backend) {
        let last = std::cell::RefCell::new(None);
        let same = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("nothing is left", || {
                let now = Holdings::now();
                let same = now.are_no_more_than(self).then_some(());
                last.replace(Some(now));
                same
            });
        }));
        assert!(same.is_ok(), "{backend}: {:?} is left instead of {self:?}", last.take());
    }
}

#[cfg(target_os = "linux")]
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[cfg(not(target_os = "linux"))] // there is no /proc elsewhere
fn threads() -> usize {
    let ps = Command::new("ps").args(["-M", "-p", &std::process::id().to_string()]).output();
    // Below a line of titles
    ps.unwrap().stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() - 1
}

fn find_cgroups(folder: &PathBuf, mark: &str, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("pidigree-") && name.contains(mark) {
            found.insert(entry.path());
        }
        find_cgroups(&entry.path(), mark, found);
    }
}

/// Before the first tree, so that what is kept for good is there: what the machine offers.
fn warm_up() -> Vec<Backend> {
    drop(pidigree::capabilities().unwrap());
    BACKENDS.iter().copied().filter(|backend| works(*backend).is_ok()).collect()
}

#[test]
fn without_descriptors_it_is_a_limit_and_nothing_is_left() {
    let test = "without_descriptors_it_is_a_limit_and_nothing_is_left";
    stage(test, &["nofile", "100", "100"], || {
        for backend in warm_up() {
            eventually("nothing of the first is left", || (Holdings::now().threads <= 2).then_some(()));
            let before = Holdings::now();
            let mut refused = 0;
            for free in 0.. {
                assert!(free < 60, "{backend}: takes more than sixty descriptors");
                let mut fill: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
                fill.truncate(fill.len() - free);
                let mut command = Command::new("true");
                command.stdin(Stdio::null());
                let spawned = on(backend).spawn(&mut command);
                drop(fill);
                match spawned {
                    Ok((tree, mut child)) => {
                        assert!(child.wait().unwrap().success(), "{backend}, {free} free");
                        let empty = eventually("the tree is empty", || {
                            // Trouble of the time when there were none may have to be heard first.
                            tree.wait_empty(Some(PATIENCE)).unwrap_or_else(|error| {
                                assert!(error.is_limit(), "{backend}, {free} free: {error:?}");
                                None
                            })
                        });
                        assert!(empty.status.success());
                        break;
                    }
                    Err(error) => {
                        refused += 1;
                        assert!(error.is_limit(), "{backend}, {free} free: {error:?}");
                    }
                }
                before.are_soon_again(backend);
            }
            assert!(refused > 2, "{backend} takes no descriptors");
            before.are_soon_again(backend);
        }
    });
}

#[cfg(target_os = "linux")] // elsewhere nix does not name that limit
#[test]
fn without_room_for_a_process_it_is_a_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let test = "without_room_for_a_process_it_is_a_limit";
    pidigree_testkit::require!(pidigree_testkit::is_root(), "needs root, to become a user who has limits");
    stage(test, &["in-ns", "mount", "--uid", "65534"], || {
        for backend in warm_up() {
            // With the thread that follows trees, and without.
            let kept = on(backend).spawn(&mut Command::new("true")).unwrap();
            let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
            for kept in [Some(kept), None] {
                setrlimit(Resource::RLIMIT_NPROC, 0, hard).unwrap();
                let error = on(backend).spawn(&mut Command::new("true")).expect_err("none is allowed");
                setrlimit(Resource::RLIMIT_NPROC, soft, hard).unwrap();
                assert!(error.is_limit(), "{backend}: {error:?}");
                drop(kept);
            }
            let (tree, mut child) = on(backend).spawn(&mut Command::new("true")).unwrap();
            assert!(child.wait().unwrap().success() && tree.wait_empty(Some(PATIENCE)).unwrap().is_some());
        }
    });
}

#[test]
fn a_program_that_is_not_there_leaves_nothing() {
    stage("a_program_that_is_not_there_leaves_nothing", &["nofile", "1000", "1000"], || {
        for backend in warm_up() {
            eventually("nothing of the first is left", || (Holdings::now().threads <= 2).then_some(()));
            let before = Holdings::now();
            for program in ["/nonexistent/program", "/etc/passwd", "/"] {
                let error = on(backend).spawn(&mut Command::new(program)).expect_err(program);
                assert!(!error.is_unsupported() && !error.is_gone(), "{backend}: {error:?}");
                let denied = program != "/nonexistent/program";
                assert_eq!(error.is_denied(), denied, "{backend}, {program}: {error:?}");
                before.are_soon_again(backend);
            }
        }
    });
}

#[test]
fn dropped_trees_leave_nothing() {
    stage("dropped_trees_leave_nothing", &["nofile", "1000", "1000"], || {
        for backend in warm_up() {
            eventually("nothing of the first is left", || (Holdings::now().threads <= 2).then_some(()));
            let before = Holdings::now();
            // Ended, and running on; with a descriptor for events, and without.
            for ends in [true, false] {
                let trees: Vec<_> =
                    (0..10).map(|_| spawn(&on(backend), "double-fork [ say daemon await ] exit 0")).collect();
                for (family, tree, mut child) in trees {
                    let daemon = family.fact("daemon").pid;
                    assert!(child.wait().unwrap().success(), "{backend}");
                    tree.event_fd().unwrap();
                    if ends {
                        family.poke(daemon);
                        emptied(&tree, &family);
                    }
                    drop(child);
                    drop(tree);
                    if !ends {
                        assert!(!family.has_ended(), "{backend}: nothing happens to its members");
                    }
                }
                before.are_soon_again(backend);
            }
        }
    });
}

fn a_command_is_spawned_twice(backend: Backend) {
    let mut command = Command::new("sh");
    command.args(["-c", "exit 3"]);
    for _ in 0..3 {
        let (tree, mut child) = on(backend).spawn(&mut command).unwrap();
        assert_eq!(child.wait().unwrap(), pidigree::ExitStatus::Code(3), "{backend}");
        assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some(), "{backend}");
    }
    assert_eq!(command.status().unwrap().code(), Some(3), "{backend}: by itself, too");
    // After a failure as well.
    let mut command = Command::new("true");
    command.current_dir("/nonexistent");
    on(backend).spawn(&mut command).expect_err("there is no such folder");
    command.current_dir("/");
    let (tree, mut child) = on(backend).spawn(&mut command).unwrap();
    assert!(child.wait().unwrap().success(), "{backend}");
    assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some(), "{backend}");
}

fn sixty_four_threads_spawn_at_once(backend: Backend) {
    let barrier = std::sync::Barrier::new(64);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|index| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let mut command = Command::new("sh");
                    command.args(["-c", &format!("(exit 1) & exit {index}")]);
                    let (tree, mut child) = on(backend).spawn(&mut command).unwrap();
                    assert_eq!(child.wait().unwrap(), pidigree::ExitStatus::Code(index), "{backend}");
                    let emptied = tree.wait_empty(Some(PATIENCE)).unwrap();
                    let status = emptied.expect("it ends").status;
                    assert_eq!(status, pidigree::ExitStatus::Code(index), "{backend}");
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

fn many_trees_live_side_by_side(backend: Backend) {
    // To poll is quadratic in them: each is asked of every process.
    let count = if backend == Backend::Poll { 50 } else { 200 };
    let trees: Vec<_> = (0..count)
        .map(|_| {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            on(backend).spawn(&mut command).unwrap()
        })
        .collect();
    let roots: BTreeSet<_> = trees.iter().map(|(tree, _)| tree.root().pid()).collect();
    assert_eq!(roots.len(), count, "{backend}");
    for (tree, child) in &trees {
        let members: Vec<_> = tree.members().iter().map(|member| member.pid()).collect();
        assert_eq!(members, [child.pid()], "{backend}");
    }
    let outside = pid(std::process::id());
    let (mut ending, mut staying) = (Vec::new(), Vec::new());
    for (index, (tree, mut child)) in trees.into_iter().enumerate() {
        assert!(!tree.contains(outside).unwrap(), "{backend}");
        match index % 3 {
            // Dropped while it runs.
            0 => {
                drop(tree);
                assert!(child.wait().unwrap().success(), "{backend}");
            }
            1 => ending.push((tree, child)),
            _ => staying.push((tree, child)),
        }
    }
    let is_empty = |tree: &Tree| tree.wait_empty(Some(Duration::ZERO)).unwrap().is_some();
    for some in [ending, staying] {
        assert!(!some.iter().any(|(tree, _)| is_empty(tree)), "{backend}");
        // All at once: each may be noticed only when the process table is read the next time.
        let trees: Vec<Tree> = some
            .into_iter()
            .map(|(tree, mut child)| {
                assert!(child.wait().unwrap().success(), "{backend}");
                tree
            })
            .collect();
        assert!(trees.iter().all(|tree| tree.wait_empty(Some(PATIENCE)).unwrap().is_some()), "{backend}");
    }
}

/// Each is told of its own, by whichever means: and the thread that follows them all is one.
#[test]
fn all_trees_share_one_thread() {
    stage("all_trees_share_one_thread", &["nofile", "1000", "1000"], || {
        let backends = warm_up();
        eventually("nothing of the first is left", || (threads() <= 2).then_some(()));
        let before = threads();
        let trees: Vec<(Tree, _)> = (0..20)
            .map(|index| {
                let mut command = Command::new("cat");
                command.stdin(Stdio::piped()).stdout(Stdio::null());
                on(backends[index % backends.len()]).spawn(&mut command).unwrap()
            })
            .collect();
        assert_eq!(threads(), before + 1);
        drop(trees);
        eventually("the thread has ended", || (threads() == before).then_some(()));
    });
}

/// What it reads too late is lost. Nobody else goes before others for that.
#[cfg(target_os = "linux")] // elsewhere nothing is lost
#[test]
fn the_thread_that_follows_goes_before_others() {
    let nice = |stat: PathBuf| -> Option<i32> {
        // A thread of the tests beside may have ended.
        let stat = std::fs::read_to_string(stat).ok()?;
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse().ok()
    };
    let (family, tree, _child) = spawn(&Tree::builder(), "say root await");
    let root = family.fact("root").pid;
    let ours = nice("/proc/thread-self/stat".into()).unwrap();
    assert_eq!(nice(format!("/proc/{root}/stat").into()), Some(ours));
    pidigree_testkit::require!(pidigree_testkit::is_root(), "needs CAP_SYS_NICE");
    eventually("the thread has begun", || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        let is_it = |task: &PathBuf| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "pidigree\n")
        };
        tasks.filter(is_it).any(|task| nice(task.join("stat")) == Some(ours.min(-4))).then_some(())
    });
    family.poke(root);
    emptied(&tree, &family);
}
