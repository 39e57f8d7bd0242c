//! Files inside a root directory that is not ours: looked up so that no link leads out of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// The longest account file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?)
}

/// The content of a small regular file; empty when there is none.
pub(super) fn read(root: BorrowedFd<'_>, path: &str) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = match open(root, path, flags) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => File::from(other?),
    };
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    let mut content = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(64 << 10) + 1);
    file.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 4 MiB"));
    }
    Ok(content)
}

/// Whether `path` is a regular file that somebody may execute.
pub(super) fn is_program(root: BorrowedFd<'_>, path: &str) -> bool {
    open(root, path, OFlags::PATH).and_then(|file| Ok(rustix::fs::fstat(file)?)).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside_and_odd_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        std::fs::create_dir_all(path.join("etc")).unwrap();
        std::fs::write(path.join("inner"), "inner").unwrap();
        symlink("/inner", path.join("etc/passwd")).unwrap();
        symlink("../../../../etc/passwd", path.join("etc/up")).unwrap();
        symlink("/etc/loop", path.join("etc/loop")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path.join("etc/pipe"), Mode::from(0o600)).unwrap();
        let root = File::open(path).unwrap();
        assert_eq!(read(root.as_fd(), "etc/passwd").unwrap(), b"inner");
        assert_eq!(read(root.as_fd(), "etc/up").unwrap(), b"inner");
        assert_eq!(read(root.as_fd(), "etc/absent").unwrap(), b"");
        assert!(read(root.as_fd(), "etc/loop").is_err());
        assert!(read(root.as_fd(), "etc/pipe").is_err(), "and it does not block");
        assert!(read(root.as_fd(), "etc").is_err());
        let large = File::create(path.join("etc/large")).unwrap();
        large.set_len(MAX_FILE + 1).unwrap();
        assert!(read(root.as_fd(), "etc/large").is_err());
        assert!(!is_program(root.as_fd(), "inner") && !is_program(root.as_fd(), "etc"));
        std::fs::set_permissions(path.join("inner"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        assert!(is_program(root.as_fd(), "inner"));
    }
}
