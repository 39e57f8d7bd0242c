//! The grammar of the one verb that was typed, for the verbs whose start is to be short: to define every option of
//! every verb takes longer than to make a container's namespaces.
//!
//! Only what is right is read here. Whatever else there is (a mistake, `--help`, an option that another kind takes)
//! is left to the whole grammar, which has the words for it.

use std::ffi::OsString;

use clap::{Args, Command};

use super::oci::{OciArgs, OciGlobals, OciVerb};
use super::{MachineArgs, RunArgs, SandboxArgs, Verb};

/// The verb that `args` (the program's name first) ask for, if it is one of the quick ones and nothing is wrong.
pub fn parse(args: &[OsString]) -> Option<Verb> {
    let [_, verb, words @ ..] = args else { return None };
    match verb.to_str()? {
        "ctr" => Some(Verb::Ctr(no_machine(words)?)),
        "process" => Some(Verb::Process(no_machine(words)?)),
        "vm" => Some(Verb::Vm(only(words)?)),
        "oci" => Some(Verb::Oci(Box::new(oci(words)?))),
        _ => None,
    }
}

/// A kind that refuses what only a microVM has: there those options are mistakes.
fn no_machine(words: &[OsString]) -> Option<RunArgs> {
    Some(RunArgs { sandbox: only::<SandboxArgs>(words)?, machine: MachineArgs::default() })
}

fn only<A: Args>(words: &[OsString]) -> Option<A> {
    let grammar = A::augment_args(Command::new("hv").no_binary_name(true));
    A::from_arg_matches(&grammar.try_get_matches_from(words).ok()?).ok()
}

fn oci(words: &[OsString]) -> Option<OciArgs> {
    let grammar = OciGlobals::augment_args(Command::new("hv").no_binary_name(true));
    let found = grammar.allow_external_subcommands(true).try_get_matches_from(words).ok()?;
    let globals = clap::FromArgMatches::from_arg_matches(&found).ok()?;
    let (verb, below) = found.subcommand()?;
    let words: Vec<OsString> = below.get_many::<OsString>("")?.cloned().collect();
    let verb = match verb {
        "create" => OciVerb::Create(only(&words)?),
        "start" => OciVerb::Start(only(&words)?),
        "run" => OciVerb::Run(only(&words)?),
        "state" => OciVerb::State(only(&words)?),
        "kill" => OciVerb::Kill(only(&words)?),
        "delete" => OciVerb::Delete(only(&words)?),
        "vm-monitor" => OciVerb::VmMonitor(only(&words)?),
        "exec" => OciVerb::Exec(only(&words)?),
        _ => return None,
    };
    Some(OciArgs { globals, verb: Some(verb) })
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::super::{Cli, command};
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_is_read_is_what_the_whole_grammar_reads() {
        for line in [
            "hv ctr img",
            "hv ctr -m 64M --cpus 0.5 --rootfs img -- a --help -t",
            "hv ctr img -e A=1 -e B -w /tmp -u nobody --name x --hostname y --tty --no-tty --dry-run",
            "hv process img --stats out -- true",
            "hv vm img --kernel k --memory 256M -- sh -c true",
            "hv oci --root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /s id",
            "hv oci run id",
            "hv oci --systemd-cgroup run -d --keep -b /b id",
            "hv oci state id",
            "hv oci kill --all id 9",
            "hv oci kill id",
            "hv oci delete --force id",
            "hv oci exec -t -e A=1 -u 1:2 --cwd /x id sh -c true --help",
            "hv oci exec --process f --detach --pid-file p id",
        ] {
            let args = words(line);
            let whole = Cli::from_arg_matches(&command().try_get_matches_from(&args).unwrap()).unwrap();
            let quick = parse(&args).unwrap_or_else(|| panic!("{line} is not read"));
            assert_eq!(format!("{quick:?}"), format!("{:?}", whole.verb), "{line}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_whole_grammar() {
        for line in [
            "hv",
            "hv ctr",
            "hv ctr --help",
            "hv ctr img --kernel k",
            "hv ctr img --rootfs img",
            "hv ctr img --memory x",
            "hv oci",
            "hv oci --version",
            "hv oci create",
            "hv oci run --help",
            "hv oci features",
            "hv oci --isolation",
            "hv ps",
            "hv --help",
            "hv help ctr",
        ] {
            assert!(parse(&words(line)).is_none(), "{line}");
        }
    }
}
