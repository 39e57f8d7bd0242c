//! Registries: hosts that keep images and speak the OCI distribution protocol 1.1.
//!
//! # Layout, from the outside to the inside
//! - [`pull`], [`push`], [`list`]: what a user wants; [`login`]: who the user is;
//! - [`manifest`], `blob`: documents and data, checked against the digest that was asked for;
//! - [`client`]: one host, with [`auth`] (tokens), [`credentials`] and its [`helper`]s, and redirects;
//! - [`http`]: one request; [`patience`]: trying again; [`settings`]: what the user says about registries;
//! - [`url`] and [`challenge`]: the two grammars that registries write.
//!
//! A registry is a stranger, and so is whoever is between it and this machine: nothing enters the store but bytes
//! of the digest that was asked for, everything that comes is bounded, no silence is longer than the settings say,
//! and who the user is only the registry learns.

pub mod auth;
mod blob;
pub mod challenge;
pub mod client;
pub mod credentials;
mod error;
pub mod helper;
pub mod http;
pub mod list;
pub mod login;
pub mod manifest;
pub mod patience;
pub mod pull;
pub mod push;
pub mod settings;
pub mod url;

use std::sync::Arc;

pub use credentials::{Credentials, Keyring};
pub use error::RegistryError;
pub use settings::Settings;

use self::auth::Source;
use self::client::Client;
use self::http::{Call, Http};

/// All registries, as one user sees them.
#[derive(Debug)]
pub struct Registries {
    settings: Arc<Settings>,
    http: Arc<Http>,
    source: Source,
}

impl Registries {
    /// With these settings, and credentials from there.
    pub fn new(settings: Settings, source: Source) -> Registries {
        let http = Arc::new(Http::new(settings.stall()));
        Registries { settings: Arc::new(settings), http, source }
    }

    /// What was said about registries.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The registry itself.
    pub fn client(&self, registry: &str) -> Client {
        let url = self.settings.address(registry);
        let url = if self.wants_tls(&url) { url::Url::root(url.authority(), true) } else { url };
        self.at(registry, url)
    }

    /// On this machine registries speak plain HTTP, unless they say that they do not: servers written in Go answer
    /// 400 to what is no TLS.
    fn wants_tls(&self, url: &url::Url) -> bool {
        if url.is_secure() || !url.is_loopback() {
            return false;
        }
        let call = Call::get(format!("ask {}", url.authority()), url.at("/v2/"));
        self.http.send(&call, &call.url, None).is_ok_and(|answer| answer.status == 400)
    }

    /// Who may have what the registry has, in the order in which they are asked: its mirrors, then itself.
    ///
    /// # Errors
    /// The settings name a mirror that cannot be used.
    pub fn sources(&self, registry: &str) -> Result<Vec<Client>, RegistryError> {
        let mirrors = self.settings.mirrors_of(registry)?;
        // A mirror gets its own credentials, never those of what it mirrors.
        let mut all: Vec<Client> = mirrors.iter().map(|url| self.at(url.authority(), url.clone())).collect();
        all.push(self.client(registry));
        Ok(all)
    }

    fn at(&self, name: &str, url: url::Url) -> Client {
        Client::new(name, url, self.source.clone(), Arc::clone(&self.http), Arc::clone(&self.settings))
    }
}

/// What a token is to allow: reading a repository.
pub(crate) fn to_pull(repository: &str) -> String {
    format!("repository:{repository}:pull")
}
