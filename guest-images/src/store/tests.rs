use std::os::unix::fs::symlink;

use super::*;
use crate::kernel::elf::tests::elf;

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let store = Store {
            own: at("own"),
            system: Some(at("system")),
            built: vec![at("built")],
            unpacked: at("unpacked"),
        };
        Bench { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn kernel(&self, release: &str) -> PathBuf {
        let path = self.path("vmlinux-given");
        fs::write(&path, elf(format!("Linux version {release} (me)").as_bytes())).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        self.store.list().unwrap().into_iter().map(|kernel| kernel.name).collect()
    }
}

#[test]
fn an_added_kernel_is_kept_with_its_modules() {
    let bench = Bench::new();
    let modules = bench.path("modules");
    fs::create_dir_all(modules.join("kernel/fs")).unwrap();
    fs::write(modules.join("modules.order"), b"kernel/fs/a.ko\n").unwrap();
    fs::write(modules.join("kernel/fs/a.ko"), b"a").unwrap();
    fs::write(modules.join("kernel/fs/notes"), b"a").unwrap();
    symlink("/usr/src", modules.join("build")).unwrap();
    let path = bench.kernel("6.1.7-own");
    fs::write(bench.path("config-6.1.7-own"), b"CONFIG_MODULES=y\n").unwrap();
    let added = bench.store.add(&path, Some(&modules), None).unwrap();
    assert_eq!(
        (added.name.as_str(), added.release.as_deref(), added.own),
        ("6.1.7-own", Some("6.1.7-own"), true)
    );
    assert_eq!(fs::read(&added.path).unwrap(), fs::read(&path).unwrap());
    let kept = bench.path("own/6.1.7-own/lib/modules/6.1.7-own");
    assert!(kept.join("kernel/fs/a.ko").is_file() && kept.join("modules.order").is_file());
    assert!(!kept.join("build").exists() && !kept.join("kernel/fs/notes").exists());
    assert!(bench.path("own/6.1.7-own/config-6.1.7-own").is_file());
}

#[test]
fn the_default_is_the_last_unless_one_is_set() {
    let bench = Bench::new();
    assert_eq!(bench.store.default().unwrap(), None);
    let path = bench.kernel("6.1.7");
    bench.store.add(&path, None, Some("first")).unwrap();
    bench.store.add(&path, None, Some("second")).unwrap();
    assert_eq!(bench.store.default().unwrap().unwrap().name, "second");
    bench.store.set_default("first").unwrap();
    assert_eq!(bench.store.default().unwrap().unwrap().name, "first");
    assert_eq!(bench.names(), ["first", "second"]);
    bench.store.remove("first").unwrap();
    assert_eq!(bench.store.default().unwrap().unwrap().name, "second");
    assert!(matches!(bench.store.set_default("first"), Err(StoreError::Unknown { .. })));
}

#[test]
fn a_kernel_of_the_same_name_is_replaced_whole_or_not_at_all() {
    let bench = Bench::new();
    bench.store.add(&bench.kernel("6.1.7"), None, Some("k")).unwrap();
    bench.store.add(&bench.kernel("6.1.8"), None, Some("k")).unwrap();
    assert_eq!(bench.store.get("k").unwrap().release.as_deref(), Some("6.1.8"));
    let gone = bench.path("gone");
    assert!(bench.store.add(&bench.kernel("6.1.9"), Some(&gone), Some("k")).is_err());
    assert_eq!(bench.store.get("k").unwrap().release.as_deref(), Some("6.1.8"));
    assert!(bench.store.add(&bench.path("own"), None, Some("k")).is_err());
    let mut left: Vec<_> =
        fs::read_dir(bench.path("own")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [LOCK, "k"], "nothing half-made is left");
}

#[test]
fn what_a_crash_left_is_not_listed_and_is_removed() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("own/.new-77/lib")).unwrap();
    fs::create_dir_all(bench.path("own/half")).unwrap();
    assert_eq!(bench.names(), [""; 0]);
    bench.store.add(&bench.kernel("6.1.7"), None, Some("k")).unwrap();
    assert!(!bench.path("own/.new-77").exists());
}

#[test]
fn the_systems_and_built_kernels_are_found_and_not_removed() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("built/tuned-1234")).unwrap();
    fs::copy(bench.kernel("6.1.7"), bench.path("built/tuned-1234/vmlinux")).unwrap();
    let system = Store {
        own: bench.path("system"),
        system: None,
        built: Vec::new(),
        unpacked: bench.path("unpacked"),
    };
    system.add(&bench.kernel("6.1.8"), None, Some("shared")).unwrap();
    assert_eq!(bench.names(), ["shared", "tuned-1234"]);
    assert!(matches!(bench.store.remove("shared"), Err(StoreError::NotOwn { .. })));
    bench.store.set_default("tuned-1234").unwrap();
    assert_eq!(bench.store.default().unwrap().unwrap().name, "tuned-1234");
    bench.store.add(&bench.kernel("6.1.9"), None, Some("shared")).unwrap();
    assert_eq!(bench.store.get("shared").unwrap().release.as_deref(), Some("6.1.9"), "one's own comes first");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let bench = Bench::new();
    for bad in ["../x", "", ".hidden", "a/b"] {
        let refused = bench.store.add(&bench.kernel("6.1.7"), None, Some(bad));
        assert!(matches!(refused, Err(StoreError::BadName { .. })), "{bad}");
    }
}
