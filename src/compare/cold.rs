//! A cold start without disturbing the host: the pages of the files that a start reads leave the page cache,
//! everything else stays. No privilege is needed, unlike for `/proc/sys/vm/drop_caches`, which would slow
//! everything else on the host.

use std::fs::File;
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::error::{Failure, Result};

/// Writes back and drops the cached pages of `files`; pages that somebody maps stay.
///
/// # Errors
/// A file cannot be opened, or its file system cannot drop pages.
pub fn drop_pages(files: &[impl AsRef<Path>]) -> Result<()> {
    for path in files {
        let path = path.as_ref();
        let what = || format!("cannot drop the cached pages of {}", path.display());
        let file = File::open(path).map_err(|source| Failure::new(what(), source))?;
        // Pages that are still to be written stay otherwise.
        file.sync_data().map_err(|source| Failure::new(what(), source))?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(|errno| Failure::new(what(), errno))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn contents_stay_and_absent_files_are_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"content").unwrap();
        drop_pages(&[file.path()]).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"content");
        let error = drop_pages(&["/no/such/image"]).unwrap_err();
        assert!(error.message().contains("/no/such/image"), "{}", error.message());
    }
}
