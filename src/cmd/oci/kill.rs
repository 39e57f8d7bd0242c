//! `kill`, `pause` and `resume`: what is done to running processes.

use std::os::fd::AsFd;

use nix::sys::signal::Signal;

use super::store::{Status, Store};
use super::{Fault, Result, vm};
use crate::cli::oci::KillArgs;

/// Sends a signal.
pub fn run(store: &Store, args: &KillArgs) -> Result<u8> {
    let (path, record) = store.record(&args.id)?;
    let signal = number(&args.signal)?;
    let status = record.status(&path);
    if record.vm.is_some() && !vm::passes_on(signal) {
        let why =
            format!("signal {signal} does not reach its workload: HUP, INT, QUIT, TERM, USR1 and USR2 do");
        return Err(vm::refuse("signal", &args.id, &why));
    }
    if args.all && !record.group.is_empty() {
        record.group.signal(signal)?;
        if status == Status::Paused && i32::from(signal) == libc::SIGKILL {
            record.group.freeze(false)?;
        }
        return Ok(0);
    }
    // The words are those that containerd looks for.
    let gone = || Fault::new(format!("cannot kill container {:?}: container not running", args.id));
    let process = match status {
        Status::Stopped | Status::Creating => return Err(gone()),
        _ => record.process().ok_or_else(gone)?,
    };
    match hv_container::oci::signal(process.as_fd(), signal) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(gone()),
        Err(source) => {
            return Err(Fault::because(
                format_args!("cannot send signal {signal} to container {:?}", args.id),
                source,
            ));
        }
    }
    if status == Status::Paused && record.vm.is_none() && i32::from(signal) == libc::SIGKILL {
        // Who is frozen does not even die.
        record.group.freeze(false)?;
    }
    Ok(0)
}

/// Stops every process, or lets them go on.
pub fn freeze(store: &Store, id: &str, stop: bool) -> Result<u8> {
    store.record(id)?;
    let held = store.hold(id)?;
    let record = held.record()?;
    match (record.status(&held.path), stop) {
        (Status::Created, true) if record.vm.is_some() => {
            return Err(vm::refuse("pause", id, "it is not booted before it is started"));
        }
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {}
        (other, _) => {
            let verb = if stop { "pause" } else { "resume" };
            return Err(Fault::new(format!("cannot {verb} container {id:?}: it is {}", other.word())));
        }
    }
    match &record.vm {
        Some(boot) => vm::hold(boot, stop)?,
        None => record.group.freeze(stop)?,
    }
    Ok(0)
}

/// A signal by number, or by name with or without SIG, also `RTMIN+3`.
fn number(text: &str) -> Result<u8> {
    if let Ok(number @ 1..=64) = text.parse::<u8>() {
        return Ok(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, base: i32| {
        let rest = if rest.is_empty() { Ok(0) } else { rest.parse::<i32>() };
        rest.ok().map(|offset| base + offset).filter(|number| (34..=64).contains(number))
    };
    let real_time = name.strip_prefix("RTMIN").and_then(|rest| offset(rest, 34));
    let real_time = real_time.or_else(|| name.strip_prefix("RTMAX").and_then(|rest| offset(rest, 64)));
    let named = || format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32);
    let found = real_time.or_else(named);
    found.map(|number| number as u8).ok_or_else(|| Fault::new(format!("{text:?} is no signal")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, signal) in
            [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("64", 64)]
        {
            assert_eq!(number(text).unwrap(), signal, "{text}");
        }
        for bad in ["0", "65", "SIG", "NOPE", "-9", "RTMIN+99"] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }
}
