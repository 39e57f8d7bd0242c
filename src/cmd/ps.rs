//! `hv ps`: what runs on this host.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use hv_common::{Id, Kind};
use serde::Serialize;

use crate::cli::PsArgs;
use crate::cmd;
use crate::control::{View, client};
use crate::error::{Failure, Result};

/// A line of the table.
#[derive(Debug, Serialize)]
struct Row {
    id: Id,
    kind: Kind,
    /// As [`crate::control::Condition`] has it; `unknown` if the monitor does not answer.
    state: &'static str,
    /// Process id of the monitor.
    monitor: i32,
    /// Seconds since 1970.
    created: u64,
}

/// Prints a table, or JSON.
///
/// # Errors
/// The runtime directory cannot be read, or nothing can be printed.
pub fn run(args: &PsArgs) -> Result<u8> {
    let store = cmd::tidy_store()?;
    let rows: Vec<Row> = store
        .list()?
        .into_iter()
        .map(|state| {
            let view =
                client::ask_json::<View>(&store.path().join(state.id.as_str()), "GET", "/v1/state", "");
            Row {
                state: view.map_or("unknown", |view| view.state.word()),
                id: state.id,
                kind: state.kind,
                monitor: state.monitor,
                created: state.created,
            }
        })
        .collect();
    let text = if args.json { serde_json::to_string_pretty(&rows)? + "\n" } else { table(&rows, now()) };
    let printed = std::io::stdout().lock().write_all(text.as_bytes());
    printed.map_err(|source| Failure::new("cannot print the table", source))?;
    Ok(0)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn table(rows: &[Row], now: u64) -> String {
    let width = rows.iter().map(|row| row.id.as_str().len()).max().unwrap_or(0).max("NAME".len());
    let mut text = format!("{:width$}  {:<7}  {:<8}  {:>7}  AGE\n", "NAME", "KIND", "STATE", "MONITOR");
    for Row { id, kind, state, monitor, created } in rows {
        let age = age(now.saturating_sub(*created));
        text += &format!("{id:width$}  {kind:<7}  {state:<8}  {monitor:>7}  {age}\n");
    }
    text
}

/// With the largest unit of which there are two.
fn age(seconds: u64) -> String {
    match [(86_400, "d"), (3600, "h"), (60, "min")].into_iter().find(|(unit, _)| seconds >= 2 * unit) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |name: &str, kind, state, created| {
            let id = Id::try_from(name.to_string()).unwrap();
            Row { id, kind, state, monitor: 42, created }
        };
        let rows = [row("web", Kind::Vm, "running", 61_000), row("a-long-name", Kind::Ctr, "paused", 53_800)];
        assert_eq!(
            table(&rows, 61_060),
            "NAME         KIND     STATE     MONITOR  AGE\n\
             web          vm       running        42  60 s\n\
             a-long-name  ctr      paused         42  2 h\n"
        );
        assert_eq!([age(119), age(120), age(172_800)], ["119 s", "2 min", "2 d"]);
    }
}
