//! The store: what is there, and what comes in and goes out.

use std::path::PathBuf;

use clap::Args;
use hv_image::content::Platform;

/// Examples of `hv image ls`.
pub const LS_EXAMPLES: &str = "\
Sizes are those on disk, of all platforms that are here; what two images share
counts for both.

Example: hv image ls
         hv images --digests";
/// Examples of `hv image fsck`.
pub const FSCK_EXAMPLES: &str = "\
Exit status: 0 if all is well, 1 if something was damaged, 125 if hv failed.

Example: hv image fsck
         hv image fsck --keep-names --json";

/// `ls`.
#[derive(Debug, Clone, Default, Args)]
pub struct LsArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Only the digests
    #[arg(long, short, conflicts_with = "json")]
    pub quiet: bool,
    /// Whole digests
    #[arg(long)]
    pub digests: bool,
}

/// `load`.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// A directory, or a tar, packed or not; `-`: standard input
    #[arg(default_value = "-", value_name = "FILE")]
    pub file: PathBuf,
    /// What to call the image, if there is only one [default: as it says]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `save`.
#[derive(Debug, Clone, Args)]
pub struct SaveArgs {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// The file [default: standard output, if that is no terminal]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Add them to the OCI layout in this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    pub layout: Option<PathBuf>,
}

/// `import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// A tar, packed by gzip or zstd or not; `-`: standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What to call the image [default: it has no name, and goes with the next prune]
    pub name: Option<String>,
    /// The command that is run when none is given, in words; may be repeated
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub cmd: Vec<String>,
    /// An environment variable of the image
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// The directory that commands start in
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// The user that commands run as
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// What it is made for [default: this machine]
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<Platform>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// The image
    pub image: String,
    /// Of an image for several platforms, the one for this
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<Platform>,
    /// As JSON, which it always is
    #[arg(long, hide = true)]
    pub json: bool,
}

/// `history`.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// The image
    pub image: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `prune`.
#[derive(Debug, Clone, Args)]
pub struct JsonArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `fsck`.
#[derive(Debug, Clone, Args)]
pub struct FsckArgs {
    /// Leave the names of images that are not whole
    #[arg(long)]
    pub keep_names: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}
