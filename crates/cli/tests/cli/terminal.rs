//! `pidigree run` and `pidigree tree --follow` on a terminal of their own.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use crate::common::BINARY;
use nix::fcntl::OFlag;
use nix::pty::{Winsize, openpty};
use nix::sys::stat::Mode;
use pidigree::{Pid, Snapshot};
use pidigree_testkit::{DEADLINE, Family, eventually};

/// A command in a session of its own, on a terminal that the test types on; killed and reaped when dropped.
struct Terminal {
    child: Child,
    keys: std::fs::File,
    screen: Receiver<Vec<u8>>,
    /// What is on the screen and has not been looked for.
    unread: String,
}

impl Terminal {
    fn run(args: &[&str]) -> Terminal {
        pidigree_testkit::default_signals();
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a terminal");
        let name = nix::unistd::ttyname(&pty.slave).expect("its name").into_os_string();
        let name = CString::new(name.into_encoded_bytes()).expect("a path");
        let end = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned().expect("a descriptor");
        let mut command = Command::new(args[0]);
        command.args(&args[1..]).stdin(end(&pty.slave)).stdout(end(&pty.slave)).stderr(end(&pty.slave));
        // A terminal that shows no colours: neither does `CI`, which asks for them whatever the terminal is.
        command.env("PS1", "ready> ").env("TERM", "dumb").env("NO_COLOR", "1").env_remove("BASH_ENV");
        let hook = move || {
            nix::unistd::setsid()?;
            // The first terminal that the leader of a session opens is the session's.
            let fd = nix::fcntl::open(name.as_c_str(), OFlag::O_RDWR, Mode::empty())?;
            drop(fd);
            Ok(())
        };
        // SAFETY: setsid, open and close are async-signal-safe, and a C string needs no allocation to be one.
        unsafe { command.pre_exec(hook) };
        let child = command.spawn().expect("it runs");
        drop((pty.slave, command));
        let keys = std::fs::File::from(end(&pty.master));
        let mut from = std::fs::File::from(pty.master);
        let (to, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO when nobody has the other end any more.
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                if to.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { child, keys, screen, unread: String::new() }
    }

    fn type_(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until this is on the screen, behind what was looked for before.
    #[track_caller]
    fn see(&mut self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(at) = self.unread.find(text) {
                let rest = self.unread.split_off(at + text.len());
                return std::mem::replace(&mut self.unread, rest);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.unread.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text:?} is not on the screen: {:?}", self.unread),
            }
        }
    }

    /// Stops `cat`, or the `sh` that becomes it, a job of the shell that this runs. When the shell says so, cat may still take
    /// what is typed next, until it has noticed.
    fn stop_cat(&mut self) {
        self.type_(CTRL_Z);
        self.see("Stopped");
        let shell = Pid::try_from(self.child.id()).expect("a PID");
        eventually("cat is stopped", || {
            let table = Snapshot::capture().expect("the process table");
            let mut below = table.descendants(shell).into_iter();
            let stat = |pid: Pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let is_stopped = |stat: &str| ["(cat) T", "(sh) T"].iter().any(|stopped| stat.contains(stopped));
            below.any(|entry| is_stopped(&stat(entry.pid))).then_some(())
        });
    }

    fn status(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The end of the leader ends those in the foreground.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";

#[test]
fn an_interrupt_reaches_the_command_once() {
    // A second SIGINT would come before the SIGUSR1, which pidigree passes on after it.
    let script = "n=0; trap 'n=$((n+1)); echo got $n' INT; trap 'kill $!; exit $((40+n))' USR1; \
                  sleep 1000 & echo begun; while :; do wait; done";
    let mut terminal = Terminal::run(&[BINARY, "run", "-q", "--", "bash", "-c", script]);
    terminal.see("begun");
    terminal.type_(CTRL_C);
    terminal.see("got 1");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(terminal.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGUSR1).expect("our own child");
    assert_eq!(terminal.status().code(), Some(41));
}

/// A shell that has forked when this is said: at that moment some shells lose a signal.
const COMMAND: &str = "sh -c 'echo begun; exec sleep 1000'; :";

#[test]
fn an_interrupt_that_ends_the_command_ends_pidigree_in_the_same_way() {
    use std::os::unix::process::ExitStatusExt;
    let mut terminal = Terminal::run(&[BINARY, "run", "--", "sh", "-c", COMMAND]);
    terminal.see("begun");
    terminal.type_(CTRL_C);
    terminal.see("pidigree: signal 2 (SIGINT) after ");
    assert_eq!(terminal.status().signal(), Some(2));
}

#[test]
fn a_job_is_stopped_and_goes_on() {
    let mut terminal = Terminal::run(&["bash", "--norc", "--noprofile", "-i"]);
    terminal.see("ready> ");
    terminal.type_(&format!("{BINARY} run -- sh -c 'echo beg\"\"un; exec cat'\n"));
    terminal.see("begun\r\n");
    terminal.type_("one\n");
    // The echo, and what cat writes.
    terminal.see("one\r\n");
    terminal.see("one\r\n");
    terminal.stop_cat();
    terminal.see("ready> ");
    terminal.type_("fg\n");
    terminal.see("exec cat'\r\n");
    terminal.type_("two\n");
    terminal.see("two\r\n");
    terminal.see("two\r\n");
    terminal.type_(CTRL_D);
    terminal.see("pidigree: exit code 0 after ");
    terminal.see("ready> ");
    terminal.type_("exit 4\n");
    assert_eq!(terminal.status().code(), Some(4));
}

#[test]
fn an_interactive_shell_runs_in_it_and_gives_the_terminal_back() {
    // Only Linux has subreapers
    let backends = if cfg!(target_os = "linux") { &["auto", "subreaper"][..] } else { &["auto"] };
    for backend in backends {
        let mut terminal = Terminal::run(&["bash", "--norc", "--noprofile", "-i"]);
        terminal.see("ready> ");
        let inner = format!("PS1='inner> ' {BINARY} run -b {backend} -- bash --norc --noprofile -i\n");
        terminal.type_(&inner);
        terminal.see("\ninner> ");
        terminal.type_("sh -c 'echo beg\"\"un; exec cat'\n");
        terminal.see("begun\r\n");
        terminal.stop_cat();
        terminal.see("inner> ");
        terminal.type_("fg\n");
        terminal.see("exec cat'\r\n");
        // What cat writes, twice with the echo: it has the terminal.
        terminal.type_("one\n");
        terminal.see("one\r\n");
        terminal.see("one\r\n");
        terminal.type_(CTRL_C);
        terminal.see("inner> ");
        terminal.type_("exit 5\n");
        terminal.see("pidigree: exit code 5 after ");
        terminal.see("ready> ");
        terminal.type_("echo code $?\n");
        terminal.see("code 5\r\n");
        terminal.see("ready> ");
        terminal.type_("exit\n");
        assert_eq!(terminal.status().code(), Some(0));
    }
}

#[test]
fn what_outlives_the_command_can_be_left_with_two_interrupts() {
    // A shell that is not interactive starts it deaf to interrupts.
    let mut terminal = Terminal::run(&[BINARY, "run", "--", "sh", "-c", "sleep 1000 & echo begun; exit 3"]);
    terminal.see("begun");
    // Only in this stage is it drawn.
    let told = terminal.see("waiting for 1 that outlived the command");
    assert!(!told.contains("exit code"), "{told}");
    terminal.type_(CTRL_C);
    terminal.see("pidigree: still running: ");
    let pid = terminal.see(";");
    terminal.type_(CTRL_C);
    terminal.see("1 left running");
    assert_eq!(terminal.status().code(), Some(3));
    let pid: pidigree::Pid = pid.trim_end_matches(';').parse().expect("a PID");
    let left = pidigree::Process::open(pid).expect("it was left running");
    left.signal(pidigree::Signal::KILL).expect("our own");
}

#[test]
fn a_tree_is_drawn_again_when_it_changes() {
    let family = Family::spawn("say root await fork [ say kid await ] await exit 3");
    let root = family.fact("root").pid;
    let mut terminal = Terminal::run(&[BINARY, "tree", "--follow", &root.to_string()]);
    terminal.see("COMMAND");
    terminal.see(&root.to_string());
    family.poke(root);
    let kid = family.fact("kid").pid;
    terminal.see(&format!("{kid} "));
    terminal.see("└─ ");
    family.poke(kid);
    family.wait_ended(kid);
    family.poke(root);
    terminal.see(&format!("{root} tree empty: root "));
    assert_eq!(terminal.status().code(), Some(0));
}
