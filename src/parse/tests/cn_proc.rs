use proptest::prelude::*;

use crate::parse::check;
use crate::parse::cn_proc::{self, ANSWER, EXEC, EXIT, Event, FORK, What};
use crate::pid::Pid;

/// As the kernel lays it out: `struct nlmsghdr`, `struct cn_msg`, `struct proc_event` with six words of data.
fn message(kind: u32, cpu: u32, at: u64, sequence: u32, answer: u32, data: [u32; 6]) -> Vec<u8> {
    let mut message = Vec::new();
    for word in [76, 3, 0, 0, 1, 1, sequence, answer, 40, kind, cpu] {
        message.extend(u32::to_ne_bytes(word));
    }
    message.extend(at.to_ne_bytes());
    data.iter().for_each(|word| message.extend(word.to_ne_bytes()));
    // The type and the flags, and the length and the flags, are halves.
    message[4..8].copy_from_slice(&[3_u16, 0].map(u16::to_ne_bytes).concat());
    message[32..36].copy_from_slice(&[40_u16, 0].map(u16::to_ne_bytes).concat());
    message
}

fn read(datagram: &[u8]) -> Option<Vec<Event>> {
    let mut events = Vec::new();
    cn_proc::events(datagram, |event| events.push(event)).map(|()| events)
}

fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let kind = prop_oneof![Just(FORK), Just(EXEC), Just(EXIT), Just(ANSWER), Just(0x200), any::<u32>()];
    let data = prop::array::uniform6(prop_oneof![0..5_u32, any::<u32>()]);
    let one = (kind, any::<u32>(), any::<u64>(), any::<u32>(), any::<u32>(), data)
        .prop_map(|(kind, cpu, at, sequence, answer, data)| message(kind, cpu, at, sequence, answer, data));
    prop::collection::vec(one, 0..4)
}

#[test]
fn each_kind_of_event_is_read_from_its_place() {
    let data = [11, 12, 13, 14, 15, 16];
    let what = |kind| {
        let events = read(&message(kind, 5, 1 << 40, 7, 9, data)).unwrap();
        assert_eq!((events.len(), events[0].cpu, events[0].at, events[0].sequence), (1, 5, 1 << 40, 7));
        events[0].what
    };
    let pid = Pid::new;
    assert_eq!(what(FORK), What::Forked { parent: pid(12), thread: pid(13), child: pid(14) });
    assert_eq!(what(EXEC), What::Executed { pid: pid(12) });
    assert_eq!(what(EXIT), What::Ended { pid: pid(12), status: 13 });
    assert_eq!(what(ANSWER), What::Answer { to: 9, errno: 11 });
    assert_eq!(what(0x200), What::Changed);
}

#[test]
fn other_connectors_messages_have_no_event() {
    let mut other = message(FORK, 0, 0, 0, 0, [1; 6]);
    other[20] ^= 2;
    assert_eq!(read(&other), Some(vec![]));
}

proptest! {
    #[test]
    fn a_message_that_is_cut_is_refused(messages in messages()) {
        let whole = messages.concat();
        prop_assert_eq!(read(&whole).map(|events| events.len()), Some(messages.len()));
        for cut in 0..whole.len() {
            let read = read(&whole[..cut]).map(|events| events.len());
            prop_assert_eq!(read, (cut % 76 == 0).then_some(cut / 76));
        }
    }

    #[test]
    fn any_input_keeps_the_promises(
        messages in messages(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = messages.concat();
        for (index, byte) in changes {
            if !bytes.is_empty() {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
        }
        check::cn_proc(&bytes);
    }
}

#[test]
fn a_request_is_a_message_of_the_connector() {
    let request = cn_proc::request(2, 0x1234);
    let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
    let half = |at: usize| u16::from_ne_bytes(request[at..at + 2].try_into().unwrap());
    assert_eq!((word(0), half(4), half(6), word(8), word(12)), (40, 3, 0, 0, 0));
    assert_eq!((word(16), word(20), word(24), word(28), half(32), half(34)), (1, 1, 0, 0x1234, 4, 0));
    assert_eq!(word(36), 2);
}
