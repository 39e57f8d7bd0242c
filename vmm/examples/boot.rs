//! Boots a kernel with an initramfs on the bare machine, without hv-init or disks: for looking at the
//! machine itself. Console goes to standard error, counts and the end to standard output.
//!
//! `boot KERNEL INITRAMFS [VCPUS [MIB [EXTRA...]]]`

use std::error::Error;
use std::fs::File;
use std::path::Path;

use hv_common::{Limits, Phase, Timeline};
use hv_vmm::boot::cmdline::command_line;
use hv_vmm::device::serial::Console;
use hv_vmm::device::virtio::TransportKind;
use hv_vmm::guest::{Description, Guest, Initramfs};
use hv_vmm::hardware::Hardware;
use hv_vmm::recipe::Progress;
use hv_vmm::settings::Settings;
use hv_vmm::walls::Walls;
use rustix::event::{PollFd, PollFlags, poll};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initramfs, rest @ ..] = &args[..] else {
        return Err("boot KERNEL INITRAMFS [VCPUS [MIB [EXTRA...]]]".into());
    };
    let number = |at: usize, default: u32| rest.get(at).map_or(Ok(default), |word| word.parse());
    let limits = Limits {
        millicpus: Some(number(0, 1)? * 1000),
        memory: Some(u64::from(number(1, 256)?) << 20),
        pids: None,
    };
    let timeline = Timeline::new()?;
    timeline.mark(Phase::Launch);
    let description = Description {
        kernel: &File::open(kernel)?,
        kernel_path: Path::new(kernel),
        initramfs: Initramfs::File(&File::open(initramfs)?),
        command_line: &command_line(TransportKind::Mmio, &rest.get(2..).unwrap_or_default().join(" "))?,
        settings: Settings::new(&limits)?,
        hardware: &Hardware::default(),
        console: Console::new(true),
        virtio: Vec::new(),
        transport: TransportKind::Mmio,
        walls: Walls::default(),
    };
    let mut machine = Guest::start(description, &timeline, &mut Progress::default())?;
    let mut events = [PollFd::from_borrowed_fd(machine.ending().event(), PollFlags::IN)];
    poll(&mut events, None)?;
    timeline.mark(Phase::Exit);
    machine.stop();
    let end = machine.ending().get().cloned().ok_or("no end was told")?;
    let crossings = machine.crossings();
    drop(machine);
    timeline.mark(Phase::Gone);
    let start = timeline.at(Phase::Launch).unwrap_or_default();
    let since = |phase| timeline.at(phase).map_or(0, |at| (at - start) / 1000);
    let [kernel, exit, gone] = [Phase::Kernel, Phase::Exit, Phase::Gone].map(since);
    println!("{end}; kernel at {kernel} us, end at {exit} us, gone at {gone} us; exits {crossings:?}");
    Ok(())
}
