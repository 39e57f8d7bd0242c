//! `list`: all containers.

use super::store::{Status, Store};
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
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let rows = found.iter().map(|(path, record)| {
        let status = record.status(path);
        let pid = if status == Status::Stopped { 0 } else { record.pid };
        let owner = name(&users, record.owner).unwrap_or_else(|| format!("#{}", record.owner));
        let bundle = record.bundle.display().to_string();
        [record.id.clone(), pid.to_string(), status.word().into(), bundle, record.created.clone(), owner]
    });
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    print!("{}", table(std::iter::once(head).chain(rows).collect()));
    Ok(0)
}

/// A user's name, by passwd(5).
fn name(users: &str, uid: u32) -> Option<String> {
    let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line = fields.find(|fields| fields.get(2).is_some_and(|number| number.parse() == Ok(uid)))?;
    line.first().map(|name| (*name).to_owned())
}

/// Columns of at least twelve characters with three spaces between them, as runc has them; the last one is not filled
/// up.
fn table<const N: usize>(rows: Vec<[String; N]>) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..N).map(|column| if column + 1 < N { width(column) } else { 0 }).collect();
    let line = |row: &[String; N]| {
        let cells: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names() {
        let users = "root:x:0:0::/root:/bin/sh\nbroken\nuser:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name(users, 1000).as_deref(), Some("user"));
        assert_eq!(name(users, 1), None);
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows =
            [["ID", "PID", "OWNER"], ["a-long-container", "1", "root"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            table(rows.into()),
            "ID                 PID         OWNER\na-long-container   1           root\n"
        );
    }
}
