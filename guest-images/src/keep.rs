//! Keeps the one file that is made of a directory or an archive, where the user wants it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use hv_common::{Format, Root};
use sha2::{Digest, Sha256};

use crate::draft::Draft;
use crate::verity::{self, RootHash, VerityError};
use crate::{erofs, superblock};

/// A file that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// SHA-256 of the whole file, hexadecimal.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Of the hash tree behind it, if one was asked for.
    pub root_hash: Option<RootHash>,
}

/// A file cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The directory cannot be packed.
    #[error(transparent)]
    Pack(#[from] erofs::PackError),
    /// The source is an image already.
    #[error("{} is an image already ({}): hv starts it as it is", path.display(), format.name())]
    Already {
        /// The image.
        path: PathBuf,
        /// What it is.
        format: Format,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The hash tree cannot be made.
    #[error("cannot make the hash tree of {}", path.display())]
    Verity {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerityError,
    },
}

/// Writes `source` to the file `to` as one EROFS image, with a hash tree behind it if `verity`. The file appears whole or
/// not at all; one of that name is replaced.
///
/// # Errors
/// [`KeepError`]
pub fn keep(source: &Root, to: &Path, scratch: &Path, verity: bool) -> Result<Kept, KeepError> {
    let write = |source| KeepError::Write { path: to.into(), source };
    if let Root::Disk { path, format, .. } = source
        && *format != Format::Erofs
    {
        return Err(KeepError::Already { path: path.clone(), format: *format });
    }
    let packed = erofs::pack(source, scratch)?;
    let Root::Disk { file: image, .. } = &packed else {
        return Err(write(io::ErrorKind::InvalidInput.into()));
    };
    let name = to.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| write(io::ErrorKind::InvalidFilename.into()))?;
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = Draft::new(dir).map_err(write)?;
    copy(image, draft.file()).map_err(write)?;
    let tree =
        || verity::append(draft.file()).map_err(|source| KeepError::Verity { path: to.into(), source });
    let root_hash = verity.then(tree).transpose()?;
    let (digest, size) = digest_of(draft.file()).map_err(write)?;
    draft.publish(name).map_err(write)?;
    Ok(Kept { digest, size, root_hash })
}

/// The file system alone, without what may be behind it.
fn copy(image: &File, to: &File) -> io::Result<()> {
    let at = |offset| At { file: image, at: offset };
    let mut head = vec![0; superblock::HEAD];
    let count = io::Read::read(&mut at(0), &mut head)?;
    let size = superblock::recognise(&head[..count]).map_or(image.metadata()?.len(), |found| found.size);
    let mut to = to;
    io::copy(&mut io::Read::take(at(0), size), &mut to).map(|_| ())
}

fn digest_of(file: &File) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let (mut source, mut step, mut size) = (At { file, at: 0 }, vec![0; 1 << 20], 0);
    loop {
        match io::Read::read(&mut source, &mut step)? {
            0 => return Ok((crate::hex(&hash.finalize()), size)),
            count => {
                hash.update(&step[..count]);
                size += count as u64;
            }
        }
    }
}

/// A file's bytes from its start, whatever others do with the descriptor.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl io::Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(self.file, into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
