//! The host bridge: the bus's configuration accesses (ECAM; PCI Express Base 5.0, section 7.2.2), and how
//! the guest finds bus and ECAM (ACPI 6.5; PCI Firmware 3.3, section 4.1).

use std::sync::Arc;

use acpi_tables::aml::AddressSpaceCacheable;
use acpi_tables::mcfg::MCFG;
use acpi_tables::{Aml, aml};

use super::{Function, SLOTS};
use crate::acpi;
use crate::device::{Device, Range};
use crate::memory::layout;

/// Bytes of the window for each function.
const STEP: u64 = 0x1000;
/// Functions in a slot.
const FUNCTIONS: u64 = 8;
/// A function's configuration space; what follows in its step is of PCI Express, and empty.
const SPACE: u64 = 0x100;

/// The bridge and the functions behind it, by slot.
pub struct HostBridge {
    functions: Vec<Arc<dyn Function>>,
}

impl HostBridge {
    /// One bus with these functions, in slots from 0; more than [`SLOTS`] cannot be reached.
    pub fn new(functions: Vec<Arc<dyn Function>>) -> HostBridge {
        HostBridge { functions }
    }

    /// The function that a configuration access means, and the offset in its step.
    fn find(&self, offset: u64, len: usize) -> Option<(&dyn Function, u64)> {
        let (number, register) = (offset / STEP, offset % STEP);
        let regular = matches!(len, 1 | 2 | 4) && register.is_multiple_of(len as u64);
        let slot = usize::try_from(number / FUNCTIONS).ok().filter(|slot| *slot < SLOTS)?;
        let function = self.functions.get(slot)?;
        (regular && number % FUNCTIONS == 0).then(|| (&**function, register))
    }
}

impl Device for HostBridge {
    fn name(&self) -> &str {
        "pci0"
    }

    fn range(&self) -> Range {
        Range::memory(layout::PCI_ECAM.start, layout::PCI_ECAM.end - layout::PCI_ECAM.start)
    }

    /// Where no function is, all ones are read: that is how guests know.
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.find(offset, data.len()) {
            Some((function, register)) if register < SPACE => function.read_config(register as u8, data),
            Some(_) => data.fill(0),
            None => {}
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((function, register)) = self.find(offset, data.len())
            && register < SPACE
        {
            function.write_config(register as u8, data);
        }
    }

    /// The bus, and ECAM as a motherboard's resource: Linux believes the MCFG table only then.
    fn aml(&self, dsdt: &mut Vec<u8>) {
        let buses = aml::AddressSpace::new_bus_number(0u16, 0u16);
        let window = layout::PCI_WINDOW;
        // The window is in the hole, below 4 GiB.
        let window = aml::AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            window.start as u32,
            (window.end - 1) as u32,
            None,
        );
        let resources = aml::ResourceTemplate::new(vec![&buses, &window]);
        let (express, conventional) = (aml::EISAName::new("PNP0A08"), aml::EISAName::new("PNP0A03"));
        let names = [
            aml::Name::new("_HID".into(), &express),
            aml::Name::new("_CID".into(), &conventional),
            aml::Name::new("_UID".into(), &aml::ZERO),
            aml::Name::new("_SEG".into(), &aml::ZERO),
            aml::Name::new("_BBN".into(), &aml::ZERO),
            aml::Name::new("_CCA".into(), &aml::ONE),
            aml::Name::new("_CRS".into(), &resources),
        ];
        let names = names.iter().map(|name| name as &dyn Aml).collect();
        aml::Device::new("PCI0".into(), names).to_aml_bytes(dsdt);

        let ecam = aml::Memory32Fixed::new(true, self.range().base as u32, self.range().len as u32);
        let resources = aml::ResourceTemplate::new(vec![&ecam]);
        let motherboard = aml::EISAName::new("PNP0C02");
        let names = [
            aml::Name::new("_HID".into(), &motherboard),
            aml::Name::new("_UID".into(), &aml::ZERO),
            aml::Name::new("_CRS".into(), &resources),
        ];
        let [hid, uid, crs] = &names;
        aml::Device::new("ECAM".into(), vec![hid, uid, crs]).to_aml_bytes(dsdt);
    }

    fn table(&self) -> Option<Vec<u8>> {
        let mut table = MCFG::new(acpi::OEM, acpi::TABLE, acpi::REVISION);
        table.add_ecam(self.range().base, 0, 0, 0);
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<(u8, Vec<u8>)>>);

    impl Function for Recorder {
        fn read_config(&self, offset: u8, data: &mut [u8]) {
            data.fill(offset);
        }
        fn write_config(&self, offset: u8, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    fn bridge() -> (HostBridge, Arc<Recorder>) {
        let second = Arc::new(Recorder::default());
        (HostBridge::new(vec![Arc::new(Recorder::default()), second.clone()]), second)
    }

    fn read(bridge: &HostBridge, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0xff; len];
        bridge.read(offset, &mut data);
        data
    }

    #[test]
    fn accesses_reach_their_function() {
        let (bridge, second) = bridge();
        bridge.write(0x8010, &[1, 2]);
        assert_eq!(*second.0.lock().unwrap(), [(0x10, vec![1, 2])]);
        assert_eq!(read(&bridge, 0x80fc, 4), [0xfc; 4]);
        assert_eq!(read(&bridge, 0x8100, 4), [0; 4], "no extended capabilities");
    }

    #[test]
    fn where_no_function_is_all_ones_are_read() {
        let (bridge, _) = bridge();
        for offset in [0x1000, 0x9000, 0x1_0000, 0xf_f000, 0x10_0000, !3] {
            assert_eq!(read(&bridge, offset, 4), [0xff; 4], "{offset:#x}");
        }
    }

    #[test]
    fn bug_04_odd_accesses_reach_nobody() {
        let (bridge, second) = bridge();
        for (offset, len) in [(0x8001, 2), (0x8002, 4), (0x8003, 2), (0x8000, 8), (0x8000, 3), (0x8000, 0)] {
            assert_eq!(read(&bridge, offset, len), vec![0xff; len], "{offset:#x} {len}");
            bridge.write(offset, &vec![0; len]);
        }
        assert!(second.0.lock().unwrap().is_empty());
    }
}
