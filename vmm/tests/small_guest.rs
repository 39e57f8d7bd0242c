//! Machines whose kernel is a handful of instructions: they run on any host where /dev/kvm opens, even
//! where KVM only emulates guest kernels.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use guest::{ENTRY, RESET, Run, kernel, print, start, start_sized};
use hv_common::sandbox::Stdio;
use hv_common::{Backend, Format, Id, Limits, Phase, Process, Root, Spec, StartError, Timeline};
use hv_vmm::device::virtio::TransportKind;
use hv_vmm::end::End;
use hv_vmm::hardware::Hardware;
use hv_vmm::recipe::Step;
use hv_vmm::walls::Walls;
use hv_vmm::{Kvm, Machine, ProbeError, runs_guest_kernel_code};

mod guest;

#[test]
fn a_guest_prints_and_resets_and_the_recipe_is_the_printed_one() {
    kvm_or_skip!();
    let run = start(&[&print("hi\n"), RESET].concat(), 1);
    assert_eq!(run.end(), End::Reset);
    assert_eq!(run.console.bytes(), b"hi\n");
    assert_eq!(run.progress.steps(), Step::ALL);
    assert!(run.timeline.at(Phase::Boundary) <= run.timeline.at(Phase::Kernel));
    assert_eq!(run.guest.memory_ranges().iter().map(|range| range.end - range.start).sum::<u64>(), 64 << 20);
    let crossings = run.guest.crossings();
    // Older kernels keep no such counts.
    if let Some(total) = crossings.get("total") {
        assert!(*total >= 4, "{crossings:?}");
    }
}

/// Bytes at both sides of each border of memory: what is RAM keeps what is written, what is not reads as all ones.
#[test]
fn memory_ends_and_goes_on_where_it_should() {
    kvm_or_skip!();
    const GIB: u64 = 1 << 30;
    /// The level of the boot page tables with an entry a GiB, and room for tables of the level below.
    const LEVEL_3: u64 = 0xa000;
    const LEVEL_2: u64 = 0x1_0000;
    for (memory, ram, nothing) in [
        (3 * GIB - 4096, 3 * GIB - 4097, 3 * GIB - 4096),
        (3 * GIB, 3 * GIB - 1, 3 * GIB),
        (3 * GIB + 4096, 4 * GIB + 4095, 4 * GIB + 4096),
        (4 * GIB, 5 * GIB - 1, 5 * GIB),
        (5 * GIB, 6 * GIB - 1, 3 * GIB),
    ] {
        let mut code = Vec::new();
        for address in [ram, nothing] {
            let (table, page) = (LEVEL_2 + 4096 * (address / GIB), address & !((2 << 20) - 1));
            let entries =
                [(LEVEL_3 + 8 * (address / GIB), table | 3), (table + 8 * ((page % GIB) >> 21), page | 0x83)];
            for (at, entry) in entries {
                // movabs rax, entry (present, writable; a page of 2 MiB); movabs [at], rax
                code.extend(
                    [&[0x48, 0xb8][..], &entry.to_le_bytes(), &[0x48, 0xa3], &at.to_le_bytes()].concat(),
                );
            }
        }
        // mov rax, cr3; mov cr3, rax; mov dx, 0x3f8
        code.extend([0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x66, 0xba, 0xf8, 0x03]);
        for address in [ram, nothing] {
            // mov al, 'x'; movabs [address], al; xor eax, eax; movabs al, [address]; out dx, al
            code.extend([&[0xb0, b'x', 0xa2][..], &address.to_le_bytes(), &[0x31, 0xc0, 0xa0]].concat());
            code.extend([&address.to_le_bytes()[..], &[0xee]].concat());
        }
        code.extend(RESET);
        let run = start_sized(&code, memory);
        assert_eq!(run.end(), End::Reset, "{memory:#x}");
        assert_eq!(run.console.bytes(), [b'x', 0xff], "{memory:#x}");
    }
}

#[test]
fn power_off_is_told_from_reset() {
    kvm_or_skip!();
    // mov dx, 0x600; mov al, SLP_EN | S5; out dx, al
    let run = start(&[0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee], 1);
    assert_eq!(run.end(), End::PowerOff);
}

#[test]
fn a_triple_fault_ends_the_machine() {
    kvm_or_skip!();
    // ud2, with no handler
    assert_eq!(start(&[0x0f, 0x0b], 1).end(), End::TripleFault);
}

#[test]
fn a_guest_marks_its_phases() {
    kvm_or_skip!();
    // mov dx, 0x4f0; mov al, Init; out dx, al
    let mark = [0x66, 0xba, 0xf0, 0x04, 0xb0, Phase::Init as u8, 0xee];
    let run = start(&[&mark, RESET].concat(), 1);
    assert_eq!(run.end(), End::Reset);
    assert!(run.timeline.at(Phase::Init) > run.timeline.at(Phase::Kernel));
}

#[test]
fn machines_that_spin_or_sleep_are_stopped() {
    kvm_or_skip!();
    // jmp to itself; cli, hlt, jmp back
    for code in [&[0xeb, 0xfe][..], &[0xfa, 0xf4, 0xeb, 0xfd]] {
        let mut run = start(code, 4);
        let begin = Instant::now();
        run.guest.stop();
        drop(run.guest);
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn every_port_takes_every_width() {
    kvm_or_skip!();
    // No device answers above 0xfff. (0x54 is neither a reset nor a panic.) mov ebx, 0xfff; again: mov edx, ebx; in al, dx; in ax, dx; in eax, dx; mov al, 0x54; out dx, al;
    // out dx, ax; out dx, eax; dec ebx; jnz again
    let sweep = [
        0xbb, 0xff, 0x0f, 0x00, 0x00, 0x89, 0xda, 0xec, 0x66, 0xed, 0xed, 0xb0, 0x54, 0xee, 0x66, 0xef, 0xef,
        0xff, 0xcb, 0x75, 0xf0,
    ];
    assert_eq!(start(&[&sweep, RESET].concat(), 1).end(), End::Reset);
}

#[test]
fn an_instruction_that_kvm_cannot_emulate_is_named() {
    kvm_or_skip!();
    // mov edi, 0x9000; lock cmpxchg16b [rdi]
    let code = [0xbf, 0x00, 0x90, 0x00, 0x00, 0xf0, 0x48, 0x0f, 0xc7, 0x0f];
    match (start(&[&code, RESET].concat(), 1).end(), runs_guest_kernel_code()) {
        (End::Reset, Ok(())) => println!("skipped: this host runs guest kernels natively"),
        (End::Emulation { rip, bytes }, Err(ProbeError::Emulated { .. })) => {
            assert_eq!(rip, ENTRY + 5);
            assert!(bytes.is_empty() || bytes.starts_with(&[0xf0, 0x48, 0x0f, 0xc7, 0x0f]), "{bytes:x?}");
        }
        other => panic!("{other:?}"),
    }
}

/// Starts a whole sandbox with this code for a kernel; it cannot become one.
fn sandbox_error(kernel: File, boot_timeout: Option<Duration>) -> (StartError, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine {
        kernel,
        kernel_path: "/boot/test".into(),
        initramfs: vec![0; 4096],
        cmdline: String::new(),
        transport: TransportKind::Mmio,
        console: false,
        console_device: None,
        boot_timeout,
        hardware: Hardware::default(),
        network: vec![],
        balloon: None,
        disks: Vec::new(),
        walls: Walls::default(),
        runtime_dir: dir.path().into(),
    };
    let image = tempfile::tempfile().unwrap();
    image.set_len(1 << 20).unwrap();
    let root = Root::Disk { path: "image".into(), file: image, format: Format::Erofs, writable: false };
    let process = Process {
        args: vec![],
        env: vec![],
        cwd: "/".into(),
        user: None,
        terminal: None,
        program: hv_common::Program::Image,
        landlock: vec![],
    };
    let limits = Limits { memory: Some(64 << 20), ..Limits::default() };
    let id = Id::random().unwrap();
    let spec = Spec { id, hostname: "test".into(), root, process, limits };
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap().into();
    let begin = Instant::now();
    let result =
        Kvm::new(machine).start(spec, Stdio::Streams([null(), null(), null()]), &Timeline::new().unwrap());
    let Err(error) = result else { panic!("it started") };
    let left: Vec<_> = dir.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    (error, begin.elapsed())
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[test]
fn a_kernels_panic_is_in_the_error() {
    kvm_or_skip!();
    let code = [&print("[ 0.1] Kernel panic - not syncing: no cheese\r\n"), RESET].concat();
    let (error, _) = sandbox_error(kernel(&code), None);
    let text = chain(&error);
    assert_eq!(error.status, 125);
    assert!(text.contains("the guest kernel panicked: no cheese"), "{text}");
}

#[test]
fn a_kernel_that_never_reaches_init_is_told_so() {
    kvm_or_skip!();
    let text = chain(&sandbox_error(kernel(RESET), None).0);
    assert!(text.contains("never reached hv-init") && text.contains("reset"), "{text}");
}

#[test]
fn a_panic_that_the_guest_tells_ends_it_at_once() {
    kvm_or_skip!();
    // mov dx, 0x505; mov al, 1; out dx, al; jmp to itself: a kernel with panic=0 stays there for ever.
    let tell = [0x66, 0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xeb, 0xfe];
    let text = chain(&sandbox_error(kernel(&[&print("no cheese\n"), &tell[..]].concat()), None).0);
    assert!(text.contains("the guest kernel panicked") && text.ends_with("| no cheese"), "{text}");
}

#[test]
fn a_guest_that_never_comes_up_is_ended_in_time() {
    kvm_or_skip!();
    let limit = Duration::from_millis(300);
    let code = [&print("still here\n"), &[0xeb, 0xfe][..]].concat();
    let (error, took) = sandbox_error(kernel(&code), Some(limit));
    let text = chain(&error);
    assert_eq!(error.status, 125);
    // Where KVM only emulates kernels, that is found out first, and is the better answer.
    assert!(text.contains("never reached hv-init within the 0.3 s") || text.contains("hv check"), "{text}");
    assert!(took >= limit && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_paused_machine_stands_still_and_goes_on_afterwards() {
    kvm_or_skip!();
    // again: out 0x80, al; jmp again. Every turn is an exit that KVM counts.
    let mut run = start(&[0xe6, 0x80, 0xeb, 0xfc], 4);
    let exits = |run: &Run| run.guest.crossings().get("total").copied();
    let Some(first) = exits(&run) else { return println!("skipped: this host's KVM counts no exits") };
    let moves_on = |from: Option<u64>| {
        let begun = Instant::now();
        while exits(&run) == from && begun.elapsed() < Duration::from_secs(20) {
            std::thread::yield_now();
        }
        assert!(exits(&run) > from, "it stands still");
    };
    moves_on(Some(first));
    for _ in 0..3 {
        run.guest.pause().unwrap();
        let held = exits(&run);
        run.guest.pause().unwrap();
        std::thread::yield_now();
        assert_eq!(exits(&run), held, "it moves");
        run.guest.resume();
        moves_on(held);
    }
    run.guest.pause().unwrap();
    run.guest.stop();
}

#[test]
fn a_machine_that_has_ended_cannot_be_paused() {
    kvm_or_skip!();
    let run = start(RESET, 1);
    assert_eq!(run.end(), End::Reset);
    assert!(run.guest.pause().unwrap_err().to_string().contains("reset"));
}

#[test]
fn a_file_that_is_no_kernel_is_named() {
    kvm_or_skip!();
    let mut text_file = tempfile::tempfile().unwrap();
    text_file.write_all(&[b'x'; 200]).unwrap();
    let text = chain(&sandbox_error(text_file, None).0);
    assert!(text.contains("/boot/test") && text.contains("not an ELF file"), "{text}");
}

#[test]
fn a_host_that_only_emulates_kernels_is_told_within_two_seconds() {
    kvm_or_skip!();
    let Err(ProbeError::Emulated { .. }) = runs_guest_kernel_code() else {
        println!("skipped: this host runs guest kernels natively");
        return;
    };
    // A kernel that is busy for ever with instructions that emulators have.
    let (error, took) = sandbox_error(kernel(&[0xeb, 0xfe]), None);
    let text = chain(&error);
    assert!(text.contains("hv check"), "{text}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}
