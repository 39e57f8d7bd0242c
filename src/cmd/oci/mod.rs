//! `hv oci`: the verbs of an OCI runtime, one a file. Their errors end with status 1 and stand on
//! standard error and in the log, as engines expect.

mod console;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod figures;
mod foreground;
mod kill;
mod list;
mod log;
mod ps;
mod readiness;
mod run;
mod seal;
mod spec;
mod start;
mod state;
mod store;
pub(crate) mod time;
mod update;
mod vm;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;

use crate::cli::oci::{OciArgs, OciGlobals, OciVerb};
use crate::error::chain;

/// The version of the specification that hv knows.
pub const SPEC_VERSION: &str = "1.2.0";

/// Why a verb failed, and the status for it.
#[derive(Debug)]
pub struct Fault {
    message: String,
    status: u8,
}

/// What every verb returns.
pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// With status 1.
    pub fn new(message: impl Into<String>) -> Fault {
        Fault { message: message.into(), status: 1 }
    }

    /// With this status.
    pub fn with_status(message: impl Into<String>, status: u8) -> Fault {
        Fault { message: message.into(), status }
    }

    /// hv could not do `what`, because of `source`.
    pub fn because(what: impl fmt::Display, source: impl std::error::Error + 'static) -> Fault {
        Fault::new(format!("{what}: {}", chain(&source)))
    }
}

impl From<hv_container::Error> for Fault {
    fn from(error: hv_container::Error) -> Fault {
        let status = match &error {
            hv_container::Error::Workload(failure) if failure.status >= 126 => failure.status,
            _ => 1,
        };
        Fault { message: chain(&error), status }
    }
}

impl From<hv_common::cgroup::Error> for Fault {
    fn from(error: hv_common::cgroup::Error) -> Fault {
        Fault::new(chain(&error))
    }
}

/// A program named `hv-oci` is `hv oci`, one named `hv-oci-vm` is `hv oci --isolation vm`.
pub fn spelled_out(mut args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let Some(name) = args.next() else { return Vec::new() };
    let words: &[&str] = match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some("hv-oci") => &["oci"],
        Some("hv-oci-vm") => &["oci", "--isolation=vm"],
        _ => &[],
    };
    [name].into_iter().chain(words.iter().map(OsString::from)).chain(args).collect()
}

/// Where a process will be made in a container: hv executes itself out of its reach, before it does anything that
/// it would have to do again. Whether that works is found out, and told, by the verb itself.
pub fn seal_early(args: &[OsString]) {
    let is = |word: &OsString| ["create", "run", "exec"].iter().any(|verb| word == verb);
    if args.get(1).is_some_and(|verb| verb == "oci") && args.iter().skip(2).any(is) {
        let _ = seal::ensure();
    }
}

/// Does what was typed; the status to end with.
pub fn run(args: OciArgs) -> u8 {
    let log = log::Log::new(&args.globals);
    match attempt(args) {
        Ok(status) => status,
        Err(fault) => {
            log.error(&fault.message);
            fault.status
        }
    }
}

fn attempt(args: OciArgs) -> Result<u8> {
    if args.globals.version {
        println!("hv-oci version {}\nspec: {SPEC_VERSION}", env!("CARGO_PKG_VERSION"));
        return Ok(0);
    }
    refuse_globals(&args.globals)?;
    let Some(verb) = args.verb else {
        return Err(Fault::new("what is hv oci to do? See `hv oci --help`"));
    };
    // Before hv opens anything, which would take the number of one that is missing.
    match &verb {
        OciVerb::Create(args) => create::check_inherited(args.preserve_fds)?,
        OciVerb::Run(args) => create::check_inherited(args.create.preserve_fds)?,
        OciVerb::Exec(args) => create::check_inherited(args.preserve_fds)?,
        _ => {}
    }
    let globals = args.globals;
    let store = store::Store::new(globals.root.clone());
    match verb {
        OciVerb::Create(args) => create::run(&store, &globals, &args),
        OciVerb::Start(args) => start::run(&store, &args.id),
        OciVerb::Run(args) => run::run(&store, &globals, &args),
        OciVerb::State(args) => state::run(&store, &args.id),
        OciVerb::Kill(args) => kill::run(&store, &args),
        OciVerb::Delete(args) => delete::run(&store, &args),
        OciVerb::Exec(args) => exec::run(&store, args),
        OciVerb::Ps(args) => ps::run(&store, &args),
        OciVerb::List(args) => list::run(&store, &args),
        OciVerb::Pause(args) => kill::freeze(&store, &args.id, true),
        OciVerb::Resume(args) => kill::freeze(&store, &args.id, false),
        OciVerb::Update(args) => update::run(&store, &args),
        OciVerb::Events(args) => events::run(&store, &args),
        OciVerb::Spec(args) => spec::run(&args),
        OciVerb::Features => features::run(),
        OciVerb::VmMonitor(args) => vm::monitor::run(&store, &args),
    }
}

fn refuse_globals(args: &OciGlobals) -> Result<()> {
    if args.systemd_cgroup {
        return Err(Fault::new(
            "--systemd-cgroup: hv makes cgroups itself and asks no systemd for them; leave it out, and set the \
             engine to cgroupfs (podman --cgroup-manager=cgroupfs, docker's native.cgroupdriver=cgroupfs)",
        ));
    }
    if let Some(other) = args.cgroup_manager.as_ref().filter(|name| *name != "cgroupfs") {
        return Err(Fault::new(format!("--cgroup-manager {other}: hv knows `cgroupfs` alone")));
    }
    match args.rootless.as_deref() {
        None | Some("auto" | "true" | "false") => Ok(()),
        Some(other) => Err(Fault::new(format!("--rootless={other}: true, false or auto"))),
    }
}
