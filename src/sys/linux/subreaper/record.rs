//! What goes over the socket: records of one size, several to a message, in the order of the bytes of this machine.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

pub(super) const SIZE: usize = 24;

/// Room for the longest message.
pub(super) const MESSAGE: usize = 64 * SIZE;

/// All that is ever said to the helper.
pub(super) const GO_ON: u8 = b'g';

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The first: who is who to the helper.
    Root {
        root: i32,
        helper: i32,
    },
    /// The status is waitpid(2)'s.
    Ended {
        pid: i32,
        status: i32,
        at: u64,
    },
    Dropped {
        count: u64,
    },
    Empty {
        at: u64,
    },
    /// Said instead of all else: it may not adopt orphans.
    Refused {
        errno: i32,
    },
}

impl Record {
    pub(super) fn encode(self) -> [u8; SIZE] {
        let (kind, first, second, long) = match self {
            Record::Root { root, helper } => (0, root, helper, 0),
            Record::Ended { pid, status, at } => (1, pid, status, at),
            Record::Dropped { count } => (2, 0, 0, count),
            Record::Empty { at } => (3, 0, 0, at),
            Record::Refused { errno } => (4, errno, 0, 0),
        };
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&u64::to_ne_bytes(kind));
        bytes[8..12].copy_from_slice(&i32::to_ne_bytes(first));
        bytes[12..16].copy_from_slice(&i32::to_ne_bytes(second));
        bytes[16..].copy_from_slice(&u64::to_ne_bytes(long));
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
        let (kind, rest) = bytes.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (second, long) = rest.split_first_chunk()?;
        let (first, second) = (i32::from_ne_bytes(*first), i32::from_ne_bytes(*second));
        let long = u64::from_ne_bytes(long.try_into().ok()?);
        match u64::from_ne_bytes(*kind) {
            0 => Some(Record::Root { root: first, helper: second }),
            1 => Some(Record::Ended { pid: first, status: second, at: long }),
            2 => Some(Record::Dropped { count: long }),
            3 => Some(Record::Empty { at: long }),
            4 => Some(Record::Refused { errno: first }),
            _ => None,
        }
    }
}

const ROOM: usize = 256;

/// For what is never left out: how many were, twice (ahead of the last that found room, and of the last word), the root's
/// end, and the last word.
const KEPT: usize = 4;

/// What has not been sent yet. Nothing here allocates or blocks.
#[derive(Debug)]
pub(super) struct Outbox {
    bytes: [u8; ROOM * SIZE],
    count: usize,
    dropped: u64,
}

impl Outbox {
    pub(super) fn new() -> Outbox {
        Outbox { bytes: [0; ROOM * SIZE], count: 0, dropped: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.count >= ROOM - KEPT
    }

    /// Counts it only, where it is crowded.
    pub(super) fn push(&mut self, record: Record) {
        if self.is_crowded() {
            self.dropped += 1;
        } else {
            self.push_kept(record);
        }
    }

    /// Has room, whatever was pushed before, for the root's end, and for the last record.
    pub(super) fn push_kept(&mut self, record: Record) {
        if !self.is_crowded() || matches!(record, Record::Empty { .. }) {
            self.append_dropped();
        }
        self.append(record);
    }

    fn append_dropped(&mut self) {
        if self.dropped > 0 {
            let count = std::mem::take(&mut self.dropped);
            self.append(Record::Dropped { count });
        }
    }

    fn append(&mut self, record: Record) {
        if let Some(room) = self.bytes[self.count * SIZE..].first_chunk_mut() {
            *room = record.encode();
            self.count += 1;
        }
    }

    /// Sends what the socket takes now. An error means that nobody reads it any more.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        while self.count > 0 {
            let length = self.count * SIZE;
            let sent = length.min(MESSAGE);
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match send(socket.as_raw_fd(), &self.bytes[..sent], flags) {
                Ok(_) => {
                    self.bytes.copy_within(sent..length, 0);
                    self.count -= sent / SIZE;
                    self.append_dropped();
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}
