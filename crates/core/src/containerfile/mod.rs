//! Reads Containerfiles (Dockerfiles) the way Buildah does, without running anything.
//!
//! It finds faults before a build starts ([`Containerfile::parse_for`]), names the images to fetch
//! ([`Containerfile::images`]) and the secrets asked for ([`Containerfile::secret_ids`]), and leads
//! what Buildah prints back to lines of the file ([`Containerfile::locate`]), and paths in a container to files
//! of the context ([`Containerfile::layout`]).
//!
//! The rules are those of `github.com/openshift/imagebuilder` as vendored in Buildah 1.28.2 and
//! 1.43.2; where the two differ, what either accepts is accepted, with these exceptions: an
//! instruction before the first `FROM` and a `FROM` without an image (1.28 accepts them in stages
//! it does not run), and text behind `<<NAME` is a here-document (1.28 knows none, see
//! [`Containerfile::uses_heredocs`]).
//!
//! Invariants:
//! - No I/O, no panic; time and memory are bounded for any text, by [`MAX_BYTES`],
//!   [`MAX_INSTRUCTIONS`] and a budget for expanding variables.
//! - What Buildah refuses only on running a step is a fault only if the target needs the stage.
//! - `steps[0]` of a stage is its `FROM`; step numbers are Buildah's unless the base image has
//!   `ONBUILD` triggers or the command line adds steps (`--env`: after `FROM`; `--label`: at the end).

mod bound;
mod check;
mod expand;
mod fault;
mod heredoc;
mod images;
mod instruction;
mod keyword;
mod layout;
mod lines;
mod locate;
mod parse;
mod pattern;
mod plan;
mod scope;
mod secrets;
#[cfg(test)]
mod tests;
mod words;

pub use fault::{Fault, FaultKind, MAX_BYTES, MAX_FAULTS, MAX_INSTRUCTIONS};
pub use images::{ImageUse, NeededImage};
pub use keyword::Keyword;
pub use layout::{Copied, Layout, Mounted, Shown, Taken};
pub use locate::StepLine;
pub use plan::UnknownTarget;
pub use secrets::SecretUse;

/// A Containerfile that Buildah can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerfile {
    /// `ARG`s before the first `FROM`, in order.
    pub args: Vec<GlobalArg>,
    /// The stages; never empty.
    pub stages: Vec<Stage>,
    /// The escape and continuation character: a backslash or a backtick.
    pub escape: char,
    /// Whether an instruction opens a here-document. Buildah 1.28 takes its lines for instructions.
    pub uses_heredocs: bool,
    /// What is accepted and yet likely a mistake.
    pub warnings: Vec<Fault>,
    /// Named build contexts: `NAME`, and what [`NamedContext::of`](crate::build::named_context::NamedContext::of) reads.
    contexts: Vec<(String, String)>,
    /// Faults Buildah finds only on running a step, with the index of the stage.
    step_faults: Vec<(usize, Fault)>,
}

/// A build argument declared before the first `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalArg {
    /// Its name.
    pub name: String,
    /// Its default as written, quotes and variables included.
    pub default: Option<String>,
    /// Line of the `ARG`, counted from 1.
    pub line: u32,
}

/// A stage: a `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Position in the file, counted from 0.
    pub index: usize,
    /// The name behind `AS`, as written. Buildah tells upper and lower case apart.
    pub name: Option<String>,
    /// The image or stage behind `FROM`, as written.
    pub base: String,
    /// The value of `--platform`, as written.
    pub platform: Option<String>,
    /// Line of the `FROM`, counted from 1.
    pub line: u32,
    /// The steps, the first of which is the `FROM`.
    pub steps: Vec<Step>,
}

impl Stage {
    /// What to pass to `--target`: the name, else the index. (1.28 takes no index of a named stage.)
    #[must_use]
    pub fn selector(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => self.index.to_string(),
        }
    }
}

/// One instruction of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Number in its stage as Buildah counts: `FROM` is 1.
    pub number: usize,
    /// First line, counted from 1.
    pub line: u32,
    /// Last line, those of here-documents included.
    pub end_line: u32,
    /// The instruction.
    pub keyword: Keyword,
    /// The instruction on one line, as Buildah prints it after `STEP n/m: `: continuations joined,
    /// comments dropped, trimmed, spaces inside and the keyword's case as written. `FROM` is the
    /// exception: `FROM [--platform=P] BASE [AS NAME]` with nothing expanded, where Buildah prints
    /// values, and an image ID for a stage.
    pub text: String,
    /// The instruction as Buildah names it in `building at STEP "…"`: keyword in upper case,
    /// arguments of a JSON array separated by spaces.
    pub message: String,
    /// The words with `--` before the arguments, quotes removed.
    pub flags: Vec<String>,
    /// The arguments: alternating names and values for `ENV` and `LABEL`, the elements of a JSON
    /// array, words for `ADD`, `COPY`, `ARG`, `EXPOSE`, `FROM` and `VOLUME`, kind and command for
    /// `HEALTHCHECK`, else the rest of the line. Quotes and variables are as written.
    pub args: Vec<String>,
    /// Whether the arguments are a JSON array.
    pub json: bool,
    /// The here-documents, in order.
    pub heredocs: Vec<Heredoc>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that closes it.
    pub name: String,
    /// How Buildah 1.43 sums it up behind the step's text: the first line, `...` if there are more.
    pub summary: String,
}
