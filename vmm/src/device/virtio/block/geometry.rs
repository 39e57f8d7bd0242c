//! In which units a disk likes to be read and written.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, StatxFlags, ioctl_blkpbszget, ioctl_blksszget, statx};

use super::disk::SECTOR;

/// What a file system's block is taken for when it says nothing sensible.
const PAGE: u32 = 4096;
/// `STATX_DIOALIGN`, Linux 6.1.
const DIOALIGN: u32 = 0x2000;

/// Sizes in bytes, powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// The least that can be read or written: 512 to 4096.
    pub logical: u32,
    /// The least that can be written without reading what is around it; at least `logical`.
    pub physical: u32,
    /// What is best read or written at once; 0 if all the same.
    pub optimal: u32,
}

impl Geometry {
    /// Of an opened file or block device. What the host does not tell is assumed to be usual.
    pub fn of(file: &File, block_device: bool, direct: bool) -> Geometry {
        let sector = SECTOR as u32;
        if block_device {
            let logical = ioctl_blksszget(file).unwrap_or(sector);
            Geometry::sane(logical, ioctl_blkpbszget(file).unwrap_or(logical), optimal(file))
        } else {
            let logical = if direct { direct_alignment(file).unwrap_or(sector) } else { sector };
            let physical = file.metadata().map_or(PAGE, |data| data.blksize().try_into().unwrap_or(PAGE));
            Geometry::sane(logical, physical, 0)
        }
    }

    fn sane(logical: u32, physical: u32, optimal: u32) -> Geometry {
        let size =
            |size: u32, or: u32| if size.is_power_of_two() && size >= SECTOR as u32 { size } else { or };
        let logical = size(logical, SECTOR as u32).min(PAGE);
        let physical = size(physical, PAGE).clamp(logical, 1 << 16);
        let optimal = if optimal.is_multiple_of(logical) { optimal } else { 0 };
        Geometry { logical, physical, optimal }
    }

    /// Logical blocks in a physical one, as a power of two.
    pub fn physical_exponent(&self) -> u8 {
        // `sane` keeps both powers of two within 2^9 to 2^16.
        (self.physical.trailing_zeros() - self.logical.trailing_zeros()) as u8
    }
}

/// What offsets must be multiples of, for I/O around the page cache; None if the host does not tell.
fn direct_alignment(file: &File) -> Option<u32> {
    let found = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::from_bits_retain(DIOALIGN)).ok()?;
    (found.stx_mask & DIOALIGN != 0 && found.stx_dio_offset_align != 0).then_some(found.stx_dio_offset_align)
}

/// As the device says in sysfs; a partition's device is the folder above.
fn optimal(file: &File) -> u32 {
    let Ok(device) = file.metadata().map(|data| data.rdev()) else { return 0 };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let read = |up: &str| {
        fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/{up}queue/optimal_io_size")).ok()
    };
    read("").or_else(|| read("../")).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_has_sectors_and_pages() {
        let file = tempfile::tempfile().unwrap();
        let geometry = Geometry::of(&file, false, false);
        assert_eq!((geometry.logical, geometry.optimal), (512, 0));
        assert!(geometry.physical >= 512);
    }

    proptest! {
        #[test]
        fn whatever_the_host_says_is_made_sane(logical: u32, physical: u32, near in 0u32..20, optimal: u32) {
            for (logical, physical) in [(logical, physical), (1 << near, 1 << (20 - near))] {
                let geometry = Geometry::sane(logical, physical, optimal);
                prop_assert!((512..=4096).contains(&geometry.logical) && geometry.logical.is_power_of_two());
                prop_assert_eq!(geometry.logical << geometry.physical_exponent(), geometry.physical);
                prop_assert_eq!(geometry.optimal % geometry.logical, 0);
            }
        }
    }
}
