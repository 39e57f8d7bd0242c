//! From a template to a command line and the files that it names.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hv_common::Id;
use hv_common::seccomp::{Profile, names};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Adapter, Form};
use crate::compare::Setup;
use crate::compare::launch::WAITING;
use crate::error::{Failure, Result};

/// The bundle's configuration but for command, root and limits.
const BUNDLE: &str = include_str!("config.json");
/// Microseconds of a processor's time that a quota is of.
const PERIOD: u64 = 100_000;
/// No system call has a larger number yet.
const CALLS: u32 = 512;
/// A guest without a network that says nothing, runs the workload as PID 1 on its console, and whose end is the
/// machine's: a panic resets it at once.
const APPEND: &str = "console=ttyS0 quiet loglevel=0 reboot=k panic=-1 root=/dev/vda ro";

/// What belongs to one launch of a peer.
pub struct Files {
    /// Whose.
    pub adapter: &'static Adapter,
    program: PathBuf,
    words: Words,
    _dir: TempDir,
}

impl Files {
    /// The process that a runtime with a daemon names as the workload.
    pub fn workload(&self) -> Option<i32> {
        let named = self.run(self.adapter.whose)?;
        String::from_utf8(named).ok()?.trim().parse().ok().filter(|pid| *pid > 0)
    }

    /// Removes what a launch that was killed left behind.
    pub fn remove(&self) {
        self.run(self.adapter.remove);
    }

    fn run(&self, template: &[&str]) -> Option<Vec<u8>> {
        if template.is_empty() {
            return None;
        }
        let words = template.iter().map(|word| self.words.fill(word));
        let done = Command::new(&self.program).args(words).stdin(Stdio::null()).output().ok()?;
        done.status.success().then_some(done.stdout)
    }
}

/// The values of a template's names.
struct Words(Vec<(&'static str, OsString)>);

impl Words {
    /// `template` with the name in braces replaced that it has, if it has one. What a value holds is left alone.
    fn fill(&self, template: &str) -> OsString {
        let found = self.0.iter().find_map(|(name, value)| Some((template.split_once(name)?, value)));
        let Some(((before, after), value)) = found else { return template.into() };
        OsString::from_vec([before.as_bytes(), value.as_bytes(), after.as_bytes()].concat())
    }
}

/// The command line of one launch, and its files in a directory of its own.
///
/// # Errors
/// A file cannot be written, or the program has gone from `PATH`.
pub fn prepare(adapter: &'static Adapter, setup: &Setup, id: &Id) -> Result<(Command, Files)> {
    let program =
        adapter.file().ok_or_else(|| Failure::refused(format!("there is no {} in PATH", adapter.program)))?;
    let dir = tempfile::tempdir()
        .map_err(|source| Failure::new("cannot make a directory for the launch", source))?;
    let path = |name: &str| dir.path().join(name);
    let word = |path: &Path| path.as_os_str().to_owned();
    let append = format!("{APPEND} init={} -- {} \"{}\"", WAITING[0], WAITING[1], WAITING[2]);
    let kernel = setup.kernel.as_deref().map_or_else(OsString::new, word);
    let words = Words(vec![
        ("{root}", word(&setup.root)),
        ("{disk}", word(&setup.image)),
        ("{bundle}", word(&path("bundle"))),
        ("{config}", word(&path("machine.json"))),
        ("{state}", word(&path("state"))),
        ("{id}", id.as_str().into()),
        ("{kernel}", kernel),
        ("{memory}", setup.memory.to_string().into()),
        ("{mib}", (setup.memory >> 20).to_string().into()),
        ("{cpus}", setup.cpus.to_string().into()),
        ("{append}", append.clone().into()),
    ]);
    match adapter.form {
        Form::Directory | Form::Machine { config: false } => {}
        Form::Bundle => {
            std::fs::create_dir(path("bundle"))
                .map_err(|source| Failure::new("cannot make the bundle", source))?;
            write(&path("bundle/config.json"), &bundle(setup)?)?;
        }
        Form::Machine { config: true } => write(&path("machine.json"), &machine(setup, &append))?,
    }
    let mut command = Command::new(&program);
    for word in adapter.arguments {
        match *word {
            "{command}" => command.args(command_words(setup)),
            word => command.arg(words.fill(word)),
        };
    }
    Ok((command, Files { adapter, program, words, _dir: dir }))
}

fn write(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, value.to_string())
        .map_err(|source| Failure::new(format!("cannot write {}", path.display()), source))
}

fn command_words(setup: &Setup) -> Vec<OsString> {
    if setup.command.is_empty() { WAITING.map(OsString::from).into() } else { setup.command.clone() }
}

/// The configuration of a container with the command, the limits, the capabilities and the system calls that one of
/// `hv ctr` has.
fn bundle(setup: &Setup) -> Result<Value> {
    let mut config: Value = serde_json::from_str(BUNDLE)?;
    let words: Vec<String> =
        command_words(setup).iter().map(|word| word.to_string_lossy().into_owned()).collect();
    config["process"]["args"] = json!(words);
    config["root"]["path"] = json!(setup.root.to_string_lossy());
    config["linux"]["resources"] = json!({
        "memory": { "limit": setup.memory },
        "cpu": { "quota": u64::from(setup.cpus) * PERIOD, "period": PERIOD },
    });
    let profile = Profile::container();
    let allowed: Vec<&str> =
        (0..CALLS).filter(|number| profile.allowed(*number)).filter_map(names::of).collect();
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": allowed, "action": "SCMP_ACT_ALLOW" }],
    });
    if let Some(edit) = setup.edit {
        edit(&mut config);
    }
    Ok(config)
}

/// Firecracker's configuration file.
fn machine(setup: &Setup, append: &str) -> Value {
    let kernel = setup.kernel.as_deref().unwrap_or(Path::new(""));
    json!({
        "boot-source": { "kernel_image_path": kernel.to_string_lossy(), "boot_args": append },
        "drives": [{
            "drive_id": "root", "path_on_host": setup.image.to_string_lossy(),
            "is_root_device": false, "is_read_only": true,
        }],
        "machine-config": { "vcpu_count": setup.cpus, "mem_size_mib": setup.memory >> 20 },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn setup() -> Setup {
        Setup {
            hv: "/hv".into(),
            image: "/image.erofs".into(),
            root: "/root dir".into(),
            kernel: Some("/vmlinux".into()),
            edit: None,
            machine: Vec::new(),
            memory: 64 << 20,
            cpus: 2,
            command: Vec::new(),
            injected: None,
            files: Vec::new(),
            deadline: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_value_is_one_word_whatever_it_holds() {
        let words = Words(vec![("{root}", "/a b/{id}".into()), ("{id}", "x".into())]);
        assert_eq!(words.fill("--bind={root}"), "--bind=/a b/{id}");
        assert_eq!(words.fill("{{.State.Pid}}"), "{{.State.Pid}}");
    }

    #[test]
    fn a_bundle_has_the_command_and_the_limits() {
        let config = bundle(&setup()).unwrap();
        assert_eq!(config["process"]["args"], json!(WAITING));
        assert_eq!(config["root"]["path"], "/root dir");
        assert_eq!(config["linux"]["resources"]["memory"]["limit"], 64 << 20);
        assert_eq!(config["linux"]["resources"]["cpu"]["quota"], 200_000);
        let allowed = config["linux"]["seccomp"]["syscalls"][0]["names"].as_array().unwrap();
        assert!(allowed.contains(&json!("read")) && !allowed.contains(&json!("bpf")), "{allowed:?}");
    }

    #[test]
    fn a_machine_runs_the_workload_as_its_first_process() {
        let config = machine(&setup(), "a -- b");
        assert_eq!(config["machine-config"], json!({ "vcpu_count": 2, "mem_size_mib": 64 }));
        assert_eq!(config["boot-source"]["kernel_image_path"], "/vmlinux");
    }
}
