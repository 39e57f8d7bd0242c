//! One host that answers for a registry: the registry itself, or a mirror of it.

use std::sync::Arc;

use ureq::http::Method;
use ureq::http::header::{LOCATION, WWW_AUTHENTICATE};

use super::auth::{Auth, Source};
use super::challenge;
use super::http::{Answer, Call, Http};
use super::settings::Settings;
use super::url::Url;
use super::{RegistryError, patience};

/// The most redirects of one request.
const MAX_REDIRECTS: usize = 5;
/// The most `WWW-Authenticate` headers that are read.
const MAX_CHALLENGES: usize = 8;

/// A host, and who the user is to it.
#[derive(Debug)]
pub struct Client {
    url: Url,
    http: Arc<Http>,
    auth: Auth,
    settings: Arc<Settings>,
}

impl Client {
    /// For the host at `url`, whose credentials are kept under `name`.
    pub fn new(name: &str, url: Url, source: Source, http: Arc<Http>, settings: Arc<Settings>) -> Client {
        let auth = Auth::new(name, url.clone(), source, Arc::clone(&settings));
        Client { url, http, auth, settings }
    }

    /// The host's root.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The settings that it obeys.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sends a request and gives the answer, whatever its status. Who asks is shown to this host alone, and only if
    /// it wants to know; a GET or HEAD follows redirects, within the rules of `check_redirect`.
    ///
    /// # Errors
    /// The connection fails, or something is refused.
    pub fn ask(&self, call: &Call<'_>, scope: &str) -> Result<Answer, RegistryError> {
        let header = self.auth.header(scope);
        let answer = self.follow(call, header.as_deref())?;
        if answer.status != 401 || !answer.url.same_origin(&self.url) {
            return Ok(answer);
        }
        let headers = answer.headers.get_all(WWW_AUTHENTICATE).iter().take(MAX_CHALLENGES);
        let challenges: Vec<_> =
            headers.filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect();
        match self.auth.answer(&self.http, &challenges, scope, header.as_deref())? {
            Some(header) => self.follow(call, Some(&header)),
            None => Ok(answer),
        }
    }

    /// As [`Client::ask`]; an answer of another status than these is an error.
    ///
    /// # Errors
    /// As above, or the host says no.
    pub fn expect(&self, call: &Call<'_>, scope: &str, statuses: &[u16]) -> Result<Answer, RegistryError> {
        let answer = self.ask(call, scope)?;
        if statuses.contains(&answer.status) { Ok(answer) } else { Err(answer.into_error(&call.doing)) }
    }

    /// As [`Client::expect`], and again for as long as the reasons may be passing.
    ///
    /// # Errors
    /// The last attempt's.
    pub fn insist(&self, call: &Call<'_>, scope: &str, statuses: &[u16]) -> Result<Answer, RegistryError> {
        patience::insist(self.settings.retries, || self.expect(call, scope, statuses))
    }

    /// Whether `url`, which an answer from `from` named, may be asked.
    ///
    /// # Errors
    /// It may not; the message says why.
    pub fn check(&self, from: &Url, url: &Url) -> Result<(), RegistryError> {
        check_redirect(from, url, self.settings.allows_plain(url) || url.same_origin(&self.url)).map_err(
            |why| RegistryError::Refused {
                what: format!("{}, to which {} redirects,", url.authority(), from.authority()),
                why,
            },
        )
    }

    fn follow(&self, call: &Call<'_>, authorization: Option<&str>) -> Result<Answer, RegistryError> {
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let shown = authorization.filter(|_| url.same_origin(&self.url));
            let answer = self.http.send(call, &url, shown)?;
            let followed = matches!(call.method, Method::GET | Method::HEAD);
            if !followed || !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let next = location(&call.doing, &answer)?;
            self.check(&url, &next)?;
            url = next;
        }
        Err(RegistryError::Nonsense {
            doing: call.doing.clone(),
            at: url.authority().into(),
            why: format!("redirects more than {MAX_REDIRECTS} times"),
        })
    }
}

/// Where an answer leads.
///
/// # Errors
/// It has no `Location`, or one that makes no sense.
pub(super) fn location(doing: &str, answer: &Answer) -> Result<Url, RegistryError> {
    let Some(text) = answer.header(LOCATION.as_str()) else {
        return Err(RegistryError::Nonsense {
            doing: doing.into(),
            at: answer.url.authority().into(),
            why: "does not say where to go on".into(),
        });
    };
    let joined = answer.url.join(text);
    joined.map_err(|source| RegistryError::Address { doing: doing.into(), source })
}

/// Whether an answer from `from` may lead to `to`; the error says why not. `plain`: that host may be spoken to
/// without TLS.
fn check_redirect(from: &Url, to: &Url, plain: bool) -> Result<(), String> {
    if from.is_secure() && !to.is_secure() {
        return Err(format!("{to} has no TLS, and {from} has"));
    }
    if !to.is_secure() && !plain {
        return Err(format!(
            "it has no TLS; allow it with \"plain-http\": [\"{}\"] in registries.json",
            to.authority()
        ));
    }
    if to.is_local() && !from.is_local() {
        return Err("it is this machine or its link, which is nobody else's business".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects() {
        let check = |from: &str, to: &str, plain| {
            check_redirect(&Url::parse(from).unwrap(), &Url::parse(to).unwrap(), plain)
        };
        check("https://r.example/", "https://cdn.example.net/x", false).unwrap();
        check("http://10.0.0.5:5000/", "http://10.0.0.5:5000/x", true).unwrap();
        check("http://127.0.0.1:5000/", "https://cdn.example.net/x", false).unwrap();
        for (from, to, plain) in [
            ("https://r.example/", "http://r.example/x", true),
            ("http://127.0.0.1:5000/", "http://evil.example/x", false),
            ("https://r.example/", "https://127.0.0.1/x", true),
            ("https://r.example/", "https://169.254.169.254/x", true),
            ("https://r.example/", "https://[::ffff:127.0.0.1]/x", true),
        ] {
            check(from, to, plain).unwrap_err();
        }
    }
}
