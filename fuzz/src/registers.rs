//! Registers: both transports', with devices whose configuration can be written to, and the UART's.

use hv_vmm::device::Device;
use hv_vmm::device::serial::{Console, Serial};
use hv_vmm::device::virtio::VirtioDevice;
use hv_vmm::device::virtio::balloon::Balloon;
use hv_vmm::device::virtio::console::{End, VirtioConsole};
use hv_vmm::device::virtio::rng::Rng;

use crate::devices::memory_file;
use crate::input::Input;
use crate::rig::Rig;

/// What the console keeps, at most.
const KEPT: usize = 16 << 10;

fn device(choice: u8) -> Box<dyn VirtioDevice> {
    match choice % 3 {
        0 => Box::new(Rng::new()),
        1 => Box::new(Balloon::new(1 << 20).expect("it can be made")),
        _ => {
            let end = || End::file(memory_file("port", &[]));
            let named = (0..5).map(|port| (format!("port{port}"), end())).collect();
            Box::new(VirtioConsole::new(end(), named).expect("it can be made"))
        }
    }
}

/// virtio-mmio, from reset on.
pub fn mmio(data: &[u8]) {
    let mut input = Input(data);
    untouched(Rig::mmio(device(input.u8())), &mut input);
}

/// virtio-pci with its configuration space and MSI-X tables, from reset on.
pub fn pci(data: &[u8]) {
    let mut input = Input(data);
    untouched(Rig::pci(device(input.u8())), &mut input);
}

fn untouched(mut rig: Rig, input: &mut Input) {
    rig.obey(input, |_| {});
    rig.must_come_up();
}

/// The UART, with any access that a bus lets through.
pub fn serial(data: &[u8]) {
    let mut input = Input(data);
    let console = Console::new(false);
    let serial = Serial::new(console.clone());
    while !input.is_empty() {
        let what = input.u8();
        // Wider ones too, by `rep outs`.
        let width = [1, 1, 1, 2, 4, 8][usize::from(what >> 4) % 6];
        let offset = u64::from(what & 7).min(8 - width as u64);
        if what & 8 == 0 {
            serial.write(offset, &input.u64().to_le_bytes()[..width]);
        } else {
            serial.read(offset, &mut [0; 8][..width]);
        }
    }
    assert!(console.bytes().len() <= KEPT);
}
