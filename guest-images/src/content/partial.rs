//! Blobs that come in pieces, over one or several tries.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use super::error::at;
use super::store::verify;
use super::{ContentError, Digest};

/// What there is of a blob so far. Writing appends; [`Partial::finish`] makes it a blob. Dropped before that, it
/// stays for the next try.
#[derive(Debug)]
pub struct Partial {
    /// Locked (flock(2)) for as long as this lives.
    file: File,
    path: PathBuf,
    blobs: PathBuf,
    digest: Digest,
    hash: Sha256,
    length: u64,
    complete: bool,
}

impl Partial {
    pub(super) fn open(dir: &Path, blobs: &Path, digest: &Digest) -> Result<Partial, ContentError> {
        fs::create_dir_all(dir).map_err(at("make", dir))?;
        let path = dir.join(digest.hex());
        let file = lock(&path).map_err(at("open", &path))?;
        // Whoever had the lock before may have finished it.
        let complete = blobs.join(digest.hex()).is_file();
        let mut partial = Partial {
            file,
            path,
            blobs: blobs.into(),
            digest: *digest,
            hash: Sha256::new(),
            length: 0,
            complete,
        };
        if complete {
            let _ = fs::remove_file(&partial.path);
        } else {
            partial.hash_what_is_there()?;
        }
        Ok(partial)
    }

    fn hash_what_is_there(&mut self) -> Result<(), ContentError> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match (&self.file).read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    self.hash.update(&buffer[..count]);
                    self.length += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(at("read", &self.path)(error)),
            }
        }
    }

    /// Whether another writer has finished the blob meanwhile: there is nothing left to write.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Bytes so far: where the next piece begins.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there is nothing yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets what is there, for a source that can only begin anew.
    ///
    /// # Errors
    /// The file cannot be changed.
    pub fn restart(&mut self) -> Result<(), ContentError> {
        self.file.set_len(0).map_err(at("write", &self.path))?;
        (self.hash, self.length) = (Sha256::new(), 0);
        Ok(())
    }

    /// Makes a blob of it, if it is the one of this digest and size; else it is forgotten, so that the next try
    /// begins anew.
    ///
    /// # Errors
    /// It is another one, or cannot be written to disk.
    pub fn finish(self, size: u64) -> Result<(), ContentError> {
        if self.complete {
            return Ok(());
        }
        let found = Digest::finish(self.hash.clone());
        if let Err(error) = verify(Some((&self.digest, size)), &found, self.length) {
            let _ = fs::remove_file(&self.path);
            return Err(error);
        }
        let write = || {
            self.file.sync_all()?;
            fs::rename(&self.path, self.blobs.join(self.digest.hex()))?;
            File::open(&self.blobs)?.sync_all()
        };
        write().map_err(at("write", &self.path))
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file of this name, made if need be, once nobody else has it.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => continue,
            locked => locked?,
        }
        // Meanwhile it may have been finished or forgotten: then the name means another file, or none.
        let same = fs::metadata(path).is_ok_and(|named| {
            file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (named.dev(), named.ino()))
        });
        if same {
            return Ok(file);
        }
    }
}
