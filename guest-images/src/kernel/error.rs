//! Why a file is not a kernel that hv starts, in the user's words.

use std::io;
use std::path::{Path, PathBuf};

use super::elf::NotElf;
use crate::compression::Compression;

/// A kernel that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file cannot be opened or read, or what it holds cannot be unpacked.
    #[error("cannot {doing} kernel {}", path.display())]
    Io {
        /// `open`, `read` or `unpack the lz4 of`.
        doing: String,
        /// The kernel.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a kernel for x86-64, or not whole.
    #[error("cannot start kernel {}: {why}", path.display())]
    Unfit {
        /// The kernel.
        path: PathBuf,
        /// What it is instead or what is wrong with it, and what the user can do.
        why: String,
    },
}

/// What is being done to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Open,
    Read,
}

/// A [`KernelError`] without its path.
#[derive(Debug)]
pub(super) enum Failed {
    Io(Doing, io::Error),
    /// The unpacked kernel cannot be written anywhere.
    Cache(io::Error),
    Unpack(Compression, io::Error),
    NotAKernel(&'static str),
    Machine(&'static str),
    Truncated,
    TooLarge,
    /// It unpacks to more than this.
    Bomb(u64),
    UnknownCompression,
    /// Somebody wrote to it meanwhile.
    Changed,
}

const GIVE: &str = "give hv a bzImage or vmlinux for x86-64";

impl Failed {
    pub(super) fn read(source: io::Error) -> Failed {
        Failed::Io(Doing::Read, source)
    }

    /// The error for the kernel at `path`.
    pub(super) fn at(self, path: &Path) -> KernelError {
        let path = path.to_path_buf();
        let io = |doing: &str, path, source| KernelError::Io { doing: doing.into(), path, source };
        let why = match self {
            Failed::Io(Doing::Open, source) => return io("open", path, source),
            Failed::Io(Doing::Read, source) => return io("read", path, source),
            Failed::Cache(source) => return io("keep the unpacked copy of", path, source),
            Failed::Unpack(compression, source) => {
                return io(&format!("unpack the {} of", compression.name()), path, source);
            }
            Failed::NotAKernel(what) => format!("it is {what}; {GIVE}"),
            Failed::Machine(what) => format!("it is for {what}; {GIVE}"),
            Failed::Truncated => "it is truncated; copy it again".into(),
            Failed::TooLarge => "it is larger than 512 MiB; strip it first (`strip -g`)".into(),
            Failed::Bomb(limit) => {
                format!("it is damaged: it unpacks to more than the {limit} bytes it announces")
            }
            Failed::UnknownCompression => {
                format!(
                    "it is compressed in a way that hv does not read (it reads gzip, xz, lzma, lz4, zstd, bzip2); {GIVE}"
                )
            }
            Failed::Changed => "somebody wrote to it meanwhile; try again".into(),
        };
        KernelError::Unfit { path, why }
    }
}

impl From<NotElf> for Failed {
    fn from(not: NotElf) -> Failed {
        match not {
            NotElf::NoMagic => Failed::NotAKernel("not an ELF inside"),
            NotElf::Machine(what) => Failed::Machine(what),
            NotElf::NotAProgram => Failed::NotAKernel("an ELF object without a segment to load"),
            NotElf::Damaged => Failed::NotAKernel("a damaged ELF"),
            NotElf::Truncated => Failed::Truncated,
        }
    }
}

/// Names what begins like this and is neither an ELF nor a bzImage.
pub(super) fn name(head: &[u8]) -> Failed {
    // Documentation/arch/arm64/booting.rst and arch/riscv/boot-image-header.rst.
    match head.get(56..60) {
        Some(b"ARM\x64") => return Failed::Machine("ARM64"),
        Some(b"RSC\x05") => return Failed::Machine("RISC-V"),
        _ => {}
    }
    if head.starts_with(b"MZ") && head.get(4..8) == Some(b"zimg") {
        return Failed::NotAKernel("an EFI zboot kernel of another architecture");
    }
    let known: [(&[u8], &'static str); 5] = [
        (b"MZ", "a PE program (a unified kernel image, say, not the kernel inside)"),
        (b"\x27\x05\x19\x56", "a U-Boot image"),
        (b"\xd0\x0d\xfe\xed", "a device tree"),
        (b"070701", "a cpio archive, an initramfs say"),
        (b"#!", "a script"),
    ];
    if let Some((_, what)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Failed::NotAKernel(what);
    }
    match Compression::of(head) {
        Some(_) => Failed::NotAKernel("a compressed file; unpack it first"),
        None => Failed::NotAKernel("not a kernel"),
    }
}
