//! What was probed, in words.

use std::os::fd::AsFd;
use std::sync::mpsc;

use crate::capabilities::{Capabilities, Capability, Grade};
use crate::error::Result;
use crate::pid::Pid;
use crate::sys::backend::syscall::{self, PIDFD_THREAD, PidfdInfo};
use crate::sys::backend::world::{Proc, world};

pub(crate) fn capabilities() -> Result<Capabilities> {
    use Grade::{BestEffort, Proven, Unavailable};
    let world = world()?;
    let proc = world.proc == Proc::Ours;
    let no_proc = match world.proc {
        Proc::Ours => "",
        Proc::Absent => "takes /proc, and none is mounted here",
        Proc::Foreign => "takes /proc, and the one mounted here shows another PID namespace",
    };

    let identity = if world.pidfs && world.boot.is_some() {
        (Proven, "pidfs gives every process of this boot a number of its own (Linux 6.9)")
    } else if world.pidfs {
        (
            BestEffort,
            "pidfs numbers processes, but /proc does not tell which boot this is: proven only while it lasts",
        )
    } else if proc {
        (
            BestEffort,
            "no pidfs: PID and start time; proven for identities recorded more than 10 ms after the start, else unknown",
        )
    } else {
        (Unavailable, no_proc)
    };
    let parent = if world.info {
        (Proven, "PIDFD_GET_INFO asks the pinned process itself (Linux 6.13), and hidepid does not matter")
    } else if proc {
        (Proven, "/proc/PID/stat of a pinned process; processes that hidepid hides are reported as denied")
    } else {
        (Unavailable, no_proc)
    };
    let ancestry = match parent {
        (Proven, _) => {
            (Proven, "every link is verified while pinned; an orphan is seen only through its session")
        }
        unavailable => unavailable,
    };
    let exit = if world.pidfd {
        (Proven, "a pidfd becomes readable at the end (Linux 5.3); no polling")
    } else if proc {
        (BestEffort, "no pidfds: found by looking, every 1 to 20 ms, or more where thousands are watched")
    } else {
        (Unavailable, no_proc)
    };
    let status = if world.info && keeps_status() {
        (
            Proven,
            "the pidfd keeps the status of any process once it is reaped (Linux 6.15); of zombies, own or ptraceable ones tell",
        )
    } else if exit.0 != Unavailable {
        (BestEffort, "of our own children, and of zombies that we may ptrace; else unknown")
    } else {
        exit
    };
    let signal = if world.signal {
        (Proven, "pidfd_send_signal reaches the pinned process or nobody (Linux 5.1)")
    } else {
        (Unavailable, "pidfd_send_signal is not offered here, and kill(2) could reach a stranger")
    };
    let thread = if world.thread && world.info {
        (Proven, "PIDFD_THREAD pins the thread while its owner is read (Linux 6.9)")
    } else if proc {
        (Proven, "/proc/TID/status, kept open while its owner is opened")
    } else {
        (Unavailable, no_proc)
    };
    let peer = if !cfg!(pidigree_force_procfs) && pins_peers() {
        (Proven, "SO_PEERPIDFD: the kernel pinned the peer when it connected (Linux 6.5)")
    } else {
        (
            Unavailable,
            "SO_PEERPIDFD is not offered here, and the PID that SO_PEERCRED gives may be a stranger's by now",
        )
    };
    let children = if world.children {
        (Proven, "the kernel's own lists, /proc/PID/task/TID/children: costs as much as the family is large")
    } else if proc {
        (Proven, "no /proc/PID/task/TID/children here: costs a scan of the whole table")
    } else {
        (Unavailable, no_proc)
    };
    let snapshot = if proc && super::fork_count()?.is_none() {
        (BestEffort, "never proven: /proc/stat has no fork counter here (subset=pid?); hidepid hides")
    } else if proc {
        (Proven, "complete when the fork counter in /proc/stat stood still meanwhile; hidepid hides")
    } else {
        (Unavailable, no_proc)
    };

    let all = [
        ("identity", identity),
        ("parent", parent),
        ("ancestry", ancestry),
        ("exit", exit),
        ("exit-status", status),
        ("signal", signal),
        ("thread", thread),
        ("peer", peer),
        ("children", children),
        ("snapshot", snapshot),
    ];
    let backend = match (world.pidfd, world.info) {
        (true, true) => "pidfd, asked by PIDFD_GET_INFO",
        (true, false) => "pidfd, asked through /proc",
        (false, _) => "procfs",
    };
    Ok(Capabilities {
        backend,
        all: all.map(|(question, (grade, reason))| Capability { question, grade, reason }).into(),
    })
}

/// PIDFD_INFO_EXIT, Linux 6.15: tried on a thread of ours, which the kernel reaps by itself.
fn keeps_status() -> bool {
    let (tell, told) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let thread = std::thread::Builder::new().spawn(move || {
        let _ = tell.send(nix::unistd::gettid().as_raw());
        let _ = ended.recv();
    });
    let Ok(thread) = thread else { return false };
    let fd =
        told.recv().ok().and_then(Pid::from_raw).and_then(|tid| syscall::pidfd_open(tid, PIDFD_THREAD).ok());
    drop(end);
    let _ = thread.join();
    let Some(fd) = fd else { return false };
    // The join returns when the thread has left its memory, shortly before the kernel is done with it; readable is done.
    let mut fds = [nix::poll::PollFd::new(fd.as_fd(), nix::poll::PollFlags::POLLIN)];
    let _ = nix::poll::poll(&mut fds, 1000_u16);
    let ask = PidfdInfo::PID | PidfdInfo::EXIT;
    syscall::pidfd_info(fd.as_fd(), ask).is_ok_and(|info| info.mask & PidfdInfo::EXIT != 0)
}

/// SO_PEERPIDFD, Linux 6.5: tried on a socket pair.
fn pins_peers() -> bool {
    std::os::unix::net::UnixStream::pair().is_ok_and(|(one, _other)| syscall::peer_pidfd(one.as_fd()).is_ok())
}
