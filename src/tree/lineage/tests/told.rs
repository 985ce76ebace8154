//! What a listener tells a machine of what the kernel has told.

use std::collections::BTreeMap;

use super::kernel::{Event, Kernel, Life, PIDS};
use crate::identity::Identity;
use crate::pid::Pid;
use crate::state::ExitStatus;
use crate::tree::lineage::Input;

#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    Forked { parent: Pid, child: Identity },
    Executed(Pid),
    Ended(Pid),
}

impl Told {
    pub(super) fn input(self) -> Input<'static> {
        match self {
            Told::Forked { parent, child } => Input::Forked { parent, child },
            Told::Executed(pid) => Input::Executed { pid },
            Told::Ended(pid) => Input::Ended { pid, status: ExitStatus::Code(0) },
        }
    }
}

/// How many bearers of a PID were told and have not ended, as a listener counts.
#[derive(Default)]
pub(super) struct Bearers(BTreeMap<Pid, u32>);

impl Bearers {
    /// None of an end if another one has had the PID since, whose end is to come.
    pub(super) fn told(&mut self, kernel: &Kernel, event: Event) -> Option<Told> {
        Some(match event {
            Event::Fork { parent, child } => {
                let child = kernel.identity(child);
                *self.0.entry(child.pid).or_insert(0) += 1;
                Told::Forked { parent: kernel.processes[parent].pid, child }
            }
            Event::Exec(who) => Told::Executed(kernel.processes[who].pid),
            Event::Exit(who) => {
                let pid = kernel.processes[who].pid;
                let bearers = self.0.entry(pid).or_insert(0);
                *bearers = bearers.saturating_sub(1);
                if *bearers > 0 {
                    return None;
                }
                Told::Ended(pid)
            }
        })
    }

    pub(super) fn of(&self, pid: Pid) -> u32 {
        self.0.get(&pid).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, bearers: impl IntoIterator<Item = Pid>) {
        self.0 = bearers.into_iter().map(|pid| (pid, 1)).collect();
    }

    pub(super) fn follow(&mut self, pid: Pid) {
        self.0.insert(pid, 1);
    }

    /// Whoever has a PID, and whose end has not been taken from the kernel yet.
    pub(super) fn count(&mut self, kernel: &Kernel) {
        let is_to_end = |who: usize| {
            let ended = |(_, event): &(u64, Event)| *event == Event::Exit(who);
            kernel.processes[who].life == Life::Running || kernel.events.iter().any(ended)
        };
        let pids = (1..=PIDS).filter_map(Pid::new);
        self.set(pids.filter(|pid| kernel.bearer(*pid).is_some_and(is_to_end)));
    }
}
