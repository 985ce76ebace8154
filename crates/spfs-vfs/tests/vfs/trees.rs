//! Acceptance: each tree sees its own files at the same path, whatever else happens on the machine.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use pidigree::{Pid, Process};
use pidigree_testkit::{binary, is_root, require, rounds};

use crate::common::{Place, Shell, again, words};

const FILE: &str = "deep/er/file";

/// What a reader does, in a process of its own: reads the file by way of `self`, again and again, its cwd in the view all the
/// while. Says `read NAME`, how often, how often wrong, and how often its cwd could not be told.
#[test]
fn reader() {
    let Some(words) = words() else { return };
    let [link, name, threads, times] = &words[..] else { panic!("{words:?}") };
    let number = |word: &Path| word.to_str().expect("a number").parse::<usize>().expect("a number");
    let (threads, times) = (number(threads), number(times));
    let wanted = contents(name.to_str().expect("a plain name"));
    let inside = link.join("deep");
    std::env::set_current_dir(&inside).expect("the view has it");
    let cwd = std::env::current_dir().expect("it was just entered");
    let identity = fs::metadata(".").expect("it is there");
    let path = link.join(FILE);
    println!("\nready {}", name.display());
    let (wrong, lost) = std::thread::scope(|scope| {
        let read = || {
            let (mut wrong, mut lost, mut text) = (0, 0, Vec::new());
            for time in 0..times / threads {
                text.clear();
                let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut text));
                wrong += usize::from(read.is_err() || text != wanted.as_bytes());
                if time % 16 == 0 {
                    lost += usize::from(std::env::current_dir().ok().as_ref() != Some(&cwd));
                    let now = fs::metadata(".").map(|now| (now.dev(), now.ino()));
                    lost += usize::from(now.ok() != Some((identity.dev(), identity.ino())));
                }
            }
            (wrong, lost)
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("a reader"))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    println!("\nread {} {} {wrong} {lost}", name.display(), times / threads * threads);
}

fn contents(name: &str) -> String {
    format!("this is the file of {name}\n").repeat(40)
}

fn reader_of(link: &Path, name: &str, threads: usize, times: usize) -> std::process::Command {
    let (threads, times) = (threads.to_string(), times.to_string());
    again("trees::reader", &[link.as_os_str(), name.as_ref(), threads.as_ref(), times.as_ref()])
}

/// The command as a line of sh(1), its environment included.
fn line(command: &std::process::Command) -> String {
    let quoted = |word: &OsStr| format!("'{}'", word.to_str().expect("plain words"));
    let environment =
        command.get_envs().filter_map(|(key, value)| Some(format!("{}={}", key.to_str()?, quoted(value?))));
    let words = [command.get_program()].into_iter().chain(command.get_args()).map(quoted);
    environment.chain(words).collect::<Vec<_>>().join(" ")
}

fn process(pid: &str) -> Process {
    Process::open(pid.parse::<Pid>().expect("a PID")).expect("it lives")
}

/// Every part ends with standard input, however the test ends: the inner shell with the pipe from the outer one.
const OUTER: &str = r#"
exec 3<&0 4>&1
{ read go <&3; echo go; read go <&3; eval "$2" </dev/null >&4; read end <&3; } |
  sh -c 'echo "inner $$" >&4; read go; (setsid sh -c "$1" </dev/null >&4 &); cat >/dev/null' sh "$1"
"#;

#[test]
fn each_tree_sees_its_own_files_while_strangers_come_and_go() {
    require!(is_root(), "needs root to mount");
    let place = Place::new();
    let names = ["outer", "inner", "threads"];
    let layers = names.map(|name| place.layer(name, &[(FILE, &contents(name))]));
    let link = place.link();
    let times = rounds(1_000_000) / 4;
    // One tree, another nested in it, and in that one a daemon whose parent has ended; and one of two threads
    let (daemon, of_outer) =
        (line(&reader_of(&link, "inner", 1, times)), line(&reader_of(&link, "outer", 1, times)));
    let mut outer = Shell::run(OUTER, &[daemon.as_ref(), of_outer.as_ref()]);
    let inner = process(&outer.hear_of("inner"));
    let mut threads = Shell::new();
    let ids = [
        place.add(&outer.process(), &layers[0]),
        place.add(&inner, &layers[1]),
        place.add(&threads.process(), &layers[2]),
    ];
    outer.say("go");
    outer.hear_of("ready inner");
    outer.say("go");
    outer.hear_of("ready outer");
    threads.say(&line(&reader_of(&link, "threads", 2, 2 * times)));
    threads.hear_of("ready threads");

    let mut strangers = Command::new(binary());
    let strangers = strangers.args(["storm", "10000"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut strangers = strangers.spawn().unwrap();
    let lifeline = strangers.stdin.take();
    assert!(strangers.wait().unwrap().success());
    drop(lifeline);

    // The two end in either order
    let mut results = [outer.hear_of("read"), outer.hear_of("read"), threads.hear_of("read")];
    results.sort();
    let result = |name, times| format!("{name} {times} 0 0");
    let wanted = [result("inner", times), result("outer", times), result("threads", 2 * times)];
    assert_eq!(results, wanted, "of whom, reads, wrong ones, and lost directories");

    // Whoever has no route finds nothing, and the end of each tree is told once
    assert_eq!(fs::read_link(&link).unwrap().to_str(), Some("views/default"));
    assert_eq!(fs::read_dir(&link).unwrap().count(), 0);
    threads.end();
    assert_eq!(place.emptied().id, ids[2]);
    // The outer shell waits for the inner one, and ends with it
    outer.end();
    let mut ended = [place.emptied().id, place.emptied().id];
    ended.sort();
    assert_eq!(ended, ids[..2]);
    assert!(place.views.list().is_empty());
}
