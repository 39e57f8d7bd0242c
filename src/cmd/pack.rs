//! `hv pack`: one file of a directory or an archive, to keep and to hand on.

use std::io::{self, Write};

use hv_image::dirs::Dirs;
use hv_image::keep::keep;

use crate::cli::PackArgs;
use crate::error::{Failure, Result};
use crate::plan;

/// Does what was typed. Prints the file's digest, and the root hash if there is one.
///
/// # Errors
/// The source cannot be packed, or the file cannot be written.
pub fn run(args: &PackArgs) -> Result<u8> {
    let source = plan::open(&args.source, false)?;
    let kept = keep(&source, &args.file, &Dirs::of_this_user()?.scratch(), args.verity)?;
    let mut text = format!("sha256:{}  {}\n", kept.digest, args.file.display());
    if let Some(root) = kept.root_hash {
        let root: String = root.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("root hash {root}\n"));
    }
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(|source| Failure::new("cannot print the digest", source))?;
    Ok(0)
}
