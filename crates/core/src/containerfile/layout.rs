//! Where the files of the context lie in the container when a step begins.

use super::expand::Fuel;
use super::plan::{Resolved, Target};
use super::scope::Local;
use super::secrets::{fields, mounts};
use super::{Containerfile, Keyword, Step};

/// A `COPY` or `ADD` of the context, or what a `RUN` mounts of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Path below the context, variables replaced; may have wildcards.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
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
        self.follow(index, build_args, |stage, step, local, fuel| {
            if is_reached {
                return;
            }
            is_reached = stage == index && Some(step.number) == number;
            if is_reached {
                layout.mount(step, local, fuel);
            } else {
                layout.apply(step, local, fuel);
            }
        });
        layout
    }

    /// The paths of the context that steps of the stage `index` copy or mount, by number of the step.
    #[must_use]
    pub fn taken(
        &self,
        index: usize,
        build_args: &[(String, String)],
    ) -> Vec<(usize, Vec<String>)> {
        let mut taken = Vec::new();
        self.follow(index, build_args, |stage, step, local, fuel| {
            let mut alone = Layout::default();
            if stage == index {
                alone.apply(step, local, fuel);
                alone.mount(step, local, fuel);
            }
            if !alone.copied.is_empty() {
                let sources = alone.copied.into_iter().map(|copied| copied.source);
                taken.push((step.number, sources.collect()));
            }
        });
        taken
    }

    /// Calls `visit` for each step but the `FROM`s of the stages that lead to the stage `index`, and of itself.
    fn follow(
        &self,
        index: usize,
        build_args: &[(String, String)],
        mut visit: impl FnMut(usize, &Step, &Local, &mut Fuel),
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
                visit(stage.index, step, &local, &mut fuel);
            }
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
    fn apply(&mut self, step: &Step, local: &Local, fuel: &mut Fuel) {
        let mut expand = |word: &str| local.expand(word, fuel).ok().map(|word| word.text);
        match step.keyword {
            Keyword::Workdir => {
                if let Some(to) = step.args.first().and_then(|word| expand(word)) {
                    self.workdir = self.below(&to);
                }
            }
            Keyword::Add | Keyword::Copy => {
                if step.flags.iter().any(|flag| flag.starts_with("--from=")) {
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
                            source,
                            target: target.clone(),
                        });
                    }
                }
            }
            _ => {}
        }
    }

    fn mount(&mut self, step: &Step, local: &Local, fuel: &mut Fuel) {
        for mount in mounts(step) {
            let Ok(mount) = local.expand(mount, fuel) else {
                continue;
            };
            let mount = fields(&mount.text);
            if mount.kind() != "bind" || mount.last("from").is_some() {
                continue;
            }
            let target = ["target", "dst", "destination"]
                .iter()
                .find_map(|key| mount.last(key));
            let source = ["source", "src"].iter().find_map(|key| mount.last(key));
            if let Some(target) = target {
                self.copied.push(Copied {
                    source: source.unwrap_or(".").to_owned(),
                    target: self.below(target),
                });
            }
        }
    }

    fn below(&self, path: &str) -> String {
        if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.workdir.trim_end_matches('/'))
        }
    }
}
