//! The floor: the system calls that the work cannot do without, by hand, and nothing else.

use std::io::Write;

/// `struct pidfd_info` of kernel 6.13.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Info {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    credentials: [u32; 8],
    exit_code: i32,
}

const _: () = assert!(size_of::<Info>() == 64);

const PIDFD_GET_INFO: libc::Ioctl = 0xC040_FF0B_u32 as libc::Ioctl;
const INFO_PID: u64 = 1 << 0;
const INFO_EXIT: u64 = 1 << 3;

pub(crate) fn pidfd_open(pid: u32) -> Option<i32> {
    // SAFETY: two integers
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    (fd >= 0).then_some(fd as i32)
}

pub(crate) fn close(fd: i32) {
    // SAFETY: callers close what `pidfd_open`, `epoll` and `open` gave them, once
    unsafe { libc::close(fd) };
}

fn info(fd: i32, mask: u64) -> Option<Info> {
    let mut info = Info { mask, ..Info::default() };
    // SAFETY: the request says that the kernel writes 64 bytes, and `info` has them
    let result = unsafe { libc::ioctl(fd, PIDFD_GET_INFO, &raw mut info) };
    (result >= 0).then_some(info)
}

/// pidfd_open, PIDFD_GET_INFO, close. `None` if there is no such process (any more).
pub(crate) fn parent_by_pidfd(pid: u32) -> Option<u32> {
    let fd = pidfd_open(pid)?;
    let info = info(fd, INFO_PID);
    close(fd);
    info.map(|info| info.ppid)
}

/// Each link verified: the parent is pinned before the child is asked again who its parent is.
pub(crate) fn is_descendant_by_pidfd(pid: u32, root: u32) -> Option<bool> {
    let mut child = pidfd_open(pid)?;
    loop {
        let parent = info(child, INFO_PID)?.ppid;
        if parent == root || parent == 0 {
            close(child);
            return Some(parent == root);
        }
        let pinned = pidfd_open(parent)?;
        assert_eq!(info(child, INFO_PID)?.ppid, parent);
        close(child);
        child = pinned;
    }
}

/// openat, read, close of /proc/PID/stat; racy. `None` if there is no such process (any more).
pub(crate) fn parent_by_stat(pid: u32) -> Option<u32> {
    let mut path = [0_u8; 32];
    write!(&mut path[..31], "/proc/{pid}/stat").expect("a short path");
    // SAFETY: `path` ends in a NUL
    let file =
        unsafe { libc::openat(libc::AT_FDCWD, path.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return None;
    }
    let mut line = [0_u8; 1024];
    // SAFETY: the kernel writes at most `line.len()` bytes to `line`
    let length = unsafe { libc::read(file, line.as_mut_ptr().cast(), line.len()) };
    close(file);
    let line = &line[..usize::try_from(length).ok()?];
    // Ten digits, a space, and 64 bytes in parentheses, which may be parentheses.
    let name_ends = line[..line.len().min(77)].iter().rposition(|&byte| byte == b')')?;
    // `) S 123 `
    Some(number(&line[name_ends + 4..]))
}

fn number(text: &[u8]) -> u32 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}

/// Racy: no link is tied to the next. The root's own file is not read.
pub(crate) fn is_descendant_by_stat(mut pid: u32, root: u32) -> Option<bool> {
    loop {
        pid = parent_by_stat(pid)?;
        if pid == root || pid == 0 {
            return Some(pid == root);
        }
    }
}

/// getdents64 of /proc, and the parent of each process in it.
pub(crate) fn table() -> Vec<(u32, u32)> {
    // SAFETY: the path ends in a NUL
    let directory =
        unsafe { libc::open(c"/proc".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) };
    assert!(directory >= 0, "/proc");
    let mut table = Vec::with_capacity(256);
    let mut buffer = vec![0_u8; 32 * 1024];
    loop {
        // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`
        let filled =
            unsafe { libc::syscall(libc::SYS_getdents64, directory, buffer.as_mut_ptr(), buffer.len()) };
        let mut entries = &buffer[..usize::try_from(filled).expect("a readable /proc")];
        if entries.is_empty() {
            close(directory);
            return table;
        }
        while !entries.is_empty() {
            // struct linux_dirent64: the length at 16, the name from 19
            let length = usize::from(u16::from_ne_bytes([entries[16], entries[17]]));
            let pid = number(&entries[19..length]);
            if pid != 0 {
                table.extend(parent_by_pidfd(pid).map(|parent| (pid, parent)));
            }
            entries = &entries[length..];
        }
    }
}

/// An epoll instance that watches pidfds.
pub(crate) struct Epoll {
    fd: i32,
    watched: Vec<i32>,
}

impl Epoll {
    pub(crate) fn new() -> Epoll {
        // SAFETY: one integer
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(fd >= 0, "epoll_create1");
        Epoll { fd, watched: Vec::new() }
    }

    /// pidfd_open, EPOLL_CTL_ADD. The event brings back descriptor and PID.
    pub(crate) fn watch(&self, pid: u32) -> i32 {
        let fd = pidfd_open(pid).expect("a process");
        let mut event =
            libc::epoll_event { events: libc::EPOLLIN as u32, u64: (fd as u64) << 32 | u64::from(pid) };
        // SAFETY: `event` lives through the call
        let result = unsafe { libc::epoll_ctl(self.fd, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        assert_eq!(result, 0, "EPOLL_CTL_ADD");
        fd
    }

    /// EPOLL_CTL_DEL, close.
    pub(crate) fn unwatch(&self, fd: i32) {
        let no_event = std::ptr::null_mut();
        // SAFETY: for EPOLL_CTL_DEL the event is not looked at
        let result = unsafe { libc::epoll_ctl(self.fd, libc::EPOLL_CTL_DEL, fd, no_event) };
        assert_eq!(result, 0, "EPOLL_CTL_DEL");
        close(fd);
    }

    /// Watches it as long as this lives.
    pub(crate) fn keep(&mut self, pid: u32) {
        let fd = self.watch(pid);
        self.watched.push(fd);
    }

    /// Waits for ends and takes them: which process (PID, and the number of its inode), and its wait status.
    pub(crate) fn take(&self, timeout: i32, ends: &mut Vec<(u32, u64, i32)>) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        // SAFETY: `events` has room for 256
        let count = unsafe { libc::epoll_wait(self.fd, events.as_mut_ptr(), 256, timeout) };
        for event in &events[..usize::try_from(count).expect("epoll_wait")] {
            let (fd, pid) = ((event.u64 >> 32) as i32, event.u64 as u32);
            ends.push((pid, inode(fd), wait_status(fd)));
            close(fd);
        }
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        self.watched.iter().copied().for_each(close);
        close(self.fd);
    }
}

fn inode(fd: i32) -> u64 {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `stat` has room for what the kernel writes
    let result = unsafe { libc::fstat(fd, stat.as_mut_ptr()) };
    assert_eq!(result, 0, "fstat");
    // SAFETY: fstat has filled it, and all zeroes are a valid one too
    unsafe { stat.assume_init() }.st_ino
}

/// From the pidfd where the process has been reaped, and from waitid, which leaves it unreaped, for a child of ours.
fn wait_status(fd: i32) -> i32 {
    let info = info(fd, INFO_PID | INFO_EXIT).expect("PIDFD_GET_INFO");
    if info.mask & INFO_EXIT != 0 {
        return info.exit_code;
    }
    let mut told = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `told` has room for what the kernel writes
    let result = unsafe { libc::waitid(libc::P_PIDFD, fd as u32, told.as_mut_ptr(), flags) };
    assert_eq!(result, 0, "waitid");
    // SAFETY: waitid has filled it, and all zeroes are a valid one too
    let told = unsafe { told.assume_init() };
    // SAFETY: for SIGCHLD, which waitid reports as, it has a status
    let status = unsafe { told.si_status() };
    if told.si_code == libc::CLD_EXITED { status << 8 } else { status }
}
