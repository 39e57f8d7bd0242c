//! `hv image prune` and `hv image fsck`.

use serde_json::json;

use super::{print, print_json, store};
use crate::cli::image::{FsckArgs, JsonArgs};
use crate::error::{self, Result};
use crate::size::Bytes;

/// Status of `fsck` when something was damaged.
const DAMAGED: u8 = 1;

pub(super) fn prune(args: &JsonArgs) -> Result<()> {
    let pruned = store()?.prune()?;
    if args.json {
        return print_json(&json!({"unnamed": pruned.unnamed, "blobs": pruned.blobs, "files": pruned.files,
            "bytes": pruned.bytes}));
    }
    print(&format!(
        "{} images without a name, {} blobs, {} files: {} freed\n",
        pruned.unnamed,
        pruned.blobs,
        pruned.files,
        Bytes(pruned.bytes)
    ))
}

pub(super) fn fsck(args: &FsckArgs) -> Result<u8> {
    let checked = store()?.fsck(!args.keep_names)?;
    let status = if checked.problems.is_empty() { 0 } else { DAMAGED };
    if args.json {
        print_json(&json!({"blobs": checked.blobs, "bytes": checked.bytes, "leftovers": checked.leftovers,
            "problems": checked.problems}))?;
        return Ok(status);
    }
    for problem in &checked.problems {
        error::say(format_args!("{problem}"));
    }
    let verdict = match checked.problems.len() {
        0 => "all is well".to_owned(),
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    print(&format!("{} blobs, {}: {verdict}\n", checked.blobs, Bytes(checked.bytes)))?;
    Ok(status)
}
