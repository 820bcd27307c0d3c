//! What can be wrong with a Containerfile, and the limits on reading one.

use std::fmt;

/// Largest text that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Most instructions that are read.
pub const MAX_INSTRUCTIONS: usize = 10_000;
/// Most faults that are reported; a pasted log file would yield one per line.
pub const MAX_FAULTS: usize = 100;

/// Longest name compared for a suggestion, in bytes: the comparison is quadratic.
const MAX_COMPARED: usize = 64;
/// Longest piece of the user's text quoted in a message, in characters.
const MAX_QUOTED: usize = 60;

/// The class of a [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The first word is no instruction of a Containerfile.
    UnknownInstruction,
    /// The instruction has fewer arguments than it needs.
    MissingArguments,
    /// The arguments do not have the form the instruction asks for.
    Syntax,
    /// The file has instructions but no `FROM`.
    NoFrom,
    /// An instruction other than `ARG` stands before the first `FROM`.
    BeforeFrom,
    /// Two stages have the same name. Buildah accepts this: only ever a warning.
    DuplicateStageName,
    /// A here-document has no closing line.
    UnterminatedHeredoc,
    /// Text, instruction count or an expanded value is over the limit.
    TooLarge,
    /// A flag the instruction does not know, or one without its value.
    BadFlag,
    /// A `# escape=` line Buildah refuses.
    BadDirective,
    /// No instruction at all.
    Empty,
    /// A name that expands to nothing because a variable has no value.
    EmptyName,
    /// The same of an image of `FROM`, whose `ARG` stands there without a default.
    MissingBuildArg,
    /// A named build context where Buildah takes none.
    NoImage,
    /// The wanted target is no stage of the file.
    UnknownTarget,
    /// A line at which Buildah 1.28 silently stops reading. Only ever a warning.
    LongLine,
}

/// One thing wrong with a Containerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line of the file, counted from 1, on which the instruction starts.
    pub line: u32,
    /// What is wrong and, where that is known, what to write instead.
    pub message: String,
    /// First word of the instruction, as written, if the fault is one instruction's.
    pub instruction: Option<String>,
    /// The class of fault.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl Fault {
    pub(super) fn new(line: u32, kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
            instruction: None,
            kind,
        }
    }

    pub(super) fn of(mut self, instruction: &str) -> Self {
        self.instruction = Some(excerpt(instruction));
        self
    }
}

/// The start of `text`, short enough for a message.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The candidate that `wanted` most likely was meant to be.
pub(super) fn nearest<'a>(
    wanted: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if wanted.is_empty() || wanted.len() > MAX_COMPARED {
        return None;
    }
    let wanted = wanted.to_lowercase();
    let allowed = ((wanted.chars().count() + 1) / 3).min(3);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_COMPARED)
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
