//! A sandbox's directories in the per-controller hierarchies of cgroup v1: `hv/ID` below the cgroup
//! of this process in each of them, so that limits set on hv hold for its sandboxes too.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{Controller, Dir, Error, Layout, PARENT};
use crate::spec::Id;

/// One mounted hierarchy with the controllers of interest that share it.
pub(super) struct Hierarchy {
    pub(super) own: PathBuf,
    pub(super) controllers: Vec<Controller>,
}

/// The hierarchies that a sandbox needs, each once. The freezer is needed only where no unified
/// hierarchy can kill a whole cgroup at once: every hierarchy costs another move of the process.
pub(super) fn hierarchies(layout: &Layout) -> Vec<Hierarchy> {
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for (controller, place) in layout.v1.iter().filter(|(controller, _)| controller.of_sandboxes()) {
        if *controller == Controller::Freezer && layout.unified.is_some() {
            continue;
        }
        match hierarchies.iter_mut().find(|hierarchy| hierarchy.own == place.own) {
            Some(hierarchy) => hierarchy.controllers.push(*controller),
            None => {
                hierarchies.push(Hierarchy { own: place.own.clone(), controllers: vec![*controller] });
            }
        }
    }
    hierarchies
}

/// Makes the directory of `id`.
pub(super) fn create(hierarchy: &Hierarchy, id: &Id) -> Result<Dir, Error> {
    let parent = hierarchy.own.join(PARENT);
    let path = parent.join(id.as_str());
    match fs::create_dir(&parent) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::new("make cgroup", &parent, source));
        }
        _ => {}
    }
    fs::create_dir(&path).map_err(|source| Error::new("make cgroup", &path, source))?;
    Ok(Dir { path, controllers: hierarchy.controllers.clone(), unified: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::layout::Place;

    #[test]
    fn shared_hierarchies_appear_once_and_the_freezer_only_without_v2() {
        let place = |path: &str| Place { top: path.into(), own: path.into() };
        let mut layout = Layout::default();
        layout.v1.insert(Controller::Cpu, place("/c/cpu,cpuacct"));
        layout.v1.insert(Controller::Cpuacct, place("/c/cpu,cpuacct"));
        layout.v1.insert(Controller::Freezer, place("/c/freezer"));
        assert_eq!(hierarchies(&layout).len(), 2);
        layout.unified = Some(place("/c/unified"));
        let left = hierarchies(&layout);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].controllers, [Controller::Cpu, Controller::Cpuacct]);
    }
}
