//! Showing a registry who asks: basic authentication, and tokens from the service that the registry names.
//!
//! What a registry says about that service is an allegation. A realm is used only if nobody on the way can read what
//! is sent there, and gets the user's password only if it belongs to the registry or somebody said that it may
//! (compare CVE-2020-15157, where any host could ask for it).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::Method;

use super::RegistryError;
use super::challenge::Challenge;
use super::credentials::{Credentials, Keyring};
use super::http::{Call, Http, Payload};
use super::settings::Settings;
use super::url::{Url, encode};

/// The largest answer of a token service.
const MAX_ANSWER: u64 = 256 << 10;
/// The longest token.
const MAX_TOKEN: usize = 32 << 10;
/// How long a token is good if its service does not say (distribution: "Token Authentication").
const LIFETIME: u64 = 60;
/// The longest that one is used.
const MAX_LIFETIME: u64 = 3600;

/// Where credentials come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The user's files and helpers, under the registry's name.
    Keyring(Keyring),
    /// These, or none: a login that is tried.
    Given(Option<Credentials>),
}

/// What is known of who asks one host.
#[derive(Debug)]
pub struct Auth {
    /// The registry's name, under which its credentials are kept.
    name: String,
    url: Url,
    source: Source,
    settings: Arc<Settings>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    credentials: Option<Option<Credentials>>,
    /// The registry asked for basic authentication.
    basic: bool,
    /// By scope.
    tokens: HashMap<String, Token>,
}

#[derive(Debug)]
struct Token {
    header: String,
    until: Instant,
}

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Auth {
    /// For the host at `url`, whose credentials are kept under `name`.
    pub fn new(name: &str, url: Url, source: Source, settings: Arc<Settings>) -> Auth {
        Auth { name: name.into(), url, source, settings, state: Mutex::default() }
    }

    /// What to send with a request of this scope, as far as it is known.
    pub fn header(&self, scope: &str) -> Option<String> {
        current(&self.lock(), scope)
    }

    /// What to send instead of `used`, after the host answered with these challenges; None: nothing that is known
    /// here would please it.
    ///
    /// # Errors
    /// Credentials cannot be read, the realm is refused, or its service fails.
    pub fn answer(
        &self,
        http: &Http,
        challenges: &[Challenge],
        scope: &str,
        used: Option<&str>,
    ) -> Result<Option<String>, RegistryError> {
        // Held while a token is got: others of the same scope wait for it instead of asking too.
        let mut state = self.lock();
        if let Some(header) = current(&state, scope).filter(|header| Some(header.as_str()) != used) {
            return Ok(Some(header));
        }
        if state.credentials.is_none() {
            state.credentials = Some(match &self.source {
                Source::Keyring(keyring) => keyring.find(&self.name)?,
                Source::Given(credentials) => credentials.clone(),
            });
        }
        let credentials = state.credentials.clone().flatten();
        let bearer = challenges.iter().find(|challenge| challenge.scheme == "bearer");
        if let Some((challenge, realm)) = bearer.and_then(|one| Some((one, one.get("realm")?))) {
            let token = self.token(http, realm, challenge.get("service"), scope, credentials.as_ref())?;
            let header = token.header.clone();
            state.tokens.insert(scope.into(), token);
            return Ok(Some(header).filter(|header| Some(header.as_str()) != used));
        }
        let basic = challenges.iter().any(|challenge| challenge.scheme == "basic");
        match credentials {
            Some(Credentials::Password { user, secret }) if basic && !state.basic => {
                state.basic = true;
                Ok(Some(Credentials::basic(&user, &secret)))
            }
            _ => Ok(None),
        }
    }

    fn token(
        &self,
        http: &Http,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Token, RegistryError> {
        let doing = format!("get a token for {}", self.name);
        if let Some(Credentials::Bearer(token)) = credentials {
            return Ok(Token { header: bearer(token, &doing, &self.url)?, until: far() });
        }
        let refused = |why: String| RegistryError::Refused {
            what: format!("the token service that {} names", self.url.authority()),
            why,
        };
        let url = Url::parse(realm).map_err(|error| refused(error.to_string()))?;
        let trusted = self.settings.trusts(&self.name, url.host());
        check_realm(&self.url, &url, credentials.is_some(), trusted).map_err(refused)?;
        let answer = match credentials {
            Some(Credentials::Identity(token)) => {
                let service = encode(service.unwrap_or_default());
                let (scope, token) = (encode(scope), encode(token));
                let form = format!(
                    "grant_type=refresh_token&client_id=hv&service={service}&scope={scope}&refresh_token={token}"
                );
                let payload = Payload::Bytes(form.as_bytes(), "application/x-www-form-urlencoded");
                http.send(&Call::new(&doing, Method::POST, url.clone()).payload(payload), &url, None)?
            }
            other => {
                let mut url = url;
                if let Some(service) = service {
                    url = url.with("service", service);
                }
                for one in scope.split(' ').filter(|one| !one.is_empty()) {
                    url = url.with("scope", one);
                }
                let header = match other {
                    Some(Credentials::Password { user, secret }) => Some(Credentials::basic(user, secret)),
                    _ => None,
                };
                http.send(&Call::get(&doing, url.clone()), &url, header.as_deref())?
            }
        };
        if answer.status != 200 {
            return Err(answer.into_error(&doing));
        }
        let at = answer.url.clone();
        let bytes = answer.document(&doing, MAX_ANSWER)?;
        let nonsense = |why: &str| RegistryError::Nonsense {
            doing: doing.clone(),
            at: at.authority().into(),
            why: why.into(),
        };
        let granted: Granted = serde_json::from_slice(&bytes)
            .map_err(|_| nonsense("answers with something else than a token"))?;
        let token =
            granted.token.filter(|token| !token.is_empty()).or(granted.access_token).unwrap_or_default();
        let seconds = granted.expires_in.unwrap_or(LIFETIME).clamp(LIFETIME, MAX_LIFETIME);
        // A tenth before its end, for clocks and for the way.
        let until = Instant::now() + Duration::from_secs(seconds * 9 / 10);
        Ok(Token { header: bearer(&token, &doing, &at)?, until })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn current(state: &State, scope: &str) -> Option<String> {
    if let Some(token) = state.tokens.get(scope).filter(|token| token.until > Instant::now()) {
        return Some(token.header.clone());
    }
    match &state.credentials {
        Some(Some(Credentials::Password { user, secret })) if state.basic => {
            Some(Credentials::basic(user, secret))
        }
        _ => None,
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(MAX_LIFETIME)
}

fn bearer(token: &str, doing: &str, at: &Url) -> Result<String, RegistryError> {
    if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let why = "answers with something else than a token".to_owned();
        return Err(RegistryError::Nonsense { doing: doing.into(), at: at.authority().into(), why });
    }
    Ok(format!("Bearer {token}"))
}

/// Whether the token service at `realm` may be asked on behalf of the registry at `registry`; the error says why not.
/// `password`: something secret would be sent there; `trusted`: the user's settings say that it may.
fn check_realm(registry: &Url, realm: &Url, password: bool, trusted: bool) -> Result<(), String> {
    let (at, of) = (realm.authority(), registry.authority());
    if !realm.is_secure() && registry.is_secure() {
        return Err(format!("{realm} has no TLS, and {of} has: tokens could be read on the way"));
    }
    if !realm.is_secure()
        && realm.host() != registry.host()
        && !(realm.is_loopback() && registry.is_loopback())
    {
        return Err(format!("{at} is another host than {of}, and is to be asked without TLS"));
    }
    if realm.is_local() && !registry.is_local() {
        return Err(format!("{at} is this machine or its link, and {of} is not"));
    }
    let related = realm.host() == registry.host()
        || realm.is_loopback() && registry.is_loopback()
        || site(realm.host()).is_some_and(|own| site(registry.host()) == Some(own));
    if password && !related && !trusted {
        return Err(format!(
            "{at} would get the password for {of}, which it does not belong to; if it may, put \
             \"token-hosts\": {{\"{of}\": [\"{}\"]}} into registries.json, else `hv logout {of}`",
            realm.host()
        ));
    }
    Ok(())
}

/// What is somebody's own of a host name: `example.com` of `auth.example.com`, `example.co.uk` of `auth.example.co.uk`.
///
/// Without a list of all public suffixes: where a country's name has a short one before it, one part more is taken.
fn site(host: &str) -> Option<&str> {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    let parts: Vec<&str> = host.rsplit('.').collect();
    let [last, second, ..] = parts[..] else { return None };
    let wanted = if last.len() == 2 && second.len() <= 3 { 3 } else { 2 };
    if parts.len() < wanted {
        return None;
    }
    let length = parts[..wanted].iter().map(|part| part.len() + 1).sum::<usize>() - 1;
    host.get(host.len() - length..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(registry: &str, realm: &str, password: bool) -> Result<(), String> {
        check_realm(&Url::parse(registry).unwrap(), &Url::parse(realm).unwrap(), password, false)
    }

    #[test]
    fn realms_of_honest_registries_are_taken() {
        for (registry, realm) in [
            ("https://registry-1.docker.io/", "https://auth.docker.io/token"),
            ("https://ghcr.io/", "https://ghcr.io/token"),
            ("https://registry.gitlab.com/", "https://gitlab.com/jwt/auth"),
            ("https://registry.example.co.uk/", "https://auth.example.co.uk/"),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5001/token"),
            ("http://localhost:5000/", "http://127.0.0.1:5001/token"),
            ("http://10.0.0.5:5000/", "http://10.0.0.5/token"),
        ] {
            check(registry, realm, true).unwrap();
        }
        check("https://r.example/", "https://tokens.other.net/", false).unwrap();
    }

    #[test]
    fn realms_that_would_leak_are_refused() {
        for (registry, realm) in [
            ("https://r.example.com/", "http://r.example.com/token"),
            ("http://10.0.0.5:5000/", "http://10.0.0.6:5000/token"),
            ("http://localhost:5000/", "http://example.com/token"),
            ("https://r.example.com/", "https://169.254.169.254/token"),
            ("https://r.example.com/", "https://localhost/token"),
        ] {
            check(registry, realm, false).unwrap_err();
            check(registry, realm, true).unwrap_err();
        }
        for (registry, realm) in [
            ("https://r.example.com/", "https://evil.com/"),
            ("https://r.example.com/", "https://example.com.evil.com/"),
            ("https://r.foo.co.uk/", "https://evil.co.uk/"),
            ("https://192.0.2.1/", "https://192.0.2.2/"),
        ] {
            assert!(check(registry, realm, true).unwrap_err().contains("token-hosts"), "{realm}");
        }
        let of = |text| Url::parse(text).unwrap();
        check_realm(&of("https://r.example.com/"), &of("https://evil.com/"), true, true).unwrap();
    }

    #[test]
    fn tokens_with_line_breaks_do_not_become_headers() {
        let at = Url::root("r.example", true);
        for bad in ["", "a\r\nX: y", "a b", "é"] {
            bearer(bad, "x", &at).unwrap_err();
        }
        assert_eq!(bearer("abc", "x", &at).unwrap(), "Bearer abc");
    }

    #[test]
    fn sites() {
        assert_eq!(site("auth.docker.io"), Some("docker.io"));
        assert_eq!(site("a.b.co.uk"), Some("b.co.uk"));
        assert_eq!(site("co.uk"), None);
        assert_eq!(site("localhost"), None);
        assert_eq!(site("10.0.0.1"), None);
    }
}
