//! The order in which a machine is made: a fixed list of steps that can be printed, and that a test
//! holds against what [`crate::guest`] and [`crate::backend`] really do.

use std::fmt;

/// One step of a start, in the order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The host's KVM is there and for us.
    OpenKvm,
    /// A virtual machine with interrupt controllers and nothing else; made while the next three steps go on.
    CreateVm,
    /// Guest memory, reserved.
    MapMemory,
    /// The kernel's segments: copied what it writes to, mapped from its file the rest.
    LoadKernel,
    /// The initramfs, copied to the top of low memory.
    PlaceInitramfs,
    /// Its memory, and every device on the bus, its interrupt and doorbells connected.
    ConnectDevices,
    /// ACPI tables, command line, zero page, page tables.
    WriteTables,
    /// Processors with their CPUID and registers.
    CreateVcpus,
    /// The thread that serves devices.
    StartEvents,
    /// The threads that run the guest.
    RunVcpus,
}

impl Step {
    /// All steps in order.
    pub const ALL: [Step; 10] = [
        Step::OpenKvm,
        Step::CreateVm,
        Step::MapMemory,
        Step::LoadKernel,
        Step::PlaceInitramfs,
        Step::ConnectDevices,
        Step::WriteTables,
        Step::CreateVcpus,
        Step::StartEvents,
        Step::RunVcpus,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::OpenKvm => "open /dev/kvm",
            Step::CreateVm => "create a virtual machine with KVM's interrupt controllers, and meanwhile:",
            Step::MapMemory => "reserve guest memory",
            Step::LoadKernel => "load the kernel: copy what it will write to, map the rest from its file",
            Step::PlaceInitramfs => "copy the initramfs to the top of low memory",
            Step::ConnectDevices => "give the machine its memory; put every device on the bus and connect its interrupt and doorbells",
            Step::WriteTables => "write ACPI tables, command line, zero page and page tables",
            Step::CreateVcpus => "create vCPUs with their CPUID and registers",
            Step::StartEvents => "start the thread that serves the devices",
            Step::RunVcpus => "start the vCPUs' threads",
        })
    }
}

/// The steps that have been begun.
#[derive(Debug, Default)]
pub struct Progress(Vec<Step>);

impl Progress {
    /// Begins a step.
    pub fn begin(&mut self, step: Step) {
        self.0.push(step);
    }

    /// The steps begun, in order.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}
