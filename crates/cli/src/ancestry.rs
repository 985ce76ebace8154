//! `pidigree ancestors` and `pidigree is-descendant`.

use std::io::Write;

use owo_colors::OwoColorize;
use pidigree::Process;

use crate::args;
use crate::failure::{Code, Failure};
use crate::identity;
use crate::output;
use crate::row::{Row, Table, Users};

/// How often a line of ancestors is walked if one of them ends under it.
const WALKS: usize = 16;

pub(crate) fn ancestors(args: &args::Ancestors) -> Result<Code, Failure> {
    let process = args.process.open()?;
    if args.json {
        identity::let_settle()?;
    }
    let line = line_of(&process)?;
    let mut users = Users::default();
    let parents = line.iter().map(|process| Some(process.pid())).skip(1).chain([None]);
    let rows: Vec<Row> =
        line.iter().zip(parents).map(|(process, parent)| Row::of(process, parent, &mut users)).collect();

    let mut out = output::pages();
    if args.json {
        for (depth, row) in (1..).zip(&rows) {
            row.json(&mut out, depth)?;
        }
    } else if rows.is_empty() {
        let note = format!("(process {} is at the top of what can be seen from here)", process.pid());
        writeln!(out, "{}", note.dimmed())?;
    } else {
        let table = Table::begin(&mut out, rows.iter())?;
        for row in &rows {
            table.row(&mut out, "", row)?;
        }
    }
    out.flush()?;
    Ok(Code::Yes)
}

fn line_of(process: &Process) -> Result<Vec<Process>, Failure> {
    let mut walks = 1;
    loop {
        match process.ancestors().collect() {
            // One of them ended, and others have adopted its children.
            Err(error) if error.is_gone() && error.pid() != Some(process.pid()) && walks < WALKS => {
                walks += 1;
            }
            line => return Ok(line?),
        }
    }
}

pub(crate) fn is_descendant(args: &args::IsDescendant) -> Result<Code, Failure> {
    let process = args.process.open()?;
    let root = args.root.open()?;
    let (pid, root_pid) = (process.pid(), root.pid());
    let descends = process.is_descendant_of(&root)?;
    if !args.quiet {
        let answer = if descends {
            format!("yes: {pid} descends from {root_pid}")
        } else if pid == root_pid {
            format!("no: {pid} does not descend from itself")
        } else {
            format!("no: {pid} does not descend from {root_pid}")
        };
        writeln!(output::lines(), "{answer}")?;
    }
    Ok(if descends { Code::Yes } else { Code::No })
}
