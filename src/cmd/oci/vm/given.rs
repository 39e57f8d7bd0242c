//! What of the host's a guest is given: copies of the small files that engines bind into every container, and kernel
//! parameters, which are the guest's own.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hv_common::wire::{Given, GivenFile};
use hv_container::oci::{Config, config::Mount};

use super::plan::refused;
use super::{Fault, Result};

/// Files that engines write for a container and bind so that it may write to them; other ones are taken read-only.
const OF_ENGINES: [&str; 4] = ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/run/.containerenv"];
/// Directories that a guest has by itself: an empty one of the host's is no loss.
const OWN: [&str; 3] = ["/dev/shm", "/run", "/tmp"];
/// The most bytes of all files together: they travel with the guest's configuration.
const MOST: u64 = 128 << 10;

/// Everything that is given, as it is now.
///
/// # Errors
/// A mount of the host's that no copy can stand for: it is named.
pub fn given(config: &Config, bundle: &Path) -> Result<Given> {
    let mut given = Given::default();
    for mount in config.mounts.iter().filter(|mount| is_bind(mount)) {
        given.files.extend(file(mount, bundle)?);
    }
    let length: usize = given.files.iter().map(|file| file.bytes.len()).sum();
    if length as u64 > MOST {
        return Err(refused("mounts", "the files for a VM are copies, of up to 128 KiB together"));
    }
    for (name, value) in &config.linux.sysctl {
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        given.parameters.push((path, value.clone()));
    }
    Ok(given)
}

/// Whether an existing file or directory is mounted.
pub fn is_bind(mount: &Mount) -> bool {
    mount.kind.as_deref() == Some("bind") || mount.options.iter().any(|one| one == "bind" || one == "rbind")
}

/// The copy of one file; None where the guest's own directory stands for it.
fn file(mount: &Mount, bundle: &Path) -> Result<Option<GivenFile>> {
    let field = format!("mounts ({})", mount.destination);
    let source = bundle.join(mount.source.as_deref().unwrap_or_default());
    let failed = |error| Fault::because(format_args!("{field} with source {}", source.display()), error);
    let found = source.metadata().map_err(failed)?;
    if found.is_dir() {
        let empty = std::fs::read_dir(&source).map_err(failed)?.next().is_none();
        if empty && OWN.contains(&mount.destination.as_str()) {
            return Ok(None);
        }
        return Err(refused(&field, "directories of the host are not shared with a VM"));
    }
    let read_only = mount.options.iter().any(|one| one == "ro" || one == "rro");
    if !read_only && !OF_ENGINES.contains(&mount.destination.as_str()) {
        return Err(refused(
            &field,
            "a VM gets a copy of a file, which cannot be written through: bind it with `ro`",
        ));
    }
    if !found.is_file() || found.len() > MOST {
        return Err(refused(&field, "a VM gets copies of files, of up to 128 KiB together"));
    }
    let mut bytes = Vec::new();
    File::open(&source).and_then(|file| file.take(MOST).read_to_end(&mut bytes)).map_err(failed)?;
    let mode = found.permissions().mode() & 0o7777;
    Ok(Some(GivenFile { path: mount.destination.clone(), mode, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(source: &Path, destination: &str, options: &[&str]) -> Result<Given> {
        let config = serde_json::json!({"ociVersion": "1.2.0", "mounts": [
            {"destination": destination, "type": "bind", "source": source, "options": options}]});
        given(&serde_json::from_value(config).unwrap(), Path::new("/"))
    }

    #[test]
    fn copies_stand_for_small_files_and_for_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "text").unwrap();
        let hosts = ask(&file, "/etc/hosts", &["rbind"]).unwrap();
        assert_eq!(
            (hosts.files[0].path.as_str(), hosts.files[0].bytes.as_slice()),
            ("/etc/hosts", &b"text"[..])
        );
        assert_eq!(ask(&file, "/data", &["bind", "ro"]).unwrap().files.len(), 1);
        assert!(ask(&file, "/data", &["bind"]).unwrap_err().message.starts_with("mounts (/data)"));
        assert!(ask(dir.path(), "/data", &["bind", "ro"]).unwrap_err().message.contains("directories"));
        assert!(ask(dir.path(), "/dev/shm", &["bind"]).is_err(), "it is not empty");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(ask(dir.path(), "/dev/shm", &["bind"]).unwrap(), Given::default());
        assert!(ask(&file, "/etc/hosts", &["bind"]).is_err(), "there is none");
        std::fs::write(&file, vec![0; 200 << 10]).unwrap();
        assert!(ask(&file, "/etc/hosts", &["bind"]).unwrap_err().message.contains("128 KiB"));
    }
}
