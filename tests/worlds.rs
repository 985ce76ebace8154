//! Traps 7, 14 and 25: a token that comes from another boot, PID namespace or time namespace; and a /proc that is not
//! there, or is not ours.

mod common;

use std::fs;
use std::path::PathBuf;

use common::pid;
use pidigree::{
    Grade, Identity, Process, Sameness, Snapshot, State, ancestors_of, capabilities, is_descendant, parent_of,
};
use pidigree_testkit::{chain, fork_with_pid, idle_children, stage};

/// A file that is written outside a stage and read inside, or the other way round.
struct Note(PathBuf);

impl Note {
    fn new(name: &str) -> Note {
        Note(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    fn read(&self) -> String {
        fs::read_to_string(&self.0).unwrap()
    }

    fn write(&self, text: impl ToString) {
        fs::write(&self.0, text.to_string()).unwrap();
    }
}

fn outside() -> bool {
    std::env::var_os("PIDIGREE_STAGE").is_none()
}

#[test]
fn a_token_of_another_boot_is_another_process() {
    let me = *Process::current().unwrap().identity();
    let token = me.to_string();
    let (head, boot) = token.rsplit_once(":b").expect("a machine with /proc tells its boot");
    let flipped = if boot.starts_with('0') { "1" } else { "0" };
    let other: Identity = format!("{head}:b{flipped}{}", &boot[1..]).parse().unwrap();
    assert_eq!(other.unique_id(), me.unique_id());
    assert_eq!(me.same_process(&other), Sameness::Different);
    assert_eq!(other.same_process(&me), Sameness::Different);
    assert_ne!(me, other);
    let error = Process::reopen(&other).expect_err("nothing of another boot runs here");
    assert!(error.is_foreign(), "{error}");

    let nowhere: Identity = head.parse().unwrap();
    assert_eq!(me.same_process(&nowhere), Sameness::Unknown, "without a boot, nothing is the same for sure");
}

#[cfg(target_os = "linux")] // where /proc says it
#[test]
fn the_boot_id_is_the_kernels() {
    let kernels = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(Process::current().unwrap().identity().boot_id().unwrap().to_string(), kernels.trim());
}

#[test]
fn a_token_of_another_pid_namespace_is_foreign() {
    let name = "a_token_of_another_pid_namespace_is_foreign";
    let note = Note::new(name);
    if outside() {
        note.write(Process::current().unwrap().identity());
    }
    stage(name, &["in-ns", "pid,mount"], || {
        let outer: Identity = note.read().parse().unwrap();
        let error = Process::reopen(&outer).expect_err("its PID means nothing here");
        assert!(error.is_foreign() && !error.is_gone(), "{error}");
        // A PID file that outlived its world: the very PID is ours now (trap 25).
        let me = *Process::current().unwrap().identity();
        assert_ne!(me.same_process(&outer), Sameness::Same);
        let ours =
            outer.to_string().replacen(&format!("p1:{}:", outer.pid()), &format!("p1:{}:", me.pid()), 1);
        let stale: Identity = ours.parse().unwrap();
        assert_eq!(stale.pid(), me.pid());
        assert_eq!(me.same_process(&stale), Sameness::Different);
        assert!(Process::reopen(&stale).unwrap_err().is_foreign());
    });
}

#[test]
fn a_pid_file_with_our_own_pid_is_stale_after_a_restart() {
    let name = "a_pid_file_with_our_own_pid_is_stale_after_a_restart";
    let note = Note::new(name);
    // Two containers, one after the other, in which the service has the same small PID.
    let record = || {
        let service = fork_with_pid(42).unwrap();
        let identity = Identity::of(pid(42)).unwrap();
        if note.0.exists() {
            let old: Identity = note.read().parse().unwrap();
            assert_eq!(old.pid(), identity.pid());
            assert_ne!(old.same_process(&identity), Sameness::Same);
            let error = Process::reopen(&old).expect_err("the service of the first container has ended");
            assert!(error.is_gone() || error.is_foreign() || identity.unique_id().is_none(), "{error}");
        } else {
            note.write(identity);
        }
        service.kill_and_reap();
    };
    if outside() {
        let _ = fs::remove_file(&note.0);
    }
    stage(name, &["in-ns", "pid,mount"], record);
    stage(name, &["in-ns", "pid,mount"], record);
}

#[test]
fn start_times_of_two_time_namespaces_are_not_compared() {
    let name = "start_times_of_two_time_namespaces_are_not_compared";
    let note = Note::new(name);
    let children = outside().then(|| {
        let children = idle_children(1);
        note.write(Identity::of(pid(children.pids()[0])).unwrap());
        children
    });
    stage(name, &["in-ns", "time,mount", "--time-offset", "100000"], || {
        let outer: Identity = note.read().parse().unwrap();
        // The same process, seen from in here.
        let inner = Identity::of(outer.pid()).unwrap();
        assert_ne!(inner.start_time(), outer.start_time(), "the trap");
        assert!(inner.to_string().contains("@100000000000000:"), "{inner}");
        if outer.unique_id().is_some() {
            assert_eq!(inner.same_process(&outer), Sameness::Same);
            assert!(Process::reopen(&outer).is_ok());
        } else {
            assert_eq!(inner.same_process(&outer), Sameness::Unknown);
            assert!(Process::reopen(&outer).unwrap_err().is_unsupported());
        }
        assert_eq!(outer.start_time().unwrap().elapsed(), None, "not on our clock");
        assert!(inner.start_time().unwrap().elapsed().unwrap().as_secs() < 1000);
    });
    drop(children);
}

#[test]
fn without_proc_what_needs_it_says_so_and_the_rest_works() {
    let name = "without_proc_what_needs_it_says_so_and_the_rest_works";
    stage(name, &["in-ns", "pid,mount", "--empty-proc"], || proc_is_of_no_use("none is mounted"));
}

#[test]
fn the_proc_of_another_namespace_is_not_believed() {
    let name = "the_proc_of_another_namespace_is_not_believed";
    stage(name, &["in-ns", "pid", "--no-proc"], || {
        let own = fs::read_link("/proc/self").unwrap();
        assert_ne!(own.to_str().unwrap(), std::process::id().to_string(), "the trap");
        proc_is_of_no_use("another PID namespace");
    });
}

fn proc_is_of_no_use(why: &str) {
    let chain = chain(4);
    let (leaf, root) = (pid(chain.leaf()), pid(chain.root()));
    let here = capabilities().unwrap();
    for capability in &here {
        if capability.grade == Grade::Unavailable
            && capability.question != "signal"
            && capability.question != "peer"
        {
            assert!(capability.reason.contains("/proc"), "{capability:?}");
        }
    }
    let error = Snapshot::capture().unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains(why), "{error}");

    if here.grade("parent") == Grade::Proven {
        // From the processes themselves.
        assert_eq!(ancestors_of(leaf).unwrap()[..3], [pid(chain.pids()[2]), pid(chain.pids()[1]), root]);
        assert!(is_descendant(leaf, root).unwrap());
        assert_eq!(parent_of(pid(1)).unwrap(), None);
        let process = Process::open(leaf).unwrap();
        assert_eq!(process.state().unwrap(), State::Running);
        assert_eq!(process.identity().start_time(), None);
        let error = process.children().unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains(why), "{error}");
    } else {
        for error in [
            parent_of(leaf).map(drop).unwrap_err(),
            ancestors_of(leaf).map(drop).unwrap_err(),
            is_descendant(leaf, root).map(drop).unwrap_err(),
            Process::from_thread(leaf).map(drop).unwrap_err(),
        ] {
            assert!(error.is_unsupported() && error.to_string().contains(why), "{error}");
        }
    }
}

#[cfg(target_os = "linux")] // only Linux has namespaces
#[test]
fn a_fork_into_a_new_namespace_looks_around_anew() {
    let name = "a_fork_into_a_new_namespace_looks_around_anew";
    stage(name, &["in-ns", "pid,mount"], || {
        let outer = *Process::current().unwrap().identity();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID).unwrap();
        // SAFETY: the child calls nothing but our code and allocates; the one other thread of this test harness waits.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                // /proc still shows the old namespace, in which the numbers mean something else.
                let ok = pidigree::Pid::current() == pid(1)
                    && Snapshot::capture().is_err_and(|error| error.is_unsupported())
                    && Process::current()
                        .map_or(true, |me| me.identity().same_process(&outer) != Sameness::Same)
                    && Process::reopen(&outer).is_err_and(|error| error.is_foreign());
                // SAFETY: ends this process at once, without the harness's own exit handlers.
                unsafe { libc::_exit(if ok { 0 } else { 1 }) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let status = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
    });
}
