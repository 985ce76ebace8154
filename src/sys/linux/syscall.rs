//! System calls that no crate wraps yet, one function each.

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

/// socket(2) for the kernel's process connector (netlink(7)): datagrams, close-on-exec, non-blocking.
pub(super) fn connector_socket() -> Result<OwnedFd, Errno> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes three integers and touches no memory of ours.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_CONNECTOR) };
    let fd = Errno::result(fd)?;
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Where recvmmsg(2) puts datagrams, many at a time.
#[derive(Debug)]
pub(super) struct Datagrams {
    bytes: Box<[[u8; 256]; Datagrams::MOST]>,
    heads: [Head; Datagrams::MOST],
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    length: usize,
    truncated: bool,
    /// The netlink port of the sender: 0 is the kernel.
    port: u32,
}

impl Datagrams {
    pub(super) const MOST: usize = 64;

    pub(super) fn new() -> Datagrams {
        Datagrams { bytes: Box::new([[0; 256]; Self::MOST]), heads: [Head::default(); Self::MOST] }
    }

    /// Takes what is there; EAGAIN where nothing is.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        // SAFETY: a `mmsghdr` is integers and raw pointers, which all may be zero.
        let mut headers: [libc::mmsghdr; Self::MOST] = unsafe { mem::zeroed() };
        // SAFETY: a `sockaddr_nl` is integers, which may be zero.
        let mut senders: [libc::sockaddr_nl; Self::MOST] = unsafe { mem::zeroed() };
        let mut parts = self
            .bytes
            .each_mut()
            .map(|bytes| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        for (header, (sender, part)) in headers.iter_mut().zip(senders.iter_mut().zip(&mut parts)) {
            header.msg_hdr.msg_name = std::ptr::from_mut(sender).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
        }
        let (flags, no_timeout) = (libc::MSG_DONTWAIT, std::ptr::null_mut());
        // SAFETY: each header names a sender and a buffer of its own, which outlive the call, and their lengths.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as _,
                flags as _,
                no_timeout,
            )
        };
        let count = Errno::result(count)? as usize;
        for (head, (header, sender)) in self.heads.iter_mut().zip(headers.iter().zip(&senders)).take(count) {
            let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            *head = Head { length: header.msg_len as usize, truncated, port: sender.nl_pid };
        }
        Ok(count)
    }

    /// A datagram of the last `receive`; `None` if it is longer than any that the kernel sends. Whoever else sends has
    /// sent nothing.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let Head { length, truncated, port } = self.heads[index];
        if port != 0 {
            return Some(&[]);
        }
        if truncated { None } else { self.bytes[index].get(..length) }
    }
}

/// SO_ATTACH_FILTER and SO_DETACH_FILTER: nothing arrives at the socket, or everything again.
pub(super) fn mute(socket: BorrowedFd<'_>, on: bool) -> Result<(), Errno> {
    let mut nothing = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    let option = if on { libc::SO_ATTACH_FILTER } else { libc::SO_DETACH_FILTER };
    // SAFETY: the value is a program, which names one instruction, and the size says so; to detach, no value is looked at.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// membarrier(2) MEMBARRIER_CMD_GLOBAL, which is the kernel's synchronize_rcu: whoever was running a socket filter, or
/// delivering what it let pass with preemption off, has done so.
pub(super) fn wait_for_running_filters() -> Result<(), Errno> {
    // SAFETY: the call takes integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    Errno::result(result).map(drop)
}

/// How much the thread that reads what the kernel tells goes before others: auditd's does by 4, under fewer events.
const NICE: i32 = -4;

/// setpriority(2): has this thread go before others, which it may with CAP_SYS_NICE or by RLIMIT_NICE; otherwise it does not.
pub(crate) fn go_before_others() {
    // SAFETY: the call takes two integers and touches no memory of ours. 0 is this thread, so that -1 is no error.
    if unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) } > NICE {
        // SAFETY: the call takes three integers and touches no memory of ours.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    }
}

/// getdents64(2) into `buffer`; the number of bytes filled, 0 at the end.
pub(super) fn getdents(directory: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`, any of which are valid u8.
    let filled = unsafe {
        libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
    };
    Errno::result(filled).map(|filled| filled as usize)
}

/// clone(2) as fork(2), but without the C library's part of it, which calls what the program gave to pthread_atfork(3).
/// `None` in the child, which sends its parent this signal when it ends.
pub(super) fn fork(exit_signal: i32) -> Result<Option<i32>, Errno> {
    let (flags, stack) = (exit_signal as libc::c_long, 0 as libc::c_long);
    let (first, second) = if cfg!(target_arch = "s390x") { (stack, flags) } else { (flags, stack) };
    let none = 0 as libc::c_long;
    // SAFETY: without CLONE_VM and CLONE_SETTLS the child goes on with copies of all memory, this stack among it.
    let pid = unsafe { libc::syscall(libc::SYS_clone, first, second, none, none, none) };
    Errno::result(pid).map(|pid| (pid > 0).then_some(pid as i32))
}

/// waitpid(2) for a child, or with -1 any, that has ended, without blocking: its PID and status.
pub(super) fn reap(pid: i32, flags: i32) -> Result<Option<(i32, i32)>, Errno> {
    let mut status = 0;
    // SAFETY: the kernel writes one int to the pointer.
    let pid = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | flags) };
    Errno::result(pid).map(|pid| (pid > 0).then_some((pid, status)))
}

/// close_range(2) from a number to the last, Linux 5.9.
pub(super) fn close_range(first: i32) -> Result<(), Errno> {
    // SAFETY: the call touches no memory of ours; whoever closes descriptors answers for who owned them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    Errno::result(result).map(drop)
}

/// tcgetpgrp(3): the group in the foreground of our terminal.
pub(super) fn foreground(terminal: BorrowedFd<'_>) -> Result<nix::unistd::Pid, Errno> {
    // SAFETY: the call takes a descriptor, which is open, and touches no memory of ours.
    let group = unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) };
    Errno::result(group).map(nix::unistd::Pid::from_raw)
}

/// _exit(2): nothing of the program's own runs, as befits a child that has executed nothing.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: the call touches no memory and does not return.
    unsafe { libc::_exit(code) }
}

/// Ends this process so that nobody takes it for an end of its own.
pub(super) fn die() -> ! {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    // The init of a PID namespace does not kill itself.
    exit(255)
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
