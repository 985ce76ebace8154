//! System calls that no crate wraps yet, one function each.

use std::io;
use std::mem::{self, offset_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::AtomicU8;

use nix::errno::Errno;

use crate::pid::Pid;

/// Kernel 6.9: also open single threads (include/uapi/linux/pidfd.h; equal to O_EXCL on every architecture).
pub(super) const PIDFD_THREAD: u32 = libc::O_EXCL as u32;

/// `struct pidfd_info` of kernel 6.13 (PIDFD_INFO_SIZE_VER0), which every later kernel still accepts.
///
/// # References
///
/// include/uapi/linux/pidfd.h
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PidfdInfo {
    pub(super) mask: u64,
    cgroupid: u64,
    pub(super) pid: u32,
    pub(super) tgid: u32,
    pub(super) ppid: u32,
    credentials: [u32; 8],
    pub(super) exit_code: i32,
}

const _: () = {
    assert!(size_of::<PidfdInfo>() == 64);
    assert!(offset_of!(PidfdInfo, pid) == 16);
    assert!(offset_of!(PidfdInfo, ppid) == 24);
    assert!(offset_of!(PidfdInfo, exit_code) == 60);
};

impl PidfdInfo {
    pub(super) const PID: u64 = 1 << 0;
    /// Kernel 6.15: how it ended, once reaped.
    pub(super) const EXIT: u64 = 1 << 3;
}

/// The first number is PIDFS_IOCTL_MAGIC.
const PIDFD_GET_INFO: libc::Ioctl = libc::_IOWR::<PidfdInfo>(0xFF, 11);

/// pidfd_open(2), Linux 5.3. The descriptor is close-on-exec.
#[inline]
pub(super) fn pidfd_open(pid: Pid, flags: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.raw(), flags) };
    let fd = Errno::result(fd)?;
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// ioctl PIDFD_GET_INFO, Linux 6.13.
#[inline]
pub(super) fn pidfd_info(fd: BorrowedFd<'_>, ask: u64) -> Result<PidfdInfo, Errno> {
    let mut info = PidfdInfo { mask: ask, ..PidfdInfo::default() };
    // SAFETY: the request carries the size of `PidfdInfo`, and the kernel writes no more than that to the pointer.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    Errno::result(result)?;
    Ok(info)
}

/// pidfd_send_signal(2), Linux 5.1; takes a pidfd or a descriptor of the directory /proc/PID. Signal 0 only asks.
pub(super) fn pidfd_send_signal(fd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo is allowed; nothing else is a pointer.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, no_info, 0) };
    Errno::result(result).map(drop)
}

/// getsockopt(2) SO_PEERPIDFD, Linux 6.5: the process that connected, or that listened, pinned.
pub(super) fn peer_pidfd(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut fd: i32 = -1;
    let mut length = mem::size_of::<i32>() as libc::socklen_t;
    // SAFETY: the option's value is one i32; `fd` has room for it and `length` says so.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    if fd < 0 {
        return Err(Errno::ENODATA);
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// waitid(2) for the end of a child, without blocking, and leaving it for the next wait (WNOWAIT): `si_code` and
/// `si_status`; `None` while it runs. The one in nix fails for real-time signals, which it has no names for.
pub(super) fn waitid(kind: libc::idtype_t, id: libc::id_t) -> Result<Option<(i32, i32)>, Errno> {
    // SAFETY: `siginfo_t` is integers and raw pointers, which all may be zero.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel writes one `siginfo_t` to the pointer.
    let result = unsafe { libc::waitid(kind, id, &raw mut info, flags) };
    Errno::result(result)?;
    if info.si_signo != libc::SIGCHLD {
        return Ok(None);
    }
    // SAFETY: a SIGCHLD has the field.
    let status = unsafe { info.si_status() };
    Ok(Some((info.si_code, status)))
}

/// getdents64(2) into `buffer`; the number of bytes filled, 0 at the end.
pub(super) fn getdents(directory: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`, any of which are valid u8.
    let filled = unsafe {
        libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
    };
    Errno::result(filled).map(|filled| filled as usize)
}

/// A byte of this process that a child of fork(2) finds to be 0, however it was forked; `None` where the kernel cannot
/// do that (before 4.14).
///
/// # References
///
/// madvise(2) MADV_WIPEONFORK
pub(super) fn wiped_on_fork() -> Option<&'static AtomicU8> {
    // SAFETY: a new anonymous mapping at a place of the kernel's choice touches nothing that exists.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            1,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: `page` is a mapping of our own, which nobody refers to yet.
    let result = unsafe { libc::madvise(page, 1, libc::MADV_WIPEONFORK) };
    if result != 0 {
        // SAFETY: as above; it is not used after this.
        unsafe { libc::munmap(page, 1) };
        return None;
    }
    // SAFETY: the page is mapped for good, zeroed, writable, and used through this reference alone.
    Some(unsafe { AtomicU8::from_ptr(page.cast()) })
}

/// Whether this is what a process gets that may open no more files.
pub(crate) fn is_fd_limit(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
