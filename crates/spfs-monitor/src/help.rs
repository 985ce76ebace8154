//! What `--help` teaches beside the options.

pub(crate) const ABOUT: &str = "\
Waits until everything that a runtime started has ended, then cleans it up, once.

A runtime hangs on a process, the root, and lives until the last of all that it starts has ended: children, orphans, daemons. \
The monitor attaches to that tree, writes the runtime file, goes to the background, and only then says \"watching\" and lets its \
caller go on. It sleeps in the kernel until the tree is empty; then it runs the cleanup command and removes the runtime file.";

pub(crate) const MORE: &str = "\
Start it before the runtime's command runs, and wait for the line: what the root left behind before that, with nobody between \
them any more, cannot be linked to it. Only the line means that it watches; the end of the output without it is an error.

The monitor may be started from within the runtime. It is no part of it, and neither is the cleanup.

The runtime file is JSON and locked as long as its monitor lives. A second monitor refuses. Whenever the monitor was killed, and \
by whatever, start it again with the same FILE: it goes on with the tree as it was saved, and with the root, heartbeat and cleanup \
command that the file names, where none are given. SIGTERM, SIGINT and SIGHUP have it leave; the file stays, for the next one.

Keep the runtime files of one machine in one folder. Whoever was started while nobody watched, and hangs on nobody, could \
be of the runtime, so the next monitor waits for its end; but not for the monitors and cleanups that the files beside its \
own name. Two monitors with files in different folders that go on at the same time can wait for each other, and nothing is \
cleaned up then.

Once means: that the cleanup command begins is written down by its own process, right before it is executed. Killed before that, \
the next monitor runs it; killed while it runs, the next monitor waits for it and takes its result. Only if the command ended \
while no monitor lived can nobody tell how: then it is not begun again, unless --retry is given. One that failed is kept in the \
file with the reason, and the next monitor tries again. Once it has begun, the monitor stays until it has ended, whatever the signal.

Exit codes:
  0    watching; with --foreground: over, cleaned up, and the runtime file removed
  1    with --foreground: the cleanup failed, and the runtime file is kept
  2    error: it is not watched, nothing has changed, and one line on standard error says why
  3    another monitor watches this runtime; the line names it
  4    a cleanup was begun, and nobody can tell how it ended
  129, 130, 143  with --foreground: left on SIGHUP, SIGINT, SIGTERM; the runtime file is kept

Examples:
  $ spfs-monitor --runtime /run/user/0/spfs/7 --root $$ --on-empty rm -rf /tmp/scratch-7
  watching
  $ spfs-monitor --runtime /run/user/0/spfs/7          again, after it was killed
  watching
  $ spfs-monitor --runtime r --root \"$(pidigree id 4242)\" --heartbeat r.beat --every 30s
  $ jq -r .owner /run/user/0/spfs/7 | xargs pidigree alive";
