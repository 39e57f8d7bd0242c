//! `update`: other limits for a running container.

use std::io::Read;

use hv_common::cgroup::Resources;

use super::store::{Status, Store};
use super::{Fault, Result};
use crate::cli::oci::UpdateArgs;

/// Updates.
pub fn run(store: &Store, args: &UpdateArgs) -> Result<u8> {
    store.record(&args.id)?;
    let held = store.hold(&args.id)?;
    let mut record = held.record()?;
    if record.status(&held.path) == Status::Stopped {
        return Err(Fault::new(format!("cannot update container {:?}: container not running", args.id)));
    }
    let resources = resources(args)?;
    if !resources.devices.is_empty() {
        return Err(Fault::new("cannot update devices: the rules of a running container stay"));
    }
    record.group.apply(&resources)?;
    record.config.linux.resources = Some(resources);
    held.write(&record).map_err(|source| Fault::because("cannot write the state", source))?;
    Ok(0)
}

fn resources(args: &UpdateArgs) -> Result<Resources> {
    let mut resources = match &args.resources {
        None => Resources::default(),
        Some(path) => {
            let mut text = Vec::new();
            let read = match path.as_os_str() == "-" {
                true => std::io::stdin().lock().read_to_end(&mut text).map(drop),
                false => std::fs::read(path).map(|read| text = read),
            };
            read.map_err(|source| Fault::because(format_args!("cannot read {}", path.display()), source))?;
            hv_container::oci::parse_resources(&text)?
        }
    };
    let memory = resources.memory.get_or_insert_with(Default::default);
    memory.limit = args.memory.or(memory.limit);
    memory.swap = args.memory_swap.or(memory.swap);
    memory.reservation = args.memory_reservation.or(memory.reservation);
    let cpu = resources.cpu.get_or_insert_with(Default::default);
    cpu.quota = args.cpu_quota.or(cpu.quota);
    cpu.period = args.cpu_period.or(cpu.period);
    cpu.shares = args.cpu_shares.or(cpu.shares);
    cpu.cpus = args.cpuset_cpus.clone().or(cpu.cpus.take());
    cpu.mems = args.cpuset_mems.clone().or(cpu.mems.take());
    let pids = resources.pids.get_or_insert_with(Default::default);
    pids.limit = args.pids_limit.or(pids.limit);
    Ok(resources)
}
