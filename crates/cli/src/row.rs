//! A process as it is shown: one line for people, one object for programs.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use nix::unistd::{Uid, User};
use owo_colors::OwoColorize;
use pidigree::{Identity, Pid, Process, State};
use serde::Serialize;

use crate::failure::Failure;
use crate::output;
use crate::sys;

/// What is known of one process. Whatever could not be proven to be its own is left out.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) pid: Pid,
    pub(crate) parent: Option<Pid>,
    pub(crate) kernel: bool,
    /// `None` where it cannot be known.
    state: Option<State>,
    uid: Option<u32>,
    user: Option<String>,
    age: Option<Duration>,
    command: Option<String>,
    identity: Option<Identity>,
}

/// Names of users, each looked up once.
#[derive(Debug, Default)]
pub(crate) struct Users(HashMap<u32, Option<String>>);

impl Users {
    fn name(&mut self, uid: u32) -> Option<String> {
        let look_up = || User::from_uid(Uid::from_raw(uid)).ok().flatten();
        self.0.entry(uid).or_insert_with(|| look_up().map(|user| user.name)).clone()
    }
}

impl Row {
    /// Reads what is shown by PID while the process is pinned, and takes it only if it has not been reaped after that.
    pub(crate) fn of(process: &Process, parent: Option<Pid>, users: &mut Users) -> Row {
        let identity = *process.identity();
        let details = sys::details(process.pid());
        let state = process.state().ok();
        if !matches!(state, Some(State::Running | State::Zombie)) {
            return Row { state, ..Row::blank(process.pid(), parent) };
        }
        let name = details.name.map(|name| format!("[{name}]"));
        Row {
            pid: process.pid(),
            parent,
            kernel: details.kernel,
            state,
            uid: details.uid,
            user: details.uid.and_then(|uid| users.name(uid)),
            age: identity.start_time().and_then(|start| start.elapsed()),
            command: details.arguments.or(name),
            identity: Some(identity),
        }
    }

    /// A process that had ended before anything could be read of it.
    pub(crate) fn gone(pid: Pid, parent: Option<Pid>) -> Row {
        Row { state: Some(State::Gone), ..Row::blank(pid, parent) }
    }

    /// A process of which this user may know nothing but its place.
    pub(crate) fn blank(pid: Pid, parent: Option<Pid>) -> Row {
        Row {
            pid,
            parent,
            kernel: false,
            state: None,
            uid: None,
            user: None,
            age: None,
            command: None,
            identity: None,
        }
    }

    /// Returns how long it has run.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.age
    }

    pub(crate) fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.state == Some(State::Gone)
    }

    pub(crate) fn json(&self, out: &mut impl Write, depth: usize) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Object<'a> {
            pid: u32,
            parent: Option<u32>,
            depth: usize,
            state: String,
            user: Option<&'a str>,
            uid: Option<u32>,
            age_seconds: Option<f64>,
            kernel: bool,
            command: Option<&'a str>,
            token: Option<String>,
        }
        let object = Object {
            pid: self.pid.get(),
            parent: self.parent.map(Pid::get),
            depth,
            state: self.state.map_or("unknown".to_owned(), |state| state.to_string()),
            user: self.user.as_deref(),
            uid: self.uid,
            age_seconds: self.age.map(output::seconds),
            kernel: self.kernel,
            command: self.command.as_deref(),
            token: self.identity.as_ref().map(Identity::to_string),
        };
        output::json(out, &object)
    }

    fn user_cell(&self) -> Cow<'_, str> {
        match (&self.user, self.uid) {
            (Some(user), _) => output::cut(user, Table::WIDEST_USER),
            (None, Some(uid)) => Cow::Owned(uid.to_string()),
            (None, None) => Cow::Borrowed("?"),
        }
    }

    fn age_cell(&self) -> String {
        self.age.map_or("?".to_owned(), output::age)
    }

    fn command_cell(&self) -> Cow<'_, str> {
        let command = output::printable(self.command.as_deref().unwrap_or("?"));
        match self.state {
            Some(State::Gone) => Cow::Borrowed("(ended)"),
            Some(State::Zombie) => Cow::Owned(format!("{command} (zombie)")),
            Some(State::Running) | None => command,
        }
    }
}

/// How wide the columns before the command are, and the lines.
#[derive(Debug)]
pub(crate) struct Table {
    pid: usize,
    user: usize,
    age: usize,
    line: Option<usize>,
}

impl Table {
    const WIDEST_USER: usize = 16;

    /// Makes room for these rows, and prints what the columns are.
    pub(crate) fn begin<'r>(out: &mut impl Write, rows: impl Iterator<Item = &'r Row>) -> io::Result<Table> {
        let mut table =
            Table { pid: "PID".len(), user: "USER".len(), age: "AGE".len(), line: output::width() };
        for row in rows {
            table.pid = table.pid.max(row.pid.to_string().len());
            table.user = table.user.max(output::columns(&row.user_cell()));
            table.age = table.age.max(row.age_cell().len());
        }
        let header = format!(
            "{:>pid$} {:<user$} {:>age$} COMMAND",
            "PID",
            "USER",
            "AGE",
            pid = table.pid,
            user = table.user,
            age = table.age
        );
        writeln!(out, "{}", output::cut(&header, table.line.unwrap_or(usize::MAX)).bold())?;
        Ok(table)
    }

    /// Prints a row; `branch` is what connects it to the one above.
    pub(crate) fn row(&self, out: &mut impl Write, branch: &str, row: &Row) -> io::Result<()> {
        let user = row.user_cell();
        let padding = self.user - output::columns(&user);
        write!(
            out,
            "{:>pid$} {user}{:padding$} {:>age$} ",
            row.pid,
            "",
            row.age_cell(),
            pid = self.pid,
            age = self.age
        )?;
        let left =
            self.line.map_or(usize::MAX, |line| line.saturating_sub(self.pid + self.user + self.age + 3));
        let branch = output::cut(branch, left);
        write!(out, "{}", branch.dimmed())?;
        let command = row.command_cell();
        let command = output::cut(&command, left - output::columns(&branch));
        match row.state {
            Some(State::Zombie) => writeln!(out, "{}", command.red()),
            Some(State::Running) if !row.kernel => writeln!(out, "{command}"),
            _ => writeln!(out, "{}", command.dimmed()),
        }
    }
}
