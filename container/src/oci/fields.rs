//! Every field of runtime-spec 1.2's config.json: what docs/oci.md says of it is what happens.

use std::collections::BTreeMap;

use hv_common::cgroup::{Controller, Layout};
use serde_json::{Value, json};

use super::process::{self, Around};
use super::tests::{facts, full, set};
use super::{Bundle, Facts, attributes, config, plan, spaces};

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Something else is done for it.
    Honoured,
    /// It is kept for others (hooks, `state`, listeners, `exec`, `update`), which tests/oci looks at.
    Kept,
    /// The error names it.
    Refused,
    /// Honoured with cgroup v1, refused with v2.
    V1,
    /// Honoured with cgroup v2, refused with v1 alone.
    V2,
}
use Verdict::{Honoured, Kept, Refused, V1};

impl Verdict {
    /// As the document has it.
    fn word(self) -> &'static str {
        match self {
            Honoured | Kept => "honoured",
            Refused => "refused",
            V1 => "not on this host (v2)",
            Verdict::V2 => "not on this host (v1)",
        }
    }
}

/// Each field, as a pointer into [`full`], with another value than it has there.
fn fields() -> Vec<(&'static str, Verdict, Value)> {
    let mut all = of_the_bundle();
    all.extend(of_the_process());
    all.extend(of_linux());
    all.extend(of_the_resources());
    all
}

fn of_the_bundle() -> Vec<(&'static str, Verdict, Value)> {
    let hook = json!([{"path": "/bin/false", "args": ["false"], "env": ["A=1"], "timeout": 3}]);
    vec![
        ("/ociVersion", Kept, json!("1.1.0")),
        ("/root/path", Honoured, json!("other")),
        ("/root/readonly", Honoured, json!(false)),
        ("/mounts/4/destination", Honoured, json!("/elsewhere")),
        ("/mounts/1/type", Honoured, json!("ramfs")),
        ("/mounts/4/source", Honoured, json!("/opt")),
        ("/mounts/1/options", Honoured, json!(["noexec", "size=5m"])),
        ("/mounts/5/uidMappings", Honoured, json!([{"containerID": 0, "hostID": 77, "size": 1}])),
        ("/mounts/5/gidMappings", Honoured, json!([{"containerID": 0, "hostID": 77, "size": 1}])),
        ("/hostname", Honoured, json!("other")),
        ("/domainname", Honoured, json!("other")),
        ("/hooks/prestart", Kept, hook.clone()),
        ("/hooks/createRuntime", Kept, hook.clone()),
        ("/hooks/createContainer", Kept, hook.clone()),
        ("/hooks/startContainer", Kept, hook.clone()),
        ("/hooks/poststart", Kept, hook.clone()),
        ("/hooks/poststop", Kept, hook),
        ("/annotations", Kept, json!({"c": "d"})),
        ("/vm", Refused, json!({"kernel": {"path": "/vmlinuz"}})),
        ("/windows", Refused, json!({"layerFolders": []})),
        ("/solaris", Refused, json!({})),
        ("/zos", Refused, json!({})),
    ]
}

fn of_the_process() -> Vec<(&'static str, Verdict, Value)> {
    vec![
        ("/process/terminal", Honoured, json!(false)),
        ("/process/consoleSize/height", Honoured, json!(77)),
        ("/process/consoleSize/width", Honoured, json!(77)),
        ("/process/cwd", Honoured, json!("/other")),
        ("/process/env", Honoured, json!(["B=c"])),
        ("/process/args", Honoured, json!(["true", "x"])),
        ("/process/commandLine", Refused, json!("cmd.exe")),
        ("/process/user/uid", Honoured, json!(77)),
        ("/process/user/gid", Honoured, json!(77)),
        ("/process/user/umask", Honoured, json!(0)),
        ("/process/user/additionalGids", Honoured, json!([77])),
        ("/process/user/username", Refused, json!("ann")),
        ("/process/capabilities/bounding", Honoured, json!(["CAP_KILL"])),
        ("/process/capabilities/effective", Honoured, json!(["CAP_KILL"])),
        ("/process/capabilities/inheritable", Honoured, json!(["CAP_KILL"])),
        ("/process/capabilities/permitted", Honoured, json!(["CAP_KILL"])),
        ("/process/capabilities/ambient", Honoured, json!(["CAP_KILL"])),
        ("/process/rlimits/0/type", Honoured, json!("RLIMIT_CORE")),
        ("/process/rlimits/0/soft", Honoured, json!(0)),
        ("/process/rlimits/0/hard", Honoured, json!(77)),
        ("/process/noNewPrivileges", Honoured, json!(false)),
        ("/process/apparmorProfile", Honoured, json!("profile")),
        ("/process/selinuxLabel", Honoured, json!("system_u:system_r:container_t:s0")),
        ("/process/oomScoreAdj", Honoured, json!(77)),
        ("/process/ioPriority/class", Honoured, json!("IOPRIO_CLASS_IDLE")),
        ("/process/ioPriority/priority", Honoured, json!(7)),
        ("/process/scheduler/policy", Honoured, json!("SCHED_IDLE")),
        ("/process/scheduler/nice", Honoured, json!(7)),
        ("/process/scheduler/priority", Honoured, json!(7)),
        ("/process/scheduler/flags", Honoured, json!(["SCHED_FLAG_RESET_ON_FORK"])),
        ("/process/scheduler/runtime", Honoured, json!(7)),
        ("/process/scheduler/deadline", Honoured, json!(7)),
        ("/process/scheduler/period", Honoured, json!(7)),
        ("/process/execCPUAffinity/initial", Honoured, json!("1")),
        ("/process/execCPUAffinity/final", Honoured, json!("1")),
    ]
}

fn of_linux() -> Vec<(&'static str, Verdict, Value)> {
    let map = json!([{"containerID": 0, "hostID": 77, "size": 7}]);
    vec![
        ("/linux/namespaces/1/type", Honoured, json!("cgroup")),
        ("/linux/namespaces/3/path", Honoured, json!("/proc/self/ns/net")),
        ("/linux/uidMappings", Honoured, map.clone()),
        ("/linux/gidMappings", Honoured, map),
        ("/linux/timeOffsets/monotonic", Honoured, json!({"secs": 7, "nanosecs": 7})),
        ("/linux/timeOffsets/boottime", Honoured, json!({"secs": 7})),
        ("/linux/devices/0/type", Honoured, json!("b")),
        ("/linux/devices/0/path", Honoured, json!("/dev/other")),
        ("/linux/devices/0/major", Honoured, json!(7)),
        ("/linux/devices/0/minor", Honoured, json!(7)),
        ("/linux/devices/0/fileMode", Honoured, json!(384)),
        ("/linux/devices/0/uid", Honoured, json!(7)),
        ("/linux/devices/0/gid", Honoured, json!(7)),
        ("/linux/netDevices", Refused, json!({"eth0": {"name": "e"}})),
        ("/linux/cgroupsPath", Honoured, json!("/other")),
        ("/linux/intelRdt", Refused, json!({"closID": "x"})),
        ("/linux/memoryPolicy", Refused, json!({"mode": "MPOL_BIND"})),
        ("/linux/sysctl", Honoured, json!({"kernel.shmmax": "77"})),
        ("/linux/seccomp/defaultAction", Honoured, json!("SCMP_ACT_LOG")),
        ("/linux/seccomp/defaultErrnoRet", Honoured, json!(77)),
        ("/linux/seccomp/architectures", Honoured, json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])),
        ("/linux/seccomp/flags", Honoured, json!(["SECCOMP_FILTER_FLAG_LOG"])),
        ("/linux/seccomp/listenerPath", Kept, json!("/run/agent")),
        ("/linux/seccomp/listenerMetadata", Kept, json!("x")),
        ("/linux/seccomp/syscalls/0/names", Honoured, json!(["mount"])),
        ("/linux/seccomp/syscalls/0/action", Honoured, json!("SCMP_ACT_TRACE")),
        ("/linux/seccomp/syscalls/0/errnoRet", Honoured, json!(77)),
        ("/linux/seccomp/syscalls/0/args/0/index", Honoured, json!(2)),
        ("/linux/seccomp/syscalls/0/args/0/value", Honoured, json!(7)),
        ("/linux/seccomp/syscalls/0/args/0/valueTwo", Honoured, json!(7)),
        ("/linux/seccomp/syscalls/0/args/0/op", Honoured, json!("SCMP_CMP_NE")),
        ("/linux/rootfsPropagation", Honoured, json!("rshared")),
        ("/linux/maskedPaths", Honoured, json!(["/proc/other"])),
        ("/linux/readonlyPaths", Honoured, json!(["/proc/other"])),
        ("/linux/mountLabel", Refused, json!("label")),
        ("/linux/personality/domain", Honoured, json!("LINUX")),
        ("/linux/personality/flags", Refused, json!(["x"])),
    ]
}

fn of_the_resources() -> Vec<(&'static str, Verdict, Value)> {
    let rate = json!([{"major": 8, "minor": 0, "rate": 77}]);
    vec![
        ("/linux/resources/devices/0/allow", Honoured, json!(true)),
        ("/linux/resources/devices/0/type", Honoured, json!("b")),
        ("/linux/resources/devices/0/major", Honoured, json!(7)),
        ("/linux/resources/devices/0/minor", Honoured, json!(7)),
        ("/linux/resources/devices/0/access", Honoured, json!("r")),
        ("/linux/resources/memory/limit", Honoured, json!(7_000_000)),
        ("/linux/resources/memory/reservation", Honoured, json!(7_000_000)),
        ("/linux/resources/memory/swap", Honoured, json!(7_000_000)),
        ("/linux/resources/memory/kernel", V1, json!(7_000_000)),
        ("/linux/resources/memory/kernelTCP", V1, json!(7_000_000)),
        ("/linux/resources/memory/swappiness", V1, json!(7)),
        ("/linux/resources/memory/disableOOMKiller", V1, json!(true)),
        ("/linux/resources/memory/useHierarchy", Kept, json!(true)),
        ("/linux/resources/memory/checkBeforeUpdate", Kept, json!(true)),
        ("/linux/resources/cpu/shares", Honoured, json!(77)),
        ("/linux/resources/cpu/quota", Honoured, json!(7777)),
        ("/linux/resources/cpu/burst", Honoured, json!(77)),
        ("/linux/resources/cpu/period", Honoured, json!(7777)),
        ("/linux/resources/cpu/realtimeRuntime", V1, json!(77)),
        ("/linux/resources/cpu/realtimePeriod", V1, json!(7777)),
        ("/linux/resources/cpu/cpus", Honoured, json!("1")),
        ("/linux/resources/cpu/mems", Honoured, json!("1")),
        ("/linux/resources/cpu/idle", Honoured, json!(1)),
        ("/linux/resources/pids/limit", Honoured, json!(77)),
        ("/linux/resources/blockIO/weight", Honoured, json!(77)),
        ("/linux/resources/blockIO/leafWeight", V1, json!(77)),
        ("/linux/resources/blockIO/weightDevice", Honoured, json!([{"major": 8, "minor": 0, "weight": 77}])),
        ("/linux/resources/blockIO/throttleReadBpsDevice", Honoured, rate.clone()),
        ("/linux/resources/blockIO/throttleWriteBpsDevice", Honoured, rate.clone()),
        ("/linux/resources/blockIO/throttleReadIOPSDevice", Honoured, rate.clone()),
        ("/linux/resources/blockIO/throttleWriteIOPSDevice", Honoured, rate),
        ("/linux/resources/hugepageLimits", Honoured, json!([{"pageSize": "2MB", "limit": 77}])),
        ("/linux/resources/network/classID", V1, json!(77)),
        ("/linux/resources/network/priorities", V1, json!([{"name": "eth0", "priority": 7}])),
        ("/linux/resources/rdma", Honoured, json!({"mlx5_1": {"hcaHandles": 7, "hcaObjects": 7}})),
        ("/linux/resources/unified", Verdict::V2, json!({"memory.high": "7777"})),
    ]
}

/// A configuration with something at every place that a field is set at.
fn base() -> Value {
    let mut base = full();
    let mounts = base["mounts"].as_array_mut().unwrap();
    let map = json!([{"containerID": 0, "hostID": 5, "size": 1}]);
    mounts.push(json!({"destination": "/mapped", "source": "/srv", "options": ["rbind"],
        "uidMappings": map, "gidMappings": map}));
    // So that another can become one.
    base["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "cgroup");
    base["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}]);
    let call = &mut base["linux"]["seccomp"]["syscalls"][0];
    call["args"] = json!([{"index": 1, "value": 1, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]);
    base["linux"]["seccomp"]["defaultAction"] = json!("SCMP_ACT_ERRNO");
    call_action(&mut base);
    let resources = &mut base["linux"]["resources"];
    resources["devices"] = json!([{"allow": false, "type": "c", "major": 1, "minor": 1, "access": "rwm"}]);
    for group in ["cpu", "pids", "blockIO", "network"] {
        resources[group] = json!({});
    }
    base
}

fn call_action(base: &mut Value) {
    base["linux"]["seccomp"]["syscalls"][0]["action"] = json!("SCMP_ACT_ERRNO");
    base["linux"]["seccomp"]["syscalls"][0]["errnoRet"] = json!(1);
}

fn v2() -> Layout {
    Layout::parse("29 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/\n")
}

fn v1() -> Layout {
    let names = Controller::ALL.map(Controller::name);
    let mounts: String = names
        .iter()
        .map(|name| format!("9 1 0:9 / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"))
        .collect();
    let own: String = names.iter().zip(1..).map(|(name, number)| format!("{number}:{name}:/\n")).collect();
    Layout::parse(&mounts, &own)
}

/// All that is done for a configuration: steps, cgroups, namespaces, program and attributes.
fn effects(config: &Value, layout: &Layout) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let config = super::parse(config.to_string().as_bytes()).map_err(|error| text(&error))?;
    let bundle = Bundle { dir: "/bundle".into(), config };
    let facts = Facts { layout: layout.clone(), ..facts() };
    let lines = bundle.plan(&facts).map_err(|error| whole(&error))?;
    let steps = plan::steps(&bundle, &facts, &plan::Wish::default()).map_err(|error| text(&error))?;
    let spaces = spaces::open(&bundle.config).map_err(|error| text(&error))?;
    let process: &config::Process = bundle.config.process.as_ref().unwrap();
    let root = std::fs::File::open("/").unwrap();
    let around = Around { seccomp: bundle.config.linux.seccomp.as_ref(), inherited: 0, set_groups: true };
    use std::os::fd::AsFd;
    let program = process::prepare(process, root.as_fd(), around).map_err(|error| text(&error))?;
    let attributes = attributes::shown(process);
    Ok(format!(
        "{lines:#?} {steps:?} {} {:?} {:?} {program:?} {attributes}",
        spaces.new, spaces.ids, spaces.time
    ))
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// `/process/rlimits/0/soft` is `process.rlimits[].soft`.
fn name(pointer: &str) -> String {
    let parts = pointer.split('/').skip(1).map(|part| match part.parse::<u32>() {
        Ok(_) => "[]".to_owned(),
        Err(_) => format!(".{part}"),
    });
    parts.collect::<String>().trim_start_matches('.').to_owned()
}

/// What is seen of a field set to `value`, if it is not `verdict`.
fn other_than(verdict: Verdict, pointer: &str, value: &Value) -> Option<String> {
    let base = base();
    let mut with = base.clone();
    set(&mut with, pointer, value.clone());
    let seen = [v1(), v2()].map(|layout| {
        let without = effects(&base, &layout).unwrap();
        effects(&with, &layout).map(|effects| effects != without)
    });
    let last = pointer.rsplit('/').next().unwrap_or_default();
    let refused = |seen: &Result<bool, String>| seen.as_ref().is_err_and(|error| error.contains(last));
    let kept = || {
        let parsed = super::parse(with.to_string().as_bytes()).ok()?;
        let all = serde_json::to_value(parsed).ok()?;
        all.pointer(pointer).cloned()
    };
    let holds = match verdict {
        Honoured => seen == [Ok(true), Ok(true)],
        Kept => seen.iter().all(Result::is_ok) && kept().as_ref() == Some(value),
        Refused => seen.iter().all(refused),
        V1 => seen[0] == Ok(true) && refused(&seen[1]),
        Verdict::V2 => refused(&seen[0]) && seen[1] == Ok(true),
    };
    // A value that says nothing else would change nothing.
    let differs = base.pointer(pointer) != Some(value);
    (!holds || !differs).then(|| format!("{pointer} is not {verdict:?}: {seen:?}"))
}

#[test]
fn each_field_is_honoured_or_the_error_names_it() {
    let wrong: Vec<String> = fields()
        .iter()
        .filter_map(|(pointer, verdict, value)| other_than(*verdict, pointer, value))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_document_says_the_same_of_each_field() {
    let text = include_str!("../../../docs/oci.md");
    let table = text.split("## Fields").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: BTreeMap<&str, &str> = table
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            Some((cells.next()?.trim_end_matches('`'), cells.next()?))
        })
        .collect();
    let fields = fields();
    for (pointer, verdict, _) in &fields {
        let name = name(pointer);
        assert_eq!(rows.get(name.as_str()).copied(), Some(verdict.word()), "{name}");
    }
    let names: Vec<String> = fields.iter().map(|(pointer, ..)| name(pointer)).collect();
    let more: Vec<&&str> = rows.keys().filter(|row| !names.iter().any(|name| name == *row)).collect();
    assert!(more.is_empty(), "rows of no field: {more:?}");
}
