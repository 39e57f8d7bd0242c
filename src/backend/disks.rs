//! Disks beside the image: from what was typed to opened, named disks.

use std::collections::BTreeSet;

use hv_vmm::AddedDisk;
use hv_vmm::backend::ROOT_DISK;
use hv_vmm::device::virtio::block::{Disk, Settings};
use hv_vmm::device::virtio::rate_limit::Limits;

use crate::cli::machine::disk::DiskArg;
use crate::error::{Failure, Result};

/// Opens and locks all of them. The first without a name is `disk1`, and so on; a serial number that was not
/// given is the name.
///
/// # Errors
/// One cannot be opened as asked, or two have the same name.
pub fn open(typed: &[DiskArg]) -> Result<Vec<AddedDisk>> {
    let mut names = BTreeSet::from([ROOT_DISK.to_owned()]);
    (1..).zip(typed).map(|(number, arg)| add(number, arg, &mut names)).collect()
}

fn add(number: u32, arg: &DiskArg, names: &mut BTreeSet<String>) -> Result<AddedDisk> {
    let id = arg.id.clone().unwrap_or_else(|| format!("disk{number}"));
    if !names.insert(id.clone()) {
        let whose = if id == ROOT_DISK { "the image's own disk has it" } else { "two disks would have it" };
        return Err(Failure::refused(format!(
            "--disk {arg}: the name `{id}` is taken: {whose}; give another with id="
        )));
    }
    let path = &arg.path;
    let disk = Disk::open(path, arg.read_only, arg.direct)
        .map_err(|source| Failure::new(format!("cannot use the disk {}", path.display()), source))?;
    let settings = Settings {
        serial: arg.serial.clone().unwrap_or_else(|| id.clone()),
        id,
        limits: Limits { operations: arg.iops, bytes: arg.bandwidth },
        own_thread: true,
        ..Settings::default()
    };
    Ok(AddedDisk { disk, settings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_and_unique() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.img");
        std::fs::write(&path, [0; 4096]).unwrap();
        let arg = |options: &str| format!("{},ro{options}", path.display()).parse::<DiskArg>().unwrap();
        let disks = open(&[arg(""), arg(",id=data"), arg(",serial=S")]).unwrap();
        let names: Vec<_> =
            disks.iter().map(|d| (d.settings.id.as_str(), d.settings.serial.as_str())).collect();
        assert_eq!(names, [("disk1", "disk1"), ("data", "data"), ("disk3", "S")]);
        assert!(open(&[arg(",id=x"), arg(",id=x")]).unwrap_err().message().contains("taken"));
        assert!(open(&[arg(",id=root")]).unwrap_err().message().contains("image's own disk"));
    }

    #[test]
    fn one_image_is_not_written_by_two() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.img");
        std::fs::write(&path, [0; 4096]).unwrap();
        let arg = || path.display().to_string().parse::<DiskArg>().unwrap();
        assert!(open(&[arg(), arg()]).unwrap_err().message().contains("another process uses it"));
    }
}
