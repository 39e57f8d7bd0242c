//! `ps`: a container's processes, by their numbers on the host.

use std::process::Command;

use super::store::Store;
use super::{Fault, Result, state};
use crate::cli::oci::{ListFormat, PsArgs};

/// Prints them.
pub fn run(store: &Store, args: &PsArgs) -> Result<u8> {
    let (_, record) = store.record(&args.id)?;
    let mut pids = record.group.procs()?;
    if pids.is_empty() && record.process().is_some() {
        pids.push(record.pid);
    }
    if args.format == ListFormat::Json {
        return state::print(&serde_json::json!(pids));
    }
    let options = if args.options.is_empty() { vec!["-ef".to_string()] } else { args.options.clone() };
    let listed = Command::new("ps").args(&options).output();
    let listed = listed.map_err(|source| Fault::because("cannot run ps(1); use --format json", source))?;
    if !listed.status.success() {
        return Err(Fault::new(format!("ps: {}", String::from_utf8_lossy(&listed.stderr).trim())));
    }
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let column = text.lines().next().and_then(|head| head.split_whitespace().position(|word| word == "PID"));
    let column =
        column.ok_or_else(|| Fault::new("ps: with these options it prints no PID, which hv needs"))?;
    for (number, line) in text.lines().enumerate() {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
        if number == 0 || pid.is_some_and(|pid| pids.contains(&pid)) {
            println!("{line}");
        }
    }
    Ok(0)
}
