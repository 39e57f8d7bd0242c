//! What names a blob: the SHA-256 of its bytes.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// `sha256:` and 64 hexadecimal digits (OCI image specification, "Descriptor", Digests).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Text that is no digest that hv verifies.
#[derive(Debug, thiserror::Error)]
pub enum BadDigest {
    /// Another algorithm.
    #[error("digest algorithm `{0}` is not supported: hv verifies sha256")]
    Algorithm(String),
    /// Not a digest at all.
    #[error("`{0}` is not a digest: write sha256: and 64 hexadecimal digits")]
    Form(String),
}

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The digest of everything that is left in `source`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of_stream(mut source: impl Read) -> io::Result<Digest> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(Digest::finish(hash)),
                Ok(count) => hash.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The digest of what was hashed.
    pub fn finish(hash: Sha256) -> Digest {
        Digest(hash.finalize().into())
    }

    /// The 64 digits without the algorithm: a blob's file name.
    pub fn hex(&self) -> String {
        crate::hex(&self.0)
    }

    /// Twelve digits, for people.
    pub fn short(&self) -> String {
        crate::hex(&self.0[..6])
    }

    /// From 64 lower-case digits without the algorithm.
    pub fn from_hex(digits: &str) -> Option<Digest> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (to, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *to = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Digest(bytes))
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Digest, BadDigest> {
        let shown = |text: &str| text.chars().take(100).flat_map(char::escape_debug).collect();
        match text.split_once(':') {
            Some(("sha256", digits)) => Digest::from_hex(digits).ok_or_else(|| BadDigest::Form(shown(text))),
            Some((algorithm, _)) if is_algorithm(algorithm) => Err(BadDigest::Algorithm(shown(algorithm))),
            _ => Err(BadDigest::Form(shown(text))),
        }
    }
}

/// `sha512`, `blake3`, `multihash+base58` and the like.
fn is_algorithm(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'.' | b'_' | b'-'))
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;

    fn try_from(text: String) -> Result<Digest, BadDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
        assert_eq!(Digest::of_stream(&b""[..]).unwrap(), digest);
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
    }

    #[test]
    fn other_algorithms_are_refused_by_name_and_nonsense_as_such() {
        let refused = |text: &str| text.parse::<Digest>().unwrap_err().to_string();
        assert!(refused("sha512:00").contains("`sha512` is not supported"));
        let upper = format!("sha256:{}", "A".repeat(64));
        for bad in ["", "sha256", "sha256:", "sha256:00", "../../x:y", &upper, &"f".repeat(64)] {
            assert!(refused(bad).contains("is not a digest"), "{bad}");
        }
    }
}
