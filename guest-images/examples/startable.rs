//! Makes the file that is started of the one image in an OCI layout, and opens it a second time: what
//! `cargo xtask bench image` measures. `startable LAYOUT` prints the file's path, and the microseconds of both.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use hv_image::content::{ContentError, Store};

fn main() -> ExitCode {
    let Some(layout) = std::env::args_os().nth(1) else {
        eprintln!("usage: startable LAYOUT");
        return ExitCode::FAILURE;
    };
    match run(Path::new(&layout)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("startable: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(layout: &Path) -> Result<(), ContentError> {
    let store = Store::open(layout);
    let index = store.index()?;
    let Some(image) = index.manifests.first() else {
        eprintln!("startable: {} has no image", layout.display());
        return Ok(());
    };
    let begun = Instant::now();
    let made = store.startable(image, None)?;
    let first = begun.elapsed();
    let begun = Instant::now();
    store.startable(image, None)?;
    println!("{}\t{}\t{}", made.path.display(), first.as_micros(), begun.elapsed().as_micros());
    Ok(())
}
