//! `pidigree kill`.

use pidigree::{Pid, Process, Signal, State, Tree};

use crate::args;
use crate::ends::{Ends, Style};
use crate::failure::{self, Code, Failure};
use crate::target::{Found, Target};
use crate::trees::Trees;

pub(crate) fn kill(args: &args::Kill) -> Result<Code, Failure> {
    let mut wait = match (args.wait, args.tree) {
        (false, _) => Wait::No,
        (true, false) => Wait::Ends(Box::new(Ends::new(Style::Wait, args.json)?)),
        (true, true) => Wait::Trees(Trees::new(Style::Wait, args.json)),
    };
    let (mut failed, mut ended_before) = (false, false);
    for target in &args.processes {
        match kill_one(target, args, &mut wait) {
            Ok(Outcome::Signalled) => {}
            Ok(Outcome::EndedBefore(why)) => {
                failure::report(&format!("process {}: {why}; nobody was signalled", target.pid()));
                ended_before = true;
            }
            Err(failure) => {
                failure.report();
                failed = true;
            }
        }
    }
    let waited = match wait {
        Wait::No => Code::Yes,
        Wait::Ends(ends) => ends.follow(false, args.timeout)?,
        Wait::Trees(trees) => trees.follow(false, args.timeout)?,
    };
    Ok(match waited {
        _ if failed => Code::Error,
        Code::Yes if ended_before => Code::No,
        waited => waited,
    })
}

/// What is waited for after the signals.
enum Wait {
    No,
    Ends(Box<Ends>),
    Trees(Trees),
}

enum Outcome {
    Signalled,
    /// Known to have ended, for this reason.
    EndedBefore(&'static str),
}

fn kill_one(target: &Target, args: &args::Kill, wait: &mut Wait) -> Result<Outcome, Failure> {
    let pid = target.pid();
    let process = match target.find()? {
        Found::Process(process) => process,
        Found::Gone(reason) => return Ok(Outcome::EndedBefore(reason)),
    };
    if pid.get() == 1 {
        return Err(Failure::new(
            "process 1 keeps this machine or container running; if you mean it, kill(1) does it",
        ));
    }
    if pid == Pid::current() {
        return Err(Failure::new(format!("process {pid} is this command itself")));
    }
    if process.is_kernel_thread()? {
        return Err(Failure::new(format!("process {pid} is a kernel thread, which takes no signals")));
    }
    if process.state()? == State::Zombie {
        return Ok(Outcome::EndedBefore("it has ended and is a zombie"));
    }
    let signalled = if args.tree {
        kill_tree(&process, args.signal, wait)
    } else {
        // Before the signal, so that a descriptor that is missing is not found out too late.
        if let Wait::Ends(ends) = wait {
            ends.add(&process)?;
        }
        process.signal(args.signal)
    };
    match signalled {
        Ok(()) => Ok(Outcome::Signalled),
        Err(error) if error.is_gone() => Ok(Outcome::EndedBefore("it has just ended")),
        Err(error) => Err(error.into()),
    }
}

fn kill_tree(root: &Process, signal: Signal, wait: &mut Wait) -> Result<(), pidigree::Error> {
    let tree = Tree::attach(root)?;
    tree.kill(signal)?;
    if let Wait::Trees(trees) = wait {
        trees.add(tree);
    }
    Ok(())
}
