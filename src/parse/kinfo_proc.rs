//! What XNU's `sysctl` fills a buffer with below `kern.proc`: `struct kinfo_proc` of a 64-bit caller, one behind the other
//! (traps 28 and 29). Both architectures are little-endian. The numbers are proven by `scripts/check-abi`.

use crate::parse::field;

pub(crate) const SIZE: usize = 648; // = sizeof(struct kinfo_proc)
const TV_SEC: usize = 0; // = offsetof(struct kinfo_proc, kp_proc.p_starttime.tv_sec)
const TV_USEC: usize = 8; // = offsetof(struct kinfo_proc, kp_proc.p_starttime.tv_usec)
const P_FLAG: usize = 32; // = offsetof(struct kinfo_proc, kp_proc.p_flag)
const P_STAT: usize = 36; // = offsetof(struct kinfo_proc, kp_proc.p_stat)
const P_PID: usize = 40; // = offsetof(struct kinfo_proc, kp_proc.p_pid)
const P_OPPID: usize = 44; // = offsetof(struct kinfo_proc, kp_proc.p_oppid)
const P_COMM: usize = 243; // = offsetof(struct kinfo_proc, kp_proc.p_comm)
const P_COMM_SIZE: usize = 17; // = sizeof(((struct kinfo_proc *)0)->kp_proc.p_comm)
const CR_UID: usize = 420; // = offsetof(struct kinfo_proc, kp_eproc.e_ucred.cr_uid)
const E_PPID: usize = 560; // = offsetof(struct kinfo_proc, kp_eproc.e_ppid)
const E_PGID: usize = 564; // = offsetof(struct kinfo_proc, kp_eproc.e_pgid)

const SZOMB: u8 = 5; // = SZOMB
const P_TRACED: i32 = 0x800; // = P_TRACED
const P_WEXIT: i32 = 0x2000; // = P_WEXIT

/// The fields that this crate decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KinfoProc {
    pub(crate) pid: i32,
    /// `e_ppid`: the tracer, if there is one. `parent` knows better.
    pub(crate) ppid: i32,
    /// `p_oppid`: who was the parent before it was traced, else 0.
    pub(crate) original_ppid: i32,
    /// By the wall clock at the fork, in seconds: to be compared for equality, never for order (trap 33).
    pub(crate) start: i64,
    pub(crate) start_micros: i32,
    pub(crate) flag: i32,
    pub(crate) state: u8,
    pub(crate) pgid: i32,
    /// The effective one.
    pub(crate) uid: u32,
}

impl KinfoProc {
    /// Reads one entry. `None` if it is anything but one: a PID that is nobody's is answered with none at all (trap 28).
    pub(crate) fn parse(bytes: &[u8]) -> Option<KinfoProc> {
        let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
        let start = i64::from_le_bytes(field(bytes, TV_SEC)?);
        let start_micros = i32::from_le_bytes(field(bytes, TV_USEC)?);
        if start < 0 || !(0..1_000_000).contains(&start_micros) {
            return None;
        }
        Some(KinfoProc {
            pid: i32::from_le_bytes(field(bytes, P_PID)?),
            ppid: i32::from_le_bytes(field(bytes, E_PPID)?),
            original_ppid: i32::from_le_bytes(field(bytes, P_OPPID)?),
            start,
            start_micros,
            flag: i32::from_le_bytes(field(bytes, P_FLAG)?),
            state: u8::from_le_bytes(field(bytes, P_STAT)?),
            pgid: i32::from_le_bytes(field(bytes, E_PGID)?),
            uid: u32::from_le_bytes(field(bytes, CR_UID)?),
        })
    }

    /// It is a zombie, or on its way: NOTE_EXIT is sent before `p_stat` says so (trap 38).
    pub(crate) fn has_ended(&self) -> bool {
        self.state == SZOMB || self.flag & P_WEXIT != 0
    }

    /// A tracer takes the parent's place (trap 32).
    pub(crate) fn is_traced(&self) -> bool {
        self.flag & P_TRACED != 0
    }

    /// The parent, whoever traces. 0 at the top.
    pub(crate) fn parent(&self) -> i32 {
        if self.is_traced() && self.original_ppid > 0 { self.original_ppid } else { self.ppid }
    }
}

/// Reads a table. `None` if an entry is cut, or is none: a table with a process missing would prove that it has ended.
pub(crate) fn all(table: &[u8]) -> Option<Vec<KinfoProc>> {
    table.chunks(SIZE).map(KinfoProc::parse).collect()
}

/// `p_comm` of one entry: the first 16 bytes of the name, which may be any.
pub(crate) fn name(entry: &[u8]) -> Option<&[u8]> {
    let entry: &[u8; SIZE] = entry.try_into().ok()?;
    let name = entry.get(P_COMM..P_COMM + P_COMM_SIZE)?;
    let end = name.iter().position(|&byte| byte == 0)?;
    Some(&name[..end])
}
