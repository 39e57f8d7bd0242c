//! Whether the host's KVM runs a guest kernel's code natively: found out by running some.
//!
//! On some hosts /dev/kvm opens and small guests run, but the guest's kernel mode is emulated one
//! instruction at a time, and the emulator lacks instructions that every Linux kernel executes. No flag
//! tells. So a guest of a few instructions, in 64-bit kernel mode, executes those that emulators lack, and
//! reports after each. Takes milliseconds, and is ended from outside if it takes longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hv_common::Timeline;
use kvm_bindings::{CpuId, kvm_regs, kvm_segment, kvm_sregs};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::bus::Bus;
use crate::device::{Device, Range};
use crate::end::{End, Ending};
use crate::gate::Gate;
use crate::kvm::vcpu::{Vcpu, World};
use crate::kvm::vm::Vm;
use crate::kvm::{self, Kvm};
use crate::memory::GuestMemory;
use crate::seccomp::Mode;

/// What this host's KVM cannot do.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No machine could be made.
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
    /// The guest's kernel mode is emulated, and these instructions are not.
    #[error(
        "KVM emulates guest kernel code on this host instead of running it, and lacks {}: there is no hardware \
         virtualisation behind it", .failed.join(", ")
    )]
    Emulated {
        /// Names of the instructions.
        failed: Vec<String>,
    },
    /// The guest neither finished nor failed.
    #[error("a guest of a few instructions did not finish on this host's KVM")]
    Stuck,
    /// Something else ended the guest.
    #[error("a guest of a few instructions failed on this host's KVM: {0}")]
    Ended(End),
    /// The host gives no memory, thread or descriptor.
    #[error("cannot make a small guest")]
    Host(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An instruction that guests' kernels execute.
struct Test {
    name: &'static str,
    /// The bit of CPUID leaf 1, ECX, without which the processor lacks it too.
    feature: Option<u32>,
    /// With RDI at [`SCRATCH`], RAX to RDX 0, a handler for breakpoints.
    code: &'static [u8],
}

const TESTS: &[Test] = &[
    // lock cmpxchg16b [rdi]
    Test { name: "cmpxchg16b", feature: Some(13), code: &[0xf0, 0x48, 0x0f, 0xc7, 0x0f] },
    // mov al, 1; xsave [rdi]; xrstor [rdi]
    Test {
        name: "xsave and xrstor",
        feature: Some(26),
        code: &[0xb0, 0x01, 0x0f, 0xae, 0x27, 0x0f, 0xae, 0x2f],
    },
    // int3
    Test { name: "int3", feature: None, code: &[0xcc] },
    // popcnt eax, eax
    Test { name: "popcnt", feature: Some(23), code: &[0xf3, 0x0f, 0xb8, 0xc0] },
];

/// Bit of CPUID leaf 1, ECX: XSAVE, which CR4 must enable too.
const XSAVE: u32 = 26;

/// Where things are in the guest's memory.
const PAGE_TABLES: u64 = 0x1000;
const IDT: u64 = 0x4000;
const GDT: u64 = 0x5000;
const HANDLER: u64 = 0x6000;
const CODE: u64 = 0x7000;
const STACK: u64 = 0x9000;
/// Aligned for XSAVE, with a page for what it saves.
const SCRATCH: u64 = 0x9000;
const MEMORY: usize = 0x10000;
/// Where the guest reports the number of the test that it has passed.
const PORT: u16 = 0xf4;
const CODE_SELECTOR: u16 = 8;
/// How long the guest may take; it needs less than a millisecond.
const LIMIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Runs the instructions that emulators lack in a guest's kernel mode.
///
/// # Errors
/// There is no KVM for us, or it does not run them.
pub fn runs_guest_kernel_code() -> Result<(), ProbeError> {
    let kvm = Kvm::open()?;
    let cpuid = kvm.supported_cpuid()?;
    let features = cpuid.as_slice().iter().find(|leaf| leaf.function == 1).map_or(0, |leaf| leaf.ecx);
    let has = |bit: u32| features & 1 << bit != 0;
    let tests: Vec<&Test> = TESTS.iter().filter(|test| test.feature.is_none_or(has)).collect();
    let mut failed = Vec::new();
    let mut rest = &tests[..];
    while !rest.is_empty() {
        let (passed, end) = run(&kvm, &cpuid, rest, has(XSAVE))?;
        match (end, rest.get(passed)) {
            (End::PowerOff, _) => break,
            // A triple fault: the emulator made an exception of an instruction that the processor has.
            (End::Emulation { .. } | End::TripleFault, Some(test)) => {
                failed.push(test.name.to_owned());
                rest = &rest[passed + 1..];
            }
            (end, _) => return Err(ProbeError::Ended(end)),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(ProbeError::Emulated { failed }) }
}

/// One guest: how many tests it passed and how it ended, with power-off after the last.
fn run(kvm: &Kvm, cpuid: &CpuId, tests: &[&Test], xsave: bool) -> Result<(usize, End), ProbeError> {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).map_err(host)?;
    write_guest(&memory, tests).map_err(host)?;
    let mut vm = Vm::new(kvm)?;
    vm.set_memory(&memory)?;
    let vcpu = Vcpu::new(&vm, 0)?;
    vcpu.set_cpuid(cpuid)?;
    let registers = kvm_regs { rip: CODE, rsp: STACK, rflags: 2, ..Default::default() };
    vcpu.set_registers(&special(vcpu.special_registers()?, xsave), &registers)?;

    let ending = Ending::new().map_err(host)?;
    let report = Arc::new(Report { passed: AtomicUsize::new(0), all: tests.len(), ending: ending.clone() });
    let mut bus = Bus::default();
    bus.insert(report.clone()).map_err(host)?;
    let timeline = Timeline::new().map_err(host)?;
    let (gate, filters) = (Gate::default(), Mode::Off);
    let world = World { bus: Arc::new(bus), ending: ending.clone(), gate, timeline, filters };
    let running = vcpu.run(world).map_err(host)?;
    let mut fds = [PollFd::from_borrowed_fd(ending.event(), PollFlags::IN)];
    retry_on_intr(|| poll(&mut fds, Some(&LIMIT))).map_err(host)?;
    drop(running);
    let end = ending.get().cloned().ok_or(ProbeError::Stuck)?;
    Ok((report.passed.load(Ordering::SeqCst), end))
}

fn host(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ProbeError {
    ProbeError::Host(error.into())
}

/// Where the guest reports.
struct Report {
    passed: AtomicUsize,
    all: usize,
    ending: Ending,
}

impl Device for Report {
    fn name(&self) -> &str {
        "report"
    }

    fn range(&self) -> Range {
        Range::ports(PORT, 1)
    }

    fn read(&self, _offset: u64, _data: &mut [u8]) {}

    fn write(&self, _offset: u64, _data: &[u8]) {
        if self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.all {
            self.ending.tell(End::PowerOff);
        }
    }
}

/// Tables, handler and the tests' code, each followed by its report.
fn write_guest(memory: &GuestMemory, tests: &[&Test]) -> Result<(), GuestMemoryError> {
    /// Present and writable; in the last level a page of 2 MiB.
    const ENTRY: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let put = |value: u64, at: u64| memory.write_obj(value, GuestAddress(at));
    put((PAGE_TABLES + 0x1000) | ENTRY, PAGE_TABLES)?;
    put((PAGE_TABLES + 0x2000) | ENTRY, PAGE_TABLES + 0x1000)?;
    put(LARGE | ENTRY, PAGE_TABLES + 0x2000)?;
    put(0x00af_9b00_0000_ffff, GDT + u64::from(CODE_SELECTOR))?;
    // Vector 3, breakpoint: an interrupt gate to the handler, which is `iretq`.
    put(HANDLER | u64::from(CODE_SELECTOR) << 16 | 0x8e00 << 32, IDT + 3 * 16)?;
    memory.write_slice(&[0x48, 0xcf], GuestAddress(HANDLER))?;
    let mut code = Vec::new();
    for test in tests {
        // mov edi, SCRATCH; xor eax, eax; xor ebx, ebx; xor ecx, ecx; xor edx, edx
        code.push(0xbf);
        code.extend((SCRATCH as u32).to_le_bytes());
        code.extend([0x31, 0xc0, 0x31, 0xdb, 0x31, 0xc9, 0x31, 0xd2]);
        code.extend(test.code);
        // out PORT, al
        code.extend([0xe6, PORT as u8]);
    }
    // jmp to itself: the end was told by the last report.
    code.extend([0xeb, 0xfe]);
    memory.write_slice(&code, GuestAddress(CODE))
}

/// 64-bit kernel mode.
fn special(reset: kvm_sregs, xsave: bool) -> kvm_sregs {
    let data = kvm_segment { limit: u32::MAX, type_: 3, present: 1, s: 1, db: 1, g: 1, ..Default::default() };
    let mut special = reset;
    special.cs = kvm_segment { selector: CODE_SELECTOR, type_: 11, l: 1, db: 0, ..data };
    for segment in [&mut special.ds, &mut special.es, &mut special.ss] {
        *segment = data;
    }
    (special.gdt.base, special.gdt.limit) = (GDT, 15);
    (special.idt.base, special.idt.limit) = (IDT, 4 * 16 - 1);
    // CR0: PG, ET, PE. CR4: PAE, OSFXSR, OSXSAVE. EFER: LMA, LME.
    special.cr0 = 1 << 31 | 1 << 4 | 1;
    special.cr3 = PAGE_TABLES;
    special.cr4 = 1 << 5 | 1 << 9 | u64::from(xsave) << 18;
    special.efer = 1 << 10 | 1 << 8;
    special
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// On any host: an answer, and soon. (Which one it is depends on the host.)
    #[test]
    fn the_probe_answers_within_a_second() {
        let start = Instant::now();
        match runs_guest_kernel_code() {
            Ok(()) => println!("this host runs guest kernel code natively"),
            Err(error @ ProbeError::Emulated { .. }) => println!("{error}"),
            Err(ProbeError::Kvm(error)) => println!("skipped: {error}"),
            Err(error) => panic!("{error}"),
        }
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}
