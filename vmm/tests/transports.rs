//! The registers of both transports under a guest of a few instructions, with the host's real KVM.

use hv_vmm::device::virtio::rng::Rng;
use hv_vmm::device::virtio::{TransportKind, VirtioDevice};
use hv_vmm::end::End;

mod guest;

use guest::program::{ECAM, MMIO, Program, REGION};
use guest::{ENTRY, RESET, Run, print, start_with};

/// Free memory for an interrupt table and the six bytes that point to it.
const IDT: u32 = 0x11_0000;
const IDT_POINTER: u32 = 0x11_1000;
const LOCAL_APIC: u32 = 0xfee0_0000;

fn run(program: &Program, transport: TransportKind, devices: usize) -> Run {
    let rng = || Box::new(Rng::new()) as Box<dyn VirtioDevice>;
    start_with(program.code(), 1, transport, (0..devices).map(|_| rng()).collect())
}

#[test]
fn a_message_becomes_an_interrupt() {
    kvm_or_skip!();
    // The handler is in front: jmp over it.
    let handler = [print("interrupted"), RESET.to_vec()].concat();
    let mut program = Program::default();
    program.bytes(&[0xe9]).word(handler.len() as u32).bytes(&handler);
    program.bytes(Program::new().code());
    // Interrupt gate 0x40, in the code segment.
    let at = ENTRY as u32 + 5;
    program.store32(IDT + 0x400, 0x10 << 16 | at & 0xffff).store32(IDT + 0x404, at & 0xffff_0000 | 0x8e00);
    program.store16(IDT_POINTER, 0xfff).store32(IDT_POINTER + 2, IDT);
    // lidt [rdi]; and the local APIC on.
    program.point_at(IDT_POINTER).bytes(&[0x0f, 0x01, 0x1f]).store32(LOCAL_APIC + 0xf0, 0x1ff);
    // Memory and bus master on; vector 0 sends 0x40 to the first processor; MSI-X on (its capability stands
    // behind the common, notification and status ones, 16 + 20 + 16 bytes from 0x40).
    program.store16(ECAM + 4, 6);
    for (field, value) in [(0, LOCAL_APIC), (4, 0), (8, 0x40), (12, 0)] {
        program.store32(REGION + 0x4000 + field, value);
    }
    program.store16(ECAM + 0x74 + 2, 0x8000);
    // Vector 0 for changes; features agreed; live without its queue, which fails and is told.
    program.store16(REGION + 0x10, 0).store8(REGION + 0x14, 1).store8(REGION + 0x14, 3);
    program.store32(REGION + 8, 1).store32(REGION + 0xc, 1);
    program.store8(REGION + 0x14, 11).store8(REGION + 0x14, 15);
    // sti; sleep: hlt; jmp sleep
    program.bytes(&[0xfb, 0xf4, 0xeb, 0xfd]);
    let run = run(&program, TransportKind::Pci, 1);
    assert_eq!(run.end(), End::Reset);
    assert_eq!(run.console.bytes(), b"interrupted");
}

/// Writes what a generator gives, in every width, to what `places` gives, many times; then resets.
fn storm(transport: TransportKind, prepare: impl Fn(&mut Program), places: &[(u32, u32)]) {
    let mut program = Program::new();
    prepare(&mut program);
    let mut state = 0x1234_5678u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    for _ in 0..3000 {
        let (base, len) = places[random() as usize % places.len()];
        let (address, value) = (base + random() % len, random() ^ random() << 8);
        match random() % 6 {
            0 => program.store8(address, value as u8),
            1 => program.store16(address & !1, value as u16),
            2 => program.store32(address & !3, value),
            3 => program.store32(address & !3, value % 8),
            4 => program.store16(address & !1, value as u16 % 8),
            // mov eax, [rdi]; misaligned too
            _ => program.point_at(address).bytes(&[0x8b, 0x07]),
        };
    }
    program.bytes(&print("survived")).bytes(RESET);
    let run = run(&program, transport, 3);
    assert_eq!(run.end(), End::Reset);
    assert_eq!(run.console.bytes(), b"survived");
}

#[test]
fn bug_04_a_storm_over_the_registers_of_mmio() {
    kvm_or_skip!();
    storm(TransportKind::Mmio, |_| {}, &[(MMIO, 0x110), (MMIO + 0x1000, 0x110), (MMIO, 0x4000)]);
}

#[test]
fn bug_05_a_storm_over_configuration_and_regions_of_pci() {
    kvm_or_skip!();
    let prepare = |program: &mut Program| {
        (0..3).for_each(|slot| _ = program.store16(ECAM + slot * 0x8000 + 4, 6));
    };
    let mut places = vec![(ECAM, 0x2_0000), (REGION, 0x1_8000)];
    for slot in 0..3 {
        places.push((ECAM + slot * 0x8000 + 8, 0xf8));
        // What is written to a table's last words chooses the processor's reaction, a fatal one too: only
        // the first page, the status and the notifications.
        places.extend([(REGION + slot * 0x8000, 0x40), (REGION + slot * 0x8000 + 0x1000, 0x2010)]);
    }
    storm(TransportKind::Pci, prepare, &places);
}
