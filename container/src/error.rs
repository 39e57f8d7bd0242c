//! What can go wrong in a start, each with what the user can do.

use std::fmt::Display;
use std::io;

use hv_common::{cgroup, starter};
use rustix::io::Errno;

/// A start that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call of the monitor failed.
    #[error("cannot {operation} {object}; {mend}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// What the user can do.
        mend: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A step of the plan failed in the container's PID 1.
    #[error("cannot {step}; {mend}")]
    Step {
        /// The step in words.
        step: String,
        /// What the user can do.
        mend: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refuses the image.
    #[error("cannot mount the image {path} as {format}{}; check it with fsck, or make it again", kernel_says(.said))]
    Image {
        /// The image.
        path: String,
        /// The file system that its superblock names.
        format: &'static str,
        /// The kernel's own words, where it has some.
        said: String,
        /// The error number.
        source: io::Error,
    },
    /// The kernel refuses what a field of `config.json` asks for.
    #[error("cannot set {field} of config.json")]
    Field {
        /// The field.
        field: String,
        /// Why.
        source: io::Error,
    },
    /// A hook failed.
    #[error("{0}")]
    Hook(String),
    /// hv does not do this.
    #[error("{0}")]
    Refused(String),
    /// Control groups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The workload.
    #[error(transparent)]
    Workload(#[from] starter::Failure),
}

impl Error {
    /// A failure whose only mend is to look at the host.
    pub(crate) fn system(operation: &'static str, object: impl Display, errno: Errno) -> Error {
        let mend = match errno {
            Errno::MFILE | Errno::NFILE => "raise the limit on open files",
            Errno::NOMEM => "free memory on the host",
            Errno::AGAIN => "raise the limit on processes",
            Errno::NOSYS => "hv needs Linux 5.15 or newer",
            _ => "see `hv check` for what this host allows",
        };
        Error::System { operation, object: object.to_string(), mend, source: errno.into() }
    }

    /// The status hv exits with.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Error::Workload(failure) => failure.status,
            _ => hv_common::exit::HV_FAILED,
        }
    }
}

fn kernel_says(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" (the kernel says: {words})") }
}
