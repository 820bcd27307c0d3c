//! From text to stages and steps.

use super::fault::{Fault, FaultKind, MAX_BYTES, MAX_FAULTS, MAX_INSTRUCTIONS, excerpt};
use super::heredoc::{self, Opening};
use super::instruction::{self, Instruction, Scope};
use super::keyword::Keyword;
use super::lines::{Joined, Lines};
use super::{Containerfile, GlobalArg, Heredoc, Stage, Step};
use std::collections::HashMap;

impl Containerfile {
    /// Reads a Containerfile to be built as a whole, without build arguments.
    ///
    /// # Errors
    /// See [`Containerfile::parse_for`].
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        Self::parse_for(text, None, &[], &[])
    }

    /// Reads a Containerfile of which `target` is to be built. `contexts` are names and what
    /// [`NamedContext::of`](crate::build::named_context::NamedContext::of) reads; they come before stages of the same name.
    ///
    /// # Errors
    /// All faults that make Buildah refuse the file or a step that `target` needs, by line, at most
    /// [`MAX_FAULTS`]. If it cannot be read at all, the faults of all steps are added.
    pub fn parse_for(
        text: &str,
        target: Option<&str>,
        build_args: &[(String, String)],
        contexts: &[(String, String)],
    ) -> Result<Self, Vec<Fault>> {
        let (mut file, mut faults) = read(text);
        file.contexts = contexts.to_vec();
        if faults.is_empty() {
            faults = file.check(target, build_args);
        } else {
            faults.extend(file.step_faults.iter().map(|(_, fault)| fault.clone()));
        }
        if faults.is_empty() {
            return Ok(file);
        }
        faults.sort_by_key(|fault| fault.line);
        faults.truncate(MAX_FAULTS);
        Err(faults)
    }

    /// The faults of the steps that `target` needs: what `parse_for` found, for another target.
    #[must_use]
    pub fn check(&self, target: Option<&str>, build_args: &[(String, String)]) -> Vec<Fault> {
        match self.plan(target, build_args) {
            Err(unknown) => vec![Fault::new(1, FaultKind::UnknownTarget, unknown.to_string())],
            Ok(plan) => {
                let mut needed = vec![false; self.stages.len()];
                for stage in plan {
                    if let Some(needed) = needed.get_mut(stage.index) {
                        *needed = true;
                    }
                }
                self.step_faults
                    .iter()
                    .filter(|(stage, _)| needed.get(*stage).copied().unwrap_or_default())
                    .map(|(_, fault)| fault.clone())
                    .collect()
            }
        }
    }
}

/// Reads as much of `text` as can be read, and gives the faults that concern the file as a whole.
fn read(text: &str) -> (Containerfile, Vec<Fault>) {
    let mut reader = Reader {
        lines: Lines::new(text),
        file: Containerfile {
            args: Vec::new(),
            stages: Vec::new(),
            escape: '\\',
            uses_heredocs: false,
            warnings: Vec::new(),
            contexts: Vec::new(),
            step_faults: Vec::new(),
        },
        faults: Vec::new(),
        before_from: false,
    };
    if text.len() > MAX_BYTES {
        // Whoever reads it stops there: how big it is, is not known.
        let message = format!("the file has more than {MAX_BYTES} bytes");
        let fault = Fault::new(1, FaultKind::TooLarge, message);
        return (reader.file, vec![fault]);
    }
    reader.read();
    reader.finish()
}

struct Reader<'a> {
    lines: Lines<'a>,
    file: Containerfile,
    faults: Vec<Fault>,
    /// Whether an instruction before the first `FROM` has been reported.
    before_from: bool,
}

impl Reader<'_> {
    fn read(&mut self) {
        let mut count = 0;
        while let Some(joined) = self.lines.next_instruction() {
            count += 1;
            if count > MAX_INSTRUCTIONS {
                let message = format!("the file has more than {MAX_INSTRUCTIONS} instructions");
                self.faults
                    .push(Fault::new(joined.line, FaultKind::TooLarge, message));
                return;
            }
            self.instruction(&joined);
        }
        if count == 0 {
            let message = "the file has no instruction";
            self.faults.push(Fault::new(1, FaultKind::Empty, message));
        } else if self.file.stages.is_empty() {
            self.faults
                .retain(|fault| fault.kind != FaultKind::BeforeFrom);
            let message = "the file has no FROM; `FROM scratch` starts from nothing";
            self.faults.push(Fault::new(1, FaultKind::NoFrom, message));
        }
    }

    fn finish(mut self) -> (Containerfile, Vec<Fault>) {
        self.faults.append(&mut self.lines.faults);
        self.file.escape = self.lines.escape;
        self.file.warnings = duplicate_names(&self.file.stages);
        self.file.warnings.append(&mut self.lines.warnings);
        (self.file, self.faults)
    }

    fn instruction(&mut self, joined: &Joined) {
        let mut instruction = instruction::parse(&joined.text, self.lines.escape);
        let heredocs = if instruction.heredocs {
            self.heredocs(joined, &instruction.word)
        } else {
            Vec::new()
        };
        let in_stage = instruction.keyword == Keyword::From || !self.file.stages.is_empty();
        if !in_stage && instruction.keyword != Keyword::Arg {
            self.early(joined.line, &instruction);
        }
        let stage = match instruction.keyword {
            Keyword::From => self.file.stages.len(),
            _ => self.file.stages.len().saturating_sub(1),
        };
        for issue in std::mem::take(&mut instruction.issues) {
            let fault = Fault::new(joined.line, issue.kind, issue.message).of(&instruction.word);
            if issue.scope == Scope::Step && in_stage {
                self.file.step_faults.push((stage, fault));
            } else {
                self.faults.push(fault);
            }
        }
        if !in_stage {
            let args = instruction
                .args
                .iter()
                .filter(|_| instruction.keyword == Keyword::Arg);
            self.file
                .args
                .extend(args.map(|arg| global(arg, joined.line)));
            return;
        }
        let step = Step {
            number: 1,
            line: joined.line,
            end_line: self.lines.number,
            keyword: instruction.keyword,
            text: joined.text.trim().to_owned(),
            message: instruction.message,
            flags: instruction.flags,
            args: instruction.args,
            json: instruction.json,
            heredocs,
        };
        self.step(step);
    }

    fn step(&mut self, mut step: Step) {
        if step.keyword == Keyword::From {
            self.file.stages.push(stage(self.file.stages.len(), step));
        } else if let Some(stage) = self.file.stages.last_mut() {
            step.number = stage.steps.len() + 1;
            stage.steps.push(step);
        }
    }

    /// Reports an instruction before the first `FROM`; one report tells the story.
    fn early(&mut self, line: u32, instruction: &Instruction) {
        if self.before_from || instruction.keyword == Keyword::Unknown {
            return;
        }
        self.before_from = true;
        let message = format!(
            "{} stands before the first FROM; only ARG may",
            instruction.keyword
        );
        self.faults
            .push(Fault::new(line, FaultKind::BeforeFrom, message).of(&instruction.word));
    }

    fn heredocs(&mut self, joined: &Joined, word: &str) -> Vec<Heredoc> {
        let openings = heredoc::openings(&joined.text);
        self.file.uses_heredocs |= !openings.is_empty();
        let mut heredocs = Vec::with_capacity(openings.len());
        for opening in openings {
            match self.heredoc(&opening) {
                Some(content) => heredocs.push(Heredoc {
                    summary: summary(&content),
                    name: opening.name,
                }),
                None => {
                    let message = format!(
                        "no line `{}` closes the here-document; quote `<<` if none is meant",
                        excerpt(&opening.name)
                    );
                    self.faults.push(
                        Fault::new(joined.line, FaultKind::UnterminatedHeredoc, message).of(word),
                    );
                    // The others would all be unterminated, too.
                    break;
                }
            }
        }
        heredocs
    }

    /// Reads up to the closing line.
    fn heredoc(&mut self, opening: &Opening) -> Option<String> {
        let mut content = String::new();
        loop {
            let line = self.lines.raw()?;
            let mut end = line.trim_end_matches('\r');
            if opening.strip_tabs {
                end = end.trim_start_matches('\t');
            }
            if end == opening.name {
                return Some(content);
            }
            content.push('\n');
            content.push_str(line);
        }
    }
}

fn summary(content: &str) -> String {
    match content.trim().split_once('\n') {
        Some((first, _)) => format!("{}...", first.strip_suffix('\r').unwrap_or(first)),
        None => content.trim().to_owned(),
    }
}

fn global(arg: &str, line: u32) -> GlobalArg {
    let (name, default) = match arg.split_once('=') {
        Some((name, default)) => (name, Some(default.to_owned())),
        None => (arg, None),
    };
    GlobalArg {
        name: name.to_owned(),
        default,
        line,
    }
}

fn stage(index: usize, mut from: Step) -> Stage {
    let mut args = from.args.iter().map(String::as_str);
    let base = args.next().unwrap_or_default().to_owned();
    let name = match (args.next(), args.next()) {
        (Some(word), Some(name)) if word.eq_ignore_ascii_case("as") => Some(name.to_owned()),
        _ => None,
    };
    let platform = from
        .flags
        .iter()
        .filter_map(|flag| flag.strip_prefix("--platform="))
        .next_back()
        .map(str::to_owned);
    let mut text = "FROM ".to_owned();
    if let Some(platform) = &platform {
        text.push_str(&format!("--platform={platform} "));
    }
    text.push_str(&base);
    // Buildah takes a numeric name for an index and does not print it.
    if let Some(name) = name.as_ref().filter(|name| name.parse::<i64>().is_err()) {
        text.push_str(&format!(" AS {name}"));
    }
    from.text = text;
    Stage {
        index,
        name,
        base,
        platform,
        line: from.line,
        steps: vec![from],
    }
}

fn duplicate_names(stages: &[Stage]) -> Vec<Fault> {
    let mut first: HashMap<&str, u32> = HashMap::new();
    let mut warnings = Vec::new();
    for stage in stages {
        let Some(name) = &stage.name else { continue };
        let line = *first.entry(name).or_insert(stage.line);
        if line != stage.line {
            let message = format!(
                "the stage of line {line} is also named `{}`; the later one is used",
                excerpt(name)
            );
            let warning = Fault::new(stage.line, FaultKind::DuplicateStageName, message);
            warnings.push(warning.of("FROM"));
        }
    }
    warnings.truncate(MAX_FAULTS);
    warnings
}
