//! Which interrupt a global system interrupt (GSI) number means: KVM_SET_GSI_ROUTING
//! (Documentation/virt/kvm/api.rst, section 4.52).
//!
//! The first numbers are the pins of the interrupt controllers, as KVM has them from the start. Devices
//! that send messages reserve numbers above, and say later what each sends. KVM takes the whole table each
//! time.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry,
};
use kvm_ioctls::VmFd;

use crate::device::message::{Message, Router};
use crate::memory::layout;

/// Pins of each of the two 8259s.
const PIC_PINS: u32 = 8;

/// The table of one machine.
pub(super) struct Routes {
    /// Not a share of its own: the VM must not outlive the memory that it reaches.
    vm: Weak<VmFd>,
    table: Mutex<Table>,
}

struct Table {
    /// What each number from [`layout::IO_APIC_PINS`] on sends.
    messages: Vec<Option<Message>>,
}

impl Routes {
    /// The table as KVM has it in a new machine.
    pub(super) fn new(vm: &Arc<VmFd>) -> Routes {
        Routes { vm: Arc::downgrade(vm), table: Mutex::new(Table { messages: Vec::new() }) }
    }

    /// Reserves the next `count` numbers.
    pub(super) fn reserve(routes: &Arc<Routes>, count: usize) -> Port {
        let mut table = routes.table.lock().unwrap_or_else(PoisonError::into_inner);
        let first = table.messages.len();
        table.messages.resize(first + count, None);
        Port { routes: Arc::clone(routes), first, count }
    }
}

/// The numbers of one device.
pub(super) struct Port {
    routes: Arc<Routes>,
    first: usize,
    count: usize,
}

impl Port {
    /// The first of them.
    pub(super) fn first(&self) -> u32 {
        layout::IO_APIC_PINS + self.first as u32
    }
}

impl Router for Port {
    fn route(&self, messages: &[(usize, Message)]) -> io::Result<()> {
        let vm = self.routes.vm.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        let mut table = self.routes.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = table.messages.clone();
        for (index, message) in messages.iter().filter(|(index, _)| *index < self.count) {
            changed[self.first + index] = Some(*message);
        }
        let routing = KvmIrqRouting::from_entries(&entries(&changed))
            .map_err(|_| io::Error::other("more interrupts than KVM has numbers for"))?;
        vm.set_gsi_routing(&routing).map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        table.messages = changed;
        Ok(())
    }
}

fn entries(messages: &[Option<Message>]) -> Vec<kvm_irq_routing_entry> {
    let pic = |pin: u32| match pin / PIC_PINS {
        0 => Some((KVM_IRQCHIP_PIC_MASTER, pin)),
        1 => Some((KVM_IRQCHIP_PIC_SLAVE, pin - PIC_PINS)),
        _ => None,
    };
    let pins = (0..layout::IO_APIC_PINS).flat_map(|gsi| {
        [Some((KVM_IRQCHIP_IOAPIC, gsi)), pic(gsi)].into_iter().flatten().map(move |chip| pin(gsi, chip))
    });
    let sent = (layout::IO_APIC_PINS..).zip(messages);
    pins.chain(sent.filter_map(|(gsi, message)| Some(msi(gsi, (*message)?)))).collect()
}

fn pin(gsi: u32, (irqchip, pin): (u32, u32)) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip.irqchip = irqchip;
    entry.u.irqchip.pin = pin;
    entry
}

fn msi(gsi: u32, message: Message) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi.address_lo = message.address as u32;
    entry.u.msi.address_hi = (message.address >> 32) as u32;
    entry.u.msi.data = message.data;
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_pin_and_what_is_sent() {
        let message = Message { address: 0xfee0_1000, data: 0x41 };
        let table = entries(&[None, Some(message)]);
        let chips = 2 * PIC_PINS + layout::IO_APIC_PINS;
        assert_eq!(table.len() as u32, chips + 1);
        let last = table.last().unwrap();
        assert_eq!((last.gsi, last.type_), (25, KVM_IRQ_ROUTING_MSI));
        // SAFETY: plain integers, as `msi` wrote them.
        assert_eq!(unsafe { (last.u.msi.address_lo, last.u.msi.data) }, (0xfee0_1000, 0x41));
    }
}
