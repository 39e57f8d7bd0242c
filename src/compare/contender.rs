//! Who is launched: one of hv's own kinds, or another runtime as a guest of the same harness.

use std::fmt;

use hv_common::Kind;
use serde::{Deserialize, Serialize};

/// Longest name of a runtime.
const NAME_LIMIT: usize = 32;

/// What a block launches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Contender {
    /// `hv process`, `hv ctr`, `hv vm`.
    Own(Kind),
    /// Another runtime, by its program's name.
    Peer(String),
}

impl Contender {
    /// Its name in tables and files.
    pub fn word(&self) -> &str {
        match self {
            Contender::Own(kind) => kind.word(),
            Contender::Peer(name) => name,
        }
    }

    /// The kind, when it is hv's own.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Contender::Own(kind) => Some(*kind),
            Contender::Peer(_) => None,
        }
    }
}

impl From<Kind> for Contender {
    fn from(kind: Kind) -> Contender {
        Contender::Own(kind)
    }
}

impl TryFrom<String> for Contender {
    type Error = String;

    fn try_from(word: String) -> Result<Contender, String> {
        if let Some(kind) = [Kind::Process, Kind::Ctr, Kind::Vm].into_iter().find(|kind| kind.word() == word)
        {
            return Ok(Contender::Own(kind));
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if word.is_empty() || word.len() > NAME_LIMIT || !word.bytes().all(plain) {
            return Err("the name of a runtime has 1 to 32 lower-case letters, digits and dashes".into());
        }
        Ok(Contender::Peer(word))
    }
}

impl From<Contender> for String {
    fn from(contender: Contender) -> String {
        contender.word().to_owned()
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for word in ["process", "ctr", "vm", "crun", "cloud-hypervisor"] {
            assert_eq!(Contender::try_from(word.to_owned()).unwrap().word(), word);
        }
        assert_eq!(Contender::try_from("vm".to_owned()).unwrap().kind(), Some(Kind::Vm));
        for word in ["", "../x", "<script>", "A", &"a".repeat(33)] {
            assert!(Contender::try_from(word.to_owned()).is_err(), "{word}");
        }
    }
}
