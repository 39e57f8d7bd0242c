//! Files and kernel parameters that the host gives to the workload's world.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hv_common::starter::Failure;
use hv_common::wire::Given;

/// Puts them where they belong. The root is this process's by now: links lead nowhere else.
pub fn put(given: &Given) -> Result<(), Failure> {
    for file in &given.files {
        let path = Path::new(&file.path);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            // A link of the image's may lead to where nothing is.
            let _ = fs::remove_file(path);
            fs::write(path, &file.bytes)?;
            fs::set_permissions(path, PermissionsExt::from_mode(file.mode))
        };
        write().map_err(|error| Failure::new(format!("cannot put the file {}", file.path), error))?;
    }
    for (name, value) in &given.parameters {
        fs::write(Path::new("/proc/sys").join(name), value).map_err(|error| {
            Failure::new(format!("cannot set the kernel parameter {name} of the guest"), error)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use hv_common::wire::GivenFile;

    use super::*;

    #[test]
    fn a_file_takes_the_place_of_a_link_and_has_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/resolv.conf");
        fs::create_dir(dir.path().join("etc")).unwrap();
        symlink("../nowhere/at/all", &path).unwrap();
        let file = GivenFile { path: path.display().to_string(), mode: 0o640, bytes: b"nameserver".to_vec() };
        let below = GivenFile { path: dir.path().join("a/b").display().to_string(), ..file.clone() };
        put(&Given { files: vec![file, below], parameters: Vec::new() }).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"nameserver");
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode(), 0o100_640);
        assert!(dir.path().join("a/b").is_file());
    }
}
