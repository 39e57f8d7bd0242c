//! `run`: create and start; in the foreground until the container has ended.

use super::foreground::Foreground;
use super::readiness::Messenger;
use super::store::Store;
use super::{Result, create, delete, start, vm};
use crate::cli::oci::{OciGlobals, RunBundleArgs};

/// Runs.
pub fn run(store: &Store, globals: &OciGlobals, args: &RunBundleArgs) -> Result<u8> {
    if args.create.dry_run {
        return create::run(store, globals, &args.create);
    }
    let mut front = Foreground::take()?;
    let waits = (!args.detach).then_some(&mut front);
    let made = create::make(store, globals, &args.create, false, waits)?;
    let mut messenger = None;
    let begun = create::finish(&made, args.create.pid_file.as_deref()).and_then(|()| {
        front.begin()?;
        messenger = Messenger::of(&made.held.path)?;
        match &made.created.conn {
            Some(conn) => start::go(&made.held, &made.record, conn),
            None => vm::start(&made.held, &made.record),
        }
    });
    if let Err(fault) = begun {
        made.record.kill();
        let _ = delete::remove(made.held, &made.record);
        return Err(fault);
    }
    // Other commands may work on it meanwhile.
    drop(made.held);
    let (process, pid) = (&made.created.pidfd, made.record.pid);
    if args.detach {
        return messenger.map_or(Ok(0), |messenger| messenger.until_ready(process, pid).map(|()| 0));
    }
    let status = match messenger {
        None => front.wait(process)?,
        Some(messenger) => std::thread::scope(|scope| {
            scope.spawn(|| messenger.until_end(process, pid));
            front.wait(process)
        })?,
    };
    if !args.keep {
        // Somebody else may have deleted it already.
        if let Ok(held) = store.hold(&args.create.id) {
            delete::remove(held, &made.record)?;
        }
    }
    Ok(status)
}
