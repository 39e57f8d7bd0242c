//! `hv` starts one image as a microVM or as a container, and compares the two.
//!
//! # Layout, in the order in which a command passes through it
//! - [`cli`]: what was typed;
//! - [`plan`]: what it means: a validated [`Spec`](hv_common::Spec) and, for a microVM, a machine;
//! - [`backend`]: the one place that names both kinds;
//! - [`foreground`]: the monitor of one sandbox, from start to gone; [`control`]: how others reach it;
//! - [`cmd`]: one verb a file; [`compare`]: the measurements of `hv compare`;
//! - [`error`]: how a failure is told, and the status it ends with.
#![forbid(unsafe_code)]

pub mod backend;
mod build;
pub mod cli;
pub mod cmd;
pub mod compare;
pub mod control;
pub mod error;
pub mod foreground;
pub mod image;
pub mod plan;
pub mod program;
pub mod size;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;
use hv_common::exit::HV_FAILED;
use hv_common::{Phase, Timeline};

use crate::error::Failure;

/// The whole program: what is typed becomes an exit status.
pub fn main() -> ExitCode {
    let launched = Timeline::new().inspect(|timeline| timeline.mark(Phase::Launch));
    let timeline = match launched {
        Ok(timeline) => timeline,
        Err(source) => return Failure::new("cannot make a page for the timeline", source).tell(),
    };
    let args = cmd::oci::spelled_out(std::env::args_os());
    cmd::oci::seal_early(&args);
    run(&args, timeline)
}

fn run(args: &[OsString], timeline: Timeline) -> ExitCode {
    let whole = || {
        let found = cli::command().try_get_matches_from(args)?;
        cli::Cli::from_arg_matches(&found)
    };
    let typed = match cli::quick::parse(args).map(|verb| Ok(cli::Cli { verb })).unwrap_or_else(whole) {
        Ok(typed) => typed,
        Err(refused) => {
            // Nothing can be done about a closed terminal.
            let _ = refused.print();
            return if refused.use_stderr() { ExitCode::from(HV_FAILED) } else { ExitCode::SUCCESS };
        }
    };
    match cmd::run(typed, timeline) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => failure.tell(),
    }
}
