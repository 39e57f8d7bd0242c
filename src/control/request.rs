//! Bytes to a request. Whoever may write to the socket may also write nonsense: every length is bounded, and
//! nothing is believed twice.

/// The longest request line and headers together, in bytes.
pub const MAX_HEAD: usize = 8 * 1024;
/// The longest body, in bytes.
pub const MAX_BODY: usize = 4 * 1024;
/// The most headers.
const MAX_HEADERS: usize = 32;

/// One whole request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `PUT`, or whatever was sent.
    pub method: String,
    /// The target as it was sent, such as `/v1/state`.
    pub path: String,
    /// The body, maybe empty.
    pub body: Vec<u8>,
}

/// How far the bytes reach.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not to the end of a request yet.
    Partial,
    /// Here it is; bytes after it are not looked at.
    Whole(Request),
}

/// Bytes that are no request, or one that is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP's status for it.
    pub status: u16,
    /// Why, in words.
    pub why: String,
}

impl Refusal {
    /// With this status and these words.
    pub fn new(status: u16, why: impl Into<String>) -> Refusal {
        Refusal { status, why: why.into() }
    }
}

/// Reads the request at the start of `bytes`.
///
/// # Errors
/// It is none, or larger than is served.
pub fn parse(bytes: &[u8]) -> Result<Progress, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let begin = &bytes[..bytes.len().min(MAX_HEAD)];
    let length = match head.parse(begin) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(Progress::Partial),
        Ok(httparse::Status::Partial) => {
            return Err(Refusal::new(
                431,
                format!("request line and headers are longer than {MAX_HEAD} bytes"),
            ));
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(431, format!("there are more than {MAX_HEADERS} headers")));
        }
        Err(error) => return Err(Refusal::new(400, format!("this is no HTTP request: {error}"))),
    };
    let body_length = body_length(head.headers)?;
    let Some(body) = bytes.get(length..length + body_length) else { return Ok(Progress::Partial) };
    Ok(Progress::Whole(Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: head.path.unwrap_or_default().to_owned(),
        body: body.to_vec(),
    }))
}

/// What the headers say of the body's length; 0 if nothing.
fn body_length(headers: &[httparse::Header<'_>]) -> Result<usize, Refusal> {
    let named = |name: &str| {
        let name = name.to_owned();
        headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(&name))
            .map(|header| header.value)
    };
    if named("transfer-encoding").next().is_some() {
        return Err(Refusal::new(501, "bodies are taken with Content-Length only"));
    }
    let mut lengths = named("content-length");
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(0),
        (Some(digits), None) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            let digits = std::str::from_utf8(digits).unwrap_or_default();
            match digits.parse::<usize>() {
                Ok(length) if length <= MAX_BODY => Ok(length),
                _ => Err(Refusal::new(413, format!("the body is longer than {MAX_BODY} bytes"))),
            }
        }
        _ => Err(Refusal::new(400, "Content-Length is not one number")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(bytes: &[u8]) -> u16 {
        parse(bytes).unwrap_err().status
    }

    #[test]
    fn a_request_is_read_once_it_is_whole() {
        let bytes = b"PUT /v1/stop HTTP/1.1\r\nHost: hv\r\ncontent-LENGTH: 4\r\n\r\nbodyrest";
        let whole = bytes.len() - 4;
        for cut in 0..whole {
            assert_eq!(parse(&bytes[..cut]), Ok(Progress::Partial), "{cut}");
        }
        let request = Request { method: "PUT".into(), path: "/v1/stop".into(), body: b"body".to_vec() };
        assert_eq!(parse(bytes), Ok(Progress::Whole(request)));
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_whole() {
        let endless = [b"GET /", "x".repeat(MAX_HEAD).as_bytes()].concat();
        assert_eq!(status(&endless), 431);
        assert_eq!(parse(&endless[..MAX_HEAD - 1]), Ok(Progress::Partial));
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(MAX_HEAD));
        assert_eq!(status(long.as_bytes()), 431);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(status(many.as_bytes()), 431);
        for length in ["4097", "99999999999999999999999999"] {
            let body = format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(status(body.as_bytes()), 413);
        }
    }

    #[test]
    fn ambiguous_lengths_are_refused() {
        for length in ["1\r\nContent-Length: 2", "1\r\nContent-Length: 1", "-1", "+1", "0x10", "1 1", ""] {
            let request = format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\nab");
            assert_eq!(status(request.as_bytes()), 400, "{length}");
        }
        assert_eq!(status(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 501);
        assert_eq!(status(b"nonsense\r\n\r\n"), 400);
    }

    proptest! {
        /// Whatever is sent: an answer, no panic, and no request that is larger than its bounds.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..3 * MAX_HEAD)) {
            if let Ok(Progress::Whole(request)) = parse(&bytes) {
                prop_assert!(request.body.len() <= MAX_BODY && request.path.len() <= MAX_HEAD);
            }
        }

        #[test]
        fn almost_requests(
            method in "[A-Z]{0,8}", path in "[ -~]{0,40}",
            headers in proptest::collection::vec("[ -~]{0,30}", 0..40),
            body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let head = format!("{method} {path} HTTP/1.1\r\n{}\r\n\r\n", headers.join("\r\n"));
            let _ = parse(&[head.as_bytes(), &body].concat());
        }
    }
}
