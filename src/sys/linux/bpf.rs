//! bpf(2): maps, and programs put together by hand, so that it takes no compiler and no crate.

use std::ffi::CStr;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// A map of `u32` to `u64`, which programs and we share.
#[derive(Debug)]
pub(super) struct Map {
    fd: OwnedFd,
    size: u32,
}

/// BPF_MAP_TYPE_*, linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapKind {
    Hash = 1,
    Array = 2,
    /// One array for each processor.
    PerCpuArray = 6,
}

/// BPF_NOEXIST: refuse what is there already.
pub(super) const IF_ABSENT: u64 = 1;
const BPF_F_NO_PREALLOC: u32 = 1;

impl Map {
    pub(super) fn new(kind: MapKind, size: u32) -> Result<Map, Errno> {
        let flags = if kind == MapKind::Hash { BPF_F_NO_PREALLOC } else { 0 };
        let attributes =
            MapCreate { kind: kind as u32, key_size: 4, value_size: 8, max_entries: size, flags };
        // SAFETY: BPF_MAP_CREATE reads `attributes` and nothing that it refers to.
        let fd = unsafe { bpf(BPF_MAP_CREATE, &attributes) }?;
        // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
        Ok(Map { fd: unsafe { OwnedFd::from_raw_fd(fd) }, size })
    }

    pub(super) fn get(&self, key: u32) -> Result<Option<u64>, Errno> {
        let mut value = 0_u64;
        let attributes = self.element(&key, (&raw mut value).expose_provenance(), 0);
        // SAFETY: the kernel reads 4 bytes of `key` and writes 8 of `value`, as the map was made.
        match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &attributes) } {
            Ok(_) => Ok(Some(value)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn set(&self, key: u32, value: u64, flags: u64) -> Result<(), Errno> {
        let attributes = self.element(&key, (&raw const value).expose_provenance(), flags);
        // SAFETY: the kernel reads 4 bytes of `key` and 8 of `value`, as the map was made.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attributes) }.map(drop)
    }

    pub(super) fn remove(&self, key: u32) -> Result<(), Errno> {
        let attributes = self.element(&key, 0, 0);
        // SAFETY: the kernel reads 4 bytes of `key`, as the map was made.
        match unsafe { bpf(BPF_MAP_DELETE_ELEM, &attributes) } {
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// The keys of a hash, and their values. A key that stays in it all the while is among them; one that comes or goes may
    /// be.
    pub(super) fn entries(&self) -> Result<Vec<(u32, u64)>, Errno> {
        let (mut all, mut from, mut next) = (Vec::new(), None::<u32>, 0_u32);
        let mut room = 512_u32;
        loop {
            let mut keys = vec![0_u32; room as usize];
            let mut values = vec![0_u64; room as usize];
            let mut attributes = Batch {
                from: from.as_ref().map_or(0, |from| std::ptr::from_ref(from).expose_provenance() as u64),
                next: (&raw mut next).expose_provenance() as u64,
                keys: keys.as_mut_ptr().expose_provenance() as u64,
                values: values.as_mut_ptr().expose_provenance() as u64,
                count: room,
                map: self.fd.as_raw_fd() as u32,
                element_flags: 0,
                flags: 0,
            };
            // SAFETY: the kernel writes at most `count` keys and values, for which there is room, and 4 bytes of `next`;
            // it reads 4 of `from`.
            let result = unsafe { bpf_written(BPF_MAP_LOOKUP_BATCH, &mut attributes) };
            match result {
                Ok(_) | Err(Errno::ENOENT) => {
                    all.extend(keys.into_iter().zip(values).take(attributes.count as usize));
                }
                // One chain of the hash is longer than that.
                Err(Errno::ENOSPC) if room < self.size => {
                    room = (room * 4).min(self.size);
                    continue;
                }
                Err(errno) => return Err(errno),
            }
            if result.is_err() {
                return Ok(all);
            }
            from = Some(next);
        }
    }

    /// Removes what is in it; returns how much that was.
    pub(super) fn clear(&self) -> Result<usize, Errno> {
        let entries = self.entries()?;
        entries.iter().try_for_each(|(key, _)| self.remove(*key))?;
        Ok(entries.len())
    }

    fn element(&self, key: &u32, value: usize, flags: u64) -> Element {
        let key = std::ptr::from_ref(key).expose_provenance() as u64;
        Element { map: self.fd.as_raw_fd() as u32, gap: 0, key, value: value as u64, flags }
    }
}

/// Loads a socket filter.
pub(super) fn load_filter(instructions: &[Instruction]) -> Result<OwnedFd, Errno> {
    // No helper that it calls asks for the GPL.
    const LICENSE: &CStr = c"MIT OR Apache-2.0";
    let attributes = ProgramLoad {
        kind: BPF_PROG_TYPE_SOCKET_FILTER,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr().expose_provenance() as u64,
        license: LICENSE.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // SAFETY: the kernel reads `count` instructions and a string that ends with a NUL.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &attributes) }?;
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// SO_ATTACH_BPF.
pub(super) fn attach_filter(socket: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let program = program.as_raw_fd();
    // SAFETY: the option's value is one i32, and the size says so.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            (&raw const program).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// `struct bpf_insn`. The names below are those of the kernel's assembly, in words.
///
/// # References
///
/// Documentation/bpf/standardization/instruction-set.rst
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// What a helper returns, and what the program does.
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    /// From here on, kept over calls.
    R6,
    R7,
    R8,
    /// The end of the stack.
    Frame = 10,
}

/// Of a load, a store, an atomic operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Word = 0x00,
    Double = 0x18,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Equal = 0x10,
    Above = 0x20,
    AboveOrEqual = 0x30,
    NotEqual = 0x50,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    SkbLoadBytes = 26,
}

/// A program that is being written. Jumps name a label, which stands once and later.
#[derive(Debug, Default)]
pub(super) struct Assembly<L> {
    instructions: Vec<Instruction>,
    jumps: Vec<(usize, L)>,
    labels: Vec<(L, usize)>,
}

impl<L: Copy + PartialEq> Assembly<L> {
    pub(super) fn new() -> Assembly<L> {
        Assembly { instructions: Vec::new(), jumps: Vec::new(), labels: Vec::new() }
    }

    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.push(0xBF, to, from, 0, 0);
    }

    /// `number` becomes 64 bits with its sign.
    pub(super) fn number(&mut self, to: Register, number: i32) {
        self.push(0xB7, to, Register::R0, 0, number);
    }

    pub(super) fn map(&mut self, to: Register, map: &Map) {
        // BPF_PSEUDO_MAP_FD; the second half holds the upper 32 bits.
        const PSEUDO_MAP: Register = Register::R1;
        self.push(0x18, to, PSEUDO_MAP, 0, map.fd.as_raw_fd());
        self.push(0, Register::R0, Register::R0, 0, 0);
    }

    /// `to` becomes the place `offset` bytes from the end of the stack.
    pub(super) fn place(&mut self, to: Register, offset: i16) {
        self.copy(to, Register::Frame);
        self.push(0x07, to, Register::R0, 0, offset.into());
    }

    /// Within 32 bits, and what is above them becomes 0.
    pub(super) fn add_word(&mut self, to: Register, number: i32) {
        self.push(0x04, to, Register::R0, 0, number);
    }

    pub(super) fn shift_left(&mut self, to: Register, bits: i32) {
        self.push(0x67, to, Register::R0, 0, bits);
    }

    pub(super) fn or(&mut self, to: Register, from: Register) {
        self.push(0x4F, to, from, 0, 0);
    }

    pub(super) fn load(&mut self, width: Width, to: Register, base: Register, offset: i16) {
        self.push(0x61 | width as u8, to, base, offset, 0);
    }

    pub(super) fn store(&mut self, width: Width, base: Register, offset: i16, from: Register) {
        self.push(0x63 | width as u8, base, from, offset, 0);
    }

    pub(super) fn store_number(&mut self, width: Width, base: Register, offset: i16, number: i32) {
        self.push(0x62 | width as u8, base, Register::R0, offset, number);
    }

    /// Adds `with` to a word in memory, where it then finds what was there before (Linux 5.12).
    pub(super) fn atomic_fetch_add(&mut self, base: Register, offset: i16, with: Register) {
        self.push(0xC3, base, with, offset, 0x01);
    }

    pub(super) fn atomic_or(&mut self, base: Register, offset: i16, with: Register) {
        self.push(0xC3, base, with, offset, 0x40);
    }

    pub(super) fn call(&mut self, helper: Helper) {
        self.push(0x85, Register::R0, Register::R0, 0, helper as i32);
    }

    /// Compares all 64 bits; `with` gets its sign.
    pub(super) fn jump_if(&mut self, register: Register, condition: Condition, with: i32, to: L) {
        self.jumps.push((self.instructions.len(), to));
        self.push(0x05 | condition as u8, register, Register::R0, 0, with);
    }

    pub(super) fn jump_if_same(&mut self, one: Register, other: Register, to: L) {
        self.jumps.push((self.instructions.len(), to));
        self.push(0x0D | Condition::Equal as u8, one, other, 0, 0);
    }

    /// Compares the lower 32 bits, without a sign.
    pub(super) fn jump_if_word(&mut self, register: Register, condition: Condition, with: u32, to: L) {
        self.jumps.push((self.instructions.len(), to));
        self.push(0x06 | condition as u8, register, Register::R0, 0, with as i32);
    }

    pub(super) fn jump_if_words(&mut self, one: Register, condition: Condition, other: Register, to: L) {
        self.jumps.push((self.instructions.len(), to));
        self.push(0x0E | condition as u8, one, other, 0, 0);
    }

    pub(super) fn jump(&mut self, to: L) {
        self.jumps.push((self.instructions.len(), to));
        self.push(0x05, Register::R0, Register::R0, 0, 0);
    }

    pub(super) fn exit(&mut self) {
        self.push(0x95, Register::R0, Register::R0, 0, 0);
    }

    pub(super) fn label(&mut self, label: L) {
        self.labels.push((label, self.instructions.len()));
    }

    /// # Panics
    ///
    /// Where a jump names a label that is nowhere: always or never.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        for (from, to) in self.jumps {
            let (_, to) =
                self.labels.iter().find(|(label, _)| *label == to).expect("every label stands somewhere");
            self.instructions[from].offset = (to - from - 1) as i16;
        }
        self.instructions
    }

    fn push(&mut self, code: u8, destination: Register, source: Register, offset: i16, immediate: i32) {
        let (destination, source) = (destination as u8, source as u8);
        // Two bit fields, which the compilers of big-endian machines lay out the other way round.
        let registers = if cfg!(target_endian = "little") {
            destination | source << 4
        } else {
            source | destination << 4
        };
        self.instructions.push(Instruction { code, registers, offset, immediate });
    }
}

const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_MAP_DELETE_ELEM: i32 = 3;
const BPF_PROG_LOAD: i32 = 5;
const BPF_MAP_LOOKUP_BATCH: i32 = 24;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;

/// The beginnings of the variants of `union bpf_attr`; the kernel takes what it is not given for zeros.
#[repr(C)]
#[derive(Debug)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Debug)]
struct Element {
    map: u32,
    gap: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Debug)]
struct Batch {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Debug)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

const _: () = {
    assert!(size_of::<Instruction>() == 8);
    assert!(offset_of!(Instruction, immediate) == 4);
    assert!(size_of::<MapCreate>() == 20);
    assert!(size_of::<Element>() == 32);
    assert!(offset_of!(Element, key) == 8);
    assert!(size_of::<Batch>() == 56);
    assert!(offset_of!(Batch, count) == 32);
    assert!(size_of::<ProgramLoad>() == 40);
    assert!(offset_of!(ProgramLoad, license) == 16);
};

/// # Safety
///
/// What the attributes refer to must be there to be read and written as the command does. The kernel must not write to the
/// attributes themselves.
unsafe fn bpf<T>(command: i32, attributes: &T) -> Result<i32, Errno> {
    // SAFETY: the size is that of the attributes; for the rest the caller vouches.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    Errno::result(result).map(|result| result as i32)
}

/// # Safety
///
/// As for `bpf`; the kernel may write to the attributes, too.
unsafe fn bpf_written<T>(command: i32, attributes: &mut T) -> Result<i32, Errno> {
    // SAFETY: the size is that of the attributes; for the rest the caller vouches.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    Errno::result(result).map(|result| result as i32)
}
