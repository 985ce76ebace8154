//! The parsers on every process that runs here, against the `procfs` crate on the very same bytes.

use std::fs;
use std::process::{Command, Stdio};

use procfs_core::process::{MountInfos, Status};
use procfs_core::{ExplicitSystemInfo, FromRead, FromReadSI, KernelStats};

use crate::parse::tests::{dirent, proc_stat as expected};
use crate::parse::{cgroup, check, children, keyed, proc_stat, timens_offsets, uuid};

/// Every process and its threads: a PID, and the files of this name that could be read.
fn all(file: &str) -> Vec<(u32, Vec<u8>)> {
    let Ok(listing) = fs::read_dir("/proc") else {
        eprintln!("skipped: there is no /proc here");
        return Vec::new();
    };
    let pids = listing.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let found: Vec<(u32, Vec<u8>)> = pids
        .flat_map(|pid| {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
            threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        })
        // It may end under us: then there is nothing to read, or nothing left in it.
        .filter_map(|tid| Some((tid, fs::read(format!("/proc/{tid}/{file}")).ok()?)))
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect();
    if fs::exists("/proc/self/stat").unwrap_or(false) {
        assert!(!found.is_empty(), "no process in /proc, not even this one");
    }
    found
}

#[test]
fn stat_of_every_thread_is_read_as_procfs_reads_it() {
    for (tid, line) in all("stat") {
        let stat = proc_stat::parse(&line).unwrap_or_else(|| panic!("{}", line.escape_ascii()));
        let code = proc_stat::exit_code(&line).unwrap_or_else(|| panic!("{}", line.escape_ascii()));
        assert_eq!((stat, code), expected::by_procfs(&line));
        assert_eq!(stat.pid, tid);
        assert_eq!(proc_stat::flags(&line), Some(expected::flags_by_procfs(&line)));
        check::proc_stat(&line);
    }
}

#[test]
fn stat_of_ourselves_says_who_we_are() {
    let Ok(line) = fs::read("/proc/self/stat") else {
        eprintln!("skipped: there is no /proc here");
        return;
    };
    let stat = proc_stat::parse(&line).unwrap();
    assert_eq!(stat.pid, std::process::id());
    assert_eq!(stat.ppid, std::os::unix::process::parent_id());
    assert!(!stat.is_thread() && !stat.is_zombie() && !stat.is_reaped());
    let thread = proc_stat::parse(&fs::read("/proc/thread-self/stat").unwrap()).unwrap();
    assert!(thread.is_thread(), "tests run in threads");
}

#[test]
fn stat_of_a_zombie_tells_its_exit_code() {
    if !fs::exists("/proc/self/stat").unwrap_or(false) {
        eprintln!("skipped: there is no /proc here");
        return;
    }
    let mut child = Command::new("sh").args(["-c", "exit 3"]).stdout(Stdio::piped()).spawn().unwrap();
    // Its end is seen when the pipe has no writer any more; the state follows within the same exit.
    std::io::copy(child.stdout.as_mut().unwrap(), &mut std::io::sink()).unwrap();
    let path = format!("/proc/{}/stat", child.id());
    let line = loop {
        let line = fs::read(&path).unwrap();
        if proc_stat::parse(&line).unwrap().is_zombie() {
            break line;
        }
        std::thread::yield_now();
    };
    assert_eq!(proc_stat::exit_code(&line), Some(3 << 8));
    child.wait().unwrap();
}

#[test]
fn status_of_every_thread_is_read_as_procfs_reads_it() {
    let mut compared = 0;
    let all = all("status");
    for (tid, text) in &all {
        check::keyed(text);
        assert_eq!(keyed::number(text, "Pid:"), Some(i64::from(*tid)));
        // It trips over some names.
        let Ok(status) = Status::from_read(&text[..]) else {
            continue;
        };
        compared += 1;
        for (key, value) in [("Tgid:", status.tgid), ("Pid:", status.pid), ("PPid:", status.ppid)] {
            assert_eq!(keyed::number(text, key), Some(i64::from(value)), "{key} of {tid}");
        }
    }
    assert!(compared >= all.len() / 2, "{compared} of {}", all.len());
}

#[test]
fn the_fork_counter_is_read_as_procfs_reads_it() {
    let Ok(text) = fs::read("/proc/stat") else {
        eprintln!("skipped: there is no /proc here");
        return;
    };
    let system = ExplicitSystemInfo {
        boot_time_secs: 0,
        ticks_per_second: 100,
        page_size: 4096,
        is_little_endian: cfg!(target_endian = "little"),
    };
    let stats = KernelStats::from_read(&text[..], &system).unwrap();
    assert_eq!(keyed::number(&text, "processes"), i64::try_from(stats.processes).ok());
}

#[test]
fn a_listing_of_proc_gives_the_pids_that_std_lists() {
    let Ok(listing) = fs::read_dir("/proc") else {
        eprintln!("skipped: there is no /proc here");
        return;
    };
    let names: Vec<String> = listing.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let records: Vec<u8> = names.iter().flat_map(|name| dirent::record(1, 1, 4, name.as_bytes())).collect();
    let expected: Vec<(u32, u64)> = names.iter().filter_map(|name| Some((name.parse().ok()?, 1))).collect();
    assert_eq!(dirent::read(&records), Some(expected));
}

#[test]
fn the_list_of_children_names_a_child() {
    if !fs::exists("/proc/thread-self/children").unwrap_or(false) {
        eprintln!("skipped: this kernel has no lists of children");
        return;
    }
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let list = fs::read("/proc/thread-self/children").unwrap();
    let mut children = Vec::new();
    children::parse(&list, |pid| children.push(pid.get())).unwrap();
    assert_eq!(children, [child.id()], "{}", list.escape_ascii());
    check::children(&list);
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn the_boot_id_is_read() {
    let Ok(text) = fs::read("/proc/sys/kernel/random/boot_id") else {
        eprintln!("skipped: there is no boot_id here");
        return;
    };
    assert!(uuid::parse(&text).is_some(), "{}", text.escape_ascii());
}

#[test]
fn the_time_offset_is_read() {
    let Ok(text) = fs::read("/proc/self/timens_offsets") else {
        eprintln!("skipped: there are no time namespaces here");
        return;
    };
    assert!(timens_offsets::boottime(&text).is_some(), "{}", text.escape_ascii());
}

#[test]
fn the_mounts_of_cgroup2_are_read_as_procfs_reads_them() {
    let Ok(text) = fs::read("/proc/thread-self/mountinfo") else {
        eprintln!("skipped: there is no /proc here");
        return;
    };
    let infos = MountInfos::from_read(&text[..]).unwrap();
    let expected: Vec<cgroup::Mount> = infos
        .into_iter()
        .filter(|info| info.fs_type == "cgroup2")
        .map(|info| cgroup::Mount {
            root: info.root.into(),
            point: info.mount_point.into_os_string().into_encoded_bytes(),
        })
        .collect();
    assert_eq!(cgroup::mounts(&text), Some(expected));
    check::cgroup(&text);
    if let Ok(text) = fs::read("/proc/thread-self/cgroup") {
        check::cgroup(&text);
    }
}
