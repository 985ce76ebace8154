//! Between fork and exec of a child: the moment in which nothing of it runs yet.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::pid::Pid;
use crate::sys::backend::children_are_here;

pub(super) const SPAWN: &str = "spawn the root of a tree";

/// While it is not dropped, children of the command do something before they execute the program.
#[derive(Debug)]
pub(super) struct Hook(Arc<AtomicBool>);

impl Hook {
    /// `act` must do nothing that is not async-signal-safe (signal-safety(7)): another thread may have held any lock at
    /// the fork, the allocator's included. The command keeps the hook, inert, for good: std has no way to take it out.
    pub(super) fn add(
        command: &mut Command,
        mut act: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Hook {
        let armed = Arc::new(AtomicBool::new(true));
        let hook = {
            let armed = Arc::clone(&armed);
            move || if armed.load(Ordering::Relaxed) { act() } else { Ok(()) }
        };
        // SAFETY: loading an atomic is async-signal-safe, and so is `act`, as every caller in this folder makes sure.
        unsafe { command.pre_exec(hook) };
        Hook(armed)
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Spawns, by `spawn`, a child that goes on towards its program only after `placed` has been called with its PID, and has
/// succeeded.
pub(crate) fn spawn_held<C>(
    command: &mut Command,
    placed: impl FnOnce(Pid) -> Result<()> + Send,
    spawn: impl FnOnce(&mut Command) -> Result<C>,
) -> Result<C> {
    let failed = |error| Error::os(None, SPAWN, error);
    if !children_are_here() {
        let reason =
            "children of this process are in another PID namespace, where their PIDs mean nothing to us";
        return Err(Error::unsupported(None, SPAWN, reason));
    }
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let (our_number, their_number) = (ours.as_raw_fd(), theirs.as_raw_fd());
    let _hook = Hook::add(command, move || {
        // The child's copy of our end would keep it waiting after our death.
        let _ = nix::unistd::close(our_number);
        ask_and_wait(their_number).map_err(io::Error::from)
    });
    std::thread::scope(|scope| {
        let place = move || -> Result<()> {
            let mut pid = [0; 4];
            if ours.read_exact(&mut pid).is_err() {
                // It was not forked; spawn says why.
                return Ok(());
            }
            let pid = Pid::from_raw(i32::from_ne_bytes(pid))
                .ok_or_else(|| Error::malformed(None, SPAWN, "the child has no PID in this namespace"))?;
            placed(pid)?;
            ours.write_all(&[1]).map_err(failed)
        };
        let placing = std::thread::Builder::new().spawn_scoped(scope, place).map_err(failed)?;
        let spawned = spawn(command);
        // Whoever waits for a child that was not forked sees the end of the stream now.
        drop(theirs);
        placing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        spawned
    })
}

/// In the child: says its PID, and waits for the word to go on.
fn ask_and_wait(socket: i32) -> Result<(), Errno> {
    let pid = nix::unistd::getpid().as_raw().to_ne_bytes();
    // SAFETY: the number is of a descriptor that stays open until this child executes its program.
    let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(socket) };
    nix::unistd::write(socket, &pid)?;
    let mut word = [0; 1];
    loop {
        match nix::unistd::read(socket, &mut word) {
            Ok(0) => return Err(Errno::ECANCELED),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
