//! What the process connector sends (trap 18): `struct nlmsghdr`, `struct cn_msg`, `struct proc_event`, of the machine's
//! own byte order and at any alignment.

use crate::pid::Pid;

/// What happened, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) what: What,
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub(crate) at: u64,
    /// Each processor counts its messages; a gap is a message that the kernel had no memory for.
    pub(crate) cpu: u32,
    pub(crate) sequence: u32,
}

/// PIDs are those of the initial namespace, and 0 there is nobody: `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The answer to a request: the number that the request bore, and one more; and an errno, or 0.
    Answer {
        to: u32,
        errno: u32,
    },
    /// `thread` and `child` are one number where a process started, and two where a thread did.
    Forked {
        parent: Option<Pid>,
        thread: Option<Pid>,
        child: Option<Pid>,
    },
    Executed {
        pid: Option<Pid>,
    },
    /// One thread of `pid` ended, with a status as in wait(2).
    Ended {
        pid: Option<Pid>,
        status: u32,
    },
    /// A change of credentials, name, session or tracer.
    Changed,
}

/// netlink(7): length u32, type u16, flags u16, sequence u32, port u32.
const NETLINK: usize = 16;
/// linux/connector.h: id u32 and u32, sequence u32, answer u32, length u16, flags u16.
const CONNECTOR: usize = 20;
/// linux/cn_proc.h: what u32, processor u32, time u64; then what depends on it.
const EVENT: usize = 16;
pub(crate) const NLMSG_DONE: u16 = 3;
/// CN_IDX_PROC and CN_VAL_PROC.
pub(crate) const ID: [u32; 2] = [1, 1];
pub(crate) const FORK: u32 = 0x1;
pub(crate) const EXEC: u32 = 0x2;
pub(crate) const EXIT: u32 = 0x8000_0000;
pub(crate) const ANSWER: u32 = 0;

/// Hands over each event of a datagram. `None` if a message is not whole: a filter that shortens what it lets pass may
/// shorten it for every listener, since the kernel gives the first of them the message itself and the others copies.
pub(crate) fn events(mut datagram: &[u8], mut each: impl FnMut(Event)) -> Option<()> {
    while !datagram.is_empty() {
        let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let message = datagram.get(..length)?;
        if u16_at(message, 4)? == NLMSG_DONE {
            if let Some(event) = event(message)? {
                each(event);
            }
        }
        // Messages start at multiples of four (NLMSG_ALIGN).
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(())
}

/// A message that asks for something, and whose answer bears `number + 1`.
pub(crate) fn request(operation: u32, number: u32) -> [u8; NETLINK + CONNECTOR + 4] {
    let mut message = [0; NETLINK + CONNECTOR + 4];
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&NLMSG_DONE.to_ne_bytes());
    for (at, word) in [(16, ID[0]), (20, ID[1]), (28, number), (36, operation)] {
        message[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    message[32..34].copy_from_slice(&4_u16.to_ne_bytes());
    message
}

/// Of another connector's message, there is none.
fn event(message: &[u8]) -> Option<Option<Event>> {
    let length = usize::from(u16_at(message, NETLINK + 16)?);
    let event = message.get(NETLINK + CONNECTOR..)?.get(..length)?;
    if [u32_at(message, NETLINK)?, u32_at(message, NETLINK + 4)?] != ID {
        return Some(None);
    }
    let (kind, cpu, at) = (u32_at(event, 0)?, u32_at(event, 4)?, u64_at(event, 8)?);
    let word = |index: usize| u32_at(event, EVENT + 4 * index);
    let pid = |index: usize| word(index).map(Pid::new);
    let what = match kind {
        ANSWER => What::Answer { to: u32_at(message, NETLINK + 12)?, errno: word(0)? },
        // parent_pid, parent_tgid, child_pid, child_tgid
        FORK => What::Forked { parent: pid(1)?, thread: pid(2)?, child: pid(3)? },
        // process_pid, process_tgid
        EXEC => What::Executed { pid: pid(1)? },
        // process_pid, process_tgid, exit_code
        EXIT => What::Ended { pid: pid(1)?, status: word(2)? },
        _ => What::Changed,
    };
    Some(Some(Event { what, at, cpu, sequence: u32_at(message, NETLINK + 8)? }))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
