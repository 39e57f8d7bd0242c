//! What to run and with what limits. A [`Spec`] that exists is valid.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::root::Root;

/// One start, validated: both backends read nothing else about the workload.
#[derive(Debug)]
pub struct Spec {
    /// Names the sandbox on this host.
    pub id: Id,
    /// The sandbox's host name.
    pub hostname: String,
    /// The opened image.
    pub root: Root,
    /// What runs in it.
    pub process: Process,
    /// What it may use.
    pub limits: Limits,
}

/// The process to become. Travels to the guest as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments. Empty: `/sbin/init` if the root has one, else `/bin/sh`.
    pub args: Vec<OsString>,
    /// Where the program's file is; the first of `args` names it in either case.
    pub program: Program,
    /// The whole environment, as `NAME=value`. HOME is added from the user's entry when absent.
    pub env: Vec<OsString>,
    /// Working directory inside the root.
    pub cwd: OsString,
    /// `USER[:GROUP]`, each a name from the root's own files or a number. None: root.
    pub user: Option<String>,
    /// The process gets a terminal as its standard streams and as its controlling terminal.
    pub terminal: Option<TerminalSize>,
    /// What it may do with which files; none: what its user may.
    pub landlock: Vec<crate::landlock::Rule>,
}

/// Where a program comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// From the root: the first argument is its path, or its name along PATH.
    #[default]
    Image,
    /// From outside the root, whatever that holds: this static program, a path of the host and on its way
    /// to a guest one in the initramfs. It is executed by descriptor, and finds itself open as the
    /// `/dev/fd/N` that the kernel tells it (AT_EXECFN).
    Injected(PathBuf),
}

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// What a sandbox may use. None: no limit (a microVM then has its defaults).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory: the container's limit, the microVM's RAM.
    pub memory: Option<u64>,
    /// Thousandths of a processor: the container's share, the microVM's vCPUs (whole ones).
    pub millicpus: Option<u32>,
    /// Processes and threads at once.
    pub pids: Option<u32>,
}

/// The name of a sandbox: 1 to 64 of letters, digits, `_`, `.`, `-`, starting with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

/// A name that cannot be a sandbox's: it would not be safe as a file name.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` cannot name a sandbox: use 1 to 64 letters, digits, `_`, `.` or `-`, starting with a letter or digit"
)]
pub struct BadId(String);

impl Id {
    /// A name nobody has: 12 hexadecimal digits from the kernel's random numbers.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub fn random() -> std::io::Result<Id> {
        let mut bytes = [0u8; 6];
        rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
        Ok(Id(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Id {
    type Error = BadId;

    fn try_from(name: String) -> Result<Id, BadId> {
        let fits = (1..=64).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if fits { Ok(Id(name)) } else { Err(BadId(name.escape_default().collect())) }
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_file_names() {
        for good in ["a", "web-1", "0.x_y"] {
            assert!(Id::try_from(good.to_string()).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "-x", "a b", "a\n", &"x".repeat(65)] {
            assert!(Id::try_from(bad.to_string()).is_err(), "{bad}");
        }
        assert_ne!(Id::random().unwrap(), Id::random().unwrap());
    }
}
