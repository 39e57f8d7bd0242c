//! Where a driver finds the parts of a device: the capabilities of a virtio function.
//! Virtio 1.2, section 4.1.4.

use super::{COMMON, DEVICE, ISR, NOTIFY, NOTIFY_STEP, PENDING, REGION, TABLE, common};
use crate::device::pci::config::ConfigSpace;
use crate::device::pci::msix::{self, Msix};

/// Vendor-specific capability; kinds of it.
const VENDOR_SPECIFIC: u8 = 9;
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// Within a `virtio_pci_cap`: the region's number, offset and length in it, and what follows.
const CAP_BAR: u8 = 4;
const CAP_OFFSET: u8 = 8;
const CAP_LENGTH: u8 = 12;
const CAP_END: u8 = 16;

/// Where the capabilities are that mean more than their bytes.
pub(super) struct Offsets {
    /// MSI-X.
    pub msix: u8,
    /// Access to the region by way of the configuration space.
    pub access: u8,
}

/// Adds all of them; None if they do not fit, which does not depend on the device.
pub(super) fn add(space: &mut ConfigSpace, msix: &Msix, queues: usize, config_len: usize) -> Option<Offsets> {
    let notify_len = NOTIFY_STEP * queues.max(1) as u64;
    add_virtio(space, COMMON_CFG, COMMON, common::LEN, &[])?;
    add_virtio(space, NOTIFY_CFG, NOTIFY, notify_len, &(NOTIFY_STEP as u32).to_le_bytes())?;
    add_virtio(space, ISR_CFG, ISR, 1, &[])?;
    // A device without a configuration space has none, rather than an empty one.
    if config_len > 0 {
        add_virtio(space, DEVICE_CFG, DEVICE, config_len as u64, &[])?;
    }
    let msix_at = add_msix(space, msix)?;
    let mut body = virtio(PCI_CFG, 0, 0, 4);
    let mut writable = vec![0; body.len()];
    // Region, offset, length and data are the driver's; the numbers count from behind id and link.
    for at in (CAP_BAR..=CAP_BAR).chain(CAP_OFFSET..CAP_END + 4) {
        writable[usize::from(at) - 2] = 0xff;
    }
    body[usize::from(CAP_LENGTH) - 2] = 0;
    let access = space.add_capability(VENDOR_SPECIFIC, &body, &writable)?;
    Some(Offsets { msix: msix_at, access })
}

fn add_virtio(space: &mut ConfigSpace, kind: u8, offset: u64, len: u64, more: &[u8]) -> Option<u8> {
    let body = virtio(kind, offset, len, more.len() as u8);
    let mut body = body[..usize::from(CAP_END) - 2].to_vec();
    body.extend_from_slice(more);
    space.add_capability(VENDOR_SPECIFIC, &body, &vec![0; body.len()])
}

/// A `virtio_pci_cap` with `more` bytes of zero behind it, without id and link.
fn virtio(kind: u8, offset: u64, len: u64, more: u8) -> Vec<u8> {
    let mut body = vec![CAP_END + more, kind, 0, 0, 0, 0];
    body.extend_from_slice(&(offset as u32).to_le_bytes());
    body.extend_from_slice(&(len as u32).to_le_bytes());
    body.resize(body.len() + usize::from(more), 0);
    body
}

/// Table and pending bits are in region 0: the low three bits of their offsets say so.
fn add_msix(space: &mut ConfigSpace, msix: &Msix) -> Option<u8> {
    let mut body = msix.control().to_le_bytes().to_vec();
    body.extend_from_slice(&(TABLE as u32).to_le_bytes());
    body.extend_from_slice(&(PENDING as u32).to_le_bytes());
    let mut writable = vec![0; body.len()];
    writable[..2].copy_from_slice(&msix::CONTROL_WRITABLE.to_le_bytes());
    space.add_capability(msix::CAPABILITY, &body, &writable)
}

/// An access to the region that a driver makes through the configuration space: it has written where, and
/// now reads or writes the data field. Section 4.1.4.9.
pub(super) struct ConfigAccess {
    /// In the region.
    pub offset: u64,
}

impl ConfigAccess {
    /// The access that is meant by one of `len` bytes at `offset` of the configuration space, with the
    /// capability at `at`. None if it is none, or not one that could be made directly.
    pub fn find(space: &ConfigSpace, at: u8, offset: u8, len: usize) -> Option<ConfigAccess> {
        let is_data = offset == at.checked_add(CAP_END)?;
        let region = space.u32(at.checked_add(CAP_BAR)?) & 0xff;
        let target = u64::from(space.u32(at.checked_add(CAP_OFFSET)?));
        let asked = space.u32(at.checked_add(CAP_LENGTH)?) as usize;
        let regular = matches!(len, 1 | 2 | 4) && asked == len && target.is_multiple_of(len as u64);
        (is_data && region == 0 && regular && target < REGION).then_some(ConfigAccess { offset: target })
    }
}
