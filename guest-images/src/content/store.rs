//! The blobs on disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use super::error::at;
use super::{ContentError, Digest, Partial};
use crate::dirs::Dirs;
use crate::draft::{self, Draft};

/// Held for as long as `index.json` is being changed.
const LOCK: &str = ".lock";
/// Held shared by whoever adds blobs, and alone by whoever removes some.
const SESSION: &str = ".session";
const LAYOUT: &str = "oci-layout";
const VERSION: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The images of one user. Any number of processes may use it at once.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    cache: PathBuf,
}

/// Blobs without a name stay in the store for as long as this lives.
#[derive(Debug)]
pub struct Session {
    _lock: File,
}

impl Store {
    /// The store in this directory, an OCI image layout; it is made when something is put into it.
    pub fn open(dir: &Path) -> Store {
        Store { dir: dir.into(), cache: dir.join(".startable") }
    }

    /// The store of the user whose directories these are.
    pub fn of(dirs: &Dirs) -> Store {
        Store { dir: dirs.images(), cache: dirs.startable() }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the files are that sandboxes start.
    pub(super) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Whether the blob is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Bytes of a blob.
    ///
    /// # Errors
    /// It is not there, or cannot be looked at.
    pub fn size(&self, digest: &Digest) -> Result<u64, ContentError> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.size()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ContentError::Absent(*digest)),
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    /// A blob, open for reading. Its bytes are as they were verified when it was put here.
    ///
    /// # Errors
    /// It is not there, or cannot be opened.
    pub fn blob(&self, digest: &Digest) -> Result<File, ContentError> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ContentError::Absent(*digest)),
            Err(error) => Err(at("open", &path)(error)),
        }
    }

    /// The bytes of a blob of at most `limit` bytes, verified once more.
    ///
    /// # Errors
    /// It is not there, larger, or damaged.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ContentError> {
        let mut bytes = Vec::new();
        let read = self.blob(digest)?.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(at("read", &self.path(digest)))?;
        if bytes.len() as u64 > limit {
            return Err(ContentError::TooLarge { what: digest.to_string(), limit });
        }
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(ContentError::Digest { expected: *digest, found }),
        }
    }

    /// Stores what `source` gives, and says its digest and size. Nothing is stored unless it is what is
    /// `expected`; what is there already is not read again.
    ///
    /// Without a name, a blob stays only while a [`Store::session`] lasts.
    ///
    /// # Errors
    /// The source cannot be read or is not what was expected, or the store cannot be written: it is then as it
    /// was.
    pub fn put(
        &self,
        mut source: impl Read,
        expected: Option<(&Digest, u64)>,
    ) -> Result<(Digest, u64), ContentError> {
        if let Some((digest, size)) = expected
            && self.size(digest).is_ok_and(|there| there == size)
        {
            return Ok((*digest, size));
        }
        self.make()?;
        let blobs = self.blobs();
        let draft = Draft::new(&blobs).map_err(at("write", &blobs))?;
        let (mut hash, mut length) = (Sha256::new(), 0);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ContentError::Source(error)),
            };
            length += count as u64;
            if let Some((digest, size)) = expected
                && length > size
            {
                return Err(ContentError::Size { digest: *digest, expected: size, found: None });
            }
            hash.update(&buffer[..count]);
            draft.file().write_all(&buffer[..count]).map_err(at("write", &blobs))?;
        }
        let found = Digest::finish(hash);
        verify(expected, &found, length)?;
        if !self.has(&found) {
            draft.publish(&found.hex()).map_err(at("write", &self.path(&found)))?;
        }
        Ok((found, length))
    }

    /// A blob that comes in pieces, with what an earlier try has left of it. A second writer of the same blob
    /// waits here until the first has ended, and may then find that it [is complete](Partial::is_complete).
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn partial(&self, digest: &Digest) -> Result<Partial, ContentError> {
        self.make()?;
        Partial::open(&self.partials(), &self.blobs(), digest)
    }

    /// Keeps blobs that have no name yet: nothing is removed from the store while it lasts.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn session(&self) -> Result<Session, ContentError> {
        self.make()?;
        Ok(Session { _lock: self.flock(SESSION, FlockOperation::LockShared)? })
    }

    /// Nobody adds anything while it lasts: for whoever removes blobs.
    ///
    /// # Errors
    /// [`ContentError::Busy`]: somebody adds something just now. Or the store cannot be written.
    pub fn alone(&self) -> Result<Session, ContentError> {
        self.make()?;
        match self.flock(SESSION, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Session { _lock: lock }),
            Err(ContentError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                Err(ContentError::Busy(self.dir.clone()))
            }
            Err(error) => Err(error),
        }
    }

    /// Only this process changes `index.json` while it lasts.
    pub(super) fn lock_names(&self) -> Result<File, ContentError> {
        self.make()?;
        self.flock(LOCK, FlockOperation::LockExclusive)
    }

    fn flock(&self, name: &str, how: FlockOperation) -> Result<File, ContentError> {
        let path = self.dir.join(name);
        let file = File::options().create(true).append(true).open(&path).map_err(at("open", &path))?;
        loop {
            match rustix::fs::flock(&file, how) {
                Err(rustix::io::Errno::INTR) => {}
                done => return done.map(|()| file).map_err(|error| at("lock", &path)(error.into())),
            }
        }
    }

    /// Makes what every OCI layout has.
    fn make(&self) -> Result<(), ContentError> {
        let layout = self.dir.join(LAYOUT);
        if layout.exists() {
            return Ok(());
        }
        for dir in [self.blobs(), self.partials()] {
            fs::create_dir_all(&dir).map_err(at("make", &dir))?;
        }
        draft::write(&self.dir, LAYOUT, VERSION).map_err(at("write", &layout))
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.dir.join("blobs/sha256")
    }

    pub(super) fn partials(&self) -> PathBuf {
        self.dir.join(".partial")
    }

    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }
}

/// Whether what came is what was expected.
pub(super) fn verify(
    expected: Option<(&Digest, u64)>,
    found: &Digest,
    length: u64,
) -> Result<(), ContentError> {
    let Some((digest, size)) = expected else { return Ok(()) };
    if length != size {
        return Err(ContentError::Size { digest: *digest, expected: size, found: Some(length) });
    }
    if found != digest {
        return Err(ContentError::Digest { expected: *digest, found: *found });
    }
    Ok(())
}
