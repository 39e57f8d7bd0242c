//! Who the user is to a registry: docker's `config.json`, read and written as docker does.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{RegistryError, helper};
use crate::reference::{DEFAULT_REGISTRY, parse_registry};

/// docker's own word for docker.io in these files.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";
/// The largest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// What a registry is shown. Printing it shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password, or what a registry gave in its place.
        secret: String,
    },
    /// A refresh token, good for getting others (`identitytoken`).
    Identity(String),
    /// What the registry itself takes (`registrytoken`).
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// As helpers and docker give them: a user called `<token>` has an identity token.
    pub fn new(user: &str, secret: &str) -> Credentials {
        match user {
            "<token>" => Credentials::Identity(secret.into()),
            user => Credentials::Password { user: user.into(), secret: secret.into() },
        }
    }

    /// The value of an `Authorization` header, for a user and a password.
    pub fn basic(user: &str, secret: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")))
    }
}

/// The files in which credentials are looked for, the first one first.
#[derive(Debug, Clone)]
pub struct Keyring {
    files: Vec<PathBuf>,
}

/// Where credentials were put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In a file, for everybody to read who can read it.
    File(PathBuf),
    /// With a helper of this name.
    Helper(String),
}

impl Keyring {
    /// `REGISTRY_AUTH_FILE`, then docker's `config.json` (`DOCKER_CONFIG`, else `~/.docker`), then podman's
    /// `auth.json`.
    pub fn of_this_user() -> Keyring {
        let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let docker = env("DOCKER_CONFIG").or_else(|| Some(env("HOME")?.join(".docker")));
        let files = [
            env("REGISTRY_AUTH_FILE"),
            docker.map(|dir| dir.join("config.json")),
            env("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        ];
        Keyring { files: files.into_iter().flatten().collect() }
    }

    /// Of these files alone.
    pub fn of(files: Vec<PathBuf>) -> Keyring {
        Keyring { files }
    }

    /// What `registry` (`docker.io`, or a host and perhaps a port) is to be shown, if anything.
    ///
    /// # Errors
    /// A file is there and cannot be read, or the helper that it names fails.
    pub fn find(&self, registry: &str) -> Result<Option<Credentials>, RegistryError> {
        for path in &self.files {
            let Some(config) = read(path)? else { continue };
            if let Some(name) = helper_of(&config, registry) {
                if let Some(found) = helper::get(name, &key(registry))? {
                    return Ok(Some(found));
                }
                continue;
            }
            if let Some(found) = in_auths(&config, registry) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps credentials where docker would: with the helper that the first file names, else in that file.
    ///
    /// # Errors
    /// There is no place for them, the file cannot be read or written, or the helper fails.
    pub fn keep(&self, registry: &str, user: &str, secret: &str) -> Result<Kept, RegistryError> {
        let path = self.first()?;
        let mut config = read(path)?.unwrap_or_default();
        if let Some(name) = helper_of(&config, registry) {
            helper::store(name, &key(registry), user, secret)?;
            return Ok(Kept::Helper(name.into()));
        }
        let auth = STANDARD.encode(format!("{user}:{secret}"));
        let entry = match user {
            "<token>" => Map::from_iter([("identitytoken".into(), secret.into())]),
            _ => Map::from_iter([("auth".into(), auth.into())]),
        };
        let auths = config.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        let Some(auths) = auths.as_object_mut() else {
            return Err(RegistryError::Refused {
                what: format!("writing to {}", path.display()),
                why: "its `auths` is no object; mend or remove the file".into(),
            });
        };
        auths.retain(|key, _| !is_key_of(key, registry));
        auths.insert(key(registry), Value::Object(entry));
        write(path, &config)?;
        Ok(Kept::File(path.clone()))
    }

    /// Forgets what every file and its helper know of `registry`; whether there was anything.
    ///
    /// # Errors
    /// A file cannot be read or written, or a helper fails.
    pub fn forget(&self, registry: &str) -> Result<bool, RegistryError> {
        let mut any = false;
        for path in &self.files {
            let Some(mut config) = read(path)? else { continue };
            if let Some(name) = helper_of(&config, registry) {
                any |= helper::erase(name, &key(registry))?;
            }
            let Some(auths) = config.get_mut("auths").and_then(Value::as_object_mut) else { continue };
            let before = auths.len();
            auths.retain(|key, _| !is_key_of(key, registry));
            if auths.len() < before {
                write(path, &config)?;
                any = true;
            }
        }
        Ok(any)
    }

    fn first(&self) -> Result<&PathBuf, RegistryError> {
        self.files.first().ok_or_else(|| RegistryError::Refused {
            what: "keeping credentials".into(),
            why: "there is no place for them; set HOME or DOCKER_CONFIG".into(),
        })
    }
}

/// docker's key for a registry, which helpers get too.
fn key(registry: &str) -> String {
    if registry == DEFAULT_REGISTRY { DOCKER_KEY.into() } else { registry.into() }
}

/// Keys are hosts, or addresses as old clients wrote them. A key with a path (podman has them) is for a part of a
/// registry, and not taken for all of it.
fn is_key_of(key: &str, registry: &str) -> bool {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (_, path) = bare.split_once('/').unwrap_or((bare, ""));
    matches!(path.trim_end_matches('/'), "" | "v1" | "v2")
        && parse_registry(key).is_ok_and(|of| of == registry)
}

/// The helper for this registry, or for all.
fn helper_of<'a>(config: &'a Map<String, Value>, registry: &str) -> Option<&'a str> {
    let own = config.get("credHelpers").and_then(Value::as_object).and_then(|helpers| {
        helpers.iter().find(|(key, _)| is_key_of(key, registry)).and_then(|(_, name)| name.as_str())
    });
    own.or_else(|| config.get("credsStore").and_then(Value::as_str)).filter(|name| !name.is_empty())
}

fn in_auths(config: &Map<String, Value>, registry: &str) -> Option<Credentials> {
    let auths = config.get("auths")?.as_object()?;
    let exact = auths.get(&key(registry));
    let entry =
        exact.or_else(|| auths.iter().find(|(key, _)| is_key_of(key, registry)).map(|(_, entry)| entry))?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("registrytoken") {
        return Some(Credentials::Bearer(token.into()));
    }
    if let Some(token) = text("identitytoken") {
        return Some(Credentials::Identity(token.into()));
    }
    if let Some(auth) = text("auth") {
        let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
        let (user, secret) = decoded.split_once(':')?;
        // docker once padded them with zeros.
        return Some(Credentials::new(user, secret.trim_end_matches('\0')));
    }
    Some(Credentials::new(text("username")?, text("password")?))
}

fn read(path: &Path) -> Result<Option<Map<String, Value>>, RegistryError> {
    let failed = |source| RegistryError::File { doing: "read", path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|source| RegistryError::Settings { path: path.into(), source })
}

/// Replaces the file as a whole: a reader sees the old one or the new one. Nobody else may read it.
fn write(path: &Path, config: &Map<String, Value>) -> Result<(), RegistryError> {
    let failed = |source| RegistryError::File { doing: "write", path: path.into(), source };
    // A file that is kept elsewhere stays there.
    let path_of_file = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let dir = path_of_file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(failed)?;
    let temporary = dir.join(format!(".config.json.hv-{}", std::process::id()));
    let mut text = serde_json::to_vec_pretty(config).map_err(io::Error::from).map_err(failed)?;
    text.push(b'\n');
    let written = (|| {
        // One that a killed process of the same number left.
        let _ = fs::remove_file(&temporary);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, &path_of_file)?;
        File::open(dir)?.sync_all()
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn find(config: &str, registry: &str) -> Option<Credentials> {
        in_auths(serde_json::from_str::<Value>(config).unwrap().as_object().unwrap(), registry)
    }

    fn password(user: &str, secret: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.into(), secret: secret.into() })
    }

    #[test]
    fn dockers_forms() {
        // u:p and u:p:q
        assert_eq!(find(r#"{"auths":{"r.example":{"auth":"dTpw"}}}"#, "r.example"), password("u", "p"));
        assert_eq!(find(r#"{"auths":{"r.example":{"auth":"dTpwOnE="}}}"#, "r.example"), password("u", "p:q"));
        let old = r#"{"auths":{"https://r.example/v1/":{"username":"u","password":"p"}}}"#;
        assert_eq!(find(old, "r.example"), password("u", "p"));
        let docker = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#;
        assert_eq!(find(docker, "docker.io"), password("u", "p"));
        let token = r#"{"auths":{"r.example":{"identitytoken":"t"}}}"#;
        assert_eq!(find(token, "r.example"), Some(Credentials::Identity("t".into())));
    }

    #[test]
    fn credentials_of_others_are_not_taken() {
        let config = r#"{"auths":{"r.example":{"auth":"dTpw"},"other.example/team":{"auth":"dTpw"}}}"#;
        for registry in
            ["example", "r.example:5000", "r.example.evil", "xr.example", "docker.io", "other.example"]
        {
            assert_eq!(find(config, registry), None, "{registry}");
        }
        assert_eq!(find(r#"{"auths":{"r.example":{"auth":"%%"}}}"#, "r.example"), None);
    }

    #[test]
    fn helpers_are_chosen_as_docker_does() {
        let config: Value =
            serde_json::from_str(r#"{"credsStore":"all","credHelpers":{"r.example":"one"}}"#).unwrap();
        let config = config.as_object().unwrap();
        assert_eq!(helper_of(config, "r.example"), Some("one"));
        assert_eq!(helper_of(config, "docker.io"), Some("all"));
    }

    #[test]
    fn what_is_kept_is_found_and_forgotten_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/config.json");
        let keyring = Keyring::of(vec![path.clone()]);
        assert_eq!(keyring.find("r.example").unwrap(), None);
        assert_eq!(keyring.keep("r.example", "u", "p").unwrap(), Kept::File(path.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut config = read(&path).unwrap().unwrap();
        config.insert("HttpHeaders".into(), serde_json::json!({"a": "b"}));
        write(&path, &config).unwrap();
        keyring.keep("docker.io", "me", "secret").unwrap();
        assert_eq!(keyring.find("r.example").unwrap(), password("u", "p"));
        assert_eq!(keyring.find("docker.io").unwrap(), password("me", "secret"));
        assert!(keyring.forget("r.example").unwrap());
        assert!(!keyring.forget("r.example").unwrap());
        assert_eq!(keyring.find("r.example").unwrap(), None);
        assert!(read(&path).unwrap().unwrap().contains_key("HttpHeaders"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn secrets_are_not_printed() {
        assert!(!format!("{:?}", Credentials::new("u", "secret")).contains("secret"));
    }
}
