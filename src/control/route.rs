//! What a request asks for.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::request::{Refusal, Request};
use super::{Command, GRACE};

/// The longest time a workload can be given to end, in seconds.
const MAX_GRACE: u64 = 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stop {
    grace_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Balloon {
    bytes: u64,
}

/// From a body to a command.
type Parse = fn(&[u8]) -> Result<Command, Refusal>;

/// The command behind a request.
///
/// # Errors
/// There is no such thing, or not with this method or this body.
pub fn route(request: &Request) -> Result<Command, Refusal> {
    let (method, parse): (&str, Parse) = match request.path.as_str() {
        "/v1/state" => ("GET", |body| empty(body, Command::State)),
        "/v1/metrics" => ("GET", |body| empty(body, Command::Metrics)),
        "/v1/console" => ("GET", |body| empty(body, Command::Console)),
        "/v1/pause" => ("PUT", |body| empty(body, Command::Pause)),
        "/v1/resume" => ("PUT", |body| empty(body, Command::Resume)),
        "/v1/stop" => ("PUT", stop),
        "/v1/power-button" => ("PUT", |body| empty(body, Command::PowerButton)),
        "/v1/balloon" => ("PUT", |body| json(body).map(|Balloon { bytes }| Command::Balloon(bytes))),
        _ => {
            let why = "there is no such path; docs/control.md lists them: GET /v1/state, /v1/metrics, /v1/console; \
                       PUT /v1/pause, /v1/resume, /v1/stop, /v1/power-button, /v1/balloon";
            return Err(Refusal::new(404, why));
        }
    };
    if request.method != method {
        return Err(Refusal::new(405, format!("use {method} with this path")));
    }
    parse(&request.body)
}

fn empty(body: &[u8], command: Command) -> Result<Command, Refusal> {
    if body.is_empty() { Ok(command) } else { Err(Refusal::new(400, "this request has no body")) }
}

fn stop(body: &[u8]) -> Result<Command, Refusal> {
    if body.is_empty() {
        return Ok(Command::Stop(GRACE));
    }
    match json(body)? {
        Stop { grace_seconds: seconds @ 0..=MAX_GRACE } => Ok(Command::Stop(Duration::from_secs(seconds))),
        Stop { .. } => Err(Refusal::new(400, format!("grace_seconds is at most {MAX_GRACE}"))),
    }
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(400, format!("the body is not as expected: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, body: &str) -> Result<Command, u16> {
        let request = Request { method: method.into(), path: path.into(), body: body.into() };
        route(&request).map_err(|refusal| refusal.status)
    }

    #[test]
    fn every_command_has_its_path() {
        assert_eq!(ask("GET", "/v1/state", ""), Ok(Command::State));
        assert_eq!(ask("GET", "/v1/metrics", ""), Ok(Command::Metrics));
        assert_eq!(ask("GET", "/v1/console", ""), Ok(Command::Console));
        assert_eq!(ask("PUT", "/v1/pause", ""), Ok(Command::Pause));
        assert_eq!(ask("PUT", "/v1/resume", ""), Ok(Command::Resume));
        assert_eq!(ask("PUT", "/v1/stop", ""), Ok(Command::Stop(GRACE)));
        assert_eq!(ask("PUT", "/v1/power-button", ""), Ok(Command::PowerButton));
        assert_eq!(ask("PUT", "/v1/stop", r#"{"grace_seconds":0}"#), Ok(Command::Stop(Duration::ZERO)));
        assert_eq!(ask("PUT", "/v1/balloon", r#"{"bytes":4096}"#), Ok(Command::Balloon(4096)));
    }

    #[test]
    fn everything_else_is_refused_with_http_s_word_for_it() {
        assert_eq!(ask("GET", "/v1/pause", ""), Err(405));
        assert_eq!(ask("DELETE", "/v1/state", ""), Err(405));
        assert_eq!(ask("GET", "/", ""), Err(404));
        assert_eq!(ask("GET", "/v1/state?x=1", ""), Err(404));
        assert_eq!(ask("GET", "/v1/state", "{}"), Err(400));
        for body in [
            "{}",
            "[]",
            r#"{"grace_seconds":-1}"#,
            r#"{"grace_seconds":3601}"#,
            r#"{"grace_seconds":1,"x":1}"#,
        ] {
            assert_eq!(ask("PUT", "/v1/stop", body), Err(400), "{body}");
        }
        assert_eq!(ask("PUT", "/v1/balloon", ""), Err(400));
        assert_eq!(ask("PUT", "/v1/balloon", &"[".repeat(4096)), Err(400), "depth is bounded");
    }
}
