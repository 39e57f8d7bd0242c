//! Guest memory from the host's pool of huge pages (hugetlbfs; Documentation/admin-guide/mm/hugetlbpage.rst).
//!
//! The pages are taken from the pool when the machine is made, all of them: it never lacks one later.

use std::fmt;
use std::fs::{self, File};
use std::io;

use rustix::fs::MemfdFlags;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap};

use super::{GuestMemory, layout};

/// The size of a huge page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HugePage {
    /// 2 MiB.
    Size2M,
    /// 1 GiB.
    Size1G,
}

impl HugePage {
    /// In bytes.
    pub fn bytes(self) -> u64 {
        match self {
            HugePage::Size2M => 2 << 20,
            HugePage::Size1G => 1 << 30,
        }
    }

    /// Where the host's pool of this size is described.
    fn pool(self) -> String {
        format!("/sys/kernel/mm/hugepages/hugepages-{}kB", self.bytes() >> 10)
    }

    /// Where it is made larger.
    fn knob(self) -> String {
        match self {
            HugePage::Size2M => "/proc/sys/vm/nr_hugepages".into(),
            HugePage::Size1G => format!("{}/nr_hugepages", self.pool()),
        }
    }

    fn free(self) -> Option<u64> {
        fs::read_to_string(self.pool() + "/free_hugepages").ok()?.trim().parse().ok()
    }

    fn memfd_flag(self) -> MemfdFlags {
        match self {
            HugePage::Size2M => MemfdFlags::HUGE_2MB,
            HugePage::Size1G => MemfdFlags::HUGE_1GB,
        }
    }
}

impl fmt::Display for HugePage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HugePage::Size2M => "2 MiB",
            HugePage::Size1G => "1 GiB",
        })
    }
}

/// The host cannot give the guest huge pages.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Part of a page would be left.
    #[error(
        "memory of {size} bytes is not a multiple of a huge page of {page}; ask for another size of memory"
    )]
    Uneven {
        /// What was asked for, in bytes.
        size: u64,
        /// The page.
        page: HugePage,
    },
    /// The pool is too small.
    #[error(
        "guest memory needs {needed} huge pages of {page}, and this host has {} free; \
         `echo {needed} > {}` makes a pool of them, or leave --hugepages out",
        .free.map_or("an unknown number".into(), |free| free.to_string()), .page.knob()
    )]
    TooFew {
        /// How many pages the machine needs.
        needed: u64,
        /// How many were free when that was found out.
        free: Option<u64>,
        /// The page.
        page: HugePage,
        /// The kernel's word for it.
        source: io::Error,
    },
    /// No pages of this size at all, or no descriptors.
    #[error(
        "this host gives no huge pages of {page} (has its kernel hugetlbfs, and its processor such pages?)"
    )]
    None {
        /// The page.
        page: HugePage,
        /// Why.
        source: io::Error,
    },
    /// The mappings do not make a memory; the layout makes sure that they do.
    #[error("cannot lay out guest memory")]
    Layout(#[source] vm_memory::mmap::FromRangesError),
}

/// As [`super::map`], with memory from the pool.
///
/// # Errors
/// There are too few huge pages, or `size` is not made of them.
pub fn map(size: u64, page: HugePage) -> Result<GuestMemory, Error> {
    if !size.is_multiple_of(page.bytes()) {
        return Err(Error::Uneven { size, page });
    }
    let none = |source: io::Error| Error::None { page, source };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | page.memfd_flag();
    let memfd = rustix::fs::memfd_create(c"guest", flags).map_err(|errno| none(errno.into()))?;
    let file = File::from(memfd);
    file.set_len(size).map_err(none)?;
    let mut regions = Vec::new();
    let mut offset = 0;
    for range in layout::ram(size) {
        let len = range.end - range.start;
        let file = file.try_clone().map_err(none)?;
        let mapping = MmapRegionBuilder::new(len as usize)
            .with_file_offset(FileOffset::new(file, offset))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED)
            .build()
            .map_err(|error| too_few(size, page, error))?;
        let region = GuestRegionMmap::new(mapping, GuestAddress(range.start));
        regions.push(region.ok_or(Error::Layout(vm_memory::mmap::FromRangesError::InvalidGuestRegion))?);
        offset += len;
    }
    GuestMemory::from_regions(regions).map_err(|error| Error::Layout(error.into()))
}

fn too_few(size: u64, page: HugePage, error: MmapRegionError) -> Error {
    let source = match error {
        MmapRegionError::Mmap(source) => source,
        other => io::Error::other(other),
    };
    Error::TooFew { needed: size / page.bytes(), free: page.free(), page, source }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryBackend};

    use super::*;

    #[test]
    fn part_of_a_page_is_refused() {
        let error = map((64 << 20) + 4096, HugePage::Size2M).unwrap_err();
        assert!(matches!(error, Error::Uneven { .. }), "{error}");
    }

    #[test]
    fn without_enough_pages_the_knob_is_named() {
        // No test machine has so many.
        let (size, page) = (1 << 44, HugePage::Size1G);
        match map(size, page).unwrap_err() {
            error @ Error::TooFew { .. } => {
                let text = error.to_string();
                assert!(text.contains("needs 16384 huge pages of 1 GiB"), "{text}");
                assert!(text.contains("hugepages-1048576kB/nr_hugepages"), "{text}");
            }
            error @ Error::None { .. } => println!("skipped: {error}"),
            error => panic!("{error}"),
        }
        let two =
            Error::TooFew { needed: 3, free: Some(1), page: HugePage::Size2M, source: io::Error::other("x") };
        assert!(two.to_string().contains("has 1 free; `echo 3 > /proc/sys/vm/nr_hugepages`"), "{two}");
    }

    #[test]
    fn huge_pages_are_memory() {
        if HugePage::Size2M.free().is_none_or(|free| free < 8) {
            return println!("skipped: this host has no huge pages to spare");
        }
        let memory = map(16 << 20, HugePage::Size2M).unwrap();
        memory.write_obj(7u32, GuestAddress((16 << 20) - 4)).unwrap();
        assert!(memory.iter().all(|region| vm_memory::GuestMemoryRegion::file_offset(region).is_some()));
    }
}
