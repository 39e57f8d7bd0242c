//! `hv build`: a Dockerfile becomes an image.
//!
//! [`stage`]: the steps of a stage, one after the other; [`root`]: the file system that a step sees and changes: an
//! overlay of the layers so far, whose upper directory becomes the next layer; [`run`]: RUN, in a container of hv's
//! own; [`copy`]: COPY and ADD, by descriptors that nothing leads out of; [`cache`]: what need not be done again.
//!
//! All mounts are made in a mount namespace of the build's own, so that none is left behind however it ends.

mod cache;
mod copy;
mod root;
mod run;
mod stage;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use hv_image::content::{Digest, Store};
use hv_image::dockerfile::{Dockerfile, Ignore, Instruction};

use crate::error::{Failure, Result};
use stage::Stage;
pub(crate) use stage::full_name;

/// What was asked for.
#[derive(Debug)]
pub struct Request {
    /// The directory that COPY takes files from.
    pub context: PathBuf,
    /// The Dockerfile.
    pub file: PathBuf,
    /// `--build-arg`.
    pub args: BTreeMap<String, String>,
    /// The stage to build; None: the last.
    pub target: Option<String>,
    /// Do every step anew.
    pub no_cache: bool,
    /// RUN has no network but loopback.
    pub offline: bool,
}

/// What all stages share.
pub(crate) struct Build<'a> {
    pub(crate) request: &'a Request,
    pub(crate) dockerfile: &'a Dockerfile,
    pub(crate) ignore: Ignore,
    pub(crate) store: &'a Store,
    pub(crate) space: root::Space,
    /// SOURCE_DATE_EPOCH.
    pub(crate) epoch: Option<i64>,
    pub(crate) globals: BTreeMap<String, String>,
    pub(crate) done: HashMap<usize, Stage>,
    /// Names of stages, and where they are in the file.
    pub(crate) stages: Vec<Section>,
}

/// One stage of the file.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) name: Option<String>,
    /// The places of its first step and of the one behind its last.
    pub(crate) steps: std::ops::Range<usize>,
}

/// Builds; the manifest's digest and size.
///
/// # Errors
/// A step failed: the words start with `FILE:LINE: `.
pub fn build(request: &Request, store: &Store, dirs: &hv_image::dirs::Dirs) -> Result<(Digest, u64)> {
    let shown = request.file.display().to_string();
    let read = |path: &PathBuf| {
        let failed = |source| Failure::new(format!("cannot read {}", path.display()), source);
        std::fs::read_to_string(path).map_err(failed)
    };
    let dockerfile = Dockerfile::parse(&shown, &read(&request.file)?)?;
    let ignored = request.context.join(".dockerignore");
    let ignore = match ignored.exists() {
        true => Ignore::parse(&ignored.display().to_string(), &read(&ignored)?)?,
        false => Ignore::default(),
    };
    let epoch = match request
        .args
        .get("SOURCE_DATE_EPOCH")
        .cloned()
        .or_else(|| std::env::var("SOURCE_DATE_EPOCH").ok())
    {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Failure::refused(format!("SOURCE_DATE_EPOCH={text} is no number of seconds since 1970"))
        })?),
    };
    let space = root::Space::enter(dirs)?;
    let _session = store.session()?;
    let stages = sections(&dockerfile);
    let wanted = match &request.target {
        None => stages.len() - 1,
        Some(name) => index_of(&stages, name, stages.len())
            .ok_or_else(|| Failure::refused(format!("{shown} has no stage `{name}`")))?,
    };
    let mut build = Build {
        request,
        dockerfile: &dockerfile,
        ignore,
        store,
        space,
        epoch,
        globals: BTreeMap::new(),
        done: HashMap::new(),
        stages,
    };
    build.globals()?;
    let mut order = Vec::new();
    build.needs(wanted, &mut order)?;
    for index in order {
        let stage = Stage::build(&build, index)?;
        build.done.insert(index, stage);
    }
    let stage = build.done.get(&wanted).ok_or_else(|| Failure::refused("the stage was not built"))?;
    stage.publish(&build)
}

fn sections(dockerfile: &Dockerfile) -> Vec<Section> {
    let mut stages: Vec<Section> = Vec::new();
    for (at, step) in dockerfile.steps.iter().enumerate() {
        if let Instruction::From(from) = &step.instruction {
            stages.push(Section { name: from.name.clone(), steps: at..at });
        }
        if let Some(stage) = stages.last_mut() {
            stage.steps.end = at + 1;
        }
    }
    stages
}

/// The stage of this name or number among the first `before`.
pub(crate) fn index_of(stages: &[Section], name: &str, before: usize) -> Option<usize> {
    let named = |stage: &Section| stage.name.as_deref().is_some_and(|known| known.eq_ignore_ascii_case(name));
    let by_name = stages[..before].iter().rposition(named);
    by_name.or_else(|| name.parse().ok().filter(|index| *index < before))
}

impl Build<'_> {
    /// The ARGs above the first FROM.
    fn globals(&mut self) -> Result<()> {
        let first = self.stages[0].steps.start;
        let machine = hv_image::content::Platform::default();
        for prefix in ["TARGET", "BUILD"] {
            self.globals.insert(format!("{prefix}PLATFORM"), machine.to_string());
            self.globals.insert(format!("{prefix}OS"), machine.os.clone());
            self.globals.insert(format!("{prefix}ARCH"), machine.architecture.clone());
            self.globals.insert(format!("{prefix}VARIANT"), String::new());
        }
        for step in &self.dockerfile.steps[..first] {
            let Instruction::Arg(args) = &step.instruction else { continue };
            for (name, default) in args {
                let value = match (self.request.args.get(name), default) {
                    (Some(given), _) => given.clone(),
                    (None, Some(default)) => self.expand(step.line, default, &self.globals)?,
                    (None, None) => continue,
                };
                self.globals.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    pub(crate) fn expand(
        &self,
        line: usize,
        word: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<String> {
        let lookup = |name: &str| values.get(name).cloned();
        let expander = hv_image::dockerfile::Expander { escape: self.dockerfile.escape, lookup: &lookup };
        Ok(expander.word(word).map_err(|what| self.dockerfile.mistake(line, what))?)
    }

    /// The stages that `index` needs, and itself, each once and after what it needs.
    fn needs(&self, index: usize, order: &mut Vec<usize>) -> Result<()> {
        for step in &self.dockerfile.steps[self.stages[index].steps.clone()] {
            let names: Vec<String> = match &step.instruction {
                Instruction::From(from) => vec![self.expand(step.line, &from.image, &self.globals)?],
                Instruction::Copy(copy) => copy.from.iter().cloned().collect(),
                _ => Vec::new(),
            };
            for name in names {
                if let Some(other) = index_of(&self.stages, &name, index) {
                    self.needs(other, order)?;
                }
            }
        }
        if !order.contains(&index) {
            order.push(index);
        }
        Ok(())
    }
}
