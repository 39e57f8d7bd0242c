//! Sizes and shares as people type and read them.

use std::fmt;

/// A number of bytes, shown with the largest unit that leaves no more than one decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let text = match units.into_iter().find(|(_, unit)| self.0 >= *unit) {
            Some((name, unit)) if self.0.is_multiple_of(unit) => format!("{} {name}", self.0 / unit),
            Some((name, unit)) => format!("{:.1} {name}", self.0 as f64 / unit as f64),
            None if self.0 == 1 => "1 byte".into(),
            None => format!("{} bytes", self.0),
        };
        f.pad(&text)
    }
}

/// Reads `256M`, `1G`, `512MiB`, `100MB` (10⁶) or a plain number of bytes.
///
/// # Errors
/// A sentence for the user: what it should look like.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("`{text}` is not a size; write for example 256M, 1G, 512MiB or a number of bytes");
    let number: u64 = match number.parse() {
        Ok(number) => number,
        Err(_) if number.is_empty() => return Err(wrong()),
        Err(_) => return Err(format!("`{text}` is more than any host has")),
    };
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is more than any host has"))
}

/// Reads a number of processors with at most three decimals, in thousandths.
///
/// # Errors
/// A sentence for the user.
pub fn parse_cpus(text: &str) -> Result<u32, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wrong = || format!("`{text}` is not a number of processors; write for example 2 or 0.5");
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return Err(wrong());
    }
    let whole: u32 = whole.parse().map_err(|_| wrong())?;
    let part: u32 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1000).and_then(|millis| millis.checked_add(part)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bug_24_sizes_do_not_wrap() {
        for (text, bytes) in [
            ("256M", 256 << 20),
            ("1G", 1 << 30),
            ("512MiB", 512 << 20),
            ("100MB", 100_000_000),
            ("7", 7),
            ("0", 0),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "1X", "99999999999999999999", "18446744073709551615K"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_as_typed() {
        assert_eq!(Bytes(64 << 20).to_string(), "64 MiB");
        assert_eq!(Bytes((23 << 30) + (1 << 29)).to_string(), "23.5 GiB");
        assert_eq!(Bytes(1).to_string(), "1 byte");
    }

    #[test]
    fn shares_of_processors() {
        for (text, millis) in
            [("1", 1000), ("0.5", 500), ("1.25", 1250), ("0.001", 1), ("0", 0), ("300", 300_000)]
        {
            assert_eq!(parse_cpus(text), Ok(millis), "{text}");
        }
        for text in ["", ".5", "1.", "-1", "1.2345", "1e3", "9999999999"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }
}
