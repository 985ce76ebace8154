//! Numbers of Apple's headers. `scripts/check-abi` has a C compiler compare each with the expression behind it.

pub(super) const CTL_KERN: i32 = 1; // = CTL_KERN
pub(super) const KERN_PROC: i32 = 14; // = KERN_PROC
pub(super) const KERN_PROC_ALL: i32 = 0; // = KERN_PROC_ALL
pub(super) const KERN_PROC_PID: i32 = 1; // = KERN_PROC_PID

#[cfg(target_os = "macos")]
pub(super) const SOL_LOCAL: i32 = 0; // = SOL_LOCAL
#[cfg(target_os = "macos")]
pub(super) const LOCAL_PEERUUID: i32 = 0x004; // = LOCAL_PEERUUID
#[cfg(target_os = "macos")]
pub(super) const PROC_PIDUNIQIDENTIFIERINFO: i32 = 17; // = PROC_PIDUNIQIDENTIFIERINFO

pub(super) const EVFILT_PROC: i16 = -5; // = EVFILT_PROC
pub(super) const EVFILT_TIMER: i16 = -7; // = EVFILT_TIMER
pub(super) const EVFILT_USER: i16 = -10; // = EVFILT_USER
pub(super) const EV_ADD: u16 = 0x0001; // = EV_ADD
pub(super) const EV_DELETE: u16 = 0x0002; // = EV_DELETE
pub(super) const EV_ONESHOT: u16 = 0x0010; // = EV_ONESHOT
pub(super) const EV_CLEAR: u16 = 0x0020; // = EV_CLEAR
pub(super) const EV_RECEIPT: u16 = 0x0040; // = EV_RECEIPT
pub(super) const EV_ERROR: u16 = 0x4000; // = EV_ERROR
pub(super) const NOTE_EXIT: u32 = 0x8000_0000; // = NOTE_EXIT
pub(super) const NOTE_FORK: u32 = 0x4000_0000; // = NOTE_FORK
pub(super) const NOTE_EXEC: u32 = 0x2000_0000; // = NOTE_EXEC
pub(super) const NOTE_EXITSTATUS: u32 = 0x0400_0000; // = NOTE_EXITSTATUS
pub(super) const NOTE_TRIGGER: u32 = 0x0100_0000; // = NOTE_TRIGGER
