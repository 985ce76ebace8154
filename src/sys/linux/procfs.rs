//! Reading /proc, without allocation where it is hot.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;
use nix::unistd::read;

use crate::error::{Error, Result};
use crate::parse::{self, proc_stat::ProcStat};
use crate::pid::Pid;
use crate::sys::backend::world::World;

/// Room for a whole /proc/PID/stat: 52 numbers of at most 20 digits, and a name of at most 64 bytes.
pub(super) type StatBuffer = [u8; 1280];

/// A NUL-terminated path below /proc/PID, made on the stack.
pub(super) struct ProcPath {
    bytes: [u8; 64],
    length: usize,
}

impl ProcPath {
    /// `/proc/PID` and then `rest`, which starts with a slash or is empty.
    #[inline]
    pub(super) fn new(pid: Pid, rest: &str) -> ProcPath {
        let mut path = ProcPath { bytes: [0; 64], length: 0 };
        path.push(b"/proc/");
        path.push_number(pid.get());
        path.push(rest.as_bytes());
        path
    }

    /// `/proc/PID/task/TID` and then `rest`.
    pub(super) fn of_thread(pid: Pid, tid: Pid, rest: &str) -> ProcPath {
        let mut path = ProcPath::new(pid, "/task/");
        path.push_number(tid.get());
        path.push(rest.as_bytes());
        path
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn push_number(&mut self, number: u32) {
        let digits = number.checked_ilog10().map_or(1, |log| log as usize + 1);
        let mut rest = number;
        for place in self.bytes[self.length..][..digits].iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.length += digits;
    }

    #[inline]
    pub(super) fn as_c_str(&self) -> &CStr {
        // The longest path, two numbers of ten digits and `/children`, leaves NULs behind it.
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

/// The PID that the procfs at /proc gives to this process.
pub(super) fn own_pid() -> Result<Pid, Errno> {
    let target = nix::fcntl::readlink(c"/proc/self")?;
    let target = target.to_str().ok_or(Errno::EINVAL)?;
    target.parse().map_err(|_| Errno::EINVAL)
}

/// A descriptor of /proc/PID: it stays with this process, whoever gets the PID later.
pub(super) fn open_directory(pid: Pid) -> Result<OwnedFd, Errno> {
    open(
        ProcPath::new(pid, "").as_c_str(),
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// /proc/PID/stat, open: it stays with this process too, and `read_stat` reads it anew each time.
#[inline]
pub(super) fn open_stat(pid: Pid) -> Result<OwnedFd, Errno> {
    open(ProcPath::new(pid, "/stat").as_c_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

/// The stat file of an open /proc/PID.
pub(super) fn open_stat_at(directory: impl AsFd) -> Result<OwnedFd, Errno> {
    openat(directory, c"stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Reads an open stat file from its start; the kernel makes the line at this moment, in one piece. Returns what it says,
/// and how much of the buffer it fills.
///
/// While a thread that is not the leader executes a program, a reader can be shown the leader that it takes the place of:
/// without threads, or as a thread itself. A second reading finds the new one; of a process that is reaped, it says ESRCH.
/// EBADMSG if it is no stat line.
#[inline]
pub(super) fn read_stat(file: &OwnedFd, buffer: &mut StatBuffer) -> Result<(ProcStat, usize), Errno> {
    let mut again = 16;
    loop {
        let length = pread(file, buffer, 0)?;
        let stat = parse::proc_stat::parse(&buffer[..length]).ok_or(Errno::EBADMSG)?;
        if !stat.is_reaped() && !stat.is_thread() {
            return Ok((stat, length));
        }
        if again == 0 {
            return if stat.is_reaped() { Err(Errno::ESRCH) } else { Ok((stat, length)) };
        }
        again -= 1;
    }
}

/// What stat says of the process or thread that has this number now.
#[inline]
pub(super) fn stat(pid: Pid, tried: &'static str, world: &World) -> Result<ProcStat> {
    world.need_proc(pid, tried)?;
    let mut buffer: StatBuffer = [0; 1280];
    let read = open_stat(pid).and_then(|file| read_stat(&file, &mut buffer));
    read.map(|(stat, _)| stat).map_err(|errno| refused(pid, tried, errno))
}

/// What it means that /proc/PID cannot be opened or read. Hidden (hidepid) looks like gone there, but not to kill(2)
/// (trap 11); and one that is there after all has the PID of the one that is gone.
#[cold]
pub(super) fn refused(pid: Pid, tried: &'static str, errno: Errno) -> Error {
    let exists = || nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.raw()), None) != Err(Errno::ESRCH);
    let visible = || nix::sys::stat::stat(ProcPath::new(pid, "").as_c_str()).is_ok();
    match errno {
        Errno::ENOENT if exists() && !visible() => Error::denied(
            pid,
            tried,
            "it exists, but /proc is mounted so that this user cannot see it (hidepid)",
        ),
        Errno::ENOENT | Errno::ESRCH => Error::gone(pid, tried),
        Errno::EBADMSG => {
            Error::malformed(pid, tried, "its /proc/PID/stat is not laid out as proc_pid_stat(5) says")
        }
        errno => Error::os(pid, tried, errno.into()),
    }
}

/// A whole small file.
pub(super) fn read_all(path: &CStr) -> Result<Vec<u8>, Errno> {
    let file = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    read_to_end(&file, &mut text)?;
    Ok(text)
}

/// Appends what is left of the file.
pub(super) fn read_to_end(file: &OwnedFd, text: &mut Vec<u8>) -> Result<(), Errno> {
    loop {
        let start = text.len();
        text.resize(start + 4096, 0);
        let result = read(file, &mut text[start..]);
        text.truncate(start + result.unwrap_or(0));
        match result {
            Ok(0) => return Ok(()),
            Err(Errno::EINTR) | Ok(_) => {}
            Err(errno) => return Err(errno),
        }
    }
}
