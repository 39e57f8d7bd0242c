//! docs/threat-model.md names every attack, and every test that it names is there.

use std::fs;
use std::path::{Path, PathBuf};

/// How many there are.
const ATTACKS: usize = 35;

fn sources(dir: &Path, found: &mut String) {
    let skipped = ["target", ".git"];
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path: PathBuf = entry.path();
        if path.is_dir() {
            if !skipped.iter().any(|name| path.ends_with(name)) {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_attack_is_in_the_table_and_every_test_of_it_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(text) = fs::read_to_string(top.join("docs/threat-model.md")) else {
        return println!("skipped: the sources are not here");
    };
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes().get(2).is_some_and(u8::is_ascii_digit))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let numbers: Vec<usize> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=ATTACKS).collect::<Vec<_>>());
    let mut code = String::new();
    sources(top, &mut code);
    for row in rows {
        let [number, _, outcome, tests] = row[..] else { panic!("{row:?}") };
        assert!(!outcome.is_empty(), "{number}");
        assert!(tests.contains(&format!("`attack_{number:0>2}_")), "{number}: {tests}");
        for test in tests.split('`').skip(1).step_by(2) {
            assert!(code.contains(&format!("fn {test}(")), "{number}: there is no test {test}");
        }
    }
}
