//! Lines become instructions. Values are not known yet: variables and quotes are left in place.

use super::lines::{Heredoc, Line, opening};
use super::words::{self, Flag};

mod health;
mod mount;

pub use health::Healthcheck;
pub use mount::{RunMount, RunNetwork};

/// `NAME=value` pairs, as written.
pub type Pairs = Vec<(String, String)>;

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run by a shell.
    Shell(String),
    /// Executed as it is.
    Exec(Vec<String>),
}

/// `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// `scratch`, an earlier stage, or the name of an image.
    pub image: String,
    /// What the stage is called.
    pub name: Option<String>,
    /// `--platform`.
    pub platform: Option<String>,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What to run; here-documents are part of it.
    pub command: Command,
    /// `--mount`, in order.
    pub mounts: Vec<RunMount>,
    /// `--network`.
    pub network: RunNetwork,
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transfer {
    /// Names of files, or of here-documents.
    pub sources: Vec<String>,
    /// Where to.
    pub target: String,
    /// Contents that stand in the Dockerfile itself.
    pub heredocs: Vec<Heredoc>,
    /// `--from`: another stage or image.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--exclude`, patterns.
    pub exclude: Vec<String>,
    /// `--parents`: the sources' directories are kept.
    pub parents: bool,
    /// `--unpack` of ADD.
    pub unpack: Option<bool>,
    /// `--checksum` of ADD.
    pub checksum: Option<String>,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Begins a stage.
    From(From),
    /// Runs a command.
    Run(Run),
    /// Takes files from the context, a stage or an image.
    Copy(Transfer),
    /// The same, and unpacks archives.
    Add(Transfer),
    /// Sets variables of the image.
    Env(Pairs),
    /// Declares variables of the build, with a value if they are given none.
    Arg(Vec<(String, Option<String>)>),
    /// Labels.
    Label(Pairs),
    /// Working directory.
    Workdir(String),
    /// User.
    User(String),
    /// Ports.
    Expose(Vec<String>),
    /// Directories of data.
    Volume(Vec<String>),
    /// The image's program.
    Entrypoint(Command),
    /// The image's arguments, or program.
    Cmd(Command),
    /// What runs shell forms.
    Shell(Vec<String>),
    /// What asks the program to end.
    StopSignal(String),
    /// How to tell whether it works.
    Healthcheck(Healthcheck),
    /// An instruction for builds from this image.
    OnBuild(String),
    /// The author.
    Maintainer(String),
}

pub(super) fn parse(line: &Line, escape: char) -> Result<Instruction, String> {
    let (verb, rest) = words::first(&line.text);
    let verb = verb.to_ascii_uppercase();
    let (flags, args) = match verb.as_str() {
        "FROM" | "RUN" | "COPY" | "ADD" | "HEALTHCHECK" => words::flags(rest, escape),
        _ => (Vec::new(), rest),
    };
    if args.is_empty() && verb != "CMD" && verb != "ENTRYPOINT" {
        known(&verb)?;
        return Err(format!("{verb} needs something behind it"));
    }
    Ok(match verb.as_str() {
        "FROM" => Instruction::From(from(&flags, args)?),
        "RUN" => Instruction::Run(run(flags, args, line, escape)?),
        "COPY" => Instruction::Copy(transfer("COPY", flags, args, line, escape)?),
        "ADD" => Instruction::Add(transfer("ADD", flags, args, line, escape)?),
        "ENV" => Instruction::Env(pairs("ENV", args, escape)?),
        "LABEL" => Instruction::Label(pairs("LABEL", args, escape)?),
        "ARG" => Instruction::Arg(arguments(args, escape)?),
        "WORKDIR" => Instruction::Workdir(args.to_owned()),
        "USER" => Instruction::User(one("USER", args, escape)?),
        "STOPSIGNAL" => Instruction::StopSignal(one("STOPSIGNAL", args, escape)?),
        "EXPOSE" => Instruction::Expose(words::split(args, escape)),
        "VOLUME" => Instruction::Volume(match command(args) {
            Command::Exec(list) => list,
            Command::Shell(text) => words::split(&text, escape),
        }),
        "ENTRYPOINT" => Instruction::Entrypoint(command(args)),
        "CMD" => Instruction::Cmd(command(args)),
        "SHELL" => match command(args) {
            Command::Exec(list) if !list.is_empty() => Instruction::Shell(list),
            _ => return Err("SHELL needs a JSON list, such as SHELL [\"/bin/sh\", \"-c\"]".into()),
        },
        "HEALTHCHECK" => Instruction::Healthcheck(health::parse(flags, args)?),
        "ONBUILD" => Instruction::OnBuild(trigger(line, args)?),
        "MAINTAINER" => Instruction::Maintainer(args.to_owned()),
        _ => {
            known(&verb)?;
            return Err(format!("{verb} cannot be used here"));
        }
    })
}

const VERBS: [&str; 18] = [
    "FROM",
    "RUN",
    "COPY",
    "ADD",
    "ENV",
    "LABEL",
    "ARG",
    "WORKDIR",
    "USER",
    "STOPSIGNAL",
    "EXPOSE",
    "VOLUME",
    "ENTRYPOINT",
    "CMD",
    "SHELL",
    "HEALTHCHECK",
    "ONBUILD",
    "MAINTAINER",
];

fn known(verb: &str) -> Result<(), String> {
    if VERBS.contains(&verb) {
        return Ok(());
    }
    let near = VERBS.iter().find(|known| {
        let same = known.chars().zip(verb.chars()).filter(|(one, other)| one == other).count();
        same + 1 >= known.len().max(verb.len())
    });
    let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    Err(format!("`{}` is no instruction{hint}", verb.escape_debug()))
}

fn value(verb: &str, flag: Flag) -> Result<String, String> {
    let Flag { name, value } = flag;
    value
        .filter(|value| !value.is_empty())
        .ok_or_else(|| format!("{verb} --{name} needs a value: --{name}=VALUE"))
}

fn switch(verb: &str, flag: &Flag) -> Result<bool, String> {
    match flag.value.as_deref() {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(format!("{verb} --{} is either true or false", flag.name)),
    }
}

fn unknown(verb: &str, flag: &Flag, known: &str) -> String {
    format!("{verb} has no --{}; it has {known}", flag.name.escape_debug())
}

fn from(flags: &[Flag], args: &str) -> Result<From, String> {
    let mut platform = None;
    for flag in flags {
        match flag.name.as_str() {
            "platform" => platform = Some(value("FROM", flag.clone())?),
            _ => return Err(unknown("FROM", flag, "--platform")),
        }
    }
    let words: Vec<&str> = args.split_whitespace().collect();
    let (image, name) = match words[..] {
        [image] => (image, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => (image, Some(stage_name(name)?)),
        _ => return Err("FROM is written FROM IMAGE or FROM IMAGE AS NAME".into()),
    };
    Ok(From { image: image.to_owned(), name, platform })
}

fn stage_name(name: &str) -> Result<String, String> {
    let name = name.to_ascii_lowercase();
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
        && name != "scratch"
        && name != "context";
    if fits {
        return Ok(name);
    }
    let shown = name.escape_debug();
    Err(format!("`{shown}` cannot name a stage: use a letter, then letters, digits, `-`, `_`, `.`"))
}

fn run(flags: Vec<Flag>, args: &str, line: &Line, escape: char) -> Result<Run, String> {
    let mut run =
        Run { command: Command::Shell(String::new()), mounts: Vec::new(), network: RunNetwork::Default };
    for flag in flags {
        match flag.name.as_str() {
            "mount" => run.mounts.push(RunMount::parse(&value("RUN", flag)?)?),
            "network" => run.network = RunNetwork::parse(&value("RUN", flag)?)?,
            "security" => match value("RUN", flag)?.as_str() {
                "sandbox" => {}
                _ => {
                    return Err(
                        "RUN --security=insecure: hv gives no build the host's rights; leave it out".into()
                    );
                }
            },
            _ => return Err(unknown("RUN", &flag, "--mount, --network, --security")),
        }
    }
    if line.heredocs.is_empty() {
        run.command = command(args);
        return Ok(run);
    }
    // A here-document alone is the script; else the shell gets it as it is written.
    let alone = matches!(&words::split(args, escape)[..], [one] if opening(one).is_some());
    run.command = match &line.heredocs[..] {
        [script] if alone => Command::Shell(script.contents.clone()),
        all => {
            let mut text = args.to_owned();
            for heredoc in all {
                text.push('\n');
                text.push_str(&heredoc.contents);
                text.push_str(&heredoc.name);
            }
            text.push('\n');
            Command::Shell(text)
        }
    };
    Ok(run)
}

fn transfer(verb: &str, flags: Vec<Flag>, args: &str, line: &Line, escape: char) -> Result<Transfer, String> {
    let mut transfer = Transfer { heredocs: line.heredocs.clone(), ..Transfer::default() };
    for flag in flags {
        match flag.name.as_str() {
            "chown" => transfer.chown = Some(value(verb, flag)?),
            "chmod" => transfer.chmod = Some(value(verb, flag)?),
            "exclude" => transfer.exclude.push(value(verb, flag)?),
            // Every COPY is a layer of its own that depends on nothing below it but the target directory.
            "link" => drop(switch(verb, &flag)?),
            "from" if verb == "COPY" => transfer.from = Some(value(verb, flag)?),
            "parents" if verb == "COPY" => transfer.parents = switch(verb, &flag)?,
            "unpack" if verb == "ADD" => transfer.unpack = Some(switch(verb, &flag)?),
            "checksum" if verb == "ADD" => transfer.checksum = Some(value(verb, flag)?),
            _ => {
                let known = if verb == "ADD" {
                    "--chown, --chmod, --link, --exclude, --unpack, --checksum"
                } else {
                    "--from, --chown, --chmod, --link, --exclude, --parents"
                };
                return Err(unknown(verb, &flag, known));
            }
        }
    }
    let mut words = match command(args) {
        Command::Exec(list) => list,
        Command::Shell(text) => words::split(&text, escape),
    };
    let target = words.pop().unwrap_or_default();
    if words.is_empty() {
        return Err(format!("{verb} is written {verb} SOURCE TARGET, with one source or several"));
    }
    transfer.sources = words;
    transfer.target = target;
    Ok(transfer)
}

/// A JSON list of strings, else text for a shell, as docker tells them apart.
fn command(args: &str) -> Command {
    if args.starts_with('[')
        && let Ok(list) = serde_json::from_str::<Vec<String>>(args)
    {
        return Command::Exec(list);
    }
    Command::Shell(args.to_owned())
}

fn one(verb: &str, args: &str, escape: char) -> Result<String, String> {
    match &words::split(args, escape)[..] {
        [one] => Ok(one.clone()),
        _ => Err(format!("{verb} takes one word")),
    }
}

/// `A=b C=d`, or the older `A b c` with one name.
fn pairs(verb: &str, args: &str, escape: char) -> Result<Pairs, String> {
    let words = words::split(args, escape);
    let first = words.first().map_or("", String::as_str);
    if !first.contains('=') {
        let (name, rest) = words::first(args);
        if rest.is_empty() {
            return Err(format!("{verb} {name} has no value: write {verb} {name}=VALUE"));
        }
        return Ok(vec![(name.to_owned(), rest.to_owned())]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!(
            "{verb}: `{}` is not NAME=VALUE; put a value with spaces in quotes",
            word.escape_debug()
        )),
    };
    words.iter().map(pair).collect()
}

fn arguments(args: &str, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
    let argument = |word: String| {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let fits = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if fits {
            Ok((name, value))
        } else {
            Err(format!("ARG: `{}` is not a variable's name", name.escape_debug()))
        }
    };
    words::split(args, escape).into_iter().map(argument).collect()
}

fn trigger(line: &Line, args: &str) -> Result<String, String> {
    let verb = words::first(args).0.to_ascii_uppercase();
    known(&verb)?;
    if matches!(verb.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
        return Err(format!("ONBUILD {verb} is not possible: it would be run in the middle of a stage"));
    }
    let mut text = args.to_owned();
    for heredoc in &line.heredocs {
        text.push('\n');
        text.push_str(&heredoc.contents);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}
