//! An image's configuration: what to run, and how the image came to be.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{MAX_JSON, Platform, null_is_default};
use crate::content::{ContentError, Digest};

/// The most words of a command, variables, labels and so on.
const MAX_ITEMS: usize = 4096;
/// The most bytes of one of them: what Linux takes of one argument (MAX_ARG_STRLEN).
const MAX_ITEM: usize = 128 << 10;
/// The most bytes of command and environment together: half of what Linux takes, so that the user's fit too.
const MAX_STRINGS: usize = 1 << 20;
/// The most steps of the history that are read.
const MAX_HISTORY: usize = 8192;

/// An image's configuration (OCI image specification, "Image Configuration").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When it was made, as RFC 3339 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor it is made for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// Its variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The operating system it is made for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// What to run.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ProcessConfig,
    /// What the layers unpack to.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    /// How it came to be.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// What to run in the image, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ProcessConfig {
    /// `USER[:GROUP]`; empty: root.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp` and the like.
    #[serde(with = "set", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program, and arguments that are always there.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Further arguments, unless the user gives others.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Directories whose contents are data.
    #[serde(with = "set", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// Empty: `/`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Anything.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What asks the program to end: `SIGTERM`, `15`; empty: SIGTERM.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// How to tell whether it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What the shell form of commands is run by.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// What a build from this image does first.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
}

/// A check whether the program works; times are nanoseconds, 0 stands for the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, or `CMD` and arguments, or `CMD-SHELL` and a line.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// How long a check may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// How long failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// Between two checks during that.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// How many failures in a row count.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u64,
}

/// What the layers unpack to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digests of the unpacked layers, the lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> RootFs {
        RootFs { kind: "layers".into(), diff_ids: Vec::new() }
    }
}

/// One step of how an image came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, as RFC 3339 has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Config {
    /// Parses and bounds a configuration.
    ///
    /// # Errors
    /// It is too large, or no configuration.
    pub fn from_slice(bytes: &[u8]) -> Result<Config, ContentError> {
        let what = "the image's configuration";
        if bytes.len() as u64 > MAX_JSON {
            return Err(ContentError::TooLarge { what: what.into(), limit: MAX_JSON });
        }
        let json = |source| ContentError::Json { what: what.into(), source };
        let config: Config = serde_json::from_slice(bytes).map_err(json)?;
        match config.excess() {
            Some(why) => Err(ContentError::refused(what, why)),
            None => Ok(config),
        }
    }

    /// What it is made for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone().filter(|variant| !variant.is_empty()),
            os_version: None,
        }
    }

    fn excess(&self) -> Option<String> {
        let process = &self.config;
        let health = process.healthcheck.as_ref().map_or(&[][..], |check| &check.test);
        let lists: [(&str, &[String]); 6] = [
            ("Entrypoint", &process.entrypoint),
            ("Cmd", &process.cmd),
            ("Env", &process.env),
            ("Shell", &process.shell),
            ("OnBuild", &process.on_build),
            ("Healthcheck", health),
        ];
        for (what, list) in lists {
            if list.len() > MAX_ITEMS {
                return Some(format!("its {what} has {} items; hv takes {MAX_ITEMS}", list.len()));
            }
            if list.iter().any(|item| item.len() >= MAX_ITEM) {
                return Some(format!("an item of its {what} is longer than Linux takes"));
            }
        }
        let strings = lists[..3].iter().flat_map(|(_, list)| *list).map(|item| item.len() + 1).sum::<usize>();
        if strings > MAX_STRINGS {
            return Some(format!("its command and environment have {strings} bytes; hv takes {MAX_STRINGS}"));
        }
        if process.user.len() > 4096 || process.working_dir.len() > 4096 || process.stop_signal.len() > 64 {
            return Some("its User, WorkingDir or StopSignal is longer than any can be".into());
        }
        let counts = process.exposed_ports.len().max(process.volumes.len()).max(process.labels.len());
        if counts > MAX_ITEMS || self.history.len() > MAX_HISTORY {
            return Some("it has more ports, volumes, labels or history than hv takes".into());
        }
        None
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A set, which JSON has as an object of empty objects.
mod set {
    use super::*;
    use serde::ser::SerializeMap;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(set.len()))?;
        for key in set {
            map.serialize_entry(key, &serde_json::Map::new())?;
        }
        map.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<String>, D::Error> {
        let map = Option::<BTreeMap<String, serde::de::IgnoredAny>>::deserialize(from)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dockers_nulls_and_sets() {
        let config = Config::from_slice(
            br#"{"architecture":"amd64","os":"linux","created":"2026-01-02T03:04:05.678Z","container":"x",
            "config":{"User":"","ExposedPorts":{"80/tcp":{}},"Env":["A=b"],"Cmd":["sh"],"Entrypoint":null,
            "Volumes":null,"WorkingDir":"/w","Labels":null,"OnBuild":null,"StopSignal":"SIGINT",
            "Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":30000000000}},
            "rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"x","empty_layer":true}]}"#,
        )
        .unwrap();
        assert_eq!(config.platform().to_string(), "linux/amd64");
        assert_eq!(config.config.exposed_ports, BTreeSet::from(["80/tcp".to_owned()]));
        assert!(config.config.entrypoint.is_empty() && config.config.volumes.is_empty());
        assert_eq!(config.config.healthcheck.as_ref().unwrap().interval, 30_000_000_000);
        let again = Config::from_slice(&serde_json::to_vec(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn what_no_process_could_be_given_is_refused() {
        let refused = |config: ProcessConfig| {
            let config = Config { config, ..Config::default() };
            Config::from_slice(&serde_json::to_vec(&config).unwrap()).unwrap_err().to_string()
        };
        let many = vec!["A=b".to_owned(); MAX_ITEMS + 1];
        assert!(refused(ProcessConfig { env: many, ..Default::default() }).contains("4097 items"));
        let long = vec!["x".repeat(MAX_ITEM)];
        assert!(refused(ProcessConfig { cmd: long, ..Default::default() }).contains("longer than Linux"));
        let sum = vec!["x".repeat(MAX_ITEM - 1); 9];
        assert!(
            refused(ProcessConfig { entrypoint: sum, ..Default::default() }).contains("hv takes 1048576")
        );
        let user = "x".repeat(5000);
        assert!(refused(ProcessConfig { user, ..Default::default() }).contains("User"));
    }

    proptest! {
        #[test]
        fn hostile_configurations_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Config::from_slice(&bytes);
        }
    }
}
