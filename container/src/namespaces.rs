//! The container backend: the recipe of a start.

use std::os::fd::{AsFd, OwnedFd};

use hv_common::cgroup::Cgroup;
use hv_common::starter::{Identity, Prepared, Privileges, sealed};
use hv_common::{Backend, Kind, Phase, Sandbox, Spec, StartError, Stdio, Timeline, Wall, seccomp};

use crate::error::Error;
use crate::host::Host;
use crate::idmap::IdMap;
use crate::sandbox::Container;
use crate::spawn::Start;
use crate::step::Step;
use crate::{image, plan};

/// Starts containers: namespaces and cgroups on the host's kernel.
///
/// The thread that starts a container must live as long as the container: the kernel ends the
/// container when that thread ends.
#[derive(Debug, Default)]
pub struct Namespaces {
    give_up: Option<OwnedFd>,
    lowered: Vec<Wall>,
}

impl Namespaces {
    /// The backend. It holds nothing of the host: each start looks at it anew.
    pub fn new() -> Namespaces {
        Namespaces::default()
    }

    /// A start is given up, and fails, when this becomes readable before the program runs.
    #[must_use]
    pub fn given_up_on(self, readable: OwnedFd) -> Namespaces {
        Namespaces { give_up: Some(readable), ..self }
    }

    /// Leaves these walls out.
    #[must_use]
    pub fn without(self, lowered: &[Wall]) -> Namespaces {
        Namespaces { lowered: lowered.to_vec(), ..self }
    }

    fn steps(&self, spec: &Spec, host: &Host) -> Result<Vec<Step>, Error> {
        let mut steps = plan::steps(spec, host)
            .map_err(|_| Error::Refused("the host name or the image's path holds a NUL byte".into()))?;
        if self.lowered.contains(&Wall::Mounts) {
            plan::lower_mounts(&mut steps);
        }
        Ok(steps)
    }
}

impl Backend for Namespaces {
    fn kind(&self) -> Kind {
        Kind::Ctr
    }

    fn plan(&self, spec: &Spec) -> Vec<String> {
        match Host::detect().and_then(|host| Ok((self.steps(spec, &host)?, host))) {
            Ok((steps, host)) => self.describe(spec, &host, &steps),
            Err(error) => vec![format!("stop: {error}")],
        }
    }

    fn start(&self, spec: Spec, stdio: Stdio, timeline: &Timeline) -> Result<Box<dyn Sandbox>, StartError> {
        match self.begin(spec, stdio, timeline) {
            Ok(container) => Ok(Box::new(container)),
            Err(error) => {
                let status = error.status();
                Err(StartError::new(timeline, error).with_status(status))
            }
        }
    }
}

impl Namespaces {
    fn begin(&self, spec: Spec, stdio: Stdio, timeline: &Timeline) -> Result<Container, Error> {
        let host = Host::detect()?;
        let steps = self.steps(&spec, &host)?;
        let image = image::open(&spec.root, host.privileged)?;
        let workload = Prepared::new(&spec.process, image.as_fd(), self.privileges(&host))?
            .executing(sealed(&spec.process.program)?);
        check_identity(workload.identity(), &host.ids)?;
        let cgroup = Cgroup::create_in(&host.cgroups, &spec.id, &spec.limits)?;
        timeline.mark(Phase::Opened);
        let init = Start {
            host: &host,
            steps: &steps,
            image,
            workload: &workload,
            stdio,
            cgroup: cgroup.as_ref(),
            timeline,
            give_up: self.give_up.as_ref().map(AsFd::as_fd),
        }
        .run()?;
        Ok(Container::new(init, cgroup, spec.root, timeline.clone()))
    }

    fn privileges(&self, host: &Host) -> Privileges {
        let mut privileges = Privileges {
            set_groups: host.ids.sets_groups(),
            ..Privileges::container(seccomp::container_program())
        };
        for wall in &self.lowered {
            match wall {
                Wall::Seccomp => privileges.seccomp = Vec::new(),
                Wall::Capabilities => privileges.capabilities = None,
                Wall::Mounts => {}
            }
        }
        privileges
    }

    /// The whole start, one line a step: the monitor's part, PID 1's, and the workload's.
    fn describe(&self, spec: &Spec, host: &Host, steps: &[Step]) -> Vec<String> {
        let mut lines = vec![format!("open {}", image::words(&spec.root))];
        let cgroups = format!("make cgroup hv/{} ({})", spec.id, host.cgroups.shape());
        lines.push(format!("{cgroups}, limits {:?}", spec.limits));
        let has = |wall| !self.lowered.contains(&wall);
        if has(Wall::Seccomp) {
            lines.push("compile the seccomp profile".into());
        }
        let user = if host.privileged { "" } else { ", user" };
        lines.push(format!("clone into new namespaces: mount, pid, net, uts, ipc{user}"));
        lines.push(format!("map ids: {}", host.ids.words()));
        lines.extend(steps.iter().map(Step::to_string));
        lines.push("fork the workload; PID 1 keeps only CAP_KILL and one descriptor".into());
        let capabilities = if has(Wall::Capabilities) { "14" } else { "all" };
        lines.push(format!(
            "in the workload: session, streams, limits, {capabilities} capabilities, groups, user"
        ));
        let filter = if has(Wall::Seccomp) { "seccomp, " } else { "" };
        lines.push(format!(
            "in the workload: working directory, no_new_privs, {filter}close descriptors, exec"
        ));
        lines
    }
}

/// A user namespace has only the ids that are mapped into it.
fn check_identity(identity: &Identity, ids: &IdMap) -> Result<(), Error> {
    let (uid, gid) = (identity.uid, identity.gid);
    if ids.maps_user(uid) && ids.maps_group(gid) {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "cannot become user {uid}, group {gid}: without root a container has only the ids that /etc/subuid and \
         /etc/subgid give you ({}); add a range there and install the package uidmap, or start hv as root",
        ids.words()
    )))
}
