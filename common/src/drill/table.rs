//! Every attempt: its name, what it tries, why it hurts nobody, and which errors say that all walls are behind it.

use rustix::io::Errno;

use super::{Around, Reach, calls, files, limits, network, processes};

/// What an attempt is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Files of the host's kernel and its devices.
    Files,
    /// System calls that reach the machine as a whole.
    Machine,
    /// Mounts and the root directory.
    Mounts,
    /// The kernel's complicated interfaces.
    Interfaces,
    /// Other processes.
    Processes,
    /// The network.
    Network,
    /// Limits and rights.
    Limits,
}

/// What stops an attempt, however few of a container's other walls stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// Nothing in particular.
    Nothing,
    /// In this namespace, by its name in /proc/PID/ns, there is no such file, process or socket.
    Namespace(&'static str),
    /// A limit of the control group.
    Cgroup,
    /// Nothing can: it is the processor that does it, whatever kernel runs.
    Processor,
    /// The top of its root directory; a process in the host's own root has nothing above it to reach.
    Root,
}

/// One attempt.
pub struct Probe {
    /// Its name, stable.
    pub name: &'static str,
    /// What it is about.
    pub subject: Subject,
    /// What it tries.
    pub tries: &'static str,
    /// Why it hurts nobody even when nothing stops it.
    pub harmless: &'static str,
    /// The namespace, by its name in /proc/PID/ns, that confines what it does: one of the sandbox's own makes a
    /// success none.
    pub confined_by: Option<&'static str>,
    /// What stops it even without the walls that can be left out.
    pub stands: Stands,
    /// Errors that come after every look at rights: the attempt went through.
    pub past: &'static [Errno],
    /// Makes it.
    pub(super) attempt: fn(&Around) -> Reach,
}

use Subject::*;

const READS: &str = "reads one byte";
const OPENS: &str = "opens it and writes nothing";
const REFUSED: &str = "its arguments are refused after the rights were looked at";
const CHILD: &str = "only for a process that ends at once";

/// Shorthand for one line of the table.
const fn probe(
    (name, subject): (&'static str, Subject),
    tries: &'static str,
    harmless: &'static str,
    past: &'static [Errno],
    attempt: fn(&Around) -> Reach,
) -> Probe {
    Probe { name, subject, tries, harmless, confined_by: None, stands: Stands::Nothing, past, attempt }
}

impl Probe {
    const fn confined_by(self, namespace: &'static str) -> Probe {
        Probe { confined_by: Some(namespace), ..self }
    }

    const fn absent_from(self, namespace: &'static str) -> Probe {
        Probe { stands: Stands::Namespace(namespace), ..self }
    }

    const fn stopped_by(self, stands: Stands) -> Probe {
        Probe { stands, ..self }
    }
}

/// All of them, in the order of the report.
#[rustfmt::skip]
pub const PROBES: &[Probe] = &[
    probe(("kcore", Files), "read the kernel's memory in /proc/kcore", READS, &[], files::kcore),
    probe(("dev-mem", Files), "read physical memory in /dev/mem", "opens it and reads nothing", &[], files::dev_mem).absent_from("mnt"),
    probe(("kernel-symbols", Files), "read the kernel's addresses in /proc/kallsyms", "reads and prints none", &[], files::symbols),
    probe(("kernel-log", Files), "read the kernel's log", READS, &[], calls::read_log),
    probe(("sysrq", Files), "open /proc/sysrq-trigger for writing", OPENS, &[], files::sysrq),
    probe(("core-pattern", Files), "open kernel/core_pattern in /proc/sys for writing", OPENS, &[], files::core_pattern),
    probe(("modprobe-path", Files), "open kernel/modprobe in /proc/sys for writing", OPENS, &[], files::modprobe),
    probe(("sysctl", Files), "write a value back to kernel/panic in /proc/sys", "the value stays the same", &[], files::same_sysctl),
    probe(("module-parameter", Files), "open a kernel parameter in /sys for writing", OPENS, &[], files::parameter),
    probe(("cgroup", Files), "make a control group", "removes it at once", &[], files::cgroup).confined_by("cgroup"),
    probe(("block-device", Files), "make a block device of the host's disk", "removes the node at once", &[], files::node),
    probe(("host-disk", Files), "open the host's disk", "opens it for reading and reads nothing", &[], files::disk).absent_from("mnt"),
    probe(("kvm", Files), "make a virtual machine with /dev/kvm", "it has no memory and no processor", &[], files::kvm).absent_from("mnt"),

    probe(("load-module", Machine), "load a kernel module", "from a descriptor that is not open", &[Errno::BADF], calls::load_module),
    probe(("kexec", Machine), "load another kernel", "with flags that do not exist", &[Errno::INVAL], calls::load_kernel),
    probe(("reboot", Machine), "restart the machine", "without the call's magic numbers", &[Errno::INVAL], calls::restart),
    probe(("set-clock", Machine), "set the clock", "sets neither time nor zone", &[], calls::set_clock),
    probe(("hostname", Machine), "set the host name", "to what it is", &[], calls::set_hostname).confined_by("uts"),
    probe(("swap", Machine), "swap to a file", "the file has no name", &[Errno::NOENT], calls::swap),
    probe(("accounting", Machine), "switch process accounting on", "into a directory, which is refused", &[Errno::ISDIR], calls::account),
    probe(("quota", Machine), "switch quotas on", "for a disk without a name", &[Errno::NOENT, Errno::NOTBLK, Errno::NODEV, Errno::INVAL], calls::quota),
    probe(("io-ports", Machine), "take the I/O ports", "uses none; ends at once", &[], calls::ports),

    probe(("mount", Mounts), "mount with mount(2)", REFUSED, &[Errno::INVAL], calls::mount).confined_by("mnt"),
    probe(("new-mount", Mounts), "mount with fsopen(2)", "it is attached nowhere", &[], calls::new_mount).confined_by("mnt"),
    probe(("clone-mount", Mounts), "clone the root's mount with open_tree(2)", "it is attached nowhere", &[], calls::clone_mount).confined_by("mnt"),
    probe(("pivot-root", Mounts), "swap the root with pivot_root(2)", "for itself, which is refused", &[Errno::INVAL, Errno::BUSY], calls::pivot).confined_by("mnt"),
    probe(("chroot-out", Mounts), "leave the root: chroot below oneself, then up", "looks and changes nothing", &[], processes::chroot_out).stopped_by(Stands::Root),
    probe(("file-handle", Mounts), "open a file by its handle", "no file has this handle", &[Errno::STALE, Errno::OPNOTSUPP], calls::by_handle),

    probe(("bpf", Interfaces), "make a BPF map", CHILD, &[], calls::bpf),
    probe(("perf", Interfaces), "count events of all processes", "the counter is off", &[], calls::perf),
    probe(("keyring", Interfaces), "find the user's keyring, that all of its kind share", "only asks for its number", &[Errno::NOKEY], calls::keyring).confined_by("user"),
    probe(("io-uring", Interfaces), "make an io_uring", CHILD, &[], calls::ring),
    probe(("userfaultfd", Interfaces), "catch page faults, the kernel's too", CHILD, &[], calls::faults),
    probe(("fanotify", Interfaces), "make a group of file system events", CHILD, &[], calls::fanotify),
    probe(("kernel-crypto", Interfaces), "open the kernel's crypto interface", CHILD, &[], calls::crypto),
    probe(("personality", Interfaces), "switch address randomisation off", CHILD, &[], calls::personality),
    probe(("user-namespace", Interfaces), "make a user namespace", CHILD, &[], calls::user_namespace),
    probe(("mount-namespace", Interfaces), "make a mount namespace", CHILD, &[], calls::mount_namespace),

    probe(("signal-host", Processes), "signal a process of the host's", "signal 0, which does nothing", &[], processes::signal).absent_from("pid"),
    probe(("trace-host", Processes), "trace a process of the host's", "does not stop it, and lets go at once", &[], processes::trace).absent_from("pid"),
    probe(("read-host", Processes), "read the memory of a process of the host's", "at an address that has none", &[Errno::FAULT], processes::read).absent_from("pid"),
    probe(("take-descriptor", Processes), "take a descriptor from a process of the host's", "a copy, closed at once", &[], processes::take).absent_from("pid"),
    probe(("enter-namespace", Processes), "enter the mount namespace of PID 1", CHILD, &[], processes::enter).confined_by("pid"),

    probe(("raw-socket", Network), "make a raw socket", "sends nothing", &[], network::raw).confined_by("net"),
    probe(("packet-socket", Network), "see all packets with a packet socket", "receives nothing", &[], network::packet).confined_by("net"),
    probe(("route", Network), "add a route", "the message lacks the route", &[Errno::INVAL], network::route).confined_by("net"),
    probe(("abstract-socket", Network), "reach an abstract socket of the host's", "connects and closes", &[], network::abstract_socket).absent_from("net"),
    probe(("loopback-port", Network), "reach a port of the host's loopback", "connects and closes", &[], network::loopback).absent_from("net"),

    probe(("raise-limit", Limits), "raise a hard resource limit", CHILD, &[], limits::raise),
    probe(("regain-rights", Limits), "take CAP_SYS_ADMIN back", CHILD, &[], limits::regain),
    probe(("real-time", Limits), "run before all that is not real-time", CHILD, &[], limits::real_time).stopped_by(Stands::Cgroup),
    probe(("many-processes", Limits), "have more processes than the limit", "eight more, that end at once", &[], limits::processes).stopped_by(Stands::Cgroup),
    probe(("much-memory", Limits), "have more memory than the limit", "16 MiB more, given back at once", &[], limits::memory).stopped_by(Stands::Cgroup),
    probe(("fine-clock", Limits), "time with the processor's cycle counter", "only reads it", &[], limits::clock).stopped_by(Stands::Processor),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_plain_and_each_is_there_once() {
        let names: BTreeSet<&str> = PROBES.iter().map(|probe| probe.name).collect();
        assert_eq!(names.len(), PROBES.len());
        assert!(PROBES.len() >= 50);
        for probe in PROBES {
            assert!(
                probe.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
                "{}",
                probe.name
            );
            assert!(probe.name.len() <= 16 && probe.tries.len() <= 60, "{}", probe.name);
            assert!(!probe.harmless.is_empty());
            let known = ["uts", "mnt", "pid", "net", "ipc", "cgroup", "user"];
            assert!(probe.confined_by.is_none_or(|name| known.contains(&name)), "{}", probe.name);
        }
    }

    /// A refusal for want of rights must not pass for a success.
    #[test]
    fn what_walls_say_is_not_past_them() {
        let walls = [Errno::PERM, Errno::ACCESS, Errno::ROFS, Errno::SRCH, Errno::CONNREFUSED];
        assert!(PROBES.iter().all(|probe| !walls.iter().any(|errno| probe.past.contains(errno))));
    }

    /// docs/isolation.md has every attempt, in the words of this table.
    #[test]
    fn the_document_has_the_same_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/isolation.md");
        let Ok(text) = std::fs::read_to_string(path) else {
            return println!("skipped: the sources are not here");
        };
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 7).collect();
        assert_eq!(lines.len(), PROBES.len());
        for (line, probe) in lines.iter().zip(PROBES) {
            let start = format!("| `{}` | {} | {} | ", probe.name, probe.tries, probe.harmless);
            assert!(line.starts_with(&start), "{line}\n{start}");
            assert_eq!(line.contains("| E"), !probe.past.is_empty(), "{line}");
            assert!(
                probe.confined_by.is_none_or(|name| line.contains(&format!("namespace {name}"))),
                "{line}"
            );
        }
    }
}
