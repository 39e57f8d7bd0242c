//! Processes and threads: making one, and passing the word between two.

use std::ffi::CString;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use hv_common::sys::exec::{CStringArray, execute_file, executed_as, exit_now, inherited};
use hv_common::sys::fork::{Side, fork};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::retry_on_intr;
use rustix::process::{WaitOptions, waitpid};

use super::{Doing, Done, Timed};

/// The argument with which this program ends at once.
pub const NOTHING: &str = "nothing";

/// An operation: a fork of this process, the execution of this program in it, its end, and the wait for that.
pub fn fork_and_execute(operations: u64) -> Done {
    let program = own_program()?;
    let args = CStringArray::new(vec![c"hv-probe".into(), CString::new(NOTHING).unwrap_or_default()]);
    let env = CStringArray::new(Vec::new());
    Timed::repeat(operations, |_| match fork().doing("cannot fork")? {
        Side::Child => {
            execute_file(program.as_fd(), &args, &env);
            exit_now(127)
        }
        Side::Parent { pid, .. } => {
            let status = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty())).doing("cannot wait")?;
            match status.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                _ => Err("this program could not be executed again".into()),
            }
        }
    })
}

/// The file that this program was executed from: where its path leads, or the descriptor that the kernel named.
fn own_program() -> Result<OwnedFd, String> {
    let name = executed_as().ok_or("the kernel did not say which program this is")?;
    let number = name.to_str().ok().and_then(|name| name.strip_prefix("/dev/fd/")?.parse().ok());
    match number {
        Some(number) => inherited(number).doing("this program was not left open"),
        None => open(name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing("cannot open this program"),
    }
}

/// An operation: a byte to another thread on the same processor through one pipe, and one back through another.
pub fn pipe(operations: u64) -> Done {
    let pair = || std::io::pipe().doing("cannot make a pipe");
    let ((there, out), (back, home)) = (pair()?, pair()?);
    std::thread::scope(|scope| {
        let echo = scope.spawn(move || echo(there, home));
        let timed = ping(operations, out, back);
        // Our end is closed by now: the other thread sees the end of the file.
        echo.join().map_err(|_| "the other thread ended badly".to_owned())?;
        timed
    })
}

fn ping(operations: u64, mut out: PipeWriter, mut back: PipeReader) -> Done {
    let mut byte = [1u8];
    Timed::repeat(operations, |_| {
        out.write_all(&byte).doing("cannot write to a pipe")?;
        back.read_exact(&mut byte).doing("cannot read from a pipe")
    })
}

fn echo(mut from: impl Read, mut to: impl Write) {
    let mut byte = [0u8];
    while from.read_exact(&mut byte).is_ok() && to.write_all(&byte).is_ok() {}
}
