//! Names of images: `alpine`, `ghcr.io/owner/app:1.2`, `localhost:5000/app@sha256:…`.
//!
//! The grammar is the one that registries' own clients have (distribution/reference, `grammar` in its package
//! documentation): a registry is recognised by a `.`, a `:`, a capital letter, or by being `localhost`; whatever has
//! none is a repository of the default registry. On docker.io a single component is below `library/`.

mod grammar;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use self::grammar::{is_component, is_hexadecimal_digest, is_host, is_registry};
use crate::content::Digest;

/// The registry of names that have none, unless the settings say another.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of names that have neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// Where docker.io keeps what has no owner.
const OFFICIAL: &str = "library/";
/// Bytes of registry and repository together.
const MAX_NAME: usize = 255;
/// Bytes of a tag.
const MAX_TAG: usize = 128;

/// The name of an image: a registry, a repository there, and which of its images.
///
/// It is whole: what was left out has been filled in. Printing gives the full form, which parses to the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not the name of an image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadName {
    /// Nothing there.
    #[error("an image's name is empty; write for example alpine:3.20")]
    Empty,
    /// Too long.
    #[error("an image's name has {0} bytes, more than the {MAX_NAME} that registries take")]
    Long(usize),
    /// What comes before the first `/` is no host.
    #[error(
        "`{0}` is not a registry: a host name or an address in the form host[:port] goes before the first `/`"
    )]
    Registry(String),
    /// A repository's grammar is narrow.
    #[error(
        "`{0}` is not the name of a repository: it is made of lower-case letters, digits, and single `.`, `_` or `-` \
         between them, in parts with `/` between"
    )]
    Repository(String),
    /// Tags too.
    #[error(
        "`{0}` is not a tag: 1 to {MAX_TAG} letters, digits, `_`, `.` or `-`, of which the first is no `.` or `-`"
    )]
    Tag(String),
    /// Only what the store can check.
    #[error("`{name}` has no digest that can be checked: {why}")]
    Digest {
        /// What was given.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// It would be mistaken for an image's id.
    #[error("`{0}` looks like a digest, not like a name; write NAME@sha256:{0}")]
    Hexadecimal(String),
}

impl Reference {
    /// Reads `name`, with `default_registry` (a host, with a port or without) for one that names none.
    ///
    /// # Errors
    /// It is not a name; the message says which part, and what would be one.
    pub fn parse(name: &str, default_registry: &str) -> Result<Reference, BadName> {
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => (rest, Some(checked_digest(name, digest)?)),
            None => (name, None),
        };
        let (rest, tag) = match rest.rfind(':').filter(|at| !rest[*at..].contains('/')) {
            Some(at) => (&rest[..at], Some(checked_tag(&rest[at + 1..])?)),
            None => (rest, None),
        };
        if rest.is_empty() {
            return Err(BadName::Empty);
        }
        let (registry, repository) = match rest.split_once('/') {
            Some((first, below)) if is_registry(first) => (first, below),
            _ => (default_registry, rest),
        };
        let registry = normal_registry(registry);
        if !is_host(&registry) {
            return Err(BadName::Registry(shown(&registry)));
        }
        if digest.is_none() && tag.is_none() && is_hexadecimal_digest(repository) {
            return Err(BadName::Hexadecimal(repository.into()));
        }
        let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
        let repository = if official { format!("{OFFICIAL}{repository}") } else { repository.into() };
        if !repository.split('/').all(is_component) {
            return Err(BadName::Repository(shown(&repository)));
        }
        match registry.len() + 1 + repository.len() {
            length if length > MAX_NAME => Err(BadName::Long(length)),
            _ => {
                let tag = tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
                Ok(Reference { registry, repository, tag, digest })
            }
        }
    }

    /// Host and perhaps port, as they are named; where docker.io really is, the client knows.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path on its registry, without a leading `/`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; None only where there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the name is pinned to.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image, pinned to these bytes.
    #[must_use]
    pub fn pinned(&self, digest: &Digest) -> Reference {
        Reference { digest: Some(*digest), ..self.clone() }
    }

    /// What the registry is asked for: the digest where there is one, else the tag.
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.into(),
        }
    }

    /// As people write it: without what would be filled in again.
    pub fn short(&self) -> String {
        let full = self.to_string();
        let short = match full.strip_prefix(DEFAULT_REGISTRY).and_then(|rest| rest.strip_prefix('/')) {
            None => full,
            Some(rest) => match rest.strip_prefix(OFFICIAL).filter(|below| !below.contains('/')) {
                Some(below) => below.into(),
                // `docker.io/a.b/c` without its registry would name another one.
                None if rest.split_once('/').is_some_and(|(first, _)| is_registry(first)) => full,
                None => rest.into(),
            },
        };
        if short.parse::<Reference>().as_ref() == Ok(self) { short } else { self.to_string() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Reference, BadName> {
        Reference::parse(name, DEFAULT_REGISTRY)
    }
}

impl TryFrom<String> for Reference {
    type Error = BadName;

    fn try_from(name: String) -> Result<Reference, BadName> {
        name.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

/// Reads a registry as `hv login` takes it: a host and perhaps a port, or docker's old address of docker.io.
///
/// # Errors
/// It is no host.
pub fn parse_registry(text: &str) -> Result<String, BadName> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = host.split('/').next().unwrap_or_default();
    let registry = normal_registry(host);
    if is_host(&registry) { Ok(registry) } else { Err(BadName::Registry(shown(text))) }
}

fn normal_registry(registry: &str) -> String {
    match registry {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DEFAULT_REGISTRY.into(),
        other => other.to_ascii_lowercase(),
    }
}

fn checked_tag(tag: &str) -> Result<String, BadName> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let good = (1..=MAX_TAG).contains(&tag.len())
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
        && tag.bytes().next().is_some_and(word);
    if good { Ok(tag.into()) } else { Err(BadName::Tag(shown(tag))) }
}

fn checked_digest(name: &str, digest: &str) -> Result<Digest, BadName> {
    digest
        .parse()
        .map_err(|why: <Digest as FromStr>::Err| BadName::Digest { name: shown(name), why: why.to_string() })
}

/// For a message: short, and without control characters.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    short.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn full(name: &str) -> String {
        name.parse::<Reference>().unwrap_or_else(|error| panic!("{name}: {error}")).to_string()
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        for (name, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("owner/app", "docker.io/owner/app:latest"),
            ("index.docker.io/app", "docker.io/library/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b/c:T_1", "localhost:5000/a/b/c:T_1"),
            ("GHCR.io/owner/app", "ghcr.io/owner/app:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("a__b/c-d--e.f", "docker.io/a__b/c-d--e.f:latest"),
        ] {
            assert_eq!(full(name), whole);
        }
        assert_eq!(full(&format!("app@{DIGEST}")), format!("docker.io/library/app@{DIGEST}"));
        assert_eq!(full(&format!("app:1@{DIGEST}")), format!("docker.io/library/app:1@{DIGEST}"));
    }

    #[test]
    fn the_default_registry_is_a_setting() {
        let name = Reference::parse("app", "registry.example:5000").unwrap();
        assert_eq!(name.to_string(), "registry.example:5000/app:latest");
        assert!(Reference::parse("app", "no host").is_err());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a/".repeat(200) + "a";
        for name in [
            "",
            ":tag",
            "@sha256:00",
            "App",
            "a//b",
            "/a",
            "a/",
            "../etc/passwd",
            "a/../b",
            "a/./b",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a:",
            "a:.x",
            "a:x y",
            "ex ample.com/a",
            "-.com/a",
            "host:0/a",
            "host:70000/a",
            "[::1/a",
            "[zz]:1/a",
            "user:secret@host/a",
            "http://host/a",
            "a\n",
            "ä",
            "app@sha256:ABC",
            "app@md5:d41d8cd98f00b204e9800998ecf8427e",
            &DIGEST[7..],
            &long,
        ] {
            assert!(name.parse::<Reference>().is_err(), "{name}");
        }
        assert!(format!("a@{}", DIGEST.to_uppercase()).parse::<Reference>().is_err());
    }

    #[test]
    fn what_a_registry_is_asked_for() {
        let name: Reference = format!("app:1@{DIGEST}").parse().unwrap();
        assert_eq!((name.wanted().as_str(), name.tag()), (DIGEST, Some("1")));
        assert_eq!("app".parse::<Reference>().unwrap().wanted(), "latest");
    }

    #[test]
    fn short_forms_mean_the_same() {
        assert_eq!("docker.io/library/alpine:3".parse::<Reference>().unwrap().short(), "alpine:3");
        assert_eq!("docker.io/a/b:3".parse::<Reference>().unwrap().short(), "a/b:3");
        assert_eq!("ghcr.io/a/b:3".parse::<Reference>().unwrap().short(), "ghcr.io/a/b:3");
        assert_eq!("docker.io/a.b/c:1".parse::<Reference>().unwrap().short(), "docker.io/a.b/c:1");
    }

    #[test]
    fn registries() {
        assert_eq!(parse_registry("https://index.docker.io/v1/").unwrap(), "docker.io");
        assert_eq!(parse_registry("localhost:5000").unwrap(), "localhost:5000");
        assert!(parse_registry("").is_err() && parse_registry("a b").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_prints_as_what_parses_to_the_same(text in "\\PC{0,80}|[a-zA-Z0-9:/@._\\[\\]-]{0,80}") {
            if let Ok(name) = text.parse::<Reference>() {
                prop_assert_eq!(name.to_string().parse::<Reference>().unwrap(), name.clone());
                prop_assert_eq!(name.short().parse::<Reference>().unwrap(), name.clone());
                prop_assert!(!name.repository().split('/').any(|part| part.is_empty() || part.starts_with('.')));
                prop_assert!(!name.to_string().contains([' ', '\\', '%', '?', '#']));
            }
        }

        #[test]
        fn names_that_are_right_are_read(
            host in "([a-z0-9]{1,9}\\.){1,3}[a-z]{2,5}(:[1-9][0-9]{0,3})?",
            path in "[a-z0-9]{1,9}([._-][a-z0-9]{1,9}){0,2}(/[a-z0-9]{1,9}((__|-{1,3})[a-z0-9]{1,9})?){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}",
        ) {
            let text = format!("{host}/{path}:{tag}");
            let name: Reference = text.parse().unwrap();
            if host != DEFAULT_REGISTRY {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
