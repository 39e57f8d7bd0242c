//! One request to a disk. Virtio 1.2, section 5.2.6.

use std::io;

use virtio_bindings::virtio_blk as spec;

use super::disk::{Disk, SECTOR};
use super::limits;
use crate::device::virtio::chain::{Buffers, Chain};

/// Bytes of the header before the data: type, reserved, sector.
const HEADER: usize = 16;
/// Bytes that describe one range to discard or to zero: sector, number of sectors, flags.
const RANGE: usize = 16;

/// Why a request is answered with an error.
enum Refusal {
    /// `VIRTIO_BLK_S_IOERR`: the request is wrong, or the host cannot do it now.
    Error,
    /// `VIRTIO_BLK_S_UNSUPP`.
    Unsupported,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Unsupported => Refusal::Unsupported,
            _ => Refusal::Error,
        }
    }
}

/// What requests are carried out on.
pub struct Target<'d> {
    /// The disk.
    pub disk: &'d Disk,
    /// Padded with zeros.
    pub serial: &'d [u8; spec::VIRTIO_BLK_ID_BYTES as usize],
    /// The driver cannot flush, so each write must be on the medium when it is answered.
    pub write_through: bool,
}

impl Target<'_> {
    /// Carries a request out and writes its status; how many bytes of the chain were written.
    pub fn serve(&self, chain: Chain) -> u32 {
        let Chain { mut readable, writable: mut data, .. } = chain;
        // Without room for the status there is no way to answer.
        let Some(status) = data.len().checked_sub(1).and_then(|at| data.split_off(at)) else { return 0 };
        let (code, written) = match self.carry_out(&mut readable, data) {
            Ok(written) => (spec::VIRTIO_BLK_S_OK, written + 1),
            Err(Refusal::Error) => (spec::VIRTIO_BLK_S_IOERR, 0),
            Err(Refusal::Unsupported) => (spec::VIRTIO_BLK_S_UNSUPP, 0),
        };
        status.copy_from(&[code as u8]);
        written
    }

    /// How many bytes of data were written to the guest.
    fn carry_out(&self, readable: &mut Buffers, data: Buffers) -> Result<u32, Refusal> {
        // The one time that the header is read.
        let header: [u8; HEADER] = readable.take_array().ok_or(Refusal::Error)?;
        let (kind, sector) = (u32_at(&header, 0), u64_at(&header, 8));
        if readable.len().max(data.len()) > limits::REQUEST_BYTES {
            return Err(Refusal::Error);
        }
        let written = data.len() as u32;
        match kind {
            spec::VIRTIO_BLK_T_IN => {
                let extent = self.disk.extent(sector, data.len() as u64).ok_or(Refusal::Error)?;
                self.disk.read(extent, data)?;
                return Ok(written);
            }
            spec::VIRTIO_BLK_T_OUT => {
                let extent = self.disk.extent(sector, readable.len() as u64).ok_or(Refusal::Error)?;
                self.disk.write(extent, readable.clone())?;
                self.write_through()?;
            }
            spec::VIRTIO_BLK_T_FLUSH => self.disk.flush()?,
            spec::VIRTIO_BLK_T_GET_ID => return Ok(data.copy_from(self.serial) as u32),
            spec::VIRTIO_BLK_T_DISCARD | spec::VIRTIO_BLK_T_WRITE_ZEROES => self.clear(kind, readable)?,
            _ => return Err(Refusal::Unsupported),
        }
        Ok(0)
    }

    fn write_through(&self) -> io::Result<()> {
        if self.write_through { self.disk.flush() } else { Ok(()) }
    }

    /// Discards ranges, or makes them zero. All are checked before the first is touched.
    fn clear(&self, kind: u32, ranges: &mut Buffers) -> Result<(), Refusal> {
        let count = ranges.len() / RANGE;
        if count == 0 || count > limits::CLEAR_RANGES || !ranges.len().is_multiple_of(RANGE) {
            return Err(Refusal::Error);
        }
        let mut extents = Vec::with_capacity(count);
        while let Some(range) = ranges.take_array::<RANGE>() {
            let (sector, sectors, flags) = (u64_at(&range, 0), u32_at(&range, 8), u32_at(&range, 12));
            let zeroes = kind == spec::VIRTIO_BLK_T_WRITE_ZEROES;
            let allowed = if zeroes { spec::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP } else { 0 };
            if flags & !allowed != 0 {
                return Err(Refusal::Unsupported);
            }
            let extent = self.disk.extent(sector, u64::from(sectors) * SECTOR);
            let extent = extent.filter(|_| sectors <= limits::CLEAR_SECTORS).ok_or(Refusal::Error)?;
            extents.push((extent, zeroes && flags == 0));
        }
        for (extent, keep_space) in extents {
            if keep_space { self.disk.zero(extent)? } else { self.disk.discard(extent)? }
        }
        Ok(self.write_through()?)
    }
}

fn u32_at(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes(core::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8; 16], at: usize) -> u64 {
    u64::from_le_bytes(core::array::from_fn(|i| bytes[at + i]))
}
