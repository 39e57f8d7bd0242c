//! Other runtimes as guests of the same harness: each a few words about how it is started.
//!
//! Same image, same command, same limits, same CPU set: a template says how they are handed over, and
//! [`super::conditions`] reads from the host what came of it. Phases within a runtime are its own business: of a peer
//! there are the time to the first byte, the end, processor time and memory.
//!
//! - [`TABLE`]: who is known; [`prepare`]: from a template to a command line and its files; [`mounted`]: an image file
//!   as a directory.

pub mod mounted;
pub mod prepare;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Setup;

/// What a runtime starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A root directory.
    Directory,
    /// An OCI bundle: a root directory and a `config.json` with the command and the limits.
    Bundle,
    /// A disk image and a kernel; `true`: with a configuration file of its own.
    Machine {
        /// It reads its configuration from a file.
        config: bool,
    },
}

/// Who sets the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// The runtime, from its configuration or its options.
    Runtime,
    /// The harness, by a cgroup around it: it has no limits of its own.
    Harness,
    /// The machine's size is the limit.
    Machine,
}

/// How to start one runtime. In templates `{root}` is the image as a directory, `{disk}` as a file, `{bundle}` the
/// bundle, `{config}` the machine's configuration, `{state}` a fresh directory, `{id}` a fresh name, `{kernel}`,
/// `{memory}` bytes, `{mib}`, `{cpus}`, `{append}` the kernel's command line; `{command}` alone becomes its words.
#[derive(Debug, PartialEq, Eq)]
pub struct Adapter {
    /// What `--kinds` calls it.
    pub name: &'static str,
    /// The program, looked for in `PATH`; empty: hv itself.
    pub program: &'static str,
    /// What it starts from.
    pub form: Form,
    /// Its arguments.
    pub arguments: &'static [&'static str],
    /// Who sets the limits.
    pub limits: Limits,
    /// Arguments that must succeed before it counts as present: a daemon that answers.
    pub probe: &'static [&'static str],
    /// What the shell does once, beforehand, with `{root}` as its first argument.
    pub once: &'static str,
    /// Arguments that print the workload's process id, where it is no child of the program.
    pub whose: &'static [&'static str],
    /// Arguments that remove what a launch that was killed leaves behind.
    pub remove: &'static [&'static str],
    /// What differs from hv's own kinds by its nature.
    pub mark: &'static str,
}

const PLAIN: Adapter = Adapter {
    name: "",
    program: "",
    form: Form::Bundle,
    arguments: &[],
    limits: Limits::Runtime,
    probe: &[],
    once: "",
    whose: &[],
    remove: &[],
    mark: "",
};

/// Of machines whose monitors know nothing of hv.
const SERIAL: &str = "its console is an emulated serial line, and the workload is PID 1";

/// All runtimes that hv knows to start.
pub const TABLE: [Adapter; 9] = [
    Adapter {
        name: "hv-oci",
        program: "",
        arguments: &["oci", "--root", "{state}", "run", "--bundle", "{bundle}", "{id}"],
        remove: &["oci", "--root", "{state}", "delete", "--force", "{id}"],
        ..PLAIN
    },
    Adapter {
        name: "runc",
        program: "runc",
        arguments: &["--root", "{state}", "run", "--bundle", "{bundle}", "{id}"],
        remove: &["--root", "{state}", "delete", "--force", "{id}"],
        ..PLAIN
    },
    Adapter {
        name: "crun",
        program: "crun",
        arguments: &["--root", "{state}", "run", "--bundle", "{bundle}", "{id}"],
        remove: &["--root", "{state}", "delete", "--force", "{id}"],
        ..PLAIN
    },
    Adapter {
        name: "youki",
        program: "youki",
        arguments: &["--root", "{state}", "run", "--bundle", "{bundle}", "{id}"],
        remove: &["--root", "{state}", "delete", "--force", "{id}"],
        ..PLAIN
    },
    Adapter {
        name: "bwrap",
        program: "bwrap",
        form: Form::Directory,
        arguments: &[
            "--unshare-all",
            "--die-with-parent",
            "--cap-drop",
            "ALL",
            "--ro-bind",
            "{root}",
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/tmp",
            "--",
            "{command}",
        ],
        limits: Limits::Harness,
        ..PLAIN
    },
    Adapter {
        name: "podman",
        program: "podman",
        form: Form::Directory,
        arguments: &[
            "run",
            "--rm",
            "--interactive",
            "--name",
            "{id}",
            "--network",
            "none",
            "--memory",
            "{memory}b",
            "--cpus",
            "{cpus}",
            "--read-only",
            "--rootfs",
            "{root}",
            "{command}",
        ],
        probe: &["info"],
        whose: &["inspect", "--format", "{{.State.Pid}}", "{id}"],
        remove: &["rm", "--force", "{id}"],
        mark: "a process of its own (conmon) that is no child of it watches the container",
        ..PLAIN
    },
    Adapter {
        name: "docker",
        program: "docker",
        form: Form::Directory,
        arguments: &[
            "run",
            "--rm",
            "--interactive",
            "--name",
            "{id}",
            "--network",
            "none",
            "--memory",
            "{memory}b",
            "--cpus",
            "{cpus}",
            "--read-only",
            "hv-compare",
            "{command}",
        ],
        probe: &["info"],
        once: "tar -C \"$1\" -c . | docker import - hv-compare",
        whose: &["inspect", "--format", "{{.State.Pid}}", "{id}"],
        remove: &["rm", "--force", "{id}"],
        mark: "a daemon does the work: its processor time and memory are not in the figures",
        ..PLAIN
    },
    Adapter {
        name: "firecracker",
        program: "firecracker",
        form: Form::Machine { config: true },
        arguments: &["--no-api", "--config-file", "{config}"],
        limits: Limits::Machine,
        mark: SERIAL,
        ..PLAIN
    },
    Adapter {
        name: "qemu-microvm",
        program: "qemu-system-x86_64",
        form: Form::Machine { config: false },
        arguments: &[
            "-machine",
            "microvm,accel=kvm,acpi=on,rtc=on,isa-serial=on",
            "-cpu",
            "host",
            "-no-user-config",
            "-nodefaults",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-no-reboot",
            "-m",
            "{mib}M",
            "-smp",
            "{cpus}",
            "-kernel",
            "{kernel}",
            "-append",
            "{append}",
            "-drive",
            "id=root,file={disk},format=raw,if=none,readonly=on",
            "-device",
            "virtio-blk-device,drive=root",
        ],
        limits: Limits::Machine,
        mark: SERIAL,
        ..PLAIN
    },
];

/// The adapter of this name.
pub fn find(name: &str) -> Option<&'static Adapter> {
    TABLE.iter().find(|adapter| adapter.name == name)
}

/// The first directory of `PATH` that has this program.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// A word for what it starts from.
pub fn takes(form: Form) -> &'static str {
    match form {
        Form::Directory => "a root directory",
        Form::Bundle => "an OCI bundle",
        Form::Machine { .. } => "a disk and a kernel",
    }
}

impl Adapter {
    /// The program's file, if it is there.
    pub fn file(&self) -> Option<PathBuf> {
        if self.program.is_empty() { std::env::current_exe().ok() } else { on_path(self.program) }
    }

    /// Why it cannot be started here, if it cannot.
    pub fn obstacle(&self) -> Option<String> {
        let Some(program) = self.file() else {
            return Some(format!("there is no {} in PATH", self.program));
        };
        if self.probe.is_empty() {
            return None;
        }
        let probed = Command::new(program).args(self.probe).stdin(Stdio::null()).output();
        match probed {
            Ok(output) if output.status.success() => None,
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said: String = said.lines().last().unwrap_or("no message").escape_debug().collect();
                Some(format!("`{} {}` failed: {said}", self.program, self.probe.join(" ")))
            }
            Err(error) => Some(format!("{} cannot be run: {error}", self.program)),
        }
    }

    /// Why it cannot start this image with these options, if it cannot.
    pub fn refuses(&self, setup: &Setup) -> Option<String> {
        let Form::Machine { .. } = self.form else { return None };
        match (setup.image.is_file(), &setup.kernel) {
            (false, _) => Some("it takes the image as a file, and this is a directory".into()),
            (_, None) => Some(
                "it takes an unpacked kernel that has the image's file system built in: --kernel FILE".into(),
            ),
            _ if setup.command.is_empty() => None,
            _ => Some("a command of your own cannot be handed over on a kernel's command line".into()),
        }
    }

    /// True when the image has to be a directory.
    pub fn needs_directory(&self) -> bool {
        !matches!(self.form, Form::Machine { .. })
    }

    /// Does what has to be done once.
    ///
    /// # Errors
    /// It failed: what it said.
    pub fn once(&self, root: &Path) -> Result<(), String> {
        if self.once.is_empty() {
            return Ok(());
        }
        let done = Command::new("sh").args(["-ec", self.once, "sh"]).arg(root).stdin(Stdio::null()).output();
        match done {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().escape_debug().collect()),
            Err(error) => Err(format!("sh cannot be run: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Contender;
    use super::*;

    #[test]
    fn names_are_contenders_and_differ_from_each_other() {
        for adapter in &TABLE {
            let who = Contender::try_from(adapter.name.to_owned()).unwrap();
            assert_eq!(who.kind(), None);
            assert_eq!(find(adapter.name).map(|found| found.program), Some(adapter.program));
        }
        let mut names: Vec<_> = TABLE.iter().map(|adapter| adapter.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }

    #[test]
    fn every_template_names_its_image_and_its_end_where_it_needs_them() {
        for adapter in &TABLE {
            let words = adapter.arguments.join(" ") + adapter.once;
            let image = match adapter.form {
                Form::Bundle => "{bundle}",
                Form::Directory if !adapter.once.is_empty() => "$1",
                Form::Directory => "{root}",
                Form::Machine { config: true } => "{config}",
                Form::Machine { config: false } => "{disk}",
            };
            assert!(words.contains(image), "{}", adapter.name);
            assert_eq!(words.contains("{command}"), adapter.form == Form::Directory, "{}", adapter.name);
        }
    }
}
