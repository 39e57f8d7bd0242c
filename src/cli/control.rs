//! What is asked of a sandbox that runs.

use clap::Args;

/// Examples of `hv ps`.
pub const PS_EXAMPLES: &str = "Example: hv ps --json";
/// Examples of `hv stop`.
pub const STOP_EXAMPLES: &str = "\
The command in it gets SIGTERM; what has not ended in time is killed, and its
microVM or container with it. Returns when it is gone.

Example: hv stop web
         hv stop --time 0 web db";

/// Arguments of `hv ps`.
#[derive(Debug, Clone, Args)]
pub struct PsArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of the verbs that concern one sandbox.
#[derive(Debug, Clone, Args)]
pub struct NameArgs {
    /// As `hv ps` shows it
    pub name: String,
}

/// Arguments of `hv stop`.
#[derive(Debug, Clone, Args)]
pub struct StopArgs {
    /// As `hv ps` shows them
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// How long the command may take to end
    #[arg(long, short, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub time: u64,
}
