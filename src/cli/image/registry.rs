//! What is asked of registries.

use clap::Args;
use hv_image::content::Platform;

use crate::size::parse_bytes;

/// Examples of `hv pull`.
pub const PULL_EXAMPLES: &str = "\
What broke off goes on where it was, the next time it is asked for.

Example: hv pull alpine
         hv pull ghcr.io/owner/app:1.2 --platform linux/arm64
         hv pull app@sha256:9c5a...";
/// Examples of `hv push`.
pub const PUSH_EXAMPLES: &str = "\
Example: hv push registry.example/team/app:1.2
         hv push app localhost:5000/app:test";
/// Examples of `hv image tags`.
pub const TAGS_EXAMPLES: &str = "Example: hv image tags alpine";
/// Examples of `hv image search`.
pub const SEARCH_EXAMPLES: &str = "\
Example: hv image search nginx
         hv image search localhost:5000/team";
/// Examples of `hv login`.
pub const LOGIN_EXAMPLES: &str = "\
They are kept where docker keeps them: ~/.docker/config.json, or the helper that
it names.

Example: hv login ghcr.io --user me
         hv login registry.example -u ci --password-stdin < token";
/// Examples of `hv logout`.
pub const LOGOUT_EXAMPLES: &str = "Example: hv logout ghcr.io";

/// How to speak to a registry.
#[derive(Debug, Clone, Default, Args)]
pub struct ConnectionArgs {
    /// Speak to the registry without TLS; to this machine itself hv always does
    #[arg(long)]
    pub plain_http: bool,
}

/// Arguments of `hv pull`.
#[derive(Debug, Clone, Args)]
pub struct PullArgs {
    /// Names: [REGISTRY/]REPOSITORY, then :TAG or @DIGEST or both
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Which image of several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Layers at once [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub parallel: Option<u8>,
    /// Print what was pulled as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// How to speak to the registry.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Arguments of `hv push`.
#[derive(Debug, Clone, Args)]
pub struct PushArgs {
    /// The image, as `hv images` shows it
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What to call it there [default: the same]
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
    /// Send blobs in pieces of this size: for proxies that refuse more at once
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub chunk: Option<u64>,
    /// Layers at once [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub parallel: Option<u8>,
    /// Print what was pushed as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// How to speak to the registry.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Arguments of `hv image tags`.
#[derive(Debug, Clone, Args)]
pub struct TagsArgs {
    /// [REGISTRY/]REPOSITORY
    #[arg(value_name = "NAME")]
    pub name: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// How to speak to the registry.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Arguments of `hv image search`.
#[derive(Debug, Clone, Args)]
pub struct SearchArgs {
    /// [REGISTRY/]WORD: part of a repository's name; REGISTRY/ alone lists all
    #[arg(value_name = "WORD")]
    pub word: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// How to speak to the registry.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Arguments of `hv login`.
#[derive(Debug, Clone, Args)]
pub struct LoginArgs {
    /// Host and perhaps port [default: the default registry, docker.io]
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
    /// The user [default: asked for]
    #[arg(long, short)]
    pub user: Option<String>,
    /// Read the password from standard input [default: asked for]
    #[arg(long)]
    pub password_stdin: bool,
    /// How to speak to the registry.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Arguments of `hv logout`.
#[derive(Debug, Clone, Args)]
pub struct LogoutArgs {
    /// Host and perhaps port [default: the default registry, docker.io]
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
}
