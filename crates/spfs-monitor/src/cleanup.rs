//! The cleanup command: started once, and its end.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use pidigree::{ExitStatus, Identity, Process};

use crate::pulse::Pulse;
use crate::store::Store;
use crate::sys;

/// Runs it to its end; an error says how it failed.
///
/// Who it is stands in the record before it may go on, and that it has gone on it writes itself, as its last act before the
/// program: so in whatever moment this process is killed, a record that says *watching* proves that the command never ran.
pub(crate) fn run(
    store: &Store,
    words: &[OsString],
    is_quiet: bool,
    pulse: &mut Option<Pulse>,
) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(());
    };
    let mut command = Command::new(program);
    // A terminal's signals are for us; we stay until it has ended.
    command.args(arguments).current_dir("/").stdin(Stdio::null()).process_group(0);
    if is_quiet {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    let announced = sys::spawn_announced(&mut command, store.phase_slot(), |pid| {
        // Without it the record still says that it was begun, which is what counts.
        if let Ok(cleaner) = Identity::of(pid) {
            let _ = store.set_cleaner(Some(&cleaner));
        }
    });
    let mut child =
        announced.map_err(|error| format!("cannot run {}: {error}", program.to_string_lossy()))?;
    let ended = Process::from_child(&child).and_then(|process| end_of(&process, pulse));
    let status = match ended {
        // The kernel may not tell how before it is reaped.
        Ok(_) | Err(_) => child.wait().map_err(|error| format!("cannot wait for the cleanup: {error}"))?,
    };
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", program.to_string_lossy())) }
}

/// Waits for the end of a process, and touches the heartbeat meanwhile.
pub(crate) fn end_of(process: &Process, pulse: &mut Option<Pulse>) -> pidigree::Result<ExitStatus> {
    loop {
        if let Some(status) = process.wait(pulse.as_ref().map(Pulse::due_in))? {
            return Ok(status);
        }
        if let Some(pulse) = pulse {
            // It is too late for anybody to be told of its trouble.
            let _ = pulse.beat();
        }
    }
}
