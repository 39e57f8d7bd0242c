//! The same on this machine itself, beside the peers that it has.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;

use crate::bench::figures::{median, on_path};
use crate::bench::table::{markdown, ms, ratio};
use crate::{cache, rootfs, workspace};

/// Runs of each that are measured.
const RUNS: usize = 30;
const PEERS: [&str; 3] = ["runc", "crun", "youki"];
/// The peer whose figure is the aim's: crun does not start on hosts with both kinds of cgroups.
const MEASURE: &str = "runc";

/// The table: wall time, median and least. Who is missing here, or cannot start here, is named.
///
/// # Errors
/// The bundle cannot be made.
pub fn measure() -> Result<String> {
    let image = rootfs::demo()?.join("demo");
    let bundle = bundle(&image)?;
    let hv = workspace::bin_dir("release").join("hv").display().to_string();
    let image = image.display().to_string();
    let mut commands: Vec<(&str, Vec<String>)> = vec![
        ("hv ctr, directory", [hv.as_str(), "ctr", &image, "--", "true"].map(str::to_owned).to_vec()),
        ("hv oci", [hv.as_str(), "oci", "run", "NAME"].map(str::to_owned).to_vec()),
    ];
    for peer in PEERS {
        if let Some(path) = on_path(peer) {
            commands.push((peer, vec![path.display().to_string(), "run".into(), "NAME".into()]));
        }
    }
    let mut times: Vec<Option<Vec<u64>>> = vec![Some(Vec::new()); commands.len()];
    // Alternately, so that a slow moment of this machine hits all; the first of each is dropped.
    for run in 0..=RUNS {
        for ((_, command), times) in commands.iter().zip(&mut times) {
            let Some(list) = times else { continue };
            match once(&bundle, command, run)? {
                Some(us) if run > 0 => list.push(us),
                Some(_) => {}
                None => *times = None,
            }
        }
    }
    let found = |name: &str| {
        let at = commands.iter().position(|(title, _)| *title == name)?;
        Some(times[at].clone())
    };
    let middle = |times: &Option<Vec<u64>>| times.clone().and_then(median);
    let measure = found(MEASURE).and_then(|times| middle(&times));
    let row = |name: &str| match found(name) {
        None => [name, "absent", "-", "-"].map(str::to_owned).to_vec(),
        Some(times) => match middle(&times) {
            None => [name, "does not start here", "-", "-"].map(str::to_owned).to_vec(),
            Some(value) => {
                let least = times.and_then(|times| times.into_iter().min()).unwrap_or_default();
                vec![name.into(), ms(value), ms(least), measure.map_or("-".into(), |all| ratio(value, all))]
            }
        },
    };
    let names = ["hv ctr, directory", "hv oci"].into_iter().chain(PEERS);
    Ok(markdown(&["", "median", "least", "times runc's"], &names.map(row).collect::<Vec<_>>()))
}

/// Microseconds from exec to exit; None if it does not start a container here.
fn once(bundle: &Path, command: &[String], run: usize) -> Result<Option<u64>> {
    let name = format!("bench-{}-{run}", std::process::id());
    let args = command[1..].iter().map(|word| if word == "NAME" { &name } else { word });
    let mut child = Command::new(&command[0]);
    child.args(args).current_dir(bundle).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let status = child.status().with_context(|| format!("run {}", command[0]))?;
    Ok(status.success().then(|| started.elapsed().as_micros() as u64))
}

/// A bundle with what every engine asks for, and nothing that only some hosts have.
fn bundle(image: &Path) -> Result<std::path::PathBuf> {
    let dir = cache::root()?.join("bench/bundle");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/", "noNewPrivileges": true,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": image, "readonly": true},
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    let path = dir.join("config.json");
    fs::write(&path, config.to_string()).with_context(|| format!("write {}", path.display()))?;
    Ok(dir)
}
