//! What an unpacked kernel says about itself: its release, and its configuration if it was built with
//! CONFIG_IKCONFIG.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use memchr::memmem;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// From the banner `Linux version RELEASE (…)`, init/version.c.
    pub version: Option<String>,
    /// The configuration as text, kernel/configs.c.
    pub config: Option<String>,
}

const BANNER: &[u8] = b"Linux version ";
/// Marks the start of the gzipped configuration.
const CONFIG: &[u8] = b"IKCFG_ST";
const STEP: usize = 1 << 20;
/// Each step begins this far before the end of the last, so nothing is cut in two.
const OVERLAP: usize = 128;
/// Longer than any kernel's release (64) and any configuration (0.3 MiB).
const MAX_RELEASE: usize = 64;
const MAX_CONFIG: u64 = 4 << 20;

/// Searches the first `length` bytes of `file`, one step at a time.
pub(crate) fn scan(file: &File, length: u64) -> io::Result<Findings> {
    let mut found = Findings::default();
    let (banner, config) = (memmem::Finder::new(BANNER), memmem::Finder::new(CONFIG));
    let mut step = vec![0; STEP];
    let mut at = 0;
    while at < length {
        let wanted = usize::try_from(length - at).map_or(STEP, |left| left.min(STEP));
        file.read_exact_at(&mut step[..wanted], at)?;
        let bytes = &step[..wanted];
        if found.version.is_none() {
            found.version = banner.find_iter(bytes).find_map(|place| release(&bytes[place + BANNER.len()..]));
        }
        if found.config.is_none() {
            let starts = config.find_iter(bytes).map(|place| at + (place + CONFIG.len()) as u64);
            found.config = starts.filter_map(|start| unpack_config(file, start..length)).next();
        }
        if wanted < STEP || (found.version.is_some() && found.config.is_some()) {
            break;
        }
        at += (STEP - OVERLAP) as u64;
    }
    Ok(found)
}

/// A release starts with a digit; a space and the builder in parentheses follow it.
fn release(text: &[u8]) -> Option<String> {
    let end = text.iter().take(MAX_RELEASE + 1).position(|byte| *byte == b' ')?;
    let release = &text[..end];
    let fits = text[end..].starts_with(b" (")
        && release.first()?.is_ascii_digit()
        && release.iter().all(u8::is_ascii_graphic);
    fits.then(|| release.iter().map(|byte| char::from(*byte)).collect())
}

/// None where the mark is followed by something else than a gzipped configuration.
fn unpack_config(file: &File, range: std::ops::Range<u64>) -> Option<String> {
    let mut text = String::new();
    let packed = super::bzimage::stream(file, range);
    flate2::bufread::GzDecoder::new(packed).take(MAX_CONFIG).read_to_string(&mut text).ok()?;
    text.contains("CONFIG_").then_some(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn scanned(bytes: &[u8]) -> Findings {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        scan(&file, bytes.len() as u64).unwrap()
    }

    fn packed_config() -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(b"IKCFG_ST".to_vec(), flate2::Compression::fast());
        packed.write_all(b"CONFIG_OVERLAY_FS=m\n").unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn banner_and_configuration_are_found_wherever_they_lie() {
        for place in [0, 1000, STEP - OVERLAP - 5, STEP - 3, STEP + 1, 2 * STEP - 70] {
            let mut bytes = b"Linux version %s (%s) Linux version 6.1 of".repeat(2);
            bytes.resize(bytes.len() + place, 0);
            bytes.extend_from_slice(b"Linux version 6.1.0-9-amd64 (me@here)");
            bytes.extend_from_slice(b"IKCFG_ST is only a name here");
            bytes.extend(packed_config());
            let found = scanned(&bytes);
            assert_eq!(found.version.as_deref(), Some("6.1.0-9-amd64"), "{place}");
            assert_eq!(found.config.as_deref(), Some("CONFIG_OVERLAY_FS=m\n"), "{place}");
        }
    }

    #[test]
    fn nothing_is_made_up() {
        assert_eq!(scanned(b""), Findings::default());
        assert_eq!(scanned(b"Linux version 6"), Findings::default());
        assert_eq!(scanned(&[b"Linux version 6".as_slice(), &[b'6'; 100]].concat()), Findings::default());
    }

    proptest! {
        #[test]
        fn damaged_configurations_are_survived(
            hits in proptest::collection::vec((8usize..40, any::<u8>()), 0..6),
        ) {
            let mut bytes = packed_config();
            for (at, byte) in hits {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let _ = scanned(&bytes);
        }
    }
}
