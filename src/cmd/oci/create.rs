//! `create`: a container whose process waits to be started.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use hv_common::cgroup::Group;
use hv_common::procfs;
use hv_container::oci::{self, Bundle, Creation, Facts, Listener};

use super::foreground::Foreground;
use super::store::{Held, Record, Status, Store};
use super::{Fault, Result, console, log, readiness, seal, time, vm};
use crate::cli::oci::{CreateArgs, OciGlobals};

/// A container that is made and held: its lock is ours.
pub struct Made {
    /// Its directory.
    pub held: Held,
    /// What is known of it.
    pub record: Record,
    /// Its process.
    pub created: oci::Created,
}

/// Creates.
pub fn run(store: &Store, globals: &OciGlobals, args: &CreateArgs) -> Result<u8> {
    if args.dry_run {
        let bundle = Bundle::open(&args.bundle)?;
        bundle.plan(&Facts::detect()?)?.iter().for_each(|line| println!("{line}"));
        return Ok(0);
    }
    let made = make(store, globals, args, true, None)?;
    finish(&made, args.pid_file.as_deref())?;
    Ok(0)
}

/// Makes the container; with `waits`, another command will start it. `front` gets the terminal where no socket was
/// named.
pub fn make(
    store: &Store,
    globals: &OciGlobals,
    args: &CreateArgs,
    waits: bool,
    front: Option<&mut Foreground>,
) -> Result<Made> {
    if args.no_pivot {
        return Err(Fault::new(
            "--no-pivot: a container without pivot_root can be left; start hv from a root file system that is mounted",
        ));
    }
    seal::ensure()?;
    let mut bundle = Bundle::open(&args.bundle)?;
    if let Some(boot) = vm::wanted(globals, &bundle.config)? {
        return vm::make(store, args, &bundle, boot, front);
    }
    let inherited = inherited(args.preserve_fds, &mut bundle);
    let facts = Facts::detect()?;
    let process = bundle.config.process.clone().unwrap_or_default();
    let not_granted = oci::capabilities_not_granted(&process);
    if !not_granted.is_empty() {
        let names: Vec<String> = not_granted.into_iter().collect();
        log::warn(&format!("not granted, because hv does not have them: {}", names.join(", ")));
    }
    let console = console::of(args.console_socket.as_deref(), process.terminal, front)?;
    let resources = bundle.config.linux.resources.clone().unwrap_or_default();
    let path = bundle.config.linux.cgroups_path.clone().filter(|path| !path.is_empty());
    let group = Group::at(&facts.layout, &path.unwrap_or_else(|| args.id.clone()), &resources)?;
    let held = store.create(&args.id)?;
    if let Err(fault) = readiness::offer(&held.path, &mut bundle.config) {
        let _ = held.remove();
        return Err(fault);
    }
    let record = Record {
        id: args.id.clone(),
        bundle: bundle.dir.clone(),
        pid: 0,
        started: 0,
        created: time::now(),
        owner: rustix::process::getuid().as_raw(),
        creating: true,
        group,
        config: bundle.config.clone(),
        vm: None,
    };
    let attempt = Attempt { args, bundle: &bundle, facts: &facts, waits, inherited };
    match attempt.build(&held, record, console) {
        Ok((record, created)) => Ok(Made { held, record, created }),
        Err((group, fault)) => {
            // What cannot be removed now is found by the next command.
            if group.destroy().is_ok() {
                let _ = held.remove();
            }
            Err(fault)
        }
    }
}

struct Attempt<'a> {
    args: &'a CreateArgs,
    bundle: &'a Bundle,
    facts: &'a Facts,
    waits: bool,
    inherited: u32,
}

impl Attempt<'_> {
    /// What is made is written down before it is made.
    fn build(
        &self,
        held: &Held,
        mut record: Record,
        console: Option<OwnedFd>,
    ) -> std::result::Result<(Record, oci::Created), (Group, Fault)> {
        let written = held.write(&record).map_err(|source| Fault::because("cannot write the state", source));
        if let Err(fault) = written {
            return Err((Group::default(), fault));
        }
        let planned = record.group.clone();
        match self.fill(held, &mut record, console) {
            Ok(created) => Ok((record, created)),
            Err(fault) => Err((planned, fault)),
        }
    }

    fn fill(&self, held: &Held, record: &mut Record, console: Option<OwnedFd>) -> Result<oci::Created> {
        let resources = self.bundle.config.linux.resources.clone().unwrap_or_default();
        record.group.create(&resources)?;
        // Without root no node can be made that the rules would be about.
        if self.facts.makes_nodes && !record.group.is_empty() {
            record.group.apply_devices(&resources)?;
        }
        let listener = if self.waits { Some(Listener::make(held.dir().as_fd())?) } else { None };
        let state = {
            let record = record.clone();
            move |pid: i32| Record { pid, ..record.clone() }.state(Status::Creating).to_string()
        };
        let group = record.group.clone();
        let mut born = |pid: i32| {
            record.pid = pid;
            record.started = procfs::start_time(pid)?.unwrap_or(0);
            held.write(record)
        };
        Ok(oci::create(Creation {
            bundle: self.bundle,
            facts: self.facts,
            group: (!group.is_empty()).then_some(&group),
            console,
            listener,
            inherited: self.inherited,
            keep_keyring: self.args.no_new_keyring,
            state: &state,
            born: &mut born,
        })?)
    }
}

/// The container is whole: says so in its record, and in the pid file, in this order.
pub fn finish(made: &Made, pid_file: Option<&Path>) -> Result<()> {
    let record = Record { creating: false, ..made.record.clone() };
    let written = made
        .held
        .write(&record)
        .map_err(|source| Fault::because("cannot write the state", source))
        .and_then(|()| pid_file.map_or(Ok(()), |path| write_pid(path, record.pid)));
    if written.is_err() {
        record.kill();
        let _ = record.group.destroy();
    }
    written
}

/// Writes the number by rename: whoever sees the file sees all of it.
pub fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let failed = |source| Fault::because(format_args!("cannot write {}", path.display()), source);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    std::fs::write(&new, pid.to_string()).map_err(failed)?;
    std::fs::rename(&new, path).map_err(failed)
}

/// How many descriptors come from socket activation (sd_listen_fds(3)).
fn activated() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// How many descriptors the program inherits: as asked, and those of socket activation, which it is told of.
fn inherited(asked: u32, bundle: &mut Bundle) -> u32 {
    let listen = activated();
    if listen > 0
        && let Some(process) = &mut bundle.config.process
    {
        process.env.extend([format!("LISTEN_FDS={listen}"), "LISTEN_PID=1".to_string()]);
    }
    asked.saturating_add(listen)
}

/// They must be there: else descriptors of hv's own would take their places.
pub fn check_inherited(asked: u32) -> Result<()> {
    for fd in 3..asked.saturating_add(activated()).saturating_add(3) {
        if !Path::new(&format!("/proc/self/fd/{fd}")).exists() {
            return Err(Fault::new(format!("--preserve-fds: descriptor {fd} is not open")));
        }
    }
    Ok(())
}
