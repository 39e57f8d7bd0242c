//! A sandbox's directory in the unified hierarchy.
//!
//! The kernel lets a cgroup hand controllers to its children only when no process is in it (the root
//! cgroup excepted), so the parent of `hv` is the nearest place that is free of processes or has the
//! controllers handed down already: for root the top, else an ancestor that was delegated to the user.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::layout::Place;
use super::{Controller, Dir, Error, PARENT, files, unusable};
use crate::spec::Id;

/// The controllers that a sandbox gets where they are to be had.
pub(super) const CONTROLLERS: [Controller; 3] = [Controller::Cpu, Controller::Memory, Controller::Pids];

/// How often a parent that vanishes is made again: another command may be removing it.
const ATTEMPTS: usize = 8;

/// The directories below which `hv` may be made, the preferred one first.
pub(super) fn parents(place: &Place) -> Vec<PathBuf> {
    let above = place.own.ancestors().skip(1).take_while(|dir| dir.starts_with(&place.top));
    let mut parents: Vec<PathBuf> = Vec::new();
    if rustix::process::geteuid().is_root() {
        parents.push(place.top.clone());
    }
    for dir in above.chain([place.own.as_path()]) {
        if !parents.iter().any(|known| known == dir) {
            parents.push(dir.to_owned());
        }
    }
    parents
}

/// Makes the directory of `id` with as many of the `wanted` controllers as can be had, and all `required`.
pub(super) fn create(
    place: &Place,
    id: &Id,
    wanted: &[Controller],
    required: &[Controller],
) -> Result<(Dir, OwnedFd), Error> {
    let mut first_error = None;
    for parent in parents(place) {
        match create_below(&parent.join(PARENT), id, wanted, required) {
            Ok(made) => return Ok(made),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    let nowhere = || Error::new("make a directory in", &place.top, io::ErrorKind::NotFound.into());
    let error = first_error.unwrap_or_else(nowhere);
    Err(match required.first() {
        Some(_) if matches!(error, Error::Limit { .. }) => error,
        Some(controller) => unusable(*controller, error),
        None => error,
    })
}

fn create_below(
    parent: &Path,
    id: &Id,
    wanted: &[Controller],
    required: &[Controller],
) -> Result<(Dir, OwnedFd), Error> {
    let path = parent.join(id.as_str());
    // The rule: an earlier sandbox has arranged everything, and the directory has the controllers.
    if fs::create_dir(&path).is_ok() {
        let has = files::read(&path.join("cgroup.controllers"))?;
        if wanted.iter().all(|one| has.split_whitespace().any(|name| name == one.name())) {
            return opened(path, wanted.to_vec());
        }
        fs::remove_dir(&path).map_err(|source| Error::new("remove cgroup", &path, source))?;
    }
    for attempt in 1..=ATTEMPTS {
        make_dir(parent)?;
        let controllers = hand_down(parent, wanted, required)?;
        match fs::create_dir(&path) {
            Ok(()) => return opened(path, controllers),
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
            Err(source) => return Err(Error::new("make cgroup", &path, source)),
        }
    }
    Err(Error::new("make cgroup", &path, io::ErrorKind::NotFound.into()))
}

fn opened(path: PathBuf, controllers: Vec<Controller>) -> Result<(Dir, OwnedFd), Error> {
    let opened = File::open(&path).map_err(|source| Error::new("open", &path, source))?;
    Ok((Dir { path, controllers, unified: true }, opened.into()))
}

fn make_dir(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|source| Error::new("make cgroup", path, source)),
    }
}

/// Lets the children of `parent` (`.../hv`) have the wanted controllers; says which they have then.
fn hand_down(
    parent: &Path,
    wanted: &[Controller],
    required: &[Controller],
) -> Result<Vec<Controller>, Error> {
    let mut got = Vec::new();
    for controller in wanted {
        let levels = parent.parent().into_iter().chain([parent]);
        match levels.map(|level| enable(level, *controller)).collect::<Result<Vec<()>, Error>>() {
            Ok(_) => got.push(*controller),
            Err(error) if required.contains(controller) => return Err(unusable(*controller, error)),
            Err(_) => {}
        }
    }
    Ok(got)
}

fn enable(level: &Path, controller: Controller) -> Result<(), Error> {
    let file = level.join("cgroup.subtree_control");
    let enabled = files::read(&file)?;
    if enabled.split_whitespace().any(|name| name == controller.name()) {
        return Ok(());
    }
    files::write(&file, &format!("+{controller}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_lie_at_or_below_the_top() {
        let place = Place { top: "/c".into(), own: "/c/user/app/job".into() };
        let mut expected: Vec<PathBuf> =
            ["/c/user/app", "/c/user", "/c", "/c/user/app/job"].map(PathBuf::from).to_vec();
        if rustix::process::geteuid().is_root() {
            expected.retain(|dir| dir != Path::new("/c"));
            expected.insert(0, "/c".into());
        }
        assert_eq!(parents(&place), expected);
    }

    #[test]
    fn at_the_top_itself() {
        let place = Place { top: "/c".into(), own: "/c".into() };
        assert_eq!(parents(&place), [PathBuf::from("/c")]);
    }
}
