//! `exec`: a further process in a container.

use std::fs;

use hv_container::oci::config::{Capabilities, ConsoleSize, Process};
use hv_container::oci::{self, Execution};

use super::foreground::Foreground;
use super::store::{Status, Store};
use super::{Fault, Result, console, create, seal, vm};
use crate::cli::oci::ExecArgs;
use crate::foreground::terminal;

/// Executes.
pub fn run(store: &Store, args: ExecArgs) -> Result<u8> {
    seal::ensure()?;
    let (path, record) = store.record(&args.id)?;
    match record.status(&path) {
        Status::Running | Status::Created => {}
        other => {
            let why = format!(
                "cannot exec in container {:?}: container not running: it is {}",
                args.id,
                other.word()
            );
            return Err(Fault::new(why));
        }
    }
    let process = process(&args, record.config.process.clone().unwrap_or_default())?;
    if let Some(boot) = &record.vm {
        if record.status(&path) == Status::Created {
            return Err(vm::refuse("exec in", &args.id, "it is not booted before it is started"));
        }
        return vm::exec::run(&args, &record, boot, &process);
    }
    let mut front = if args.detach { None } else { Some(Foreground::take()?) };
    let console = console::of(args.console_socket.as_deref(), process.terminal, front.as_mut())?;
    let (pid, pidfd) = oci::exec(Execution {
        container: record.pid,
        process: &process,
        seccomp: record.config.linux.seccomp.as_ref().filter(|seccomp| seccomp.listener_path.is_none()),
        group: &record.group,
        console,
        inherited: args.preserve_fds,
    })?;
    if let Some(file) = &args.pid_file {
        create::write_pid(file, pid)?;
    }
    let Some(mut front) = front else { return Ok(0) };
    front.begin()?;
    front.wait(&pidfd)
}

/// The size of the terminal that hv has: the process's is as large.
fn own_size(args: &ExecArgs) -> Option<ConsoleSize> {
    use std::io::IsTerminal;
    let carried = args.tty && args.console_socket.is_none() && std::io::stdout().is_terminal();
    let size = carried.then(terminal::size)?;
    Some(ConsoleSize { height: size.rows, width: size.cols })
}

/// What is executed: the file's, or the container's own with what was typed.
fn process(args: &ExecArgs, own: Process) -> Result<Process> {
    let mut process = match &args.process {
        Some(path) => {
            let text = fs::read(path)
                .map_err(|source| Fault::because(format_args!("cannot read {}", path.display()), source))?;
            oci::parse_process(&text)?
        }
        None if args.command.is_empty() => return Err(Fault::new("exec needs a command, or --process")),
        None => {
            Process { args: args.command.clone(), terminal: args.tty, console_size: own_size(args), ..own }
        }
    };
    process.terminal |= args.tty;
    if let Some(cwd) = &args.cwd {
        process.cwd.clone_from(cwd);
    }
    process.env.extend(args.env.iter().cloned());
    if let Some(user) = &args.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        let number =
            |text: &str| text.parse().map_err(|_| Fault::new(format!("--user {user}: it must be UID[:GID]")));
        process.user.uid = number(uid)?;
        process.user.gid = number(gid)?;
        // Others' groups are not this user's.
        process.user.additional_gids.clear();
    }
    process.user.additional_gids.extend(&args.additional_gids);
    process.no_new_privileges |= args.no_new_privs;
    if !args.cap.is_empty() {
        let sets = process.capabilities.get_or_insert_with(Capabilities::default);
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(args.cap.iter().cloned());
        }
    }
    oci::check_process(&process)?;
    Ok(process)
}
