//! pvpanic: the guest's kernel says at once that it has panicked, before it does whatever its `panic=`
//! asks for (QEMU's docs/specs/pvpanic.rst, its ISA form; in Linux drivers/misc/pvpanic).

use acpi_tables::{Aml, aml};

use super::{Device, Range};
use crate::end::{End, Ending};

/// The port that QEMU has it at.
pub const PORT: u16 = 0x505;
/// The guest has panicked, and its own crash dump, if any, does not help us: it is over.
const PANICKED: u8 = 1 << 0;

/// The port.
pub struct Panic(Ending);

impl Panic {
    /// Tells the machine's end.
    pub fn new(ending: Ending) -> Panic {
        Panic(ending)
    }
}

impl Device for Panic {
    fn name(&self) -> &str {
        "pvpanic"
    }

    fn range(&self) -> Range {
        Range::ports(PORT, 1)
    }

    /// The events that may be told.
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(PANICKED);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if data.first().is_some_and(|events| events & PANICKED != 0) {
            self.0.tell(End::Panic);
        }
    }

    /// `QEMU0001`, as Linux's pvpanic-mmio driver looks for it.
    fn aml(&self, dsdt: &mut Vec<u8>) {
        let port = aml::IO::new(PORT, PORT, 1, 1);
        let resources = aml::ResourceTemplate::new(vec![&port]);
        let hid = aml::Name::new("_HID".into(), &"QEMU0001");
        let crs = aml::Name::new("_CRS".into(), &resources);
        aml::Device::new("PEVT".into(), vec![&hid, &crs]).to_aml_bytes(dsdt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_and_nothing_else() {
        let ending = Ending::new().unwrap();
        let panic = Panic::new(ending.clone());
        let mut events = [0xff];
        panic.read(0, &mut events);
        assert_eq!(events, [PANICKED]);
        // "A crash kernel was loaded": the guest goes on.
        panic.write(0, &[1 << 1]);
        panic.write(0, &[]);
        assert_eq!(ending.get(), None);
        panic.write(0, &[PANICKED]);
        assert_eq!(ending.get(), Some(&End::Panic));
    }
}
