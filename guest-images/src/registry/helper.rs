//! Credential helpers: programs `docker-credential-NAME` that keep secrets elsewhere.
//!
//! Their protocol (docker/docker-credential-helpers): a verb as the argument, a server's address or JSON on standard
//! input, JSON or a message on standard output.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::RegistryError;
use super::credentials::Credentials;

/// How long one may take: it may ask the user something.
const PATIENCE: Duration = Duration::from_secs(120);
/// The most that is read of its answer.
const MAX_ANSWER: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What the helper has for `server`.
///
/// # Errors
/// It is no helper's name, cannot be run, fails otherwise than by having nothing, or answers nonsense.
pub fn get(name: &str, server: &str) -> Result<Option<Credentials>, RegistryError> {
    let Some(answer) = ask(name, "get", server.as_bytes())? else { return Ok(None) };
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|_| failed(name, "answers something else than JSON with Username and Secret"))?;
    if answer.username.is_empty() && answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credentials::new(&answer.username, &answer.secret)))
}

/// Gives the helper something to keep.
///
/// # Errors
/// As [`get`].
pub fn store(name: &str, server: &str, user: &str, secret: &str) -> Result<(), RegistryError> {
    let request = serde_json::json!({"ServerURL": server, "Username": user, "Secret": secret});
    match ask(name, "store", request.to_string().as_bytes())? {
        Some(_) => Ok(()),
        None => Err(failed(name, "did not keep the credentials")),
    }
}

/// Has the helper forget; whether it had something.
///
/// # Errors
/// As [`get`].
pub fn erase(name: &str, server: &str) -> Result<bool, RegistryError> {
    // Helpers end well even if there was nothing: it is asked before.
    if ask(name, "get", server.as_bytes())?.is_none() {
        return Ok(false);
    }
    Ok(ask(name, "erase", server.as_bytes())?.is_some())
}

/// None if it says that it has nothing.
fn ask(name: &str, verb: &str, input: &[u8]) -> Result<Option<Vec<u8>>, RegistryError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(failed(name, "has a name that no program has; mend credsStore or credHelpers"));
    }
    let program = format!("docker-credential-{name}");
    let mut child =
        Command::new(&program).arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(
            |error| failed(name, &format!("cannot be run ({error}); install {program}, or mend config.json")),
        )?;
    let (status, answer) = converse(&mut child, input).map_err(|why| {
        let _ = child.kill();
        let _ = child.wait();
        failed(name, &why)
    })?;
    if status {
        return Ok(Some(answer));
    }
    let says = String::from_utf8_lossy(&answer);
    match says.contains("credentials not found") {
        true => Ok(None),
        false => Err(failed(name, &format!("fails: {}", harmless(&says)))),
    }
}

/// Whether it ended well, and what it said.
fn converse(child: &mut Child, input: &[u8]) -> Result<(bool, Vec<u8>), String> {
    let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (tell, told) = channel();
    let input = input.to_vec();
    // It may answer before it has read everything: both at once, so that neither waits for the other.
    thread::spawn(move || {
        if let Some(stdin) = &mut stdin {
            let _ = stdin.write_all(&input);
        }
    });
    thread::spawn(move || {
        let mut answer = Vec::new();
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(MAX_ANSWER).read_to_end(&mut answer));
        let _ = tell.send(read.map(|_| answer));
    });
    let answer = match told.recv_timeout(PATIENCE) {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(format!("cannot be read: {error}")),
        Err(RecvTimeoutError::Timeout) => return Err(format!("did not answer within {PATIENCE:?}")),
        Err(RecvTimeoutError::Disconnected) => return Err("did not answer".into()),
    };
    let status = child.wait().map_err(|error| format!("cannot be waited for: {error}"))?;
    Ok((status.success(), answer))
}

fn failed(name: &str, why: &str) -> RegistryError {
    RegistryError::Helper { program: harmless(name), why: why.into() }
}

fn harmless(text: &str) -> String {
    text.trim().chars().take(200).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_a_program_on_the_path_and_nothing_else() {
        for name in ["", "../x", "a/b", "x y", "a;b"] {
            assert!(get(name, "r.example").unwrap_err().to_string().contains("no program"), "{name}");
        }
        let absent = get("hv-surely-not-there", "r.example").unwrap_err().to_string();
        assert!(absent.contains("install docker-credential-hv-surely-not-there"), "{absent}");
    }
}
