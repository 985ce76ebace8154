//! Many processes, cheaply: copies of the test process that wait for their end.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use crate::sys;

/// Direct children that do nothing; see [`idle_children`]. Dropping this kills and reaps them all.
#[derive(Debug)]
pub struct IdleChildren {
    pids: Vec<u32>,
    reaped: Vec<bool>,
    // The children end with this process, however it ends
    _lifeline: OwnedFd,
}

/// Forks `count` children of this process that do nothing.
///
/// Each is a bare copy of this process that makes nothing but system calls: 10,000 of them take about a second and
/// little memory beyond their page tables.
///
/// # Panics
///
/// When the kernel refuses to fork.
#[must_use]
pub fn idle_children(count: usize) -> IdleChildren {
    let (read, write) = sys::pipe().expect("a pipe");
    let (pids, reaped) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut children = IdleChildren { pids, reaped, _lifeline: write };
    for index in 0..count {
        let pid = sys::spawn_idle(read.as_fd()).unwrap_or_else(|error| panic!("idle child {index}: {error}"));
        children.pids.push(pid.unsigned_abs());
        children.reaped.push(false);
    }
    children
}

impl IdleChildren {
    /// Returns the PIDs, in the order of the forks; those of reaped children too.
    #[must_use]
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Kills child `index`, and waits until it is a zombie.
    pub fn kill_one(&mut self, index: usize) {
        self.signal_one(index, sys::SIGKILL);
        sys::wait_zombie(self.pids[index] as i32).expect("an unreaped child can be waited for");
    }

    /// Sends a signal to child `index`, and does not wait.
    ///
    /// # Panics
    ///
    /// When it has been reaped.
    pub fn signal_one(&mut self, index: usize, signal: i32) {
        assert!(!self.reaped[index], "child {index} has been reaped");
        sys::kill(self.pids[index] as i32, signal).expect("a child can be signalled");
    }

    /// Kills child `index` if need be, and reaps it: its PID is free when this returns.
    pub fn reap_one(&mut self, index: usize) {
        if !self.reaped[index] {
            self.reaped[index] = true;
            let _ = sys::kill(self.pids[index] as i32, sys::SIGKILL);
            let _ = sys::reap(self.pids[index] as i32);
        }
    }
}

impl Drop for IdleChildren {
    fn drop(&mut self) {
        // All before the first wait: they end side by side
        for (pid, reaped) in self.pids.iter().zip(&self.reaped) {
            if !reaped {
                let _ = sys::kill(*pid as i32, sys::SIGKILL);
            }
        }
        for index in 0..self.pids.len() {
            self.reap_one(index);
        }
    }
}

/// A chain of processes, each the parent of the next; see [`chain`]. Dropping this ends and reaps them all.
#[derive(Debug)]
pub struct Chain {
    pids: Vec<u32>,
    root: i32,
    lifeline: Option<OwnedFd>,
}

/// Starts a chain of `depth` processes: a child of this process, its child, and so on.
///
/// The first is a bare copy of this process, whose memory all share.
///
/// # Panics
///
/// When `depth` is 0, or the kernel refuses to fork.
#[must_use]
pub fn chain(depth: usize) -> Chain {
    assert!(depth > 0, "a chain has at least one process");
    let (read, write) = sys::pipe().expect("a pipe");
    let (report, reported) = sys::pipe().expect("a pipe");
    let root = sys::spawn_chain(depth, read.as_fd(), reported.as_fd()).expect("a child");
    drop(reported);
    let mut chain = Chain { pids: Vec::with_capacity(depth), root, lifeline: Some(write) };
    let mut report = std::fs::File::from(report);
    let mut pid = [0; 4];
    while chain.pids.len() < depth {
        report.read_exact(&mut pid).expect("every link of the chain reports");
        chain.pids.push(u32::from_ne_bytes(pid));
    }
    chain
}

impl Chain {
    /// Returns the PIDs from the root, which is a child of this process, to the leaf.
    #[must_use]
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Returns the PID of the first process, a child of this one.
    #[must_use]
    pub fn root(&self) -> u32 {
        self.root.unsigned_abs()
    }

    /// Returns the PID of the last process.
    #[must_use]
    pub fn leaf(&self) -> u32 {
        *self.pids.last().expect("a chain has at least one process")
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.lifeline = None;
        // Each link reaps the next before it exits, so that this one's end is the end of all
        let _ = sys::reap(self.root);
    }
}
