//! Which kernel modules a guest needs, in the order in which they have to be loaded.
//!
//! A distribution's kernel has what a guest needs as modules; a tuned one has it built in. Which it is
//! is told by the kernel's configuration (inside the kernel, or `config-RELEASE` beside it) or by the
//! list of built-in modules in its module directory; a kernel that says nothing is taken to have
//! everything built in.
//!
//! Dependencies are read from the modules themselves, so a directory that depmod(8) has never seen (a
//! package that was only unpacked) will do.

mod modinfo;
mod tree;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use hv_common::{Format, Root};

use crate::kernel::{Kernel, KernelError};
use modinfo::ModInfo;
use tree::Tree;

/// The most modules that a guest is given.
const MAX_MODULES: usize = 128;

/// One thing that a guest's kernel must be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// The module that does it, where it is one; `_` for `-`.
    pub module: &'static str,
    /// The kernel option that has it built, without `CONFIG_`.
    pub option: &'static str,
    /// What it is for.
    pub what: &'static str,
    /// Without it nothing works; else it is only better to have it.
    pub required: bool,
}

const fn feature(module: &'static str, option: &'static str, what: &'static str) -> Feature {
    Feature { module, option, what, required: true }
}

const fn wish(module: &'static str, option: &'static str, what: &'static str) -> Feature {
    Feature { module, option, what, required: false }
}

const BLOCK: Feature = feature("virtio_blk", "VIRTIO_BLK", "reads the guest's disk");
const VSOCK: Feature =
    feature("vmw_vsock_virtio_transport", "VIRTIO_VSOCKETS", "carries the workload's streams");
const RANDOM: Feature = wish("virtio_rng", "HW_RANDOM_VIRTIO", "gives the guest the host's random numbers");
const OVERLAY: Feature = feature("overlay", "OVERLAY_FS", "takes the writes to a read-only image");
const EXT4: Feature = feature("ext4", "EXT4_FS", "mounts the image");
const EROFS: Feature = feature("erofs", "EROFS_FS", "mounts the image");
const SQUASHFS: Feature = feature("squashfs", "SQUASHFS", "mounts the image");

/// What no module can add: option, and what it is for.
const BUILT_IN: [(&str, &str); 7] = [
    ("BLK_DEV_INITRD", "unpacks the initramfs"),
    ("BINFMT_ELF", "starts programs"),
    ("ACPI", "is told what devices there are"),
    ("PROC_FS", "gives the workload its /proc"),
    ("SYSFS", "gives the workload its /sys"),
    ("DEVTMPFS", "gives the workload its /dev"),
    ("TMPFS", "holds what the workload writes"),
];

impl Feature {
    /// Finds the devices of a machine whose transport is virtio-mmio.
    pub const MMIO: Feature = feature("virtio_mmio", "VIRTIO_MMIO", "finds the guest's devices");
    /// Finds the devices of a machine whose transport is virtio-pci.
    pub const PCI: Feature = feature(
        "virtio_pci",
        "VIRTIO_PCI",
        "finds the guest's devices on a PCI bus (`--transport mmio` needs none)",
    );
    /// Beside it, what a guest needs that has a network device.
    pub const NETWORK: Feature = feature("virtio_net", "VIRTIO_NET", "drives the guest's network device");

    /// Beside it, what a guest needs that has a virtio console.
    pub const CONSOLE: Feature =
        feature("virtio_console", "VIRTIO_CONSOLE", "drives the guest's virtio console");

    /// Beside it, what a guest needs that gives memory back.
    pub const BALLOON: Feature = feature("virtio_balloon", "VIRTIO_BALLOON", "gives memory back to the host");

    /// What a guest is the better for once its workload runs: its kernel says at once that it panics, and its
    /// power button is heard (by hv-init, as a key).
    pub const LATER: [Feature; 3] = [
        wish("pvpanic_mmio", "PVPANIC_MMIO", "tells the host of a panic"),
        wish("button", "ACPI_BUTTON", "hears the power button"),
        wish("evdev", "INPUT_EVDEV", "tells hv-init of the power button"),
    ];

    /// What a guest needs that finds its devices in this way, and whose root is of this format.
    pub fn needed(transport: Feature, format: Format, writable: bool) -> Vec<Feature> {
        let root = match format {
            Format::Ext4 => EXT4,
            Format::Erofs => EROFS,
            Format::Squashfs => SQUASHFS,
        };
        let mut needed = vec![transport, BLOCK, VSOCK, RANDOM, root];
        if !writable {
            needed.push(OVERLAY);
        }
        needed
    }
}

/// A module, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with `_` for `-`.
    pub name: String,
    /// The ELF object to hand to init_module(2).
    pub bytes: Vec<u8>,
}

/// A guest cannot be given the modules that it needs.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// The kernel was built without something.
    #[error(
        "kernel {} lacks CONFIG_{option}, which {what}: use a kernel that was built with it (`hv kernel install` gets one)",
        kernel.display()
    )]
    Missing {
        /// The kernel.
        kernel: PathBuf,
        /// Without `CONFIG_`.
        option: &'static str,
        /// What it is for.
        what: &'static str,
    },
    /// The kernel has something as a module, and its modules are nowhere.
    #[error(
        "kernel {} has CONFIG_{option} as a module, and its modules were not found: \
         pass its directory lib/modules/{release} with `--modules`", kernel.display()
    )]
    NoModules {
        /// The kernel.
        kernel: PathBuf,
        /// Without `CONFIG_`.
        option: &'static str,
        /// The kernel's release, or `RELEASE` where it is not known.
        release: String,
    },
    /// What the user named has no modules in it.
    #[error(
        "{} is not a module directory: it has no modules.dep, modules.order or kernel/ (nor lib/modules/{release}/)",
        dir.display()
    )]
    NotADirectory {
        /// What the user named.
        dir: PathBuf,
        /// The kernel's release, or `RELEASE` where it is not known.
        release: String,
    },
    /// The modules are another kernel's.
    #[error("module {module} in {} is for kernel {found}, not for {expected}", dir.display())]
    Mismatch {
        /// The module directory.
        dir: PathBuf,
        /// The module.
        module: String,
        /// The release that it was built for.
        found: String,
        /// The kernel's release.
        expected: String,
    },
    /// A module cannot be read, or is damaged.
    #[error("cannot read module {module} in {}", dir.display())]
    Module {
        /// The module directory.
        dir: PathBuf,
        /// The module.
        module: String,
        /// Why.
        source: io::Error,
    },
    /// The module directory cannot be read.
    #[error("cannot read module directory {}", dir.display())]
    Tree {
        /// The module directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel's configuration cannot be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// The modules that `kernel` needs for `features`, dependencies first. Empty where all is built in.
///
/// They are looked for in `dir` (a module directory, or one with `lib/modules/RELEASE` in it) and nowhere
/// else if the user gave one; else beside the kernel, in the host's own /lib/modules, and in `image` if it
/// is a directory.
///
/// # Errors
/// [`ModulesError`]; a missing kernel option is named.
pub fn needed(
    kernel: &Kernel,
    features: &[Feature],
    dir: Option<&Path>,
    image: &Root,
) -> Result<Vec<Module>, ModulesError> {
    let config = configuration(kernel)?;
    if let Some(config) = &config {
        check_built_in(kernel, config)?;
    }
    let mut modular = Vec::new();
    for feature in features {
        match config.as_deref().map(|config| setting(config, feature.option)) {
            Some(Setting::BuiltIn) => {}
            Some(Setting::Off) if feature.required => return Err(missing(kernel, feature)),
            Some(Setting::Off) => {}
            Some(Setting::Module) | None => modular.push(*feature),
        }
    }
    let Some(first) = modular.first() else { return Ok(Vec::new()) };
    match (find(kernel, dir, image)?, config) {
        (Some(tree), _) => Loader::new(&tree, kernel).load_all(&modular),
        (None, None) => Ok(Vec::new()),
        (None, Some(_)) => Err(ModulesError::NoModules {
            kernel: kernel.path.clone(),
            option: first.option,
            release: release(kernel).into(),
        }),
    }
}

fn check_built_in(kernel: &Kernel, config: &str) -> Result<(), ModulesError> {
    match BUILT_IN.into_iter().find(|(option, _)| setting(config, option) != Setting::BuiltIn) {
        Some((option, what)) => Err(ModulesError::Missing { kernel: kernel.path.clone(), option, what }),
        None => Ok(()),
    }
}

fn missing(kernel: &Kernel, feature: &Feature) -> ModulesError {
    ModulesError::Missing { kernel: kernel.path.clone(), option: feature.option, what: feature.what }
}

fn release(kernel: &Kernel) -> &str {
    kernel.version.as_deref().unwrap_or("RELEASE")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    BuiltIn,
    Module,
    Off,
}

fn setting(config: &str, option: &str) -> Setting {
    let value =
        config.lines().find_map(|line| line.strip_prefix("CONFIG_")?.strip_prefix(option)?.strip_prefix('='));
    match value {
        Some("y") => Setting::BuiltIn,
        Some("m") => Setting::Module,
        _ => Setting::Off,
    }
}

/// The kernel's own configuration, or the one that distributions put beside it.
fn configuration(kernel: &Kernel) -> Result<Option<String>, ModulesError> {
    if let Some(config) = kernel.config()? {
        return Ok(Some(config));
    }
    let Some(version) = &kernel.version else { return Ok(None) };
    let beside = resolved(&kernel.path).with_file_name(format!("config-{version}"));
    Ok(std::fs::read_to_string(beside).ok().filter(|config| config.contains("CONFIG_MODULES")))
}

/// Behind symbolic links: `/vmlinuz` leads to `/boot/vmlinuz-RELEASE`.
fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.into())
}

fn find(kernel: &Kernel, dir: Option<&Path>, image: &Root) -> Result<Option<Tree>, ModulesError> {
    if let Some(dir) = dir {
        let mut places = vec![dir.to_path_buf()];
        places.extend(kernel.version.iter().flat_map(|v| [dir.join(v), dir.join("lib/modules").join(v)]));
        let found = places.iter().find_map(|place| Tree::open(place).transpose());
        let none = ModulesError::NotADirectory { dir: dir.into(), release: release(kernel).into() };
        return found.unwrap_or(Err(none)).map(Some);
    }
    let Some(version) = &kernel.version else { return Ok(None) };
    if version.contains('/') || version.starts_with('.') {
        return Ok(None);
    }
    let path = resolved(&kernel.path);
    let beside = path.parent().unwrap_or(Path::new("/"));
    let mut places: Vec<PathBuf> =
        [beside.join("lib/modules"), beside.join("../lib/modules"), "/lib/modules".into()]
            .into_iter()
            .map(|base| base.join(version))
            .collect();
    places.push(beside.join("modules"));
    for place in places {
        if let Some(tree) = Tree::open(&place)? {
            return Ok(Some(tree));
        }
    }
    match image {
        Root::Directory { path, dir } => Tree::open_in(dir, path, &format!("lib/modules/{version}")),
        Root::Disk { .. } => Ok(None),
    }
}

/// Collects modules, dependencies first.
struct Loader<'a> {
    tree: &'a Tree,
    kernel: &'a Kernel,
    seen: BTreeSet<String>,
    modules: Vec<Module>,
}

impl<'a> Loader<'a> {
    fn new(tree: &'a Tree, kernel: &'a Kernel) -> Self {
        Loader { tree, kernel, seen: BTreeSet::new(), modules: Vec::new() }
    }

    fn load_all(mut self, features: &[Feature]) -> Result<Vec<Module>, ModulesError> {
        for feature in features {
            if self.tree.has(feature.module) {
                self.load(feature.module)?;
            } else if feature.required {
                return Err(missing(self.kernel, feature));
            }
        }
        Ok(self.modules)
    }

    /// Adds the module of this name behind what it depends on. Depth is bounded by `seen`.
    fn load(&mut self, name: &str) -> Result<(), ModulesError> {
        let name = tree::normal(name);
        if !self.seen.insert(name.clone()) || self.tree.is_built_in(&name) {
            return Ok(());
        }
        if self.seen.len() > MAX_MODULES {
            return Err(self.broken(&name, "modules depend on too many others"));
        }
        let Some(bytes) = self.tree.read(&name).map_err(|source| self.at(&name, source))? else {
            return Err(self.broken(&name, "another module needs it, and it is not there"));
        };
        let info = ModInfo::parse(&bytes).ok_or_else(|| self.broken(&name, "it is not a kernel module"))?;
        self.check_release(&name, &info)?;
        for before in info.loaded_before() {
            // An algorithm asks for its implementation by the algorithm's name.
            let implementations = [before.to_owned(), format!("{before}_generic")];
            if let Some(found) = implementations.iter().find(|name| self.tree.has(name)) {
                self.load(found)?;
            }
        }
        for dependency in info.depends() {
            self.load(dependency)?;
        }
        self.modules.push(Module { name, bytes });
        Ok(())
    }

    fn check_release(&self, name: &str, info: &ModInfo<'_>) -> Result<(), ModulesError> {
        match (info.release(), &self.kernel.version) {
            (Some(found), Some(expected)) if found != expected => Err(ModulesError::Mismatch {
                dir: self.tree.path().into(),
                module: name.into(),
                found: found.into(),
                expected: expected.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn at(&self, module: &str, source: io::Error) -> ModulesError {
        ModulesError::Module { dir: self.tree.path().into(), module: module.into(), source }
    }

    fn broken(&self, module: &str, why: &str) -> ModulesError {
        self.at(module, io::Error::new(io::ErrorKind::InvalidData, why))
    }
}

#[cfg(test)]
mod tests;
