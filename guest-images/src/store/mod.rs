//! Kernels that are kept for this user, with their modules: what `--kernel` may be left out for.
//!
//! One directory a kernel, below `kernels` of the user's data directory (root's is for everybody):
//! `vmlinuz` or `vmlinux`, `config-RELEASE`, `lib/modules/RELEASE`, and `entry.json`. A kernel that
//! `cargo xtask kernel` has built is found where it was built.

mod copy;
mod debian;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use serde::{Deserialize, Serialize};

use crate::dirs::{self, Dirs};
use crate::draft;
use crate::kernel::{self, KernelError};

/// A kernel in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// What the user calls it.
    pub name: String,
    /// The kernel's file: what `--kernel` would be given. Its modules are found from here.
    pub path: PathBuf,
    /// Its release, as `uname -r` prints it.
    pub release: Option<String>,
    /// Where it came from.
    pub origin: String,
    /// When it was put here.
    pub installed: SystemTime,
    /// Whether it is this user's own, to remove or replace.
    pub own: bool,
}

/// The store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of the store cannot be read or written.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// `read`, `write` and so on.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no kernel of that name.
    #[error("no kernel is called `{name}`: `hv kernel list` shows those there are")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The kernel was installed for everybody, or is only found where it was built.
    #[error("kernel `{name}` is not in your own store: {} has it", path.display())]
    NotOwn {
        /// The name.
        name: String,
        /// Where it is.
        path: PathBuf,
    },
    /// The name would not be safe as a file name.
    #[error(
        "`{name}` cannot name a kernel: use 1 to 64 letters, digits, `_`, `.` or `-`, starting with a letter or digit"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// Modules cannot be kept for a kernel whose release is not known.
    #[error("cannot keep modules for kernel {}: it does not say its release; leave `--modules` out", path.display())]
    NoRelease {
        /// The kernel.
        path: PathBuf,
    },
    /// What was to be kept is not a kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// This system has no Debian packages.
    #[error(
        "cannot install Debian's kernel: {program} is missing; add a kernel of yours with `hv kernel add`"
    )]
    NotDebian {
        /// The program.
        program: &'static str,
    },
    /// A program that installs the kernel failed.
    #[error("cannot {doing}: {why}")]
    Program {
        /// In words.
        doing: String,
        /// The program's last words.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Entry {
    release: Option<String>,
    origin: String,
    /// Nanoseconds since 1970.
    installed: u64,
}

const ENTRY: &str = "entry.json";
/// Holds the name of the default kernel.
const DEFAULT: &str = ".default";
const LOCK: &str = ".lock";
const FILES: [&str; 3] = ["vmlinux", "vmlinuz", "bzImage"];
/// Directories with these prefixes are not, or no longer, whole.
const NEW: &str = ".new-";
const OLD: &str = ".old-";

/// The kernels of one user.
#[derive(Debug)]
pub struct Store {
    own: PathBuf,
    /// Installed for everybody.
    system: Option<PathBuf>,
    /// Where `cargo xtask kernel` leaves what it builds, in directories `tuned-DIGEST`.
    built: Vec<PathBuf>,
    unpacked: PathBuf,
}

impl Store {
    /// The store of the user whose directories these are.
    pub fn new(dirs: &Dirs) -> Store {
        let own = dirs.kernels();
        let system = Some(Path::new(dirs::SYSTEM_DATA).join("kernels")).filter(|system| *system != own);
        let mut built = vec![dirs.cache.join("kernels")];
        // Root's cache is the system's, but root may well have built a kernel at home.
        built.extend(
            std::env::home_dir().map(|home| home.join(".cache/hv/kernels")).filter(|path| path.is_absolute()),
        );
        built.dedup();
        Store { own, system, built, unpacked: dirs.unpacked() }
    }

    /// All kernels by name. One's own hides another of the same name.
    ///
    /// # Errors
    /// One's own store cannot be read.
    pub fn list(&self) -> Result<Vec<Installed>, StoreError> {
        let mut all = BTreeMap::new();
        for built in &self.built {
            all.extend(directories(built).into_iter().filter_map(|dir| built_kernel(&dir)).map(by_name));
        }
        if let Some(system) = &self.system {
            all.extend(directories(system).into_iter().filter_map(|dir| installed(&dir, false)).map(by_name));
        }
        match fs::read_dir(&self.own) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::Io { doing: "read", path: self.own.clone(), source });
            }
            _ => all.extend(
                directories(&self.own).into_iter().filter_map(|dir| installed(&dir, true)).map(by_name),
            ),
        }
        Ok(all.into_values().collect())
    }

    /// The kernel of this name.
    ///
    /// # Errors
    /// There is none, or the store cannot be read.
    pub fn get(&self, name: &str) -> Result<Installed, StoreError> {
        let found = self.list()?.into_iter().find(|kernel| kernel.name == name);
        found.ok_or_else(|| StoreError::Unknown { name: name.into() })
    }

    /// The kernel to start when none is named: the one that was set, else the one that came last.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn default(&self) -> Result<Option<Installed>, StoreError> {
        let all = self.list()?;
        let set = fs::read_to_string(self.own.join(DEFAULT)).ok();
        let set = set.and_then(|name| all.iter().find(|kernel| kernel.name == name.trim()));
        Ok(set.or_else(|| all.iter().max_by_key(|kernel| kernel.installed)).cloned())
    }

    /// Sets the default.
    ///
    /// # Errors
    /// There is no such kernel, or the store cannot be written.
    pub fn set_default(&self, name: &str) -> Result<Installed, StoreError> {
        let kernel = self.get(name)?;
        draft::write(&self.own, DEFAULT, name.as_bytes()).map_err(self.io("write"))?;
        Ok(kernel)
    }

    /// Copies a kernel into the store, with its modules (a directory `lib/modules/RELEASE`) if given. It
    /// replaces one of the same name; without a name it has that of its release.
    ///
    /// # Errors
    /// It is not a kernel, or cannot be copied; the store is then as it was.
    pub fn add(
        &self,
        path: &Path,
        modules: Option<&Path>,
        name: Option<&str>,
    ) -> Result<Installed, StoreError> {
        let kernel = kernel::open(path, &self.unpacked)?;
        let release = kernel.version.clone();
        let name = name.or(release.as_deref()).unwrap_or("kernel");
        let target = self.directory(name)?;
        let new = self.start()?;
        let file = if kernel.is_unpacked_copy() { "vmlinuz" } else { "vmlinux" };
        copy::file(path, &new.path.join(file))?;
        if let Some(release) = &release {
            let config = format!("config-{release}");
            copy::file_if_there(&path.with_file_name(&config), &new.path.join(&config))?;
        }
        match (modules, &release) {
            (None, _) => {}
            (Some(modules), Some(release)) => {
                copy::modules(modules, &new.path.join("lib/modules").join(release))?
            }
            (Some(_), None) => return Err(StoreError::NoRelease { path: path.into() }),
        }
        self.finish(new, &target, release.clone(), path.display().to_string())?;
        self.get(name)
    }

    /// Installs Debian's newest kernel for virtual machines, or finds that it is installed already.
    /// `report` is told, in a few words, what is being done.
    ///
    /// # Errors
    /// This is no Debian system, or the package cannot be had; the store is then as it was.
    pub fn install(&self, report: &mut dyn FnMut(&str)) -> Result<Installed, StoreError> {
        let package = debian::newest(report)?;
        let origin = format!("Debian package {} {}", package.name, package.version);
        if let Some(there) = self.list()?.into_iter().find(|kernel| kernel.own && kernel.origin == origin) {
            report(&format!("{} is installed already", there.name));
            return Ok(there);
        }
        let new = self.start()?;
        let release = debian::fetch(&package, &new.path, report)?;
        let target = self.directory(&release)?;
        // Unpacked now, so that the first start is not the slow one, and a package without a kernel is
        // noticed here.
        kernel::open(&new.path.join("vmlinuz"), &self.unpacked)?;
        self.finish(new, &target, Some(release.clone()), origin)?;
        self.get(&release)
    }

    /// Removes a kernel with its modules.
    ///
    /// # Errors
    /// There is none of this name in this user's own store, or it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let kernel = self.get(name)?;
        if !kernel.own {
            return Err(StoreError::NotOwn { name: name.into(), path: kernel.path });
        }
        let _lock = self.lock()?;
        let old = self.own.join(format!("{OLD}{name}"));
        let dir = self.directory(name)?;
        fs::rename(&dir, &old).map_err(at("remove", &dir))?;
        fs::remove_dir_all(&old).map_err(at("remove", &old))
    }

    fn io(&self, doing: &'static str) -> impl Fn(io::Error) -> StoreError {
        at(doing, &self.own)
    }

    fn directory(&self, name: &str) -> Result<PathBuf, StoreError> {
        match hv_common::Id::try_from(name.to_owned()) {
            Ok(_) => Ok(self.own.join(name)),
            Err(_) => Err(StoreError::BadName { name: name.into() }),
        }
    }

    fn lock(&self) -> Result<File, StoreError> {
        fs::create_dir_all(&self.own).map_err(self.io("make"))?;
        let path = self.own.join(LOCK);
        let file = File::options().create(true).append(true).open(&path).map_err(at("open", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| at("lock", &path)(error.into()))?;
        Ok(file)
    }

    /// An empty directory to fill; nobody sees it before [`Store::finish`]. Others wait meanwhile.
    fn start(&self) -> Result<New, StoreError> {
        let lock = self.lock()?;
        // Whoever made these is dead: it would hold the lock.
        for left in directories(&self.own).iter().filter(|dir| has_prefix(dir, NEW) || has_prefix(dir, OLD)) {
            let _ = fs::remove_dir_all(left);
        }
        let path = self.own.join(format!("{NEW}{}", std::process::id()));
        fs::create_dir(&path).map_err(at("make", &path))?;
        Ok(New { path, _lock: lock })
    }

    fn finish(
        &self,
        new: New,
        target: &Path,
        release: Option<String>,
        origin: String,
    ) -> Result<(), StoreError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let entry = Entry { release, origin, installed: now.as_nanos() as u64 };
        let text = serde_json::to_vec(&entry).map_err(|error| self.io("write")(error.into()))?;
        draft::write(&new.path, ENTRY, &text).map_err(at("write", &new.path))?;
        let dir = File::open(&new.path).map_err(at("open", &new.path))?;
        rustix::fs::syncfs(&dir).map_err(|error| at("write", &new.path)(error.into()))?;
        // In one step, also where a kernel of that name is being replaced; New removes that one.
        let swap = if target.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        rustix::fs::renameat_with(CWD, &new.path, CWD, target, swap)
            .map_err(|error| at("write", target)(error.into()))
    }
}

/// A directory that is removed unless it was renamed.
struct New {
    path: PathBuf,
    _lock: File,
}

impl Drop for New {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn at(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io { doing, path: path.into(), source }
}

fn by_name(kernel: Installed) -> (String, Installed) {
    (kernel.name.clone(), kernel)
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    all.sort();
    all
}

fn has_prefix(dir: &Path, prefix: &str) -> bool {
    dir.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
}

fn kernel_in(dir: &Path) -> Option<PathBuf> {
    FILES.iter().map(|name| dir.join(name)).find(|path| path.is_file())
}

/// None: not a kernel's directory, or not a whole one.
fn installed(dir: &Path, own: bool) -> Option<Installed> {
    let name = dir.file_name()?.to_str()?.to_owned();
    if name.starts_with('.') {
        return None;
    }
    let entry: Entry = serde_json::from_slice(&fs::read(dir.join(ENTRY)).ok()?).ok()?;
    let installed = SystemTime::UNIX_EPOCH + Duration::from_nanos(entry.installed);
    Some(Installed {
        name,
        path: kernel_in(dir)?,
        release: entry.release,
        origin: entry.origin,
        installed,
        own,
    })
}

fn built_kernel(dir: &Path) -> Option<Installed> {
    let name = dir.file_name()?.to_str().filter(|name| name.starts_with("tuned-"))?.to_owned();
    let path = kernel_in(dir)?;
    let installed = fs::metadata(&path).ok()?.modified().ok()?;
    Some(Installed { name, path, release: None, origin: "cargo xtask kernel".into(), installed, own: false })
}

#[cfg(test)]
mod tests;
