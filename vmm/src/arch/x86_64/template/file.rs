//! A CPU template from a JSON file (docs/cpu-templates.md). The file is the user's and may be wrong: it is read
//! strictly and in bounds, and every refusal says where.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Change, Custom, Msr, Place, Register};

/// The longest file, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// The most changes, and the most model-specific registers.
const MAX_CHANGES: usize = 256;
const MAX_MSRS: usize = 64;

/// A file that is no CPU template.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the CPU template {}", path.display())]
pub struct Error {
    path: PathBuf,
    #[source]
    source: Reason,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("cannot read it")]
    Read(#[source] io::Error),
    #[error("it is longer than {MAX_FILE} bytes")]
    Long,
    #[error("it is not as docs/cpu-templates.md describes it")]
    Json(#[source] serde_json::Error),
    #[error("{0}")]
    Content(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    #[serde(default)]
    base: Base,
    #[serde(default)]
    cpuid: Vec<Line>,
    #[serde(default)]
    msrs: Vec<Value>,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Base {
    #[default]
    Host,
    Portable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    leaf: Hex,
    #[serde(default)]
    index: Option<Hex>,
    register: Register,
    #[serde(default)]
    keep: Option<Hex>,
    #[serde(default)]
    set: Option<Hex>,
    #[serde(default)]
    require: Option<Hex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    index: Hex,
    value: Hex,
}

/// `"0x1f"`: JSON has no hexadecimal numbers, and these are never written otherwise.
struct Hex(u64);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Hex, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.map(Hex).ok_or_else(|| {
            serde::de::Error::custom(format!("`{}` is no number of the form \"0x1f\"", text.escape_default()))
        })
    }
}

/// Reads a template.
///
/// # Errors
/// It cannot be read, or is not one.
pub fn read(path: &Path) -> Result<Custom, Error> {
    let read = || {
        let file = File::open(path).map_err(Reason::Read)?;
        let mut text = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(Reason::Read)?;
        if text.len() as u64 > MAX_FILE { Err(Reason::Long) } else { parse(&text) }
    };
    read().map_err(|source| Error { path: path.to_owned(), source })
}

fn parse(text: &[u8]) -> Result<Custom, Reason> {
    let Template { base, cpuid, msrs } = serde_json::from_slice(text).map_err(Reason::Json)?;
    if cpuid.len() > MAX_CHANGES || msrs.len() > MAX_MSRS {
        let why =
            format!("it has more than {MAX_CHANGES} changes of CPUID or more than {MAX_MSRS} registers");
        return Err(Reason::Content(why));
    }
    let cpuid = cpuid.into_iter().map(change).collect::<Result<Vec<_>, _>>()?;
    let msrs = msrs
        .into_iter()
        .map(|Value { index, value }| Ok(Msr { index: word(&index, "index of a register")?, value: value.0 }))
        .collect::<Result<Vec<_>, _>>()?;
    let mut places = BTreeSet::new();
    if let Some(twice) = cpuid.iter().find(|change| !places.insert(change.place)) {
        return Err(Reason::Content(format!("it changes CPUID {} twice", twice.place)));
    }
    let mut indices = BTreeSet::new();
    if let Some(twice) = msrs.iter().find(|msr| !indices.insert(msr.index)) {
        return Err(Reason::Content(format!("it sets the register {:#x} twice", twice.index)));
    }
    Ok(Custom { portable: base == Base::Portable, cpuid, msrs })
}

fn change(line: Line) -> Result<Change, Reason> {
    let optional = |hex: &Option<Hex>, what, absent| hex.as_ref().map_or(Ok(absent), |hex| word(hex, what));
    let index = optional(&line.index, "index", 0)?;
    let place = Place { leaf: word(&line.leaf, "leaf")?, index, register: line.register };
    let change = Change {
        place,
        keep: optional(&line.keep, "keep", u32::MAX)?,
        set: optional(&line.set, "set", 0)?,
        require: optional(&line.require, "require", 0)?,
    };
    if (change.keep, change.set, change.require) == (u32::MAX, 0, 0) {
        return Err(Reason::Content(format!("it names CPUID {place} without keep, set or require")));
    }
    Ok(change)
}

fn word(hex: &Hex, what: &str) -> Result<u32, Reason> {
    u32::try_from(hex.0)
        .map_err(|_| Reason::Content(format!("the {what} {:#x} has more than 32 bits", hex.0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> String {
        let reason = parse(text.as_bytes()).unwrap_err();
        std::error::Error::source(&reason).map_or(reason.to_string(), ToString::to_string)
    }

    /// The example of docs/cpu-templates.md, so that it stays true.
    #[test]
    fn the_documents_example_is_one() {
        let page = include_str!("../../../../../docs/cpu-templates.md");
        let example = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let custom = parse(example.as_bytes()).unwrap();
        assert!(custom.portable);
        assert_eq!(custom.cpuid.len(), 2);
        assert_eq!(custom.cpuid[0].place, Place { leaf: 7, index: 0, register: Register::Ebx });
        assert_eq!((custom.cpuid[1].keep, custom.cpuid[1].require), (u32::MAX, 1 << 30));
        assert_eq!(custom.msrs, [Msr { index: 0x1a0, value: 1 }]);
    }

    #[test]
    fn what_is_not_as_described_is_refused_with_the_place() {
        let line = |rest: &str| format!(r#"{{"cpuid":[{{"leaf":"0x7","register":"ebx"{rest}}}]}}"#);
        assert!(refused("{").contains("line 1"));
        assert!(refused(r#"{"cpuidd":[]}"#).contains("cpuidd"));
        assert!(refused(&line(r#","keep":7"#)).contains("line 1"));
        assert!(refused(&line(r#","keep":"7""#)).contains("`7` is no number"));
        assert!(refused(&line(r#","keep":"0x+7""#)).contains("0x+7"));
        assert!(refused(&line(r#","keep":"0x1ffffffff""#)).contains("more than 32 bits"));
        assert!(refused(&line("")).contains("leaf 0x7, index 0, register ebx without"));
        assert!(refused(r#"{"cpuid":[{"leaf":"0x7","register":"rax","set":"0x1"}]}"#).contains("rax"));
        let twice = r#"{"leaf":"0x7","register":"ebx","set":"0x1"}"#;
        assert!(refused(&format!(r#"{{"cpuid":[{twice},{twice}]}}"#)).contains("twice"));
        let msr = r#"{"index":"0x10","value":"0x1"}"#;
        assert!(refused(&format!(r#"{{"msrs":[{msr},{msr}]}}"#)).contains("0x10 twice"));
        let many: Vec<String> =
            (0..=MAX_MSRS).map(|n| format!(r#"{{"index":"{n:#x}","value":"0x1"}}"#)).collect();
        assert!(refused(&format!(r#"{{"msrs":[{}]}}"#, many.join(","))).contains("more than"));
    }

    #[test]
    fn files_are_bounded_and_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, &vec![b' '; MAX_FILE as usize + 1]).unwrap();
        let error = read(file.path()).unwrap_err();
        assert!(error.to_string().contains(file.path().to_str().unwrap()));
        assert!(matches!(error.source, Reason::Long));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,300}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn any_line_is_survived(leaf in "0x[0-9a-f]{0,18}", register in "e[abcd]x", keep in "[0-9a-fx]{0,12}") {
            let text = format!(r#"{{"cpuid":[{{"leaf":"{leaf}","register":"{register}","keep":"{keep}"}}]}}"#);
            let _ = parse(text.as_bytes());
        }
    }
}
