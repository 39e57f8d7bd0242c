//! A tar of a root file system, packed or not, becomes an image.
//!
//! The first start makes an EROFS file of it, kept under the digest of what the tar unpacks to; equal archives
//! share one. A record of the archive's inode, size and times leads the next start there without reading the
//! archive again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use hv_common::Root;
use sha2::{Digest, Sha256};

use crate::kernel::cache::{Cache, Stamp};
use crate::layer::{Layer, LayerError, Scanned, tar::TarError};
use crate::{OpenError, draft, erofs};

/// A file is no tar that can be started.
#[derive(Debug, thiserror::Error)]
pub enum RootTarError {
    /// The archive, or what was made of it, cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A system call failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The archive, or its image in the cache.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it cannot be an image.
    #[error("cannot make an image of {}", path.display())]
    Contents {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: LayerError,
    },
    /// It is packed, but not a tar.
    #[error(
        "{} is packed, but there is no tar archive in it: give hv a raw image, a directory, or a tar of one",
        path.display()
    )]
    NoTar {
        /// The file.
        path: PathBuf,
    },
    /// It is a tar of layers.
    #[error(
        "{} is a saved image with layers, not a root file system: load it with `hv load -i FILE` and start \
         it by its name",
        path.display()
    )]
    Layers {
        /// The archive.
        path: PathBuf,
    },
    /// There is nothing in it.
    #[error("the archive {} has no files in it: there is nothing to start", path.display())]
    Empty {
        /// The archive.
        path: PathBuf,
    },
    /// It changed while it was read.
    #[error("{} changed while it was read: stop what writes to it, and try again", path.display())]
    Changed {
        /// The archive.
        path: PathBuf,
    },
}

/// Opens the archive at `path` as an image: plain, or packed with gzip or zstd. What is made of it is kept in
/// `cache`, which is made if need be.
///
/// # Errors
/// [`RootTarError`] says what the file is instead, or what in it cannot be in an image.
pub fn open(path: &Path, writable: bool, cache: &Path) -> Result<Root, RootTarError> {
    if writable {
        let why = "it is an archive, and what is started is made of it".into();
        return Err(OpenError::NotWritable { path: path.into(), why }.into());
    }
    let io = |doing| move |source| RootTarError::Io { doing, path: path.into(), source };
    let blob = File::open(path).map_err(io("read"))?;
    let stamp = Stamp::of(&blob).map_err(io("read"))?;
    let records = Cache(cache);
    if let Some(root) = records.digest(&stamp).and_then(|digest| recall(&cache.join(name(&digest)))) {
        return Ok(root);
    }
    let layers = [Layer { name: path.display().to_string(), blob, diff_id: None }];
    let contents = |source| match source {
        LayerError::Tar { source: TarError::Header(0), .. } => RootTarError::NoTar { path: path.into() },
        source => RootTarError::Contents { path: path.into(), source },
    };
    let scanned = Scanned::read(&layers, cache).map_err(contents)?;
    let docker = scanned.has("manifest.json") && scanned.has("repositories");
    if docker || scanned.has("oci-layout") && scanned.has("blobs") {
        return Err(RootTarError::Layers { path: path.into() });
    }
    if scanned.is_empty() {
        // A root without anything must never become somebody else's (CVE-2026-24054).
        return Err(RootTarError::Empty { path: path.into() });
    }
    let digest = scanned.diff_ids().concat();
    let image = cache.join(name(&digest));
    let made = match recall(&image) {
        Some(root) => root,
        None => {
            let flat = scanned.flatten(&layers, cache).map_err(contents)?;
            draft::adopt(&flat.file, cache, &name(&digest)).map_err(|source| RootTarError::Io {
                doing: "write",
                path: image.clone(),
                source,
            })?;
            crate::open(&image, false)?
        }
    };
    // A file that was changed meanwhile must not be remembered under its new stamp.
    if Stamp::of(&layers[0].blob).map_err(io("read"))? != stamp {
        return Err(RootTarError::Changed { path: path.into() });
    }
    // Without a record the next start reads the archive again, and finds the image by its digest.
    let _ = records.remember(&stamp, &digest);
    Ok(made)
}

/// The image of an archive that unpacks to bytes of this digest: another writer's is another file.
fn name(digest: &str) -> String {
    let key = Sha256::digest(format!("hv tar {}\n{digest}\n", erofs::WRITER));
    format!("{}.erofs", crate::hex(&key))
}

/// None: it is not there, or not whole; it can be made again.
fn recall(image: &Path) -> Option<Root> {
    crate::open(image, false).ok().filter(|root| matches!(root, Root::Disk { .. }))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::*;
    use crate::erofs::tests::{Mounted, bytes_of};
    use crate::layer::tests::Tar;

    fn file_of(root: Root) -> File {
        let Root::Disk { file, .. } = root else { panic!("not a disk") };
        file
    }

    /// An archive that looks as if it had been there for some time.
    fn archive(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(dir.join(name), bytes).unwrap();
        dir.join(name)
    }

    #[test]
    fn an_archive_is_an_image_and_equal_archives_share_one() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let tar = Tar::new().dir("etc").file("etc/x", "1").end();
        let one = file_of(open(&archive(dir.path(), "one", &tar), false, &cache).unwrap());
        let two = file_of(open(&archive(dir.path(), "two", &tar), false, &cache).unwrap());
        if let Some(packed) = crate::compression::tests::pack(&["gzip", "-c"], &tar) {
            let packed = file_of(open(&archive(dir.path(), "packed", &packed), false, &cache).unwrap());
            assert_eq!(Stamp::of(&one).unwrap(), Stamp::of(&packed).unwrap());
        }
        assert_eq!(Stamp::of(&one).unwrap(), Stamp::of(&two).unwrap(), "the same inode");
        if let Some(mounted) = Mounted::new(&one) {
            assert_eq!(std::fs::read(mounted.0.path().join("etc/x")).unwrap(), b"1");
        }
    }

    #[test]
    fn a_record_leads_to_the_image_in_less_than_a_millisecond() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let path = archive(dir.path(), "a", &Tar::new().file("x", "1").end());
        let first = bytes_of(&file_of(open(&path, false, &cache).unwrap()));
        // The record as it would be, had the archive been there for longer than clocks are coarse.
        let stamp = Stamp::of(&File::open(&path).unwrap()).unwrap();
        let digest = crate::hex(&Sha256::digest(Tar::new().file("x", "1").end()));
        Cache(&cache).remember_for_tests(&stamp, &digest);
        // As root: what nobody can read any more is not read.
        let fastest = (0..20)
            .map(|_| {
                let begun = Instant::now();
                assert!(bytes_of(&file_of(open(&path, false, &cache).unwrap())) == first);
                begun.elapsed()
            })
            .min()
            .unwrap();
        assert!(fastest < Duration::from_millis(1), "{fastest:?}");
        // Other contents, another image; a damaged image is made again.
        std::fs::write(&path, Tar::new().file("x", "2").end()).unwrap();
        File::options().append(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let second = bytes_of(&file_of(open(&path, false, &cache).unwrap()));
        assert!(second != first);
        for entry in std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.extension().is_some_and(|extension| extension == "erofs") {
                File::options().write(true).open(entry).unwrap().set_len(100).unwrap();
            }
        }
        assert!(bytes_of(&file_of(open(&path, false, &cache).unwrap())) == second);
    }

    #[test]
    fn what_is_no_root_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |bytes: &[u8]| {
            open(&archive(dir.path(), "x", bytes), false, &dir.path().join("cache")).unwrap_err()
        };
        let saved = Tar::new().file("oci-layout", "{}").dir("blobs/").end();
        assert!(matches!(refused(&saved), RootTarError::Layers { .. }));
        let none = Tar::new().dir("./").end();
        assert!(matches!(refused(&none), RootTarError::Empty { .. }));
        if let Some(packed) = crate::compression::tests::pack(&["gzip", "-c"], &[b'x'; 5000]) {
            assert!(matches!(refused(&packed), RootTarError::NoTar { .. }));
        }
        let tar = Tar::new().file("x", "1").end();
        assert!(matches!(refused(&tar[..700]), RootTarError::Contents { .. }));
        let path = archive(dir.path(), "x", &tar);
        let message = open(&path, true, dir.path()).unwrap_err().to_string();
        assert!(message.contains("--rw"), "{message}");
    }
}
