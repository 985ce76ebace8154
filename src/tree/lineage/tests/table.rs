//! A table by hand, for what is worth telling apart.

use std::collections::BTreeMap;

use crate::identity::{BootId, Identity, StartTime};
use crate::pid::Pid;
use crate::state::ExitStatus;
use crate::tree::lineage::check::Listener;
use crate::tree::lineage::{Details, Input, Lineage, Output, Row};

pub(super) struct Table {
    pub(super) lineage: Lineage,
    pub(super) listener: Listener,
    pub(super) rows: BTreeMap<u32, (u32, Details)>,
    pub(super) strange: Vec<u32>,
    /// Ended since they were listed.
    pub(super) reaped: Vec<u32>,
}

impl Table {
    /// The root is 10, a child of 3, in the session that 3 leads.
    pub(super) fn new() -> Table {
        let mut lineage = Lineage::new(identity(10, 50), []);
        lineage.set_adopters([pid(3)]);
        lineage.set_sessions([pid(3)]);
        let listener = Listener::of(&lineage);
        let mut table =
            Table { lineage, listener, rows: BTreeMap::new(), strange: Vec::new(), reaped: Vec::new() };
        for (row, parent, session) in [(1, 0, 1), (3, 1, 3), (10, 3, 3)] {
            table.row(row, parent, session, 50);
        }
        table
    }

    pub(super) fn row(&mut self, row: u32, parent: u32, session: u32, start: u64) {
        let identity = identity(row, start);
        self.rows.insert(row, (parent, Details { session: Pid::new(session), ..Details::of(identity) }));
    }

    pub(super) fn step(&mut self, input: Input<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        self.lineage.step(input, &mut out);
        self.listener.hear(&out, &self.lineage);
        out
    }

    pub(super) fn forked(&mut self, parent: u32, child: Identity) -> Vec<Output> {
        self.step(Input::Forked { parent: pid(parent), child })
    }

    pub(super) fn ended(&mut self, who: u32) -> Vec<Output> {
        self.step(Input::Ended { pid: pid(who), status: ExitStatus::Code(0) })
    }

    pub(super) fn scan(&mut self) -> Vec<Output> {
        let rows = self.rows.clone();
        let table: Vec<Row> =
            rows.iter().map(|(&row, &(parent, _))| Row { pid: pid(row), parent: Pid::new(parent) }).collect();
        let reaped = self.reaped.clone();
        let mut details = |pid: Pid| {
            rows.get(&pid.get()).filter(|_| !reaped.contains(&pid.get())).map(|&(_, details)| details)
        };
        let strange = self.strange.clone();
        let mut is_strange = |pid: Pid| strange.contains(&pid.get());
        let (details, is_strange) = (&mut details, &mut is_strange);
        self.step(Input::Scanned { table: &table, details, is_strange, began: 200 })
    }

    /// What a scan finds after events were missing since tick 100.
    pub(super) fn resync(&mut self) -> Vec<Output> {
        self.step(Input::Lost { since: 100 });
        self.scan()
    }

    pub(super) fn members(&self) -> Vec<u32> {
        self.lineage.members().map(|member| member.pid.get()).collect()
    }

    pub(super) fn suspects(&self) -> Vec<u32> {
        self.lineage.suspects().map(|suspect| suspect.pid.get()).collect()
    }
}

pub(super) fn pid(number: u32) -> Pid {
    Pid::new(number).unwrap()
}

pub(super) fn identity(number: u32, ticks: u64) -> Identity {
    Identity {
        pid: pid(number),
        unique: None,
        start: Some(StartTime { ticks, offset: 0 }),
        settled: true,
        pid_namespace: Some(7),
        boot: Some(BootId([1; 16])),
    }
}

pub(super) fn bare(number: u32) -> Identity {
    Identity { start: None, settled: false, ..identity(number, 0) }
}
