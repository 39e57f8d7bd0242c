//! What can go wrong with registries.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::url::BadUrl;
use crate::content::{ContentError, Digest};
use crate::reference::BadName;

/// A registry cannot be used, or is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// What was typed is no name.
    #[error(transparent)]
    Name(#[from] BadName),
    /// Something that a registry, or what stands for one, asks hv to do and that hv does not do.
    #[error("{what} is refused: {why}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Why, and what to do.
        why: String,
    },
    /// An address that is none.
    #[error("cannot {doing}")]
    Address {
        /// The operation and its object.
        doing: String,
        /// What is wrong.
        source: BadUrl,
    },
    /// The connection failed, or what came is no HTTP.
    #[error("cannot {doing}")]
    Connection {
        /// The operation and its object.
        doing: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// Data that broke off.
    #[error("cannot {doing}")]
    Broken {
        /// The operation and its object.
        doing: String,
        /// Why.
        source: io::Error,
    },
    /// The registry says no.
    #[error("cannot {doing}: {} answers {status}{}", .at, said(.says))]
    Status {
        /// The operation and its object.
        doing: String,
        /// Host and port.
        at: String,
        /// HTTP's number.
        status: u16,
        /// The registry's own words, harmless and short.
        says: String,
        /// How long it wants to be left alone.
        after: Option<Duration>,
    },
    /// An answer without sense.
    #[error("cannot {doing}: {} {why}", .at)]
    Nonsense {
        /// The operation and its object.
        doing: String,
        /// Host and port.
        at: String,
        /// What is wrong with it.
        why: String,
    },
    /// The bytes are not those that were asked for, on every attempt.
    #[error("{at} gives bytes that are not {digest}: it is broken, or lies")]
    Other {
        /// Host and port.
        at: String,
        /// What was asked for.
        digest: Digest,
        /// What was found.
        #[source]
        found: Box<ContentError>,
    },
    /// No endpoint could do it; the mirrors' reasons come first.
    #[error("{}", .0.iter().map(|one| crate::registry::error::chain(one)).collect::<Vec<_>>().join("; "))]
    Everywhere(Vec<RegistryError>),
    /// The user's own files.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The user's own files make no sense.
    #[error("{} is not understood", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// Where.
        source: serde_json::Error,
    },
    /// A program that keeps credentials.
    #[error("credential helper {program} {why}")]
    Helper {
        /// Its name.
        program: String,
        /// What it did.
        why: String,
    },
    /// The store.
    #[error(transparent)]
    Content(#[from] ContentError),
}

impl RegistryError {
    /// Whether asking again may help.
    pub fn is_passing(&self) -> bool {
        match self {
            RegistryError::Connection { source, .. } => is_passing(source),
            RegistryError::Broken { .. } => true,
            RegistryError::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// How long the registry wants to be left alone.
    pub fn after(&self) -> Option<Duration> {
        match self {
            RegistryError::Status { after, .. } => *after,
            _ => None,
        }
    }

    /// The status of an answer that says no.
    pub fn status(&self) -> Option<u16> {
        match self {
            RegistryError::Status { status, .. } => Some(*status),
            RegistryError::Everywhere(all) => all.last().and_then(RegistryError::status),
            _ => None,
        }
    }
}

fn is_passing(error: &ureq::Error) -> bool {
    match error {
        // What TLS says about a certificate stays true.
        ureq::Error::Io(error) => {
            let inner = error.get_ref().map(|inner| inner.to_string()).unwrap_or_default();
            !inner.contains("certificate")
        }
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => true,
        ureq::Error::BodyStalled => true,
        _ => false,
    }
}

fn said(says: &str) -> String {
    if says.is_empty() { String::new() } else { format!(" ({says})") }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}
