//! What a monitor does once it has said that it watches.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pidigree::{ExitStatus, Process, Tree, TreeEvent};

use crate::cleanup;
use crate::failure::{Code, Failure};
use crate::neighbours::Neighbours;
use crate::pulse::Pulse;
use crate::record::{Phase, Record};
use crate::store::Store;
use crate::sys::{self, Signals};

/// How long after a change of members the tree is saved anew: once for all that change meanwhile. A successor would find them
/// again, but takes for strangers' what was orphaned since the tree was saved, and for possible members the strangers of that time.
const SAVE_AFTER: Duration = Duration::from_secs(1);

/// One runtime, and all that is needed to see it through.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) store: Store,
    pub(crate) record: Record,
    pub(crate) work: Work,
    pub(crate) signals: Signals,
    pub(crate) pulse: Option<Pulse>,
    pub(crate) neighbours: Neighbours,
    /// Nobody reads what the cleanup writes.
    pub(crate) is_quiet: bool,
    pub(crate) save_at: Option<Instant>,
}

/// Where it begins.
#[derive(Debug)]
pub(crate) enum Work {
    /// With the end of the tree.
    Watch(Tree),
    /// With a cleanup that a predecessor began, and that goes on.
    Await(Process),
    /// With the cleanup.
    Clean,
    /// With the removal of the runtime file.
    Remove,
}

enum Next {
    Empty,
    Left(i32),
    /// Somebody may be a member or a stranger.
    Suspects,
}

impl Monitor {
    /// Sees it through; returns how that ended.
    pub(crate) fn run(mut self) -> Result<Code, Failure> {
        match &self.work {
            Work::Watch(tree) => {
                let mut tree = tree.clone();
                loop {
                    match self.watch(&tree)? {
                        Next::Empty => break,
                        Next::Left(signal) => {
                            self.save(&tree);
                            return Ok(Code::Left(signal));
                        }
                        Next::Suspects => {
                            if self.neighbours.look(&self.store) {
                                if let Ok(better) = self.neighbours.adopt(&tree.save()) {
                                    tree = better;
                                    self.save(&tree);
                                }
                            }
                        }
                    }
                }
                let cleaned = self.clean();
                if cleaned.is_err() {
                    self.record.tree = tree.save();
                }
                self.finish(cleaned)
            }
            Work::Await(cleaner) => {
                let cleaner = cleaner.clone();
                match cleanup::end_of(&cleaner, &mut self.pulse)? {
                    ExitStatus::Code(0) => self.finish(Ok(())),
                    ExitStatus::Unknown => Err(unknown(&self.record)),
                    status => self.finish(Err(format!("the cleanup ended with {status}"))),
                }
            }
            Work::Clean => {
                let cleaned = self.clean();
                self.finish(cleaned)
            }
            Work::Remove => self.finish(Ok(())),
        }
    }

    fn watch(&mut self, tree: &Tree) -> Result<Next, Failure> {
        let news = tree.event_fd()?;
        loop {
            loop {
                match tree.next_event(Some(Duration::ZERO)) {
                    Ok(Some(TreeEvent::Empty(_))) => return Ok(Next::Empty),
                    Ok(Some(TreeEvent::Exec { .. } | TreeEvent::Skipped { .. })) => {}
                    Ok(Some(TreeEvent::Resynced { suspects: 1.., .. })) => {
                        self.save_at.get_or_insert_with(|| Instant::now() + SAVE_AFTER);
                        return Ok(Next::Suspects);
                    }
                    Ok(Some(_)) => {
                        self.save_at.get_or_insert_with(|| Instant::now() + SAVE_AFTER);
                    }
                    // It was empty, and that has been taken.
                    Ok(None) if tree.is_empty() => return Ok(Next::Empty),
                    Ok(None) => break,
                    Err(error) => {
                        self.note(&error);
                        // Trouble is told once; that it cannot be followed any more, again and again.
                        if error.is_unsupported() && is_told_again(tree) {
                            self.save(tree);
                            return Err(error.into());
                        }
                        break;
                    }
                }
            }
            if let Some(signal) = self.signals.take() {
                return Ok(Next::Left(signal));
            }
            if let Some(Err(error)) = self.pulse.as_mut().map(Pulse::beat) {
                self.note(&format!("cannot touch the heartbeat: {error}"));
            }
            if self.save_at.is_some_and(|at| at <= Instant::now()) {
                self.save(tree);
            }
            let save_in = self.save_at.map(|at| at.saturating_duration_since(Instant::now()));
            let beat_in = self.pulse.as_ref().map(Pulse::due_in);
            let timeout = save_in.into_iter().chain(beat_in).min();
            sys::wait_readable(&[self.signals.as_fd(), news.as_fd()], timeout)
                .map_err(|error| Failure::new(format!("cannot wait: {error}")))?;
        }
    }

    /// Trouble, to be written down.
    fn note(&mut self, trouble: &impl ToString) {
        let trouble = trouble.to_string();
        if self.record.trouble.as_ref() != Some(&trouble) {
            self.record.trouble = Some(trouble);
            self.save_at.get_or_insert_with(|| Instant::now() + SAVE_AFTER);
        }
    }

    /// What stands in the file stays valid if this fails.
    fn save(&mut self, tree: &Tree) {
        self.save_at = None;
        self.record.tree = tree.save();
        if let Err(error) = self.store.replace(&self.record) {
            self.record.trouble = Some(format!("the tree could not be saved anew: {error}"));
        }
    }

    fn clean(&mut self) -> Result<(), String> {
        cleanup::run(&self.store, &self.record.on_empty, self.is_quiet, &mut self.pulse)
    }

    fn finish(mut self, cleaned: Result<(), String>) -> Result<Code, Failure> {
        let path = self.record_path();
        let Err(why) = cleaned else {
            if !self.record.on_empty.is_empty() {
                // In case that we are killed right here, or cannot remove it.
                let _: io::Result<()> = self.store.set_phase(Phase::Cleaned);
            }
            return match self.store.remove() {
                Ok(()) => Ok(Code::Done),
                Err(error) => {
                    let what =
                        format!("it was cleaned up, but runtime file {path} cannot be removed: {error}");
                    Err(Failure::with(Code::Unclean, what))
                }
            };
        };
        self.record.phase = Phase::Failed;
        self.record.cleaner = None;
        self.record.failure = Some(why.clone());
        if self.store.replace(&self.record).is_err() {
            // At least that.
            let _: io::Result<()> = self.store.set_phase(Phase::Failed);
        }
        let what = format!(
            "the cleanup failed: {why}; runtime file {path} is kept, and the next monitor tries again"
        );
        Err(Failure::with(Code::Unclean, what))
    }

    fn record_path(&self) -> String {
        self.store.path().display().to_string()
    }
}

fn is_told_again(tree: &Tree) -> bool {
    tree.wait_empty(Some(Duration::ZERO)).is_err_and(|error| error.is_unsupported())
}

/// Nobody saw how it ended.
pub(crate) fn unknown(record: &Record) -> Failure {
    let who = record.cleaner.map_or_else(|| "a process".to_owned(), |cleaner| format!("process {cleaner}"));
    let what = format!(
        "its cleanup was begun, by {who}, and nobody saw how that ended: it is not begun again unasked. \
         See what it has left, then clean up with --retry, or remove the runtime file"
    );
    Failure::with(Code::Unknown, what)
}
