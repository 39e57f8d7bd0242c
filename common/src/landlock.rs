//! What a workload may do with which files, by Landlock: below the limits of its user, and whatever it
//! becomes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

/// A path in the image, and what may be done there and below. Everything that no rule allows is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Absolute.
    pub path: OsString,
    /// Read files, list directories.
    pub read: bool,
    /// Write, make, rename and remove; no device nodes.
    pub write: bool,
    /// Execute files.
    pub execute: bool,
}

/// A rule that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no rule: write PATH:ACCESS, an absolute path and some of `r`, `w` and `x`, as in /srv:rw")]
pub struct BadRule(String);

impl Rule {
    /// Reads `PATH:ACCESS`, with some of `r`, `w` and `x`.
    ///
    /// # Errors
    /// It is not written so.
    pub fn parse(text: &OsStr) -> Result<Rule, BadRule> {
        let bad = || BadRule(text.to_string_lossy().escape_debug().collect());
        let bytes = text.as_bytes();
        let colon = bytes.iter().rposition(|byte| *byte == b':').ok_or_else(bad)?;
        let (path, access) = (&bytes[..colon], &bytes[colon + 1..]);
        let known = !access.is_empty() && access.iter().all(|byte| b"rwx".contains(byte));
        if !known || !path.starts_with(b"/") || path.contains(&0) {
            return Err(bad());
        }
        let has = |letter: u8| access.contains(&letter);
        Ok(Rule {
            path: OsStr::from_bytes(path).to_owned(),
            read: has(b'r'),
            write: has(b'w'),
            execute: has(b'x'),
        })
    }

    /// The rights of it that a kernel of this version knows.
    pub(crate) fn access(&self, version: u32) -> u64 {
        let wanted = [(self.read, READ), (self.write, WRITE), (self.execute, EXECUTE)];
        wanted.into_iter().filter(|(asked, _)| *asked).fold(0, |all, (_, one)| all | one) & handled(version)
    }
}

const EXECUTE: u64 = 1;
/// Read files, list directories.
const READ: u64 = 1 << 2 | 1 << 3;
/// Write, remove, make directories, files, sockets, pipes and links; move between directories, shorten,
/// control devices. Not: make character (6) and block (11) devices.
const WRITE: u64 =
    1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 15;
/// What can be allowed for a file that is no directory.
pub(crate) const OF_FILES: u64 = EXECUTE | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15;

/// All rights to files that a kernel of this version handles (Documentation/userspace-api/landlock.rst).
pub(crate) fn handled(version: u32) -> u64 {
    let rights = match version {
        0 | 1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << rights) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Rule, BadRule> {
        Rule::parse(OsStr::new(text))
    }

    #[test]
    fn rules_are_a_path_and_letters() {
        let rule = parse("/a:b:rx").unwrap();
        assert_eq!(
            (rule.path.as_os_str(), rule.read, rule.write, rule.execute),
            (OsStr::new("/a:b"), true, false, true)
        );
        for bad in ["/a", "a:r", "/a:", "/a:q", ":r", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_rule_allows_devices_or_what_the_kernel_does_not_know() {
        let all = parse("/:rwx").unwrap();
        for version in 1..8 {
            let access = all.access(version);
            assert_eq!(access & (1 << 6 | 1 << 11), 0);
            assert_eq!(access | 1 << 6 | 1 << 11, handled(version));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
