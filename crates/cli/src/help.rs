//! What `--help` and the manual pages teach below the options.

pub(crate) const ABOUT: &str = "\
Process trees, verified ancestry, and race-free wait and kill.

A PID is only a number: when its process has ended, another may get it. pidigree pins the process that has the PID when \
it starts, and every answer and every signal is about that process. Where a process must be recognised later, by another \
command or after a reboot, name it by its token: `pidigree id PID` prints it, and every command takes it in place of a \
PID.";

pub(crate) const PIDIGREE: &str = "\
Exit codes of every command:
  0    done; the answer is yes
  1    the answer is no
  2    error: nothing was answered, and one line on standard error says why
  3    unknown: it can be neither proven nor disproven (alive)
  124  the time was up (wait, kill --wait)
  141  whoever read the output has left, as with `| head`

Text is for people and may change; --json is for programs: one object a line, and fields are only ever added.
Colours appear on a terminal only, and never where NO_COLOR is set.

Examples:
  $ pidigree tree                       every process, as a tree
  $ token=$(pidigree id $!)             which process this is, for good
  $ pidigree alive \"$token\"             does it still run?
  $ pidigree wait --timeout 10s \"$token\"
  $ pidigree kill --wait \"$token\"";

pub(crate) const TREE: &str = "\
The root can be any process. Without one, every process that has no visible parent is a root; kernel threads are then \
left out and counted below. On a terminal, lines are cut to its width; `pidigree tree | less -S` shows them whole.

User, age and command are read while the process is pinned; one that ended meanwhile is left \
out, or shown as (ended) if others hang on it.

JSON: pid, parent, depth, state (running, zombie, gone, unknown), user, uid, age_seconds, kernel, command, token; null \
where it cannot be known.

Exit codes:
  0  drawn
  2  error: no such process, or none can be seen

Examples:
  $ pidigree tree
  $ pidigree tree $$                    this shell and what it started
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

JSON: event (ended, or gone if it had before), pid, token, status (exited, killed, unknown), code, signal, signal_name; \
null where it does not apply.

Exit codes:
  0    all have ended; with --any, one has
  2    error: no such process; nothing was waited for
  124  the time was up before

Examples:
  $ pidigree wait 4242
  $ pidigree wait --timeout 1m30s \"$token\" || echo \"still there\"
  $ pidigree wait --any 4242 4243
  $ pidigree wait --json 4242 | jq .code";

pub(crate) const WATCH: &str = "\
Like wait, for people who look on and for logs: it names each process when it begins, and tells when each one ended and \
how long it had run. Ends when all have ended, or with Ctrl-C.

JSON: at (UTC), event (watching, ended, or gone if it had before), pid, token, command, age_seconds, and status, code, \
signal and signal_name as `pidigree wait --json`; null where it does not apply.

Exit codes:
  0    all have ended
  2    error: no such process; nothing was watched
  130  as a shell shows Ctrl-C

Examples:
  $ pidigree watch 4242 4243
  $ pidigree watch --json $(pgrep make) >> ends.jsonl";

pub(crate) const KILL: &str = "\
Each process is pinned and then signalled: a token whose process has ended is never a signal to whoever has its PID now. \
A failure does not keep the others from being signalled. PID 1 and this command itself are refused, and so are kernel \
threads, which take no signals.

With --wait, it then waits for those that were signalled, and prints each end as `pidigree wait` does. It never escalates \
by itself: see the last example.

Where several exit codes apply, 2 goes before 124, and 124 before 1.

Exit codes:
  0    all were signalled; with --wait, all have ended
  1    one had ended before, and nobody was signalled in its place
  2    error: one could not be signalled, or a PID does not exist
  124  with --wait --timeout: the time was up before

Examples:
  $ pidigree kill 4242
  $ pidigree kill -s HUP \"$(cat daemon.token)\"
  $ pidigree kill --wait --timeout 10s \"$token\" || pidigree kill -s KILL --wait \"$token\"";

pub(crate) const DOCTOR: &str = "\
For each question that pidigree answers: whether the answer is proven here, only best effort, or unavailable, and what it \
rests on. Run it where your program runs: containers and sandboxes differ from the machine around them.

JSON: objects with fact and value; then objects with question, grade (proven, best-effort, unavailable) and reason.

Exit codes:
  0  every answer is to be had, proven or best effort
  1  an answer is unavailable here
  2  error: it could not be found out

Examples:
  $ pidigree doctor
  $ pidigree doctor --json | jq -r 'select(.grade != \"proven\") | .question'";

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
