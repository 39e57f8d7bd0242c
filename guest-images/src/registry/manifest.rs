//! Manifests and indexes.

use super::client::Client;
use super::http::Call;
use super::{RegistryError, patience, to_pull};
use crate::content::spec::MAX_JSON;
use crate::content::{ContentError, Descriptor, Digest, Document, media};

/// A document as it came, and what it says.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its digest, its size, and the media type under which it came.
    pub descriptor: Descriptor,
    /// The bytes: a digest is of these, not of what they mean.
    pub bytes: Vec<u8>,
    /// What they say.
    pub document: Document,
}

/// What is to come.
#[derive(Debug, Clone)]
pub enum Wanted<'a> {
    /// Whatever has this tag now.
    Tag(&'a str),
    /// The bytes of this digest.
    Digest(&'a Digest),
    /// The child of an index: of this digest, size and media type.
    Child(&'a Descriptor),
}

impl Wanted<'_> {
    fn word(&self) -> String {
        match self {
            Wanted::Tag(tag) => (*tag).into(),
            Wanted::Digest(digest) => digest.to_string(),
            Wanted::Child(child) => child.digest.to_string(),
        }
    }

    fn digest(&self) -> Option<&Digest> {
        match self {
            Wanted::Tag(_) => None,
            Wanted::Digest(digest) => Some(digest),
            Wanted::Child(child) => Some(&child.digest),
        }
    }
}

/// Gets a manifest or an index.
///
/// # Errors
/// The registry does not have it, or gives something else.
pub fn fetch(client: &Client, repository: &str, wanted: &Wanted<'_>) -> Result<Fetched, RegistryError> {
    patience::insist(client.settings().retries, || once(client, repository, wanted))
}

fn once(client: &Client, repository: &str, wanted: &Wanted<'_>) -> Result<Fetched, RegistryError> {
    let word = wanted.word();
    let doing = format!("get {repository}{}{word}", if word.contains(':') { "@" } else { ":" });
    let url = client.url().at(&format!("/v2/{repository}/manifests/{word}"));
    let accept = [media::INDEX, media::DOCKER_LIST, media::MANIFEST, media::DOCKER_MANIFEST].join(", ");
    let call = Call::get(&doing, url).header("accept", accept);
    let answer = client.expect(&call, &to_pull(repository), &[200])?;
    let at = answer.url.authority().to_owned();
    let kind =
        answer.header("content-type").map(|kind| kind.split(';').next().unwrap_or(kind).trim().to_owned());
    let said = answer.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
    let bytes = answer.document(&doing, MAX_JSON)?;
    let found = Digest::of(&bytes);
    let other = |source| RegistryError::Other { at: at.clone(), digest: found, found: Box::new(source) };
    if let Some(expected) = wanted.digest().filter(|expected| **expected != found) {
        let differs = ContentError::Digest { expected: *expected, found };
        return Err(RegistryError::Other { at, digest: *expected, found: Box::new(differs) });
    }
    if let Some(expected) = said.filter(|said| *said != found && wanted.digest().is_none()) {
        return Err(RegistryError::Other {
            at: at.clone(),
            digest: expected,
            found: Box::new(ContentError::Digest { expected, found }),
        });
    }
    if let Wanted::Child(child) = wanted
        && child.size != bytes.len() as u64
    {
        let (digest, expected) = (child.digest, child.size);
        return Err(other(ContentError::Size { digest, expected, found: Some(bytes.len() as u64) }));
    }
    let document = match (&kind, wanted) {
        (Some(kind), Wanted::Child(child)) if *kind != child.media_type => {
            let why = format!("its index says `{}`, and it comes as `{kind}`", child.media_type);
            return Err(RegistryError::Nonsense { doing, at, why });
        }
        (Some(kind), _) => Document::from_slice_as(&bytes, kind)?,
        (None, _) => Document::from_slice(&bytes)?,
    };
    let kind = kind.unwrap_or_else(|| document.media_type().to_owned());
    let descriptor = Descriptor::new(kind, found, bytes.len() as u64);
    Ok(Fetched { descriptor, bytes, document })
}
