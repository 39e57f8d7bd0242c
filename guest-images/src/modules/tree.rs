//! A module directory, `lib/modules/RELEASE`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::ModulesError;
use crate::compression::Compression;

/// The largest module, unpacked, and the largest list of them.
const MAX_MODULE: u64 = 64 << 20;
const MAX_LIST: u64 = 16 << 20;
/// Directories below the module directory, one in another.
const MAX_DEPTH: usize = 16;
const MAX_FILES: usize = 100_000;

/// A module directory. Nothing outside of it is opened, whatever links it has.
#[derive(Debug)]
pub(super) struct Tree {
    dir: OwnedFd,
    path: PathBuf,
    /// Normal name to path in the directory.
    modules: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
}

/// A module's name as the kernel has it: `virtio-rng` and `virtio_rng` are one.
pub(super) fn normal(name: &str) -> String {
    name.replace('-', "_")
}

impl Tree {
    /// None: there is no such directory, or no modules in it.
    pub(super) fn open(path: &Path) -> Result<Option<Tree>, ModulesError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Self::of(rustix::fs::open(path, flags, Mode::empty()), path.into())
    }

    /// The same below a root whose links must not lead out of it.
    pub(super) fn open_in(root: &OwnedFd, path: &Path, name: &str) -> Result<Option<Tree>, ModulesError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Self::of(rustix::fs::openat2(root, name, flags, Mode::empty(), resolve), path.join(name))
    }

    fn of(dir: Result<OwnedFd, Errno>, path: PathBuf) -> Result<Option<Tree>, ModulesError> {
        let dir = match dir {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(ModulesError::Tree { dir: path, source: error.into() }),
        };
        let mut tree = Tree { dir, path, modules: BTreeMap::new(), built_in: BTreeSet::new() };
        match tree.read_lists() {
            Ok(()) => Ok((!tree.modules.is_empty() || !tree.built_in.is_empty()).then_some(tree)),
            Err(source) => Err(ModulesError::Tree { dir: tree.path, source }),
        }
    }

    /// Where it is; only for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is such a module, built in or not.
    pub(super) fn has(&self, name: &str) -> bool {
        let name = normal(name);
        self.modules.contains_key(&name) || self.built_in.contains(&name)
    }

    /// Whether the kernel has it built in.
    pub(super) fn is_built_in(&self, normal_name: &str) -> bool {
        self.built_in.contains(normal_name)
    }

    /// The module's bytes, unpacked; None where there is no such module.
    pub(super) fn read(&self, normal_name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(listed) = self.modules.get(normal_name) else { return Ok(None) };
        // modules.order has the names from before compression.
        let mut packed = None;
        for suffix in ["", ".xz", ".zst", ".gz"] {
            let mut name = listed.clone().into_os_string();
            name.push(suffix);
            packed = self.read_file(Path::new(&name), MAX_MODULE)?;
            if packed.is_some() {
                break;
            }
        }
        let Some(packed) = packed else { return Ok(None) };
        let Some(compression) = Compression::of(&packed) else { return Ok(Some(packed)) };
        let mut bytes = Vec::new();
        let reader = compression.reader(BufReader::new(&packed[..]))?;
        limited(reader, MAX_MODULE, &mut bytes)?;
        Ok(Some(bytes))
    }

    fn read_lists(&mut self) -> io::Result<()> {
        let built_in = self.list("modules.builtin")?.unwrap_or_default();
        self.built_in = built_in.iter().filter_map(|path| module_name(path)).collect();
        let listed = match self.list("modules.dep")? {
            Some(listed) if !listed.is_empty() => listed,
            _ => match self.list("modules.order")? {
                Some(listed) if !listed.is_empty() => listed,
                _ => self.walk()?,
            },
        };
        self.modules = listed.into_iter().filter_map(|path| Some((module_name(&path)?, path))).collect();
        Ok(())
    }

    /// The first word of each line, without a colon.
    fn list(&self, name: &str) -> io::Result<Option<Vec<PathBuf>>> {
        let Some(bytes) = self.read_file(Path::new(name), MAX_LIST)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let first =
            |line: &str| line.split([':', ' ']).next().filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(Some(text.lines().filter_map(first).collect()))
    }

    /// Files below, where nothing lists them.
    fn walk(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut todo = vec![(PathBuf::from("."), 0)];
        while let Some((dir, depth)) = todo.pop() {
            for entry in rustix::fs::Dir::read_from(self.open_below(&dir, OFlags::DIRECTORY)?)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                let path = dir.join(name);
                if name == "." || name == ".." || found.len() + todo.len() >= MAX_FILES {
                    continue;
                }
                match entry.file_type() {
                    rustix::fs::FileType::Directory if depth < MAX_DEPTH => todo.push((path, depth + 1)),
                    rustix::fs::FileType::RegularFile => found.push(path),
                    _ => {}
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn open_below(&self, path: &Path, more: OFlags) -> Result<OwnedFd, Errno> {
        // Without NONBLOCK a FIFO of that name would hold us up.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | more;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(self.dir.as_fd(), path, flags, Mode::empty(), resolve)
    }

    /// None: there is no such file.
    fn read_file(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file: File = match self.open_below(path, OFlags::empty()) {
            Ok(file) => file.into(),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
        }
        let mut bytes = Vec::with_capacity(metadata.len().min(limit) as usize);
        limited(file, limit, &mut bytes)?;
        Ok(Some(bytes))
    }
}

fn limited(reader: impl Read, limit: u64, into: &mut Vec<u8>) -> io::Result<()> {
    reader.take(limit + 1).read_to_end(into)?;
    if into.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {limit} bytes")));
    }
    Ok(())
}

/// `kernel/fs/x/some-fs.ko.xz` is `some_fs`; None for what is not a module.
fn module_name(path: &Path) -> Option<String> {
    let (name, rest) = path.file_name()?.to_str()?.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| normal(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_list_is_survived(list in proptest::collection::vec(any::<u8>(), 0..300), dep in any::<bool>()) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(if dep { "modules.dep" } else { "modules.order" }), &list).unwrap();
            std::fs::write(dir.path().join("modules.builtin"), &list).unwrap();
            if let Ok(Some(tree)) = Tree::open(dir.path()) {
                let names: Vec<_> = tree.modules.keys().cloned().collect();
                names.iter().for_each(|name| drop(tree.read(name)));
            }
        }
    }

    #[test]
    fn names_are_normal() {
        let name = |path: &str| module_name(Path::new(path));
        assert_eq!(name("kernel/drivers/char/hw_random/virtio-rng.ko"), Some("virtio_rng".into()));
        assert_eq!(name("a/erofs.ko.zst"), Some("erofs".into()));
        assert_eq!(name("a/erofs.kobold"), None);
        assert_eq!(name("modules.dep"), None);
    }

    #[test]
    fn bug_27_modules_outside_of_their_tree_are_not_read() {
        let guard = tempfile::tempdir().unwrap();
        let (dir, secret) = (guard.path().join("tree"), guard.path().join("secret.ko"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(&secret, "secret").unwrap();
        std::fs::write(dir.join("own.ko"), "own").unwrap();
        std::os::unix::fs::symlink(&secret, dir.join("absolute.ko")).unwrap();
        std::os::unix::fs::symlink("../secret.ko", dir.join("relative.ko")).unwrap();
        let list = format!("own.ko:\nabsolute.ko:\nrelative.ko:\n../secret.ko:\n{}:\n", secret.display());
        std::fs::write(dir.join("modules.dep"), list).unwrap();
        let tree = Tree::open(&dir).unwrap().unwrap();
        assert_eq!(tree.read("own").unwrap().unwrap(), b"own");
        for name in ["absolute", "relative", "secret"] {
            assert!(tree.read(name).is_err(), "{name} was read");
        }
    }
}
