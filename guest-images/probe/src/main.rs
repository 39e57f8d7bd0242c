//! What `hv compare` runs inside a sandbox, whatever its image holds: a static program that is executed by
//! descriptor and needs no file, no shell and no /proc.
//!
//! # Layout
//! - [`hv_common::drill`]: attempts to reach what is not the sandbox's;
//! - [`work`]: workloads with a fixed number of operations, timed by the clock inside.

#![forbid(unsafe_code)]

mod work;

use std::process::ExitCode;

use hv_common::drill;

const USAGE: &str = "usage: hv-probe work [--percent N] [--wait] NAME...

Does workloads one after the other and prints a line of JSON about each; `all` names all of them.
--percent N  does so many per cent of the operations (1 to 100)
--wait       waits for a line on standard input before each

       hv-probe drill JSON [NAME]

Makes harmless attempts to get out, or the one named, and prints a line of JSON
about all. JSON says what the host has around the sandbox; {} leaves out the
attempts on that.

Example: hv ctr image.erofs --inject hv-probe -- hv-probe work syscall pipe
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["work", rest @ ..] => work::run(rest),
        ["drill", around] => attempt(around, None),
        ["drill", around, name] => attempt(around, Some(name)),
        // What a workload executes to measure an execution.
        [work::NOTHING] => ExitCode::SUCCESS,
        _ => usage(),
    }
}

/// Makes the attempts of [`hv_common::drill`], or one; prints what came of them, a line of JSON.
fn attempt(around: &str, only: Option<&str>) -> ExitCode {
    let done = serde_json::from_str(around)
        .map_err(std::io::Error::from)
        .and_then(|around| drill::run(&around, only)?.write(std::io::stdout()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hv-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says how this is called.
fn usage() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}
