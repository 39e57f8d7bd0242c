//! How a failure is told, and the status that hv ends with.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use hv_common::StartError;
use hv_common::exit::HV_FAILED;

/// A command that failed: told once, in [`Failure::tell`].
#[derive(Debug)]
pub struct Failure {
    status: u8,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

/// What every verb returns.
pub type Result<T> = std::result::Result<T, Failure>;

/// A message with a cause below it.
#[derive(Debug)]
struct Because {
    what: String,
    source: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Because {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

impl Failure {
    /// hv could not do `what`, because of `source`.
    pub fn new(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure::from(Because { what: what.into(), source: source.into() })
    }

    /// What was typed cannot be done; the message says why and what can.
    pub fn refused(why: impl Into<String>) -> Failure {
        Failure { status: HV_FAILED, error: why.into().into(), hint: None }
    }

    /// The same with one line of advice.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }

    /// The error and its causes in one line.
    pub fn message(&self) -> String {
        chain(self.error.as_ref())
    }

    /// The same with another exit status.
    #[must_use]
    pub fn with_status(self, status: u8) -> Failure {
        Failure { status, ..self }
    }

    /// The status to end with.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// Tells the user, on standard error, and gives the status to end with.
    pub fn tell(&self) -> ExitCode {
        // Nothing can be done about a closed standard error.
        let _ = self.write(io::stderr().lock(), colours());
        ExitCode::from(self.status)
    }

    fn write(&self, mut to: impl Write, colours: bool) -> io::Result<()> {
        let (red, bold, plain) = if colours { ("\x1b[31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        writeln!(to, "{red}hv:{plain} {}", printable(&chain(self.error.as_ref())))?;
        match &self.hint {
            Some(hint) => writeln!(to, "{bold}hint:{plain} {}", printable(hint)),
            None => Ok(()),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure { status: HV_FAILED, error: Box::new(error), hint: None }
    }
}

/// A start that failed: with the status it says, and without the words that only repeat it.
pub fn from_start(error: StartError) -> Failure {
    let status = error.status;
    Failure { status, ..Failure::from(error) }
}

/// Prints one line of hv's own beside the workload's standard error.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "hv: {}", printable(&line.to_string()));
}

/// Colours only for people: on a terminal, unless they asked for none (no-color.org).
fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The error and its causes in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let words = cause.to_string();
        // Some libraries repeat the cause in their own message.
        if !parts.last().is_some_and(|last| last.ends_with(&words)) {
            parts.push(words);
        }
        next = cause.source();
    }
    parts.join(": ")
}

/// Without control characters, but for line breaks: messages hold names from images, and consoles of guests.
fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut clean, c| {
        if c.is_control() && c != '\n' {
            clean.extend(c.escape_default())
        } else {
            clean.push(c)
        }
        clean
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(failure: &Failure, colours: bool) -> String {
        let mut text = Vec::new();
        failure.write(&mut text, colours).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn chain_once_then_one_hint() {
        let cause = io::Error::from(io::ErrorKind::PermissionDenied);
        let failure = Failure::new("cannot open /dev/kvm", cause).hint("add yourself to the group kvm");
        assert_eq!(
            told(&failure, false),
            "hv: cannot open /dev/kvm: permission denied\nhint: add yourself to the group kvm\n"
        );
        assert!(told(&failure, true).contains("\x1b[31mhv:"));
    }

    #[test]
    fn a_cause_that_is_repeated_is_said_once() {
        let cause = io::Error::from(io::ErrorKind::NotFound);
        let failure = Failure::new(format!("cannot open x: {cause}"), cause);
        assert_eq!(told(&failure, false), "hv: cannot open x: entity not found\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(told(&Failure::refused("a\x1b[2Jb\r"), false), "hv: a\\u{1b}[2Jb\\r\n");
    }
}
