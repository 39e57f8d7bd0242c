//! What was typed means: a validated [`Spec`], or a refusal that says why and what can be done.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hv_common::landlock::Rule;
use hv_common::{Id, Kind, Limits, Process, Program, Root, Spec, Wall, procfs};
use hv_image::dirs::Dirs;
use hv_image::verity::RootHash;
use hv_image::{OpenError, root_tar, verity};

use crate::backend;
use crate::cli::{MachineArgs, RunArgs, machine};
use crate::error::{Failure, Result};
use crate::foreground::terminal;
use crate::size::Bytes;

/// Where programs are looked for, as in every distribution.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most processors of one sandbox: what a microVM can have, for both kinds.
const MAX_CPUS: u32 = 64;
/// The least processor time: the kernel gives no less than 1 ms in each 100 ms.
const MIN_MILLICPUS: u32 = 10;
/// The least memory, below which nothing can be expected to start.
const MIN_MEMORY: u64 = 1 << 20;
/// The kernel's own limit of a host name (HOST_NAME_MAX).
const MAX_HOSTNAME: usize = 64;

/// A start, decided.
#[derive(Debug)]
pub struct Plan {
    /// What to run and with what limits.
    pub spec: Spec,
    /// The microVM's kernel; nothing is set in it for other kinds.
    pub machine: MachineArgs,
    /// Walls of the container that are left out.
    pub lowered: Vec<Wall>,
}

/// Decides what `typed` means for a sandbox of `kind`. Opens the image.
///
/// # Errors
/// Something cannot be done; the message says what, why, and what can be done instead.
pub fn plan(kind: Kind, RunArgs { sandbox: typed, machine }: RunArgs) -> Result<Plan> {
    if kind != Kind::Vm {
        refuse_machine(&machine)?;
    }
    refuse_lowered(kind, &typed.lower)?;
    let id = match typed.name {
        Some(name) => Id::try_from(name)?,
        None => Id::random().map_err(|source| Failure::new("cannot draw a name for the sandbox", source))?,
    };
    let hostname = typed.hostname.unwrap_or_else(|| id.to_string());
    check_hostname(&hostname)?;
    let limits = Limits {
        memory: typed.memory.map(check_memory).transpose()?,
        millicpus: typed.cpus.map(check_cpus).transpose()?,
        pids: typed.pids.map(check_pids).transpose()?,
    };
    backend::check_limits(kind, &limits)?;
    let interactive = typed.tty || (!typed.no_tty && terminal::is_interactive());
    let (program, args) = program(typed.inject, typed.command);
    let process = Process {
        args,
        program,
        env: environment(&typed.env, interactive)?,
        cwd: check_workdir(typed.workdir)?,
        user: typed.user,
        terminal: interactive.then(terminal::size),
        landlock: landlock(&typed.landlock)?,
    };
    let image = typed.image.or(typed.rootfs).ok_or_else(|| Failure::refused("no image: name one"))?;
    let root = open(Path::new(&image), typed.rw)?;
    if let Some(hash) = &typed.verity {
        check_verity(&root, hash)?;
    }
    Ok(Plan { spec: Spec { id, hostname, root, process, limits }, machine, lowered: typed.lower })
}

/// What is executed, and with which arguments.
fn program(injected: Option<PathBuf>, mut args: Vec<OsString>) -> (Program, Vec<OsString>) {
    let Some(path) = injected else { return (Program::Image, args) };
    if args.is_empty() {
        args.push(path.file_name().unwrap_or(path.as_os_str()).to_owned());
    }
    (Program::Injected(path), args)
}

/// The whole image is read: what was checked is what is started, however it came here.
fn check_verity(root: &Root, hash: &RootHash) -> Result<()> {
    match root {
        Root::Directory { path, .. } => Err(Failure::refused(format!(
            "--verity: {} is a directory, and has no hash tree; make a file of it with `hv pack --verity`",
            path.display()
        ))),
        Root::Disk { path, file, .. } => verity::check(file, hash)
            .map_err(|source| Failure::new(format!("will not start {}", path.display()), source)),
    }
}

/// A raw image, a directory, or a tar of a root file system.
///
/// # Errors
/// It is none of these, or cannot be opened.
pub fn open(path: &Path, writable: bool) -> Result<Root> {
    match hv_image::open(path, writable) {
        Err(OpenError::Archive { .. }) => {
            Ok(root_tar::open(path, writable, &Dirs::of_this_user()?.startable())?)
        }
        opened => Ok(opened?),
    }
}

fn landlock(typed: &[OsString]) -> Result<Vec<Rule>> {
    let parse =
        |text: &OsString| Rule::parse(text).map_err(|error| Failure::refused(format!("--landlock {error}")));
    typed.iter().map(parse).collect()
}

/// A container has no machine of its own.
fn refuse_machine(machine: &MachineArgs) -> Result<()> {
    match machine::options().find(|option| (option.typed)(machine)) {
        Some(option) => Err(Failure::refused(format!(
            "{} is only for `hv vm`: {}; leave it out, or use `hv vm`",
            option.name(),
            option.why
        ))),
        None => Ok(()),
    }
}

/// The others have none of a container's walls.
fn refuse_lowered(kind: Kind, lowered: &[Wall]) -> Result<()> {
    let why = match kind {
        Kind::Ctr => return Ok(()),
        Kind::Vm => "a microVM's wall is its machine, and cannot be taken away",
        Kind::Process => "a bare process has no walls",
    };
    if lowered.is_empty() {
        return Ok(());
    }
    Err(Failure::refused(format!("--lower is only for `hv ctr`: {why}; leave it out")))
}

fn check_memory(bytes: u64) -> Result<u64> {
    if bytes < MIN_MEMORY {
        let (asked, least) = (Bytes(bytes), Bytes(MIN_MEMORY));
        return Err(Failure::refused(format!(
            "--memory of {asked} is too little to start anything; ask for at least {least}"
        )));
    }
    let host =
        procfs::host_memory().map_err(|source| Failure::new("cannot read the host's memory", source))?;
    if bytes > host {
        let (asked, host) = (Bytes(bytes), Bytes(host));
        return Err(Failure::refused(format!(
            "--memory of {asked} is more than this host's {host}; ask for less"
        )));
    }
    Ok(bytes)
}

fn check_cpus(millicpus: u32) -> Result<u32> {
    if millicpus == 0 {
        return Err(Failure::refused(
            "--cpus of 0 leaves nothing to run on; ask for at least one, or a share such as 0.5",
        ));
    }
    if millicpus < MIN_MILLICPUS {
        return Err(Failure::refused(
            "--cpus is at least 0.01: the kernel gives no smaller share; ask for more",
        ));
    }
    if millicpus > MAX_CPUS * 1000 {
        return Err(Failure::refused(format!("--cpus is at most {MAX_CPUS}; ask for fewer")));
    }
    Ok(millicpus)
}

fn check_pids(pids: u32) -> Result<u32> {
    match pids {
        0 => Err(Failure::refused("--pids of 0 leaves no process to run; ask for at least 1")),
        pids => Ok(pids),
    }
}

fn check_hostname(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if (1..=MAX_HOSTNAME).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    let shown = name.escape_default();
    Err(Failure::refused(format!(
        "--hostname `{shown}` is not a host name: use 1 to {MAX_HOSTNAME} letters, digits, `-`, `.` or `_`"
    )))
}

fn check_workdir(dir: OsString) -> Result<OsString> {
    if dir.as_bytes().starts_with(b"/") {
        return Ok(dir);
    }
    let shown = dir.display();
    Err(Failure::refused(format!(
        "--workdir `{shown}` must be absolute: it begins with `/`, inside the image"
    )))
}

/// The workload's whole environment: ours, then what was typed; the last of a name wins.
fn environment(typed: &[OsString], interactive: bool) -> Result<Vec<OsString>> {
    let mut env: Vec<OsString> = vec![PATH.into()];
    if interactive {
        let term = std::env::var_os("TERM").unwrap_or_else(|| "xterm".into());
        env.push([OsStr::new("TERM="), &term].into_iter().collect());
    }
    for one in typed {
        let bytes = one.as_bytes();
        let name = &bytes[..bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len())];
        if name.is_empty() {
            return Err(Failure::refused(format!("--env `{}` has no name; write NAME=VALUE", one.display())));
        }
        env.retain(|known| !names(known, name));
        if name.len() < bytes.len() {
            env.push(one.clone());
        } else if let Some(value) = std::env::var_os(one) {
            env.push(OsString::from_vec([name, b"=", value.as_bytes()].concat()));
        }
    }
    Ok(env)
}

fn names(variable: &OsStr, name: &[u8]) -> bool {
    variable.as_bytes().strip_prefix(name).is_some_and(|rest| rest.starts_with(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_make_no_sense_are_refused_with_a_reason() {
        for bytes in [0, 1, 1 << 60] {
            assert!(check_memory(bytes).is_err(), "{bytes}");
        }
        assert_eq!(check_memory(64 << 20).unwrap(), 64 << 20);
        for millicpus in [0, 1, 300_000] {
            assert!(check_cpus(millicpus).is_err(), "{millicpus}");
        }
        assert_eq!(check_cpus(1500).unwrap(), 1500);
        let share = Limits { millicpus: Some(1500), ..Limits::default() };
        assert!(backend::check_limits(Kind::Vm, &share).is_err());
        backend::check_limits(Kind::Ctr, &share).unwrap();
        assert!(check_pids(0).is_err());
    }

    #[test]
    fn the_last_of_a_name_wins() {
        let typed = ["A=1", "PATH=/x", "A=2", "AB=3", "HV_SURELY_NOT_SET"].map(OsString::from);
        assert_eq!(environment(&typed, false).unwrap(), ["PATH=/x", "A=2", "AB=3"]);
        assert!(environment(&["=x".into()], false).is_err());
        assert!(environment(&[], true).unwrap().iter().any(|one| names(one, b"TERM")));
    }

    #[test]
    fn host_names() {
        for good in ["web-1", "a.b_c"] {
            check_hostname(good).unwrap();
        }
        for bad in ["", "a b", "a\n", &"x".repeat(65)] {
            assert!(check_hostname(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_container_can_do_without_walls() {
        refuse_lowered(Kind::Ctr, &Wall::ALL).unwrap();
        for kind in [Kind::Vm, Kind::Process] {
            refuse_lowered(kind, &[]).unwrap();
            let message = refuse_lowered(kind, &[Wall::Seccomp]).unwrap_err().message();
            assert!(message.starts_with("--lower is only for `hv ctr`: "), "{message}");
        }
    }

    #[test]
    fn a_container_refuses_what_only_a_machine_has() {
        let mut machine = MachineArgs::default();
        machine.boot.console = Some(machine::boot::Console::Serial);
        assert!(
            refuse_machine(&machine).unwrap_err().message().starts_with("--console is only for `hv vm`: ")
        );
        refuse_machine(&MachineArgs::default()).unwrap();
    }
}
