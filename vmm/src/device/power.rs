//! Power-off through the sleep registers of hardware-reduced ACPI (ACPI 6.5, section 4.8.3.7).

use acpi_tables::Aml;
use acpi_tables::aml;

use super::{Device, Range};
use crate::end::{End, Ending};

/// The sleep control register.
pub const SLEEP_CONTROL: u16 = 0x600;
/// The sleep status register.
pub const SLEEP_STATUS: u16 = 0x601;

/// SLP_EN: enter the state of SLP_TYP.
const ENABLE: u8 = 1 << 5;
/// Shift of SLP_TYP, 3 bits.
const TYPE_SHIFT: u8 = 2;
/// Our SLP_TYP of S5, soft off.
const S5: u8 = 5;

/// The power button's other side: the guest switches itself off.
pub struct Power(Ending);

impl Power {
    /// Tells the machine's end.
    pub fn new(ending: Ending) -> Power {
        Power(ending)
    }
}

impl Device for Power {
    fn name(&self) -> &str {
        "power"
    }

    fn range(&self) -> Range {
        Range::ports(SLEEP_CONTROL, 2)
    }

    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let soft_off = ENABLE | S5 << TYPE_SHIFT;
        if offset == 0 && data.first() == Some(&soft_off) {
            self.0.tell(End::PowerOff);
        }
    }

    /// `\_S5`: the SLP_TYP to write for soft off.
    fn aml(&self, dsdt: &mut Vec<u8>) {
        let package = aml::Package::new(vec![&S5, &aml::ZERO]);
        aml::Name::new("\\_S5_".into(), &package).to_aml_bytes(dsdt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_s5_with_enable_switches_off() {
        let ending = Ending::new().unwrap();
        let power = Power::new(ending.clone());
        power.write(0, &[S5 << TYPE_SHIFT]);
        power.write(1, &[ENABLE | S5 << TYPE_SHIFT]);
        power.write(0, &[ENABLE | 3 << TYPE_SHIFT]);
        assert_eq!(ending.get(), None);
        power.write(0, &[ENABLE | S5 << TYPE_SHIFT]);
        assert_eq!(ending.get(), Some(&End::PowerOff));
    }
}
