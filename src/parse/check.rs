//! What each parser promises on any input at all, as one function a parser that panics when the promise is broken.
//!
//! The fuzz targets and the tests call these. Each promise is held against a second, slower reading of the same input,
//! by other means: text instead of bytes, `str::parse` instead of `decimal`, 128 bits instead of checked arithmetic.

use crate::identity::{BootId, Identity, StartTime};
use crate::parse::kinfo_proc::{self, KinfoProc};
use crate::parse::unique_info::UniqueInfo;
use crate::parse::{cgroup, children, cn_proc, dirent, keyed, proc_stat, timens_offsets, token, uuid};
use crate::pid::Pid;

type Check = fn(&[u8]);

/// Every parser by its name, which is also that of its fuzz target and of its folder of seeds.
pub(crate) const ALL: [(&str, Check); 11] = [
    ("cgroup", cgroup),
    ("children", children),
    ("cn_proc", cn_proc),
    ("dirent", dirent),
    ("keyed", keyed),
    ("kinfo_proc", kinfo_proc),
    ("proc_stat", proc_stat),
    ("timens_offsets", timens_offsets),
    ("token", token),
    ("unique_info", unique_info),
    ("uuid", uuid),
];

/// Which one, by its name.
#[cfg(fuzzing)]
pub(crate) fn of(parser: &str) -> Check {
    let found = ALL.iter().find(|(name, _)| *name == parser);
    found.unwrap_or_else(|| panic!("there is no parser {parser}")).1
}

/// Is a canonical number: what the kernel would print for the value that it has.
fn number<T: std::str::FromStr + ToString>(text: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(text).ok()?;
    let value: T = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

/// A few places to cut at: all of them in a short input, and in a long one others for each length.
fn some_below(length: usize) -> impl Iterator<Item = usize> {
    let step = length / 16 + 1;
    (length % step..length).step_by(step)
}

/// Finds the line, the mounts, the rest of a path and the members that a reading as text finds, and never part of a name.
pub(crate) fn cgroup(input: &[u8]) {
    let shown = input.escape_ascii();
    // One character a byte.
    let text: String = input.iter().map(|&byte| char::from(byte)).collect();
    let bytes = |text: &str| -> Vec<u8> { text.chars().map(|letter| letter as u8).collect() };
    let whole: Vec<&str> = text.split_terminator('\n').filter(|_| text.ends_with('\n')).collect();
    let is_cut = !text.is_empty() && !text.ends_with('\n');

    let line = whole.iter().find(|line| line.starts_with("0::"));
    let own = line.map(|line| bytes(&line[3..])).filter(|path| path.first() == Some(&b'/'));
    assert_eq!(cgroup::own(input), own.as_deref(), "{shown}");

    let unescape = |field: &str| {
        let (first, others) = field.split_once('\\').map_or((field, None), |(a, b)| (a, Some(b)));
        let mut plain = first.to_owned();
        for part in others.into_iter().flat_map(|others| others.split('\\')) {
            let octal = part.get(..3).filter(|octal| octal.chars().all(|digit| digit.is_digit(8)))?;
            plain.push(char::from(u8::from_str_radix(octal, 8).ok()?));
            plain.push_str(&part[3..]);
        }
        Some(bytes(&plain))
    };
    let mount = |line: &&str| -> Option<Option<cgroup::Mount>> {
        let fields: Vec<&str> = line.split(' ').collect();
        let dash = 6 + fields.get(6..)?.iter().position(|field| *field == "-")?;
        if *fields.get(dash + 1)? != "cgroup2" {
            return Some(None);
        }
        Some(Some(cgroup::Mount { root: unescape(fields[3])?, point: unescape(fields[4])? }))
    };
    let mounts: Option<Vec<_>> = whole.iter().map(mount).collect();
    let mounts = mounts.filter(|_| !is_cut).map(|mounts| mounts.into_iter().flatten().collect());
    assert_eq!(cgroup::mounts(input), mounts, "{shown}");

    let mut read = Vec::new();
    let accepted = cgroup::procs(input, |pid| read.push(pid.get())).is_some();
    let numbers: Option<Vec<u32>> = whole
        .iter()
        .map(|line| number(line.as_bytes()).filter(|&number| number <= i32::MAX as u32))
        .collect();
    assert_eq!(accepted, !is_cut && numbers.is_some(), "{shown}");
    if accepted {
        assert!(read.iter().eq(numbers.iter().flatten().filter(|&&number| number != 0)), "{shown}");
    }

    // The input once more, as two paths.
    let (root, path) = text.split_once('\n').unwrap_or((&text, &text));
    let names = |path: &str| -> Vec<String> {
        path.split('/').skip(1).map(str::to_owned).filter(|name| !name.is_empty()).collect()
    };
    if let Some(rest) = cgroup::below(&bytes(root), &bytes(path)) {
        let rest: String = rest.iter().map(|&byte| char::from(byte)).collect();
        assert!(rest.is_empty() || rest.starts_with('/'), "{shown}");
        assert!(!names(&rest).contains(&"..".to_owned()), "{shown}");
        let joined = [names(root), names(&rest)].concat();
        assert!(!root.starts_with('/') || joined == names(path), "{shown}");
    } else if names(path).starts_with(&names(root)) && !path.contains("..") && !text.contains("//") {
        let absolute = [root, path].iter().all(|path| path.starts_with('/'));
        let plain = !root.ends_with('/') || root == "/";
        assert!(!(absolute && plain), "{shown}");
    }
}

/// Accepts exactly the lists that the kernel could have printed: what was read, printed anew, is the input.
pub(crate) fn children(list: &[u8]) {
    let mut read = Vec::new();
    let accepted = children::parse(list, |pid| read.push(pid)).is_some();

    let text = String::from_utf8_lossy(list);
    let words: Vec<&str> = text.split_terminator(' ').collect();
    let numbers: Option<Vec<u32>> = words
        .iter()
        .map(|word| number(word.as_bytes()).filter(|&number| number <= i32::MAX as u32))
        .collect();
    let whole = list.is_empty() || list.ends_with(b" ");
    assert_eq!(accepted, whole && numbers.is_some(), "{text:?}");
    if accepted {
        let printed: String = numbers.iter().flatten().map(|number| format!("{number} ")).collect();
        assert_eq!(printed.as_bytes(), list);
        let seen = numbers.iter().flatten().filter(|&&number| number != 0);
        assert!(seen.copied().eq(read.iter().map(|pid| pid.get())), "{text:?}");
    }
    // However it is cut, nothing is read that does not stand in the whole.
    for cut in some_below(list.len()) {
        let mut part = Vec::new();
        let _ = children::parse(&list[..cut], |pid| part.push(pid));
        assert!(read.starts_with(&part), "{text:?} cut at {cut}");
    }
}

/// Reads each word from its own place in each message, and nothing of a datagram from the first message on that is not
/// whole.
pub(crate) fn cn_proc(datagram: &[u8]) {
    use cn_proc::What;
    let mut read = Vec::new();
    let accepted = cn_proc::events(datagram, |event| read.push(event)).is_some();

    let (mut at, mut expected) = (0, Vec::new());
    let whole = loop {
        if at >= datagram.len() {
            break true;
        }
        let rest = &datagram[at..];
        let number = |at: usize, size: usize| -> Option<u64> {
            let mut bytes = [0; 8];
            let place = if cfg!(target_endian = "little") { 0 } else { 8 - size };
            bytes[place..place + size].copy_from_slice(rest.get(at..at + size)?);
            Some(u64::from_ne_bytes(bytes))
        };
        let Some(length) = number(0, 4).filter(|&length| 6 <= length && length <= rest.len() as u64) else {
            break false;
        };
        let said = number(32, 2).unwrap_or_default();
        at += (length as usize).next_multiple_of(4);
        if number(4, 2) != Some(3) {
            continue;
        }
        if length < 36 || length < 36 + said {
            break false;
        }
        if (number(16, 4), number(20, 4)) != (Some(1), Some(1)) {
            continue;
        }
        let word = |index: usize| number(52 + 4 * index, 4).unwrap_or_default() as u32;
        let pid = |index: usize| Pid::new(word(index));
        let (needed, what) = match number(36, 4).filter(|_| said >= 16) {
            None => break false,
            Some(0) => (20, What::Answer { to: number(28, 4).unwrap_or_default() as u32, errno: word(0) }),
            Some(1) => (32, What::Forked { parent: pid(1), thread: pid(2), child: pid(3) }),
            Some(2) => (24, What::Executed { pid: pid(1) }),
            Some(0x8000_0000) => (28, What::Ended { pid: pid(1), status: word(2) }),
            Some(_) => (16, What::Changed),
        };
        if said < needed {
            break false;
        }
        let (cpu, time, sequence) = (number(40, 4), number(44, 8), number(24, 4));
        expected.push((what, cpu, time, sequence));
    };
    let read = read
        .iter()
        .map(|event| (event.what, Some(event.cpu.into()), Some(event.at), Some(event.sequence.into())));
    assert_eq!(accepted, whole, "{datagram:?}");
    assert!(read.eq(expected), "{datagram:?}");
}

/// Comes to an end, stays within the buffer, and finds exactly the names that are PIDs.
pub(crate) fn dirent(buffer: &[u8]) {
    let mut read = Vec::new();
    let accepted = dirent::pids(buffer, |pid, inode| read.push((pid, inode))).is_some();

    let (mut at, mut expected) = (0, Vec::new());
    let whole = loop {
        if at == buffer.len() {
            break true;
        }
        let Some(header) = buffer.get(at..at + 19) else {
            break false;
        };
        let length = usize::from(u16::from_ne_bytes([header[16], header[17]]));
        let Some(record) = buffer.get(at..at + length).filter(|record| record.len() >= 20) else {
            break false;
        };
        let Ok(name) = std::ffi::CStr::from_bytes_until_nul(&record[19..]) else {
            break false;
        };
        let inode = u64::from_ne_bytes(*header.first_chunk().expect("it has 19 bytes"));
        expected.extend(number::<u32>(name.to_bytes()).and_then(Pid::new).map(|pid| (pid, inode)));
        at += length;
    };
    assert_eq!(accepted, whole);
    assert_eq!(read, expected);
}

/// Answers with the number on the first line that has the key, and with none if that line is not whole.
pub(crate) fn keyed(text: &[u8]) {
    // Any key may be asked for, that of the last line too.
    let last = text.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    let own = String::from_utf8_lossy(last);
    let own = own.split(['\t', ' ']).next().unwrap_or_default();
    for key in ["Tgid:", "Pid:", "processes", own] {
        let mut expected = None;
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.iter().position(|&byte| byte == b'\n');
            let line = &rest[..end.unwrap_or(rest.len())];
            let blank = |byte: &u8| matches!(byte, b'\t' | b' ');
            if let Some(first) = line.iter().position(blank).filter(|&first| &line[..first] == key.as_bytes())
            {
                let value = line[first..].iter().position(|byte| !blank(byte));
                expected =
                    value.filter(|_| end.is_some()).and_then(|value| number::<i64>(&line[first + value..]));
                break;
            }
            rest = end.map_or(&[], |end| &rest[end + 1..]);
        }
        let shown = text.escape_ascii();
        assert_eq!(keyed::number(text, key), expected, "{key} in {shown}");
    }
}

/// The bytes of a little-endian number from the last to the first, in 128 bits.
fn sum(bytes: &[u8]) -> i128 {
    bytes.iter().rev().fold(0, |sum, &byte| sum * 256 + i128::from(byte))
}

/// As [`sum`], where what is past half of the range is below zero.
fn signed_sum(bytes: &[u8]) -> i128 {
    let range = 1 << (8 * bytes.len());
    let sum = sum(bytes);
    if sum >= range / 2 { sum - range } else { sum }
}

/// Reads each field from its own bytes and no others, and nothing of a table that is not entries throughout.
pub(crate) fn kinfo_proc(input: &[u8]) {
    const SIZE: usize = 648;
    let expected = |entry: &[u8]| {
        let number = |from: usize, to: usize| signed_sum(entry.get(from..to).unwrap_or_default());
        let times = (0..=i64::MAX.into()).contains(&number(0, 8)) && (0..=999_999).contains(&number(8, 12));
        (entry.len() == SIZE && times).then(|| KinfoProc {
            pid: number(40, 44) as i32,
            ppid: number(560, 564) as i32,
            original_ppid: number(44, 48) as i32,
            start: number(0, 8) as i64,
            start_micros: number(8, 12) as i32,
            flag: number(32, 36) as i32,
            state: entry[36],
            pgid: number(564, 568) as i32,
            uid: sum(&entry[420..424]) as u32,
        })
    };
    let one = |entry: &[u8]| {
        let read = KinfoProc::parse(entry);
        assert_eq!(read, expected(entry), "{entry:?}");
        let name = entry.get(243..260).and_then(|name| std::ffi::CStr::from_bytes_until_nul(name).ok());
        let name = name.filter(|_| entry.len() == SIZE);
        assert_eq!(kinfo_proc::name(entry), name.map(|name| name.to_bytes()), "{entry:?}");
        if let Some(read) = read {
            // Bits 11 and 13 of the flags.
            let traced = entry[33] & 8 == 8;
            assert_eq!(read.is_traced(), traced, "{entry:?}");
            assert_eq!(read.has_ended(), entry[33] & 32 == 32 || entry[36] == 5, "{entry:?}");
            let original = traced && entry[44..48] != [0; 4] && entry[47] < 128;
            let parent = if original { &entry[44..48] } else { &entry[560..564] };
            assert_eq!(i128::from(read.parent()), signed_sum(parent), "{entry:?}");
        }
    };

    one(input);
    let (mut rest, mut entries) = (input, Some(Vec::new()));
    while !rest.is_empty() {
        let (entry, others) = rest.split_at(rest.len().min(SIZE));
        one(entry);
        entries = entries.zip(expected(entry)).map(|(entries, entry)| [entries, vec![entry]].concat());
        rest = others;
    }
    assert_eq!(kinfo_proc::all(input), entries, "{input:?}");
    // However long the input is, it is the bytes of one entry, too.
    let mut filled = [0; SIZE];
    filled.iter_mut().zip(input).for_each(|(byte, &from)| *byte = from);
    one(&filled);
}

/// Reads each field from its own place, whatever the name contains, and never a field that is cut.
pub(crate) fn proc_stat(line: &[u8]) {
    let shown = line.escape_ascii();
    let (stat, code) = (proc_stat::parse(line), proc_stat::exit_code(line));

    // Fields 3 and on, each with what ended it.
    let tail = line.iter().rposition(|&byte| byte == b')').map_or(&[][..], |at| &line[at + 1..]);
    let tail = tail.strip_prefix(b" ").unwrap_or_default();
    let fields: Vec<&[u8]> = tail
        .split_inclusive(|byte| b" \n".contains(byte))
        .filter_map(|field| field.strip_suffix(b" ").or(field.strip_suffix(b"\n")))
        .collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let expected = || {
        let head = line.split(|&byte| byte == b'(').next()?;
        Some(proc_stat::ProcStat {
            pid: number(head.strip_suffix(b" ")?)?,
            state: field(3).filter(|state| state.len() == 1)?[0],
            ppid: number(field(4)?)?,
            session: match number::<i64>(field(6)?)? {
                -1 => 0,
                session => u32::try_from(session).ok()?,
            },
            num_threads: number(field(20)?)?,
            starttime: number(field(22)?)?,
            exit_signal: number(field(38)?)?,
        })
    };
    assert_eq!(stat, expected(), "{shown}");
    assert_eq!(proc_stat::flags(line), field(9).and_then(number), "{shown}");
    assert_eq!(code, field(52).and_then(number::<i32>), "{shown}");

    if let Some(stat) = stat {
        // The same, under a name as bad as it can be (trap 13).
        let evil = [b"(a) R 1 1 1 (\n\xff)) ", tail].concat();
        let evil = [stat.pid.to_string().as_bytes(), b" ", &evil].concat();
        assert_eq!(proc_stat::parse(&evil), Some(stat), "{shown}");
        assert!(!(stat.is_zombie() && stat.is_reaped()));
    }
    // However it is cut behind the name, it says the same or nothing.
    for cut in some_below(tail.len()) {
        let cut = line.len() - tail.len() + cut;
        let part = proc_stat::parse(&line[..cut]);
        assert!(part.is_none() || part == stat, "{shown} cut at {cut}");
        let part = proc_stat::exit_code(&line[..cut]);
        assert!(part.is_none() || part == code, "{shown} cut at {cut}");
    }
}

/// Gives the offset that some whole line states, in range.
pub(crate) fn timens_offsets(text: &[u8]) {
    let shown = String::from_utf8_lossy(text);
    let whole = shown.rfind('\n').map_or("", |end| &shown[..end]);
    let expected = whole.split('\n').find_map(|line| {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let ["boottime" | "7", seconds, nanoseconds] = words[..] else {
            return None;
        };
        let seconds: i64 = number(seconds.as_bytes())?;
        let nanoseconds: u32 = number(nanoseconds.as_bytes()).filter(|&number| number < 1_000_000_000)?;
        let offset = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        i64::try_from(offset).ok()
    });
    assert_eq!(timens_offsets::boottime(text), expected, "{shown:?}");
}

/// One identity, one token: what is accepted is what is printed, and what is printed is accepted, every field of it.
pub(crate) fn token(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        match text.parse::<Identity>() {
            Ok(identity) => {
                assert_eq!(identity.to_string(), text);
                assert_same_fields(&text.parse().unwrap(), &identity);
                assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":@-".contains(&byte)));
                assert!(identity.start.is_some() || !identity.settled);
            }
            Err(error) => {
                let message = error.to_string();
                assert!(error.is_invalid(), "{message}");
                assert!(!message.contains(char::is_control), "{message:?}");
                let start: String = text.chars().take(120).collect();
                assert!(message.contains(&format!("{start:?}")), "{message}");
            }
        }
    }
    // The input again, as the fields of an identity: a byte of flags, and then each of them.
    let Some((&flags, rest)) = input.split_first() else {
        return;
    };
    let mut rest = rest.iter().copied().chain(std::iter::repeat(0));
    let mut take = || u64::from_le_bytes(std::array::from_fn(|_| rest.next().unwrap_or(0)));
    let mut field = |bit: u8| (flags & bit != 0).then(&mut take);
    let start = field(2).map(|ticks| StartTime { ticks, offset: field(4).unwrap_or(0) as i64 });
    let identity = Identity {
        pid: Pid::new(field(1).unwrap_or(1) as u32).unwrap_or_else(Pid::current),
        unique: field(8),
        settled: start.is_some() && flags & 16 != 0,
        start,
        pid_namespace: field(32),
        boot: field(64)
            .zip(field(64))
            .map(|(high, low)| BootId((u128::from(high) << 64 | u128::from(low)).to_be_bytes())),
    };
    let printed = identity.to_string();
    match token::parse(&printed) {
        Some(read) => assert_same_fields(&read, &identity),
        None => panic!("{printed} was printed, and is not accepted"),
    }
}

/// All of them, not only those that `==` compares.
pub(crate) fn assert_same_fields(a: &Identity, b: &Identity) {
    let fields = |identity: &Identity| {
        let Identity { pid, unique, start, settled, pid_namespace, boot } = *identity;
        (pid, unique, start, settled, pid_namespace, boot)
    };
    assert_eq!(fields(a), fields(b));
    assert_eq!(a, b);
}

/// Reads both numbers from their own bytes, of an answer that is whole.
pub(crate) fn unique_info(input: &[u8]) {
    let one = |answer: &[u8]| {
        let read = UniqueInfo::parse(answer);
        assert_eq!(read.is_some(), answer.len() == 56, "{answer:?}");
        if let Some(read) = read {
            assert_eq!(read.executable, answer[..16], "{answer:?}");
            assert_eq!(i128::from(read.unique), sum(&answer[16..24]), "{answer:?}");
            assert_eq!(i128::from(read.parent_unique), sum(&answer[24..32]), "{answer:?}");
        }
    };
    one(input);
    let mut filled = [0; 56];
    filled.iter_mut().zip(input).for_each(|(byte, &from)| *byte = from);
    one(&filled);
}

/// Accepts what a boot id is printed as, with or without what ends it, and nothing else.
pub(crate) fn uuid(input: &[u8]) {
    let text = input.strip_suffix(b"\n").unwrap_or(input);
    let shape = text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        });
    let read = uuid::parse(input);
    assert_eq!(read.is_some(), shape, "{:?}", String::from_utf8_lossy(input));
    if let Some(bytes) = read {
        assert_eq!(BootId(bytes).to_string().as_bytes(), text);
        let digits: Vec<u8> = text.iter().copied().filter(|&byte| byte != b'-').collect();
        assert_eq!(uuid::hex(&digits), Some(bytes));
        assert_eq!(uuid::hex(text), None);
    }

    // The other form is this one in upper case, with another end.
    let text = input.strip_suffix(b"\0").unwrap_or(input);
    let upper = !text.iter().any(|byte| byte.is_ascii_lowercase() || *byte == b'\n');
    let expected = uuid::parse(&text.to_ascii_lowercase()).filter(|_| upper);
    assert_eq!(uuid::boot_session(input), expected, "{:?}", String::from_utf8_lossy(input));
}
