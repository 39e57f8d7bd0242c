//! What runs: the image's configuration, and over it what was typed. The same for every kind.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hv_image::content::ProcessConfig;
use nix::libc;
use nix::sys::signal::Signal;

use crate::error::{Failure, Result};

/// Where programs are looked for, as in every distribution.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The largest --env-file.
const MAX_ENV_FILE: u64 = 1 << 20;

/// What was typed about the program.
#[derive(Debug, Default)]
pub struct Typed {
    /// Behind `--`.
    pub command: Vec<OsString>,
    /// `--entrypoint`; empty: none at all.
    pub entrypoint: Option<OsString>,
    /// `--env`.
    pub env: Vec<OsString>,
    /// `--env-file`.
    pub env_files: Vec<PathBuf>,
    /// `--workdir`.
    pub workdir: Option<OsString>,
    /// `--user`.
    pub user: Option<String>,
}

/// What is to be run.
#[derive(Debug, PartialEq, Eq)]
pub struct Decided {
    /// Program and arguments.
    pub args: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<OsString>,
    /// Where it starts.
    pub cwd: OsString,
    /// Who runs it.
    pub user: Option<String>,
    /// What asks it to end.
    pub stop_signal: i32,
}

/// Decides, by docker's rules: a command replaces the image's Cmd, `--entrypoint` both.
///
/// # Errors
/// Something that was typed makes no sense, or something of the image that was not overridden.
pub fn decide(image: ProcessConfig, typed: Typed, interactive: bool) -> Result<Decided> {
    let mut typed_env = Vec::new();
    for path in &typed.env_files {
        typed_env.extend(env_file(path)?);
    }
    typed_env.extend(typed.env);
    let words = |words: Vec<String>| words.into_iter().map(OsString::from);
    let args: Vec<OsString> = match typed.entrypoint {
        Some(entrypoint) => {
            Some(entrypoint).filter(|word| !word.is_empty()).into_iter().chain(typed.command).collect()
        }
        None if typed.command.is_empty() => words(image.entrypoint).chain(words(image.cmd)).collect(),
        None => words(image.entrypoint).chain(typed.command).collect(),
    };
    let cwd = match typed.workdir {
        Some(dir) => check_workdir(dir)?,
        // A relative one is below the root, as in docker.
        None if image.working_dir.starts_with('/') => image.working_dir.into(),
        None => format!("/{}", image.working_dir).into(),
    };
    let user = typed.user.or(Some(image.user).filter(|user| !user.is_empty()));
    let stop_signal = match image.stop_signal.as_str() {
        "" => Signal::SIGTERM as i32,
        name => signal(name).ok_or_else(|| {
            let name = name.escape_debug();
            Failure::refused(format!(
                "the image's StopSignal `{name}` is no signal: the image has to be mended"
            ))
        })?,
    };
    let env = environment(&image.env, &typed_env, interactive)?;
    Ok(Decided { args, env, cwd, user, stop_signal })
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
fn signal(name: &str) -> Option<i32> {
    let most = libc::SIGRTMAX();
    if let Ok(number) = name.parse::<i32>() {
        return (1..=most).contains(&number).then_some(number);
    }
    let name = name.to_ascii_uppercase();
    let short = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        None => rest.is_empty().then_some(0),
        Some(digits) => digits.parse::<u8>().ok().map(i32::from),
    };
    let number = if let Some(rest) = short.strip_prefix("RTMIN") {
        libc::SIGRTMIN() + offset(rest, '+')?
    } else if let Some(rest) = short.strip_prefix("RTMAX") {
        libc::SIGRTMAX() - offset(rest, '-')?
    } else {
        return format!("SIG{short}").parse::<Signal>().ok().map(|signal| signal as i32);
    };
    (libc::SIGRTMIN()..=most).contains(&number).then_some(number)
}

fn check_workdir(dir: OsString) -> Result<OsString> {
    if dir.as_bytes().starts_with(b"/") {
        return Ok(dir);
    }
    let shown = dir.display();
    Err(Failure::refused(format!(
        "--workdir `{shown}` must be absolute: it begins with `/`, inside the image"
    )))
}

/// The lines of a file: NAME=VALUE, or NAME to take it from hv's own; empty ones and those with `#` are skipped.
fn env_file(path: &Path) -> Result<Vec<OsString>> {
    let cannot =
        |source: std::io::Error| Failure::new(format!("cannot read --env-file {}", path.display()), source);
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(MAX_ENV_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_ENV_FILE {
        return Err(Failure::refused(format!("--env-file {} is larger than 1 MiB", path.display())));
    }
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start());
    Ok(lines
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(|line| OsString::from_vec(line.to_vec()))
        .collect())
}

/// The workload's whole environment: ours, the image's, what was typed; the last of a name wins.
fn environment(image: &[String], typed: &[OsString], interactive: bool) -> Result<Vec<OsString>> {
    let mut env: Vec<OsString> = vec![PATH.into()];
    if interactive {
        let term = std::env::var_os("TERM").unwrap_or_else(|| "xterm".into());
        env.push([OsStr::new("TERM="), &term].into_iter().collect());
    }
    // What the image has without a name or a value says nothing, and is nothing of the host's.
    for one in image.iter().filter(|one| one.find('=').is_some_and(|at| at > 0)) {
        let name = one.split('=').next().unwrap_or_default();
        env.retain(|known| !names(known, name.as_bytes()));
        env.push(one.into());
    }
    for one in typed {
        let bytes = one.as_bytes();
        let name = &bytes[..bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len())];
        if name.is_empty() {
            return Err(Failure::refused(format!("--env `{}` has no name; write NAME=VALUE", one.display())));
        }
        env.retain(|known| !names(known, name));
        if name.len() < bytes.len() {
            env.push(one.clone());
        } else if let Some(value) = std::env::var_os(one) {
            env.push(OsString::from_vec([name, b"=", value.as_bytes()].concat()));
        }
    }
    Ok(env)
}

fn names(variable: &OsStr, name: &[u8]) -> bool {
    variable.as_bytes().strip_prefix(name).is_some_and(|rest| rest.starts_with(b"="))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    fn image() -> ProcessConfig {
        ProcessConfig {
            entrypoint: strings(&["/entry"]),
            cmd: strings(&["one", "two"]),
            env: strings(&["A=image", "PATH=/image", "=x", "TERMINAL"]),
            working_dir: "work".into(),
            user: "ann".into(),
            stop_signal: "SIGQUIT".into(),
            ..ProcessConfig::default()
        }
    }

    #[test]
    fn the_image_says_what_runs_unless_something_was_typed() {
        let alone = decide(image(), Typed::default(), false).unwrap();
        assert_eq!(alone.args, ["/entry", "one", "two"]);
        assert_eq!(alone.env, ["A=image", "PATH=/image"]);
        assert_eq!((alone.cwd, alone.user), ("/work".into(), Some("ann".into())));
        assert_eq!(alone.stop_signal, Signal::SIGQUIT as i32);
        let typed = Typed {
            command: vec!["three".into()],
            env: vec!["A=typed".into()],
            workdir: Some("/else".into()),
            user: Some("0".into()),
            ..Typed::default()
        };
        let over = decide(image(), typed, false).unwrap();
        assert_eq!(over.args, ["/entry", "three"]);
        assert_eq!(over.env, ["PATH=/image", "A=typed"]);
        assert_eq!((over.cwd, over.user), ("/else".into(), Some("0".into())));
    }

    #[test]
    fn an_entrypoint_that_was_typed_replaces_the_images_and_its_command() {
        let with = |entrypoint: &str, command: &[&str]| {
            let command = command.iter().map(OsString::from).collect();
            let typed = Typed { entrypoint: Some(entrypoint.into()), command, ..Typed::default() };
            decide(image(), typed, false).unwrap().args
        };
        assert_eq!(with("/mine", &[]), ["/mine"]);
        assert_eq!(with("/mine", &["x"]), ["/mine", "x"]);
        assert_eq!(with("", &["x"]), ["x"]);
    }

    #[test]
    fn the_last_of_a_name_wins() {
        let typed = ["A=1", "PATH=/x", "A=2", "AB=3", "HV_SURELY_NOT_SET"].map(OsString::from);
        assert_eq!(environment(&[], &typed, false).unwrap(), ["PATH=/x", "A=2", "AB=3"]);
        assert!(environment(&[], &["=x".into()], false).is_err());
        assert!(environment(&[], &[], true).unwrap().iter().any(|one| names(one, b"TERM")));
    }

    #[test]
    fn files_of_variables() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"# no\n\nA=1 # not a comment\r\n  B=\nHV_SURELY_NOT_SET\n").unwrap();
        let typed =
            Typed { env_files: vec![file.path().into()], env: vec!["B=2".into()], ..Typed::default() };
        let found = decide(ProcessConfig::default(), typed, false).unwrap().env;
        assert_eq!(found[1..], ["A=1 # not a comment", "B=2"]);
        assert!(env_file(Path::new("/dev/zero")).unwrap_err().message().contains("larger than 1 MiB"));
        assert!(env_file(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn signals_by_name_and_number() {
        for (name, number) in [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", libc::SIGRTMIN() + 3)]
        {
            assert_eq!(signal(name), Some(number), "{name}");
        }
        assert_eq!(signal("RTMAX-1"), Some(libc::SIGRTMAX() - 1));
        for bad in ["", "SIG", "0", "-1", "65", "SIGRTMIN+99", "SIGRTMIN-1", "RTMAX+1", "SIGFOO", "RTMINx"] {
            assert_eq!(signal(bad), None, "{bad}");
        }
        let hostile = ProcessConfig { stop_signal: "\x1b[2J".into(), ..ProcessConfig::default() };
        assert!(decide(hostile, Typed::default(), false).unwrap_err().message().contains("is no signal"));
    }
}
