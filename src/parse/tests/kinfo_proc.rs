use proptest::prelude::*;

use crate::parse::check;
use crate::parse::kinfo_proc::{self, KinfoProc};

/// What is read of an entry: the name in sys/proc.h, sys/sysctl.h or sys/ucred.h, where it stands, and how wide it is.
const FIELDS: [(&str, usize, usize); 10] = [
    ("tv_sec", 0, 8),
    ("tv_usec", 8, 4),
    ("p_flag", 32, 4),
    ("p_stat", 36, 1),
    ("p_pid", 40, 4),
    ("p_oppid", 44, 4),
    ("p_comm", 243, 17),
    ("cr_uid", 420, 4),
    ("e_ppid", 560, 4),
    ("e_pgid", 564, 4),
];
const SIZE: usize = 648;

const SRUN: u8 = 2;
const SZOMB: u8 = 5;
const P_LP64: i32 = 4;
const P_TRACED: i32 = 0x800;
const P_WEXIT: i32 = 0x2000;

/// An entry, field by field. What is no field of ours is noise.
#[derive(Clone)]
struct Entry([u8; SIZE]);

impl Entry {
    fn new() -> Entry {
        Entry([0xa5; SIZE])
            .with("tv_sec", &1_763_758_800_i64.to_le_bytes())
            .with("tv_usec", &999_999_i32.to_le_bytes())
            .with("p_flag", &P_LP64.to_le_bytes())
            .with("p_stat", &[SRUN])
            .with("p_pid", &4242_i32.to_le_bytes())
            .with("p_oppid", &0_i32.to_le_bytes())
            .with("p_comm", b"launchd\0\0\0\0\0\0\0\0\0\0")
            .with("cr_uid", &501_u32.to_le_bytes())
            .with("e_ppid", &1_i32.to_le_bytes())
            .with("e_pgid", &4200_i32.to_le_bytes())
    }

    fn with(mut self, name: &str, bytes: &[u8]) -> Entry {
        let &(_, at, width) = FIELDS.iter().find(|(field, ..)| *field == name).unwrap();
        assert_eq!(bytes.len(), width, "{name}");
        self.0[at..at + width].copy_from_slice(bytes);
        self
    }

    fn flagged(self, flag: i32) -> Entry {
        self.with("p_flag", &flag.to_le_bytes())
    }

    fn read(&self) -> Option<KinfoProc> {
        check::kinfo_proc(&self.0);
        KinfoProc::parse(&self.0)
    }
}

fn process() -> impl Strategy<Value = KinfoProc> {
    let number = || prop_oneof![Just(0), Just(1), Just(-1), Just(i32::MAX), Just(i32::MIN), any::<i32>()];
    let start = prop_oneof![Just(0), Just(i64::MAX), 0..=i64::MAX];
    let micros = prop_oneof![Just(0), Just(999_999), 0..1_000_000];
    let state = prop_oneof![0..7_u8, any::<u8>()];
    ([number(), number(), number(), number(), number()], start, micros, state, any::<u32>()).prop_map(
        |([pid, ppid, original_ppid, flag, pgid], start, start_micros, state, uid)| KinfoProc {
            pid,
            ppid,
            original_ppid,
            start,
            start_micros,
            flag,
            state,
            pgid,
            uid,
        },
    )
}

fn entry(process: &KinfoProc) -> Entry {
    Entry::new()
        .with("tv_sec", &process.start.to_le_bytes())
        .with("tv_usec", &process.start_micros.to_le_bytes())
        .with("p_flag", &process.flag.to_le_bytes())
        .with("p_stat", &[process.state])
        .with("p_pid", &process.pid.to_le_bytes())
        .with("p_oppid", &process.original_ppid.to_le_bytes())
        .with("cr_uid", &process.uid.to_le_bytes())
        .with("e_ppid", &process.ppid.to_le_bytes())
        .with("e_pgid", &process.pgid.to_le_bytes())
}

fn table(processes: &[KinfoProc]) -> Vec<u8> {
    processes.iter().flat_map(|process| entry(process).0).collect()
}

#[test]
fn each_field_is_read_from_its_place() {
    let expected = KinfoProc {
        pid: 4242,
        ppid: 1,
        original_ppid: 0,
        start: 1_763_758_800,
        start_micros: 999_999,
        flag: P_LP64,
        state: SRUN,
        pgid: 4200,
        uid: 501,
    };
    assert_eq!(Entry::new().read(), Some(expected));
}

#[test]
fn nothing_but_the_fields_is_read() {
    let whole = Entry::new();
    for at in 0..SIZE {
        let mut other = whole.clone();
        other.0[at] ^= 1;
        let field = FIELDS.iter().find(|(_, from, width)| (*from..from + width).contains(&at));
        let read = (KinfoProc::parse(&other.0), kinfo_proc::name(&other.0));
        let same = read == (whole.read(), kinfo_proc::name(&whole.0));
        // Behind the first NUL of the name nothing is.
        let behind = (251..260).contains(&at);
        assert_eq!(same, field.is_none() || behind, "byte {at}, {field:?}");
    }
}

#[test]
fn a_pid_that_is_nobodys_is_no_process_and_an_empty_table_is_one() {
    assert_eq!(KinfoProc::parse(&[]), None);
    assert_eq!(kinfo_proc::all(&[]), Some(vec![]));
}

#[test]
fn a_time_that_is_none_is_refused() {
    for micros in [-1, 1_000_000, i32::MIN, i32::MAX] {
        assert_eq!(Entry::new().with("tv_usec", &i32::to_le_bytes(micros)).read(), None, "{micros}");
    }
    for seconds in [-1, i64::MIN] {
        assert_eq!(Entry::new().with("tv_sec", &i64::to_le_bytes(seconds)).read(), None, "{seconds}");
    }
}

#[test]
fn who_is_exiting_has_ended_before_it_is_a_zombie() {
    let ended = |entry: Entry| entry.read().unwrap().has_ended();
    assert!(!ended(Entry::new()));
    assert!(!ended(Entry::new().flagged(!P_WEXIT)));
    assert!(ended(Entry::new().flagged(P_LP64 | P_WEXIT)));
    assert!(ended(Entry::new().with("p_stat", &[SZOMB])));
    assert!(ended(Entry::new().with("p_stat", &[SZOMB]).flagged(P_WEXIT)));
    for state in (0..=u8::MAX).filter(|&state| state != SZOMB) {
        assert!(!ended(Entry::new().with("p_stat", &[state])), "{state}");
    }
}

#[test]
fn a_tracer_is_no_parent() {
    let parent = |flag: i32, original: i32, ppid: i32| {
        let entry = Entry::new().flagged(flag).with("p_oppid", &original.to_le_bytes());
        let read = entry.with("e_ppid", &ppid.to_le_bytes()).read().unwrap();
        assert_eq!(read.is_traced(), flag & P_TRACED != 0);
        read.parent()
    };
    assert_eq!(parent(P_TRACED, 17, 99), 17);
    // Then the kernel does not say.
    assert_eq!(parent(P_TRACED, 0, 99), 99);
    assert_eq!(parent(P_TRACED, -1, 99), 99);
    // Untraced, it says nothing.
    assert_eq!(parent(0, 17, 1), 1);
    assert_eq!(parent(!P_TRACED, 17, 1), 1);
    assert_eq!(parent(0, 0, 0), 0);
}

#[test]
fn a_name_may_be_anything_and_ends_at_its_nul() {
    for (field, name) in [
        (*b"launchd\0\0\0\0\0\0\0\0\0\0", Some(&b"launchd"[..])),
        (*b"\0aaaaaaaaaaaaaaaa", Some(b"")),
        (*b"sixteen letters!\0", Some(b"sixteen letters!")),
        (*b"a) R 1 (\n\xff\0garble", Some(b"a) R 1 (\n\xff")),
        (*b"seventeen letters", None),
    ] {
        let entry = Entry::new().with("p_comm", &field);
        check::kinfo_proc(&entry.0);
        assert_eq!(kinfo_proc::name(&entry.0), name, "{}", field.escape_ascii());
        assert_eq!(kinfo_proc::name(&entry.0[..SIZE - 1]), None);
    }
}

proptest! {
    #[test]
    fn a_table_is_read_as_it_was_written(processes in prop::collection::vec(process(), 0..5)) {
        prop_assert_eq!(kinfo_proc::all(&table(&processes)), Some(processes));
    }

    #[test]
    fn a_table_cut_within_an_entry_is_refused(
        processes in prop::collection::vec(process(), 1..4),
        cut: prop::sample::Index,
    ) {
        let whole = table(&processes);
        for cut in [cut.index(whole.len()), whole.len() - 1, whole.len() - SIZE] {
            let expected = (cut % SIZE == 0).then(|| processes[..cut / SIZE].to_vec());
            prop_assert_eq!(kinfo_proc::all(&whole[..cut]), expected);
        }
    }

    /// Left out, it would be taken for ended.
    #[test]
    fn a_table_with_an_entry_that_is_none_is_refused(
        processes in prop::collection::vec(process(), 1..4),
        which: prop::sample::Index,
        micros in prop_oneof![i32::MIN..0, 1_000_000..=i32::MAX],
    ) {
        let mut processes = processes;
        let which = which.index(processes.len());
        processes[which].start_micros = micros;
        prop_assert_eq!(kinfo_proc::all(&table(&processes)), None);
        check::kinfo_proc(&table(&processes));
    }

    #[test]
    fn only_one_whole_entry_is_an_entry(process in process(), length in 0..2 * SIZE) {
        let bytes = table(&[process, process]);
        prop_assert_eq!(KinfoProc::parse(&bytes[..length]), (length == SIZE).then_some(process));
    }

    #[test]
    fn any_input_keeps_the_promises(
        processes in prop::collection::vec(process(), 0..3),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        more in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut bytes = table(&processes);
        for (index, byte) in changes {
            if !bytes.is_empty() {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
        }
        check::kinfo_proc(&bytes);
        bytes.extend(more);
        check::kinfo_proc(&bytes);
    }
}
