//! The bookkeeping of `members.rs` in the kernel: an eBPF filter, which the kernel runs on every message within the very
//! fork, exec or exit. So whoever a member starts is a member before it runs, nobody else's doings wake us, and the count
//! goes on when messages are lost.
//!
//! What it has to say beyond yes or no it writes into maps. (It could shorten what passes; but that would be shorter for
//! other listeners, too.)

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use crate::parse::cn_proc::{ANSWER, EXEC, EXIT, FORK};
use crate::pid::Pid;
use crate::sys::backend::bpf::{
    self, Assembly, Condition, Helper, IF_ABSENT, Instruction, Map, MapKind, Register, Width,
};
use crate::sys::backend::connector::members::{COUNTED_BELOW, Threads, UNCOUNTED};
use crate::sys::backend::syscall;

#[derive(Debug)]
pub(super) struct Filter {
    /// PID to [`Threads`].
    members: Map,
    /// PID to whatever the one that was marked, its forefather, was marked with.
    marks: Map,
    /// Who became a member during a census, and its mark.
    born: Map,
    /// Who ended with a status that is not that of the process, and when.
    unsure: Map,
    flags: Map,
    /// How many of `unsure` have been told.
    told: u32,
    left: bool,
}

/// What `flags` holds, each by its key.
/// Two words: how many were unsure, and whether something was missed.
const REPORT: u32 = 0;
const HOLD: u32 = 1;
const CENSUS: u32 = 2;
const ANSWER_TO: u32 = 3;
const FLAGS: u32 = 4;

/// Beyond it, a fork is missed, and we say so.
const MOST_MEMBERS: u32 = 1 << 16;
const MOST_AT_ONCE: u32 = 1 << 12;

impl Filter {
    /// # Errors
    ///
    /// EPERM without CAP_BPF, EINVAL before Linux 5.12, ENOSYS in a sandbox, and more.
    pub(super) fn attach(socket: BorrowedFd<'_>) -> Result<Filter, Errno> {
        Filter::with_room_for(MOST_MEMBERS, socket)
    }

    pub(super) fn with_room_for(members: u32, socket: BorrowedFd<'_>) -> Result<Filter, Errno> {
        let filter = Filter {
            members: Map::new(MapKind::Hash, members)?,
            marks: Map::new(MapKind::Hash, members)?,
            born: Map::new(MapKind::Hash, MOST_MEMBERS)?,
            unsure: Map::new(MapKind::Hash, MOST_AT_ONCE)?,
            flags: Map::new(MapKind::Array, FLAGS)?,
            told: 0,
            left: false,
        };
        let sequences = Map::new(MapKind::PerCpuArray, 1)?;
        let program = bpf::load_filter(&filter.program(&sequences))?;
        bpf::attach_filter(socket, program.as_fd())?;
        Ok(filter)
    }

    /// Returns whether it was not there.
    pub(super) fn find(&self, pid: Pid) -> Result<bool, Errno> {
        match self.members.set(pid.get(), word(Threads::new(UNCOUNTED)), IF_ABSENT) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn put(&self, pid: Pid, threads: Threads) -> Result<(), Errno> {
        self.members.set(pid.get(), word(threads), 0)
    }

    /// From now on, whoever it starts is marked as it is.
    pub(super) fn mark(&self, pid: Pid, mark: u64) -> Result<(), Errno> {
        self.marks.set(pid.get(), mark, 0)
    }

    pub(super) fn mark_of(&self, pid: Pid) -> Result<Option<u64>, Errno> {
        self.marks.get(pid.get())
    }

    pub(super) fn remove(&self, pid: Pid) -> Result<(), Errno> {
        self.marks.remove(pid.get())?;
        self.members.remove(pid.get())
    }

    /// Leaves it if it has been counted from the start: another process has the PID by now.
    pub(super) fn remove_uncounted(&self, pid: Pid) -> Result<(), Errno> {
        match self.members.get(pid.get())? {
            Some(value) if threads(value).live >= COUNTED_BELOW => self.remove(pid),
            _ => Ok(()),
        }
    }

    /// Members may start others meanwhile.
    pub(super) fn clear(&mut self) -> Result<(), Errno> {
        loop {
            if self.members.clear()? == 0 {
                self.told = 0;
                self.marks.clear()?;
                return self.flags.set(REPORT, 0, 0);
            }
        }
    }

    /// Lets nothing pass, and goes on counting; or lets pass again.
    pub(super) fn hold(&self, on: bool) -> Result<(), Errno> {
        self.flags.set(HOLD, on.into(), 0)
    }

    /// To whoever asks with the number before.
    pub(super) fn expect_answer(&self, number: u32) -> Result<(), Errno> {
        self.flags.set(ANSWER_TO, number.into(), 0)
    }

    /// Whether some message did not come to be, or some member found no room: the count is not right any more.
    pub(super) fn has_missed(&self) -> Result<bool, Errno> {
        Ok(self.report()?.1 != 0)
    }

    /// The same, to be asked after messages were received, and before they are believed.
    pub(super) fn look(&mut self) -> Result<bool, Errno> {
        let (unsure, missed) = self.report()?;
        self.left = unsure != self.told;
        Ok(missed != 0)
    }

    /// Whether the end of which a message came is of several threads that ended in several ways.
    pub(super) fn is_unsure(&mut self, pid: Pid, at: u64) -> bool {
        let is = self.left && self.unsure.get(pid.get()) == Ok(Some(at));
        if is {
            self.told = self.told.wrapping_add(1);
            let _ = self.unsure.remove(pid.get());
        }
        is
    }

    /// Of the messages that were sent, none is left to be received.
    pub(super) fn forget_unsure(&mut self) -> Result<(), Errno> {
        self.told = self.report()?.0;
        self.unsure.clear().map(drop)
    }

    fn report(&self) -> Result<(u32, u32), Errno> {
        let report = threads(self.flags.get(REPORT)?.unwrap_or_default());
        Ok((report.live, report.statuses))
    }

    /// All members, and their marks, or 0: who was one all the while is in the map, in one place; who became one while it
    /// was read, in `born`. Whoever has ended by now is among them if anybody that it started may be missing.
    pub(super) fn census(&self) -> Result<Vec<(Pid, u64)>, Errno> {
        self.census_and(|_| {})
    }

    /// `meanwhile` runs when the map has been read, and gets what a census without `born` would be.
    pub(super) fn census_and(&self, meanwhile: impl FnOnce(&[u32])) -> Result<Vec<(Pid, u64)>, Errno> {
        self.born.clear()?;
        self.flags.set(CENSUS, 1, 0)?;
        let read = || {
            // Whoever did not see the flag has made its member.
            syscall::wait_for_running_filters()?;
            // A member's mark goes when it does.
            let marks: HashMap<u32, u64> = self.marks.entries()?.into_iter().collect();
            let members: Vec<u32> = self.members.entries()?.into_iter().map(|(pid, _)| pid).collect();
            meanwhile(&members);
            let before = members.into_iter().map(|pid| (pid, marks.get(&pid).copied().unwrap_or_default()));
            // Of one PID, whoever had it last.
            Ok(before.chain(self.born.entries()?).collect::<HashMap<u32, u64>>())
        };
        let all = read();
        self.flags.set(CENSUS, 0, 0)?;
        let mut all: Vec<(Pid, u64)> =
            all?.into_iter().filter_map(|(pid, mark)| Some((Pid::new(pid)?, mark))).collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Helpers take and spoil R1 to R5. R6: the message; R7: its kind; R8: whether a message was missed.
    fn program(&self, sequences: &Map) -> Vec<Instruction> {
        use Condition::{Above, AboveOrEqual, Equal, NotEqual};
        use Label::*;
        use Register::*;
        use Width::{Double, Word};
        let mut a = Assembly::new();

        a.copy(R6, R1);
        a.number(R8, 0);
        a.number(R2, LOADED_FROM.into());
        a.place(R3, MESSAGE);
        a.number(R4, LOADED.into());
        a.call(Helper::SkbLoadBytes);
        // Another listener's filter has shortened it, or it is none of the kernel's.
        a.jump_if(R0, NotEqual, 0, Missed);

        // Each processor numbers its messages, and this program runs on the one that does.
        a.store_number(Word, Frame, KEY, 0);
        self.look_up(&mut a, sequences, KEY);
        a.jump_if(R0, Equal, 0, Kind);
        a.load(Word, R1, Frame, at(SEQUENCE));
        // One bit more tells the first message from the second.
        a.number(R3, 1);
        a.shift_left(R3, 32);
        a.load(Double, R4, R0, 0);
        a.copy(R5, R1);
        a.add_word(R5, 1);
        a.or(R5, R3);
        a.store(Double, R0, 0, R5);
        a.or(R1, R3);
        a.jump_if(R4, Equal, 0, Kind);
        a.jump_if_same(R4, R1, Kind);
        a.number(R8, 1);

        a.label(Kind);
        a.load(Word, R7, Frame, at(KIND));
        a.jump_if_word(R7, Equal, FORK, Fork);
        a.jump_if_word(R7, Equal, EXEC, Exec);
        a.jump_if_word(R7, Equal, EXIT, Exit);
        a.jump_if_word(R7, NotEqual, ANSWER, Drop);
        // Everybody who listens gets everybody's answers.
        self.load_flag(&mut a, ANSWER_TO, Answer);
        a.load(Word, R1, Frame, at(ANSWERED));
        a.jump_if_words(R0, Equal, R1, Pass);
        a.jump(Drop);

        a.label(Fork);
        a.load(Word, R1, Frame, at(CHILD_PID));
        a.load(Word, R2, Frame, at(CHILD_TGID));
        a.jump_if_words(R1, NotEqual, R2, Thread);
        self.look_up(&mut a, &self.members, at(PARENT_TGID));
        a.jump_if(R0, Equal, 0, Drop);
        a.number(R1, 0);
        a.store(Double, Frame, MARK, R1);
        self.look_up(&mut a, &self.marks, at(PARENT_TGID));
        a.jump_if(R0, Equal, 0, Unmarked);
        a.load(Double, R1, R0, 0);
        a.store(Double, Frame, MARK, R1);
        self.insert(&mut a, &self.marks, CHILD_TGID, MARK, 0);
        a.jump_if(R0, NotEqual, 0, Missed);
        a.label(Unmarked);
        a.store_number(Word, Frame, VALUE + LIVE, 1);
        a.store_number(Word, Frame, VALUE + STATUSES, 0);
        self.insert(&mut a, &self.members, CHILD_TGID, VALUE, IF_ABSENT);
        a.jump_if(R0, Equal, 0, Born);
        a.jump_if(R0, NotEqual, -(Errno::EEXIST as i32), Missed);
        // The PID was reused before the end of its last bearer was said.
        self.look_up(&mut a, &self.members, at(CHILD_TGID));
        a.jump_if(R0, Equal, 0, Missed);
        a.load(Word, R1, R0, LIVE);
        a.jump_if_word(R1, AboveOrEqual, COUNTED_BELOW, Anew);
        a.number(R1, 1);
        a.atomic_fetch_add(R0, LIVE, R1);
        a.jump(Born);
        a.label(Anew);
        a.store_number(Word, R0, LIVE, 1);
        a.store_number(Word, R0, STATUSES, 0);
        a.label(Born);
        self.load_flag(&mut a, CENSUS, NoCensus);
        a.jump_if(R0, Equal, 0, Pass);
        self.insert(&mut a, &self.born, CHILD_TGID, MARK, 0);
        a.jump_if(R0, Equal, 0, Pass);
        a.jump(Missed);

        // The parent that is named is that of the process, and not who started the thread.
        a.label(Thread);
        self.look_up(&mut a, &self.members, at(CHILD_TGID));
        a.jump_if(R0, Equal, 0, Drop);
        a.number(R1, 1);
        a.atomic_fetch_add(R0, LIVE, R1);
        a.jump(Drop);

        a.label(Exec);
        self.look_up(&mut a, &self.members, at(PROCESS_TGID));
        a.jump_if(R0, Equal, 0, Drop);
        a.store_number(Word, R0, STATUSES, 0);
        a.jump(Pass);

        a.label(Exit);
        self.look_up(&mut a, &self.members, at(PROCESS_TGID));
        a.jump_if(R0, Equal, 0, Drop);
        a.load(Word, R1, Frame, at(EXIT_CODE));
        a.atomic_or(R0, STATUSES, R1);
        a.number(R1, -1);
        a.atomic_fetch_add(R0, LIVE, R1);
        // R1 is now what it was before.
        a.jump_if_word(R1, Above, UNCOUNTED, Drop);
        a.jump_if_word(R1, Above, COUNTED_BELOW, Pass);
        a.jump_if_word(R1, NotEqual, 1, Drop);
        a.load(Word, R7, R0, STATUSES);
        a.map(R1, &self.members);
        a.place(R2, at(PROCESS_TGID));
        a.call(Helper::MapDelete);
        a.map(R1, &self.marks);
        a.place(R2, at(PROCESS_TGID));
        a.call(Helper::MapDelete);
        a.load(Word, R1, Frame, at(EXIT_CODE));
        a.jump_if_words(R1, Equal, R7, Pass);
        for half in [0, 4] {
            a.load(Word, R1, Frame, at(TIME + half));
            a.store(Word, Frame, VALUE + half, R1);
        }
        self.insert(&mut a, &self.unsure, PROCESS_TGID, VALUE, 0);
        a.jump_if(R0, NotEqual, 0, Missed);
        a.store_number(Word, Frame, KEY, REPORT as i32);
        self.look_up(&mut a, &self.flags, KEY);
        a.jump_if(R0, Equal, 0, Pass);
        a.number(R1, 1);
        a.atomic_fetch_add(R0, LIVE, R1);
        a.jump(Pass);

        a.label(Drop);
        a.jump_if(R8, NotEqual, 0, Missed);
        a.number(R0, 0);
        a.exit();
        a.label(Pass);
        a.jump_if(R8, Equal, 0, Held);
        // It passes, whosever it is, and wakes us.
        a.label(Missed);
        a.store_number(Word, Frame, KEY, REPORT as i32);
        self.look_up(&mut a, &self.flags, KEY);
        a.jump_if(R0, Equal, 0, Held);
        a.store_number(Word, R0, STATUSES, 1);
        a.label(Held);
        self.load_flag(&mut a, HOLD, NotHeld);
        a.copy(R1, R0);
        a.number(R0, WHOLE);
        a.jump_if(R1, Equal, 0, Return);
        a.number(R0, 0);
        a.label(Return);
        a.exit();
        a.finish()
    }

    /// R0 becomes the place of the value, or 0.
    fn look_up(&self, a: &mut Assembly<Label>, map: &Map, key: i16) {
        a.map(Register::R1, map);
        a.place(Register::R2, key);
        a.call(Helper::MapLookup);
    }

    fn insert(&self, a: &mut Assembly<Label>, map: &Map, key: i16, value: i16, flags: u64) {
        a.map(Register::R1, map);
        a.place(Register::R2, at(key));
        a.place(Register::R3, value);
        a.number(Register::R4, flags as i32);
        a.call(Helper::MapUpdate);
    }

    /// R0 becomes 0 if it is not set.
    fn load_flag(&self, a: &mut Assembly<Label>, flag: u32, unset: Label) {
        a.store_number(Width::Word, Register::Frame, KEY, flag as i32);
        self.look_up(a, &self.flags, KEY);
        a.jump_if(Register::R0, Condition::Equal, 0, unset);
        a.load(Width::Double, Register::R0, Register::R0, 0);
        a.label(unset);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Kind,
    Answer,
    Fork,
    Unmarked,
    Thread,
    Anew,
    Born,
    NoCensus,
    Exec,
    Exit,
    Drop,
    Pass,
    Missed,
    Held,
    NotHeld,
    Return,
}

/// More than any message has.
const WHOLE: i32 = 0xFFFF;

/// Where the program keeps what, from the end of its stack. The verifier allows no direct access to the message.
const MESSAGE: i16 = -72;
const MARK: i16 = -24;
const VALUE: i16 = -16;
const KEY: i16 = -8;
/// In `VALUE`, and in the map; of the report, too.
const LIVE: i16 = std::mem::offset_of!(Threads, live) as i16;
const STATUSES: i16 = std::mem::offset_of!(Threads, statuses) as i16;

/// Where the message has what (`parse/cn_proc.rs`).
const SEQUENCE: i16 = 24;
const ANSWERED: i16 = 28;
const KIND: i16 = 36;
const TIME: i16 = 44;
const PARENT_TGID: i16 = 56;
const CHILD_PID: i16 = 60;
const CHILD_TGID: i16 = 64;
const PROCESS_TGID: i16 = 56;
const EXIT_CODE: i16 = 60;
const LOADED_FROM: i16 = SEQUENCE;
const LOADED: i16 = CHILD_TGID + 4 - LOADED_FROM;

const fn at(place: i16) -> i16 {
    MESSAGE + place - LOADED_FROM
}

const _: () = assert!(MESSAGE + LOADED <= MARK);
const _: () = assert!(size_of::<Threads>() == 8);

fn word(threads: Threads) -> u64 {
    let mut bytes = [0; 8];
    bytes[LIVE as usize..][..4].copy_from_slice(&threads.live.to_ne_bytes());
    bytes[STATUSES as usize..][..4].copy_from_slice(&threads.statuses.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn threads(word: u64) -> Threads {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    Threads { live: u32::from_ne_bytes([a, b, c, d]), statuses: u32::from_ne_bytes([e, f, g, h]) }
}
