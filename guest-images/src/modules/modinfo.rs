//! The `.modinfo` section of a kernel module: `key=value`, each ended by a zero byte.

/// What a module says about itself.
#[derive(Debug)]
pub(super) struct ModInfo<'a>(Vec<(&'a str, &'a str)>);

impl<'a> ModInfo<'a> {
    /// None: not a 64-bit little-endian ELF object with such a section.
    pub(super) fn parse(module: &'a [u8]) -> Option<ModInfo<'a>> {
        let section = section(module, b".modinfo")?;
        let pairs = section
            .split(|byte| *byte == 0)
            .filter_map(|line| std::str::from_utf8(line).ok()?.split_once('='));
        Some(ModInfo(pairs.collect()))
    }

    fn values(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| *name == key).map(|(_, value)| *value)
    }

    /// Modules whose symbols it uses.
    pub(super) fn depends(&self) -> impl Iterator<Item = &'a str> {
        self.values("depends").flat_map(|names| names.split(',')).filter(|name| !name.is_empty())
    }

    /// Modules that it wants loaded before it, if there are such: `softdep=pre: a b post: c`.
    pub(super) fn loaded_before(&self) -> impl Iterator<Item = &'a str> {
        let mut before = false;
        self.values("softdep").flat_map(str::split_ascii_whitespace).filter(move |word| match *word {
            "pre:" => {
                before = true;
                false
            }
            "post:" | "platform:" => {
                before = false;
                false
            }
            _ => before,
        })
    }

    /// The release of the kernel that it was built for.
    pub(super) fn release(&self) -> Option<&'a str> {
        self.values("vermagic").next()?.split(' ').next()
    }
}

/// The contents of the first section of this name (System V ABI, chapter 4).
fn section<'a>(module: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    if !module.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = module.get(usize::try_from(u64_at(module, 0x28)?).ok()?..)?;
    let (size, count, names) = (u16_at(module, 0x3a)?, u16_at(module, 0x3c)?, u16_at(module, 0x3e)?);
    if size < 64 {
        return None;
    }
    let header = |index: usize| table.get(index.checked_mul(size)?..)?.get(..64);
    let contents = |header: &[u8]| {
        let start = usize::try_from(u64_at(header, 0x18)?).ok()?;
        let length = usize::try_from(u64_at(header, 0x20)?).ok()?;
        module.get(start..start.checked_add(length)?)
    };
    let names = contents(header(names)?)?;
    let is_wanted = |header: &&[u8]| {
        let name = u32_at(header, 0).and_then(|at| names.get(at as usize..));
        name.is_some_and(|name| name.strip_prefix(wanted).is_some_and(|rest| rest.first() == Some(&0)))
    };
    contents((0..count).map_while(header).find(is_wanted)?)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A module with this `.modinfo` section.
    pub(crate) fn module(info: &str) -> Vec<u8> {
        const NAMES: &[u8] = b"\0.modinfo\0.shstrtab\0";
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(64, 0);
        let info_at = bytes.len();
        bytes.extend_from_slice(info.as_bytes());
        let names_at = bytes.len();
        bytes.extend_from_slice(NAMES);
        let table_at = bytes.len();
        for (name, at, length) in [(0, 0, 0), (1, info_at, info.len()), (10, names_at, NAMES.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&u32::to_le_bytes(name));
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
            bytes.extend_from_slice(&header);
        }
        bytes[0x28..0x30].copy_from_slice(&(table_at as u64).to_le_bytes());
        bytes[0x3a..0x40].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
        bytes
    }

    #[test]
    fn dependencies_and_release_are_read() {
        let module = module(
            "license=GPL\0softdep=pre: crc32c lz4 post: x\0depends=virtio,virtio_ring\0vermagic=6.1.0 SMP preempt \0",
        );
        let info = ModInfo::parse(&module).unwrap();
        assert_eq!(info.depends().collect::<Vec<_>>(), ["virtio", "virtio_ring"]);
        assert_eq!(info.loaded_before().collect::<Vec<_>>(), ["crc32c", "lz4"]);
        assert_eq!(info.release(), Some("6.1.0"));
        assert!(ModInfo::parse(b"\x7fELF\x02\x01").is_none());
    }

    proptest! {
        #[test]
        fn any_module_is_survived(
            hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..16),
        ) {
            let mut bytes = module("depends=a,b\0vermagic=6 \0");
            for (place, byte) in hits {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            if let Some(info) = ModInfo::parse(&bytes) {
                let _ = (info.depends().count(), info.loaded_before().count(), info.release());
            }
        }
    }
}
