//! What the machine promises whatever it is told, sense or nonsense, as one function that panics when the promise is
//! broken: for the fuzzer, and for the tests that hold it against a simulated kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::{Details, Input, Lineage, Output, Row};
use crate::identity::{BootId, Identity, StartTime};
use crate::pid::Pid;
use crate::state::ExitStatus;

/// Somebody who knows only what the machine said.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) members: BTreeMap<Pid, Identity>,
    pub(crate) empty: bool,
}

impl Listener {
    pub(crate) fn of(lineage: &Lineage) -> Listener {
        Listener {
            members: lineage.members().map(|member| (member.pid, *member)).collect(),
            empty: lineage.is_empty(),
        }
    }

    /// Takes in what was said since, and compares.
    pub(crate) fn hear(&mut self, outputs: &[Output], lineage: &Lineage) {
        for output in outputs {
            assert!(!self.empty, "{output:?} after Empty");
            match *output {
                Output::Joined { member, parent } => {
                    assert_eq!(self.members.insert(member.pid, member), None, "joined twice");
                    if let Some(parent) = parent {
                        assert!(self.members.contains_key(&parent.pid), "{parent:?} did not join before");
                        assert_ne!(parent.pid, member.pid);
                    }
                }
                Output::Executed { member } => assert!(self.members.contains_key(&member.pid), "{member:?}"),
                Output::Left { member, .. } => {
                    assert!(self.members.remove(&member.pid).is_some(), "{member:?} left, and was no member");
                }
                Output::Resynced { .. } => {}
                Output::Empty => {
                    assert_eq!(self.members.len(), 0, "empty, and not all have left");
                    self.empty = true;
                }
            }
        }
        assert_eq!(self.empty, lineage.is_empty());
        let heard: Vec<Pid> = self.members.keys().copied().collect();
        let members: Vec<Pid> = lineage.members().map(|member| member.pid).collect();
        assert_eq!(heard, members, "what is known of, and what was said");
        assert_eq!(lineage.len(), members.len());
        let suspects: BTreeSet<Pid> = lineage.suspects().map(|suspect| suspect.pid).collect();
        assert!(members.iter().all(|pid| !suspects.contains(pid)), "member and suspect at once");
        assert!(members.iter().all(|&pid| lineage.member(pid).is_some_and(|member| member.pid == pid)));
        if lineage.is_empty() {
            assert!(members.is_empty() && suspects.is_empty() && lineage.missing_since().is_none());
        } else {
            assert!(
                !members.is_empty() || !suspects.is_empty() || lineage.missing_since().is_some(),
                "and nobody said Empty"
            );
        }
    }
}

/// Keeps its books whatever it is told: says `Empty` once and nothing after it, and lists who it said had joined.
pub(crate) fn lineage(input: &[u8]) {
    let mut bytes = Bytes(input.iter());
    let root = bytes.identity();
    let exclude: Vec<Identity> = (0..bytes.next() % 3).map(|_| bytes.identity()).collect();
    let mut lineage = Lineage::new(root, exclude);
    let flags = bytes.next();
    if flags & 1 != 0 {
        lineage.set_adopters([bytes.pid(), bytes.pid()]);
    }
    if flags & 4 != 0 {
        lineage.spare(bytes.pid());
    }
    if flags & 2 != 0 {
        lineage.set_sessions([bytes.pid()]);
    }
    let mut listener = Listener::of(&lineage);
    let mut out = Vec::new();
    while !bytes.0.as_slice().is_empty() {
        let before = lineage.clone();
        bytes.step(&mut lineage, &mut out);
        if before.is_empty() {
            assert_eq!(out, [], "said something after Empty");
        }
        listener.hear(&out, &lineage);
        // The order is the machine's own and nobody else's: told the same, it says the same.
        out.clear();
        let saved = lineage.save(None);
        let next = Lineage::adopt(saved);
        assert!(next.members().eq(lineage.members()) && next.suspects().eq(lineage.suspects()));
        match bytes.next() {
            255 => lineage = next,
            254 => {
                if let Some(spared) = lineage.spared() {
                    lineage.add_adopter(spared);
                }
            }
            _ => {}
        }
    }
    lineage.finish(&mut out);
    listener.hear(&out, &lineage);
    assert!(lineage.is_empty());
}

struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn pid(&mut self) -> Pid {
        Pid::new(u32::from(self.next() % 12) + 1).expect("from 1 to 12")
    }

    fn parent(&mut self) -> Option<Pid> {
        let byte = self.next();
        Pid::new(u32::from(byte % 13))
    }

    fn identity(&mut self) -> Identity {
        let pid = self.pid();
        self.identity_of(pid)
    }

    fn identity_of(&mut self, pid: Pid) -> Identity {
        let byte = self.next();
        let start = (byte & 1 != 0).then_some(StartTime { ticks: u64::from(byte >> 4), offset: 0 });
        Identity {
            pid,
            unique: (byte & 2 != 0).then_some(u64::from(byte >> 5)),
            start,
            settled: byte & 4 != 0 && start.is_some(),
            pid_namespace: Some(1),
            boot: (byte & 8 == 0).then_some(BootId([1; 16])),
        }
    }

    fn step(&mut self, lineage: &mut Lineage, out: &mut Vec<Output>) {
        match self.next() % 8 {
            0 | 1 => {
                let parent = self.pid();
                let child = self.identity();
                lineage.step(Input::Forked { parent, child }, out);
            }
            2 => lineage.step(Input::Ended { pid: self.pid(), status: ExitStatus::Code(0) }, out),
            3 => lineage.step(Input::Executed { pid: self.pid() }, out),
            4 => {
                let byte = self.next();
                let since = u64::from(byte % 16);
                let is_unseen = byte >= 128;
                lineage.step(if is_unseen { Input::Unseen { since } } else { Input::Lost { since } }, out);
            }
            5 => {
                let (count, strange) = (self.next() % 16, self.next() % 4);
                let table: Vec<Row> =
                    (0..count).map(|_| Row { pid: self.pid(), parent: self.parent() }).collect();
                let began = u64::from(self.next() % 16);
                let mut asked = BTreeSet::new();
                let mut details = |pid| {
                    assert!(asked.insert(pid), "asked twice of {pid}");
                    assert!(
                        table.iter().any(|row| row.pid == pid),
                        "asked of {pid}, which is not in the table"
                    );
                    let flags = self.next();
                    let identity = self.identity_of(pid);
                    let session = self.parent();
                    let ended = flags & 64 != 0;
                    let is_pinned = flags & 32 != 0;
                    (flags % 8 != 0).then_some(Details { identity, session, ended, is_pinned })
                };
                let mut is_strange = |pid: Pid| pid.get() % 4 < u32::from(strange);
                let (details, is_strange) = (&mut details, &mut is_strange);
                lineage.step(Input::Scanned { table: &table, details, is_strange, began }, out);
            }
            6 => {
                let alive: Vec<(Identity, Option<Pid>)> =
                    (0..self.next() % 8).map(|_| (self.identity(), self.parent())).collect();
                lineage.step(Input::Census { alive: &alive }, out);
            }
            _ => {
                let member = self.identity();
                let parent = self.parent();
                lineage.step(Input::Found { member, parent }, out);
            }
        }
    }
}
