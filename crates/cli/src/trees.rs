//! `pidigree wait --tree` and `pidigree watch --tree`: processes and all that they start, until nothing of it runs.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use owo_colors::OwoColorize;
use pidigree::{Pid, Promise, Tree, TreeEvent};

use crate::args;
use crate::ends::{self, Style};
use crate::events::{self, Began, Empty, Line, Object};
use crate::failure::{self, Code, Failure};
use crate::output;
use crate::run::census::{Census, Ended};
use crate::target::{Found, Target};

pub(crate) fn wait(args: &args::Wait) -> Result<Code, Failure> {
    Trees::of(&args.processes, Style::Wait, args.json)?.follow(args.any, args.timeout)
}

pub(crate) fn watch(args: &args::Watch) -> Result<Code, Failure> {
    Trees::of(&args.processes, Style::Watch, args.json)?.follow(false, None)
}

/// Trees whose ends are to be told.
#[derive(Debug)]
pub(crate) struct Trees {
    followed: Vec<Followed>,
    /// Roots that had ended before: what they left behind cannot be found any more.
    gone: Vec<Pid>,
    style: Style,
    json: bool,
}

#[derive(Debug)]
struct Followed {
    tree: Tree,
    began: Began,
    census: Census,
}

impl Trees {
    pub(crate) fn new(style: Style, json: bool) -> Trees {
        Trees { followed: Vec::new(), gone: Vec::new(), style, json }
    }

    /// All of them, or an error for each that cannot be.
    fn of(targets: &[Target], style: Style, json: bool) -> Result<Trees, Failure> {
        let mut trees = Trees::new(style, json);
        let mut wrong = Vec::new();
        for target in targets {
            match trees.attach(target) {
                Ok(()) => {}
                // So would the rest.
                Err(error) if error.is_limit() => return Err(error.into()),
                Err(error) => wrong.push(error.to_string()),
            }
        }
        if wrong.is_empty() { Ok(trees) } else { Err(Failure::Lines(wrong)) }
    }

    fn attach(&mut self, target: &Target) -> Result<(), pidigree::Error> {
        let process = match target.find()? {
            Found::Process(process) => process,
            Found::Gone(_) => {
                self.gone.push(target.pid());
                return Ok(());
            }
        };
        // Ends alone can be had for less.
        match Tree::builder().every_member(self.style == Style::Watch).attach(&process) {
            Ok(tree) => self.add(tree),
            // It was there, and so it is no mistake.
            Err(error) if error.is_gone() => self.gone.push(process.pid()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(crate) fn add(&mut self, tree: Tree) {
        self.followed.push(Followed { tree, began: Began::now(), census: Census::new(true) });
    }

    /// Tells until all are empty, or any, or the time is up.
    pub(crate) fn follow(mut self, any: bool, timeout: Option<Duration>) -> Result<Code, Failure> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        for pid in &self.gone {
            failure::report(&format!(
                "process {pid} had ended before: what it left behind cannot be told any more"
            ));
        }
        if self.style == Style::Watch {
            for followed in &self.followed {
                self.begin(followed)?;
            }
        }
        let mut emptied = 0;
        loop {
            let mut index = 0;
            while let Some(followed) = self.followed.get_mut(index) {
                if followed.take(self.style, self.json)? {
                    self.followed.swap_remove(index);
                    emptied += 1;
                } else {
                    index += 1;
                }
            }
            if self.followed.is_empty() || any && emptied > 0 {
                break;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                let runs = self.followed.iter().flat_map(|followed| followed.tree.members());
                failure::report(&ends::late(timeout.unwrap_or_default(), runs.map(|member| member.pid())));
                return Ok(Code::TimedOut);
            }
            self.sleep(left)?;
        }
        Ok(if self.gone.is_empty() || any && emptied > 0 { Code::Yes } else { Code::Unknown })
    }

    fn sleep(&self, left: Option<Duration>) -> Result<(), Failure> {
        let mut fds = Vec::with_capacity(self.followed.len());
        for followed in &self.followed {
            fds.push(PollFd::new(followed.tree.event_fd()?, PollFlags::POLLIN));
        }
        match poll(&mut fds, output::milliseconds(left)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Failure::new(format!("cannot wait for the ends of processes: {errno}"))),
        }
    }

    fn begin(&self, followed: &Followed) -> Result<(), Failure> {
        let (root, coverage) = (followed.tree.root(), followed.tree.coverage());
        let mut out = output::lines();
        if self.json {
            return output::json(
                &mut out,
                &Object::Started {
                    head: followed.began.head(&root, Duration::ZERO),
                    command: None,
                    backend: followed.tree.backend().name(),
                    coverage: events::covered(&coverage),
                },
            );
        }
        let now = followed.began.clock(Duration::ZERO);
        let backend = followed.tree.backend();
        writeln!(out, "{} {:>7} watching its tree by {backend}: {coverage}", now.dimmed(), root.pid().get())?;
        Ok(())
    }
}

impl Followed {
    /// Whether every member was seen, up to now.
    fn is_complete(&self) -> bool {
        self.tree.coverage().members != Promise::BestEffort
    }

    /// Tells what there is to tell; returns whether the tree is empty.
    fn take(&mut self, style: Style, json: bool) -> Result<bool, Failure> {
        while let Some(event) = next(&self.tree)? {
            match (style, &event) {
                (Style::Watch, _) => {
                    let ended = self.census.take(&event);
                    self.tell(&event, ended.as_ref(), json)?;
                }
                (Style::Wait, TreeEvent::Empty(emptied)) => {
                    let mut out = output::lines();
                    if json {
                        output::json(&mut out, &self.began.empty(emptied, &self.census, self.is_complete()))?;
                    } else {
                        writeln!(out, "{} {}", emptied.root.pid(), Empty(emptied, self.is_complete()))?;
                    }
                }
                (Style::Wait, _) => {}
            }
            if matches!(event, TreeEvent::Empty(_)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn tell(&self, event: &TreeEvent, ended: Option<&Ended>, json: bool) -> Result<(), Failure> {
        let mut out = output::lines();
        if json {
            return match self.began.object(event, &self.census, ended, self.is_complete()) {
                Some(object) => output::json(&mut out, &object),
                None => Ok(()),
            };
        }
        let line = Line { event, census: &self.census, ended, complete: self.is_complete() };
        let at = match event {
            TreeEvent::Joined { at, .. }
            | TreeEvent::Exec { at, .. }
            | TreeEvent::Left { at, .. }
            | TreeEvent::Resynced { at, .. } => self.began.clock(*at),
            TreeEvent::Empty(emptied) => self.began.clock(emptied.at),
            _ => Began::now().clock(Duration::ZERO),
        };
        Ok(writeln!(out, "{} {line}", at.dimmed())?)
    }
}

/// The next event that is there. Trouble that does not end the following is told, and no event is lost by it.
pub(crate) fn next(tree: &Tree) -> Result<Option<TreeEvent>, Failure> {
    loop {
        match tree.next_event(Some(Duration::ZERO)) {
            Ok(event) => return Ok(event),
            Err(error) if error.is_unsupported() => return Err(error.into()),
            Err(error) => failure::report(&error.to_string()),
        }
    }
}
