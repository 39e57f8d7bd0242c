//! A configuration and this host become a list of steps. Pure, apart from what a tmpfs is filled with.

use std::ffi::CString;
use std::path::PathBuf;

use hv_common::cgroup::{Group, Layout};

use super::linux::{Device, Linux};
use super::step::{BundleStep, Node, Place, Source};
use super::{Bundle, Config, mounts, options, process, refuse, spaces};
use crate::error::Error;
use crate::step::Step;

/// What a plan needs to know about this host.
#[derive(Debug, Clone)]
pub struct Facts {
    /// This process is root and may mount in its own mount namespace.
    pub privileged: bool,
    /// It may make device nodes: it is not in a user namespace.
    pub makes_nodes: bool,
    /// The cgroup hierarchies.
    pub layout: Layout,
}

impl Facts {
    /// Looks at this host.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn detect() -> Result<Facts, Error> {
        let host = crate::host::Host::detect()?;
        let map = hv_common::procfs::read_text("/proc/self/uid_map").unwrap_or_default();
        let initial = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
        Ok(Facts {
            privileged: host.privileged,
            makes_nodes: host.privileged && initial,
            layout: host.cgroups,
        })
    }

    /// The top of the unified hierarchy.
    pub(super) fn unified_top(&self) -> PathBuf {
        self.layout.unified.as_ref().map_or_else(|| "/sys/fs/cgroup".into(), |place| place.top.clone())
    }
}

/// What the caller decides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// The container's cgroup.
    pub group: Option<Group>,
    /// It gets a cgroup namespace.
    pub cgroup_namespace: bool,
    /// It gets a user namespace: no node can be made in it.
    pub user_namespace: bool,
    /// It gets a network namespace of its own, whose loopback interface is down.
    pub network: bool,
    /// It keeps the caller's session keyring.
    pub keep_keyring: bool,
    /// Somebody runs hooks before the pivot.
    pub hooks: bool,
}

/// Devices of every container.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Links of every /dev.
const LINKS: [(&str, &str); 5] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
    ("dev/ptmx", "pts/ptmx"),
];

/// Checks everything that can be checked without looking at the host.
pub(super) fn check(config: &Config) -> Result<(), Error> {
    let major = config.oci_version.split('.').next().unwrap_or_default();
    if major != "1" {
        return Err(refuse("ociVersion", &format!("hv knows version 1, not {:?}", config.oci_version)));
    }
    if config.root.as_ref().is_none_or(|root| root.path.is_empty() || root.path.contains('\0')) {
        return Err(refuse("root", "a container needs root.path"));
    }
    if config.vm.is_some() {
        return Err(refuse("vm", "a container has no machine"));
    }
    let others = [("windows", &config.windows), ("solaris", &config.solaris), ("zos", &config.zos)];
    if let Some((field, _)) = others.iter().find(|(_, asked)| asked.is_some()) {
        return Err(refuse(field, "it is of another platform"));
    }
    let process = config.process.as_ref().ok_or_else(|| refuse("process", "there is nothing to start"))?;
    process::check(process)?;
    check_linux(&config.linux)?;
    for name in [&config.hostname, &config.domainname].into_iter().flatten() {
        if name.len() > 64 || name.contains('\0') {
            return Err(refuse("hostname and domainname", "the kernel takes up to 64 bytes without NUL"));
        }
    }
    let hooks = &config.hooks;
    let all = [
        &hooks.prestart,
        &hooks.create_runtime,
        &hooks.create_container,
        &hooks.start_container,
        &hooks.poststart,
        &hooks.poststop,
    ];
    for hook in all.into_iter().flatten() {
        if !hook.path.starts_with('/') || hook.timeout.is_some_and(|seconds| seconds <= 0) {
            return Err(refuse("hooks", "a hook has an absolute path, and a timeout above 0 or none"));
        }
    }
    spaces::check(config)?;
    // Where things lie is checked by making steps of them, for no host in particular.
    let bundle = Bundle { dir: "/".into(), config: config.clone() };
    let facts = Facts { privileged: true, makes_nodes: true, layout: Layout::default() };
    steps_but_copies(&bundle, &facts).map(drop)
}

fn steps_but_copies(bundle: &Bundle, facts: &Facts) -> Result<Vec<Step>, Error> {
    let mut bundle = bundle.clone();
    for mount in &mut bundle.config.mounts {
        if mount.kind.as_deref() == Some("tmpfs") {
            mount.options.retain(|option| option != "tmpcopyup");
        }
    }
    steps(&bundle, facts, &Wish::default())
}

fn check_linux(linux: &Linux) -> Result<(), Error> {
    let refused = [
        ("linux.intelRdt", linux.intel_rdt.is_some(), "hv controls no processor caches"),
        ("linux.memoryPolicy", linux.memory_policy.is_some(), "hv sets no memory policy"),
        ("linux.netDevices", !linux.net_devices.is_empty(), "hv moves no interfaces: let a hook do it"),
        (
            "linux.mountLabel",
            linux.mount_label.as_ref().is_some_and(|label| !label.is_empty()),
            "hv labels no mounts",
        ),
    ];
    if let Some((field, _, why)) = refused.iter().find(|(_, asked, _)| *asked) {
        return Err(refuse(field, why));
    }
    if let Some(word) = linux.rootfs_propagation.as_ref().filter(|word| !word.is_empty())
        && options::propagation(word).is_none()
    {
        return Err(refuse("linux.rootfsPropagation", &format!("`{word}` is none")));
    }
    if let Some(personality) = &linux.personality {
        domain(&personality.domain)?;
        if !personality.flags.is_empty() {
            return Err(refuse("linux.personality.flags", "the specification defines none"));
        }
    }
    Ok(())
}

fn domain(name: &str) -> Result<u32, Error> {
    match name {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        _ => Err(refuse("linux.personality", &format!("`{name}` is no domain: LINUX or LINUX32"))),
    }
}

/// The steps of the container's process, in order.
pub(super) fn steps(bundle: &Bundle, facts: &Facts, wish: &Wish) -> Result<Vec<Step>, Error> {
    let config = &bundle.config;
    let root = CString::new(bundle.root().as_os_str().as_encoded_bytes())
        .map_err(|_| refuse("root.path", "it holds a NUL byte"))?;
    let mut steps = vec![Step::PrivateMounts, Step::Scratch];
    steps.push(Step::Bundle(BundleStep::Root(Source::Path(root, true))));
    // Late for what does not need it, because moving a process into v1 cgroups takes milliseconds.
    let mut awaited = false;
    for mount in &config.mounts {
        if mount.kind.as_deref().is_some_and(|kind| kind.starts_with("cgroup")) && !awaited {
            join_cgroups(wish, &mut steps);
            awaited = true;
        }
        mounts::steps(mount, bundle, facts, wish, &mut steps)?;
    }
    devices(config, facts, wish, &mut steps)?;
    if !awaited {
        join_cgroups(wish, &mut steps);
    }
    if wish.hooks {
        steps.push(Step::Bundle(BundleStep::Hooks));
    }
    finish(config, wish, &mut steps)?;
    Ok(steps)
}

fn join_cgroups(wish: &Wish, steps: &mut Vec<Step>) {
    steps.push(Step::Bundle(BundleStep::AwaitMonitor));
    if wish.cgroup_namespace {
        steps.push(Step::CgroupNamespace);
    }
}

/// After the hooks: what is hidden, and the pivot.
fn finish(config: &Config, wish: &Wish, steps: &mut Vec<Step>) -> Result<(), Error> {
    let linux = &config.linux;
    let mut add = |step| steps.push(Step::Bundle(step));
    if let Some(process) = &config.process {
        add(BundleStep::Directory(mounts::place("process.cwd", &process.cwd)?));
        if process.terminal {
            add(BundleStep::Terminal(process::size(process)));
        }
    }
    for path in &linux.masked_paths {
        add(BundleStep::Hide(mounts::place("linux.maskedPaths", path)?));
    }
    for path in &linux.readonly_paths {
        add(BundleStep::ReadOnly(mounts::place("linux.readonlyPaths", path)?));
    }
    if config.root.as_ref().is_some_and(|root| root.readonly) {
        add(BundleStep::ReadOnlyRoot);
    }
    for (name, value) in &linux.sysctl {
        let text =
            |string: String| CString::new(string).map_err(|_| refuse("linux.sysctl", "it holds a NUL byte"));
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(refuse("linux.sysctl", &format!("`{name}` is no name of a parameter")));
        }
        add(BundleStep::Sysctl(text(path)?, text(value.clone())?));
    }
    if let Some(step) = config.process.as_ref().map(label).transpose()?.flatten() {
        add(step);
    }
    steps.push(Step::PivotRoot);
    let mut add = |step| steps.push(Step::Bundle(step));
    let propagation = linux.rootfs_propagation.as_deref().and_then(options::propagation);
    if let Some((kind, _)) = propagation {
        add(BundleStep::RootPropagation(kind));
    }
    if let Some(personality) = &linux.personality {
        add(BundleStep::Personality(domain(&personality.domain)?));
    }
    let text =
        |name: &String| CString::new(name.as_str()).map_err(|_| refuse("hostname", "it holds a NUL byte"));
    if let Some(name) = config.domainname.as_ref().filter(|name| !name.is_empty()) {
        add(BundleStep::DomainName(text(name)?));
    }
    if let Some(name) = config.hostname.as_ref().filter(|name| !name.is_empty()) {
        steps.push(Step::HostName(text(name)?));
    }
    if wish.network {
        steps.push(Step::Loopback);
    }
    if !wish.keep_keyring {
        steps.push(Step::Keyring);
    }
    Ok(())
}

/// The label for the program, if one is asked for.
pub(super) fn label(process: &super::config::Process) -> Result<Option<BundleStep>, Error> {
    let asked = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    let (apparmor, selinux) = (asked(&process.apparmor_profile), asked(&process.selinux_label));
    let (file, value) = match (apparmor, selinux) {
        (None, None) => return Ok(None),
        (Some(profile), None) => (c"apparmor/exec", format!("exec {profile}")),
        (None, Some(label)) => (c"exec", label),
        (Some(_), Some(_)) => {
            return Err(refuse(
                "process.apparmorProfile",
                "selinuxLabel is there too, and no kernel has both",
            ));
        }
    };
    let value = CString::new(value).map_err(|_| refuse("process", "a label holds a NUL byte"))?;
    Ok(Some(BundleStep::Label(file.to_owned(), value)))
}

fn devices(config: &Config, facts: &Facts, wish: &Wish, steps: &mut Vec<Step>) -> Result<(), Error> {
    // Somebody else's /dev is left as it is.
    let bound = config.mounts.iter().any(|mount| {
        let options = options::parse(&mount.options);
        let is_bind = options.bind.is_some() || mount.kind.as_deref() == Some("bind");
        is_bind && mount.destination.trim_end_matches('/') == "/dev"
    });
    let makes_nodes = facts.makes_nodes && !wish.user_namespace;
    let mut asked: Vec<Device> = Vec::new();
    if !bound {
        asked.extend(DEVICES.iter().map(|(name, major, minor)| Device {
            kind: "c".into(),
            path: format!("/dev/{name}"),
            major: i64::from(*major),
            minor: i64::from(*minor),
            file_mode: Some(0o666),
            uid: None,
            gid: None,
        }));
    }
    for device in &config.linux.devices {
        asked.retain(|known| known.path != device.path);
        asked.push(device.clone());
    }
    for device in &asked {
        steps.push(Step::Bundle(device_step(device, makes_nodes)?));
    }
    if !bound {
        for (path, target) in LINKS {
            let target = CString::new(target).map_err(|_| refuse("mounts", "a link"))?;
            steps.push(Step::Bundle(BundleStep::Link(mounts::place("mounts", path)?, target)));
        }
    }
    Ok(())
}

fn device_step(device: &Device, makes_nodes: bool) -> Result<BundleStep, Error> {
    let field = format!("linux.devices ({})", device.path);
    let at: Place = mounts::place(&field, &device.path)?;
    if at.parents.is_empty() || !device.path.starts_with('/') {
        return Err(refuse(&field, "its path is none in the container"));
    }
    let kind = match device.kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        _ => return Err(refuse(&field, "its type must be c, u, b or p")),
    };
    let number =
        |number: i64| u32::try_from(number).map_err(|_| refuse(&field, "no device has such a number"));
    let (major, minor) = (number(device.major)?, number(device.minor)?);
    if makes_nodes || kind == libc::S_IFIFO {
        let mode = kind | device.file_mode.unwrap_or(0o666) & 0o7777;
        let owner = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
        return Ok(BundleStep::Node(Node { at, mode, device: rustix::fs::makedev(major, minor), owner }));
    }
    // In a user namespace no node can be made: the host's own is bound.
    let path = CString::new(device.path.as_str()).map_err(|_| refuse(&field, "it holds a NUL byte"))?;
    Ok(BundleStep::Bind(super::step::Bind {
        source: Source::Path(path, false),
        name: device.path.clone(),
        at,
        directory: false,
        top: Default::default(),
        all: Vec::new(),
        on_proc: false,
        ids: None,
    }))
}
