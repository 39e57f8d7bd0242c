//! The verbs, one a file.

pub mod build;
pub mod check;
pub mod compare;
pub mod completions;
pub mod control;
pub mod drill;
pub mod image;
pub mod kernel;
pub mod man;
pub mod oci;
pub mod pack;
pub mod ps;
pub mod run;
pub mod stop;

use hv_common::state::Store;
use hv_common::{Kind, Timeline};

use crate::cli::image::ImageVerb;
use crate::cli::{Cli, Verb};
use crate::error::{self, Result};

/// Does what was typed; the status to end with.
///
/// # Errors
/// As the verb.
pub fn run(typed: Cli, timeline: Timeline) -> Result<u8> {
    match typed.verb {
        Verb::Vm(args) => run::run(Kind::Vm, args, timeline),
        Verb::Ctr(args) => run::run(Kind::Ctr, args, timeline),
        Verb::Process(args) => run::run(Kind::Process, args, timeline),
        Verb::Ps(args) => ps::run(&args),
        Verb::Pause(args) => control::pause(args),
        Verb::Resume(args) => control::resume(args),
        Verb::Stop(args) => stop::run(args),
        Verb::Metrics(args) => control::metrics(args),
        Verb::Console(args) => control::console(args),
        Verb::Compare(args) => compare::run(&args),
        Verb::Drill(args) => drill::run(&args),
        Verb::Build(args) => build::run(args),
        Verb::Check(args) => check::run(&args),
        Verb::Image(verb) => image::run(verb),
        Verb::Pull(args) => image::run(ImageVerb::Pull(args)),
        Verb::Push(args) => image::run(ImageVerb::Push(args)),
        Verb::Login(args) => image::run(ImageVerb::Login(args)),
        Verb::Logout(args) => image::run(ImageVerb::Logout(args)),
        Verb::Pack(args) => pack::run(&args),
        Verb::Kernel(verb) => kernel::run(verb),
        Verb::Images(args) => image::list(&args),
        Verb::Oci(args) => Ok(oci::run(*args)),
        Verb::Completions { shell } => completions::run(shell),
        Verb::Man { dir } => man::run(dir.as_deref()),
        Verb::Attempt { attempt } => check::attempt(attempt),
    }
}

/// The runtime directory, after everything in it that a killed monitor left has been cleaned up.
///
/// # Errors
/// The runtime directory cannot be used. What could not be cleaned up is only told.
pub fn tidy_store() -> Result<Store> {
    let store = Store::open()?;
    for reaped in store.reap()? {
        match reaped.problem {
            None => error::say(format_args!("cleaned up after sandbox {}, whose hv was killed", reaped.name)),
            Some(problem) => {
                let problem = error::chain(problem.as_ref());
                error::say(format_args!("cannot clean up after sandbox {} yet: {problem}", reaped.name));
            }
        }
    }
    Ok(store)
}
