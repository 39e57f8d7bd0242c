//! What the monitor says, as bytes.

use serde::Serialize;

use super::Answer;
use super::request::Refusal;

const JSON: &str = "application/json";
/// Whatever the guest wrote: nobody shall take it for more than bytes.
const BYTES: &str = "application/octet-stream";

/// An answer as an HTTP response.
pub fn answer(answer: &Answer) -> Vec<u8> {
    match answer {
        Answer::State(view) => json(200, view),
        Answer::Metrics(metrics) => json(200, metrics),
        Answer::Console(bytes) => response(200, BYTES, bytes),
        Answer::Absent(why) => error(404, why),
        Answer::Failed(why) => error(500, why),
    }
}

/// A refusal as an HTTP response.
pub fn refusal(refusal: &Refusal) -> Vec<u8> {
    error(refusal.status, &refusal.why)
}

/// The body of every response that is no success.
#[derive(Serialize)]
struct Error<'a> {
    error: &'a str,
}

fn error(status: u16, why: &str) -> Vec<u8> {
    json(status, &Error { error: why })
}

fn json(status: u16, body: &impl Serialize) -> Vec<u8> {
    match serde_json::to_vec(body) {
        Ok(body) => response(status, JSON, &body),
        // Plain structures with string keys: cannot happen, and is no reason to end a monitor.
        Err(_) => response(500, JSON, b"{}"),
    }
}

fn response(status: u16, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        reason(status),
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// RFC 9110, section 15.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_json_of_the_told_length() {
        let bytes = refusal(&Refusal::new(404, "no \"such\" thing"));
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert_eq!(body, r#"{"error":"no \"such\" thing"}"#);
    }

    #[test]
    fn a_console_is_handed_on_as_it_is() {
        let bytes = answer(&Answer::Console(b"\x1b\xff\0".to_vec()));
        assert!(bytes.ends_with(b"Content-Length: 3\r\nConnection: close\r\n\r\n\x1b\xff\0"));
    }
}
