//! The `hv` command. Everything is in the library; see there.

use std::process::ExitCode;

fn main() -> ExitCode {
    hv::main()
}
