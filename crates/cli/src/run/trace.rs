//! The trace: Chrome's JSON, which ui.perfetto.dev, chrome://tracing and speedscope open.
//!
//! The whole run is one "process" of the trace, and each process is one "thread" of it, so that all tracks stand below one
//! another: in the order of the tree, the depth marked in the name, an arrow from each fork to what it made. A track is
//! known by the number of its process, since PIDs are reused. It is written as processes end; what is kept of each until
//! the end is the number of its parent.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pidigree::{ExitStatus, Pid};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::failure::Failure;
use crate::run::census::{Ended, Member};
use crate::run::report::unwritable;
use crate::status::{Shown, is_failure};

/// The one "process" of the trace; the root's track has the same number, and so is its main thread.
const RUN: u32 = 1;

#[derive(Debug)]
pub(crate) struct Trace {
    path: PathBuf,
    to: BufWriter<To>,
    /// The parents of those that have ended, by their numbers.
    parents: Vec<u32>,
    /// The first that went wrong; after it nothing more is written.
    failed: Option<io::Error>,
}

#[derive(Debug)]
enum To {
    /// Beside the file, and put in its place when it is whole.
    Beside(NamedTempFile),
    /// A device or a pipe.
    Itself(File),
}

impl Trace {
    /// Begins a file that takes the place of `path` at the end; what cannot be written shall be known before anything runs.
    pub(crate) fn begin(path: &Path, command: &str) -> Result<Trace, Failure> {
        let open = || -> io::Result<(PathBuf, To)> {
            let there = match std::fs::metadata(path) {
                Ok(there) => there,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return beside(path.to_owned(), 0o666);
                }
                Err(error) => return Err(error),
            };
            if there.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            if !there.is_file() {
                return Ok((path.to_owned(), To::Itself(File::options().write(true).open(path)?)));
            }
            // The file that a link names, not the link.
            beside(path.canonicalize()?, there.permissions().mode() & 0o777)
        };
        let (path, to) = open().map_err(|error| unwritable(path, &error))?;
        let mut trace = Trace { path, to: BufWriter::new(to), parents: Vec::new(), failed: None };
        let begun = trace.header(command);
        begun.map_err(|error| unwritable(&trace.path, &error))?;
        Ok(trace)
    }

    /// A member executed a program.
    pub(crate) fn executed(&mut self, member: &Member, program: &str, at: Duration) {
        self.event(&json!({
            "ph": "i", "s": "t", "name": format!("exec {program}"), "cat": "exec",
            "pid": RUN, "tid": member.number, "ts": micros(at),
            "args": { "command": member.command },
        }));
    }

    /// A member ended.
    pub(crate) fn ended(&mut self, ended: &Ended) {
        let Ended { identity, member, status, at, orphan } = ended;
        let told = match status {
            ExitStatus::Unknown => Value::Null,
            status => json!(Shown(*status).to_string()),
        };
        let args = json!({
            "pid": identity.pid().get(), "token": identity.to_string(), "command": member.command,
            "status": told, "orphan": orphan,
        });
        self.track(member, identity.pid(), *at, is_failure(*status), args);
    }

    /// A member that still runs when the trace ends.
    pub(crate) fn left_running(&mut self, member: &Member, pid: Pid, at: Duration) {
        let args = json!({ "pid": pid.get(), "command": member.command, "status": "still running" });
        self.track(member, pid, at, false, args);
    }

    /// Puts the tracks in order, and the file in its place.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        for (number, rank) in self.ranks() {
            self.event(&metadata("thread_sort_index", number, json!({ "sort_index": rank })));
        }
        let ended = match self.failed.take() {
            Some(error) => Err(error),
            None => self.to.write_all(b"\n]}\n").and_then(|()| self.to.flush()),
        };
        let (to, _) = self.to.into_parts();
        let placed = ended.and_then(|()| match to {
            To::Beside(file) => file.persist(&self.path).map(drop).map_err(|error| error.error),
            To::Itself(_) => Ok(()),
        });
        placed.map_err(|error| unwritable(&self.path, &error))
    }

    fn header(&mut self, command: &str) -> io::Result<()> {
        self.to.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n")?;
        let name = metadata("process_name", 0, json!({ "name": command }));
        serde_json::to_writer(&mut self.to, &name)?;
        // A full disk is found out now.
        self.to.flush()
    }

    fn track(&mut self, member: &Member, pid: Pid, until: Duration, failed: bool, args: Value) {
        let number = member.number;
        let command = member.command.as_deref().unwrap_or("?");
        let program = program(command);
        let mut slice = json!({
            "ph": "X", "name": program, "cat": "process", "pid": RUN, "tid": number,
            "ts": micros(member.joined), "dur": micros(until.saturating_sub(member.joined)), "args": args,
        });
        if failed {
            slice["cname"] = json!("terrible");
        }
        self.event(&slice);
        // After the slice, so that those of its very instant are found to be within it.
        if member.parent != 0 {
            for (ph, tid) in [("s", member.parent), ("f", number)] {
                let mut flow = json!({
                    "ph": ph, "id": number, "name": "fork", "cat": "fork",
                    "pid": RUN, "tid": tid, "ts": micros(member.joined),
                });
                if ph == "f" {
                    flow["bp"] = json!("e");
                }
                self.event(&flow);
            }
        }
        let depth = "· ".repeat(usize::try_from(member.depth.saturating_sub(1).min(64)).unwrap_or(0));
        self.event(&metadata("thread_name", number, json!({ "name": format!("{depth}{program} {pid}") })));
        let index = usize::try_from(number).unwrap_or(0);
        if self.parents.len() <= index {
            self.parents.resize(index + 1, 0);
        }
        self.parents[index] = member.parent;
    }

    /// The numbers in the order of the tree, and their places in it.
    fn ranks(&self) -> Vec<(u32, u32)> {
        let count = u32::try_from(self.parents.len()).unwrap_or(0);
        let mut children = vec![Vec::new(); self.parents.len()];
        for number in (1..count).rev() {
            // Whoever's parent nobody saw hangs on the root; its number is higher than its parent's.
            let parent = match self.parents[number as usize] {
                0 if number == 1 => 0,
                0 => 1,
                parent => parent,
            };
            children[parent as usize].push(number);
        }
        let mut ranks = Vec::with_capacity(self.parents.len());
        let mut pending = if count > 1 { vec![1] } else { Vec::new() };
        while let Some(number) = pending.pop() {
            let rank = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
            ranks.push((number, rank));
            pending.append(children.get_mut(number as usize).unwrap_or(&mut Vec::new()));
        }
        ranks
    }

    fn event(&mut self, event: &Value) {
        if self.failed.is_none() {
            let written =
                self.to.write_all(b",\n").and_then(|()| Ok(serde_json::to_writer(&mut self.to, event)?));
            self.failed = written.err();
        }
    }
}

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            To::Beside(file) => file.write(bytes),
            To::Itself(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn beside(path: PathBuf, mode: u32) -> io::Result<(PathBuf, To)> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new()
        .prefix(".pidigree-trace-")
        .permissions(std::fs::Permissions::from_mode(mode))
        .tempfile_in(folder)
        // The path is told, and not that of a file that nobody asked for.
        .map_err(|error| error.kind())?;
    Ok((path, To::Beside(file)))
}

fn metadata(name: &str, number: u32, args: Value) -> Value {
    json!({ "ph": "M", "name": name, "pid": RUN, "tid": number, "args": args })
}

/// The program's name: the last part of the first word.
fn program(command: &str) -> &str {
    // Without arguments it is known by its name alone, in brackets.
    if command.starts_with('[') {
        return command;
    }
    let first = command.split(' ').next().unwrap_or(command);
    match first.rsplit('/').next() {
        Some(name) if !name.is_empty() => name,
        _ => first,
    }
}

/// The format's unit, with what is below it.
fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e9).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::{Trace, program};

    #[test]
    fn tracks_are_in_the_order_of_the_tree() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut trace = Trace::begin(&folder.path().join("trace"), "command").expect("it can be written");
        // 1 forked 2 and 4, 2 forked 3 and 5, and nobody saw who forked 6.
        trace.parents = vec![0, 0, 1, 2, 1, 2, 0];
        let order: Vec<u32> = trace.ranks().into_iter().map(|(number, _)| number).collect();
        assert_eq!(order, [1, 2, 3, 5, 4, 6]);
        trace.parents.clear();
        assert!(trace.ranks().is_empty());
    }

    #[test]
    fn programs_are_the_last_part_of_the_first_word() {
        for (command, name) in
            [("/usr/bin/cc -c /a/b.c", "cc"), ("sh", "sh"), ("[ld/0 x]", "[ld/0 x]"), ("/", "/"), ("", "")]
        {
            assert_eq!(program(command), name, "{command}");
        }
    }
}
