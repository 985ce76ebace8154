//! A fork that stops half-way: the child has its PID, and is not there yet.
//!
//! clone3(2) writes the child's pidfd to where its caller wants it after the PID was given (`alloc_pid`) and before anybody can
//! see the child (`attach_pid`). A page there that userfaultfd(2) holds back stops it at that point, for as long as it takes.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Barrier;

use nix::errno::Errno;

use super::{CLONE_ARGS, CloneArgs, Fork, raw_clone3};
use crate::sys::{exit_now, wait_poke};

/// The arguments of ioctl_userfaultfd(2): the API, a range to watch, a range to fill.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct ZeroPage {
    start: u64,
    len: u64,
    mode: u64,
    zeropage: i64,
}

/// `UFFD_API`, `UFFDIO_REGISTER_MODE_MISSING`.
const API: u64 = 0xAA;
const MISSING: u64 = 1;
/// `struct uffd_msg`.
const MESSAGE: usize = 32;

const _: () = assert!(size_of::<Api>() == 24 && size_of::<Register>() == 32 && size_of::<ZeroPage>() == 32);

nix::ioctl_readwrite!(uffdio_api, 0xAA, 0x3F, Api);
nix::ioctl_readwrite!(uffdio_register, 0xAA, 0x00, Register);
nix::ioctl_readwrite!(uffdio_zeropage, 0xAA, 0x04, ZeroPage);

/// Forks. When the child has its PID and is not there yet, another thread calls `announce`, waits until this process is
/// poked, and lets the fork go on.
pub(crate) fn fork_held(announce: impl FnOnce() + Send + 'static) -> io::Result<Fork> {
    let page = Page::watched()?;
    let place = page.place;
    let begun = std::sync::Arc::new(Barrier::new(2));
    let ready = std::sync::Arc::clone(&begun);
    let holder = std::thread::Builder::new().stack_size(256 << 10).spawn(move || {
        ready.wait();
        // From here to the fault it only waits: a copy of its process finds no lock that it held.
        let held = page.wait_fault();
        held.expect("userfaultfd tells of a fault");
        announce();
        if !wait_poke().expect("signals can be waited for") {
            exit_now(0);
        }
        page.fill().expect("a missing page can be filled");
    })?;
    begun.wait();
    let flags = libc::CLONE_PIDFD as u64;
    let args = CloneArgs { flags, pidfd: place, exit_signal: libc::SIGCHLD as u64, ..CLONE_ARGS };
    let forked = raw_clone3(&args)?;
    if let Fork::Parent(_) = forked {
        holder.join().map_err(|_| io::Error::other("the thread that held the fork has failed"))?;
        // SAFETY: it is mapped, filled, and aligned as pages are
        let pidfd = unsafe { std::ptr::read(place as *const i32) };
        // SAFETY: clone3 made it for us
        drop(unsafe { OwnedFd::from_raw_fd(pidfd) });
    }
    Ok(forked)
}

/// One that is not there until somebody writes to it and is made to wait.
struct Page {
    watch: File,
    place: u64,
    len: u64,
}

impl Page {
    fn watched() -> io::Result<Page> {
        // SAFETY: userfaultfd touches no memory
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) })?;
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it
        let watch = File::from(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        // SAFETY: sysconf has no precondition
        let len = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, at an address of the kernel's choice; it is never given back
        let place = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, kind, -1, 0) };
        if place == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = Page { watch, place: place as u64, len: len as u64 };
        let mut api = Api { api: API, features: 0, ioctls: 0 };
        // SAFETY: `api` is what this call takes
        unsafe { uffdio_api(page.watch.as_raw_fd(), &raw mut api) }?;
        let mut register = Register { start: page.place, len: page.len, mode: MISSING, ioctls: 0 };
        // SAFETY: `register` is what this call takes, and the range is our own mapping
        unsafe { uffdio_register(page.watch.as_raw_fd(), &raw mut register) }?;
        Ok(page)
    }

    fn wait_fault(&self) -> io::Result<()> {
        let mut message = [0; MESSAGE];
        (&self.watch).read_exact(&mut message)
    }

    fn fill(&self) -> io::Result<()> {
        let mut zero = ZeroPage { start: self.place, len: self.len, mode: 0, zeropage: 0 };
        // SAFETY: `zero` is what this call takes, and the range is our own mapping, in which nothing is
        unsafe { uffdio_zeropage(self.watch.as_raw_fd(), &raw mut zero) }?;
        Ok(())
    }
}
