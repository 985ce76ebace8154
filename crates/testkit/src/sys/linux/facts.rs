//! Facts with a pidfd of the process that says them.
//!
//! A pidfd that comes from the speaker, who is alive while it speaks, proves more than anything that the hearer could look
//! up later: it works for zombies, undumpable processes and other PID namespaces, without `/proc`.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::Pinned;
use crate::sys::standard;

/// Says one line on standard output at once, so that lines of many processes never mix.
pub(crate) fn tell(line: &str) -> io::Result<()> {
    let stdout = standard(libc::STDOUT_FILENO);
    // In a sandbox without pidfds, or without a descriptor left, the line must do
    let own = Pinned::open(std::process::id()).ok();
    let handles: Vec<RawFd> = own.iter().map(|pidfd| pidfd.as_fd().as_raw_fd()).collect();
    let told = match send(stdout, line, &handles) {
        // Somebody tries a script by hand
        Err(Errno::ENOTSOCK) => nix::unistd::write(stdout, line.as_bytes()),
        // Too many pidfds under way for the limits of this user
        Err(Errno::ETOOMANYREFS) => send(stdout, line, &[]),
        told => told,
    }?;
    if told == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn send(stdout: BorrowedFd<'_>, line: &str, handles: &[RawFd]) -> Result<usize, Errno> {
    let rights = [ControlMessage::ScmRights(handles)];
    let control = if handles.is_empty() { &rights[..0] } else { &rights };
    let line = [IoSlice::new(line.as_bytes())];
    loop {
        match sendmsg::<()>(stdout.as_raw_fd(), &line, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return sent,
        }
    }
}

/// Hears what there is: how many bytes (0: never more), and the pidfd of whoever said the last line among them.
///
/// The kernel hands out no line beyond one that came with a descriptor.
pub(crate) fn hear(channel: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<Pinned>)> {
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(buffer)];
    loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Ok(heard) => {
                let mut pidfd = None;
                for message in heard.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(descriptors) = message {
                        for descriptor in descriptors {
                            // SAFETY: the kernel just gave us this descriptor, and nobody else has it
                            pidfd = Some(Pinned::from(unsafe { OwnedFd::from_raw_fd(descriptor) }));
                        }
                    }
                }
                return Ok((heard.bytes, pidfd));
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Nobody: who has a number by now is not who said it.
pub(crate) fn pin_speaker(_pid: u32) -> Option<Pinned> {
    None
}
