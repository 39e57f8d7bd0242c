//! The steps of one stage.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;

use flate2::{Compression, write::GzEncoder};
use hv_common::starter::Identity;
use hv_image::content::spec::{Healthcheck as Check, History};
use hv_image::content::{Config, Descriptor, Digest, Manifest, Platform, media};
use hv_image::dockerfile::{Command, Dockerfile, Glob, Ignore, Instruction, Run, RunNetwork, Step, Transfer};
use hv_image::layer;
use sha2::{Digest as _, Sha256};

use super::cache::{self, Made};
use super::copy::{self, Owner, Source};
use super::root::{Lower, Root};
use super::run::Job;
use super::{Build, index_of};
use crate::error::{Failure, Result};

/// What a stage has become so far.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    config: Config,
    layers: Vec<Descriptor>,
    /// Of all that the layers depend on.
    key: Digest,
    /// Its file system, once a step needed it.
    lower: Option<Lower>,
    /// ARGs in scope.
    args: BTreeMap<String, String>,
    index: usize,
}

impl Stage {
    pub(crate) fn build(build: &Build<'_>, index: usize) -> Result<Stage> {
        let section = build.stages[index].clone();
        let steps = &build.dockerfile.steps[section.steps];
        let mut stage = Stage::begin(build, index, &steps[0])?;
        let triggers = std::mem::take(&mut stage.config.config.on_build);
        for trigger in triggers {
            let step = Dockerfile::parse_trigger(&build.dockerfile.file, steps[0].line, &trigger)?;
            stage.step(build, &step)?;
        }
        for step in &steps[1..] {
            let done = stage.step(build, step);
            done.map_err(|failure| place(build, step.line, failure))?;
        }
        Ok(stage)
    }

    fn begin(build: &Build<'_>, index: usize, step: &Step) -> Result<Stage> {
        let Instruction::From(from) = &step.instruction else {
            return Err(Failure::refused("a stage begins with FROM"));
        };
        tell(build, index, 0, step);
        let image = build.expand(step.line, &from.image, &build.globals)?;
        if let Some(platform) = &from.platform {
            let wanted: Platform = build.expand(step.line, platform, &build.globals)?.parse()?;
            if wanted.fit(&Platform::default()).is_none() {
                let why = format!("hv builds for {} here, not for {wanted}", Platform::default());
                return Err(build.dockerfile.mistake(step.line, why).into());
            }
        }
        if let Some(other) = index_of(&build.stages, &image, index) {
            let other = &build.done[&other];
            return Ok(Stage { args: BTreeMap::new(), index, ..other.clone() });
        }
        let empty = Stage {
            config: Config {
                architecture: Platform::default().architecture,
                os: "linux".into(),
                ..Config::default()
            },
            layers: Vec::new(),
            key: Digest::of(b"scratch"),
            lower: None,
            args: BTreeMap::new(),
            index,
        };
        if image == "scratch" {
            return Ok(empty);
        }
        let name = full_name(&image);
        let found = build.store.resolve(&name)?.or(build.store.resolve(&image)?).ok_or_else(|| {
            build.dockerfile.mistake(
                step.line,
                format!("there is no image {name} in the store; `hv pull` or `hv image load` brings it"),
            )
        })?;
        let chosen = build.store.choose(&found, Some(&Platform::default()))?;
        let key = chosen.descriptor.digest;
        Ok(Stage { config: chosen.config, layers: chosen.manifest.layers, key, ..empty })
    }

    fn step(&mut self, build: &Build<'_>, step: &Step) -> Result<()> {
        tell(build, self.index, step.line, step);
        let values = self.values();
        let expand = |word: &str| build.expand(step.line, word, &values);
        let process = &mut self.config.config;
        let layers = self.layers.len();
        match &step.instruction {
            Instruction::From(_) => {}
            Instruction::Run(run) => self.run(build, run)?,
            Instruction::Copy(copy) => self.copy(build, step.line, copy, false)?,
            Instruction::Add(add) => self.copy(build, step.line, add, true)?,
            Instruction::Env(pairs) => {
                for (name, value) in pairs {
                    let (name, value) = (expand(name)?, expand(value)?);
                    process.env.retain(|one| one.split_once('=').is_none_or(|(known, _)| known != name));
                    process.env.push(format!("{name}={value}"));
                }
            }
            Instruction::Arg(args) => {
                for (name, default) in args {
                    let value = match (build.request.args.get(name), default, build.globals.get(name)) {
                        (Some(given), _, _) => given.clone(),
                        (None, Some(default), _) => expand(default)?,
                        (None, None, Some(global)) => global.clone(),
                        (None, None, None) => continue,
                    };
                    self.args.insert(name.clone(), value);
                }
            }
            Instruction::Label(pairs) => {
                for (name, value) in pairs {
                    process.labels.insert(expand(name)?, expand(value)?);
                }
            }
            Instruction::Workdir(dir) => {
                let dir = absolute(&process.working_dir, &expand(dir)?);
                process.working_dir.clone_from(&dir);
                self.change(build, &format!("WORKDIR {dir}"), |root, _| {
                    let owner = Owner { ids: Some((0, 0)), mode: None };
                    let made = open(root).and_then(|root| copy::directory(root.as_fd(), &dir, owner));
                    made.map(drop).map_err(|source| Failure::new(format!("cannot make {dir}"), source))
                })?;
            }
            Instruction::User(user) => process.user = expand(user)?,
            Instruction::Expose(ports) => {
                for port in ports {
                    for port in expand(port)?.split_whitespace() {
                        let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
                        process.exposed_ports.insert(port);
                    }
                }
            }
            Instruction::Volume(dirs) => {
                for dir in dirs {
                    process.volumes.insert(expand(dir)?);
                }
            }
            Instruction::Entrypoint(command) => {
                process.entrypoint = words(command, &process.shell);
                process.cmd.clear();
            }
            Instruction::Cmd(command) => process.cmd = words(command, &process.shell),
            Instruction::Shell(words) => process.shell.clone_from(words),
            Instruction::StopSignal(signal) => process.stop_signal = expand(signal)?,
            Instruction::Healthcheck(check) => {
                let test = match &check.command {
                    None => vec!["NONE".into()],
                    Some(Command::Exec(list)) => {
                        ["CMD".to_owned()].into_iter().chain(list.iter().cloned()).collect()
                    }
                    Some(Command::Shell(line)) => vec!["CMD-SHELL".into(), line.clone()],
                };
                process.healthcheck = Some(Check {
                    test,
                    interval: check.interval,
                    timeout: check.timeout,
                    start_period: check.start_period,
                    start_interval: check.start_interval,
                    retries: check.retries,
                });
            }
            Instruction::OnBuild(trigger) => process.on_build.push(trigger.clone()),
            Instruction::Maintainer(author) => self.config.author = Some(author.clone()),
        }
        self.config.history.push(History {
            created: Some(created(build)),
            created_by: Some(step.text.clone()),
            comment: Some("hv build".into()),
            empty_layer: self.layers.len() == layers,
            ..History::default()
        });
        Ok(())
    }

    /// Variables: ARGs, and ENVs over them.
    fn values(&self) -> BTreeMap<String, String> {
        let mut values = self.args.clone();
        let pairs = self.config.config.env.iter().filter_map(|one| one.split_once('='));
        values.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        values
    }

    fn run(&mut self, build: &Build<'_>, run: &Run) -> Result<()> {
        if !run.mounts.is_empty() {
            return Err(Failure::refused("RUN --mount is read but not carried out by this hv; leave it out"));
        }
        let args = words(&run.command, &self.config.config.shell);
        let mut env = self.config.config.env.clone();
        let set = |name: &str| {
            self.config
                .config
                .env
                .iter()
                .any(|one| one.split_once('=').is_some_and(|(known, _)| known == name))
        };
        env.extend(
            self.args.iter().filter(|(name, _)| !set(name)).map(|(name, value)| format!("{name}={value}")),
        );
        let process = self.config.config.clone();
        let offline = match run.network {
            RunNetwork::None => true,
            RunNetwork::Default | RunNetwork::Host => build.request.offline,
        };
        let what = serde_json::to_string(&(&args, &env, &process.user, &process.working_dir, offline))?;
        let prefix = format!("#{}", self.index + 1);
        self.change(build, &format!("RUN {what}"), |root, bundle| {
            let cwd = if process.working_dir.is_empty() { "/" } else { &process.working_dir };
            let (root, user) = (root.path.as_path(), process.user.as_str());
            let job = Job { root, args: &args, env: &env, cwd, user, offline, bundle, prefix: &prefix };
            match job.run()? {
                0 => Ok(()),
                status => {
                    let shown = args.last().map_or("", String::as_str);
                    let shown = shown.trim().lines().next().unwrap_or_default();
                    Err(Failure::refused(format!("the command `{shown}` ended with status {status}")))
                }
            }
        })
    }

    fn copy(&mut self, build: &Build<'_>, line: usize, copy: &Transfer, add: bool) -> Result<()> {
        refuse_flags(copy)?;
        let values = self.values();
        let expand = |word: &String| build.expand(line, word, &values);
        let none = Ignore::default();
        let (root, ignore, in_root, mut what) = match &copy.from {
            None => (open_path(&build.request.context)?, &build.ignore, false, String::new()),
            Some(name) => {
                let mut other = self.other(build, &expand(name)?)?;
                let root = build.space.root(&other.lower(build)?)?;
                let opened = open_path(&root.path)?;
                // The mount stays with its descriptor.
                (opened, &none, true, other.key.to_string())
            }
        };
        let exclude = copy.exclude.iter().map(|pattern| Glob::path(pattern).map_err(Failure::refused));
        let source = Source { root: root.into(), ignore, exclude: exclude.collect::<Result<_>>()?, in_root };
        let mut hash = Sha256::new();
        let mut found = Vec::new();
        let mut documents = Vec::new();
        for name in &copy.sources {
            if let Some(document) =
                copy.heredocs.iter().find(|one| name.contains("<<") && name.contains(&one.name))
            {
                let lookup = |name: &str| values.get(name).cloned();
                let expander =
                    hv_image::dockerfile::Expander { escape: build.dockerfile.escape, lookup: &lookup };
                let text = match document.expand {
                    true => expander.text(&document.contents).map_err(Failure::refused)?,
                    false => document.contents.clone(),
                };
                hash.update(&text);
                documents.push((document.name.clone(), text));
                continue;
            }
            let name = expand(name)?;
            if add && (name.contains("://") || name.starts_with("git@")) {
                return Err(Failure::refused(
                    "ADD of an address: hv fetches nothing during a build; get the file first, then COPY it",
                ));
            }
            let failed = |source| Failure::new(format!("cannot take `{name}`"), source);
            for path in source.find(&name).map_err(failed)? {
                source.hash(&path, &mut hash, 0).map_err(failed)?;
                let archive =
                    add && copy.unpack != Some(false) && !source.is_directory(&path).map_err(failed)?;
                if archive
                    && source
                        .file(&path)
                        .and_then(|file| layer::unpacked(&file).map(|tar| tar.is_some()))
                        .map_err(failed)?
                {
                    return Err(Failure::refused(format!(
                        "ADD does not unpack the archive `{name}` in this hv: unpack it in a RUN"
                    )));
                }
                found.push(path);
            }
        }
        let target = expand(&copy.target)?;
        let many = found.len() + documents.len() > 1;
        if many && !target.ends_with('/') {
            return Err(Failure::refused(format!("several files need a directory as target: `{target}/`")));
        }
        let mode = copy.chmod.as_ref().map(|text| octal(&expand(text)?)).transpose()?;
        let chown = copy.chown.as_ref().map(expand).transpose()?;
        let directory = many || target.ends_with('/') || target == "." || target.ends_with("/.");
        let target = absolute(&self.config.config.working_dir, &target);
        what = format!("COPY {what} {} {target} {directory} {chown:?} {mode:?}", Digest::finish(hash));
        let time = build.epoch.unwrap_or(0);
        self.change(build, &what, |root, _| {
            let failed = |source| Failure::new(format!("cannot copy to {target}"), source);
            let opened = open(root).map_err(failed)?;
            let ids = match &chown {
                None if copy.from.is_some() => None,
                None => Some((0, 0)),
                Some(text) => {
                    let identity = Identity::resolve(Some(text), opened.as_fd())?;
                    let plain = text.parse().is_ok_and(|uid: u32| uid == identity.uid);
                    Some((identity.uid, if plain { identity.uid } else { identity.gid }))
                }
            };
            let owner = Owner { ids, mode };
            let into = directory || copy::has_directory(opened.as_fd(), &target);
            let (above, last) = target.rsplit_once('/').unwrap_or(("", &target));
            let to = |whole: bool, name: &OsStr| {
                let dir = if whole || into { &target } else { above };
                let name = if into { name } else { OsStr::new(last) };
                copy::directory(opened.as_fd(), dir, owner).map(|dir| (dir, name.to_owned()))
            };
            for path in &found {
                let whole = source.is_directory(path).map_err(failed)?;
                let (dir, name) = to(whole, path.file_name().unwrap_or_default()).map_err(failed)?;
                source.copy(path, dir.as_fd(), &name, owner).map_err(failed)?;
            }
            for (name, text) in &documents {
                let (dir, name) = to(false, OsStr::new(name)).map_err(failed)?;
                let owner = Owner { ids: Some(ids.unwrap_or((0, 0))), mode };
                copy::write(text, dir.as_fd(), &name, owner, time).map_err(failed)?;
            }
            Ok(())
        })
    }

    /// What `--from` names.
    fn other(&self, build: &Build<'_>, name: &str) -> Result<Stage> {
        if let Some(index) = index_of(&build.stages, name, self.index) {
            return Ok(build.done[&index].clone());
        }
        let from = hv_image::dockerfile::From { image: name.to_owned(), name: None, platform: None };
        let step = Step { line: 1, text: format!("--from={name}"), instruction: Instruction::From(from) };
        Stage::begin(build, 0, &step)
    }

    /// Its file system, to be read.
    fn lower(&mut self, build: &Build<'_>) -> Result<Lower> {
        // The kernel takes one page of options: many layers become one file again.
        if let Some(lower) = self.lower.as_ref().filter(|lower| lower.0.len() < 32) {
            return Ok(lower.clone());
        }
        let lower = match self.layers.is_empty() {
            true => Lower::default(),
            false => build.space.image(&build.store.startable(&self.manifest(build)?, None)?.path)?,
        };
        self.lower = Some(lower.clone());
        Ok(lower)
    }

    /// Does `work` on the root and takes what it changed as a layer, unless that is known already.
    fn change(
        &mut self,
        build: &Build<'_>,
        what: &str,
        work: impl FnOnce(&Root, &std::path::Path) -> Result<()>,
    ) -> Result<()> {
        let epoch = build.epoch;
        self.key = Digest::of(format!("hv build 1\n{}\n{epoch:?}\n{what}", self.key).as_bytes());
        let dir = build.store.dir().join(".build");
        let known = if build.request.no_cache { None } else { cache::get(&dir, build.store, &self.key) };
        let made = match known {
            Some(made) => {
                eprintln!("#{} CACHED", self.index + 1);
                // The file system is made of the layers when it is needed.
                self.lower = None;
                made
            }
            None => {
                let lower = self.lower(build)?;
                let root = build.space.root(&lower)?;
                work(&root, &build.space.directory()?)?;
                let upper = root.upper.clone();
                drop(root);
                let made = pack(build, &upper)?;
                if made.layer.is_some() {
                    self.lower = Some(Lower([upper].into_iter().chain(lower.0).collect()));
                }
                cache::put(&dir, &self.key, &made);
                made
            }
        };
        if let Some((layer, diff_id)) = made.layer {
            self.layers.push(layer);
            self.config.rootfs.diff_ids.push(diff_id);
        }
        Ok(())
    }

    fn manifest(&self, build: &Build<'_>) -> Result<Descriptor> {
        let put = |media_type: &str, bytes: &[u8]| -> Result<Descriptor> {
            let (digest, size) = build.store.put(bytes, None)?;
            Ok(Descriptor::new(media_type, digest, size))
        };
        let config = put(media::CONFIG, &serde_json::to_vec(&self.config)?)?;
        put(media::MANIFEST, &serde_json::to_vec(&Manifest::new(config, self.layers.clone()))?)
    }

    /// Puts the image's documents into the store; the manifest.
    pub(crate) fn publish(&self, build: &Build<'_>) -> Result<(Digest, u64)> {
        if self.layers.is_empty() {
            return Err(Failure::refused("the image would have no files: COPY something into it"));
        }
        let mut whole = self.clone();
        whole.config.created = Some(created(build));
        whole.manifest(build).map(|manifest| (manifest.digest, manifest.size))
    }
}

fn pack(build: &Build<'_>, upper: &std::path::Path) -> Result<Made> {
    let failed = |source: std::io::Error| Failure::new("cannot keep the layer", source);
    let plain = upper.with_file_name("layer.tar");
    let mut file = File::create_new(&plain).map_err(failed)?;
    if layer::changes(upper, build.epoch, std::io::BufWriter::new(&file))? == 0 {
        return Ok(Made { layer: None });
    }
    let mut hash = Sha256::new();
    let mut packed = GzEncoder::new(
        tempfile::tempfile_in(upper.with_file_name("work")).map_err(failed)?,
        Compression::new(4),
    );
    std::io::Seek::rewind(&mut file).map_err(failed)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = std::io::Read::read(&mut file, &mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        std::io::Write::write_all(&mut packed, &buffer[..count]).map_err(failed)?;
    }
    let mut packed = packed.finish().map_err(failed)?;
    std::io::Seek::rewind(&mut packed).map_err(failed)?;
    let (digest, size) = build.store.put(packed, None)?;
    let _ = std::fs::remove_file(&plain);
    Ok(Made { layer: Some((Descriptor::new(media::LAYER_GZIP, digest, size), Digest::finish(hash))) })
}

/// A name as the store has it, with docker's defaults.
pub(crate) fn full_name(name: &str) -> String {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    let whole = match first {
        "" => format!("docker.io/library/{rest}"),
        host if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        _ => format!("docker.io/{name}"),
    };
    let last = whole.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { whole } else { format!("{whole}:latest") }
}

fn words(command: &Command, shell: &[String]) -> Vec<String> {
    match command {
        Command::Exec(list) => list.clone(),
        Command::Shell(line) if shell.is_empty() => vec!["/bin/sh".into(), "-c".into(), line.clone()],
        Command::Shell(line) => shell.iter().cloned().chain([line.clone()]).collect(),
    }
}

fn absolute(working_dir: &str, path: &str) -> String {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("{working_dir}/{path}") };
    format!("/{}", hv_image::dockerfile::ignore::clean(&path))
}

fn open(root: &Root) -> std::io::Result<File> {
    File::open(&root.path)
}

fn open_path(path: &std::path::Path) -> Result<File> {
    File::open(path).map_err(|source| Failure::new(format!("cannot open {}", path.display()), source))
}

fn created(build: &Build<'_>) -> String {
    let seconds =
        build.epoch.map(|epoch| std::time::UNIX_EPOCH + std::time::Duration::from_secs(epoch.max(0) as u64));
    crate::cmd::oci::time::format(seconds.unwrap_or_else(std::time::SystemTime::now))
}

fn place(build: &Build<'_>, line: usize, failure: Failure) -> Failure {
    let said = failure.message();
    let start = format!("{}:", build.dockerfile.file);
    if said.starts_with(&start) { failure } else { Failure::refused(format!("{start}{line}: {said}")) }
}

fn tell(build: &Build<'_>, index: usize, _line: usize, step: &Step) {
    let stage = build.stages[index].name.clone().unwrap_or_else(|| format!("stage-{index}"));
    let text: String = step.text.chars().filter(|c| !c.is_control()).take(200).collect();
    eprintln!("#{} [{stage}] {text}", index + 1);
}

/// Flags that would change what is copied, and which nothing here obeys.
fn refuse_flags(copy: &Transfer) -> Result<()> {
    let refused = |flag, mend| Err(Failure::refused(format!("{flag} is not done by this hv: {mend}")));
    match copy {
        Transfer { parents: true, .. } => refused("--parents", "name the directory in the target"),
        Transfer { checksum: Some(_), .. } => refused("--checksum", "check it in a RUN"),
        _ => Ok(()),
    }
}

/// Access rights as COPY takes them.
fn octal(text: &str) -> Result<u32> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| Failure::refused(format!("--chmod={text} is no octal mode such as 0755")))
}
