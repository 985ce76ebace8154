//! What `--help` teaches below the options.

pub(super) const ABOUT: &str = "\
One mount, and a view of its own for every process tree.

A service mounts at a folder. Each process tree that is made known to it sees its own stack of read-only folders through \
the link `self` in there, at the same path for all. A tree is a process and all that it starts, orphans and daemons \
included; when the last of them has ended, its view goes by itself.";

pub(super) const SPFS_FUSE: &str = "\
Exit codes of every command:
  0    done; the answer is yes
  1    the answer is no: there was no view to take away (unmount), or it does not serve yet (status)
  2    error: wrong input, or something failed; one line on standard error says what
  3    no service answers at the socket
  4    taken: by another service (serve), or the process has a view (mount)
  5    the process has ended
  6    refused: the service is another user's, or only root may do that
  7    somebody else has unmounted it (serve)
  101  a panic; it has unmounted first (serve)
  141  whoever read the output has left, as with `| head`
A service that was ended by a signal has unmounted first, and then dies of it: 143 of SIGTERM, 130 of SIGINT.

A service talks to root and to its own user only. Processes are named by PID or by token (`pidigree id PID`): a PID is \
whoever has it when the command begins; a token is one process for good.

Text is for people and may change; --json is for programs: one object a line, and fields are only ever added. Bytes of \
paths that are no UTF-8 are shown as U+FFFD. Colours appear on a terminal only, and never where NO_COLOR is set.

Examples:
  $ mkdir /tmp/mnt && spfs-fuse serve /tmp/mnt
  $ spfs-fuse mount --root $$ /opt/overrides /opt/base
  $ ls /tmp/mnt/self/                   this shell, and what it starts, see both
  $ spfs-fuse list --members
  $ spfs-fuse stop";

pub(super) const SERVE: &str = "\
Returns when the mount answers; the service goes on in the background, in a session of its own. With --foreground it is \
this process, which prints a line with `ready` and logs to standard error. RUST_LOG says what is logged (info).

A socket and a mount that a killed service has left behind are replaced. Views are not remembered: each has to be mounted \
again. SIGTERM, SIGINT, SIGHUP and SIGQUIT unmount and end it, as does `spfs-fuse stop`.

It takes root to mount.

JSON: mountpoint, socket, pid, token; when it is ready.

Exit codes:
  0  ready (background); stopped (--foreground)
  2  error: the folder is not there, is none, or is not empty; no right to mount; the log cannot be opened
  4  another service has the socket or the folder: the line says which
  7  somebody else has unmounted it (--foreground)

Examples:
  $ spfs-fuse serve /spfs --log /var/log/spfs-fuse.log
  $ RUST_LOG=debug spfs-fuse serve --foreground --socket /tmp/s.sock /tmp/mnt";

pub(super) const MOUNT: &str = "\
From now on, `self` leads the process and all that it starts to these layers. If it is in the tree of another view, it \
leaves that for this one: the nearest root counts. What it has started before belongs to it as well.

Layers are read-only folders, the upper first. Whiteouts are those of OCI images: `.wh.NAME` hides NAME in the layers \
below, `.wh..wh..opq` all of them. The view is its owner's, and nobody else (but root) can enter it.

JSON: id, root (a token), layers, uid, gid.

Exit codes:
  0  mounted
  2  error: a layer is no folder; the process is none that can have a view
  3  no service
  4  the process has a view: unmount that first
  5  the process has ended
  6  only root may name another owner

Examples:
  $ spfs-fuse mount --root $$ /opt/overrides /opt/base
  $ spfs-fuse mount --root \"$(pidigree id 4242)\" --owner 1000 /opt/base";

pub(super) const UNMOUNT: &str = "\
The process, and what it has started, see what they would without this view: that of the next outer tree, or an empty \
default. Files that are open in it cannot be read any more.

JSON: unmounted (true or false), view (as `mount` prints it, or null).

Exit codes:
  0  it had a view, which is gone
  1  it had none of its own
  5  there is no process of that PID; name it by its token

Examples:
  $ spfs-fuse unmount --root $$";

pub(super) const STATUS: &str = "\
JSON: serving, mountpoint, socket, pid, token, version, uptime_seconds, views, descriptors, descriptor_limit; null where \
it cannot be known.

Exit codes:
  0  it serves
  1  it does not, yet or any more
  3  no service

Examples:
  $ spfs-fuse status
  $ pidigree wait \"$(spfs-fuse status --json | jq -r .token)\"";

pub(super) const LIST: &str = "\
The oldest first: the number, which is its folder's in `views`, the root of the tree, the owner, how many processes are \
in the tree, and the layers, upper first.

JSON: id, root, layers, uid, gid, members (a number; missing if it cannot be told now), and member (tokens) with --members.

Exit codes:
  0  listed; there may be none
  3  no service

Examples:
  $ spfs-fuse list
  $ spfs-fuse list --members --json | jq -r '.member[]'";

pub(super) const STOP: &str = "\
When this returns, the mount is gone, the socket too, and the next service can start. What is open in the mount answers \
ENOTCONN from then on.

Exit codes:
  0  it has ended
  2  error: it has not ended in time
  3  no service

Examples:
  $ spfs-fuse stop";
