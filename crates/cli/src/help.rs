//! What `--help` and the manual pages teach below the options.

pub(crate) const ABOUT: &str = "\
Process trees, verified ancestry, and race-free wait and kill.

A PID is only a number: when its process has ended, another may get it. pidigree pins the process that has the PID when \
it starts, and every answer and every signal is about that process. Where a process must be recognised later, by another \
command or after a reboot, name it by its token: `pidigree id PID` prints it, and every command takes it in place of a \
PID.";

pub(crate) const PIDIGREE: &str = "\
Exit codes of every command but run, which ends as its command does:
  0    done; the answer is yes
  1    the answer is no
  2    error: nothing was answered, and one line on standard error says why
  3    unknown: it can be neither proven nor disproven (alive, wait --tree)
  124  the time was up (wait, kill --wait, run)
  141  whoever read the output has left, as with `| head`

Text is for people and may change; --json is for programs: one object a line, and fields are only ever added.
Colours appear on a terminal only, and never where NO_COLOR is set.

Examples:
  $ pidigree tree                       every process, as a tree
  $ token=$(pidigree id $!)             which process this is, for good
  $ pidigree alive \"$token\"             does it still run?
  $ pidigree wait --timeout 10s \"$token\"
  $ pidigree kill --wait \"$token\"
  $ pidigree run -- make                all that make starts: wait for it, and tell what ran";

pub(crate) const TREE: &str = "\
The root can be any process. Without one, every process that has no visible parent is a root; kernel threads are then \
left out and counted below. On a terminal, lines are cut to its width; `pidigree tree | less -S` shows them whole.

User, age and command are read while the process is pinned; one that ended meanwhile is left \
out, or shown as (ended) if others hang on it.

With --follow, the tree of the root is drawn again whenever somebody joins or ends, until nothing of it runs. Orphans \
stay in it, below the nearest of their ancestors that runs. Ages are those of the last drawing. Ends with Ctrl-C, too.

JSON: pid, parent, depth, state (running, zombie, gone, unknown), user, uid, age_seconds, kernel, command, token; null \
where it cannot be known.

Exit codes:
  0  drawn
  2  error: no such process, or none can be seen

Examples:
  $ pidigree tree
  $ pidigree tree $$                    this shell and what it started
  $ pidigree tree --follow $(pgrep -o make)
  $ pidigree tree --json | jq -r 'select(.user == \"www\") | .token'";

pub(crate) const ANCESTORS: &str = "\
The nearest comes first and the top of what can be seen from here last. Each is pinned and verified as the parent of the \
one before: no process is listed that never was an ancestor, however fast PIDs are reused.

JSON: as `pidigree tree --json`; depth is 1 for the parent, 2 for its parent, and so on.

Exit codes:
  0  listed; a process at the top has none
  2  error: no such process

Examples:
  $ pidigree ancestors $$               who started this shell?
  $ pidigree ancestors --json $$ | jq .pid";

pub(crate) const IS_DESCENDANT: &str = "\
Yes, if ROOT is the parent of the process, or its parent's parent, and so on; or if the process is in the session that \
ROOT leads, which proves it even for orphans. A process does not descend from itself. An orphan of a ROOT that leads no \
session cannot be told from a stranger: the answer is no.

Exit codes:
  0  yes
  1  no
  2  error: no such process

Examples:
  $ pidigree is-descendant 4242 $$ && echo mine
  $ if pidigree is-descendant --quiet \"$pid\" \"$root\"; then ...";

pub(crate) const ID: &str = "\
The token is one line without spaces. It names this process for good: after it has ended, when its PID names another \
process, and after a reboot. Keep it where you would have kept a PID; every command takes it in place of one.

Exit codes:
  0  printed
  2  error: no such process

Examples:
  $ pidigree id $$
  $ daemon & pidigree id $! > daemon.token
  $ pidigree alive \"$(cat daemon.token)\"";

pub(crate) const ALIVE: &str = "\
Prints running, zombie, gone or unknown, and why. A zombie has ended, as for service managers. A token of another boot is \
gone: nothing of another boot runs here. A token of another PID namespace is unknown from here, and so is one that was \
recorded in the instant of the start where the kernel has no unique ids (pidigree itself waits that instant out).

JSON: pid, state (running, zombie, gone, unknown), reason (null while it runs), token.

Exit codes:
  0  running
  1  it has ended: gone, or a zombie
  2  error: not a token
  3  unknown: a process with its PID may run, and nothing proves that it is the one

Examples:
  $ pidigree alive \"$(cat daemon.token)\" || start-daemon
  $ pidigree alive --json \"$token\" | jq -r .state";

pub(crate) const WAIT: &str = "\
Works for any process, not only for children of this shell, without polling and without reaping. Every process is pinned \
before the first is waited for: if one PID does not exist, nothing is waited for. A token whose process has ended before \
is reported as gone, status unknown. A zombie has ended.

The exit code does not depend on how the processes ended, since their codes would collide with these: read what is \
printed. The kernel may not tell the status of a process that is not a child; it is then said to be unknown (`pidigree \
doctor`, exit-status).

With --tree, each process is the root of a tree: it is waited for until all has ended that it has started or will, \
daemons and orphans included. What had been orphaned before cannot be found again, except in a session that the tree \
made.

JSON: event (ended, or gone if it had before), pid, token, status (exited, killed, unknown), code, signal, signal_name; \
null where it does not apply. With --tree: event (empty), at, seconds, processes (how many there were), complete (whether \
every one of them was seen), and pid, token, status, code, signal and signal_name of the root.

Exit codes:
  0    all have ended; with --any, one has
  2    error: no such process; nothing was waited for
  3    with --tree, a root had ended before: what it left behind cannot be told
  124  the time was up before

Examples:
  $ pidigree wait 4242
  $ pidigree wait --timeout 1m30s \"$token\" || echo \"still there\"
  $ pidigree wait --any 4242 4243
  $ pidigree wait --tree 4242           until nothing runs that it started
  $ pidigree wait --json 4242 | jq .code";

pub(crate) const WATCH: &str = "\
Like wait, for people who look on and for logs: it names each process when it begins, and tells when each one ended and \
how long it had run. Ends when all have ended, or with Ctrl-C.

With --tree, all that the processes start is told, too: who joined and who forked it, which program it executes, how it \
ended; until nothing of it runs. The first line says what can be promised here (`pidigree doctor`).

JSON: with --tree, as `pidigree run --json`, without the summary. Otherwise: at (UTC), event (watching, ended, or gone if it had before), pid, token, command, age_seconds, and status, code, \
signal and signal_name as `pidigree wait --json`; null where it does not apply.

Exit codes:
  0    all have ended
  2    error: no such process; nothing was watched
  3    with --tree, a root had ended before: what it left behind cannot be told
  130  as a shell shows Ctrl-C

Examples:
  $ pidigree watch 4242 4243
  $ pidigree watch --tree $$            what this shell starts from now on
  $ pidigree watch --json $(pgrep make) >> ends.jsonl";

pub(crate) const KILL: &str = "\
Each process is pinned and then signalled: a token whose process has ended is never a signal to whoever has its PID now. \
A failure does not keep the others from being signalled. PID 1 and this command itself are refused, and so are kernel \
threads, which take no signals.

With --tree, so are all that it started, and those that are forked meanwhile: it comes back when none is left that was \
not sent the signal. SIGKILL is sent to a tree that was stopped first, which no fork outruns. This command itself is \
left out.

With --wait, it then waits for those that were signalled, or for their trees, and prints each end as `pidigree wait` \
does. It never escalates by itself: see the last example.

Where several exit codes apply, 2 goes before 124, and 124 before 1.

Exit codes:
  0    all were signalled; with --wait, all have ended
  1    one had ended before, and nobody was signalled in its place
  2    error: one could not be signalled, or a PID does not exist
  124  with --wait --timeout: the time was up before

Examples:
  $ pidigree kill 4242
  $ pidigree kill -s HUP \"$(cat daemon.token)\"
  $ pidigree kill --tree --wait -s KILL 4242
  $ pidigree kill --wait --timeout 10s \"$token\" || pidigree kill -s KILL --wait \"$token\"";

pub(crate) const RUN: &str = "\
The command and all that it starts are one tree, daemons and orphans included. pidigree waits until nothing of it runs, \
tells on standard error what ran, and ends as the command did. Standard input, output and error are the command's own. \
The summary names the longest and the failed, and those that outlived their parents; `at least` says that some may not \
have been seen, and why.

Signals: Ctrl-C, Ctrl-\\ and Ctrl-Z reach the command from the terminal, as without pidigree, and so does a signal that \
is sent to the whole process group by one of the tree. HUP, INT, QUIT, TERM, USR1 and USR2 that are sent to pidigree \
itself are passed on to the command, and pidigree goes on waiting. When the command has ended and others run on, the \
first HUP, INT, QUIT or TERM is passed on to all of them, and the second ends the waiting: they are left alone, and \
named.

--timeout and --kill-on-exit send SIGTERM to the whole tree, and SIGKILL after --kill-after. With --kill-on-exit the tree \
is killed, too, if pidigree itself is killed; that takes the backend auto, which then is the subreaper, or subreaper.

JSON: an object for each event, with event, and where it applies at (UTC), seconds (since the start), pid and token, \
which is the same text in all objects of one process from joined on. started has command, backend and coverage; joined \
has parent and parent_token; exec has program (the kernel's 15 bytes) and command; ended has status, code, signal and \
signal_name as `pidigree wait --json`, ran_seconds, orphan (its parent had ended before it) and command; resynced (not \
all events were seen) has suspects; skipped has events; empty has processes, complete and how the command ended. The \
last is summary: the same and timed_out, levels, failed, orphans, left_running, and the first of the longest, failures \
and outlived. It goes to standard error, between what the command writes there: name a file with --output, or a \
descriptor as /dev/fd/3.

Trace: Chrome's JSON, which ui.perfetto.dev, chrome://tracing and speedscope open: a track for each process, in the \
order of the tree, with its programs and an arrow from each fork. The file appears whole, when the run is over, also \
after an interrupt.

Exit codes:
  0 to 255  those of the command; 128+N if signal N ended it
  124       the time was up
  125       pidigree failed: no backend works, or a file cannot be written
  126       the command was found and cannot be executed
  127       there is no such command

Examples:
  $ pidigree run -- make -j8
  $ pidigree run --trace make.json -- make -j8
  $ pidigree run --timeout 10m --kill-on-exit -- ./integration-tests
  $ pidigree run --json --output run.jsonl -- ./build.sh && jq -r 'select(.event == \"exec\") | .command' run.jsonl";

pub(crate) const DOCTOR: &str = "\
For each question that pidigree answers: whether the answer is proven here, only best effort, or unavailable, and what it \
rests on. Run it where your program runs: containers and sandboxes differ from the machine around them.

Then the backends that can follow a tree. Each is tried: it runs a command that ends at once, as `pidigree run` would. \
`auto` is the one that is taken if none is named. Emptiness is whether the end of a tree is told exactly; members, \
whether each process of it is seen.

JSON: objects with fact and value; then objects with question, grade (proven, best-effort, unavailable) and reason; then \
objects with tree (auto, cgroup, proc-connector, subreaper, kqueue, poll), works, backend (which it became), emptiness, members \
(exact, exact-since-attach, best-effort; null if it does not work) and reason.

Exit codes:
  0  every answer is to be had, proven or best effort
  1  an answer is unavailable here
  2  error: it could not be found out

Examples:
  $ pidigree doctor
  $ pidigree doctor --json | jq -r 'select(.grade != \"proven\") | .question'
  $ pidigree doctor --json | jq -r 'select(.tree and .works == false) | .reason'";

pub(crate) const COMPLETIONS: &str = "\
Exit codes:
  0  printed
  2  error

Examples:
  $ pidigree completions bash > ~/.local/share/bash-completion/completions/pidigree
  $ pidigree completions zsh > \"${fpath[1]}/_pidigree\"
  $ pidigree completions fish > ~/.config/fish/completions/pidigree.fish";

pub(crate) const MAN: &str = "\
Exit codes:
  0  printed, or written
  2  error: the folder cannot be written

Examples:
  $ pidigree man | man -l -
  $ pidigree man --out ~/.local/share/man/man1 && man pidigree-wait";
