//! Addresses of registries: as much of RFC 3986 as HTTP needs, and nothing that could hide something.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest address that is followed.
const MAX_URL: usize = 8 << 10;

/// An `http` or `https` address, without user, password and fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    /// `https`.
    secure: bool,
    /// Host and, where it was given, port; lower-case.
    authority: String,
    /// From the first `/`, with the query.
    path: String,
}

/// What is not followed, and why.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{url}` is not an address that hv uses: {why}")]
pub struct BadUrl {
    url: String,
    why: &'static str,
}

impl Url {
    /// The root of a host.
    pub fn root(authority: &str, secure: bool) -> Url {
        Url { secure, authority: authority.to_ascii_lowercase(), path: "/".into() }
    }

    /// Reads an address.
    ///
    /// # Errors
    /// Not http or https, no host, a user or a password in it, too long, or characters that no address has.
    pub fn parse(text: &str) -> Result<Url, BadUrl> {
        let bad = |why| BadUrl { url: shown(text), why };
        if text.len() > MAX_URL {
            return Err(bad("it is too long"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)) {
            return Err(bad("it has characters that addresses do not have"));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("it does not begin with https://"))?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(bad("it is neither https nor http")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(bad("there is a user in it"));
        }
        let url = Url::root(authority, secure);
        if !url.has_host() {
            return Err(bad("there is no host in it"));
        }
        let path = if path.starts_with('/') { path.into() } else { format!("/{path}") };
        Ok(Url { path, ..url })
    }

    /// What `location`, found at this address, means: absolute, of the same host, or beside it.
    ///
    /// # Errors
    /// As [`Url::parse`].
    pub fn join(&self, location: &str) -> Result<Url, BadUrl> {
        let scheme = if self.secure { "https" } else { "http" };
        let whole = if location.contains("://") {
            location.into()
        } else if let Some(rest) = location.strip_prefix("//") {
            format!("{scheme}://{rest}")
        } else if location.starts_with('/') {
            format!("{scheme}://{}{location}", self.authority)
        } else {
            let path = self.path.split('?').next().unwrap_or_default();
            let directory = &path[..=path.rfind('/').unwrap_or(0)];
            format!("{scheme}://{}{directory}{location}", self.authority)
        };
        Url::parse(&whole)
    }

    /// The same host with another path, which begins with `/`.
    #[must_use]
    pub fn at(&self, path: &str) -> Url {
        Url { path: path.into(), ..self.clone() }
    }

    /// The same with a further parameter, whose value is encoded.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Url {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        Url { path: format!("{}{separator}{name}={}", self.path, encode(value)), ..self.clone() }
    }

    /// Whether what is sent is protected on its way.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host and port, as they were given.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host alone, without brackets.
    pub fn host(&self) -> &str {
        match self.authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => self.authority.split(':').next().unwrap_or_default(),
        }
    }

    fn port(&self) -> Option<u16> {
        let after = self.authority.rsplit(']').next().unwrap_or_default();
        match after.split_once(':') {
            Some((_, port)) => port.parse().ok(),
            None => Some(if self.secure { 443 } else { 80 }),
        }
    }

    /// Whether both are the same scheme, host and port (RFC 6454).
    pub fn same_origin(&self, other: &Url) -> bool {
        self.secure == other.secure && self.host() == other.host() && self.port() == other.port()
    }

    /// Whether the host is this machine itself, by name or by address.
    pub fn is_loopback(&self) -> bool {
        is_loopback(self.host())
    }

    /// Whether the host is an address that only machines on this link, or this machine, answer.
    pub fn is_local(&self) -> bool {
        let host = self.host();
        self.is_loopback()
            || host.parse().is_ok_and(|address: Ipv4Addr| address.is_link_local() || address.is_unspecified())
            || host
                .parse()
                .is_ok_and(|address: Ipv6Addr| address.is_unicast_link_local() || address.is_unspecified())
    }

    fn has_host(&self) -> bool {
        let host = self.host();
        let name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let rest = self.authority.rsplit(']').next().unwrap_or_default();
        let known = host.parse::<Ipv6Addr>().is_ok() && self.authority.starts_with('[')
            || !host.is_empty() && host.bytes().all(name) && !self.authority.contains(['[', ']']);
        known && rest.matches(':').count() <= 1 && self.port().is_some_and(|port| port > 0)
    }
}

/// Whether a host, without brackets and port, is this machine.
pub fn is_loopback(host: &str) -> bool {
    // The mapped form too, and names that every resolver answers itself (RFC 6761).
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || host.parse().is_ok_and(|address: Ipv6Addr| {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
        })
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// What is not a letter, a digit or one of `-._~` in its encoded form.
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

/// For a message: without what may be a secret, before an `@` or in a query.
fn shown(text: &str) -> String {
    let bare = text.split('?').next().unwrap_or_default();
    let (scheme, rest) = bare.split_once("://").map_or(("", bare), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit('@').next().unwrap_or_default();
    let whole = if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") };
    whole.chars().take(120).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn addresses_join_as_in_browsers() {
        let base = url("https://r.example:5000/v2/a/blobs/uploads/?x=1");
        for (location, whole) in [
            ("https://cdn.example/y?z=1#f", "https://cdn.example/y?z=1"),
            ("//cdn.example/y", "https://cdn.example/y"),
            ("/y?a=b", "https://r.example:5000/y?a=b"),
            ("y", "https://r.example:5000/v2/a/blobs/uploads/y"),
            ("http://EXAMPLE", "http://example/"),
        ] {
            assert_eq!(base.join(location).unwrap().to_string(), whole);
        }
        assert_eq!(
            base.with("digest", "sha256:0").to_string().split('?').nth(1),
            Some("x=1&digest=sha256%3A0")
        );
    }

    #[test]
    fn what_hides_something_is_no_address() {
        for bad in [
            "",
            "ftp://a/",
            "file:///etc/passwd",
            "https://",
            "https://user:secret@host/",
            "https://ok.example@evil.example/",
            "https://a b/",
            "https://a\r\nX: y/",
            "https://a:0/",
            "https://a:99999/",
            "https://a:1:2/",
            "https://[::1/",
            "https://::1/",
            "https://a\\b/",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        assert!(Url::parse(&format!("https://a/{}", "x".repeat(MAX_URL))).is_err());
    }

    #[test]
    fn loopback_and_origin() {
        for text in
            ["http://localhost:5000/", "http://127.8.9.1/", "http://[::1]:1/", "http://[::ffff:127.0.0.1]/"]
        {
            assert!(url(text).is_loopback(), "{text}");
        }
        for text in ["http://localhost.example/", "http://128.0.0.1/", "http://127.0.0.1.example/"] {
            assert!(!url(text).is_loopback(), "{text}");
        }
        assert!(url("http://169.254.169.254/latest").is_local());
        assert!(url("https://a/x").same_origin(&url("https://A:443/y")));
        for other in ["http://a/", "https://a:444/", "https://b/"] {
            assert!(!url("https://a/x").same_origin(&url(other)), "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_itself(text in "(https?://)?[a-z0-9:@/.?#\\[\\]-]{0,60}|\\PC{0,60}") {
            if let Ok(url) = Url::parse(&text) {
                prop_assert_eq!(Url::parse(&url.to_string()).unwrap(), url.clone());
                prop_assert!(!url.to_string().contains(['@', '\r', '\n']) || url.path.contains('@'));
            }
        }
    }
}
