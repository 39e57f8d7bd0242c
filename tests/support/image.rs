//! Images for tests: a busybox root as a directory and in every format whose tool is here, made once for
//! all test programs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// Counts up when the tree below changes.
const RECIPE: u32 = 1;

/// What `hv` starts when no command is given: the image's own /sbin/init.
pub const DEFAULT_OUTPUT: &str = "the image's own init";
/// The status it ends with.
pub const DEFAULT_STATUS: i32 = 7;

const FILES: [(&str, u32, &str); 5] = [
    ("etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"),
    ("etc/group", 0o644, "root:x:0:\nuser:x:1000:\nextra:x:2000:user\nother:x:3000:\n"),
    ("etc/data", 0o644, "from the image\n"),
    ("sbin/init", 0o755, "#!/bin/sh\necho \"the image's own init\"\nexit 7\n"),
    ("bin/noexec", 0o644, "#!/bin/sh\n"),
];

/// The image as a directory.
pub fn directory() -> PathBuf {
    all().join("root")
}

/// The image in each raw format that could be made here.
pub fn raw() -> Vec<PathBuf> {
    ["ext4", "squashfs", "erofs"]
        .into_iter()
        .map(|format| all().join(format!("root.{format}")))
        .filter(|path| path.exists())
        .collect()
}

/// Some raw image, the smallest to make; None if no tool is here.
pub fn any_raw() -> Option<PathBuf> {
    raw().into_iter().next()
}

/// SHA-256 of a file, or of all names, modes and contents below a directory.
pub fn digest(path: &Path) -> Vec<u8> {
    let mut hash = Sha256::new();
    add(path, &mut hash);
    hash.finalize().to_vec()
}

fn add(path: &Path, hash: &mut Sha256) {
    let found = fs::symlink_metadata(path).unwrap();
    hash.update(path.as_os_str().as_encoded_bytes());
    hash.update(found.permissions().mode().to_le_bytes());
    if found.is_symlink() {
        hash.update(fs::read_link(path).unwrap().as_os_str().as_encoded_bytes());
    } else if found.is_dir() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| add(entry, hash));
    } else {
        hash.update(fs::read(path).unwrap());
    }
}

/// The directory with all of them. Test programs run at once: each makes it apart, the first one's stays.
fn all() -> &'static Path {
    static ALL: OnceLock<PathBuf> = OnceLock::new();
    ALL.get_or_init(|| {
        let busybox = busybox();
        let length = fs::metadata(&busybox).unwrap().len();
        let user = rustix::process::geteuid().as_raw();
        let place = std::env::temp_dir().join(format!("hv-test-images-{user}-{RECIPE}-{length}"));
        if !place.exists() {
            let making = tempfile::tempdir_in(std::env::temp_dir()).unwrap();
            fs::set_permissions(making.path(), fs::Permissions::from_mode(0o755)).unwrap();
            build(making.path(), &busybox);
            // Fails if another program was faster.
            let _ = fs::rename(making.path(), &place);
        }
        place
    })
}

/// A static busybox: of the demo image, or the host's.
fn busybox() -> PathBuf {
    let demo = std::env::var_os("HV_TEST_IMAGES").map(|images| Path::new(&images).join("demo/bin/busybox"));
    let places = demo.into_iter().chain(["/bin/busybox".into(), "/usr/bin/busybox".into()]);
    let found = places.into_iter().find(|place| place.exists());
    found.expect("tests need a static busybox: install busybox-static, or set HV_TEST_IMAGES")
}

fn build(place: &Path, busybox: &Path) {
    let root = place.join("root");
    for dir in ["bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root", "home/user", "mnt"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    let applets = Command::new(busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    for (path, mode, text) in FILES {
        fs::write(root.join(path), text).unwrap();
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    make("mke2fs", &["-q", "-t", "ext4", "-d", "root", "root.ext4", "16M"], place);
    make("mksquashfs", &["root", "root.squashfs", "-all-root", "-noappend", "-no-progress", "-quiet"], place);
    make("mkfs.erofs", &["--all-root", "root.erofs", "root"], place);
}

/// Runs a tool, if it is installed.
fn make(tool: &str, args: &[&str], dir: &Path) {
    let mut command = Command::new(tool);
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(status) = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").status() {
        assert!(status.success(), "{command:?}: {status}");
    }
}
