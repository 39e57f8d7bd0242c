//! `events`: a container's figures, once or again and again, and when memory has run out.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::store::{Status, Store};
use super::{Fault, Result, figures};
use crate::cli::oci::EventsArgs;

/// Prints them.
pub fn run(store: &Store, args: &EventsArgs) -> Result<u8> {
    let (path, record) = store.record(&args.id)?;
    if record.status(&path) == Status::Stopped {
        return Err(Fault::new(format!("container {:?} is stopped: container not running", args.id)));
    }
    let interval = duration(&args.interval)?;
    let mut killed = figures::oom_kills(&record.group);
    loop {
        print(&json!({"type": "stats", "id": record.id, "data": figures::of(&record.group)}))?;
        if args.stats {
            return Ok(0);
        }
        let Some(process) = record.process() else { return Ok(0) };
        let limit =
            Timespec { tv_sec: interval.as_secs() as i64, tv_nsec: i64::from(interval.subsec_nanos()) };
        let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).unwrap_or(0) > 0;
        let now = figures::oom_kills(&record.group);
        if now > killed {
            killed = now;
            print(&json!({"type": "oom", "id": record.id}))?;
        }
        if ended {
            return Ok(0);
        }
    }
}

fn print(event: &Value) -> Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{event}").map_err(|source| Fault::because("cannot print", source))
}

/// `5s`, `500ms`, `2m`.
fn duration(text: &str) -> Result<Duration> {
    let bad = || Fault::new(format!("--interval {text}: it must be a time such as 5s or 500ms"));
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    match &text[digits..] {
        "ms" if number > 0 => Ok(Duration::from_millis(number)),
        "s" | "" if number > 0 => Ok(Duration::from_secs(number)),
        "m" if number > 0 => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(bad()),
    }
}
