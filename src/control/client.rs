//! What hv's own verbs ask a sandbox's monitor.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::SOCKET;
use crate::error::{Failure, Result};

/// How long a monitor may take: to pause a sandbox takes it five seconds at most.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest response.
const MAX_RESPONSE: u64 = 1 << 20;

#[derive(Deserialize)]
struct Error {
    error: String,
}

/// Asks the monitor of the sandbox in `dir`; the body of its response.
///
/// # Errors
/// It cannot be reached, or says no: then the message is its own.
pub fn ask(dir: &Path, method: &str, path: &str, body: &str) -> Result<Vec<u8>> {
    let name = dir.file_name().unwrap_or_default().display().to_string();
    let unreachable = |source: io::Error| {
        Failure::new(format!("cannot reach the monitor of sandbox {name}"), source)
            .hint("it may be just starting or ending; `hv ps` shows what runs")
    };
    let bytes = exchange(dir, method, path, body).map_err(unreachable)?;
    let (status, body) = parse(&bytes)
        .ok_or_else(|| Failure::refused(format!("the monitor of sandbox {name} does not speak HTTP")))?;
    if status == 200 {
        return Ok(body.to_vec());
    }
    let why = serde_json::from_slice(body)
        .map_or_else(|_| format!("HTTP status {status}"), |Error { error }| error);
    Err(Failure::refused(format!("sandbox {name}: {why}")))
}

/// As [`ask`], of a JSON body.
///
/// # Errors
/// As [`ask`], or the response is not as expected.
pub fn ask_json<T: DeserializeOwned>(dir: &Path, method: &str, path: &str, body: &str) -> Result<T> {
    let bytes = ask(dir, method, path, body)?;
    serde_json::from_slice(&bytes).map_err(|source| {
        Failure::new(format!("the monitor's answer to {method} {path} makes no sense"), source)
    })
}

fn exchange(dir: &Path, method: &str, path: &str, body: &str) -> io::Result<Vec<u8>> {
    let opened = File::open(dir)?;
    // A path may be longer than a socket's address.
    let mut stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: hv\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut bytes = Vec::new();
    stream.take(MAX_RESPONSE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Status and body.
fn parse(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => Some((response.code?, &bytes[head..])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Refusal;
    use super::super::{Answer, response};
    use super::*;

    #[test]
    fn what_the_server_says_is_understood() {
        let bytes = response::answer(&Answer::Console(b"x".to_vec()));
        assert_eq!(parse(&bytes), Some((200, &b"x"[..])));
        let bytes = response::refusal(&Refusal::new(431, "long"));
        assert_eq!(parse(&bytes), Some((431, &br#"{"error":"long"}"#[..])));
        assert_eq!(parse(b"SSH-2.0\r\n\r\n"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn who_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let web = dir.path().join("web");
        assert!(ask(&web, "GET", "/v1/state", "").unwrap_err().message().contains("sandbox web"));
    }
}
