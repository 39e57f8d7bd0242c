//! What machine an image is made for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Operating system and processor, in the words of the Go language (OCI image index, "platform").
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64` and so on.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v8`, or `v3` of amd64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Of Windows.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

/// Text that is no platform.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a platform: write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, such as linux/amd64")]
pub struct BadPlatform(String);

impl Default for Platform {
    /// The machine that this program runs on.
    fn default() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Platform { architecture: architecture.into(), os: "linux".into(), variant: None, os_version: None }
    }
}

impl Platform {
    /// How well `offered` serves where this is wanted: the greatest is the best; None: not at all.
    pub fn fit(&self, offered: &Platform) -> Option<u8> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let plain = |variant: &Option<String>| match (&*self.architecture, variant.as_deref()) {
            (_, None | Some("")) | ("amd64", Some("v1")) | ("arm64", Some("v8")) => None,
            (_, Some(variant)) => Some(variant.to_owned()),
        };
        match (plain(&self.variant), plain(&offered.variant)) {
            (wanted, offered) if wanted == offered => Some(2),
            // What runs on every processor of the family.
            (Some(_), None) => Some(1),
            // 32-bit ARM has no variant that all have: any is better than none. Others may not run.
            (None, Some(_)) if self.architecture == "arm" => Some(0),
            _ => None,
        }
    }
}

impl FromStr for Platform {
    type Err = BadPlatform;

    fn from_str(text: &str) -> Result<Platform, BadPlatform> {
        let bad = || BadPlatform(text.chars().take(100).flat_map(char::escape_debug).collect());
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let parts: Vec<&str> = text.split('/').collect();
        let word =
            |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(allowed);
        if !parts.iter().all(|part| word(part)) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(bad()),
        };
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Platform { architecture: architecture.into(), os: os.into(), variant, os_version: None })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(wanted: &str, offered: &str) -> Option<u8> {
        wanted.parse::<Platform>().unwrap().fit(&offered.parse().unwrap())
    }

    #[test]
    fn variants_that_every_processor_has_fit() {
        assert_eq!(fit("linux/amd64", "linux/amd64/v1"), Some(2));
        assert_eq!(fit("linux/x86_64", "linux/amd64"), Some(2));
        assert_eq!(fit("linux/arm64", "linux/arm64/v8"), Some(2));
        assert_eq!(fit("linux/amd64/v3", "linux/amd64"), Some(1));
        assert_eq!(fit("linux/amd64", "linux/amd64/v3"), None);
        assert_eq!(fit("linux/arm", "linux/arm/v7"), Some(0));
        assert_eq!(fit("linux/amd64", "linux/arm64"), None);
        assert_eq!(fit("linux/amd64", "windows/amd64"), None);
    }

    #[test]
    fn nonsense_is_no_platform() {
        for bad in ["", "linux", "linux/", "a/b/c/d", "linux/amd 64", "linux/../x"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
        assert_eq!("linux/arm/v7".parse::<Platform>().unwrap().to_string(), "linux/arm/v7");
    }
}
