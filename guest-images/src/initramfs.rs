//! The archive that a guest starts from: hv-init, the modules it loads, and this run's configuration.
//!
//! Written as `newc` (Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed: it goes
//! straight into guest memory, and unpacking would cost the guest more than copying costs the host.

use std::io;

use hv_common::Program;
use hv_common::wire::{self, GuestConfig};

use crate::modules::Module;

/// The most bytes that an initramfs may have: a guest has to hold it twice while it unpacks it.
pub const MAX_SIZE: usize = 1 << 30;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// What cannot be put into an initramfs.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// Modules and initrd together are too large.
    #[error("cannot make an initramfs of {size} bytes, more than {MAX_SIZE}: use a smaller `--initrd`")]
    TooLarge {
        /// Bytes that it would have.
        size: usize,
    },
    /// Arguments and environment do not fit into the configuration.
    #[error(
        "cannot tell the guest what to run: arguments and environment are longer than {} bytes",
        wire::MAX_FRAME
    )]
    Config {
        /// Why.
        source: io::Error,
    },
}

/// Builds the initramfs. `config.modules` and `config.later` are replaced by where `modules`, those to load at once
/// and those to load later, are put; `initrd` is the user's
/// own archive, of which everything stays but `/init` and `/hv`. `injected` is the program of `config.process` if that
/// is not the root's; where it is put replaces its path.
///
/// # Errors
/// The result would be too large, or the configuration is.
pub fn build(
    init: &[u8],
    [modules, later]: [&[Module]; 2],
    mut config: GuestConfig,
    initrd: Option<&[u8]>,
    injected: Option<&[u8]>,
) -> Result<Vec<u8>, InitramfsError> {
    let user = initrd.unwrap_or_default();
    let all = || modules.iter().chain(later);
    let program = injected.unwrap_or_default();
    let size =
        all().map(|module| module.bytes.len()).sum::<usize>() + init.len() + user.len() + program.len();
    if size > MAX_SIZE {
        return Err(InitramfsError::TooLarge { size });
    }
    let paths =
        |modules: &[Module]| modules.iter().map(|module| format!("/{}", module_path(module))).collect();
    (config.modules, config.later) = (paths(modules), paths(later));
    if injected.is_some() {
        config.process.program = Program::Injected(wire::PROGRAM_PATH.into());
    }
    let config = wire::encode(&config).map_err(|source| InitramfsError::Config { source })?;

    // The kernel unpacks archives one after the other, each from a multiple of four bytes, over what the
    // one before has made.
    let mut archive = Archive { bytes: Vec::with_capacity(size + config.len() + 16384), inode: 0 };
    archive.bytes.extend_from_slice(user);
    archive.align();
    // A file of the user's would be written over in place, and with it every hard link to it (busybox!). A
    // link of the same name removes it first, and the file after it removes the link.
    archive.entry("init", LINK, 0, b"hv");
    archive.entry("init", PROGRAM, 0, init);
    archive.entry("dev", DIRECTORY, 0, b"");
    archive.entry("dev/console", CHARACTER_DEVICE, 5 << 8 | 1, b"");
    // A program without standard streams ends before its first line: this is for a kernel without a console.
    archive.entry("dev/null", CHARACTER_DEVICE, 1 << 8 | 3, b"");
    archive.entry("hv", DIRECTORY, 0, b"");
    archive.entry("hv/modules", DIRECTORY, 0, b"");
    for module in all() {
        archive.entry(&module_path(module), FILE, 0, &module.bytes);
    }
    if let Some(program) = injected {
        archive.entry(wire::PROGRAM_PATH.trim_start_matches('/'), PROGRAM, 0, program);
    }
    archive.entry(wire::CONFIG_PATH.trim_start_matches('/'), FILE, 0, &config);
    archive.entry("TRAILER!!!", 0, 0, b"");
    Ok(archive.bytes)
}

fn module_path(module: &Module) -> String {
    format!("hv/modules/{}.ko", module.name)
}

struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// One header of thirteen hexadecimal numbers, the name, the contents. Device numbers are `major << 8 |
    /// minor`. Owner and times are zero, so that equal input gives equal bytes.
    fn entry(&mut self, name: &str, mode: u32, device: u32, contents: &[u8]) {
        self.inode += 1;
        let size = contents.len() as u32;
        let fields =
            [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device >> 8, device & 0xff, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(contents);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io::Write;
    use std::process::{Command, Stdio};

    use hv_common::wire::GuestRoot;
    use hv_common::{Format, Process};
    use proptest::prelude::*;

    use super::*;

    fn config(args: Vec<OsString>) -> GuestConfig {
        let cwd = "/".into();
        GuestConfig {
            version: wire::VERSION,
            hostname: "guest".into(),
            modules: vec!["/elsewhere".into()],
            later: vec!["/elsewhere".into()],
            root: GuestRoot { format: Format::Erofs, writable: false },
            network: Vec::new(),
            process: Process {
                args,
                env: Vec::new(),
                cwd,
                user: None,
                terminal: None,
                program: hv_common::Program::Image,
                landlock: vec![],
            },
            rights: None,
            given: wire::Given::default(),
            pids: None,
        }
    }

    fn module(name: &str, bytes: &[u8]) -> Module {
        Module { name: name.into(), bytes: bytes.into() }
    }

    /// Entries as the format has them: name, mode, contents.
    fn read(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let total = archive.len();
        let mut entries = Vec::new();
        loop {
            assert_eq!((total - archive.len()) % 4, 0);
            assert!(archive.starts_with(b"070701"));
            let field = |index: usize| {
                let text = std::str::from_utf8(&archive[6 + 8 * index..14 + 8 * index]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(archive[110..110 + name_size - 1].to_vec()).unwrap();
            let start = (110 + name_size).next_multiple_of(4);
            let contents = archive[start..start + size].to_vec();
            archive = &archive[(start + size).next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert!(archive.is_empty());
                return entries;
            }
            entries.push((name, mode, contents));
        }
    }

    #[test]
    fn init_modules_and_configuration_are_in_it() {
        let modules = [module("virtio", b"first"), module("virtio_blk", b"second")];
        let later = [module("button", b"third")];
        let archive = build(b"init!", [&modules, &later], config(vec!["true".into()]), None, None).unwrap();
        let entries = read(&archive);
        let contents = |name: &str| &entries.iter().rev().find(|entry| entry.0 == name).unwrap().2;
        assert_eq!(contents("init"), b"init!");
        assert_eq!(contents("hv/modules/virtio.ko"), b"first");
        let told: GuestConfig = wire::decode(contents("hv/config")).unwrap();
        assert_eq!(told.modules, ["/hv/modules/virtio.ko", "/hv/modules/virtio_blk.ko"]);
        assert_eq!(
            (contents("hv/modules/button.ko"), told.later),
            (&b"third".to_vec(), vec!["/hv/modules/button.ko".into()])
        );
        assert_eq!(told.process.args, ["true"]);
    }

    #[test]
    fn the_users_archive_comes_first_and_ours_is_aligned() {
        let archive = build(b"init", [&[], &[]], config(Vec::new()), Some(b"12345"), None).unwrap();
        assert_eq!(&archive[..8], b"12345\0\0\0");
        assert_eq!(read(&archive[8..])[1].0, "init");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let long = config(vec!["x".repeat(wire::MAX_FRAME).into()]);
        assert!(matches!(build(b"init", [&[], &[]], long, None, None), Err(InitramfsError::Config { .. })));
        let huge = vec![0; MAX_SIZE + 1];
        assert!(matches!(
            build(b"", [&[], &[]], config(vec![]), Some(&huge), None),
            Err(InitramfsError::TooLarge { .. })
        ));
    }

    #[test]
    fn cpio_reads_it_too() {
        let archive = build(b"init", [&[module("a", b"b")], &[]], config(Vec::new()), None, None).unwrap();
        let mut cpio = Command::new("cpio");
        cpio.arg("-tv").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let Ok(mut child) = cpio.spawn() else { return };
        child.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = child.wait_with_output().unwrap();
        let listing = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(listing.contains("-rwxr-xr-x   1 root     root            4"), "{listing}");
        assert!(listing.contains("5,   1") && listing.contains("hv/modules/a.ko"), "{listing}");
    }

    proptest! {
        #[test]
        fn every_archive_reads_back(
            init in proptest::collection::vec(any::<u8>(), 0..50),
            names in proptest::collection::btree_set("[a-z_]{1,20}", 0..6),
            user in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
        ) {
            let modules: Vec<_> = names.iter().map(|name| module(name, name.as_bytes())).collect();
            let archive = build(&init, [&modules, &[]], config(Vec::new()), user.as_deref(), None).unwrap();
            let start = user.map_or(0, |user| user.len().next_multiple_of(4));
            let entries = read(&archive[start..]);
            prop_assert_eq!(&entries[1].2, &init);
            prop_assert_eq!(entries.len(), 8 + modules.len());
        }
    }
}
