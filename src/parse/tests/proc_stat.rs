use procfs_core::FromRead;
use procfs_core::process::Stat;
use proptest::prelude::*;

use crate::parse::check;
use crate::parse::proc_stat::{ProcStat, exit_code, name, parse};

/// A line as the kernel prints it, and what it was made of.
#[derive(Clone)]
struct Line {
    stat: ProcStat,
    comm: Vec<u8>,
    exit_code: i32,
    bytes: Vec<u8>,
    /// Where field 38 ends.
    exit_signal_end: usize,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\" made of {:?}, exit code {}", self.bytes.escape_ascii(), self.stat, self.exit_code)
    }
}

/// Up to 15 bytes of anything (prctl takes them all) or, for a kernel thread, 63; often what a parser trips over.
fn comm() -> impl Strategy<Value = Vec<u8>> {
    let evil = prop_oneof![
        Just(b")".to_vec()),
        Just(b"(".to_vec()),
        Just(b") R 1 1 1 ".to_vec()),
        Just(b"a) R 1 (\n".to_vec()),
        Just(b" ".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\xff\xc3".to_vec()),
        any::<u8>().prop_filter("a name holds no NUL", |&byte| byte != 0).prop_map(|byte| vec![byte]),
    ];
    (prop::collection::vec(evil, 0..20), prop_oneof![Just(15), Just(63)]).prop_map(|(parts, length)| {
        let mut comm = parts.concat();
        comm.truncate(length);
        comm
    })
}

fn line() -> impl Strategy<Value = Line> {
    let pid = || prop_oneof![Just(0), 1..=i32::MAX as u32];
    let numbers =
        prop::collection::vec(prop_oneof![Just(0), any::<u32>().prop_map(u64::from), any::<u64>()], 50);
    let ours = (
        1..=i32::MAX as u32,
        prop::sample::select(&b"RSDTtZXIP"[..]),
        pid(),
        prop_oneof![9 => pid().prop_map(i64::from), 1 => Just(-1)],
        0..100_000_u32,
        any::<u64>(),
        prop_oneof![Just(17), Just(-1), Just(0), 1..65],
        prop_oneof![Just(0), 0..65536],
    );
    (ours, comm(), numbers).prop_map(|(ours, comm, numbers)| {
        let (pid, state, ppid, session, num_threads, starttime, exit_signal, code) = ours;
        let mut bytes = format!("{pid} (").into_bytes();
        bytes.extend(&comm);
        bytes.push(b')');
        let mut exit_signal_end = 0;
        for (field, number) in (3..=52).zip(numbers) {
            let text = match field {
                3 => char::from(state).to_string(),
                4 => ppid.to_string(),
                6 => session.to_string(),
                20 => num_threads.to_string(),
                22 => starttime.to_string(),
                38 => exit_signal.to_string(),
                52 => code.to_string(),
                // Those that the procfs crate holds in 32 bits, or signed.
                5 | 7..=9 | 39..=41 => (number as u32 >> 1).to_string(),
                16..=19 | 21 | 44 => (number as i64).to_string(),
                _ => number.to_string(),
            };
            bytes.push(b' ');
            bytes.extend(text.as_bytes());
            if field == 38 {
                exit_signal_end = bytes.len();
            }
        }
        bytes.push(b'\n');
        let session = u32::try_from(session).unwrap_or(0);
        let stat = ProcStat { pid, state, ppid, session, num_threads, starttime, exit_signal };
        Line { stat, comm, exit_code: code, bytes, exit_signal_end }
    })
}

/// What the procfs crate reads there.
pub(super) fn by_procfs(line: &[u8]) -> (ProcStat, i32) {
    let stat =
        Stat::from_read(line).unwrap_or_else(|error| panic!("procfs: {error}: {}", line.escape_ascii()));
    let read = ProcStat {
        pid: stat.pid as u32,
        state: u8::try_from(stat.state).unwrap(),
        ppid: stat.ppid as u32,
        session: u32::try_from(stat.session).unwrap_or(0),
        num_threads: stat.num_threads as u32,
        starttime: stat.starttime,
        exit_signal: stat.exit_signal.unwrap(),
    };
    (read, stat.exit_code.unwrap())
}

pub(super) fn flags_by_procfs(line: &[u8]) -> u32 {
    Stat::from_read(line).unwrap().flags
}

proptest! {
    #[test]
    fn what_was_printed_is_read_under_any_name(line in line()) {
        prop_assert_eq!(parse(&line.bytes), Some(line.stat));
        prop_assert_eq!(exit_code(&line.bytes), Some(line.exit_code));
        prop_assert_eq!(name(&line.bytes), Some(&line.comm[..]));
        check::proc_stat(&line.bytes);
    }

    #[test]
    fn the_procfs_crate_reads_the_same(line in line()) {
        prop_assert_eq!(by_procfs(&line.bytes), (line.stat, line.exit_code));
    }

    #[test]
    fn a_field_that_is_cut_is_never_read(line in line()) {
        for cut in 0..line.bytes.len() {
            let part = &line.bytes[..cut];
            // Behind the space that ends field 38, all is there.
            let expected = (cut > line.exit_signal_end).then_some(line.stat);
            prop_assert_eq!(parse(part), expected, "cut at {}", cut);
            prop_assert_eq!(exit_code(part), None, "cut at {}", cut);
        }
    }

    #[test]
    fn any_damage_keeps_the_promises(line in line(), at: prop::sample::Index, byte in prop_oneof![
        prop::sample::select(&b" )(\n-0"[..]),
        any::<u8>(),
    ], insert: bool) {
        let mut bytes = line.bytes;
        let at = at.index(bytes.len());
        if insert {
            bytes.insert(at, byte);
        } else {
            bytes[at] = byte;
        }
        check::proc_stat(&bytes);
    }

    #[test]
    fn any_bytes_keep_the_promises(bytes in prop::collection::vec(prop::sample::select(&b"() \n-0123456789RZ\xff"[..]), 0..300)) {
        check::proc_stat(&bytes);
    }
}

#[test]
fn every_end_of_a_process_is_told_apart() {
    let line = |state: char, threads: u32| {
        let rest = "0 0 0 0 0 0 0 0 0 0 0 0 0".to_owned() + &format!(" {threads} 0 5") + &" 0".repeat(15);
        parse(format!("9 (x) {state} 1 2 3 {rest} 17 0\n").as_bytes()).unwrap()
    };
    for (state, threads, zombie, reaped) in [
        ('R', 1, false, false),
        ('Z', 1, true, false),
        ('X', 1, true, false),
        // Trap 4: only the leader has ended.
        ('Z', 2, false, false),
        // Seen in a third of all reaps that are watched in a loop: nothing but the state is left.
        ('X', 0, false, true),
        ('R', 0, false, true),
    ] {
        let stat = line(state, threads);
        assert_eq!((stat.is_zombie(), stat.is_reaped()), (zombie, reaped), "{state} {threads}");
    }
}
