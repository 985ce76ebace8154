//! A seccomp filter that makes named system calls fail, as sandboxes do; written out in classic BPF.

use std::io;

use nix::errno::Errno;

/// From now on these system calls, by the names that `--help` gives, answer this error.
pub(crate) fn deny(errno: &str, calls: &str, in_every_thread: bool) -> Result<(), String> {
    let named = ERRNO_NAMES.iter().find(|(name, _)| *name == errno).map(|(_, number)| *number);
    let number =
        named.or_else(|| errno.parse().ok()).ok_or_else(|| format!("no error is called `{errno}`"))?;
    let clauses = calls
        .split(',')
        .map(|name| call_named(name).ok_or_else(|| format!("no known system call is called `{name}`")))
        .collect::<Result<Vec<_>, _>>()?;
    install_filter(&clauses, number, in_every_thread).map_err(|error| format!("seccomp: {error}"))
}

/// System calls that `deny` knows, each with the value one argument must have.
struct Clause {
    /// The number of the system call.
    call: u32,
    /// Which argument, under which mask, equals what; `None` for every use of the call.
    argument: Option<(u8, u32, u32)>,
}

/// The call or the use of a call that has this name.
fn call_named(name: &str) -> Option<Clause> {
    let (call, argument) = match name {
        "clone3" => (libc::SYS_clone3, None),
        "getsid" => (libc::SYS_getsid, None),
        "ioctl" => (libc::SYS_ioctl, None),
        // Any size of the struct: magic 0xff, number 11
        "getdents64" => (libc::SYS_getdents64, None),
        "ioctl:PIDFD_GET_INFO" => (libc::SYS_ioctl, Some((1, 0xffff, 0xff0b))),
        "kcmp" => (libc::SYS_kcmp, None),
        "name_to_handle_at" => (libc::SYS_name_to_handle_at, None),
        "pidfd_getfd" => (libc::SYS_pidfd_getfd, None),
        "pidfd_open" => (libc::SYS_pidfd_open, None),
        "pidfd_send_signal" => (libc::SYS_pidfd_send_signal, None),
        "openat" => (libc::SYS_openat, None),
        "prctl:PR_SET_CHILD_SUBREAPER" => {
            (libc::SYS_prctl, Some((0, u32::MAX, libc::PR_SET_CHILD_SUBREAPER as u32)))
        }
        "ptrace" => (libc::SYS_ptrace, None),
        "socket" => (libc::SYS_socket, None),
        "socket:AF_NETLINK" => (libc::SYS_socket, Some((0, u32::MAX, libc::AF_NETLINK as u32))),
        "statx" => (libc::SYS_statx, None),
        "unshare" => (libc::SYS_unshare, None),
        "waitid" => (libc::SYS_waitid, None),
        number => (number.parse().ok()?, None),
    };
    Some(Clause { call: call as u32, argument })
}

/// Errors that `deny` knows by name.
const ERRNO_NAMES: [(&str, i32); 9] = [
    ("EIO", libc::EIO),
    ("EPERM", libc::EPERM),
    ("ENOENT", libc::ENOENT),
    ("ESRCH", libc::ESRCH),
    ("EACCES", libc::EACCES),
    ("EINVAL", libc::EINVAL),
    ("EMFILE", libc::EMFILE),
    ("ENOTTY", libc::ENOTTY),
    ("ENOSYS", libc::ENOSYS),
];

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// Installs a seccomp filter under which the calls of `clauses` answer `errno`. Calls of another architecture (32-bit
/// programs) pass: their numbers differ.
fn install_filter(clauses: &[Clause], errno: i32, in_every_thread: bool) -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // struct seccomp_data: nr, arch, instruction_pointer, args; both architectures are little-endian
    const NR: u32 = 0;
    const ARCH: u32 = 4;
    const ARGS: u32 = 16;
    let step = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let unless = |k, skip| libc::sock_filter { code: EQUAL, jt: 0, jf: skip, k };
    let refuse = step(RETURN, libc::SECCOMP_RET_ERRNO | (errno as u32 & libc::SECCOMP_RET_DATA));
    let allow = step(RETURN, libc::SECCOMP_RET_ALLOW);

    let ours = libc::sock_filter { code: EQUAL, jt: 1, jf: 0, k: AUDIT_ARCH };
    let mut program = vec![step(LOAD, ARCH), ours, allow, step(LOAD, NR)];
    for clause in clauses {
        match clause.argument {
            None => program.extend([unless(clause.call, 1), refuse]),
            Some((index, mask, value)) => program.extend([
                unless(clause.call, 5),
                step(LOAD, ARGS + 8 * u32::from(index)),
                step(AND, mask),
                unless(value, 1),
                refuse,
                step(LOAD, NR),
            ]),
        }
    }
    program.push(allow);
    let flags = if in_every_thread { libc::SECCOMP_FILTER_FLAG_TSYNC } else { 0 };
    attach(&mut program, flags).or_else(|error| {
        if error != Errno::EACCES {
            return Err(error.into());
        }
        // Without CAP_SYS_ADMIN a filter needs the promise that no execve gains privilege
        nix::sys::prctl::set_no_new_privs()?;
        attach(&mut program, flags).map_err(io::Error::from)
    })
}

fn attach(program: &mut [libc::sock_filter], flags: libc::c_ulong) -> Result<(), Errno> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `filter` names a live array of that length, which the kernel copies
    let outcome = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter) };
    Errno::result(outcome).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage;

    fn call(number: libc::c_long, args: [libc::c_long; 3]) -> Result<libc::c_long, Errno> {
        // SAFETY: the callers below pass no pointers but null
        Errno::result(unsafe { libc::syscall(number, args[0], args[1], args[2], 0, 0) })
    }

    fn own_pidfd() -> Result<libc::c_long, Errno> {
        call(libc::SYS_pidfd_open, [std::process::id().into(), 0, 0])
    }

    /// A size that fits no version of the struct, so that an ioctl that passes writes nothing.
    const GET_INFO: libc::c_long = 0xc001_ff0b;

    #[test]
    fn nothing_named_here_fails_without_a_filter() {
        let pidfd = own_pidfd().expect("a pidfd");
        assert_eq!(call(libc::SYS_pidfd_send_signal, [pidfd, 0, 0]), Ok(0));
        assert_ne!(call(libc::SYS_ioctl, [pidfd, GET_INFO, 0]), Err(Errno::EMFILE));
        assert!(call(libc::SYS_getsid, [0, 0, 0]).is_ok());
        assert_eq!(call(libc::SYS_waitid, [libc::P_ALL.into(), 0, 0]), Err(Errno::EINVAL));
    }

    #[test]
    fn named_calls_answer_the_error_and_others_pass() {
        let names = "pidfd_send_signal,ioctl:PIDFD_GET_INFO,waitid,getsid,socket:AF_NETLINK";
        let test = "sys::backend::seccomp::tests::named_calls_answer_the_error_and_others_pass";
        stage(test, &["deny", "EMFILE", names], || {
            let pidfd = own_pidfd().expect("not denied");
            assert_eq!(call(libc::SYS_pidfd_send_signal, [pidfd, 0, 0]), Err(Errno::EMFILE));
            // Whatever the size of its struct
            for request in [GET_INFO, 0xc040_ff0b, 0xc058_ff0b] {
                assert_eq!(call(libc::SYS_ioctl, [pidfd, request, 0]), Err(Errno::EMFILE));
            }
            // A neighbour, PIDFD_GET_CGROUP_NAMESPACE: not this error
            assert_ne!(call(libc::SYS_ioctl, [-1, 0xff01, 0]), Err(Errno::EMFILE));
            assert_eq!(call(libc::SYS_waitid, [libc::P_ALL.into(), 0, 0]), Err(Errno::EMFILE));
            assert_eq!(call(libc::SYS_getsid, [0, 0, 0]), Err(Errno::EMFILE));
            let (netlink, unix, raw) = (libc::AF_NETLINK.into(), libc::AF_UNIX.into(), libc::SOCK_RAW.into());
            assert_eq!(call(libc::SYS_socket, [netlink, raw, 0]), Err(Errno::EMFILE));
            assert!(call(libc::SYS_socket, [unix, libc::SOCK_STREAM.into(), 0]).is_ok());
        });
    }

    #[test]
    fn an_error_may_be_a_number_and_filters_add_up() {
        let test = "sys::backend::seccomp::tests::an_error_may_be_a_number_and_filters_add_up";
        stage(test, &["deny", "38", "pidfd_open,clone3", "--", "deny", "EPERM", "getsid"], || {
            assert_eq!(own_pidfd(), Err(Errno::ENOSYS));
            // Without a filter this is EINVAL; the C library goes on with clone, or this thread would not be
            assert_eq!(call(libc::SYS_clone3, [0, 0, 0]), Err(Errno::ENOSYS));
            assert_eq!(call(libc::SYS_getsid, [0, 0, 0]), Err(Errno::EPERM));
        });
    }

    #[test]
    fn a_filter_needs_no_privilege() {
        let test = "sys::backend::seccomp::tests::a_filter_needs_no_privilege";
        crate::require!(crate::is_root(), "needs root, to be rid of it");
        stage(test, &["in-ns", "mount", "--uid", "65534", "--", "deny", "EPERM", "getsid"], || {
            assert_eq!(call(libc::SYS_getsid, [0, 0, 0]), Err(Errno::EPERM));
            assert_eq!(nix::sys::prctl::get_no_new_privs(), Ok(true));
        });
    }
}
