//! How a running sandbox is reached by others: HTTP/1.1 with JSON over a unix socket in its directory.
//! docs/control.md describes it for users. The same for both kinds.
//!
//! # Layout
//! - [`request`]: bytes to a request, bounded; [`route`]: a request to a [`Command`]; [`response`]: an
//!   [`Answer`] to bytes. All three are pure.
//! - [`server`]: the one thread that does this for a monitor, one client after the other, each in a limited
//!   time. It touches no sandbox: what a client asks for is done by the monitor's own thread
//!   ([`crate::foreground`]), which the sandbox belongs to.
//! - [`client`]: what `hv ps`, `hv pause` and the like ask it.

pub mod client;
pub mod request;
pub mod response;
pub mod route;
pub mod server;

use std::time::Duration;

use hv_common::{Id, Kind, Metrics};
use serde::{Deserialize, Serialize};

/// The socket's name in a sandbox's directory.
pub const SOCKET: &str = "control";
/// How long a workload has to end after it was asked to, when nobody says otherwise.
pub const GRACE: Duration = Duration::from_secs(10);

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// How it is.
    State,
    /// To be held.
    Pause,
    /// To go on.
    Resume,
    /// To end: the workload is asked to, and after this long it is killed.
    Stop(Duration),
    /// To have its power button pressed.
    PowerButton,
    /// That many bytes of its memory are wanted back.
    Balloon(u64),
    /// What it uses and has done.
    Metrics,
    /// The last output of its console.
    Console,
}

/// What the monitor says to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// How it is now.
    State(View),
    /// What it uses and has done.
    Metrics(Metrics),
    /// The last output of its console, as the guest wrote it.
    Console(Vec<u8>),
    /// It has no such thing: why.
    Absent(String),
    /// It could not be done: why.
    Failed(String),
}

/// What a sandbox does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It runs.
    Running,
    /// It is held.
    Paused,
    /// It was asked to end.
    Stopping,
}

impl Condition {
    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Condition::Running => "running",
            Condition::Paused => "paused",
            Condition::Stopping => "stopping",
        }
    }
}

/// A sandbox as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Its name.
    pub id: Id,
    /// Its kind.
    pub kind: Kind,
    /// What it does.
    pub state: Condition,
    /// Process id of its monitor.
    pub monitor: i32,
}
