//! A guest of a few instructions on this machine's own KVM: what is left is the monitor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::figures::{median, on_path};
use crate::cache;

/// Runs of each monitor that are measured.
const RUNS: usize = 20;
/// Where the guest is loaded and entered.
const ENTRY: u64 = 16 << 20;
/// mov dx, 0x3f8; mov al, 'x'; out dx, al; mov al, 0xfe; out 0x64, al; hlt
const CODE: &[u8] = &[0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xb0, 0xfe, 0xe6, 0x64, 0xf4];

/// What one monitor needed.
pub struct Tiny {
    /// Median of the whole process, in microseconds of wall time.
    pub us: u64,
    /// System calls of one run, of all threads; None without strace.
    pub calls: Option<usize>,
}

/// Runs the guest with `hv` (the example `boot`) and with the peers found. None where /dev/kvm is missing.
///
/// # Errors
/// The guest's file cannot be written, or a monitor does not run it.
pub fn measure(hv: &Path, firecracker: Option<&Path>) -> Result<Option<(Tiny, Option<Tiny>)>> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(None);
    }
    let dir = cache::root()?.join("bench");
    let (kernel, empty) = (write(&dir, "tiny-guest", &elf())?, write(&dir, "empty", b"")?);
    let config = format!(
        r#"{{"boot-source":{{"kernel_image_path":"{}","boot_args":""}},"drives":[],"machine-config":{{"vcpu_count":1,"mem_size_mib":64}}}}"#,
        kernel.display()
    );
    let config = write(&dir, "tiny-guest.json", config.as_bytes())?;
    let text = |path: &Path| path.display().to_string();
    let mut commands = vec![vec![text(hv), text(&kernel), text(&empty), "1".into(), "64".into()]];
    if let Some(peer) = firecracker {
        commands.push(vec![text(peer), "--no-api".into(), "--config-file".into(), text(&config)]);
    }
    let mut times = vec![Vec::new(); commands.len()];
    // Alternately, so that a slow moment of this machine hits all; the first of each is dropped.
    for run in 0..=RUNS {
        for (command, times) in commands.iter().zip(&mut times) {
            let started = Instant::now();
            quietly(command)?;
            if run > 0 {
                times.push(started.elapsed().as_micros() as u64);
            }
        }
    }
    let mut results = Vec::new();
    for (command, times) in commands.iter().zip(times) {
        results.push(Tiny { us: median(times).unwrap_or_default(), calls: calls(&dir, command)? });
    }
    let mut results = results.into_iter();
    Ok(results.next().map(|hv| (hv, results.next())))
}

fn quietly(command: &[String]) -> Result<()> {
    let status = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("run {}", command[0]))?;
    ensure!(status.success(), "{}: {status}", command.join(" "));
    Ok(())
}

/// System calls that the command makes.
fn calls(dir: &Path, command: &[String]) -> Result<Option<usize>> {
    let Some(strace) = on_path("strace") else { return Ok(None) };
    let log = dir.join("calls");
    let mut traced = vec![strace.display().to_string(), "-f".into(), "-o".into(), log.display().to_string()];
    traced.extend_from_slice(command);
    quietly(&traced)?;
    let log = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
    // Signals and ends of threads are lines too, and an interrupted call is two.
    let is_call =
        |line: &&str| !line.contains(" resumed>") && !line.contains(" --- ") && !line.contains(" +++ ");
    Ok(Some(log.lines().filter(is_call).count()))
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let path = dir.join(name);
    fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// An ELF kernel of one segment.
fn elf() -> Vec<u8> {
    let mut elf = vec![0; 0x1000];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    // Executable, x86-64, version 1, entry, program headers at 64: one of 56 bytes.
    put(16, &[2, 0, 62, 0, 1]);
    put(24, &ENTRY.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &[64, 0, 56, 0, 1]);
    // To be loaded; offset, virtual and physical address, lengths in file and memory.
    put(64, &[1, 0, 0, 0, 5]);
    for (at, value) in
        [(72, 0x1000), (80, ENTRY), (88, ENTRY), (96, CODE.len() as u64), (104, CODE.len() as u64)]
    {
        put(at, &value.to_le_bytes());
    }
    elf.extend_from_slice(CODE);
    elf
}
