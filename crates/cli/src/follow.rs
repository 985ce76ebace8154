//! `pidigree tree --follow`: a tree on a terminal, drawn again when it changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use owo_colors::OwoColorize;
use pidigree::{Emptied, Identity, Pid, Process, Promise, Tree, TreeEvent};

use crate::args;
use crate::events::Empty;
use crate::failure::{Code, Failure};
use crate::output;
use crate::row::{Row, Users};
use crate::tree::{self, Node};
use crate::trees;

/// Between two drawings, however much happens.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn follow(args: &args::Tree) -> Result<Code, Failure> {
    let target = args.root.ok_or_else(|| Failure::new("--follow needs a root: name a process"))?;
    let pid = target.pid();
    if !io::stdout().is_terminal() {
        let instead = format!("--follow draws on a terminal; for a pipe, take pidigree watch --tree {pid}");
        return Err(Failure::new(instead));
    }
    let root = target.open()?;
    let tree = Tree::builder().every_member(true).attach(&root)?;
    let mut view = View { root: pid, members: BTreeMap::new(), users: Users::default(), lines: 0 };
    loop {
        let drawn = Instant::now();
        while let Some(event) = trees::next(&tree)? {
            if let TreeEvent::Empty(emptied) = event {
                view.end(&tree, &emptied)?;
                return Ok(Code::Yes);
            }
            view.take(&event);
        }
        view.draw()?;
        // Longer than the pause only while nothing happens.
        std::thread::sleep(PAUSE.saturating_sub(drawn.elapsed()));
        let mut fds = [PollFd::new(tree.event_fd()?, PollFlags::POLLIN)];
        match poll(&mut fds, output::milliseconds(None)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Failure::new(format!("cannot wait for process {pid}: {errno}"))),
        }
    }
}

/// What is on the terminal.
struct View {
    root: Pid,
    /// Who runs, in the order of PIDs, and who forked it: also when that one has ended.
    members: BTreeMap<Pid, Member>,
    users: Users,
    /// How many lines are drawn.
    lines: usize,
}

struct Member {
    identity: Identity,
    /// The nearest that runs of those above it; `None` of the root, and of those whose parent nobody saw.
    above: Option<Pid>,
}

impl View {
    fn take(&mut self, event: &TreeEvent) {
        match event {
            TreeEvent::Joined { member, parent, .. } => {
                let above = parent.map(|parent| parent.pid()).filter(|pid| self.members.contains_key(pid));
                self.members.insert(member.pid(), Member { identity: *member, above });
            }
            TreeEvent::Left { member, .. } => {
                let pid = member.pid();
                let Some(left) = self.members.remove(&pid) else { return };
                for orphan in self.members.values_mut().filter(|other| other.above == Some(pid)) {
                    orphan.above = left.above;
                }
            }
            _ => {}
        }
    }

    fn draw(&mut self) -> Result<(), Failure> {
        let mut rows = HashMap::new();
        for (pid, member) in &self.members {
            let row = match Process::reopen(&member.identity) {
                Ok(process) => Row::of(&process, member.above, &mut self.users),
                Err(error) if error.is_gone() => Row::gone(*pid, member.above),
                Err(error) if error.is_limit() => return Err(error.into()),
                Err(_) => Row::blank(*pid, member.above),
            };
            rows.insert(*pid, row);
        }
        let forest = self.forest(&rows);
        let mut picture = Vec::new();
        let height =
            terminal_size::terminal_size_of(io::stdout()).map_or(24, |(_, height)| usize::from(height.0));
        // The header, what is left out, and the line of the cursor.
        let shown = forest.len().min(height.saturating_sub(3));
        tree::draw(&mut picture, &forest[..shown])?;
        if shown < forest.len() {
            let more = format!("(and {} more)", forest.len() - shown);
            writeln!(picture, "{}", more.dimmed())?;
        }
        self.put(&picture)
    }

    /// Replaces what was drawn before. The cursor stays below it: an interrupt leaves nothing to tidy up.
    fn put(&mut self, picture: &[u8]) -> Result<(), Failure> {
        let mut out = output::pages();
        if self.lines > 0 {
            write!(out, "\x1b[{}A", self.lines)?;
        }
        out.write_all(b"\r\x1b[J")?;
        out.write_all(picture)?;
        out.flush()?;
        self.lines = picture.iter().filter(|byte| **byte == b'\n').count();
        Ok(())
    }

    fn end(&mut self, tree: &Tree, emptied: &Emptied) -> Result<(), Failure> {
        let complete = tree.coverage().members != Promise::BestEffort;
        let line = format!("{} {}\n", emptied.root.pid(), Empty(emptied, complete));
        self.put(line.as_bytes())
    }

    /// Puts the rows in the order of the tree; those whose parent nobody saw stand beside the root.
    fn forest<'r>(&self, rows: &'r HashMap<Pid, Row>) -> Vec<Node<'r>> {
        let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
        let mut tops = Vec::new();
        for (pid, member) in &self.members {
            match member.above {
                Some(above) if self.members.contains_key(&above) && *pid != self.root => {
                    children.entry(above).or_default().push(*pid);
                }
                _ => tops.push(*pid),
            }
        }
        tops.sort_by_key(|pid| *pid != self.root);
        let mut nodes = Vec::with_capacity(rows.len());
        let mut met = HashSet::new();
        for top in tops {
            let mut pending = vec![(top, Vec::new())];
            while let Some((pid, last)) = pending.pop() {
                if !met.insert(pid) {
                    continue;
                }
                // The last one pushed is the first one popped.
                let below = children.remove(&pid).unwrap_or_default();
                for (index, child) in below.into_iter().rev().enumerate() {
                    let mut branch: Vec<bool> = last.clone();
                    branch.push(index == 0);
                    pending.push((child, branch));
                }
                if let Some(row) = rows.get(&pid) {
                    nodes.push(Node { row, depth: last.len(), last });
                }
            }
        }
        nodes
    }
}
