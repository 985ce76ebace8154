//! What XNU's `proc_pidinfo` says of who a process is: `struct proc_uniqidentifierinfo` (trap 34). Both architectures are
//! little-endian. The numbers are proven by `scripts/check-abi`, as far as they can be: no public header has the struct.

use crate::parse::field;

pub(crate) const SIZE: usize = 56; // = sizeof(struct proc_uniqidentifierinfo)
const P_UUID: usize = 0; // = offsetof(struct proc_uniqidentifierinfo, p_uuid)
const P_UUID_SIZE: usize = 16; // = sizeof(((struct proc_uniqidentifierinfo *)0)->p_uuid)
const P_UNIQUEID: usize = 16; // = offsetof(struct proc_uniqidentifierinfo, p_uniqueid)
const P_PUNIQUEID: usize = 24; // = offsetof(struct proc_uniqidentifierinfo, p_puniqueid)

/// Numbers that no two processes of one boot have in common; exec keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UniqueInfo {
    /// The UUID of the executable, as its linker wrote it down.
    pub(crate) executable: [u8; P_UUID_SIZE],
    pub(crate) unique: u64,
    /// That of the process that forked it: it stays when the parent has ended.
    pub(crate) parent_unique: u64,
}

impl UniqueInfo {
    /// Reads one answer. `None` if it is cut, or longer.
    pub(crate) fn parse(bytes: &[u8]) -> Option<UniqueInfo> {
        let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
        Some(UniqueInfo {
            executable: field(bytes, P_UUID)?,
            unique: u64::from_le_bytes(field(bytes, P_UNIQUEID)?),
            parent_unique: u64::from_le_bytes(field(bytes, P_PUNIQUEID)?),
        })
    }
}
