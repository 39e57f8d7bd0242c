//! The power button of a machine without ACPI's fixed hardware: a button in name (`PNP0C0C`), and a generic
//! event device (ACPI 6.5, section 5.6.9) whose interrupt says that it was pressed.
//!
//! It is the way to ask a guest to end whose own system listens for it. A guest of hv has hv-init for that,
//! which is asked over its connection; the button is pressed when hv-init does not answer.

use acpi_tables::{Aml, aml};

use super::line::Line;
use super::{Device, Range};

/// The interrupt: a second serial port would have it.
const GSI: u32 = 3;
/// A device must answer somewhere: this port, with nothing. It is beside those of the sleep registers.
const PORT: u16 = 0x602;
/// "Pressed", to the button's driver (ACPI 6.5, table 5.173).
const PRESSED: u8 = 0x80;

/// The button.
#[derive(Debug)]
pub struct Button(Line);

impl Default for Button {
    fn default() -> Button {
        Button::new()
    }
}

impl Button {
    /// A button that nobody has pressed.
    pub fn new() -> Button {
        Button(Line::new(GSI))
    }

    /// Presses it, for a moment.
    pub fn press(&self) {
        self.0.raise();
    }
}

impl Device for Button {
    fn name(&self) -> &str {
        "power button"
    }

    fn range(&self) -> Range {
        Range::ports(PORT, 1)
    }

    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}

    fn interrupt(&self) -> Option<&Line> {
        Some(&self.0)
    }

    /// The button, and the event device that notifies it.
    fn aml(&self, dsdt: &mut Vec<u8>) {
        let button = aml::EISAName::new("PNP0C0C");
        let hid = aml::Name::new("_HID".into(), &button);
        let uid = aml::Name::new("_UID".into(), &aml::ZERO);
        aml::Device::new("PWRB".into(), vec![&hid, &uid]).to_aml_bytes(dsdt);

        let interrupt = aml::Interrupt::new(true, true, false, false, GSI);
        let resources = aml::ResourceTemplate::new(vec![&interrupt]);
        let hid = aml::Name::new("_HID".into(), &"ACPI0013");
        let crs = aml::Name::new("_CRS".into(), &resources);
        let path = aml::Path::new("PWRB");
        let notify = aml::Notify::new(&path, &PRESSED);
        let event = aml::Method::new("_EVT".into(), 1, true, vec![&notify]);
        aml::Device::new("GED_".into(), vec![&hid, &uid, &crs, &event]).to_aml_bytes(dsdt);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::device::line::tests::Edges;

    #[test]
    fn a_press_is_one_interrupt() {
        let (button, edges) = (Button::new(), Arc::new(Edges::default()));
        button.interrupt().unwrap().connect(edges.clone());
        assert_eq!(edges.take(), 0, "nobody pressed it");
        button.press();
        assert_eq!(edges.take(), 1);
    }

    #[test]
    fn both_names_are_in_the_tables() {
        let mut dsdt = Vec::new();
        Button::new().aml(&mut dsdt);
        for name in [&b"PWRB"[..], b"ACPI0013", b"_EVT"] {
            assert!(dsdt.windows(name.len()).any(|bytes| bytes == name), "{name:?}");
        }
    }
}
