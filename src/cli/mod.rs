//! What was typed: clap types, and nothing else. What it means is decided in [`crate::plan`].
//!
//! [`machine`]: what only a microVM takes, a file for each group of options; [`control`]: what is asked of a
//! sandbox that runs; [`image`]: images and registries; [`oci`]: what engines type; [`quick`]: the grammar of one verb alone.

pub mod build;
pub mod compare;
pub mod control;
pub mod drill;
pub mod image;
pub mod machine;
pub mod oci;
mod pack;
pub mod quick;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use hv_common::Wall;

pub use self::compare::CompareArgs;
pub use self::control::{NameArgs, PsArgs, StopArgs};
pub use self::drill::DrillArgs;
pub use self::machine::MachineArgs;
pub use self::pack::PackArgs;
use crate::size::{parse_bytes, parse_cpus};

const STATUSES: &str = "\
Exit status: the command's own; 128+N if signal N ended it; 125 if hv itself
failed; 126 if the command cannot be executed; 127 if it is not found.
Example: hv vm rootfs.img -- uname -a";

/// The first page: verbs above all. Their options are on their own pages; `-h` and `-V` are what they always are.
const PAGE: &str = "\
{about}
{usage-heading} {usage}   (hv VERB --help: its options)
{subcommands}{after-help}";

/// Starts one image as a microVM or as a container, and compares the two walls.
#[derive(Debug, Parser)]
#[command(name = "hv", version, after_help = STATUSES, help_template = PAGE, max_term_width = 80, disable_help_subcommand = false)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start an image as a microVM: with a kernel of its own, on KVM
    #[command(after_help = VM_EXAMPLES)]
    Vm(RunArgs),
    /// Start an image as a container: on the host's kernel
    #[command(after_help = CTR_EXAMPLES)]
    Ctr(RunArgs),
    /// Start an image as a bare process, without a wall: the baseline of comparisons
    #[command(hide = true, after_help = "Example: hv process ./rootdir -- /bin/true")]
    Process(RunArgs),
    /// Show what runs
    #[command(after_help = control::PS_EXAMPLES)]
    Ps(PsArgs),
    /// Hold a sandbox: nothing in it runs until it is resumed
    #[command(after_help = "Example: hv pause web")]
    Pause(NameArgs),
    /// Let a held sandbox go on
    #[command(after_help = "Example: hv resume web")]
    Resume(NameArgs),
    /// Ask sandboxes to end, then end them
    #[command(after_help = control::STOP_EXAMPLES)]
    Stop(StopArgs),
    /// Show what a sandbox uses and what its devices have done, as JSON
    #[command(after_help = "Example: hv metrics web")]
    Metrics(NameArgs),
    /// Show the last output of a microVM's serial console
    #[command(after_help = "Example: hv console web")]
    Console(NameArgs),
    /// Start an image as each kind, many times: what each wall costs
    #[command(after_help = compare::EXAMPLES)]
    Compare(CompareArgs),
    /// Try to get out of an image's sandboxes: what each wall stops
    #[command(after_help = drill::EXAMPLES)]
    Drill(DrillArgs),
    /// Say what this host can and cannot do, why, and the mend
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Keep images: pull, load, ls, rm, inspect and more
    #[command(subcommand, after_help = image::EXAMPLES)]
    Image(image::ImageVerb),
    /// Show the images there are: hv image ls
    #[command(hide = true, after_help = image::store::LS_EXAMPLES)]
    Images(image::LsArgs),
    /// Get images from a registry: hv image pull
    #[command(hide = true, after_help = image::registry::PULL_EXAMPLES)]
    Pull(image::PullArgs),
    /// Send an image to a registry: hv image push
    #[command(hide = true, after_help = image::registry::PUSH_EXAMPLES)]
    Push(image::PushArgs),
    /// Keep a user and a password for a registry: hv image login
    #[command(hide = true, after_help = image::registry::LOGIN_EXAMPLES)]
    Login(image::LoginArgs),
    /// Forget them: hv image logout
    #[command(hide = true, after_help = image::registry::LOGOUT_EXAMPLES)]
    Logout(image::LogoutArgs),
    /// Make one image file of a directory or a tar, to keep and to hand on
    #[command(after_help = pack::PACK_EXAMPLES)]
    Pack(PackArgs),
    /// Make an image as a Dockerfile says
    #[command(after_help = build::EXAMPLES)]
    Build(build::BuildArgs),
    /// Keep kernels, so that --kernel may be left out
    #[command(subcommand, after_help = KERNEL_EXAMPLES)]
    Kernel(KernelVerb),
    /// Be an OCI runtime for podman, docker, containerd (also: hv-oci)
    #[command(after_help = OCI_EXAMPLES)]
    Oci(Box<oci::OciArgs>),
    /// Print a completion script for a shell
    #[command(
        hide = true,
        after_help = "Example: hv completions bash > ~/.local/share/bash-completion/completions/hv"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all pages to a directory
    #[command(after_help = "Example: hv man | man -l -\n         hv man /usr/local/share/man/man1")]
    Man {
        /// Write hv.1 and a page for each verb into this directory
        dir: Option<PathBuf>,
    },
    /// One attempt of `hv check`, in a process of its own
    #[command(hide = true, name = "check-attempt")]
    Attempt {
        /// Which
        attempt: crate::cmd::check::Attempt,
    },
}

const VM_EXAMPLES: &str = "\
The kernel may be left out once `hv kernel install` has put one in the store.

Example: hv vm --kernel vmlinuz --rootfs rootfs.img --memory 256M -- uname -a
         hv vm rootfs.img --cpus 4 --cpu-pin 0-3 --cpu-template portable -- sh
         hv vm rootfs.img --disk data.img,serial=DATA,iops=500 -- lsblk
         hv vm rootfs.img --net tap=tap0,ip=192.0.2.2/24,gw=192.0.2.1 -- ip addr";
const CTR_EXAMPLES: &str = "\
Example: hv ctr rootfs.img --memory 64M --cpus 0.5 -- uname -a
         hv ctr ./rootdir -t --user nobody -- sh
         hv ctr alpine --entrypoint /bin/ls -- /etc
         hv ctr ./rootdir --landlock /:rx --landlock /tmp:rw -- make test";
const KERNEL_EXAMPLES: &str = "\
Example: hv kernel install
         hv kernel add bzImage --modules /lib/modules/6.1.0 --name mine";
const OCI_EXAMPLES: &str = "\
A link to hv named hv-oci is this verb, one named hv-oci-vm is `hv oci --isolation vm`: give engines such a link.
docs/oci.md has the table of what is honoured.

Example: hv oci spec && hv oci run mine
         ln -s hv /usr/bin/hv-oci && podman --runtime /usr/bin/hv-oci run alpine true
         ctr run --runc-binary /usr/bin/hv-oci-vm docker.io/library/alpine:latest mine true";
const CHECK_EXAMPLES: &str = "\
Exit status: 0 if both kinds can run, 1 if only containers can, 2 if only
microVMs can, 3 if neither can.

Example: hv check --json";

/// What a start takes.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// What both kinds have.
    #[command(flatten)]
    pub sandbox: SandboxArgs,
    /// What only a microVM has.
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// What both kinds take.
#[derive(Debug, Clone, Args)]
pub struct SandboxArgs {
    /// The image: the name of one in the store (`hv images`), a raw ext4, squashfs or EROFS file, a directory, or a tar of
    /// one (.tar, .tar.gz, .tar.zst); never changed without --rw
    #[arg(required_unless_present = "rootfs", conflicts_with = "rootfs")]
    pub image: Option<PathBuf>,
    /// The image, as an option
    #[arg(long, value_name = "IMAGE")]
    pub rootfs: Option<PathBuf>,
    /// The command and its arguments; else what the image says, else its /sbin/init, else /bin/sh
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,

    /// Processors: whole ones for vm, a share such as 0.5 for ctr
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    pub cpus: Option<u32>,
    /// Memory: the microVM's RAM, the container's limit; 256M, 1G, 512MiB
    #[arg(long, short, value_name = "SIZE", value_parser = parse_bytes)]
    pub memory: Option<u64>,
    /// Processes and threads at once
    #[arg(long, value_name = "N")]
    pub pids: Option<u32>,
    /// Let the run change the (raw ext4) image
    #[arg(long)]
    pub rw: bool,

    /// Set an environment variable; without =VALUE, take it from hv's own
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// Set the variables that FILE has, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// What runs in place of the image's own entrypoint and command; empty: the command alone
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<OsString>,
    /// Working directory in the image [default: what the image says, else /]
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<OsString>,
    /// User, and group, by name or number, as the image knows them [default: what the image says, else root]
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Name of the sandbox on this host [default: a random one]
    #[arg(long)]
    pub name: Option<String>,
    /// Host name inside [default: the sandbox's name]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Let the command use files only as said, by Landlock: PATH:r, w, x; may be repeated
    #[arg(long, value_name = "PATH:ACCESS")]
    pub landlock: Vec<OsString>,
    /// Leave out some of a container's walls (seccomp, capabilities, mounts), to see what they stop
    #[arg(long, value_name = "WALLS", hide = true, value_delimiter = ',', value_parser = parse_wall)]
    pub lower: Vec<Wall>,
    /// Give the command a terminal [default: if stdin and stdout are terminals]
    #[arg(long, short, overrides_with = "no_tty")]
    pub tty: bool,
    /// Give the command no terminal
    #[arg(long, overrides_with = "tty")]
    pub no_tty: bool,

    /// Start the image only if it is the one with this root hash, by the hash tree that `hv pack --verity` appended
    #[arg(long, value_name = "ROOTHASH", value_parser = pack::parse_root_hash, conflicts_with = "rw")]
    pub verity: Option<hv_image::verity::RootHash>,

    /// Execute this static program of the host instead of one of the image's; CMD's first word is its name
    #[arg(long, value_name = "FILE", hide = true)]
    pub inject: Option<PathBuf>,
    /// Print what would be done, step by step, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write phases, memory and crossings of this run to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
}

/// What can be done with kernels.
#[derive(Debug, Clone, Subcommand)]
pub enum KernelVerb {
    /// Get Debian's newest kernel for virtual machines, verified by apt; nothing is installed on the host
    #[command(after_help = "Example: hv kernel install")]
    Install,
    /// Copy a kernel of yours, with its modules
    #[command(after_help = "Example: hv kernel add vmlinux --name tuned")]
    Add {
        /// An ELF vmlinux or a bzImage
        file: PathBuf,
        /// Its modules: a /lib/modules/VERSION
        #[arg(long, value_name = "DIR")]
        modules: Option<PathBuf>,
        /// What to call it [default: its release]
        #[arg(long)]
        name: Option<String>,
    },
    /// Show the kernels; the one that is used when none is named has a star
    #[command(alias = "list", after_help = "Example: hv kernel ls")]
    Ls,
    /// Choose the kernel that is used when none is named [default: the newest]
    #[command(after_help = "Example: hv kernel default tuned")]
    Default {
        /// As `hv kernel ls` shows it
        name: String,
    },
    /// Remove kernels
    #[command(visible_alias = "remove", after_help = "Example: hv kernel rm 6.1.0-50-cloud-amd64")]
    Rm {
        /// As `hv kernel ls` shows them
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Arguments of `hv check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

fn parse_wall(word: &str) -> Result<Wall, String> {
    let known = Wall::ALL.into_iter().find(|wall| wall.word() == word);
    known.ok_or_else(|| "use seccomp, capabilities or mounts".into())
}

/// The command line's grammar.
pub fn command() -> clap::Command {
    let hidden = |verb: clap::Command| {
        machine::options().fold(verb, |verb, option| verb.mut_arg(option.id, |arg| arg.hide(true)))
    };
    Cli::command().mut_subcommand("ctr", hidden).mut_subcommand("process", hidden)
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        let found = command().try_get_matches_from(["hv"].iter().chain(args))?;
        Cli::from_arg_matches(&found)
    }

    #[test]
    fn grammar_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn help_fits_a_screen() {
        let mut command = command();
        command.build();
        let help = command.render_help().to_string();
        assert!(help.lines().count() <= 24, "{help}");
        let verbs: Vec<_> = command
            .get_subcommands()
            .filter(|verb| verb.get_name() != "help" && !verb.is_hide_set())
            .cloned()
            .collect();
        for mut verb in verbs {
            let help = verb.render_help().to_string();
            assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
            assert!(verb.is_hide_set() || help.contains("Example: hv "), "{help}");
        }
    }

    #[test]
    fn image_by_position_or_option() {
        for args in [&["vm", "img", "--", "a", "-b"][..], &["ctr", "--rootfs", "img", "--", "a", "-b"]] {
            let (Verb::Vm(run) | Verb::Ctr(run)) = parse(args).unwrap().verb else { panic!("{args:?}") };
            assert_eq!(run.sandbox.image.or(run.sandbox.rootfs), Some("img".into()));
            assert_eq!(run.sandbox.command, ["a", "-b"]);
        }
        assert!(parse(&["vm", "img", "--rootfs", "img"]).is_err());
        assert!(parse(&["ctr"]).is_err());
    }

    #[test]
    fn the_later_of_tty_and_no_tty_wins() {
        let Verb::Ctr(run) = parse(&["ctr", "img", "-t", "--no-tty"]).unwrap().verb else { panic!() };
        assert!(run.sandbox.no_tty && !run.sandbox.tty);
    }
}
