//! What a user or an administrator says about registries: `registries.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::RegistryError;
use super::url::{Url, is_loopback};
use crate::reference::DEFAULT_REGISTRY;

/// For everybody.
const SYSTEM: &str = "/etc/hv/registries.json";
/// The largest file of settings.
const MAX_FILE: u64 = 1 << 20;
/// Where docker.io really answers.
const DOCKER_HOST: &str = "registry-1.docker.io";

/// What is said about registries. Every field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// The registry of names that have none.
    pub default_registry: String,
    /// For a registry, the addresses that are asked before it, in their order.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries (host, or host and port) that are spoken to without TLS. This machine itself always is.
    pub plain_http: Vec<String>,
    /// For a registry, further hosts that its users' passwords may be sent to, to get a token there.
    pub token_hosts: BTreeMap<String, Vec<String>>,
    /// How long a registry may be silent, in seconds.
    pub stall_seconds: u64,
    /// How often something is tried again that may be passing.
    pub retries: u32,
    /// Layers at once.
    pub parallel: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            default_registry: DEFAULT_REGISTRY.into(),
            mirrors: BTreeMap::new(),
            plain_http: Vec::new(),
            token_hosts: BTreeMap::new(),
            stall_seconds: 30,
            retries: 5,
            parallel: 3,
        }
    }
}

impl Settings {
    /// The settings of this user: `HV_REGISTRIES` names the file, else the user's own in the configuration
    /// directory is taken, else the administrator's.
    ///
    /// # Errors
    /// There is a file, and it cannot be read or makes no sense.
    pub fn of_this_user() -> Result<Settings, RegistryError> {
        let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = env("HV_REGISTRIES") {
            return Settings::read(&path);
        }
        let config = env("XDG_CONFIG_HOME").or_else(|| Some(env("HOME")?.join(".config")));
        let own = config.filter(|dir| dir.is_absolute()).map(|dir| dir.join("hv/registries.json"));
        for path in own.into_iter().chain([SYSTEM.into()]) {
            match Settings::read(&path) {
                Err(RegistryError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                read => return read,
            }
        }
        Ok(Settings::default())
    }

    fn read(path: &Path) -> Result<Settings, RegistryError> {
        let failed = |source| RegistryError::File { doing: "read", path: path.into(), source };
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)).map_err(failed)?;
        let settings: Settings = serde_json::from_slice(&bytes)
            .map_err(|source| RegistryError::Settings { path: path.into(), source })?;
        Ok(settings.bounded())
    }

    /// The same within what makes sense.
    #[must_use]
    pub fn bounded(mut self) -> Settings {
        self.stall_seconds = self.stall_seconds.clamp(1, 3600);
        self.retries = self.retries.min(100);
        self.parallel = self.parallel.clamp(1, 32);
        self
    }

    /// How long a registry may be silent.
    pub fn stall(&self) -> Duration {
        Duration::from_secs(self.stall_seconds)
    }

    /// Whether this address may be spoken to without TLS.
    pub fn allows_plain(&self, url: &Url) -> bool {
        url.is_loopback() || self.plain_http.iter().any(|one| one == url.authority() || one == url.host())
    }

    /// Whether passwords of `registry` may go to the token service at `host`, because somebody said so.
    pub fn trusts(&self, registry: &str, host: &str) -> bool {
        self.token_hosts.get(registry).is_some_and(|hosts| hosts.iter().any(|one| one == host))
    }

    /// Where `registry` answers.
    pub fn address(&self, registry: &str) -> Url {
        let host = if registry == DEFAULT_REGISTRY { DOCKER_HOST } else { registry };
        let url = Url::root(host, true);
        let plain = is_loopback(url.host())
            || self.allows_plain(&url)
            || self.plain_http.iter().any(|one| one == registry);
        Url::root(host, !plain)
    }

    /// Where else what `registry` has may be got.
    ///
    /// # Errors
    /// A mirror's address is none, or is plain HTTP to another machine that nobody allowed.
    pub fn mirrors_of(&self, registry: &str) -> Result<Vec<Url>, RegistryError> {
        let Some(listed) = self.mirrors.get(registry) else { return Ok(Vec::new()) };
        listed.iter().map(|text| self.mirror(registry, text)).collect()
    }

    fn mirror(&self, registry: &str, text: &str) -> Result<Url, RegistryError> {
        let url = if text.contains("://") {
            Url::parse(text).map_err(|source| RegistryError::Address {
                doing: format!("use the mirror of {registry}"),
                source,
            })?
        } else {
            self.address(text)
        };
        if url.is_secure() || self.allows_plain(&url) {
            return Ok(url.at("/"));
        }
        Err(RegistryError::Refused {
            what: format!("{url}, a mirror of {registry},"),
            why: format!(
                "it has no TLS; allow it with \"plain-http\": [\"{}\"] in registries.json",
                url.authority()
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_for_who_is_named() {
        let settings = Settings { plain_http: vec!["10.0.0.5:5000".into()], ..Settings::default() };
        for (registry, address) in [
            ("docker.io", "https://registry-1.docker.io/"),
            ("ghcr.io", "https://ghcr.io/"),
            ("localhost:5000", "http://localhost:5000/"),
            ("[::1]:5000", "http://[::1]:5000/"),
            ("10.0.0.5:5000", "http://10.0.0.5:5000/"),
            ("10.0.0.5:5001", "https://10.0.0.5:5001/"),
        ] {
            assert_eq!(settings.address(registry).to_string(), address);
        }
    }

    #[test]
    fn mirrors_obey_the_same_rule() {
        let text = r#"{"mirrors": {"docker.io": ["https://mirror.example", "127.0.0.1:5000"], "a.example": ["http://10.0.0.6"]}}"#;
        let settings: Settings = serde_json::from_str(text).unwrap();
        let found: Vec<String> =
            settings.mirrors_of("docker.io").unwrap().iter().map(Url::to_string).collect();
        assert_eq!(found, ["https://mirror.example/", "http://127.0.0.1:5000/"]);
        assert!(settings.mirrors_of("a.example").unwrap_err().to_string().contains("plain-http"));
        assert!(settings.mirrors_of("b.example").unwrap().is_empty());
    }

    #[test]
    fn mistakes_in_the_file_are_told() {
        assert!(serde_json::from_str::<Settings>(r#"{"mirror": {}}"#).is_err());
        let wild: Settings = serde_json::from_str(r#"{"parallel": 0, "stall-seconds": 0}"#).unwrap();
        let bounded = wild.bounded();
        assert_eq!((bounded.parallel, bounded.stall_seconds), (1, 1));
    }
}
