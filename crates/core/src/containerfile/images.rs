//! The images a build needs from outside.

use super::Containerfile;
use super::fault::{Fault, FaultKind, MAX_FAULTS, excerpt};
use super::plan::{Reference, Resolved, Target};
use std::collections::HashSet;

/// What an image is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageUse {
    /// Base of a stage.
    From,
    /// `COPY --from=`.
    CopyFrom,
    /// `RUN --mount=…,from=`.
    Mount,
}

/// An image that is no stage of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededImage {
    /// The reference with variables replaced, else as written: short names and transports
    /// (`docker://…`) are left as they are.
    pub reference: String,
    /// Line of the first instruction that needs it, counted from 1.
    pub line: u32,
    /// What that instruction needs it for.
    pub used: ImageUse,
    /// The value of `--platform` of a `FROM`, with variables replaced.
    pub platform: Option<String>,
    /// A stage the reference may have been meant for: it comes later, or differs in case.
    pub near_stage: Option<String>,
}

impl Containerfile {
    /// The images `target` needs, each once for every platform, in the order of the stages.
    ///
    /// Left out are a `FROM scratch`, stages, directories that are named build contexts, and a mount whose `from=` depends on variables that
    /// only the base image can have. The values of `TARGETARCH` and its like are those of this
    /// machine, or of a `TARGETPLATFORM` among the build arguments.
    ///
    /// # Errors
    /// The faults of [`Containerfile::check`], names that expand to nothing, and variables that
    /// cannot be expanded, by line, at most [`MAX_FAULTS`].
    pub fn images(
        &self,
        build_args: &[(String, String)],
        target: Option<&str>,
    ) -> Result<Vec<NeededImage>, Vec<Fault>> {
        let mut faults = self.check(target, build_args);
        let resolved = Resolved::new(self, build_args);
        for (line, error) in &resolved.globals.errors {
            faults.push(Fault::new(*line, FaultKind::Syntax, error.to_string()).of("ARG"));
        }
        let mut images = Vec::new();
        let mut seen = HashSet::new();
        // An unknown target is among the faults of `check`.
        for stage in resolved.plan(target).unwrap_or_default() {
            for reference in resolved.references.get(stage).into_iter().flatten() {
                match &reference.target {
                    Target::Directory(_) if reference.used == ImageUse::From => {
                        let message = "this named build context is a directory: FROM takes an \
                                       image, a stage or scratch";
                        faults.push(
                            Fault::new(reference.line, FaultKind::NoImage, message).of("FROM"),
                        );
                    }
                    Target::NamedByVariable(name) => {
                        let message = format!(
                            "a variable names the build context `{}`: Buildah takes one only where \
                             its name is written, FROM {0}",
                            excerpt(name)
                        );
                        faults.push(
                            Fault::new(reference.line, FaultKind::NoImage, message).of("FROM"),
                        );
                    }
                    Target::Scratch | Target::Stage(_) | Target::Directory(_) | Target::Unknown => {
                    }
                    Target::Empty(missing) => {
                        faults.push(self.empty(reference, missing, &resolved))
                    }
                    Target::Bad(error) => faults.push(
                        Fault::new(reference.line, FaultKind::Syntax, error.to_string())
                            .of(instruction(reference.used)),
                    ),
                    Target::Image(name) => {
                        if seen.insert((name.clone(), reference.platform.clone())) {
                            images.push(NeededImage {
                                reference: name.clone(),
                                line: reference.line,
                                used: reference.used,
                                platform: reference.platform.clone(),
                                near_stage: resolved.near_stage(name),
                            });
                        }
                    }
                }
            }
        }
        if faults.is_empty() {
            return Ok(images);
        }
        faults.sort_by_key(|fault| fault.line);
        faults.truncate(MAX_FAULTS);
        Err(faults)
    }

    fn empty(&self, reference: &Reference, missing: &[String], resolved: &Resolved<'_>) -> Fault {
        let place = match reference.used {
            ImageUse::From => "the image of FROM",
            ImageUse::CopyFrom => "--from of COPY",
            ImageUse::Mount => "from= of --mount",
        };
        let mut kind = FaultKind::EmptyName;
        let reason = match missing.first().map(|name| excerpt(name)) {
            None => "nothing is given".to_owned(),
            Some(name) if reference.used != ImageUse::From => format!(
                "{name} has no value there: it takes `ARG {name}` above it in the stage, and a \
                 default or a build argument"
            ),
            Some(name) if resolved.globals.declares(self, &name) => {
                if self
                    .args
                    .iter()
                    .any(|arg| arg.name == name && arg.default.is_none())
                {
                    kind = FaultKind::MissingBuildArg;
                }
                format!(
                    "ARG {name} has no value: give it a default, or pass {name}=VALUE as a build argument"
                )
            }
            Some(name) => format!("no `ARG {name}` stands before the first FROM"),
        };
        let message = format!("{place} is incomplete: {reason}");
        Fault::new(reference.line, kind, message).of(instruction(reference.used))
    }
}

fn instruction(used: ImageUse) -> &'static str {
    match used {
        ImageUse::From => "FROM",
        ImageUse::CopyFrom => "COPY",
        ImageUse::Mount => "RUN",
    }
}
