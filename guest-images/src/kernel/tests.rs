use std::fs::FileTimes;
use std::io::Write;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::bzimage::tests::bzimage;
use super::elf::tests::elf;
use super::*;
use crate::compression::Compression;
use crate::compression::tests::{TOOLS, pack};

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap() }
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        let mut file = File::create(&path).unwrap();
        file.write_all(bytes).unwrap();
        path
    }

    fn open(&self, path: &Path) -> Kernel {
        open(path, &self.cache()).unwrap()
    }

    fn refuse(&self, name: &str, bytes: &[u8]) -> String {
        open(&self.put(name, bytes), &self.cache()).unwrap_err().to_string()
    }
}

fn gzipped(data: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(data).unwrap();
    packer.finish().unwrap()
}

fn contents(kernel: &Kernel) -> Vec<u8> {
    let mut bytes = Vec::new();
    bzimage::stream(&kernel.elf, 0..u64::MAX).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn an_elf_is_used_as_it_is() {
    let bench = Bench::new();
    let image = elf(b"Linux version 6.1.5-own (me)");
    let kernel = bench.open(&bench.put("vmlinux", &image));
    assert_eq!(kernel.version.as_deref(), Some("6.1.5-own"));
    assert_eq!(contents(&kernel), image);
    assert_eq!(kernel.config().unwrap(), None);
    assert!(!bench.cache().join(cache::elf_name(&kernel.digest)).exists());
}

#[test]
fn every_compression_of_the_kernels_build_is_unpacked() {
    let bench = Bench::new();
    let inside = elf(&b"Linux version 6.1.5 (me) code ".repeat(5000));
    for (compression, tool) in TOOLS {
        let Some(mut payload) = pack(tool, &inside) else { continue };
        payload.extend_from_slice(&(inside.len() as u32).to_le_bytes());
        let path = bench.put(compression.name(), &bzimage(&payload, "6.1.5-header"));
        let kernel = bench.open(&path);
        assert_eq!(kernel.version.as_deref(), Some("6.1.5-header"));
        assert!(contents(&kernel) == inside, "{compression:?}");
        assert!(kernel.elf.write_at(b"x", 0).is_err(), "the cached kernel is open for writing");
    }
}

#[test]
fn the_second_start_unpacks_nothing_and_a_damaged_copy_is_made_again() {
    let bench = Bench::new();
    let mut packer = flate2::write::GzEncoder::new(b"IKCFG_ST".to_vec(), flate2::Compression::fast());
    packer.write_all(b"CONFIG_EROFS_FS=y\n").unwrap();
    let inside = elf(&packer.finish().unwrap());
    let path = bench.put("bzImage", &bzimage(&gzipped(&inside), "6.1.5"));
    let first = bench.open(&path);
    let cached = bench.cache().join(cache::elf_name(&first.digest));
    let made = Stamp::of(&File::open(&cached).unwrap()).unwrap();

    let second = bench.open(&path);
    assert_eq!(Stamp::of(&second.elf).unwrap(), made);
    assert_eq!(second.config().unwrap().as_deref(), Some("CONFIG_EROFS_FS=y\n"));

    // Same bytes, other times (a restored backup): kept.
    File::options()
        .write(true)
        .open(&cached)
        .unwrap()
        .set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH))
        .unwrap();
    assert_eq!(Stamp::of(&bench.open(&path).elf).unwrap().inode_for_tests(), made.inode_for_tests());

    // Same size, other bytes; shorter; gone; record damaged: made again.
    let middle = inside.len() as u64 - 3;
    File::options().write(true).open(&cached).unwrap().write_at(b"?", middle).unwrap();
    assert!(contents(&bench.open(&path)) == inside);
    File::options().write(true).open(&cached).unwrap().set_len(100).unwrap();
    assert!(contents(&bench.open(&path)) == inside);
    std::fs::remove_file(&cached).unwrap();
    assert!(contents(&bench.open(&path)) == inside);
    std::fs::write(bench.cache().join(format!("{}.json", first.digest)), b"{").unwrap();
    assert!(contents(&bench.open(&path)) == inside);
}

#[test]
fn a_settled_kernel_is_found_without_hashing_and_a_changed_one_is_not() {
    let bench = Bench::new();
    let path = bench.put("bzImage", &bzimage(&gzipped(&elf(b"one")), "6.1.5"));
    let cache_dir = bench.cache();
    let cache = Cache(&cache_dir);
    let stamp = Stamp::of(&File::open(&path).unwrap()).unwrap().changed_earlier(Duration::from_secs(60));
    cache.remember(&stamp, &"0".repeat(64)).unwrap();
    assert_eq!(cache.digest(&stamp), Some("0".repeat(64)));
    // The real file's ctime differs: the entry is not believed.
    assert!(contents(&bench.open(&path)) == elf(b"one"));
    bench.put("bzImage", &bzimage(&gzipped(&elf(b"two")), "6.1.5"));
    assert!(contents(&bench.open(&path)) == elf(b"two"));
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    let bench = Bench::new();
    let path = bench.put("bzImage", &bzimage(&gzipped(&elf(b"code")), "6.1.5"));
    bench.put("cache", b"a file where the directory should be");
    assert!(contents(&bench.open(&path)) == elf(b"code"));
}

#[test]
fn what_is_not_a_kernel_is_named() {
    let bench = Bench::new();
    let good = bzimage(&gzipped(&elf(b"code")), "6.1.5");
    assert!(bench.refuse("short", &good[..good.len() - 1]).contains("truncated"));
    assert!(bench.refuse("text", b"hello").contains("not a kernel"));
    assert!(bench.refuse("empty", b"").contains("empty"));
    let mut i386 = elf(b"code");
    i386[4] = 1;
    assert!(bench.refuse("i386", &i386).contains("32-bit"));
    assert!(bench.refuse("inner", &bzimage(&gzipped(&i386), "6")).contains("32-bit"));
    let mut arm = vec![0; 64];
    arm[56..60].copy_from_slice(b"ARM\x64");
    assert!(bench.refuse("Image", &arm).contains("ARM64"));
    assert!(bench.refuse("uki", b"MZ is a PE").contains("PE program"));
    assert!(bench.refuse("lzo", &bzimage(b"\x89LZO\0\r\n", "6")).contains("gzip, xz"));
    assert!(bench.refuse("gz", &gzipped(b"x")).contains("unpack it first"));
    assert!(open(bench.dir.path(), &bench.cache()).unwrap_err().to_string().contains("regular file"));
    assert!(open(&bench.dir.path().join("none"), &bench.cache()).is_err());
}

#[test]
fn bug_20_a_kernel_that_unpacks_to_more_than_it_announces_is_refused() {
    let bench = Bench::new();
    let mut bomb = bzimage(&gzipped(&elf(&vec![0; 100_000])), "6.1.5");
    bomb[0x260..0x264].copy_from_slice(&4096u32.to_le_bytes());
    assert!(bench.refuse("bomb", &bomb).contains("more than the 4096 bytes"));
    assert!(!bench.cache().exists() || std::fs::read_dir(bench.cache()).unwrap().count() == 0);
}

#[test]
fn two_starts_at_once_do_not_disturb_each_other() {
    let bench = Bench::new();
    let inside = elf(&b"code".repeat(100_000));
    let path = bench.put("bzImage", &bzimage(&gzipped(&inside), "6.1.5"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(contents(&bench.open(&path)) == inside));
        }
    });
    assert!(contents(&bench.open(&path)) == inside);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn bug_20_damaged_kernels_are_survived(
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let bench = Bench::new();
        let mut image = bzimage(&gzipped(&elf(&b"Linux version 6.1.5 (me)".repeat(50))), "6.1.5");
        for (place, byte) in hits {
            let place = place.index(image.len());
            image[place] = byte;
        }
        if !whole {
            image.truncate(cut.index(image.len()) + 1);
        }
        let _ = open(&bench.put("bzImage", &image), &bench.cache());
    }
}

#[test]
fn compressions_have_names() {
    assert_eq!(Compression::of(b"\x1f\x8b\x08"), Some(Compression::Gzip));
    assert_eq!(Compression::Lzo.name(), "lzo");
}
