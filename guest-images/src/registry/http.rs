//! One HTTP request at a time, with a deadline for every silence and a bound for everything that comes.

use std::fs;
use std::io::{self, Read};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use ureq::http::{HeaderMap, Method, Request};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

use super::RegistryError;
use super::url::Url;

/// The most bytes of an answer's headers.
const MAX_HEADERS: usize = 64 << 10;
/// The most of what a registry says about a failure that is read.
const MAX_COMPLAINT: u64 = 16 << 10;
/// Where distributions keep the authorities that the machine trusts.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Less than this in the time that is a stall is one too: a registry that drips keeps nobody waiting for ever.
const LEAST_PER_WINDOW: u64 = 4 << 10;

/// What is asked.
pub struct Call<'a> {
    /// The operation and its object, for messages: `get the manifest of …`.
    pub doing: String,
    /// HTTP's method.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// Headers beside those of the payload and of the authorisation.
    pub headers: Vec<(&'static str, String)>,
    /// What is sent.
    pub payload: Payload<'a>,
}

/// What a request carries.
pub enum Payload<'a> {
    /// Nothing.
    Nothing,
    /// These bytes, of this media type.
    Bytes(&'a [u8], &'a str),
    /// A stream of so many bytes, opened anew for each attempt.
    Stream(&'a Open<'a>, u64),
}

/// Opens what is to be sent.
pub type Open<'a> = dyn Fn() -> Result<Box<dyn Read + 'a>, RegistryError> + 'a;

impl<'a> Call<'a> {
    /// A request without headers and payload.
    pub fn new(doing: impl Into<String>, method: Method, url: Url) -> Call<'a> {
        Call { doing: doing.into(), method, url, headers: Vec::new(), payload: Payload::Nothing }
    }

    /// A GET.
    pub fn get(doing: impl Into<String>, url: Url) -> Call<'a> {
        Call::new(doing, Method::GET, url)
    }

    /// The same with a header more.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Call<'a> {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with something to send.
    #[must_use]
    pub fn payload(self, payload: Payload<'a>) -> Call<'a> {
        Call { payload, ..self }
    }
}

/// What is answered; the body has not been read yet.
pub struct Answer {
    /// HTTP's number.
    pub status: u16,
    /// As they came, bounded.
    pub headers: HeaderMap,
    /// Who answered.
    pub url: Url,
    body: Body,
    stall: Duration,
}

/// Connections.
#[derive(Debug)]
pub struct Http {
    stall: Duration,
    plain: OnceLock<Agent>,
    plain_here: OnceLock<Agent>,
    secure: OnceLock<Agent>,
    secure_here: OnceLock<Agent>,
}

impl Http {
    /// Connections on which no silence is longer than `stall`.
    pub fn new(stall: Duration) -> Http {
        Http {
            stall,
            plain: OnceLock::new(),
            plain_here: OnceLock::new(),
            secure: OnceLock::new(),
            secure_here: OnceLock::new(),
        }
    }

    /// Sends `call` to `url`, and gives the answer, whatever its status; no redirect is followed.
    ///
    /// # Errors
    /// The connection fails, stays silent, or what comes is no HTTP.
    pub fn send(
        &self,
        call: &Call<'_>,
        url: &Url,
        authorization: Option<&str>,
    ) -> Result<Answer, RegistryError> {
        let failed =
            |source| RegistryError::Connection { doing: call.doing.clone(), source: Box::new(source) };
        let agent = self.agent(url)?;
        let mut request = Request::builder().method(call.method.clone()).uri(url.to_string());
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let bad = |error: ureq::http::Error| failed(error.into());
        let answered = match &call.payload {
            Payload::Nothing if matches!(call.method, Method::GET | Method::HEAD | Method::DELETE) => {
                agent.run(request.body(()).map_err(bad)?)
            }
            Payload::Nothing => agent.run(request.body(&[][..]).map_err(bad)?),
            Payload::Bytes(bytes, kind) => {
                agent.run(request.header(CONTENT_TYPE, *kind).body(*bytes).map_err(bad)?)
            }
            Payload::Stream(open, length) => {
                let mut source = open()?;
                let request = request
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_LENGTH, length.to_string());
                let request = request.body(SendBody::from_reader(&mut source)).map_err(bad)?;
                // A registry hashes what it was sent before it answers.
                let patient =
                    agent.configure_request(request).timeout_per_read(Some(20 * self.stall)).build();
                agent.run(patient)
            }
        };
        let (parts, body) = answered.map_err(failed)?.into_parts();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        Ok(Answer { status, headers, url: url.clone(), body, stall: self.stall })
    }

    /// A proxy that the environment names is not for this machine itself.
    fn agent(&self, url: &Url) -> Result<&Agent, RegistryError> {
        let cell = match (url.is_secure(), url.is_loopback()) {
            (false, false) => &self.plain,
            (false, true) => &self.plain_here,
            (true, false) => &self.secure,
            (true, true) => &self.secure_here,
        };
        if cell.get().is_none() {
            let made = Agent::new_with_config(self.config(url)?);
            // Another thread may have been quicker, with the same.
            let _ = cell.set(made);
        }
        Ok(cell.get_or_init(|| Agent::new_with_config(Config::default())))
    }

    fn config(&self, url: &Url) -> Result<Config, RegistryError> {
        let mut config = Agent::config_builder()
            .user_agent(concat!("hv/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(MAX_HEADERS)
            .max_idle_connections_per_host(32)
            .timeout_resolve(Some(self.stall))
            .timeout_connect(Some(self.stall))
            .timeout_per_read(Some(self.stall))
            .timeout_per_write(Some(self.stall))
            .timeout_recv_response(Some(20 * self.stall));
        if url.is_loopback() {
            config = config.proxy(None);
        }
        if url.is_secure() {
            config = config.tls_config(TlsConfig::builder().root_certs(roots()?).build());
        }
        Ok(config.build())
    }
}

/// The authorities that this machine trusts: `SSL_CERT_FILE`, else the distribution's bundle, else Mozilla's list as
/// it was when hv was built.
fn roots() -> Result<RootCerts, RegistryError> {
    let certificates = |pem: &[u8]| -> Vec<Certificate<'static>> {
        let items = parse_pem(pem).filter_map(Result::ok);
        items.filter_map(|item| if let PemItem::Certificate(one) = item { Some(one) } else { None }).collect()
    };
    if let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
        let failed = |source| RegistryError::File { doing: "read", path: path.clone().into(), source };
        let found = certificates(&fs::read(&path).map_err(failed)?);
        if found.is_empty() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "there is no certificate in it")));
        }
        return Ok(found.into());
    }
    let found = BUNDLES.iter().filter_map(|path| fs::read(path).ok()).map(|pem| certificates(&pem));
    Ok(found.into_iter().find(|found| !found.is_empty()).map_or(RootCerts::WebPki, RootCerts::from))
}

impl Answer {
    /// A header's value, if it is there once and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.get_all(name).iter();
        let first = all.next()?.to_str().ok()?;
        all.next().is_none().then_some(first)
    }

    /// A header that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.trim().parse().ok()
    }

    /// How long the registry asks to be left alone: seconds, as all registries give them.
    pub fn retry_after(&self) -> Option<Duration> {
        self.number("retry-after").map(Duration::from_secs)
    }

    /// What comes, unbounded: the reader stops reading. A stall or a drip is an error.
    pub fn reader(self) -> impl Read {
        Paced { inner: self.body.into_reader(), window: self.stall, began: Instant::now(), count: 0 }
    }

    /// All of what comes.
    ///
    /// # Errors
    /// It breaks off, stalls, or is larger than `limit`.
    pub fn document(self, doing: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let at = self.url.authority().to_owned();
        let mut bytes = Vec::new();
        let read = self.reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|source| RegistryError::Broken { doing: doing.into(), source })?;
        if bytes.len() as u64 > limit {
            let why = format!("answers with more than {limit} bytes");
            return Err(RegistryError::Nonsense { doing: doing.into(), at, why });
        }
        Ok(bytes)
    }

    /// Makes an error of an answer that says no, with the registry's own words.
    pub fn into_error(self, doing: &str) -> RegistryError {
        let (status, after, at) = (self.status, self.retry_after(), self.url.authority().to_owned());
        let mut bytes = Vec::new();
        // What there is of them; the status says it already.
        let _ = self.reader().take(MAX_COMPLAINT).read_to_end(&mut bytes);
        RegistryError::Status { doing: doing.into(), at, status, says: complaint(&bytes), after }
    }
}

/// The messages of `{"errors": [{"code": …, "message": …}]}` (OCI distribution specification, "Error Codes").
fn complaint(bytes: &[u8]) -> String {
    let parsed: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let errors = parsed["errors"].as_array().map_or(&[][..], Vec::as_slice);
    let words = errors.iter().take(3).filter_map(|error| {
        let word = |name: &str| error[name].as_str().filter(|text| !text.is_empty());
        word("message").or_else(|| word("code"))
    });
    let text: Vec<&str> = words.collect();
    text.join(", ").chars().filter(|c| !c.is_control()).take(200).collect()
}

/// A stream that has to bring something in every window of time.
struct Paced<R> {
    inner: R,
    window: Duration,
    began: Instant,
    count: u64,
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        if self.began.elapsed() > self.window {
            if self.count < LEAST_PER_WINDOW && count > 0 {
                let why = format!("only {} bytes came in {:?}", self.count, self.began.elapsed());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            (self.began, self.count) = (Instant::now(), 0);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_short_and_harmless() {
        let text = br#"{"errors":[{"code":"DENIED","message":"no \u001b[31maccess"},{"code":"X"}]}"#;
        assert_eq!(complaint(text), "no [31maccess, X");
        assert_eq!(complaint(b"<html>"), "");
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "x".repeat(1000));
        assert_eq!(complaint(long.as_bytes()).len(), 200);
    }

    #[test]
    fn a_drip_is_a_stall() {
        struct Drip(u32);
        impl Read for Drip {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                buffer[0] = 0;
                // The window is no time at all: every read begins a new one.
                Ok(if self.0 < 3 { buffer.len() } else { 1 })
            }
        }
        let mut stream = Paced { inner: Drip(0), window: Duration::ZERO, began: Instant::now(), count: 0 };
        let mut buffer = vec![0; LEAST_PER_WINDOW as usize];
        assert_eq!(stream.read(&mut buffer).unwrap(), buffer.len());
        assert_eq!(stream.read(&mut buffer).unwrap(), buffer.len());
        assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
