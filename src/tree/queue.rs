//! Events that wait to be taken by the owners of a tree.

use std::collections::VecDeque;

use crate::tree::event::TreeEvent;

/// How many wait at most.
const QUEUE: usize = 65_536;

/// Events that wait to be taken.
#[derive(Debug, Default)]
pub(super) struct Queue {
    events: VecDeque<TreeEvent>,
    /// How many were taken or dropped before the first of `events`.
    before: u64,
    skipped: u64,
}

impl Queue {
    pub(super) fn push(&mut self, event: TreeEvent) {
        if self.events.len() == QUEUE {
            self.events.pop_front();
            self.before += 1;
            self.skipped += 1;
        }
        self.events.push_back(event);
    }

    pub(super) fn take(&mut self) -> Option<TreeEvent> {
        if self.skipped > 0 {
            return Some(TreeEvent::Skipped { events: std::mem::take(&mut self.skipped) });
        }
        let event = self.events.pop_front()?;
        self.before += 1;
        Some(event)
    }

    /// The number of the last event.
    pub(super) fn last(&self) -> u64 {
        self.before + self.events.len() as u64 - 1
    }

    /// Takes back the name that this event gave to a program.
    pub(super) fn unname(&mut self, number: u64) {
        let index = number.checked_sub(self.before).and_then(|index| usize::try_from(index).ok());
        if let Some(TreeEvent::Exec { program, .. }) = index.and_then(|index| self.events.get_mut(index)) {
            *program = None;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.skipped == 0
    }
}
