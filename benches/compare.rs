//! `cargo bench`: boot time and memory of one image as a bare process, a container and a microVM.
//!
//! Thin on purpose: it hands the image to `hv compare`, whose figures `docs/measuring.md` defines.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // `cargo bench -- WORDS` adds options of `hv compare`; cargo itself adds --bench.
    let options = std::env::args_os().skip(1).filter(|word| word != "--bench");
    let Some(image) = std::env::var_os("HV_BENCH_IMAGE") else {
        eprintln!(
            "set HV_BENCH_IMAGE to an image; `cargo xtask image` makes the demo's and prints where it is"
        );
        return ExitCode::from(2);
    };
    let compare = Command::new(env!("CARGO_BIN_EXE_hv")).arg("compare").args(options).arg(image).status();
    match compare.map(|status| status.code()) {
        Ok(code) => ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("cannot run hv: {error}");
            ExitCode::from(1)
        }
    }
}
