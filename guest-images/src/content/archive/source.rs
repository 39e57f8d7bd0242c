//! Where images come from: a directory, or an archive, packed or not.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::content::ContentError;
use crate::content::error::at;
use crate::draft;
use crate::layer::tar::{Archive, What};
use crate::layer::{Layer, MAX_UNPACKED, Packing};

/// The most files of one archive.
const MAX_FILES: usize = 100_000;
/// How many links one may lead over: docker's old archives have one for a layer that is there twice.
const MAX_LINKS: usize = 4;

/// Files by name.
#[derive(Debug)]
pub struct Source {
    /// What messages call it.
    pub(super) what: String,
    files: Files,
}

#[derive(Debug)]
enum Files {
    Directory(OwnedFd),
    Archive { file: File, entries: HashMap<String, Place> },
}

/// Where an archive has a file.
#[derive(Debug)]
enum Place {
    Bytes { at: u64, size: u64 },
    Link(String),
}

impl Source {
    /// A directory, or a file with an archive in it (packed by gzip or zstd, or not); `-`: standard input. What has
    /// to be unpacked or read twice is kept without a name in `scratch` meanwhile.
    ///
    /// # Errors
    /// It cannot be read, or is no archive.
    pub fn open(path: &Path, scratch: &Path) -> Result<Source, ContentError> {
        let what = path.display().to_string();
        if path == Path::new("-") {
            return Source::archive("standard input".into(), spool(io::stdin().lock(), scratch)?, scratch);
        }
        if path.is_dir() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::open(path, flags, Mode::empty())
                .map_err(|error| at("open", path)(error.into()))?;
            return Ok(Source { what, files: Files::Directory(dir) });
        }
        let file = File::open(path).map_err(at("open", path))?;
        // A pipe is read once.
        let file = match file.metadata().map_err(at("read", path))?.is_file() {
            true => file,
            false => spool(file, scratch)?,
        };
        Source::archive(what, file, scratch)
    }

    fn archive(what: String, file: File, scratch: &Path) -> Result<Source, ContentError> {
        let mut start = [0; 4];
        let count = file.read_at(&mut start, 0).map_err(ContentError::Source)?;
        let file = match Packing::of(&start[..count]) {
            Packing::Plain => file,
            _ => {
                let packed = Layer { name: what.clone(), blob: file, diff_id: None };
                spool(packed.open().map_err(ContentError::Source)?, scratch)?
            }
        };
        let entries = entries(&what, &file)?;
        Ok(Source { what, files: Files::Archive { file, entries } })
    }

    /// The file of this name and its size; None: there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn file(&self, name: &str) -> Result<Option<(impl Read + use<'_>, u64)>, ContentError> {
        match &self.files {
            Files::Directory(dir) => match open_below(dir, name) {
                Ok((file, size)) => Ok(Some((Section { file: Owned::Own(file), at: 0, left: size }, size))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(at("open", &PathBuf::from(&self.what).join(name))(error)),
            },
            Files::Archive { file, entries } => {
                let mut place = entries.get(name);
                for _ in 0..MAX_LINKS {
                    match place {
                        Some(Place::Link(target)) => place = entries.get(target),
                        _ => break,
                    }
                }
                let Some(Place::Bytes { at, size }) = place else { return Ok(None) };
                Ok(Some((Section { file: Owned::Lent(file), at: *at, left: *size }, *size)))
            }
        }
    }

    /// A small file, whole.
    ///
    /// # Errors
    /// It cannot be read, or is larger than `limit`.
    pub(super) fn small(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ContentError> {
        let Some((file, size)) = self.file(name)? else { return Ok(None) };
        let what = || format!("{name} in {}", self.what);
        if size > limit {
            return Err(ContentError::TooLarge { what: what(), limit });
        }
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(ContentError::Source)?;
        Ok(Some(bytes))
    }
}

/// No link leads out of the directory, and only a regular file is opened: a FIFO would hold us up for ever.
fn open_below(dir: &OwnedFd, name: &str) -> io::Result<(File, u64)> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve)?;
    let stat = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok((file.into(), stat.st_size.max(0) as u64)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file")),
    }
}

/// The entries of an archive by name. Names are only ever looked up, never used on the host.
fn entries(what: &str, file: &File) -> Result<HashMap<String, Place>, ContentError> {
    let mut archive = Archive::new(io::BufReader::with_capacity(
        64 << 10,
        Section { file: Owned::Lent(file), at: 0, left: u64::MAX },
    ));
    let mut entries = HashMap::new();
    loop {
        let entry = archive.next_entry().map_err(|error| ContentError::refused(what, error.to_string()))?;
        let Some(entry) = entry else { return Ok(entries) };
        let Some(name) = normal(&entry.path, "") else { continue };
        let place = match entry.what {
            What::File(contents) if contents.sparse.is_none() => {
                Place::Bytes { at: contents.at, size: contents.size }
            }
            What::HardLink(target) => match normal(&target, "") {
                Some(target) => Place::Link(target),
                None => continue,
            },
            What::Link(target) => {
                let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                match normal(&target, dir) {
                    Some(target) => Place::Link(target),
                    None => continue,
                }
            }
            _ => continue,
        };
        if entries.len() >= MAX_FILES {
            return Err(ContentError::refused(what, format!("it has more than {MAX_FILES} files")));
        }
        entries.insert(name, place);
    }
}

/// `./a//b` is `a/b`, and `../x` in `dir/sub` is `dir/x`. None: not text, or it leads out of the archive.
fn normal(path: &[u8], dir: &str) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Everything that `source` gives, in a file without a name.
pub(super) fn spool(source: impl Read, scratch: &Path) -> Result<File, ContentError> {
    let file = draft::nameless(scratch).map_err(at("write", scratch))?;
    let mut source = source.take(MAX_UNPACKED + 1);
    let mut buffer = vec![0; 256 << 10];
    let mut length = 0;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ContentError::Source(error)),
        };
        file.write_all_at(&buffer[..count], length).map_err(at("write", scratch))?;
        length += count as u64;
        if length > MAX_UNPACKED {
            return Err(ContentError::TooLarge { what: "the archive".into(), limit: MAX_UNPACKED });
        }
    }
}

/// Part of a file.
struct Section<'a> {
    file: Owned<'a>,
    at: u64,
    left: u64,
}

enum Owned<'a> {
    Own(File),
    Lent(&'a File),
}

impl Read for Section<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let file = match &self.file {
            Owned::Own(file) => file,
            Owned::Lent(file) => file,
        };
        let count = file.read_at(&mut into[..most], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_an_archive_never_lead_out_of_it() {
        assert_eq!(normal(b"./a//b/", "").as_deref(), Some("a/b"));
        assert_eq!(normal(b"../x/layer.tar", "dir").as_deref(), Some("x/layer.tar"));
        assert_eq!(normal(b"../../x", "dir"), None);
        assert_eq!(normal(b"../etc/passwd", ""), None);
        assert_eq!(normal(b"a\xff", ""), None);
    }

    #[test]
    fn links_and_special_files_of_a_directory_are_not_followed_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        let source = Source::open(dir.path(), dir.path()).unwrap();
        assert!(source.file("out").unwrap().is_none());
        assert!(source.file("fifo").is_err());
        assert_eq!(source.small("file", 1).unwrap().unwrap(), b"x");
        assert!(matches!(source.small("file", 0), Err(ContentError::TooLarge { .. })));
    }
}
