//! The grammar of `hv build`.

use std::path::PathBuf;

use clap::Args;

/// Examples.
pub const EXAMPLES: &str = "\
Example: hv build -t web .
         hv build -t web --target test --build-arg VERSION=2 --network none ./dir
         SOURCE_DATE_EPOCH=0 hv build -t web .   # the same digest every time";

/// Arguments of `hv build`.
#[derive(Debug, Clone, Args)]
pub struct BuildArgs {
    /// The context: the directory that COPY takes files from
    pub dir: PathBuf,
    /// Name of the image; may be repeated
    #[arg(long, short, value_name = "NAME")]
    pub tag: Vec<String>,
    /// The Dockerfile [default: DIR/Dockerfile]
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Value of an ARG; without =VALUE, taken from hv's environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Build this stage, not the last
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Do every step anew
    #[arg(long)]
    pub no_cache: bool,
    /// Network of RUN: host, or none
    #[arg(long, value_name = "NETWORK", default_value = "host", value_parser = ["host", "none"])]
    pub network: String,
}
