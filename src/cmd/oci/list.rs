//! `list`: all containers.

use super::store::Store;
use super::{Result, state};
use crate::cli::oci::{ListArgs, ListFormat};

/// Prints them.
pub fn run(store: &Store, args: &ListArgs) -> Result<u8> {
    let found = store.list();
    if args.quiet {
        found.iter().for_each(|(_, record)| println!("{}", record.id));
        return Ok(0);
    }
    if args.format == ListFormat::Json {
        let states: Vec<_> = found.iter().map(|(path, record)| record.state(record.status(path))).collect();
        return state::print(&serde_json::json!(states));
    }
    let width = found.iter().map(|(_, record)| record.id.len()).max().unwrap_or(0).max(2);
    println!("{:<width$}  {:>8}  {:<8}  {:<30}  BUNDLE", "ID", "PID", "STATUS", "CREATED");
    for (path, record) in &found {
        let status = record.status(path);
        let pid = if status == super::store::Status::Stopped { 0 } else { record.pid };
        let bundle = record.bundle.display();
        println!("{:<width$}  {pid:>8}  {:<8}  {:<30}  {bundle}", record.id, status.word(), record.created);
    }
    Ok(0)
}
