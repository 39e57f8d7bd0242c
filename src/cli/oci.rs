//! `hv oci`: the command line that engines call an OCI runtime with. It is runc's, so that podman,
//! docker and containerd need not know.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Options before the verb, and the verb.
#[derive(Debug, Args)]
#[command(disable_version_flag = true, args_conflicts_with_subcommands = false)]
pub struct OciArgs {
    /// What holds for every verb.
    #[command(flatten)]
    pub globals: OciGlobals,
    /// What to do
    #[command(subcommand)]
    pub verb: Option<OciVerb>,
}

/// Options before the verb.
#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub struct OciGlobals {
    /// Where the containers' state is kept [default: /run/hv-oci, or $XDG_RUNTIME_DIR/hv-oci]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Write errors to this file too
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How they are written there
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Tell more
    #[arg(long)]
    pub debug: bool,
    /// Let systemd make the cgroups (refused: hv makes them itself)
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// How cgroups are made: only `cgroupfs`
    #[arg(long, value_name = "NAME", hide = true)]
    pub cgroup_manager: Option<String>,
    /// Whether to do without root's rights [default: what this user is]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub rootless: Option<String>,
    /// Path of criu; not used
    #[arg(long, value_name = "PATH", hide = true)]
    pub criu: Option<PathBuf>,
    /// Which wall: `ctr` or `vm` [default: the annotation hv.isolation, else ctr]
    #[arg(long, value_name = "KIND")]
    pub isolation: Option<String>,
    /// Kernel of VMs: an ELF vmlinux or a bzImage [default: the newest in the store]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Its modules: a /lib/modules/VERSION [default: beside the kernel]
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,
    /// Print the versions of hv and of the specification
    #[arg(long, short = 'v')]
    pub version: bool,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time="..." level=error msg="..."`
    Text,
    /// One JSON object a line
    Json,
}

/// The verbs of an OCI runtime.
#[derive(Debug, Subcommand)]
pub enum OciVerb {
    /// Make a container, whose process waits for `start`
    Create(CreateArgs),
    /// Start a created container
    Start(IdArgs),
    /// Make and start a container
    Run(RunBundleArgs),
    /// Print a container's state as JSON
    State(IdArgs),
    /// Send a container's process a signal
    Kill(KillArgs),
    /// Remove a container that has ended
    Delete(DeleteArgs),
    /// Start a further process in a container
    Exec(ExecArgs),
    /// Print a container's processes
    Ps(PsArgs),
    /// Print all containers
    List(ListArgs),
    /// Stop every process of a container
    Pause(IdArgs),
    /// Let a paused container go on
    Resume(IdArgs),
    /// Change a container's limits
    Update(UpdateArgs),
    /// Print a container's figures as JSON, and what happens to it
    Events(EventsArgs),
    /// Write a config.json to begin with
    Spec(SpecArgs),
    /// Print what hv oci can do, as JSON
    Features,
    /// What `create` starts: the monitor of a VM
    #[command(hide = true)]
    VmMonitor(MonitorArgs),
}

/// `vm-monitor`.
#[derive(Debug, Args)]
pub struct MonitorArgs {
    /// The container
    pub id: String,
    /// The descriptor that `create` waits at
    pub ready: u32,
}

/// A container.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// The container
    pub id: String,
}

/// `create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The bundle's directory
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Socket that gets the terminal's other end
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Write the process's number into this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the program inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Do without pivot_root (refused)
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Print the plan and make nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The container's name
    pub id: String,
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunBundleArgs {
    /// As for `create`
    #[command(flatten)]
    pub create: CreateArgs,
    /// Do not wait for its end
    #[arg(long, short)]
    pub detach: bool,
    /// Do not delete it at its end
    #[arg(long)]
    pub keep: bool,
}

/// `kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Every process of the container
    #[arg(long, short)]
    pub all: bool,
    /// The container
    pub id: String,
    /// Name or number
    #[arg(default_value = "SIGTERM")]
    pub signal: String,
}

/// `delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Kill it first, if it runs; no error if there is none
    #[arg(long, short)]
    pub force: bool,
    /// The container
    pub id: String,
}

/// `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// File with the `process` of a config.json
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Socket that gets the terminal's other end
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Write the process's number into this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(long, short)]
    pub detach: bool,
    /// Give it a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Set an environment variable
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// The user, `UID[:GID]`
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// A further group
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// A capability to add
    #[arg(long, short, value_name = "CAP")]
    pub cap: Vec<String>,
    /// No program gains rights
    #[arg(long)]
    pub no_new_privs: bool,
    /// How many descriptors from 3 on the program inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// The container
    pub id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// `table`, or `json`: a list of numbers
    #[arg(long, short, default_value = "table")]
    pub format: ListFormat,
    /// The container
    pub id: String,
    /// Options for ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

/// `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// `table` or `json`
    #[arg(long, short, default_value = "table")]
    pub format: ListFormat,
    /// Only the names
    #[arg(long, short)]
    pub quiet: bool,
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For people
    Table,
    /// For programs
    Json,
}

/// `update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// File with `linux.resources`; `-`: standard input
    #[arg(long, short, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Bytes
    #[arg(long, allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Bytes of memory and swap together
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Bytes that are kept for it
    #[arg(long, allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// Microseconds a period
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Microseconds
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// Weight
    #[arg(long, alias = "cpu-share")]
    pub cpu_shares: Option<u64>,
    /// Processors
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Tasks
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// The container
    pub id: String,
}

/// `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Figures once, then end
    #[arg(long)]
    pub stats: bool,
    /// How often: 5s, 500ms
    #[arg(long, default_value = "5s")]
    pub interval: String,
    /// The container
    pub id: String,
}

/// `spec`.
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// Where to write it
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// For a user without root's rights
    #[arg(long)]
    pub rootless: bool,
}
