//! The one use of bpf(2): a program that decides about a cgroup's devices.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination in the lower half, source in the upper one.
    pub registers: u8,
    /// Of a jump or a load.
    pub offset: i16,
    /// Immediate value.
    pub value: i32,
}

impl Instruction {
    const fn new(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
        Instruction { code, registers: from << 4 | to, offset, value }
    }

    /// `to = *(u32 *)(from + offset)`
    pub const fn load_word(to: u8, from: u8, offset: i16) -> Instruction {
        Instruction::new(0x61, to, from, offset, 0)
    }

    /// `to &= value`, 32 bits
    pub const fn and(to: u8, value: i32) -> Instruction {
        Instruction::new(0x54, to, 0, 0, value)
    }

    /// `to >>= value`, 32 bits
    pub const fn shift_right(to: u8, value: i32) -> Instruction {
        Instruction::new(0x74, to, 0, 0, value)
    }

    /// `to = from`, 32 bits
    pub const fn copy(to: u8, from: u8) -> Instruction {
        Instruction::new(0xBC, to, from, 0, 0)
    }

    /// `to = value`
    pub const fn set(to: u8, value: i32) -> Instruction {
        Instruction::new(0xB7, to, 0, 0, value)
    }

    /// Jump if `register != value`
    pub const fn unless_equal(register: u8, value: i32, offset: i16) -> Instruction {
        Instruction::new(0x55, register, 0, offset, value)
    }

    /// Jump if `register == value`
    pub const fn if_equal(register: u8, value: i32, offset: i16) -> Instruction {
        Instruction::new(0x15, register, 0, offset, value)
    }

    /// End, with register 0 as the verdict
    pub const fn exit() -> Instruction {
        Instruction::new(0x95, 0, 0, 0, 0)
    }
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD, up to `expected_attach_type`.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// The same for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Beside other programs of the same cgroup and of its descendants: all must agree.
const ALLOW_MULTI: u32 = 2;

/// Loads `code` and hangs it on the cgroup whose directory `cgroup` is; it goes with the cgroup.
///
/// # Errors
/// As bpf(2): the program is not valid, this process lacks CAP_BPF or CAP_SYS_ADMIN, or the kernel has
/// no such programs.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, code: &[Instruction]) -> io::Result<()> {
    let load = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        licence: c"Apache-2.0".as_ptr() as u64,
        attach_type: ATTACH_CGROUP_DEVICE,
        ..Load::default()
    };
    // SAFETY: the attributes are as long as said, and name `count` instructions and a string that live on.
    let program = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) };
    if program < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has given a new descriptor, which nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(program as i32) };
    let attach = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the attributes are as long as said and hold plain numbers.
    match unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>()) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
