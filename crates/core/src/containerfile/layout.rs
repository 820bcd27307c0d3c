//! Where the files of the context lie in the container when a step begins.

use super::expand::{ExpandError, Expanded, Fuel};
use super::images::ImageUse;
use super::plan::{Resolved, Target};
use super::scope::Local;
use super::secrets::{fields, mounts};
use super::{Containerfile, Keyword, Step};

/// A `COPY` or `ADD` of the context or of a named one, or what a `RUN` mounts of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The directory of the named build context, below the root of the source; `None`: the context itself.
    pub named: Option<String>,
    /// Path below the context, variables replaced; may have wildcards.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
}

/// What a step takes of the contexts, or mounts of elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Number of the step in its stage.
    pub number: usize,
    /// What it copies, without what ignore files keep out.
    pub copied: Vec<Copied>,
    /// What it mounts, whatever ignore files say.
    pub mounted: Vec<Mounted>,
}

/// A mount of a `RUN` that shows something that is there before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Whether it says `type=bind`.
    pub is_typed: bool,
    /// What it shows.
    pub shows: Shown,
}

impl Mounted {
    /// The part of a context that it shows.
    #[must_use]
    pub fn of_context(&self) -> Option<&Copied> {
        match &self.shows {
            Shown::Context(copied) => Some(copied),
            Shown::Image | Shown::Unknown => None,
        }
    }
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A part of a context; without a target, where it lies is not known.
    Context(Copied),
    /// A part of a stage or an image.
    Image,
    /// It depends on variables that only the base image can have.
    Unknown,
}

/// What a step finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The directory it begins in, as far as the file tells.
    pub workdir: String,
    /// What was copied before, in order: in the stage, and in those it is built on.
    pub copied: Vec<Copied>,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            workdir: "/".to_owned(),
            copied: Vec::new(),
        }
    }
}

impl Containerfile {
    /// What the step `number` of the stage `index` finds; without a number, what the image of the stage has.
    #[must_use]
    pub fn layout(
        &self,
        index: usize,
        number: Option<usize>,
        build_args: &[(String, String)],
    ) -> Layout {
        let mut layout = Layout::default();
        let mut is_reached = false;
        self.follow(index, build_args, |at, step, fuel| {
            if is_reached {
                return;
            }
            is_reached = at.stage == index && Some(step.number) == number;
            if is_reached {
                layout.mount(step, at, fuel);
            } else {
                layout.apply(step, at, fuel);
            }
        });
        layout
    }

    /// What the steps of the stage `index` take, of those that take something.
    #[must_use]
    pub fn taken(&self, index: usize, build_args: &[(String, String)]) -> Vec<Taken> {
        let mut all = Vec::new();
        self.follow(index, build_args, |at, step, fuel| {
            if at.stage != index {
                return;
            }
            let mut alone = Layout::default();
            alone.apply(step, at, fuel);
            let taken = Taken {
                number: step.number,
                mounted: alone.mounted(step, at, fuel),
                copied: alone.copied,
            };
            if !taken.copied.is_empty() || !taken.mounted.is_empty() {
                all.push(taken);
            }
        });
        all
    }

    /// Calls `visit` for each step but the `FROM`s of the stages that lead to the stage `index`, and of itself.
    fn follow(
        &self,
        index: usize,
        build_args: &[(String, String)],
        mut visit: impl FnMut(&At<'_>, &Step, &mut Fuel),
    ) {
        let resolved = Resolved::new(self, build_args);
        let mut chain = vec![index];
        while let Some(base) = chain.last().and_then(|stage| resolved.base_stage(*stage))
            && !chain.contains(&base)
        {
            chain.push(base);
        }
        let mut fuel = Fuel::new();
        let mut local = Local::default();
        let stages = chain.iter().rev();
        for stage in stages.filter_map(|stage| self.stages.get(*stage)) {
            for step in stage.steps.iter().skip(1) {
                local.apply(step, &resolved.globals, &mut fuel);
                let at = At {
                    stage: stage.index,
                    local: &local,
                    resolved: &resolved,
                };
                visit(&at, step, &mut fuel);
            }
        }
    }
}

/// Where a step stands.
struct At<'a> {
    stage: usize,
    local: &'a Local,
    resolved: &'a Resolved<'a>,
}

impl At<'_> {
    /// The directory of the named build context that `--from` refers to.
    fn named(&self, used: ImageUse, from: Result<Expanded, ExpandError>) -> Option<String> {
        match self.resolved.from(self.stage, used, from) {
            Target::Directory(path) => Some(path),
            _ => None,
        }
    }
}

impl Resolved<'_> {
    fn base_stage(&self, stage: usize) -> Option<usize> {
        match self.references.get(stage)?.first()?.target {
            Target::Stage(base) => Some(base),
            _ => None,
        }
    }
}

impl Layout {
    fn apply(&mut self, step: &Step, at: &At<'_>, fuel: &mut Fuel) {
        let from = step
            .flags
            .iter()
            .find_map(|flag| flag.strip_prefix("--from="));
        let named =
            from.and_then(|from| at.named(ImageUse::CopyFrom, at.local.expand_args(from, fuel)));
        let mut expand = |word: &str| at.local.expand(word, fuel).ok().map(|word| word.text);
        match step.keyword {
            Keyword::Workdir => {
                if let Some(to) = step.args.first().and_then(|word| expand(word)) {
                    self.workdir = self.below(&to);
                }
            }
            Keyword::Add | Keyword::Copy => {
                if from.is_some() && named.is_none() {
                    return;
                }
                let Some((target, sources)) = step.args.split_last() else {
                    return;
                };
                let Some(target) = expand(target).map(|target| self.below(&target)) else {
                    return;
                };
                for source in sources.iter().filter_map(|word| expand(word)) {
                    if !source.contains("://") && !source.starts_with("<<") {
                        self.copied.push(Copied {
                            named: named.clone(),
                            source,
                            target: target.clone(),
                        });
                    }
                }
            }
            _ => {}
        }
    }

    fn mount(&mut self, step: &Step, at: &At<'_>, fuel: &mut Fuel) {
        for mounted in self.mounted(step, at, fuel) {
            if let Shown::Context(copied) = mounted.shows
                && !copied.target.is_empty()
            {
                self.copied.push(copied);
            }
        }
    }

    /// What a step mounts of what is there before it: by `type=bind`, and by `type=cache` with `from`.
    fn mounted(&self, step: &Step, at: &At<'_>, fuel: &mut Fuel) -> Vec<Mounted> {
        let mut all = Vec::new();
        for mount in mounts(step) {
            let kind = fields(mount).last("type");
            let shows = match kind {
                None | Some("bind") => self.shown(mount, at, fuel),
                Some("cache") if fields(mount).last("from").is_some() => {
                    self.shown(mount, at, fuel)
                }
                // A variable can make it anything.
                Some(kind) if kind.contains('$') => Shown::Unknown,
                Some(_) => continue,
            };
            all.push(Mounted {
                is_typed: kind == Some("bind"),
                shows,
            });
        }
        all
    }

    fn shown(&self, mount: &str, at: &At<'_>, fuel: &mut Fuel) -> Shown {
        let Some(mut expanded) =
            (at.local.expand(mount, fuel).ok()).filter(|expanded| expanded.missing.is_empty())
        else {
            return Shown::Unknown;
        };
        let text = std::mem::take(&mut expanded.text);
        let mount = fields(&text);
        let named = match mount.last("from") {
            None => None,
            Some(from) => {
                expanded.text = from.to_owned();
                match at.named(ImageUse::Mount, Ok(expanded)) {
                    None => return Shown::Image,
                    named => named,
                }
            }
        };
        let first = |keys: &[&str]| keys.iter().find_map(|key| mount.last(key));
        let target = first(&["target", "dst", "destination"]);
        Shown::Context(Copied {
            named,
            source: first(&["source", "src"]).unwrap_or(".").to_owned(),
            target: target.map_or_else(String::new, |target| self.below(target)),
        })
    }

    fn below(&self, path: &str) -> String {
        if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.workdir.trim_end_matches('/'))
        }
    }
}
