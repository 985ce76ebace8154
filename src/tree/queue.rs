//! What a tree has told, and its owners have not taken yet.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys::Flag;
use crate::tree::event::{Emptied, TreeEvent};

/// How many wait at most.
const QUEUE: usize = 65_536;

/// It has a lock of its own: in a storm the engine's is nearly always held, by a thread that waits for a processor. Whoever
/// has both locks it last.
#[derive(Debug, Default)]
pub(super) struct Queue {
    told: Mutex<Told>,
    news: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Told {
    events: VecDeque<TreeEvent>,
    skipped: u64,
    pub(super) emptied: Option<Emptied>,
    /// There is an error to be had from the engine.
    pub(super) trouble: bool,
    /// Up as long as there is something to take.
    flag: Option<Arc<Flag>>,
}

impl Queue {
    pub(super) fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of these, and wakes whoever waits, once.
    pub(super) fn put(&self, events: &mut Vec<TreeEvent>, emptied: Option<Emptied>, trouble: bool) {
        let mut told = self.lock();
        events.drain(..).for_each(|event| told.push(event));
        told.emptied = emptied;
        told.trouble = trouble;
        told.show();
        drop(told);
        self.news.notify_all();
    }

    /// Gives the lock back until there is news, or the time is up; sometimes before.
    pub(super) fn wait<'a>(
        &self,
        told: MutexGuard<'a, Told>,
        timeout: Option<Duration>,
    ) -> MutexGuard<'a, Told> {
        match timeout {
            None => self.news.wait(told).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => self.news.wait_timeout(told, timeout).unwrap_or_else(PoisonError::into_inner).0,
        }
    }
}

impl Told {
    fn push(&mut self, event: TreeEvent) {
        if self.events.len() == QUEUE {
            self.events.pop_front();
            self.skipped += 1;
        }
        self.events.push_back(event);
    }

    pub(super) fn take(&mut self) -> Option<TreeEvent> {
        if self.skipped > 0 {
            return Some(TreeEvent::Skipped { events: std::mem::take(&mut self.skipped) });
        }
        self.events.pop_front()
    }

    pub(super) fn show_with(&mut self, flag: &Arc<Flag>) {
        self.flag = Some(Arc::clone(flag));
        self.show();
    }

    /// Raises the flag, again if it is up: whoever waits for edges has one for all news. Or lowers it.
    pub(super) fn show(&self) {
        match &self.flag {
            Some(flag) if self.has_something() => flag.raise(),
            _ => self.lower_if_idle(),
        }
    }

    pub(super) fn lower_if_idle(&self) {
        if let Some(flag) = self.flag.as_ref().filter(|_| !self.has_something()) {
            flag.lower();
        }
    }

    fn has_something(&self) -> bool {
        !self.events.is_empty() || self.skipped > 0 || self.trouble
    }
}
