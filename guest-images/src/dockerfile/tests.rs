use proptest::prelude::*;

use super::*;

fn steps(text: &str) -> Vec<(usize, Instruction)> {
    let parsed = Dockerfile::parse("Dockerfile", text).unwrap_or_else(|mistake| panic!("{mistake}"));
    parsed.steps.into_iter().map(|step| (step.line, step.instruction)).collect()
}

fn mistake(text: &str) -> String {
    Dockerfile::parse("Dockerfile", text).unwrap_err().to_string()
}

fn shell(text: &str) -> Command {
    Command::Shell(text.into())
}

#[test]
fn continuations_comments_and_lines() {
    let found = steps(
        "# syntax=docker/dockerfile:1\n\n# a comment\nFROM a\nRUN one \\\n  # not part\n\n  two\\\r\n  three\nCMD [\"x\", \"y\"]\n",
    );
    assert_eq!(found[0].0, 4);
    let Instruction::Run(run) = &found[1].1 else { panic!() };
    assert_eq!((found[1].0, &run.command), (5, &shell("one   two  three")));
    assert_eq!(found[2], (10, Instruction::Cmd(Command::Exec(vec!["x".into(), "y".into()]))));
}

#[test]
fn the_escape_directive_counts_only_on_top() {
    let found = steps("# escape=`\nFROM a\nRUN dir c:\\ `\n && x\n");
    let Instruction::Run(run) = &found[1].1 else { panic!() };
    assert_eq!(run.command, shell("dir c:\\  && x"));
    assert_eq!(Dockerfile::parse("f", "# hello\n# escape=`\nFROM a\n").unwrap().escape, '\\');
    assert_eq!(mistake("# escape=x\nFROM a\n"), "Dockerfile:1: `escape=x`: it is either \\ or `");
}

#[test]
fn here_documents() {
    let found = steps(
        "FROM a\nRUN <<EOF\necho $x\n  # kept\nEOF\nRUN cat <<-'E' > /f\n\t\tin\n\tE\nCOPY <<a.txt <<\"b\" /d/\n1\na.txt\n$2\nb\nUSER u\n",
    );
    let command = |at: usize| match &found[at].1 {
        Instruction::Run(run) => run.command.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(command(1), shell("echo $x\n  # kept\n"));
    assert_eq!(command(2), shell("cat <<-'E' > /f\nin\nE\n"));
    let Instruction::Copy(copy) = &found[3].1 else { panic!() };
    let documents: Vec<_> =
        copy.heredocs.iter().map(|one| (&one.name[..], &one.contents[..], one.expand)).collect();
    assert_eq!(documents, [("a.txt", "1\n", true), ("b", "$2\n", false)]);
    assert_eq!(copy.target, "/d/");
    assert_eq!(found[4].0, 14);
    assert!(mistake("FROM a\nUSER x\nRUN <<EOF\nx\n").starts_with("Dockerfile:3: the here-document `<<EOF`"));
}

#[test]
fn flags_are_understood_or_refused_by_name() {
    let found = steps(
        "FROM --platform=linux/arm64 a AS B\nCOPY --from=b --chown=1:2 --chmod=0755 --link x y /z/\n\
         RUN --network=none --mount=type=cache,target=/c,sharing=locked --mount=type=secret,id=s,env=S make\n",
    );
    let Instruction::From(from) = &found[0].1 else { panic!() };
    assert_eq!((from.name.as_deref(), from.platform.as_deref()), (Some("b"), Some("linux/arm64")));
    let Instruction::Copy(copy) = &found[1].1 else { panic!() };
    assert_eq!(
        (copy.sources.len(), copy.from.as_deref(), copy.chmod.as_deref()),
        (2, Some("b"), Some("0755"))
    );
    let Instruction::Run(run) = &found[2].1 else { panic!() };
    assert_eq!((run.network, run.mounts.len()), (RunNetwork::None, 2));
    assert!(matches!(&run.mounts[0], RunMount::Cache { locked: true, id, .. } if id == "/c"));
    for (text, start) in [
        ("FROM a\nCOPY --form=x a b\n", "Dockerfile:2: COPY has no --form; it has --from,"),
        ("FROM a\nRUN --mount=type=nfs,target=/x y\n", "Dockerfile:2: --mount=type=nfs:"),
        ("FROM a\nRUN --mount=type=cache x\n", "Dockerfile:2: --mount needs target=PATH"),
        ("FROM a\n\nRNU x\n", "Dockerfile:3: `RNU` is no instruction"),
        ("FROM a\nCOPYY a b\n", "Dockerfile:2: `COPYY` is no instruction; did you mean COPY?"),
        ("RUN x\n", "Dockerfile:1: before the first FROM"),
        ("ARG a\n", "Dockerfile:1: it has no FROM"),
        ("FROM a\nENV a=1 b\n", "Dockerfile:2: ENV: `b` is not NAME=VALUE"),
        ("FROM a\nCOPY x\n", "Dockerfile:2: COPY is written"),
        ("FROM a\nONBUILD FROM x\n", "Dockerfile:2: ONBUILD FROM is not possible"),
        ("FROM a\nHEALTHCHECK --interval=5 CMD x\n", "Dockerfile:2: `5` is not a time"),
        ("FROM a\nSHELL sh -c\n", "Dockerfile:2: SHELL needs a JSON list"),
    ] {
        let found = mistake(text);
        assert!(found.starts_with(start), "{found}");
    }
}

#[test]
fn variables_labels_and_checks() {
    let found = steps(
        "ARG V=1\nFROM a\nENV A b c\nENV A=\"b c\" D=e\\ f\nLABEL x=y\nARG P Q=\"1 2\"\nHEALTHCHECK --interval=1m30s --retries=3 CMD curl x\n",
    );
    assert_eq!(found[2].1, Instruction::Env(vec![("A".into(), "b c".into())]));
    let pairs = vec![("A".into(), "\"b c\"".into()), ("D".into(), "e\\ f".into())];
    assert_eq!(found[3].1, Instruction::Env(pairs));
    assert_eq!(found[5].1, Instruction::Arg(vec![("P".into(), None), ("Q".into(), Some("\"1 2\"".into()))]));
    let Instruction::Healthcheck(check) = &found[6].1 else { panic!() };
    assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
}

#[test]
fn variables_are_replaced_as_a_shell_does() {
    let lookup = |name: &str| match name {
        "x" => Some("value".to_owned()),
        "empty" => Some(String::new()),
        "file" => Some("a.tar.gz".to_owned()),
        _ => None,
    };
    let expander = Expander { escape: '\\', lookup: &lookup };
    for (word, expected) in [
        ("$x-$no", "value-"),
        ("${x}y", "valuey"),
        ("${no:-d}", "d"),
        ("${no:-$x}", "value"),
        ("${empty:-d}${empty-e}", "d"),
        ("${x:+y}${no:+z}", "y"),
        ("'$x' \"$x\" \\$x", "$x value $x"),
        ("\"a\\\"b\" 'c\\d'", "a\"b c\\d"),
        ("a\\ b", "a b"),
        ("$", "$"),
        ("${file%.*} ${file%%.*} ${file#*.}", "a.tar a tar.gz"),
        ("${file/./_} ${file//./_}", "a_tar.gz a_tar_gz"),
    ] {
        assert_eq!(expander.word(word).as_deref(), Ok(expected), "{word}");
    }
    for wrong in ["'a", "\"a", "${x", "${", "${x:", "${x!y}", "${no:?must be set}"] {
        assert!(expander.word(wrong).is_err(), "{wrong}");
    }
    assert_eq!(expander.text("\"$x\" '\\$x'\n").unwrap(), "\"value\" '$x'\n");
    let deep = "${a:-".repeat(10_000);
    assert!(expander.word(&deep).is_err());
}

#[test]
fn patterns() {
    for (pattern, name, fits) in [
        ("*.rs", "a.rs", true),
        ("*.rs", "d/a.rs", false),
        ("**/*.rs", "a.rs", true),
        ("**/*.rs", "d/e/a.rs", true),
        ("d/**", "d/e/f", true),
        ("a**/b", "ax/y/b", true),
        ("?[a-c]", "xb", true),
        ("[^a]", "a", false),
        ("\\*", "*", true),
        ("\\*", "x", false),
    ] {
        assert_eq!(Glob::path(pattern).unwrap().matches(name.as_bytes()), fits, "{pattern} {name}");
    }
    assert!(Glob::path("[").is_err() && Glob::path("a\\").is_err() && Glob::path("[]").is_err());
    let many = Glob::path(&"*a".repeat(200)).unwrap();
    assert!(!many.matches("a".repeat(150).as_bytes()));
}

#[test]
fn the_last_rule_of_a_dockerignore_decides() {
    let ignore =
        Ignore::parse(".dockerignore", "# no\n*.md\n!README.md\n/target/\n**/*.o\nsub/../x\n").unwrap();
    for (path, out) in [
        ("a.md", true),
        ("README.md", false),
        ("d/a.md", false),
        ("target/deep/file", true),
        ("d/e/f.o", true),
        ("x", true),
        ("y", false),
    ] {
        assert_eq!(ignore.leaves_out(path.as_bytes()), out, "{path}");
    }
    let wrong = Ignore::parse(".dockerignore", "\n[\n").unwrap_err();
    assert!(wrong.to_string().starts_with(".dockerignore:2: "), "{wrong}");
}

proptest! {
    #[test]
    fn hostile_dockerfiles_never_panic(text in "(FROM a\n)?([A-Z]{2,6} |RUN |COPY |# escape=`|--mount=|<<|EOF|\\\\|\n|\"|'|\\$|\\{|[a-z]|=|\\[|,){0,60}") {
        let _ = Dockerfile::parse("f", &text);
        let lookup = |_: &str| Some("v".to_owned());
        let _ = Expander { escape: '\\', lookup: &lookup }.word(&text);
        let _ = Ignore::parse("i", &text).map(|ignore| ignore.leaves_out(text.as_bytes()));
    }

    #[test]
    fn a_quoted_word_is_itself(word in "[^']{0,40}") {
        let expander = Expander { escape: '\\', lookup: &|_| None };
        let quoted = format!("'{word}'");
        prop_assert_eq!(expander.word(&quoted).unwrap(), word);
    }

    #[test]
    fn each_instruction_keeps_its_line(blank in prop::collection::vec(0usize..4, 1..12)) {
        let mut text = String::from("FROM a\n");
        let mut lines = vec![1];
        for count in blank {
            text += &"# x\n".repeat(count);
            lines.push(text.lines().count() + 1);
            text += "RUN a \\\n b\n";
        }
        let found = Dockerfile::parse("f", &text).unwrap();
        prop_assert_eq!(found.steps.iter().map(|step| step.line).collect::<Vec<_>>(), lines);
    }

    #[test]
    fn names_match_themselves(name in "[a-z./]{0,30}") {
        prop_assert!(Glob::path(&name).unwrap().matches(name.as_bytes()));
    }
}
