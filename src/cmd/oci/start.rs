//! `start`: the word to go on for a container's process.

use std::fs;
use std::os::fd::AsFd;

use hv_container::oci::{self, Conn, Moment};

use super::readiness::Messenger;
use super::store::{Held, Record, Status, Store};
use super::{Fault, Result, vm};

/// Starts.
pub fn run(store: &Store, id: &str) -> Result<u8> {
    store.record(id)?;
    let held = store.hold(id)?;
    let record = held.record()?;
    match record.status(&held.path) {
        Status::Created => {}
        other => return Err(Fault::new(format!("cannot start container {id:?}: it is {}", other.word()))),
    }
    if record.vm.is_some() {
        vm::start(&held, &record)?;
        return Ok(0);
    }
    let messenger = Messenger::of(&held.path)?;
    let Some(conn) = Conn::open(held.dir().as_fd())? else {
        // A `start` that was killed has said the word already.
        let _ = fs::remove_file(held.path.join(oci::GATE));
        return Err(Fault::new(format!("cannot start container {id:?}: it was started already")));
    };
    go(&held, &record, &conn)?;
    // Other commands may work on it meanwhile.
    drop(held);
    if let (Some(messenger), Some(process)) = (messenger, record.process()) {
        messenger.until_ready(&process, record.pid)?;
    }
    Ok(0)
}

/// Says the word through `conn`, and waits until the program runs.
pub fn go(held: &Held, record: &Record, conn: &Conn) -> Result<()> {
    let process = record.config.process.clone().unwrap_or_default();
    let state = record.state(Status::Created).to_string();
    conn.go(&state, &seccomp_state(record))?;
    // From here on it counts as running.
    let _ = fs::remove_file(held.path.join(oci::GATE));
    conn.wait(&process)?;
    let state = record.state(Status::Running).to_string();
    oci::run_hooks(Moment::Poststart, &record.config.hooks.poststart, &state)?;
    Ok(())
}

/// What goes to the listener of the seccomp program (config-linux.md, containerProcessState).
fn seccomp_state(record: &Record) -> String {
    let seccomp = record.config.linux.seccomp.as_ref();
    let Some(seccomp) = seccomp.filter(|seccomp| seccomp.listener_path.is_some()) else {
        return String::new();
    };
    serde_json::json!({
        "ociVersion": super::SPEC_VERSION,
        "fds": ["seccompFd"],
        "pid": record.pid,
        "metadata": seccomp.listener_metadata,
        "state": record.state(Status::Creating),
    })
    .to_string()
}
