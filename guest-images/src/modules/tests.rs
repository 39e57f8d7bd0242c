use std::fs;
use std::os::unix::fs::symlink;

use super::modinfo::tests::module;
use super::*;
use crate::compression::tests::{TOOLS, pack};
use crate::kernel;

const RELEASE: &str = "6.1.0-9-test";

/// A kernel of [`RELEASE`] at `boot/vmlinuz-RELEASE`, as a distribution installs it.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(bench.path("boot")).unwrap();
        fs::create_dir_all(bench.path("empty")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn modules(&self) -> PathBuf {
        self.path("lib/modules").join(RELEASE)
    }

    fn put(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.modules().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn kernel(&self) -> Kernel {
        let path = self.path("boot/vmlinuz");
        let banner = format!("Linux version {RELEASE} (me)");
        fs::write(&path, crate::kernel::elf::tests::elf(banner.as_bytes())).unwrap();
        kernel::open(&path, &self.path("cache")).unwrap()
    }

    fn image(&self, name: &str) -> Root {
        crate::open(&self.path(name), false).unwrap()
    }

    fn needed(&self, features: &[Feature]) -> Result<Vec<String>, String> {
        let modules =
            needed(&self.kernel(), features, None, &self.image("empty")).map_err(|e| e.to_string())?;
        Ok(modules.into_iter().map(|module| module.name).collect())
    }
}

fn info(depends: &str) -> Vec<u8> {
    module(&format!("depends={depends}\0vermagic={RELEASE} SMP \0"))
}

/// What Debian's cloud kernel has, reduced.
fn distribution(bench: &Bench) {
    bench.put("modules.builtin", "kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c_generic.ko\n");
    let lists =
        ["virtio/virtio", "virtio/virtio_ring", "virtio/virtio_mmio", "block/virtio_blk", "char/virtio-rng"];
    bench.put("modules.order", lists.map(|name| format!("kernel/{name}.ko\n")).concat());
    bench.put("kernel/virtio/virtio.ko", info(""));
    bench.put("kernel/virtio/virtio_ring.ko", info("virtio"));
    bench.put("kernel/virtio/virtio_mmio.ko", info("virtio,virtio_ring"));
    bench.put("kernel/block/virtio_blk.ko", info("virtio_ring"));
    let soft = format!("softdep=pre: crc32c absent\0depends=virtio\0vermagic={RELEASE} \0");
    bench.put("kernel/char/virtio-rng.ko", module(&soft));
}

#[test]
fn dependencies_come_first_and_what_is_built_in_not_at_all() {
    let bench = Bench::new();
    distribution(&bench);
    let names = bench.needed(&[Feature::MMIO, BLOCK, RANDOM, EXT4]).unwrap();
    assert_eq!(names, ["virtio", "virtio_ring", "virtio_mmio", "virtio_blk", "virtio_rng"]);
}

#[test]
fn what_the_kernel_lacks_is_named() {
    let bench = Bench::new();
    distribution(&bench);
    let error = bench.needed(&[Feature::MMIO, EROFS]).unwrap_err();
    assert!(error.contains("lacks CONFIG_EROFS_FS, which mounts the image"), "{error}");
}

#[test]
fn a_kernel_that_says_nothing_is_taken_to_have_everything() {
    let bench = Bench::new();
    assert_eq!(bench.needed(&Feature::needed(Feature::MMIO, Format::Erofs, false)).unwrap(), [""; 0]);
}

#[test]
fn a_configuration_beside_the_kernel_is_believed() {
    let bench = Bench::new();
    let config = bench.path("boot").join(format!("config-{RELEASE}"));
    let always: String = BUILT_IN.map(|(option, _)| format!("CONFIG_{option}=y\n")).concat();
    fs::write(&config, always + "# CONFIG_MODULES is not set\nCONFIG_VIRTIO_MMIO=y\nCONFIG_EROFS_FS=m\n")
        .unwrap();
    assert_eq!(bench.needed(&[Feature::MMIO]).unwrap(), [""; 0]);
    assert!(bench.needed(&[BLOCK]).unwrap_err().contains("lacks CONFIG_VIRTIO_BLK"));
    let error = bench.needed(&[Feature::MMIO, EROFS]).unwrap_err();
    assert!(error.contains("CONFIG_EROFS_FS as a module") && error.contains(RELEASE), "{error}");
    assert_eq!(bench.needed(&[RANDOM]).unwrap(), [""; 0], "random numbers are only better to have");
    fs::write(&config, "CONFIG_MODULES=y\nCONFIG_VIRTIO_MMIO=y\n").unwrap();
    assert!(
        bench
            .needed(&[Feature::MMIO])
            .unwrap_err()
            .contains("lacks CONFIG_BLK_DEV_INITRD, which unpacks the initramfs")
    );
}

#[test]
fn another_kernels_modules_are_refused() {
    let bench = Bench::new();
    bench.put("kernel/virtio_mmio.ko", module("depends=\0vermagic=5.10.0-old SMP \0"));
    let error = bench.needed(&[Feature::MMIO]).unwrap_err();
    assert!(error.contains("for kernel 5.10.0-old, not for 6.1.0-9-test"), "{error}");
}

#[test]
fn compressed_modules_are_unpacked() {
    for (tool, suffix) in [("xz", "xz"), ("zstd", "zst"), ("gzip", "gz")] {
        let tool = TOOLS.iter().map(|(_, tool)| tool).find(|words| words[0] == tool).unwrap();
        let Some(packed) = pack(tool, &info("")) else { continue };
        let bench = Bench::new();
        bench.put(&format!("kernel/virtio_mmio.ko.{suffix}"), packed);
        let modules = needed(&bench.kernel(), &[Feature::MMIO], None, &bench.image("empty")).unwrap();
        assert_eq!(modules, [Module { name: "virtio_mmio".into(), bytes: info("") }]);
    }
}

#[test]
fn the_users_directory_is_the_only_one_looked_at() {
    let bench = Bench::new();
    distribution(&bench);
    let load = |dir: &Path| needed(&bench.kernel(), &[Feature::MMIO], Some(dir), &bench.image("empty"));
    for dir in [bench.modules(), bench.path("lib/modules"), bench.path("")] {
        assert_eq!(load(&dir).unwrap().len(), 3, "{}", dir.display());
    }
    assert!(matches!(load(&bench.path("empty")), Err(ModulesError::NotADirectory { .. })));
}

#[test]
fn an_image_directory_may_have_them_and_cannot_lead_out_of_itself() {
    let bench = Bench::new();
    distribution(&bench);
    fs::create_dir_all(bench.path("image/usr")).unwrap();
    fs::rename(bench.path("lib"), bench.path("image/usr/lib")).unwrap();
    symlink("/usr/lib", bench.path("image/lib")).unwrap();
    let modules = |name| needed(&bench.kernel(), &[Feature::MMIO], None, &bench.image(name));
    assert_eq!(modules("image").unwrap().len(), 3, "an absolute link is one inside the image");

    let order = bench.path("image/usr/lib/modules").join(RELEASE).join("modules.order");
    fs::write(order, "../../../../../outside.ko\n../../../../../virtio_mmio.ko\n").unwrap();
    fs::write(bench.path("virtio_mmio.ko"), info("")).unwrap();
    assert!(matches!(modules("image"), Err(ModulesError::Module { .. })));
}

#[test]
fn hostile_modules_are_errors() {
    let bench = Bench::new();
    bench.put("kernel/virtio_mmio.ko", info("virtio_mmio,virtio"));
    bench.put("kernel/virtio.ko", info("virtio_mmio"));
    assert_eq!(bench.needed(&[Feature::MMIO]).unwrap(), ["virtio", "virtio_mmio"], "a circle ends");
    bench.put("kernel/virtio.ko", info("gone"));
    assert!(bench.needed(&[Feature::MMIO]).unwrap_err().contains("module gone"));
    bench.put("kernel/virtio.ko", "text");
    assert!(bench.needed(&[Feature::MMIO]).unwrap_err().contains("module virtio"));
    for number in 0..200 {
        bench.put(&format!("kernel/m{number}.ko"), info(&format!("m{}", number + 1)));
    }
    bench.put("kernel/virtio.ko", info("m0"));
    assert!(bench.needed(&[Feature::MMIO]).is_err(), "endless dependencies");
}
