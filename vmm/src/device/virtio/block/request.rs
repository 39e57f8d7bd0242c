//! What a driver asks of a disk. Virtio 1.2, section 5.2.6.
//!
//! A request is read once and checked as a whole before any of it is carried out.

use std::io;

use virtio_bindings::virtio_blk as spec;
use vm_memory::GuestAddress;

use super::disk::{Disk, Extent, SECTOR};
use super::limits;
use crate::device::virtio::chain::{Buffers, Chain};

/// Bytes of the header before the data: type, reserved, sector.
const HEADER: usize = 16;
/// Bytes that describe one range to discard or to zero: sector, number of sectors, flags.
const RANGE: usize = 16;

/// Why a request is answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
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

/// The status byte of an answer.
pub fn status(result: Result<(), Refusal>) -> u8 {
    let code = match result {
        Ok(()) => spec::VIRTIO_BLK_S_OK,
        Err(Refusal::Error) => spec::VIRTIO_BLK_S_IOERR,
        Err(Refusal::Unsupported) => spec::VIRTIO_BLK_S_UNSUPP,
    };
    code as u8
}

/// What is to be done.
#[derive(Debug)]
pub enum Request<'m> {
    /// Fill the buffers from the disk.
    Read(Extent, Buffers<'m>),
    /// Write the buffers to the disk.
    Write(Extent, Buffers<'m>),
    /// Make what was written last.
    Flush,
    /// Tell the serial number.
    Identify(Buffers<'m>),
    /// Discard these ranges, or make them zero.
    Clear(Vec<(Extent, Clear)>),
}

/// What becomes of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clear {
    /// Nobody needs its content any more.
    Discard,
    /// It reads as zeros; with `release`, it need not keep its space.
    Zero {
        /// `VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP`.
        release: bool,
    },
}

/// A request, and where its status goes: None if the driver left no room for an answer.
#[derive(Debug)]
pub struct Asked<'m> {
    /// The request, if it makes sense.
    pub request: Result<Request<'m>, Refusal>,
    /// Guest address of the status byte.
    pub status: Option<GuestAddress>,
}

impl<'m> Asked<'m> {
    /// Reads a chain.
    pub fn read(disk: &Disk, chain: Chain<'m>) -> Asked<'m> {
        let Chain { readable, writable: mut data, .. } = chain;
        match data.take_last() {
            Some(status) => Asked { request: parse(disk, readable, data), status: Some(status) },
            None => Asked { request: Err(Refusal::Error), status: None },
        }
    }

    /// How many bytes of data are moved.
    pub fn bytes(&self) -> usize {
        match &self.request {
            Ok(Request::Read(_, buffers) | Request::Write(_, buffers)) => buffers.len(),
            _ => 0,
        }
    }
}

fn parse<'m>(disk: &Disk, mut readable: Buffers<'m>, data: Buffers<'m>) -> Result<Request<'m>, Refusal> {
    // The one time that the header is read.
    let header: [u8; HEADER] = readable.take_array().ok_or(Refusal::Error)?;
    let (kind, sector) = (u32_at(&header, 0), u64_at(&header, 8));
    if readable.len().max(data.len()) > limits::REQUEST_BYTES {
        return Err(Refusal::Error);
    }
    let extent = |bytes: usize| disk.extent(sector, bytes as u64).ok_or(Refusal::Error);
    match kind {
        spec::VIRTIO_BLK_T_IN => Ok(Request::Read(extent(data.len())?, data)),
        spec::VIRTIO_BLK_T_OUT => {
            disk.writable()?;
            Ok(Request::Write(extent(readable.len())?, readable))
        }
        spec::VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
        spec::VIRTIO_BLK_T_GET_ID => Ok(Request::Identify(data)),
        spec::VIRTIO_BLK_T_DISCARD | spec::VIRTIO_BLK_T_WRITE_ZEROES => {
            disk.writable()?;
            ranges(disk, kind == spec::VIRTIO_BLK_T_DISCARD, readable)
        }
        _ => Err(Refusal::Unsupported),
    }
}

fn ranges<'m>(disk: &Disk, discard: bool, mut ranges: Buffers<'m>) -> Result<Request<'m>, Refusal> {
    let count = ranges.len() / RANGE;
    if count == 0 || count > limits::CLEAR_RANGES || !ranges.len().is_multiple_of(RANGE) {
        return Err(Refusal::Error);
    }
    let mut all = Vec::with_capacity(count);
    while let Some(range) = ranges.take_array::<RANGE>() {
        let (sector, sectors, flags) = (u64_at(&range, 0), u32_at(&range, 8), u32_at(&range, 12));
        let clear = match (discard, flags) {
            (true, 0) => Clear::Discard,
            (false, 0) => Clear::Zero { release: false },
            (false, spec::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) => Clear::Zero { release: true },
            _ => return Err(Refusal::Unsupported),
        };
        let extent = disk.extent(sector, u64::from(sectors) * SECTOR);
        all.push((extent.filter(|_| sectors <= limits::CLEAR_SECTORS).ok_or(Refusal::Error)?, clear));
    }
    Ok(Request::Clear(all))
}

fn u32_at(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes(core::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8; 16], at: usize) -> u64 {
    u64::from_le_bytes(core::array::from_fn(|i| bytes[at + i]))
}
