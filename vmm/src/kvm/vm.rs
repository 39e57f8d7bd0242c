//! One virtual machine: memory, interrupt controllers, events that need no exit.

use std::io;
use std::sync::{Arc, Weak};

use kvm_bindings::{
    KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE, kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VcpuFd, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::routes::Routes;
use super::{Error, Kvm};
use crate::device::line::Pins;
use crate::device::{Device, Range, Space};
use crate::memory::{GuestMemory, layout};

/// A virtual machine with its memory.
///
/// Field order is drop order: the VM goes before the memory that it reaches.
pub struct Vm {
    fd: Arc<VmFd>,
    routes: Arc<Routes>,
    pins: Arc<IoApic>,
    /// Keeps the mappings that KVM was told of for as long as KVM may use them.
    _memory: Option<GuestMemory>,
}

/// The pins of KVM's I/O APIC. Not a share of the VM: it must not outlive the memory that it reaches.
struct IoApic(Weak<VmFd>);

impl Pins for IoApic {
    fn set(&self, gsi: u32, up: bool) {
        if let Some(vm) = self.0.upgrade() {
            // KVM refuses numbers that it has no pin for; no device has one.
            let _ = vm.set_irq_line(gsi, up);
        }
    }
}

impl Vm {
    /// A machine without memory or processors. Interrupt controllers (8259s, I/O APIC, local APICs)
    /// are KVM's own; there is no timer chip: guests have their local APICs and KVM's clock.
    ///
    /// # Errors
    /// As the ioctls.
    pub fn new(kvm: &Kvm) -> Result<Vm, Error> {
        let fd = kvm.create_vm()?;
        fd.set_tss_address(layout::KVM_TSS as usize)
            .map_err(Error::ioctl("set the address of its own pages"))?;
        // Guests get no performance counters: Linux programs each of them at boot, one exit a register,
        // and every exit saves and restores them. A host without this capability (before Linux 5.18)
        // is slower, not wrong, since the guest's CPUID does not list them either.
        let no_counters = kvm_enable_cap {
            cap: KVM_CAP_PMU_CAPABILITY,
            args: [KVM_PMU_CAP_DISABLE.into(), 0, 0, 0],
            ..Default::default()
        };
        let _ = fd.enable_cap(&no_counters);
        fd.create_irq_chip().map_err(Error::ioctl("create interrupt controllers"))?;
        let fd = Arc::new(fd);
        let routes = Arc::new(Routes::new(&fd));
        let pins = Arc::new(IoApic(Arc::downgrade(&fd)));
        Ok(Vm { fd, routes, pins, _memory: None })
    }

    /// Gives the machine its memory, once.
    ///
    /// # Errors
    /// As the ioctl.
    pub fn set_memory(&mut self, memory: &GuestMemory) -> Result<(), Error> {
        for (slot, region) in memory.iter().enumerate() {
            let region = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the range is one mapping of `memory`, whose regions do not overlap, and `self`
            // keeps a share of it until after the VM is closed: nobody else has a lasting share of `fd`.
            unsafe { self.fd.set_user_memory_region(region) }.map_err(Error::ioctl("take guest memory"))?;
        }
        self._memory = Some(memory.clone());
        Ok(())
    }

    /// Connects a device's interrupts and doorbells, so that none of them needs this process to be woken.
    ///
    /// # Errors
    /// As the ioctls.
    pub fn connect(&self, device: &Arc<dyn Device>) -> Result<(), Error> {
        if let Some(interrupt) = device.interrupt() {
            interrupt.connect(self.pins.clone());
        }
        if let Some(messages) = device.messages() {
            let port = Routes::reserve(&self.routes, messages.events().len());
            for (gsi, event) in (port.first()..).zip(messages.events()) {
                self.fd.register_irqfd(event, gsi).map_err(Error::ioctl("connect a device's interrupt"))?;
            }
            messages.attach(Arc::new(port));
        }
        let Range { space, .. } = device.range();
        for doorbell in device.doorbells() {
            let address = match space {
                Space::Port => IoEventAddress::Pio(doorbell.address),
                Space::Memory => IoEventAddress::Mmio(doorbell.address),
            };
            let connected = match doorbell.value {
                Some(value) => self.fd.register_ioevent(doorbell.event, &address, value),
                None => self.fd.register_ioevent(doorbell.event, &address, NoDatamatch),
            };
            connected.map_err(Error::ioctl("connect a device's doorbell"))?;
        }
        Ok(())
    }

    /// A processor of this number.
    ///
    /// # Errors
    /// As the ioctl.
    pub(super) fn create_vcpu(&self, id: u8) -> Result<VcpuFd, Error> {
        self.fd.create_vcpu(id.into()).map_err(|error| match error.errno() {
            libc::EINVAL => Error::Ioctl {
                operation: "create so many vCPUs",
                source: io::Error::from_raw_os_error(libc::EINVAL),
            },
            _ => Error::ioctl("create a vCPU")(error),
        })
    }
}
