//! What `hv pack` takes, and what a start takes of what it has made.

use std::path::PathBuf;

use clap::Args;
use hv_image::verity::RootHash;

/// Below the help of `hv pack`.
pub const PACK_EXAMPLES: &str = "\
The same source gives the same bytes on every machine. With --verity the printed
root hash stands for the whole image: hv checks it at each start, and so can
`veritysetup` and the kernel's dm-verity.

Example: hv pack root.tar.gz root.erofs
         hv pack ./rootdir root.erofs --verity
         hv ctr root.erofs --verity 6f1d... -- uname -a";

/// What `hv pack` takes.
#[derive(Debug, Clone, Args)]
pub struct PackArgs {
    /// A directory, a tar of one (.tar, .tar.gz, .tar.zst), or an EROFS image
    pub source: PathBuf,
    /// The file to make; one of that name is replaced
    pub file: PathBuf,
    /// Append a dm-verity hash tree, and print its root hash
    #[arg(long)]
    pub verity: bool,
}

/// The 64 hexadecimal digits of a root hash.
pub(super) fn parse_root_hash(text: &str) -> Result<RootHash, String> {
    let wrong = || "write the 64 hexadecimal digits that `hv pack --verity` printed".to_owned();
    let mut hash = RootHash::default();
    if text.len() != 2 * hash.len() || !text.is_ascii() {
        return Err(wrong());
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_hashes_have_64_digits() {
        assert_eq!(parse_root_hash(&"0a".repeat(32)), Ok([10; 32]));
        for bad in ["", "0a", &"0g".repeat(32), &"é".repeat(32), &"a".repeat(65)] {
            assert!(parse_root_hash(bad).is_err(), "{bad}");
        }
    }
}
