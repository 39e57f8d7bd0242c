//! `mounts` become steps. Pure: nothing of the host is opened; [`super::sources`] opens the sources.

use std::ffi::CString;
use std::path::{Component, Path};

use hv_common::cgroup::Group;
use rustix::mount::MountAttrFlags;

use super::config::Mount;
use super::options::{self, Options};
use super::plan::{Facts, Wish};
use super::step::{Bind, BundleStep, Change, New, Place, Source};
use super::{Bundle, Config, refuse, spaces};
use crate::error::Error;
use crate::idmap::IdMap;
use crate::step::{Slot, Step};

/// What may be mounted on inside /proc, as runc has it: files that programs like lxcfs stand in for.
const ON_PROC: [&str; 11] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/net/dev",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

/// The longest value of an option that fsconfig(2) takes.
const LONGEST_VALUE: usize = 255;

/// A path in the container, cleaned.
pub(super) fn place(field: &str, path: &str) -> Result<Place, Error> {
    let bad = || refuse(field, &format!("{path:?} is no path in the container"));
    let mut parts: Vec<&str> = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str().ok_or_else(bad)?),
            // As if the root were its own parent.
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    let join = |parts: &[&str]| match parts {
        [] => Ok(c".".to_owned()),
        _ => CString::new(parts.join("/")).map_err(|_| bad()),
    };
    if path.len() >= libc::PATH_MAX as usize {
        return Err(bad());
    }
    let parents = (0..parts.len())
        .map(|index| Ok((join(&parts[..index])?, CString::new(parts[index]).map_err(|_| bad())?)))
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(Place { path: join(&parts)?, parents })
}

/// The steps of one mount.
pub(super) fn steps(
    mount: &Mount,
    bundle: &Bundle,
    facts: &Facts,
    wish: &Wish,
    steps: &mut Vec<Step>,
) -> Result<(), Error> {
    let field = format!("mounts ({})", mount.destination);
    let at = place(&field, &mount.destination)?;
    let options = options::parse(&mount.options);
    let kind = mount.kind.as_deref().unwrap_or("none");
    let is_bind = options.bind.is_some() || kind == "bind";
    let ids = ids(&field, mount, &options, &bundle.config)?;
    if ids.is_some() && !is_bind {
        return Err(refuse(&field, "the ids of bind mounts alone are mapped"));
    }
    if at.path.as_c_str() == c"." {
        return Err(refuse(&field, "nothing can be mounted over the root itself"));
    }
    match kind {
        _ if is_bind => bind(&field, mount, bundle, (at, options, ids), steps),
        "none" => Err(refuse(&field, "it has neither a type nor the option bind")),
        "cgroup" | "cgroup2" => cgroups(&field, &mount.destination, &options, facts, wish, steps),
        _ => new(&field, kind, mount, bundle, at, options, steps),
    }
}

/// How the ids of a mount's files are mapped, if they are: as it says, else as the container's user namespace does.
fn ids(
    field: &str,
    mount: &Mount,
    options: &Options,
    config: &Config,
) -> Result<Option<(IdMap, bool)>, Error> {
    let own = (&mount.uid_mappings, &mount.gid_mappings);
    let (users, groups) = match (options.idmap, own.0.is_empty(), own.1.is_empty()) {
        (_, false, false) => own,
        (Some(_), true, true) => (&config.linux.uid_mappings, &config.linux.gid_mappings),
        (None, true, true) => return Ok(None),
        _ => return Err(refuse(field, "uidMappings and gidMappings are there together, or not at all")),
    };
    if users.is_empty() || groups.is_empty() {
        return Err(refuse(field, "`idmap` needs uidMappings and gidMappings, its own or those of linux"));
    }
    for list in [users, groups] {
        spaces::check_mappings(field, list)?;
    }
    let map = IdMap::given(spaces::lines(users), spaces::lines(groups));
    Ok(Some((map, options.idmap.unwrap_or(false))))
}

fn bind(
    field: &str,
    mount: &Mount,
    bundle: &Bundle,
    (at, options, ids): (Place, Options, Option<(IdMap, bool)>),
    steps: &mut Vec<Step>,
) -> Result<(), Error> {
    let source = mount.source.as_deref().filter(|source| !source.is_empty());
    let source = source.ok_or_else(|| refuse(field, "a bind mount needs a source"))?;
    if let Some((key, _)) = options.data.first() {
        return Err(refuse(field, &format!("a bind mount has no option `{key}`")));
    }
    let inside_proc = at.path.to_bytes().starts_with(b"proc/");
    let on_proc = ON_PROC.iter().any(|path| path.as_bytes() == at.path.to_bytes());
    if inside_proc && !on_proc {
        return Err(refuse(field, "nothing may be mounted inside /proc"));
    }
    let host = bundle.dir.join(source);
    let path = CString::new(host.as_os_str().as_encoded_bytes())
        .map_err(|_| refuse(field, "its source holds a NUL byte"))?;
    let name = host.display().to_string();
    let source = Source::Path(path, options.bind != Some(false));
    let (top, all) = (options.top, options.all);
    let bind = Bind { source, name, at, directory: true, top, all, on_proc, ids };
    steps.push(Step::Bundle(BundleStep::Bind(bind)));
    Ok(())
}

fn new(
    field: &str,
    kind: &str,
    mount: &Mount,
    bundle: &Bundle,
    at: Place,
    options: Options,
    steps: &mut Vec<Step>,
) -> Result<(), Error> {
    let text = |string: &str| CString::new(string).map_err(|_| refuse(field, "it holds a NUL byte"));
    if at.path.to_bytes().starts_with(b"proc/") {
        return Err(refuse(field, "nothing may be mounted inside /proc"));
    }
    if options.copy_up && kind != "tmpfs" {
        return Err(refuse(field, "tmpcopyup is for a tmpfs"));
    }
    if let Some((key, _)) = options.data.iter().find(|(_, value)| value.len() > LONGEST_VALUE) {
        return Err(refuse(
            field,
            &format!("the value of {key} is longer than the {LONGEST_VALUE} bytes a kernel takes"),
        ));
    }
    let mut data = Vec::new();
    for (key, value) in &options.data {
        data.push((text(key)?, text(value)?));
    }
    let slot = match (kind, at.path.as_c_str()) {
        ("devpts", path) if path == c"dev/pts" => Slot::Pts,
        _ => Slot::Other,
    };
    let source = mount.source.as_deref().filter(|source| !source.is_empty()).map(text).transpose()?;
    let recursive = options
        .all
        .iter()
        .fold((0, 0), |(set, propagation), one| (set | one.set, propagation | one.propagation));
    let strict = ["proc", "sysfs"].contains(&kind);
    steps.push(Step::Bundle(BundleStep::New(New {
        filesystem: text(kind)?,
        source,
        options: data,
        strict,
        attributes: MountAttrFlags::from_bits_retain((options.top.set | recursive.0) as u32),
        propagation: options.top.propagation | recursive.1,
        copy: if options.copy_up { super::sources::contents(&bundle.root(), &at) } else { Vec::new() },
        at,
        slot,
        optional: kind == "mqueue",
    })));
    Ok(())
}

/// /sys/fs/cgroup: in a cgroup namespace the hierarchies themselves, which show the container's part of
/// them; else that part, bound.
fn cgroups(
    field: &str,
    destination: &str,
    options: &Options,
    facts: &Facts,
    wish: &Wish,
    steps: &mut Vec<Step>,
) -> Result<(), Error> {
    let none = Group::default();
    let group = wish.group.as_ref().unwrap_or(&none);
    let attributes = MountAttrFlags::from_bits_retain(options.top.set as u32);
    let read_only = attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY);
    let v1: Vec<_> = group.places().iter().filter(|one| !one.unified).collect();
    let hierarchy = |filesystem: &str, names: &[String], at: Place| {
        let options =
            names.iter().map(|name| (CString::new(name.as_str()).unwrap_or_default(), CString::default()));
        new_hierarchy(filesystem, options.collect(), at, attributes)
    };
    let bound = |path: &Path, at: Place| -> Result<BundleStep, Error> {
        let name = path.display().to_string();
        let path = CString::new(name.as_str()).map_err(|_| refuse(field, "it holds a NUL byte"))?;
        let top = Change { set: options.top.set, ..Change::default() };
        let source = Source::Path(path, false);
        let all = Vec::new();
        Ok(BundleStep::Bind(Bind { source, name, at, directory: true, top, all, on_proc: false, ids: None }))
    };
    if v1.is_empty() {
        let at = place(field, destination)?;
        let step = match (wish.cgroup_namespace, group.places().first()) {
            (true, _) => hierarchy("cgroup2", &[], at),
            (false, Some(place)) => bound(&place.path, at)?,
            (false, None) => bound(&facts.unified_top(), at)?,
        };
        steps.push(Step::Bundle(step));
        return Ok(());
    }
    let size = vec![(c"mode".to_owned(), c"755".to_owned()), (c"size".to_owned(), c"65536".to_owned())];
    let inert = attributes - MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mut tmpfs = new_hierarchy("tmpfs", size, place(field, destination)?, inert);
    if let BundleStep::New(new) = &mut tmpfs {
        new.slot = Slot::Cgroup;
    }
    steps.push(Step::Bundle(tmpfs));
    for one in v1 {
        let name = one.top.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let at = place(field, &format!("{destination}/{name}"))?;
        let step = match wish.cgroup_namespace {
            true => hierarchy("cgroup", &one.controllers, at),
            false => bound(&one.path, at)?,
        };
        steps.push(Step::Bundle(step));
        for controller in one.controllers.iter().filter(|_| name.contains(',')) {
            let target = CString::new(name.as_str()).unwrap_or_default();
            let link = place(field, &format!("{destination}/{controller}"))?;
            steps.push(Step::Bundle(BundleStep::Link(link, target)));
        }
    }
    if read_only {
        steps.push(Step::ReadOnly(Slot::Cgroup, CString::default()));
    }
    Ok(())
}

fn new_hierarchy(
    filesystem: &str,
    options: Vec<(CString, CString)>,
    at: Place,
    attributes: MountAttrFlags,
) -> BundleStep {
    BundleStep::New(New {
        filesystem: CString::new(filesystem).unwrap_or_default(),
        source: Some(c"cgroup".to_owned()),
        options,
        at,
        strict: false,
        attributes,
        propagation: 0,
        copy: Vec::new(),
        slot: Slot::Other,
        optional: false,
    })
}
