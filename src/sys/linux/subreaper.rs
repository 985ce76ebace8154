//! A helper process of ours above the root of a tree: it adopts whoever is orphaned below it, so the kernel tells it the
//! end of every last one, and then that nobody is left (ECHILD).
//!
//! The caller is never made a subreaper: it would be given orphans that it does not know of. The helper is a fork of the
//! caller that never executes a program: std's child is the helper, and the root is the helper's.
//!
//! It costs a process, a second fork (each takes as long as the caller is big), and the memory that the caller writes to from
//! then on, which exists twice until the tree is empty. It sleeps without waking up while nothing ends.
//!
//! Hooks of the command's own (`pre_exec`) run in the helper, before the root is forked, which inherits what they did,
//! except PR_SET_PDEATHSIG: fork clears that, and the helper does without, since it is to outlive the caller. A group or a
//! session that the command leads is led by the root, unless it has a terminal already: then the helper leads it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use crate::error::{Error, Result};
use crate::pid::Pid;
use crate::sys::notice::{OnDeath, Report};
use crate::sys::posix::from_wait;
use crate::sys::spawn::{Hook, SPAWN};

mod close;
mod helper;
mod kill;
mod record;

#[cfg(test)]
mod tests;

use record::{MESSAGE, Record, SIZE};

const HEAR: &str = "hear the helper of a process tree";

/// Our end of the helper: readable when it has something to say. Dropped, it is to the helper as if we had ended.
#[derive(Debug)]
pub(crate) struct Helper {
    socket: OwnedFd,
    /// It has said its last word, or never will.
    over: bool,
}

impl Helper {
    /// Spawns the helper, which is the child, and by it the root, which executes the program. The child's pipes are the
    /// root's. Until [`go_on`](Self::go_on) the helper reaps nobody, so that the PID is the root's, ended or not.
    ///
    /// # Errors
    ///
    /// When the program cannot be executed, too; [`is_unsupported`](Error::is_unsupported) where there can be no helper.
    /// Nobody is left then.
    ///
    /// # References
    ///
    /// prctl(2) PR_SET_CHILD_SUBREAPER
    pub(crate) fn spawn(command: &mut Command, on_death: OnDeath) -> Result<(Helper, Child, Pid)> {
        let failed = |error| Error::os(None, SPAWN, error);
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| failed(errno.into()))?;
        let number = theirs.as_raw_fd();
        let hook = Hook::add(command, move || helper::fork_root(number, on_death).map_err(Into::into));
        let spawned = command.spawn();
        drop(hook);
        // While it is open here, the helper's end is not the end of the stream.
        drop(theirs);
        let mut helper = Helper { socket: ours, over: false };
        let mut child = spawned.map_err(|error| helper.refusal().unwrap_or_else(|| failed(error)))?;
        match helper.root(child.id()) {
            Ok(root) => Ok((helper, child, root)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Lets it reap.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        match send(self.socket.as_raw_fd(), &[record::GO_ON], MsgFlags::MSG_NOSIGNAL) {
            // What it said before it ended is still to be read.
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(Error::os(None, HEAR, errno.into())),
        }
    }

    /// Appends what it has said by now, without blocking. Nothing comes after `Empty` or `Lost`.
    pub(crate) fn read(&mut self, into: &mut Vec<Report>) -> Result<()> {
        let mut message = [0; MESSAGE];
        while let Some(length) = self.receive(&mut message)? {
            if length == 0 {
                self.over = true;
                into.push(Report::Lost);
            }
            for bytes in message[..length].chunks_exact(SIZE) {
                let report = report(Record::decode(bytes));
                let report =
                    report.ok_or_else(|| Error::malformed(None, HEAR, "it said what nobody knows"))?;
                self.over |= matches!(report, Report::Empty { .. });
                into.push(report);
            }
        }
        Ok(())
    }

    /// Why there is no helper, if that is it.
    fn refusal(&self) -> Option<Error> {
        let mut message = [0; SIZE];
        let length = self.receive(&mut message).ok()??;
        let Record::Refused { errno } = Record::decode(&message[..length])? else { return None };
        crate::debug!(errno, "no helper may adopt orphans");
        let _ = errno;
        Some(Error::unsupported(
            None,
            SPAWN,
            "a sandbox keeps a helper of ours from adopting orphans (prctl)",
        ))
    }

    /// The first thing it said, before the program was executed.
    fn root(&mut self, child: u32) -> Result<Pid> {
        let mut message = [0; SIZE];
        match self.receive(&mut message)?.map(|_| Record::decode(&message)) {
            Some(Some(Record::Root { root, helper })) if u32::try_from(helper) == Ok(child) => {
                Pid::from_raw(root).ok_or_else(|| Error::malformed(None, SPAWN, "the root has no PID"))
            }
            Some(Some(Record::Root { .. })) => Err(Error::unsupported(
                None,
                SPAWN,
                "children of this process are in another PID namespace, where their PIDs mean nothing to us",
            )),
            _ => Err(Error::malformed(None, SPAWN, "somebody killed the helper")),
        }
    }

    /// `None` when there is nothing to read now, or never again; 0 at the end of the stream.
    fn receive(&self, message: &mut [u8]) -> Result<Option<usize>> {
        if self.over {
            return Ok(None);
        }
        loop {
            match recv(self.socket.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => return Ok(Some(length)),
                Err(Errno::EAGAIN) => return Ok(None),
                // It ended without having read all of ours; what it said itself comes next.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(errno) => return Err(Error::os(None, HEAR, errno.into())),
            }
        }
    }
}

impl AsFd for Helper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn report(record: Option<Record>) -> Option<Report> {
    Some(match record? {
        Record::Ended { pid, status, at } => {
            Report::Ended { pid: Pid::from_raw(pid)?, status: from_wait(status), at }
        }
        Record::Dropped { count } => Report::Dropped(count),
        Record::Empty { at } => Report::Empty { at },
        Record::Root { .. } | Record::Refused { .. } => return None,
    })
}
