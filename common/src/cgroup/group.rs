//! A control group at a place of somebody else's choice: what an OCI runtime is told to make, use, read
//! and remove. It outlives the command that made it, so it is a list of directories that can be written
//! down; nothing is removed on drop.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::resources::Resources;
use super::settings::{self, Setting};
use super::{Controller, Error, Layout, PARENT, devices, end, files};

/// The v1 hierarchies that every container takes part in: clients read their figures there.
const BASE: [Controller; 7] = [
    Controller::Cpu,
    Controller::Cpuacct,
    Controller::Memory,
    Controller::Pids,
    Controller::Devices,
    Controller::Freezer,
    Controller::Io,
];
/// What a container gets in the unified hierarchy where it is to be had.
const BASE_UNIFIED: [Controller; 6] = [
    Controller::Cpu,
    Controller::Memory,
    Controller::Pids,
    Controller::Io,
    Controller::Cpuset,
    Controller::Hugetlb,
];
/// How long the freezer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to look whether a v1 freezer is done: it tells nobody.
const FREEZING: Duration = Duration::from_millis(1);

/// One directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where.
    pub path: PathBuf,
    /// The hierarchy's mount point, which it lies below.
    pub top: PathBuf,
    /// The controllers that work in it, by the kernel's names.
    pub controllers: Vec<String>,
    /// In the unified hierarchy.
    pub unified: bool,
}

/// A container's directories.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    places: Vec<Place>,
}

impl Place {
    fn add(&self, pid: i32) -> Result<(), Error> {
        files::write(&self.path.join("cgroup.procs"), &pid.to_string())
    }
}

impl Group {
    /// Where the group at `path` (absolute: below the top of each hierarchy; relative: below hv's own
    /// directory) will lie. Makes nothing.
    ///
    /// # Errors
    /// The path leads out of the hierarchies.
    pub fn at(layout: &Layout, path: &str, resources: &Resources) -> Result<Group, Error> {
        let below = Path::new(path);
        let mut parts = below.components().filter(|part| *part != Component::RootDir).peekable();
        if parts.peek().is_none() || !parts.all(|part| matches!(part, Component::Normal(_))) {
            let why =
                io::Error::new(io::ErrorKind::InvalidInput, "it must name a group and hold no `.` and `..`");
            return Err(Error::new("use cgroupsPath", below, why));
        }
        let root = rustix::process::geteuid().is_root();
        let resolve = |place: &super::layout::Place| match below.strip_prefix("/") {
            Ok(below) => place.top.join(below),
            Err(_) if root => place.top.join(PARENT).join(below),
            Err(_) => place.own.join(PARENT).join(below),
        };
        let asked: Vec<Controller> =
            settings::on_host(resources, layout)?.iter().filter_map(|setting| setting.controller).collect();
        let mut places: Vec<Place> = Vec::new();
        if let Some(place) = &layout.unified {
            let controllers = BASE_UNIFIED.iter().chain(&asked).filter(|one| !layout.v1.contains_key(one));
            let mut controllers: Vec<String> =
                controllers.map(|one| one.unified_name().to_string()).collect();
            controllers.sort_unstable();
            controllers.dedup();
            places.push(Place { path: resolve(place), top: place.top.clone(), controllers, unified: true });
        }
        for (controller, place) in &layout.v1 {
            if !BASE.contains(controller) && !asked.contains(controller) {
                continue;
            }
            let path = resolve(place);
            let name = controller.name().to_string();
            match places.iter_mut().find(|known| known.path == path) {
                Some(known) => known.controllers.push(name),
                None => places.push(Place {
                    path,
                    top: place.top.clone(),
                    controllers: vec![name],
                    unified: false,
                }),
            }
        }
        Ok(Group { places })
    }

    /// Makes the directories and sets the limits. A directory that cannot be made, and is not needed for
    /// a limit, is left out of the group.
    ///
    /// # Errors
    /// A limit cannot be set, or the group is somebody else's already: processes are in it.
    pub fn create(&mut self, resources: &Resources) -> Result<(), Error> {
        let root = rustix::process::geteuid().is_root();
        let limited = resources.limits_anything();
        let mut made = Vec::new();
        for mut place in std::mem::take(&mut self.places) {
            match make(&mut place) {
                Ok(()) => made.push(place),
                // Without root most directories belong to others: what is asked for is missed below.
                Err(error) if root || (limited && place.unified) => {
                    end::destroy(&made.iter().map(|one: &Place| one.path.clone()).collect::<Vec<_>>()).ok();
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        self.places = made;
        for place in &self.places {
            let strangers = end::procs(&place.path)?;
            if !strangers.is_empty() {
                return Err(Error::StillRunning(place.path.clone(), strangers));
            }
        }
        self.apply(resources)
    }

    /// Sets limits, in a new group or while processes run in it.
    ///
    /// # Errors
    /// What is asked for is not to be had here, or the kernel refuses the value.
    pub fn apply(&self, resources: &Resources) -> Result<(), Error> {
        let unified =
            |controller: Controller| !self.places.iter().any(|place| !place.unified && place.has(controller));
        self.check_usage(resources)?;
        let mut again = Vec::new();
        for setting in settings::settings(resources, &unified)? {
            // Of two limits of which one may not exceed the other, one direction needs the other order.
            if self.set(&setting).is_err() {
                again.push(setting);
            }
        }
        again.iter().try_for_each(|setting| self.set(setting))
    }

    /// Sets the rules about devices.
    ///
    /// # Errors
    /// A rule is none, or the kernel refuses it.
    pub fn apply_devices(&self, resources: &Resources) -> Result<(), Error> {
        let rules = devices::rules(&resources.devices)?;
        if let Some(place) = self.places.iter().find(|place| place.has(Controller::Devices)) {
            return devices::apply_v1(&place.path, &rules);
        }
        let Some(place) = self.places.iter().find(|place| place.unified) else {
            return Err(settings::refused(
                Controller::Devices,
                "there is no cgroup to set resources.devices for",
            ));
        };
        let dir = File::open(&place.path).map_err(|source| Error::new("open", &place.path, source))?;
        devices::apply_v2(dir.as_fd(), &place.path, &rules)
    }

    fn check_usage(&self, resources: &Resources) -> Result<(), Error> {
        let Some(memory) =
            resources.memory.as_ref().filter(|memory| memory.check_before_update == Some(true))
        else {
            return Ok(());
        };
        let used = self.number(Controller::Memory, "memory.current", "memory.usage_in_bytes").unwrap_or(0);
        match memory.limit {
            Some(limit @ 1..) if (limit as u64) < used => Err(settings::refused(
                Controller::Memory,
                &format!(
                    "memory.limit is less than the {used} bytes that are used, and checkBeforeUpdate is set"
                ),
            )),
            _ => Ok(()),
        }
    }

    fn set(&self, setting: &Setting) -> Result<(), Error> {
        let place = match setting.controller {
            Some(controller) => self.places.iter().find(|place| place.has(controller)),
            None => self.places.iter().find(|place| place.unified),
        };
        let controller = setting.controller.unwrap_or(Controller::Unified);
        let refused = |why: String, source| Error::Limit {
            controller,
            why,
            mend: "ask for what this host has, or leave it out",
            source,
        };
        let Some(place) = place else {
            let why = format!("no hierarchy with it can be used here, and {} is asked for", setting.file);
            return Err(refused(why, None));
        };
        let first = place.path.join(&setting.file);
        let result = match (files::try_write(&first, &setting.value), &setting.instead) {
            (Err(error), Some((file, value))) if error.kind() == io::ErrorKind::NotFound => {
                let second = place.path.join(file);
                files::try_write(&second, value).map_err(|source| (second, source))
            }
            (other, _) => other.map_err(|source| (first, source)),
        };
        result.map_err(|(path, source)| {
            let absent = source.kind() == io::ErrorKind::NotFound;
            let why = if absent { "the kernel has no such limit" } else { "the kernel refuses the value" };
            let error = Error::new(format!("write `{}` to", setting.value), &path, source);
            refused(why.into(), Some(Box::new(error)))
        })
    }

    /// The directories.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Puts a process into all directories.
    ///
    /// # Errors
    /// The process is gone, or the kernel refuses.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        self.places.iter().try_for_each(|place| place.add(pid))
    }

    /// Completes the move of a process that was cloned into the directory of the unified hierarchy: the v1
    /// directories. To move it where it is already would cost a grace period of the kernel's, 8 ms and more.
    ///
    /// # Errors
    /// As [`Group::add`].
    pub fn add_cloned(&self, pid: i32) -> Result<(), Error> {
        self.places.iter().filter(|place| !place.unified).try_for_each(|place| place.add(pid))
    }

    /// Every process in it, and in the groups below it.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn procs(&self) -> Result<Vec<i32>, Error> {
        let Some(place) = self.main() else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        below(&place.path, &mut |dir| {
            found.extend(end::procs(dir)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// The directory that lists the processes: where the freezer is, if there is one.
    fn main(&self) -> Option<&Place> {
        let freezer = self.places.iter().find(|place| place.has(Controller::Freezer));
        freezer.or_else(|| self.places.iter().find(|place| place.unified)).or(self.places.first())
    }

    /// Stops every process, or lets them go on, and waits until that is done.
    ///
    /// # Errors
    /// There is no freezer, or it does not get done.
    pub fn freeze(&self, stop: bool) -> Result<(), Error> {
        let absent = || settings::refused(Controller::Freezer, "the container has no cgroup with a freezer");
        let place = self.main().ok_or_else(absent)?;
        let (file, value) = match (place.has(Controller::Freezer), place.unified) {
            (true, _) => ("freezer.state", if stop { "FROZEN" } else { "THAWED" }),
            (false, true) => ("cgroup.freeze", if stop { "1" } else { "0" }),
            (false, false) => return Err(absent()),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The v1 freezer wants to be told again while it is at it.
            files::write(&place.path.join(file), value)?;
            if self.frozen() == stop {
                return Ok(());
            }
            if Instant::now() >= deadline {
                // Half frozen helps nobody.
                let _ = files::try_write(&place.path.join(file), if place.unified { "0" } else { "THAWED" });
                return Err(Error::StillRunning(place.path.clone(), end::procs(&place.path)?));
            }
            std::thread::sleep(FREEZING);
        }
    }

    /// Whether every process is stopped.
    pub fn frozen(&self) -> bool {
        let Some(place) = self.main() else { return false };
        if place.has(Controller::Freezer) {
            return files::read(&place.path.join("freezer.state")).is_ok_and(|text| text.trim() == "FROZEN");
        }
        let events = files::read(&place.path.join("cgroup.events"));
        events.is_ok_and(|text| files::keyed(&text, "frozen") == Some(1))
    }

    /// Sends `signal` to every process.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn signal(&self, signal: u8) -> Result<(), Error> {
        for pid in self.procs()? {
            // One that has ended needs none.
            let _ = crate::sys::signal::send(pid, signal);
        }
        Ok(())
    }

    /// Kills what is left in it and removes the directories.
    ///
    /// # Errors
    /// Processes do not end, or a directory cannot be removed.
    pub fn destroy(&self) -> Result<(), Error> {
        let paths: Vec<PathBuf> = self.places.iter().map(|place| place.path.clone()).collect();
        end::destroy(&paths)
    }
}

impl Place {
    pub(super) fn has(&self, controller: Controller) -> bool {
        let name = if self.unified { controller.unified_name() } else { controller.name() };
        self.controllers.iter().any(|one| one == name)
    }
}

fn below(dir: &Path, visit: &mut impl FnMut(&Path) -> Result<(), Error>) -> Result<(), Error> {
    visit(dir)?;
    let entries = fs::read_dir(dir).map_err(|source| Error::new("list", dir, source))?;
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        below(&entry.path(), visit)?;
    }
    Ok(())
}

/// Makes the directory and those above it. In the unified hierarchy the controllers are handed down on
/// the way, and those that are not to be had are struck off the list.
fn make(place: &mut Place) -> Result<(), Error> {
    let above: Vec<PathBuf> =
        place.path.ancestors().take_while(|dir| *dir != place.top).map(Path::to_owned).collect();
    let cpuset = !place.unified && place.has(Controller::Cpuset);
    for dir in above.iter().rev() {
        if place.unified
            && let Some(parent) = dir.parent()
        {
            hand_down(parent, &place.controllers)?;
        }
        match fs::create_dir(dir) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::new("make cgroup", dir, source));
            }
            _ => {}
        }
        if cpuset {
            inherit_cpuset(dir)?;
        }
    }
    if place.unified {
        let has = files::read(&place.path.join("cgroup.controllers"))?;
        place.controllers.retain(|one| has.split_whitespace().any(|name| name == one));
    }
    Ok(())
}

fn hand_down(dir: &Path, controllers: &[String]) -> Result<(), Error> {
    let has = files::read(&dir.join("cgroup.controllers"))?;
    let handed = files::read(&dir.join("cgroup.subtree_control"))?;
    for controller in controllers {
        let in_list = |list: &str| list.split_whitespace().any(|name| name == controller);
        if in_list(&has) && !in_list(&handed) {
            // What is not to be had is missed when a limit needs it.
            let _ = files::try_write(&dir.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
    }
    Ok(())
}

/// A new v1 cpuset is empty, and takes no process until it is not.
fn inherit_cpuset(dir: &Path) -> Result<(), Error> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if files::read(&dir.join(file))?.trim().is_empty() {
            files::write(&dir.join(file), files::read(&parent.join(file))?.trim())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(path: &str, json: &str) -> Option<(Group, Resources)> {
        let resources: Resources = serde_json::from_str(json).unwrap();
        let mut group = Group::at(&Layout::detect().unwrap(), path, &resources).unwrap();
        // None where this process may not make cgroups: the test then runs in the testbed, as root.
        group.create(&resources).ok().filter(|()| !group.is_empty()).map(|()| (group, resources))
    }

    #[test]
    fn paths_stay_inside_the_hierarchies() {
        for path in ["", "/", "..", "/a/../../b", "a/./../b"] {
            assert!(Group::at(&Layout::default(), path, &Resources::default()).is_err(), "{path}");
        }
        assert!(Group::at(&Layout::default(), "/a/b", &Resources::default()).unwrap().is_empty());
    }

    #[test]
    fn a_group_is_made_frozen_changed_and_removed() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let path = format!("/hv-test-{}/inner", std::process::id());
        let json = r#"{"memory":{"limit":33554432},"pids":{"limit":9},"cpu":{"quota":5000,"period":10000,"cpus":"0"}}"#;
        let Some((group, mut resources)) = group(&path, json) else { return };
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        group.add(child.id() as i32).unwrap();
        assert_eq!(group.procs().unwrap(), [child.id() as i32]);
        assert_eq!(group.number(Controller::Memory, "memory.max", "memory.limit_in_bytes"), Some(33_554_432));
        group.freeze(true).unwrap();
        assert!(group.frozen());
        group.freeze(false).unwrap();
        assert!(!group.frozen());
        resources.memory.as_mut().unwrap().limit = Some(67_108_864);
        group.apply(&resources).unwrap();
        assert_eq!(group.number(Controller::Memory, "memory.max", "memory.limit_in_bytes"), Some(67_108_864));
        group.apply_devices(&resources).unwrap();
        group.destroy().unwrap();
        assert!(!child.wait().unwrap().success());
        let parents: Vec<PathBuf> =
            group.places().iter().filter_map(|place| place.path.parent().map(Path::to_owned)).collect();
        assert!(group.places().iter().all(|place| !place.path.exists()));
        end::destroy(&parents).unwrap();
    }
}
