//! Copies kernels and modules into the store.

use std::fs;
use std::io;
use std::path::Path;

use super::{StoreError, at};
use crate::holes;

/// Directories below a module directory, one in another.
const MAX_DEPTH: usize = 16;

/// Copies a regular file; its permissions become the usual ones.
pub(super) fn file(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut source = fs::File::open(from).map_err(at("read", from))?;
    let mut target =
        fs::File::options().read(true).write(true).create_new(true).open(to).map_err(at("write", to))?;
    let length = io::copy(&mut source, &mut target).map_err(at("copy", from))?;
    holes::dig(&target, length).map_err(at("write", to))
}

/// The same, unless there is no such file.
pub(super) fn file_if_there(from: &Path, to: &Path) -> Result<(), StoreError> {
    if from.is_file() { file(from, to) } else { Ok(()) }
}

/// Copies modules and their lists. Links (`build` and `source` lead to the kernel's source) stay behind.
pub(super) fn modules(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut todo = vec![(from.to_path_buf(), to.to_path_buf(), 0)];
    while let Some((from, to, depth)) = todo.pop() {
        fs::create_dir_all(&to).map_err(at("make", &to))?;
        for entry in fs::read_dir(&from).map_err(at("read", &from))? {
            let entry = entry.map_err(at("read", &from))?;
            let kind = entry.file_type().map_err(at("read", &from))?;
            let target = to.join(entry.file_name());
            if kind.is_dir() && depth < MAX_DEPTH {
                todo.push((entry.path(), target, depth + 1));
            } else if kind.is_file() && is_wanted(&entry.path(), depth) {
                file(&entry.path(), &target)?;
            }
        }
    }
    Ok(())
}

fn is_wanted(path: &Path, depth: usize) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.contains(".ko") || (depth == 0 && name.starts_with("modules."))
}
