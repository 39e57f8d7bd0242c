//! Kernels, what they are packed in, what is packed for them, and CPU templates.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use hv_common::wire::{GuestConfig, GuestRoot, VERSION};
use hv_common::{Format, Process};
use hv_image::modules::Module;
use hv_image::{initramfs, kernel};
use hv_vmm::arch::x86_64::template;
use hv_vmm::boot::elf::Kernel;
use hv_vmm::memory;

use crate::devices::memory_file;
use crate::input::Input;

/// Of the machine that a kernel is loaded into.
const MEMORY: u64 = 64 << 20;
/// Where no cache can be: everything is made anew, in memory.
const NO_CACHE: &str = "/proc/self/none";

/// Where an open file can be opened once more.
fn path_of(file: &std::fs::File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// An ELF kernel: what fits is loaded.
pub fn elf(data: &[u8]) {
    let file = memory_file("kernel", data);
    let Ok(kernel) = Kernel::read(&file, MEMORY) else { return };
    assert!(kernel.end() <= MEMORY && kernel.entry < kernel.end());
    let memory = memory::map(MEMORY).expect("64 MiB can be mapped");
    // What was read may still not be mapped.
    let _ = kernel.load(&file, &memory);
}

/// A kernel file as users have it: a bzImage is unpacked.
pub fn bzimage(data: &[u8]) {
    let file = memory_file("kernel", data);
    if let Ok(kernel) = kernel::open(&path_of(&file), Path::new(NO_CACHE)) {
        let _ = kernel.config();
    }
}

/// A CPU template.
pub fn cpu_template(data: &[u8]) {
    let file = memory_file("template", data);
    let _ = template::file::read(&path_of(&file));
}

/// The initramfs writer: what it writes can be read, whatever the names and the user's own archive are.
pub fn initramfs(data: &[u8]) {
    let mut input = Input(data);
    let mut word = || String::from_utf8_lossy(input.block()).into_owned();
    let process = Process {
        args: vec![word().into(), word().into()],
        env: vec![word().into()],
        cwd: word().into(),
        user: Some(word()),
        terminal: None,
        program: hv_common::Program::Image,
        landlock: vec![],
    };
    let config = GuestConfig {
        version: VERSION,
        hostname: word(),
        modules: vec![word()],
        later: Vec::new(),
        root: GuestRoot { format: Format::Erofs, writable: false },
        network: Vec::new(),
        process,
        rights: None,
        given: hv_common::wire::Given::default(),
        pids: None,
    };
    let modules: Vec<_> = (0..input.u8() % 4)
        .map(|n| Module { name: format!("module_{n}"), bytes: input.block().to_vec() })
        .collect();
    let init = input.block();
    let user = input.0;
    let (at_once, later) = modules.split_at(modules.len() / 2);
    let Ok(archive) = initramfs::build(init, [at_once, later], config, Some(user), None) else { return };
    assert!(archive.starts_with(user));
    let names = names(&archive[user.len().next_multiple_of(4)..]);
    assert_eq!(names.last().map(String::as_str), Some("TRAILER!!!"));
    assert_eq!(names.iter().filter(|name| name.contains(".ko")).count(), modules.len());
}

/// The names in an archive of the format `newc`.
///
/// # Panics
/// It is none.
fn names(mut archive: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        assert!(archive.starts_with(b"070701"), "no header behind {names:?}");
        let field = |index: usize| {
            let digits = std::str::from_utf8(&archive[6 + 8 * index..][..8]).expect("fields are ASCII");
            usize::from_str_radix(digits, 16).expect("fields are hexadecimal")
        };
        let (size, name_size) = (field(6), field(11));
        let name = &archive[110..110 + name_size];
        assert_eq!(name.last(), Some(&0));
        names.push(String::from_utf8_lossy(&name[..name_size - 1]).into_owned());
        if names.last().is_some_and(|name| name == "TRAILER!!!") {
            return names;
        }
        let contents = (110 + name_size).next_multiple_of(4);
        archive = &archive[(contents + size).next_multiple_of(4)..];
    }
}
