//! The attempts of `hv check` that change the process that makes them. Each runs alone in a process that
//! ends afterwards, in namespaces of its own wherever it would leave something behind.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use clap::ValueEnum;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Result, chain};

/// Something that can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attempt {
    /// A mount namespace.
    Mount,
    /// A pid namespace.
    Pid,
    /// A network namespace.
    Net,
    /// A host name of one's own.
    Uts,
    /// System V IPC and message queues of one's own.
    Ipc,
    /// A cgroup namespace.
    Cgroup,
    /// A user namespace.
    User,
    /// A user namespace, made by nobody in particular.
    Rootless,
    /// An overlay.
    Overlay,
    /// An EROFS image, mounted without a block device.
    Erofs,
    /// A loop device.
    Loop,
    /// A tun device.
    Tun,
    /// Rules of nftables.
    Nftables,
    /// Rules of Landlock.
    Landlock,
}

/// Without these, no container.
pub const NEEDED_BY_A_CONTAINER: [Attempt; 6] =
    [Attempt::Mount, Attempt::Pid, Attempt::Net, Attempt::Uts, Attempt::Ipc, Attempt::Overlay];

/// What was found, or why not.
type Found = std::result::Result<String, Box<dyn std::error::Error + Send + Sync>>;

impl Attempt {
    /// In the order of the table.
    pub const ALL: [Attempt; 14] = [
        Attempt::Mount,
        Attempt::Pid,
        Attempt::Net,
        Attempt::Uts,
        Attempt::Ipc,
        Attempt::Cgroup,
        Attempt::User,
        Attempt::Rootless,
        Attempt::Overlay,
        Attempt::Erofs,
        Attempt::Loop,
        Attempt::Tun,
        Attempt::Nftables,
        Attempt::Landlock,
    ];

    /// The first column of the table.
    pub fn what(self) -> &'static str {
        match self {
            Attempt::Mount => "mount namespace",
            Attempt::Pid => "pid namespace",
            Attempt::Net => "net namespace",
            Attempt::Uts => "uts namespace",
            Attempt::Ipc => "ipc namespace",
            Attempt::Cgroup => "cgroup namespace",
            Attempt::User => "user namespace",
            Attempt::Rootless => "userns without root",
            Attempt::Overlay => "overlay",
            Attempt::Erofs => "EROFS from a file",
            Attempt::Loop => "loop device",
            Attempt::Tun => "tun device",
            Attempt::Nftables => "nftables",
            Attempt::Landlock => "Landlock",
        }
    }

    /// What it is called on the command line.
    pub fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What helps if it fails.
    pub fn mend(self) -> &'static str {
        match self {
            Attempt::Mount | Attempt::Pid | Attempt::Net | Attempt::Uts | Attempt::Ipc | Attempt::Cgroup => {
                "run hv as root, or allow user namespaces (see below); a kernel without them cannot"
            }
            Attempt::User | Attempt::Rootless => {
                "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
                 kernel.apparmor_restrict_unprivileged_userns"
            }
            Attempt::Overlay => "modprobe overlay; without root, Linux 5.11 or newer is needed",
            Attempt::Erofs => "as root hv uses a loop device instead; without root, start from a directory",
            Attempt::Loop => "modprobe loop, and run hv as root",
            Attempt::Tun => "modprobe tun, and let this user open /dev/net/tun",
            Attempt::Nftables => "modprobe nf_tables",
            Attempt::Landlock => {
                "leave out --landlock; or boot with lsm=landlock,... and Linux 5.13 or newer"
            }
        }
    }

    /// Makes the attempt.
    fn make(self) -> Found {
        match self {
            Attempt::Mount => namespace(CloneFlags::CLONE_NEWNS),
            Attempt::Pid => namespace(CloneFlags::CLONE_NEWPID),
            Attempt::Net => namespace(CloneFlags::CLONE_NEWNET),
            Attempt::Uts => namespace(CloneFlags::CLONE_NEWUTS),
            Attempt::Ipc => namespace(CloneFlags::CLONE_NEWIPC),
            Attempt::Cgroup => namespace(CloneFlags::CLONE_NEWCGROUP),
            Attempt::User => user_namespace(),
            Attempt::Rootless => rootless(),
            Attempt::Overlay => overlay(),
            Attempt::Erofs => erofs(),
            Attempt::Loop => loop_device(),
            Attempt::Tun => tun(),
            Attempt::Nftables => nftables(),
            Attempt::Landlock => landlock(),
        }
    }
}

fn landlock() -> Found {
    Ok(format!("version {}", hv_common::sys::landlock::version()?))
}

/// Makes one attempt and prints the answer: a state, a tab, and what was found.
///
/// # Errors
/// None: a failed attempt is an answer.
pub fn run(attempt: Attempt) -> Result<u8> {
    let answer = match attempt.make() {
        Ok(found) => format!("ok\t{found}"),
        Err(error) => {
            // What can be done without, or in another way.
            let spared = matches!(attempt, Attempt::Erofs | Attempt::Cgroup);
            format!("{}\t{}", if spared { "limited" } else { "missing" }, chain(error.as_ref()))
        }
    };
    // Whoever asked may be gone.
    let _ = writeln!(io::stdout(), "{}", answer.replace('\n', " "));
    Ok(0)
}

/// Takes the rights that a container's maker has: root's own, or those in a user namespace.
fn become_maker() -> std::result::Result<&'static str, Box<dyn std::error::Error + Send + Sync>> {
    if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
        return Ok("");
    }
    user_namespace()?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok("in a user namespace")
}

fn namespace(flag: CloneFlags) -> Found {
    let how = become_maker()?;
    unshare(flag)?;
    Ok(how.into())
}

fn user_namespace() -> Found {
    let (user, group) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    Ok(String::new())
}

/// As nobody, if this process may become anybody.
fn rootless() -> Found {
    const NOBODY: u32 = 65534;
    if Uid::effective().is_root() {
        setgroups(&[])?;
        setresgid(NOBODY.into(), NOBODY.into(), NOBODY.into())?;
        setresuid(NOBODY.into(), NOBODY.into(), NOBODY.into())?;
        // Its own /proc files belong to root since it was somebody else, until it may be inspected again.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
    }
    user_namespace()
}

fn overlay() -> Found {
    let how = become_maker()?;
    let private: Option<&str> = None;
    mount(private, "/", private, MsFlags::MS_REC | MsFlags::MS_PRIVATE, private)?;
    let place = ["/tmp", "/run", "/mnt"].into_iter().map(Path::new).find(|place| place.is_dir());
    let place = place.ok_or("no /tmp, /run or /mnt to try it in")?;
    mount(Some("hv-check"), place, Some("tmpfs"), MsFlags::empty(), private)?;
    let layers = ["lower", "upper", "work", "merged"].map(|name| place.join(name));
    layers.iter().try_for_each(fs::create_dir)?;
    let [lower, upper, work, merged] = layers.each_ref().map(|path| path.display());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    mount(Some("hv-check"), &layers[3], Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    fs::write(format!("{merged}/file"), "x")?;
    Ok(how.into())
}

/// The smallest EROFS image: a superblock and an empty root directory
/// (fs/erofs/erofs_fs.h: `struct erofs_super_block`, `struct erofs_inode_compact`).
fn smallest_erofs() -> Vec<u8> {
    const BLOCK: usize = 4096;
    const ROOT: u16 = 1;
    let mut image = vec![0; 2 * BLOCK];
    let mut put = |offset: usize, bytes: &[u8]| image[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(1024, &0xe0f5_e1e2u32.to_le_bytes());
    put(1024 + 12, &[12]);
    put(1024 + 14, &ROOT.to_le_bytes());
    put(1024 + 16, &1u64.to_le_bytes());
    put(1024 + 36, &2u32.to_le_bytes());
    put(1024 + 40, &1u32.to_le_bytes());
    let root = BLOCK + usize::from(ROOT) * 32;
    put(root + 4, &0o040_755u16.to_le_bytes());
    put(root + 6, &2u16.to_le_bytes());
    image
}

/// A nameless file with that image, on a disk if there is one: memory cannot be mounted from.
fn image_file() -> std::result::Result<File, Box<dyn std::error::Error + Send + Sync>> {
    let dir = ["/var/tmp", "/tmp"].into_iter().find(|dir| Path::new(dir).is_dir());
    let dir = dir.ok_or("no /var/tmp or /tmp to try it in")?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all_at(&smallest_erofs(), 0)?;
    Ok(file)
}

fn erofs() -> Found {
    let file = image_file()?;
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", source.as_str())?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    Ok(String::new())
}

fn loop_device() -> Found {
    hv_container::try_loop_device(&image_file()?)?;
    Ok(String::new())
}

fn tun() -> Found {
    let how = become_maker()?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    hv_common::sys::tun::open_tap()?;
    Ok(how.into())
}

/// Asks nf_tables for its generation, the smallest question it answers.
fn nftables() -> Found {
    /// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN` (linux/netfilter/nfnetlink.h, nf_tables.h).
    const GET_GENERATION: u16 = (10 << 8) | 16;
    const NLM_F_REQUEST: u16 = 1;
    const NLMSG_ERROR: u16 = 2;
    let how = become_maker()?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(rustix::net::netlink::NETFILTER),
    )?;
    let mut question = Vec::new();
    // struct nlmsghdr, then struct nfgenmsg: any family, version 0.
    question.extend_from_slice(&20u32.to_ne_bytes());
    question.extend_from_slice(&GET_GENERATION.to_ne_bytes());
    question.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    question.extend_from_slice(&[0; 12]);
    rustix::net::send(&socket, &question, SendFlags::empty())?;
    let mut answer = [0u8; 256];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    match (&answer[..length], length) {
        ([_, _, _, _, kind0, kind1, ..], 20..) if u16::from_ne_bytes([*kind0, *kind1]) == NLMSG_ERROR => {
            let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
            Err(io::Error::from_raw_os_error(-code).into())
        }
        _ => Ok(how.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_is_in_the_table_once_under_a_name_of_its_own() {
        let mut names: Vec<&str> = Attempt::ALL.iter().map(|attempt| attempt.what()).collect();
        assert!(names.iter().all(|name| name.len() <= 20), "the first column is 20 wide");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Attempt::value_variants().len());
        assert_eq!(Attempt::Rootless.word(), "rootless");
    }
}
