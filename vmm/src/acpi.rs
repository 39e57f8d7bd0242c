//! The tables by which the guest finds its processors, interrupts and devices: ACPI 6.5 in its
//! hardware-reduced form (section 4.1), which has no legacy hardware to describe.

use std::sync::Arc;

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};

use crate::device::{Device, power, reset};
use crate::memory::layout;

/// Who made the tables, which machine they describe, and which revision of it.
pub(crate) const OEM: [u8; 6] = *b"HVHVHV";
pub(crate) const TABLE: [u8; 8] = *b"HVMICRO1";
pub(crate) const REVISION: u32 = 1;

/// IAPC_BOOT_ARCH of the FADT (section 5.2.9.3): neither VGA nor CMOS clock; and, by their absence, no
/// keyboard controller and no other legacy devices to probe for.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_CLOCK: u16 = 1 << 5;

/// The tables do not fit where they must be.
#[derive(Debug, thiserror::Error)]
#[error("the ACPI tables of this machine take {len} bytes, more than the {} reserved for them", space())]
pub struct TooLong {
    len: usize,
}

fn space() -> u64 {
    layout::ACPI.end - layout::ACPI.start
}

/// All tables as they stand at the start of [`layout::ACPI`], the RSDP first.
///
/// # Errors
/// Too many devices.
pub fn tables(vcpus: u8, devices: &[Arc<dyn Device>]) -> Result<Vec<u8>, TooLong> {
    let mut area = Area(vec![0; Rsdp::len()]);
    let dsdt = area.append(&dsdt(devices));
    let fadt = area.append(&bytes(&fadt(dsdt)));
    let madt = area.append(&bytes(&madt(vcpus)));
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    for table in devices.iter().filter_map(|device| device.table()) {
        xsdt.add_entry(area.append(&table));
    }
    let xsdt = area.append(&bytes(&xsdt));
    area.0[..Rsdp::len()].copy_from_slice(&bytes(&Rsdp::new(OEM, xsdt)));
    let len = area.0.len();
    if len as u64 > space() { Err(TooLong { len }) } else { Ok(area.0) }
}

/// Tables one after the other, each at a multiple of 16.
struct Area(Vec<u8>);

impl Area {
    /// Appends a table and returns its guest address.
    fn append(&mut self, table: &[u8]) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(16), 0);
        let address = layout::ACPI.start + self.0.len() as u64;
        self.0.extend_from_slice(table);
        address
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// The devices, each as it describes itself.
fn dsdt(devices: &[Arc<dyn Device>]) -> Vec<u8> {
    let mut nodes = Vec::new();
    for device in devices {
        device.aml(&mut nodes);
    }
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, REVISION);
    dsdt.append_slice(&aml::Scope::raw("\\_SB_".into(), nodes));
    dsdt.as_slice().to_vec()
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let port = |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(port));
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_CLOCK).into();
    fadt.reset_reg = port(reset::PORT);
    fadt.reset_value = reset::COMMAND;
    fadt.sleep_control_reg = port(power::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(power::SLEEP_STATUS);
    fadt.finalize()
}

fn madt(vcpus: u8) -> MADT {
    let mut madt =
        MADT::new(OEM, TABLE, REVISION, LocalInterruptController::Address(layout::LOCAL_APIC as u32));
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IO_APIC as u32, 0));
    madt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::pci::bridge::HostBridge;
    use crate::device::power::Power;
    use crate::end::Ending;

    fn at(tables: &[u8], address: u64) -> &[u8] {
        &tables[(address - layout::ACPI.start) as usize..]
    }

    fn word(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    /// The table at this address, its checksum proved.
    fn table<'a>(tables: &'a [u8], address: u64, signature: &[u8; 4]) -> &'a [u8] {
        let table = at(tables, address);
        let len = u32::from_le_bytes(table[4..8].try_into().unwrap()) as usize;
        assert_eq!(&table[..4], signature);
        assert_eq!(sum(&table[..len]), 0, "checksum");
        &table[..len]
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn every_table_is_reached_and_sums_to_zero() {
        let power: Arc<dyn Device> = Arc::new(Power::new(Ending::new().unwrap()));
        let tables = tables(4, &[power]).unwrap();
        assert_eq!(&tables[..8], b"RSD PTR ");
        assert_eq!((sum(&tables[..20]), sum(&tables[..36])), (0, 0));
        let xsdt = table(&tables, word(&tables, 24), b"XSDT");
        let fadt = table(&tables, word(xsdt, 36), b"FACP");
        let dsdt = table(&tables, word(fadt, 140), b"DSDT");
        assert!(dsdt.windows(4).any(|name| name == b"_S5_"), "a device's own node is in it");
        let madt = table(&tables, word(xsdt, 44), b"APIC");
        assert_eq!(madt.len(), 44 + 4 * 8 + 12);
    }

    /// ACPI 6.5, section 5.2.12.2: type 0, 8 bytes, the processor's and its APIC's number, bit 0 of the flags.
    #[test]
    fn each_of_64_processors_is_in_the_tables_once() {
        for vcpus in [1, 2, 63, 64] {
            let tables = tables(vcpus, &[]).unwrap();
            let madt = table(&tables, word(table(&tables, word(&tables, 24), b"XSDT"), 44), b"APIC");
            let mut rest = &madt[44..];
            let mut processors = Vec::new();
            let mut controllers = 0;
            while let [kind, len, ..] = *rest {
                match kind {
                    0 => processors.push(rest[2..8].to_vec()),
                    1 => controllers += 1,
                    other => panic!("a structure of type {other}"),
                }
                rest = &rest[usize::from(len)..];
            }
            let expected: Vec<_> = (0..vcpus).map(|id| vec![id, id, 1, 0, 0, 0]).collect();
            assert_eq!((processors, controllers), (expected, 1), "{vcpus}");
        }
    }

    #[test]
    fn a_devices_own_table_is_reached() {
        let bridge: Arc<dyn Device> = Arc::new(HostBridge::new(Vec::new()));
        let tables = tables(1, &[bridge]).unwrap();
        let xsdt = table(&tables, word(&tables, 24), b"XSDT");
        let mcfg = table(&tables, word(xsdt, 52), b"MCFG");
        assert_eq!((word(mcfg, 44), word(mcfg, 52)), (layout::PCI_ECAM.start, 0), "one bus, segment 0");
        let fadt = table(&tables, word(xsdt, 36), b"FACP");
        let dsdt = table(&tables, word(fadt, 140), b"DSDT");
        assert!(dsdt.windows(4).any(|name| name == b"PCI0"));
    }

    #[test]
    fn a_reset_is_a_byte_to_the_port() {
        let tables = tables(1, &[]).unwrap();
        let xsdt = table(&tables, word(&tables, 24), b"XSDT");
        let fadt = table(&tables, word(xsdt, 36), b"FACP");
        assert_eq!(word(fadt, 120), u64::from(reset::PORT));
        assert_eq!(fadt[128], reset::COMMAND);
        assert_eq!(word(fadt, 244 + 4), u64::from(power::SLEEP_CONTROL));
    }
}
