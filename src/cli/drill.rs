//! Arguments of `hv drill`.

use std::path::PathBuf;

use clap::Args;
use hv_common::Kind;

/// Shown below the help text.
pub const EXAMPLES: &str = "\
Exit status: 0 if every kind was tried, 1 if one could not be, 125 if hv itself
failed.

Example: hv drill --kernel vmlinux rootfs.img
         hv drill rootfs.img --kinds process,ctr --out report";

/// Arguments of `hv drill`.
#[derive(Debug, Clone, Args)]
pub struct DrillArgs {
    /// The image: a raw ext4, squashfs or EROFS file, or a directory; no program of it is run
    pub image: PathBuf,
    /// Kinds to try, in the order of the columns
    #[arg(long, value_name = "KINDS", value_delimiter = ',', default_value = "process,ctr,vm", value_parser = parse_kind)]
    pub kinds: Vec<Kind>,
    /// Write drill.json, drill.csv and drill.html into DIR
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write what was found to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Seconds after which one run of the drill is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Kernel: an ELF vmlinux or a bzImage [default: the newest in the store]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// The kernel's modules: a /lib/modules/VERSION [default: beside the kernel]
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,
}

/// A kind by its word.
fn parse_kind(word: &str) -> Result<Kind, String> {
    let known = [Kind::Process, Kind::Ctr, Kind::Vm];
    known.into_iter().find(|kind| kind.word() == word).ok_or_else(|| "use process, ctr or vm".into())
}
