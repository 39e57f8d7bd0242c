//! What is executed: the default command, the search along PATH, the environment.

use std::ffi::{CString, OsStr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use super::{Failure, inside};
use crate::spec::{Process, Program};
use crate::sys::exec::CStringArray;

/// Where programs are looked for when the environment has no PATH: docker's default.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command, ready for execve(2).
#[derive(Debug)]
pub(super) struct Command {
    /// Paths to try, in order; none for a program that is not the root's.
    pub candidates: Vec<CString>,
    pub args: CStringArray,
    pub env: CStringArray,
}

impl Command {
    pub fn new(process: &Process, root: BorrowedFd<'_>, home: &CString) -> Result<Command, Failure> {
        let args =
            if process.args.is_empty() { vec![default(root)] } else { strings("argument", &process.args)? };
        let mut env = strings("environment variable", &process.env)?;
        if !env.iter().any(|entry| entry.as_bytes().starts_with(b"HOME=")) {
            env.extend(CString::new([b"HOME=", home.as_bytes()].concat()));
        }
        let path = env.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
        let candidates = match process.program {
            Program::Image => candidates(args[0].as_bytes(), path.unwrap_or(DEFAULT_PATH)),
            Program::Injected(_) => Vec::new(),
        };
        Ok(Command { candidates, args: CStringArray::new(args), env: CStringArray::new(env) })
    }
}

fn default(root: BorrowedFd<'_>) -> CString {
    if inside::is_program(root, "sbin/init") { c"/sbin/init".into() } else { c"/bin/sh".into() }
}

fn strings<S: AsRef<OsStr>>(what: &str, values: &[S]) -> Result<Vec<CString>, Failure> {
    let string = |value: &S| {
        let value = value.as_ref();
        CString::new(value.as_bytes()).map_err(|_| {
            Failure::plain(format!("{what} {value:?} holds a NUL byte, which no program can be given"))
        })
    };
    values.iter().map(string).collect()
}

/// A name with a slash is the path; another is looked for along `path`, where an empty element is the
/// working directory (POSIX, environment variable PATH). An empty name is nowhere.
fn candidates(name: &[u8], path: &[u8]) -> Vec<CString> {
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains(&b'/') {
        return CString::new(name).into_iter().collect();
    }
    let join = |dir: &[u8]| {
        let dir = if dir.is_empty() { b"." } else { dir };
        CString::new([dir, b"/", name].concat()).ok()
    };
    path.split(|b| *b == b':').filter_map(join).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(name: &str, path: &str) -> Vec<String> {
        let found = candidates(name.as_bytes(), path.as_bytes());
        found.into_iter().map(|path| path.into_string().unwrap()).collect()
    }

    #[test]
    fn path_is_searched_only_for_bare_names() {
        assert_eq!(paths("sh", "/bin:/usr/bin"), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(paths("sh", ":/bin"), ["./sh", "/bin/sh"]);
        assert_eq!(paths("./sh", "/bin"), ["./sh"]);
        assert_eq!(paths("/x/sh", "/bin"), ["/x/sh"]);
        assert!(paths("", "/bin").is_empty());
    }
}
