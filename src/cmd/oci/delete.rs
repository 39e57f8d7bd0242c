//! `delete`: nothing is left of a container.

use hv_container::oci::{self, Moment};

use super::store::{Held, Record, Status, Store};
use super::{Fault, Result, vm};
use crate::cli::oci::DeleteArgs;

/// Deletes.
pub fn run(store: &Store, args: &DeleteArgs) -> Result<u8> {
    let held = match store.record(&args.id).and_then(|_| store.hold(&args.id)) {
        Err(fault) if args.force && fault.message.ends_with("does not exist") => return Ok(0),
        other => other?,
    };
    let record = held.record()?;
    match record.status(&held.path) {
        Status::Stopped => {}
        // Its program never ran.
        Status::Created | Status::Creating => record.kill(),
        _ if args.force => record.kill(),
        other => {
            return Err(Fault::new(format!(
                "cannot delete container {:?} that is not stopped: {}; kill it first, or use --force",
                args.id,
                other.word()
            )));
        }
    }
    remove(held, &record)?;
    Ok(0)
}

/// Removes what is left of a container whose process has ended.
pub fn remove(held: Held, record: &Record) -> Result<()> {
    record.group.destroy()?;
    if record.vm.is_some() {
        vm::clean_up();
    }
    held.remove()?;
    let state = record.state(Status::Stopped).to_string();
    // It is gone, whatever they say: the specification has it that their failures are only told.
    if let Err(error) = oci::run_hooks(Moment::Poststop, &record.config.hooks.poststop, &state) {
        super::log::warn(&crate::error::chain(&error));
    }
    Ok(())
}
