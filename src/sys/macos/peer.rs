//! Who has the other end of a Unix socket.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{AcceptConn, LocalPeerPid};

use super::abi::{LOCAL_PEERUUID, SOL_LOCAL};
use super::darwin::Darwin;
use super::handle::Handle;
use super::kernel;
use crate::error::{Error, Result};
use crate::pid::Pid;

const TRIED: &str = "open the peer of a socket";
const OPEN: &str = "open peer process";

/// The process that has used the other end last, by its PID. XNU remembers the number, and the UUID of the executable; and
/// not which process that was. So whoever has the PID now has to run that executable.
///
/// # References
///
/// LOCAL_PEERPID and LOCAL_PEERUUID in unix(4); `uipc_ctloutput` in bsd/kern/uipc_usrreq.c of XNU
pub(crate) fn process_of_peer(socket: BorrowedFd<'_>) -> Result<Handle<Darwin>> {
    let failed = |errno: Errno| match errno {
        Errno::ENOTCONN | Errno::EINVAL | Errno::ENOPROTOOPT | Errno::EOPNOTSUPP => {
            Error::unsupported(None, TRIED, "it has no peer process: it must be a connected Unix socket")
        }
        errno => Error::os(None, TRIED, errno.into()),
    };
    if getsockopt(&socket, AcceptConn) == Ok(true) {
        return Err(Error::unsupported(
            None,
            TRIED,
            "it listens, and has no peer; accept a connection first",
        ));
    }
    let peer = || getsockopt(&socket, LocalPeerPid).map_err(failed);
    let number = peer()?;
    let pid = Pid::from_raw(number)
        .ok_or_else(|| Error::unsupported(None, TRIED, "nobody has used its other end yet"))?;
    let handle = Handle::open_in(Darwin, pid, OPEN)?;
    let executable = executable_of(socket).map_err(failed)?;
    let runs = kernel::unique_of(&Darwin, pid).map(|unique| unique.executable);
    // The same as before all that, and of the process that was opened.
    if peer()? != number || handle.is_reaped()? {
        return Err(Error::gone(pid, OPEN));
    }
    if runs == Some(executable) {
        return Ok(handle);
    }
    let reason = "the process with its PID runs another executable: it has ended, or executed that since it used the socket";
    Err(Error::unsupported(pid, OPEN, reason))
}

fn executable_of(socket: BorrowedFd<'_>) -> Result<[u8; 16], Errno> {
    let mut uuid = [0_u8; 16];
    let mut length = uuid.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `uuid`, which has as many, and how many those are to `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            SOL_LOCAL,
            LOCAL_PEERUUID,
            uuid.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    if length as usize == uuid.len() { Ok(uuid) } else { Err(Errno::EIO) }
}
