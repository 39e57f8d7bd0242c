//! Runs `hv drill` on an image that has no program.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{self, finish};

/// An image without any program.
pub struct Drill {
    dir: tempfile::TempDir,
}

impl Drill {
    /// Directories for mounts, and no more.
    pub fn new() -> Drill {
        let dir = tempfile::tempdir().unwrap();
        for name in ["proc", "sys", "dev", "tmp", "run", "etc"] {
            fs::create_dir_all(dir.path().join("image").join(name)).unwrap();
        }
        Drill { dir }
    }

    fn report(&self) -> PathBuf {
        self.dir.path().join("drill.json")
    }

    /// The report of these kinds.
    #[track_caller]
    pub fn run(&self, kinds: &[&str]) -> Value {
        let mut command = support::hv(&["drill", "--kinds", &kinds.join(","), "--json"]);
        command.arg(self.report()).arg(self.dir.path().join("image"));
        if let Some(kernel) = std::env::var_os("HV_TEST_KERNEL").filter(|_| kinds.contains(&"vm")) {
            command.arg("--kernel").arg(kernel);
        }
        let done = finish(command, b"").expect(0);
        let text = done.text();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        serde_json::from_slice(&fs::read(self.report()).unwrap()).unwrap()
    }
}

/// Attempts that nothing stopped.
pub fn free(report: &Value, kind: &str) -> Vec<String> {
    let rows = report["drill"].as_array().unwrap().iter();
    let free = rows.filter(|row| {
        let verdict = &row["of"][kind];
        verdict["stopped_by"].as_array().is_some_and(Vec::is_empty) && verdict["outcome"] != "not-tried"
    });
    free.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

/// The walls that stop one; a namespace without its name.
pub fn stops(report: &Value, attempt: &str, kind: &str) -> Vec<String> {
    let row = report["drill"].as_array().unwrap().iter().find(|row| row["name"] == attempt).unwrap();
    let stops = row["of"][kind]["stopped_by"].as_array().unwrap().iter();
    stops
        .map(|stop| match stop {
            Value::String(word) => word.clone(),
            other => other.as_object().unwrap().keys().next().unwrap().clone(),
        })
        .collect()
}
