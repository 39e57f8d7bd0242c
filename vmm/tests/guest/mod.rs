//! Machines whose kernel is a handful of instructions, for tests on /dev/kvm.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod program;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use hv_common::{Limits, Timeline};
use hv_vmm::boot::cmdline::command_line;
use hv_vmm::device::serial::Console;
use hv_vmm::device::virtio::{TransportKind, VirtioDevice};
use hv_vmm::end::End;
use hv_vmm::guest::{Description, Guest, Initramfs};
use hv_vmm::hardware::Hardware;
use hv_vmm::recipe::Progress;
use hv_vmm::settings::Settings;
use hv_vmm::walls::Walls;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Where the kernel is loaded and entered.
pub const ENTRY: u64 = 16 << 20;
/// mov al, 0xfe; out 0x64, al
pub const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64];

/// Ends a test where there is no KVM.
#[macro_export]
macro_rules! kvm_or_skip {
    () => {
        if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/kvm") {
            println!("skipped: no /dev/kvm: {error}");
            return;
        }
    };
}

/// An ELF kernel with this code.
pub fn kernel(code: &[u8]) -> File {
    let mut elf = vec![0; 0x1000];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(24, &ENTRY.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(64, &1u32.to_le_bytes());
    put(72, &0x1000u64.to_le_bytes());
    put(88, &ENTRY.to_le_bytes());
    put(96, &(code.len() as u64).to_le_bytes());
    put(104, &(code.len() as u64).to_le_bytes());
    elf.extend_from_slice(code);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&elf).unwrap();
    file
}

/// Code that prints on the serial port.
pub fn print(text: &str) -> Vec<u8> {
    // mov dx, 0x3f8; then mov al, C; out dx, al for each character
    let mut code = vec![0x66, 0xba, 0xf8, 0x03];
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]);
    }
    code
}

/// A machine that runs.
pub struct Run {
    pub guest: Guest,
    pub console: Console,
    pub timeline: Timeline,
    pub progress: Progress,
}

/// A machine without devices, running this code.
pub fn start(code: &[u8], vcpus: u32) -> Run {
    start_with(code, vcpus, TransportKind::Mmio, Vec::new())
}

/// A machine without devices and with so much memory, running this code.
pub fn start_sized(code: &[u8], memory: u64) -> Run {
    start_machine(code, 1, memory, TransportKind::Mmio, Vec::new())
}

/// A machine with these devices, running this code.
pub fn start_with(
    code: &[u8],
    vcpus: u32,
    transport: TransportKind,
    virtio: Vec<Box<dyn VirtioDevice>>,
) -> Run {
    start_machine(code, vcpus, 64 << 20, transport, virtio)
}

fn start_machine(
    code: &[u8],
    vcpus: u32,
    memory: u64,
    transport: TransportKind,
    virtio: Vec<Box<dyn VirtioDevice>>,
) -> Run {
    let console = Console::new(false);
    let timeline = Timeline::new().unwrap();
    let mut progress = Progress::default();
    let limits = Limits { memory: Some(memory), millicpus: Some(vcpus * 1000), pids: None };
    let description = Description {
        kernel: &kernel(code),
        kernel_path: Path::new("test"),
        initramfs: Initramfs::Bytes(b"not really one"),
        command_line: &command_line(transport, "").unwrap(),
        settings: Settings::new(&limits).unwrap(),
        hardware: &Hardware::default(),
        console: console.clone(),
        virtio,
        transport,
        walls: Walls::default(),
    };
    let guest = Guest::start(description, &timeline, &mut progress).unwrap();
    Run { guest, console, timeline, progress }
}

impl Run {
    /// The machine's end, which must come soon.
    pub fn end(&self) -> End {
        let mut fds = [PollFd::from_borrowed_fd(self.guest.ending().event(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap();
        self.guest.ending().get().expect("the machine did not end").clone()
    }
}
