//! Which stages Buildah runs for a target, and what every stage refers to.
//!
//! Buildah cuts the file behind the target, marks what the target needs, and skips the rest without
//! a word. Skipping does not renumber: in `[s/S] STEP n/m`, `s` is the stage's index plus one and
//! `S` the target's; with `S` = 1 the bracket is left out. Buildah 1.28 overlooks a need that goes
//! through the default of an `ARG` (`FROM $BASE`) unless it is given as a build argument.

use super::expand::{ExpandError, Expanded, Fuel};
use super::fault::{excerpt, nearest};
use super::images::ImageUse;
use super::scope::{Globals, Local};
use super::secrets::{fields, mounts};
use super::{Containerfile, Keyword, Stage, Step};
use crate::build::named_context::NamedContext;
use std::collections::HashMap;
use thiserror::Error;

/// The stages named in a message.
const MAX_LISTED: usize = 20;

/// The wanted target is no stage of the file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no stage `{}`; {}", excerpt(.wanted), hint(.available, .suggestion.as_deref()))]
pub struct UnknownTarget {
    /// The target asked for.
    pub wanted: String,
    /// What can be asked for instead, in the order of the file: a name, else an index.
    pub available: Vec<String>,
    /// The one most likely meant.
    pub suggestion: Option<String>,
}

fn hint(available: &[String], suggestion: Option<&str>) -> String {
    if let Some(suggestion) = suggestion {
        return format!("did you mean `{suggestion}`?");
    }
    let listed = available.iter().take(MAX_LISTED);
    let names: Vec<String> = listed.map(|name| format!("`{}`", excerpt(name))).collect();
    format!("the file has {}", names.join(", "))
}

/// What a `FROM`, `COPY --from` or `--mount=from` refers to.
pub(super) enum Target {
    Scratch,
    Stage(usize),
    Image(String),
    /// A named build context, by its directory below the root of the source.
    Directory(String),
    /// The name of a named build context, where a variable has it and Buildah takes none.
    NamedByVariable(String),
    /// Nothing is left of it; these variables have no value.
    Empty(Vec<String>),
    /// It depends on the base image's variables.
    Unknown,
    Bad(ExpandError),
}

pub(super) struct Reference {
    pub line: u32,
    pub used: ImageUse,
    pub target: Target,
    pub platform: Option<String>,
}

/// Everything that stages refer to, with build arguments put in.
pub(super) struct Resolved<'a> {
    pub globals: Globals<'a>,
    /// By stage.
    pub references: Vec<Vec<Reference>>,
    names: Names,
    contexts: &'a [(String, String)],
}

/// The stages by name, with variables in the names replaced.
struct Names {
    by_name: HashMap<String, Vec<usize>>,
    names: Vec<Option<String>>,
}

impl Names {
    /// The last stage before `limit` of that name, else that index.
    fn before(&self, limit: usize, name: &str) -> Option<usize> {
        let named = self.by_name.get(name).and_then(|stages| {
            let count = stages.partition_point(|stage| *stage < limit);
            stages.get(..count)?.last().copied()
        });
        named.or_else(|| name.parse().ok().filter(|index| *index < limit))
    }
}

impl<'a> Resolved<'a> {
    pub fn new(file: &'a Containerfile, build_args: &'a [(String, String)]) -> Self {
        let mut fuel = Fuel::new();
        let globals = Globals::new(file, build_args, &mut fuel);
        let mut names = Names {
            by_name: HashMap::new(),
            names: Vec::with_capacity(file.stages.len()),
        };
        for stage in &file.stages {
            let name = stage.name.as_ref().map(|name| {
                let expanded = globals.expand(name, &mut fuel);
                expanded.map_or_else(|_| name.clone(), |expanded| expanded.text)
            });
            if let Some(name) = &name {
                let same = names.by_name.entry(name.clone()).or_default();
                same.push(stage.index);
            }
            names.names.push(name);
        }
        let mut resolved = Self {
            globals,
            references: Vec::with_capacity(file.stages.len()),
            names,
            contexts: &file.contexts,
        };
        resolved.read(file, &mut fuel);
        resolved
    }

    fn read(&mut self, file: &Containerfile, fuel: &mut Fuel) {
        // Without a variable to replace in the steps, there is no need to follow their values.
        let steps = file.stages.iter().flat_map(|stage| &stage.steps);
        let mut flags = steps
            .filter(|step| matches!(step.keyword, Keyword::Copy | Keyword::Run))
            .flat_map(|step| &step.flags);
        let follow = flags.any(|flag| flag.contains('$'));
        let mut locals: Vec<Local> = Vec::new();
        for stage in &file.stages {
            let base = self.base(stage, fuel);
            let mut local = match base.target {
                Target::Stage(parent) => locals.get(parent).map(|local| local.inherit(fuel)),
                _ => None,
            }
            .and_then(Result::ok)
            .unwrap_or_default();
            let mut references = vec![base];
            for step in stage.steps.iter().skip(1) {
                if follow {
                    local.apply(step, &self.globals, fuel);
                }
                self.step(stage.index, step, &local, fuel, &mut references);
            }
            if follow {
                locals.push(local);
            }
            self.references.push(references);
        }
    }

    fn base(&self, stage: &Stage, fuel: &mut Fuel) -> Reference {
        let platform = stage.platform.as_ref();
        let platform = platform.map(|platform| self.globals.expand(platform, fuel));
        let (platform, target) = match platform.transpose() {
            Ok(platform) => (
                platform.map(|platform| platform.text),
                self.base_target(stage, fuel),
            ),
            Err(error) => (None, Target::Bad(error)),
        };
        Reference {
            line: stage.line,
            used: ImageUse::From,
            target: match target {
                Target::Image(name) if name == "scratch" => Target::Scratch,
                target => target,
            },
            platform: platform.filter(|platform| !platform.is_empty()),
        }
    }

    /// Buildah replaces a named context by the word as it is written, and yet takes its name for no stage where a
    /// variable has it (imagebuildah/executor.go, `Build`).
    fn base_target(&self, stage: &Stage, fuel: &mut Fuel) -> Target {
        if let Some(named) = self.context(&stage.base) {
            return named;
        }
        match self.globals.expand(&stage.base, fuel) {
            Ok(base) if self.context(&base.text).is_some() => Target::NamedByVariable(base.text),
            expanded => self.stage_or_image(stage.index, expanded),
        }
    }

    /// The named build context of that name.
    fn context(&self, name: &str) -> Option<Target> {
        Some(match NamedContext::find(self.contexts, name)? {
            NamedContext::Directory(path) => Target::Directory(path.to_owned()),
            NamedContext::Image(image) => Target::Image(image.to_owned()),
        })
    }

    /// What `--from` of a step in `stage` refers to.
    pub(super) fn from(
        &self,
        stage: usize,
        used: ImageUse,
        expanded: Result<Expanded, ExpandError>,
    ) -> Target {
        let named = |name: &Expanded| {
            let named = self.context(&name.text);
            // Of a COPY, Buildah looks for the stage's name where its number stands (imagebuildah/stage_executor.go).
            named.or_else(|| match used {
                ImageUse::CopyFrom => self.context(self.name_of(stage, &name.text)?),
                _ => None,
            })
        };
        let found = expanded.as_ref().ok().and_then(named);
        found.unwrap_or_else(|| self.stage_or_image(stage, expanded))
    }

    /// The name of a stage before `limit` by its number.
    fn name_of(&self, limit: usize, number: &str) -> Option<&str> {
        let index: usize = number.parse().ok().filter(|index| *index < limit)?;
        self.names.names.get(index)?.as_deref()
    }

    fn stage_or_image(&self, stage: usize, expanded: Result<Expanded, ExpandError>) -> Target {
        match expanded {
            Err(error) => Target::Bad(error),
            Ok(name) => {
                let cut = name.text.ends_with([':', '/', '@']) && !name.missing.is_empty();
                if name.text.is_empty() || cut {
                    return Target::Empty(name.missing);
                }
                match self.names.before(stage, &name.text) {
                    Some(stage) => Target::Stage(stage),
                    None => Target::Image(name.text),
                }
            }
        }
    }

    fn step(
        &self,
        stage: usize,
        step: &Step,
        local: &Local,
        fuel: &mut Fuel,
        references: &mut Vec<Reference>,
    ) {
        let mut refer = |used, target| {
            references.push(Reference {
                line: step.line,
                used,
                target,
                platform: None,
            });
        };
        let flags = step.flags.iter().filter(|_| step.keyword == Keyword::Copy);
        for from in flags.filter_map(|flag| flag.strip_prefix("--from=")) {
            let target = self.from(stage, ImageUse::CopyFrom, local.expand_args(from, fuel));
            refer(ImageUse::CopyFrom, target);
        }
        for mount in mounts(step).filter(|mount| mount.contains("from")) {
            let target = match local.expand(mount, fuel) {
                Err(error @ ExpandError::TooLarge) => Target::Bad(error),
                Err(_) => Target::Unknown,
                Ok(mount) if !mount.missing.is_empty() => Target::Unknown,
                Ok(mut mount) => {
                    let Some(from) = fields(&mount.text).last("from").map(str::to_owned) else {
                        continue;
                    };
                    mount.text = from;
                    self.from(stage, ImageUse::Mount, Ok(mount))
                }
            };
            refer(ImageUse::Mount, target);
        }
    }

    /// The name of a stage that `name` may have been meant for: one that comes too late, or
    /// differs in case.
    pub fn near_stage(&self, name: &str) -> Option<String> {
        let names = self.names.names.iter().flatten();
        let mut names = names.filter(|stage| stage.eq_ignore_ascii_case(name));
        names.next().cloned()
    }

    /// The stages Buildah runs for `target`, by index.
    pub fn plan(&self, target: Option<&str>) -> Result<Vec<usize>, UnknownTarget> {
        let stages = self.references.len();
        let last = match target.filter(|target| !target.is_empty()) {
            None => stages.saturating_sub(1),
            Some(target) => self.find(target)?,
        };
        let mut needed = vec![false; stages];
        let mut pending = vec![last];
        let mut by_name = self.names.by_name.clone();
        while let Some(stage) = pending.pop() {
            match needed.get_mut(stage) {
                Some(done @ false) => *done = true,
                _ => continue,
            }
            let references = self.references.get(stage).into_iter().flatten();
            pending.extend(references.filter_map(|reference| match reference.target {
                Target::Stage(stage) => Some(stage),
                _ => None,
            }));
            // Buildah marks by name: stages of the same name run together.
            if let Some(Some(name)) = self.names.names.get(stage) {
                let same = by_name.remove(name).into_iter().flatten();
                pending.extend(same.filter(|same| *same <= last));
            }
        }
        let marked = needed.iter().enumerate().filter(|(_, needed)| **needed);
        Ok(marked.map(|(index, _)| index).collect())
    }

    /// The stage of that name or index; failing that, of that name in another case.
    fn find(&self, target: &str) -> Result<usize, UnknownTarget> {
        let names = &self.names.names;
        let position = |same: &dyn Fn(&str) -> bool| {
            let mut names = names.iter();
            names.position(|name| name.as_deref().is_some_and(same))
        };
        let index = || target.parse().ok().filter(|index| *index < names.len());
        position(&|name| name == target)
            .or_else(index)
            .or_else(|| position(&|name| name.eq_ignore_ascii_case(target)))
            .ok_or_else(|| self.unknown(target))
    }

    fn unknown(&self, target: &str) -> UnknownTarget {
        let names = self.names.names.iter().enumerate();
        let names = names.map(|(index, name)| name.clone().unwrap_or_else(|| index.to_string()));
        let available: Vec<String> = names.collect();
        let suggestion = nearest(target, available.iter().map(String::as_str));
        UnknownTarget {
            wanted: target.to_owned(),
            suggestion: suggestion.map(str::to_owned),
            available,
        }
    }
}

impl Containerfile {
    /// The stages Buildah runs for `target`, in order; the last one is the target. Without a target
    /// it is the last of the file.
    ///
    /// A target is a name, else an index, else a name in another case. Buildah itself knows no
    /// names in another case, and 1.28 no index of a named stage: pass it [`Stage::selector`] of
    /// the last stage.
    ///
    /// # Errors
    /// The target is no stage.
    pub fn plan(
        &self,
        target: Option<&str>,
        build_args: &[(String, String)],
    ) -> Result<Vec<&Stage>, UnknownTarget> {
        let plan = Resolved::new(self, build_args).plan(target)?;
        let stages = plan.into_iter().filter_map(|index| self.stages.get(index));
        Ok(stages.collect())
    }
}
