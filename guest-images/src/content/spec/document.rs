//! Descriptors, manifests and indexes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MAX_JSON, Platform, media, null_is_default};
use crate::content::{ContentError, Digest};

/// The most children of one index, and layers of one manifest, that are read.
const MAX_CHILDREN: usize = 4096;
/// Where an index says that a child only describes another one (BuildKit, "attestation storage").
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Where an OCI layout's index.json has a name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Where containerd and docker have the full name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Names a blob and says what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// What the child of an index is made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Anything else.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Of a blob without anything else to say about it.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Whether it only describes another child of its index: provenance, a list of what is in it.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get(REFERENCE_TYPE).is_some_and(|kind| kind == "attestation-manifest")
            || self.platform.as_ref().is_some_and(|of| of.os == "unknown" && of.architecture == "unknown")
    }

    /// The name that an index.json gives it: `org.opencontainers.image.ref.name`.
    pub fn ref_name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }

    /// The full name that containerd's and docker's archives give it beside that.
    pub fn full_name(&self) -> Option<&str> {
        self.annotations.get(CONTAINERD_NAME).map(String::as_str).or_else(|| self.ref_name())
    }

    /// The same with this name in an index.json, or with none.
    #[must_use]
    pub fn named(&self, name: Option<&str>) -> Descriptor {
        let mut named = self.clone();
        named.annotations.remove(CONTAINERD_NAME);
        match name {
            Some(name) => named.annotations.insert(REF_NAME.into(), name.into()),
            None => named.annotations.remove(REF_NAME),
        };
        named
    }
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// Anything else.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Of these blobs, in OCI's form.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        let media_type = Some(media::MANIFEST.into());
        Manifest { schema_version: 2, media_type, config, layers, annotations: BTreeMap::new() }
    }

    /// Parses and checks a manifest.
    ///
    /// # Errors
    /// It is too large, no manifest, or could be read as something else too.
    pub fn from_slice(bytes: &[u8]) -> Result<Manifest, ContentError> {
        match Document::from_slice(bytes)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(ContentError::refused("the manifest", "it is an index")),
        }
    }
}

/// Images for several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Manifests, or further indexes.
    #[serde(deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// Anything else.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// Of these children, in OCI's form.
    pub fn new(manifests: Vec<Descriptor>) -> Index {
        let media_type = Some(media::INDEX.into());
        Index { schema_version: 2, media_type, manifests, annotations: BTreeMap::new() }
    }

    /// Parses and checks an index.
    ///
    /// # Errors
    /// It is too large, no index, or could be read as something else too.
    pub fn from_slice(bytes: &[u8]) -> Result<Index, ContentError> {
        match Document::from_slice(bytes)? {
            Document::Index(index) => Ok(index),
            Document::Manifest(_) => Err(ContentError::refused("the index", "it is a manifest")),
        }
    }
}

/// What a name or a digest in a registry can mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// For one platform.
    Manifest(Manifest),
    /// For several.
    Index(Index),
}

/// What tells the kinds apart, whatever else there is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<serde_json::Value>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Parses and checks what a registry or a layout gave.
    ///
    /// # Errors
    /// It is too large, neither of the two, or both.
    pub fn from_slice(bytes: &[u8]) -> Result<Document, ContentError> {
        let what = "the image's manifest";
        if bytes.len() as u64 > MAX_JSON {
            return Err(ContentError::TooLarge { what: what.into(), limit: MAX_JSON });
        }
        let json = |source| ContentError::Json { what: what.into(), source };
        let shape: Shape = serde_json::from_slice(bytes).map_err(json)?;
        let refused = |why: String| Err(ContentError::refused(what, why));
        let version = shape.schema_version.as_ref().and_then(serde_json::Value::as_u64);
        if shape.fs_layers.is_some() || version == Some(1) {
            return refused(
                "it is docker's schema 1, which cannot be verified; have it pushed again by a newer docker"
                    .into(),
            );
        }
        let kind = shape.media_type.as_deref();
        let as_index = shape.manifests.is_some();
        let as_manifest = shape.layers.is_some() || shape.config.is_some();
        match (as_index, as_manifest, kind) {
            (true, true, _) => {
                refused("it can be read as an index and as a manifest (CVE-2021-41190)".into())
            }
            (true, false, None) => index(bytes),
            (true, false, Some(kind)) if media::is_index(kind) => index(bytes),
            (false, true, None) => manifest(bytes),
            (false, true, Some(kind)) if media::is_manifest(kind) => manifest(bytes),
            (false, false, _) => refused("it has neither layers nor manifests".into()),
            (_, _, Some(kind)) => refused(format!(
                "it says that it is `{}`, and its contents say otherwise",
                kind.chars().take(100).flat_map(char::escape_debug).collect::<String>()
            )),
        }
    }

    /// The same, fetched under a media type: what a descriptor or a registry said must be what it is.
    ///
    /// # Errors
    /// As above, or it is another kind.
    pub fn from_slice_as(bytes: &[u8], media_type: &str) -> Result<Document, ContentError> {
        let document = Document::from_slice(bytes)?;
        let (fits, said) = match &document {
            Document::Manifest(manifest) => (media::is_manifest(media_type), &manifest.media_type),
            Document::Index(index) => (media::is_index(media_type), &index.media_type),
        };
        // Between OCI's word and docker's nothing is gained by lying, but neither is honest.
        if !fits || said.as_deref().is_some_and(|said| said != media_type) {
            let shown: String = media_type.chars().take(100).flat_map(char::escape_debug).collect();
            let why = format!("it came as `{shown}` and is something else (CVE-2021-41190)");
            return Err(ContentError::refused("the image's manifest", why));
        }
        Ok(document)
    }

    /// OCI's or docker's word for it.
    pub fn media_type(&self) -> &str {
        match self {
            Document::Manifest(manifest) => manifest.media_type.as_deref().unwrap_or(media::MANIFEST),
            Document::Index(index) => index.media_type.as_deref().unwrap_or(media::INDEX),
        }
    }

    /// The blobs that it names.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, rest) = match self {
            Document::Manifest(manifest) => (Some(&manifest.config), &manifest.layers),
            Document::Index(index) => (None, &index.manifests),
        };
        config.into_iter().chain(rest)
    }
}

fn index(bytes: &[u8]) -> Result<Document, ContentError> {
    let json = |source| ContentError::Json { what: "the image's index".into(), source };
    let index: Index = serde_json::from_slice(bytes).map_err(json)?;
    check("the image's index", index.schema_version, index.manifests.len())?;
    Ok(Document::Index(index))
}

fn manifest(bytes: &[u8]) -> Result<Document, ContentError> {
    let json = |source| ContentError::Json { what: "the image's manifest".into(), source };
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(json)?;
    check("the image's manifest", manifest.schema_version, manifest.layers.len())?;
    Ok(Document::Manifest(manifest))
}

fn check(what: &str, version: u32, children: usize) -> Result<(), ContentError> {
    if version != 2 {
        return Err(ContentError::refused(what, format!("its schemaVersion is {version}; hv reads 2")));
    }
    if children > MAX_CHILDREN {
        return Err(ContentError::refused(
            what,
            format!("it names {children} blobs; hv takes {MAX_CHILDREN}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHILD: &str = r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":3,
        "digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;

    fn refused(text: &str) -> String {
        Document::from_slice(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_document_of_two_kinds_is_refused() {
        let both = format!(r#"{{"schemaVersion":2,"config":{CHILD},"layers":[],"manifests":[{CHILD}]}}"#);
        assert!(refused(&both).contains("CVE-2021-41190"));
        let lying =
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","config":{CHILD},"layers":[]}}"#, media::INDEX);
        assert!(refused(&lying).contains("its contents say otherwise"));
        let honest = format!(r#"{{"schemaVersion":2,"config":{CHILD},"layers":[]}}"#);
        Document::from_slice_as(honest.as_bytes(), media::MANIFEST).unwrap();
        Document::from_slice_as(honest.as_bytes(), media::DOCKER_MANIFEST).unwrap();
        assert!(Document::from_slice_as(honest.as_bytes(), media::INDEX).is_err());
        assert!(Document::from_slice_as(honest.as_bytes(), "text/html").is_err());
    }

    #[test]
    fn old_large_and_odd_documents_are_refused_with_a_reason() {
        assert!(refused(r#"{"schemaVersion":1,"fsLayers":[]}"#).contains("schema 1"));
        assert!(refused("{}").contains("neither layers nor manifests"));
        assert!(refused(&" ".repeat(MAX_JSON as usize + 1)).contains("larger than 4194304"));
        assert!(refused(&"[".repeat(10_000)).contains("makes no sense"));
        let many = vec![CHILD; MAX_CHILDREN + 1].join(",");
        assert!(refused(&format!(r#"{{"schemaVersion":2,"manifests":[{many}]}}"#)).contains("4097 blobs"));
        let negative = CHILD.replace(":3,", ":-3,");
        assert!(refused(&format!(r#"{{"schemaVersion":2,"manifests":[{negative}]}}"#)).contains("no sense"));
    }

    #[test]
    fn attestations_are_known_by_either_sign() {
        let mut child: Descriptor = serde_json::from_str(CHILD).unwrap();
        assert!(!child.is_attestation());
        child.platform = Some("unknown/unknown".parse().unwrap());
        assert!(child.is_attestation());
        child.platform = None;
        child.annotations.insert(REFERENCE_TYPE.into(), "attestation-manifest".into());
        assert!(child.is_attestation());
    }

    proptest! {
        #[test]
        fn hostile_documents_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Document::from_slice(&bytes);
        }

        #[test]
        fn what_is_written_reads_back(sizes in prop::collection::vec(any::<u64>(), 1..5)) {
            let of = |size: u64| Descriptor::new(media::LAYER, Digest::of(&size.to_le_bytes()), size);
            let manifest = Manifest::new(of(1), sizes.iter().copied().map(of).collect());
            let bytes = serde_json::to_vec(&manifest).unwrap();
            prop_assert_eq!(Manifest::from_slice(&bytes).unwrap(), manifest);
        }
    }
}
