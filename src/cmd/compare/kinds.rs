//! Who can be launched here, and why others cannot.

use std::collections::BTreeMap;
use std::fmt::Write;

use hv_common::Kind;

use crate::backend;
use crate::compare::peers::mounted::Root;
use crate::compare::peers::{self, Adapter, TABLE};
use crate::compare::{Contender, Setup};
use crate::error::{Failure, Result};

/// A line for each kind: its name, what it starts from, and why it cannot run here if it cannot.
pub fn list() -> String {
    let mut out = String::new();
    let mut line = |name: &str, takes: &str, obstacle: Option<String>| {
        let state = obstacle.map_or("can run here".to_owned(), |why| format!("absent: {why}"));
        let _ = writeln!(out, "{name:<14}{takes:<20}{state}");
    };
    for kind in [Kind::Process, Kind::Ctr, Kind::Vm] {
        line(kind.word(), "any image", of_own(kind));
    }
    for adapter in &TABLE {
        line(adapter.name, peers::takes(adapter.form), of_peer(adapter));
    }
    out
}

/// The kinds that can run here with this setup, and why the others cannot.
pub fn usable(asked: &[Contender], setup: &Setup) -> (Vec<Contender>, BTreeMap<Contender, String>) {
    let mut usable = Vec::new();
    let mut skipped = BTreeMap::new();
    for who in asked {
        match obstacle(who, setup) {
            _ if usable.contains(who) => {}
            Some(why) => drop(skipped.insert(who.clone(), why)),
            None => usable.push(who.clone()),
        }
    }
    (usable, skipped)
}

/// Makes the image a directory where a runtime needs one, for as long as the result lives, and does what has to be
/// done once.
///
/// # Errors
/// The image cannot be mounted, or a runtime does not take it.
pub fn prepare<'a>(
    setup: &mut Setup,
    contenders: impl Iterator<Item = &'a Contender>,
) -> Result<Option<Root>> {
    let peers = contenders.filter_map(|who| peers::find(who.word()));
    let directories: Vec<_> = peers.filter(|adapter| adapter.needs_directory()).collect();
    if directories.is_empty() {
        return Ok(None);
    }
    let root = Root::of(&setup.image)?;
    setup.root = root.path().to_path_buf();
    for adapter in directories {
        adapter
            .once(root.path())
            .map_err(|why| Failure::refused(format!("{} does not take the image: {why}", adapter.name)))?;
    }
    Ok(Some(root))
}

fn obstacle(who: &Contender, setup: &Setup) -> Option<String> {
    match who {
        Contender::Own(kind) => of_own(*kind),
        Contender::Peer(name) => {
            let adapter = peers::find(name)?;
            of_peer(adapter).or_else(|| adapter.refuses(setup))
        }
    }
}

fn of_peer(adapter: &Adapter) -> Option<String> {
    let machine = || if adapter.needs_directory() { None } else { backend::obstacle_to_vm() };
    adapter.obstacle().or_else(machine)
}

fn of_own(kind: Kind) -> Option<String> {
    match kind {
        Kind::Vm => backend::obstacle_to_vm(),
        Kind::Process if !nix::unistd::geteuid().is_root() => {
            Some("changing the root directory needs root".into())
        }
        Kind::Process | Kind::Ctr => None,
    }
}
