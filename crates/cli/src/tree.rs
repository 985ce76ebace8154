//! `pidigree tree`: one snapshot, and for each process in it what is shown.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::time::Instant;

use owo_colors::OwoColorize;
use pidigree::{Entry, Pid, Process, Snapshot};

use crate::args;
use crate::failure::{Code, Failure};
use crate::identity;
use crate::output;
use crate::row::{Row, Table, Users};

/// How often the table is read for one across which nothing was started.
const CAPTURES: usize = 4;

pub(crate) fn tree(args: &args::Tree) -> Result<Code, Failure> {
    // Pinned until the end, so that the PID in the snapshot is its own.
    let root = args.root.map(|target| target.open()).transpose()?;
    let (table, taken) = capture()?;
    if args.json {
        identity::let_settle()?;
    }
    let mut users = Users::default();
    let mut rows = HashMap::new();
    let entries: Vec<&Entry> = match &root {
        None => table.iter().collect(),
        Some(root) => {
            let top = table.get(root.pid()).ok_or_else(|| absent(root))?;
            let mut family = table.descendants(root.pid());
            family.push(top);
            family
        }
    };
    for entry in entries {
        rows.insert(entry.pid, read(entry, taken, &mut users)?);
    }
    // A tree that was asked for by its root is shown whole.
    let mut hidden = 0;
    if root.is_none() && !args.kernel {
        let all = rows.len();
        rows.retain(|_, row| !row.kernel);
        hidden = all - rows.len();
    }
    leave_out_ended(&mut rows, root.as_ref().map(Process::pid));
    let forest = forest(&table, &rows, root.as_ref().map(Process::pid));

    let mut out = output::pages();
    if args.json {
        for node in &forest {
            node.row.json(&mut out, node.depth)?;
        }
    } else {
        draw(&mut out, &forest)?;
        if hidden > 0 {
            let threads = if hidden == 1 { "kernel thread" } else { "kernel threads" };
            let note = format!("({hidden} {threads} not shown; --kernel shows them)");
            writeln!(out, "{}", note.dimmed())?;
        }
        if !table.is_proven() {
            let note = "(processes were started while the table was read: some may be missing)";
            writeln!(out, "{}", note.dimmed())?;
        }
    }
    out.flush()?;
    Ok(Code::Yes)
}

/// Reads the table, again if anything was started meanwhile, and says when the reading began.
fn capture() -> Result<(Snapshot, Instant), Failure> {
    let mut attempts = 1;
    loop {
        let taken = Instant::now();
        let table = Snapshot::capture()?;
        if table.is_proven() || attempts == CAPTURES {
            return Ok((table, taken));
        }
        attempts += 1;
    }
}

fn absent(root: &Process) -> Failure {
    let pid = root.pid();
    match root.state() {
        Ok(pidigree::State::Gone) => Failure::new(format!("process {pid} ended before its tree was read")),
        _ => Failure::new(format!(
            "process {pid} runs, but /proc hides it from this user (hidepid); ask as its owner or as root"
        )),
    }
}

/// Reads what is shown of a process of the table.
fn read(entry: &Entry, taken: Instant, users: &mut Users) -> Result<Row, Failure> {
    let process = match Process::open(entry.pid) {
        Ok(process) => process,
        Err(error) if error.is_gone() || error.is_thread() => return Ok(Row::gone(entry.pid, entry.parent)),
        Err(error) if error.is_limit() => return Err(error.into()),
        Err(_) => return Ok(Row::blank(entry.pid, entry.parent)),
    };
    if !is_of(&process, entry, taken) {
        return Ok(Row::gone(entry.pid, entry.parent));
    }
    Ok(Row::of(&process, entry.parent, users))
}

/// Whether who has the PID now is the process of the table. One that was started before the table was read had its PID all
/// the time; of a younger one the row is at least true if its parent is the table's.
fn is_of(process: &Process, entry: &Entry, taken: Instant) -> bool {
    let age = process.identity().start_time().and_then(|start| start.elapsed());
    if age.is_some_and(|age| age > taken.elapsed() + identity::TICK) {
        return true;
    }
    // By the PID, which is its own if it is not reaped after this: Row looks.
    pidigree::parent_of(entry.pid).is_ok_and(|parent| parent == entry.parent)
}

/// Leaves out those that ended while they were read, unless they hold others in their place.
fn leave_out_ended(rows: &mut HashMap<Pid, Row>, root: Option<Pid>) {
    let mut needed: HashSet<Pid> = root.into_iter().collect();
    for row in rows.values().filter(|row| !row.is_gone()) {
        let mut at = Some(row);
        while let Some(row) = at {
            if !needed.insert(row.pid) {
                break;
            }
            at = row.parent.and_then(|parent| rows.get(&parent));
        }
    }
    rows.retain(|pid, _| needed.contains(pid));
}

/// A process in its place.
pub(crate) struct Node<'r> {
    pub(crate) row: &'r Row,
    pub(crate) depth: usize,
    /// For the row and each of its ancestors, from the top: whether it is the last child.
    pub(crate) last: Vec<bool>,
}

/// Puts the rows in the order of the tree. Whoever has no shown parent is a root.
fn forest<'r>(table: &Snapshot, rows: &'r HashMap<Pid, Row>, root: Option<Pid>) -> Vec<Node<'r>> {
    let mut nodes = Vec::with_capacity(rows.len());
    // Links taken at different moments could close a circle: nobody is met twice.
    let mut met = HashSet::new();
    let is_root = |entry: &Entry| match root {
        Some(root) => entry.pid == root,
        None => entry.parent.is_none_or(|parent| !rows.contains_key(&parent)),
    };
    // Those that only a circle holds are roots too, behind all others.
    for circles in [false, true] {
        for entry in table.iter() {
            if !circles && !is_root(entry) {
                continue;
            }
            let mut pending = vec![(entry.pid, Vec::new())];
            while let Some((pid, last)) = pending.pop() {
                let Some(row) = rows.get(&pid) else { continue };
                if !met.insert(pid) {
                    continue;
                }
                let mut children: Vec<Pid> = table
                    .children(pid)
                    .map(|child| child.pid)
                    .filter(|child| rows.contains_key(child) && !met.contains(child))
                    .collect();
                // The last one pushed is the first one popped.
                children.reverse();
                for (index, child) in children.into_iter().enumerate() {
                    let mut branch = last.clone();
                    branch.push(index == 0);
                    pending.push((child, branch));
                }
                nodes.push(Node { row, depth: last.len(), last });
            }
        }
    }
    nodes
}

pub(crate) fn draw(out: &mut impl Write, forest: &[Node<'_>]) -> Result<(), Failure> {
    let table = Table::begin(out, forest.iter().map(|node| node.row))?;
    let mut branch = String::new();
    for node in forest {
        branch.clear();
        if let Some((own, above)) = node.last.split_last() {
            for last in above {
                branch.push_str(if *last { "   " } else { "│  " });
            }
            branch.push_str(if *own { "└─ " } else { "├─ " });
        }
        table.row(out, &branch, node.row)?;
    }
    Ok(())
}
