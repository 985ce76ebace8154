//! Facts by number: a kqueue cannot be sent to another process.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::Pinned;
use crate::sys::standard_output;

/// Says one line on standard output at once, so that lines of many processes never mix.
pub(crate) fn tell(line: &str) -> io::Result<()> {
    loop {
        match nix::unistd::write(standard_output(), line.as_bytes()) {
            Ok(told) if told == line.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Hears what there is: how many bytes (0: never more). Nobody comes with them.
pub(crate) fn hear(channel: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<Pinned>)> {
    loop {
        match nix::unistd::read(channel, buffer) {
            Ok(heard) => return Ok((heard, None)),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Who has the number that was said a moment ago: the speaker, unless all PIDs have been given since.
pub(crate) fn pin_speaker(pid: u32) -> Option<Pinned> {
    Pinned::open(pid).ok()
}
