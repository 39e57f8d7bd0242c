//! `HEALTHCHECK`.

use super::super::words::Flag;
use super::{Command, command, unknown, value};

/// `HEALTHCHECK`; times are nanoseconds, 0 stands for the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// What to run; None: nothing, not even what the image below says.
    pub command: Option<Command>,
    /// `--interval`.
    pub interval: u64,
    /// `--timeout`.
    pub timeout: u64,
    /// `--start-period`.
    pub start_period: u64,
    /// `--start-interval`.
    pub start_interval: u64,
    /// `--retries`.
    pub retries: u64,
}

pub(super) fn parse(flags: Vec<Flag>, args: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    for flag in flags {
        let name = flag.name.clone();
        let time = || duration(&value("HEALTHCHECK", flag.clone())?);
        match name.as_str() {
            "interval" => check.interval = time()?,
            "timeout" => check.timeout = time()?,
            "start-period" => check.start_period = time()?,
            "start-interval" => check.start_interval = time()?,
            "retries" => {
                let number = value("HEALTHCHECK", flag)?;
                check.retries = number.parse().map_err(|_| format!("--retries={number} is not a number"))?;
            }
            _ => {
                let known = "--interval, --timeout, --start-period, --start-interval, --retries";
                return Err(unknown("HEALTHCHECK", &flag, known));
            }
        }
    }
    let (kind, rest) = super::words::first(args);
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.is_empty() => {}
        "CMD" if !rest.is_empty() => check.command = Some(command(rest)),
        _ => return Err("HEALTHCHECK is written HEALTHCHECK CMD COMMAND, or HEALTHCHECK NONE".into()),
    }
    Ok(check)
}

/// `1m30s`, `500ms`, as Go writes durations; nanoseconds.
fn duration(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{}` is not a time such as 30s or 1m30s", text.escape_debug());
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(wrong()),
        };
        total += number * unit;
        rest = &rest[end..];
    }
    // A hundred years; and it is a whole number of nanoseconds from here on.
    if total > 3.2e18 || text.is_empty() { Err(wrong()) } else { Ok(total as u64) }
}
