//! One instruction: its keyword, flags and arguments, and what is wrong with its form.

use super::check;
use super::fault::FaultKind;
use super::keyword::Keyword;
use super::words::{self, Json, PairFault};

/// When Buildah refuses a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// On reading the file.
    File,
    /// On running the step; a step of a stage the target does not need is never refused.
    Step,
}

/// A fault of an instruction, not yet tied to a line.
#[derive(Debug)]
pub(super) struct Issue {
    pub scope: Scope,
    pub kind: FaultKind,
    pub message: String,
}

impl Issue {
    pub fn new(scope: Scope, kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            scope,
            kind,
            message: message.into(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Instruction {
    pub keyword: Keyword,
    pub word: String,
    pub flags: Vec<String>,
    pub args: Vec<String>,
    /// The arguments were a JSON array.
    pub json: bool,
    /// The instruction as Buildah names it in `building at STEP "…"`.
    pub message: String,
    /// Whether a `<<NAME` in it opens a here-document.
    pub heredocs: bool,
    pub issues: Vec<Issue>,
}

/// Reads an instruction whose lines are joined.
pub(super) fn parse(text: &str, escape: char) -> Instruction {
    let mut instruction = read(text, escape);
    let found = check::check(&instruction);
    instruction.issues.extend(found);
    instruction
}

fn read(text: &str, escape: char) -> Instruction {
    let split = words::split(text);
    let keyword = Keyword::of(split.word);
    let mut issues = Vec::new();
    let mut heredocs = keyword.takes_heredocs();
    let mut trigger = None;
    let (args, json) = match keyword {
        Keyword::Unknown => (Vec::new(), false),
        Keyword::Add | Keyword::Copy | Keyword::Volume => {
            json_or(split.rest, &mut issues, words::whitespace)
        }
        Keyword::Cmd | Keyword::Entrypoint | Keyword::Run | Keyword::Shell => {
            json_or(split.rest, &mut issues, whole)
        }
        Keyword::Healthcheck => health(split.rest, &mut issues),
        Keyword::Arg => (words::shell_words(split.rest, escape), false),
        Keyword::Expose | Keyword::From => (words::whitespace(split.rest), false),
        Keyword::Maintainer | Keyword::Stopsignal | Keyword::User | Keyword::Workdir => {
            (whole(split.rest), false)
        }
        Keyword::Env | Keyword::Label => (pairs(keyword, split.rest, escape, &mut issues), false),
        Keyword::Onbuild => {
            let inner = onbuild(split.rest, escape, &mut issues);
            heredocs = inner.as_ref().is_some_and(|inner| inner.heredocs);
            trigger = inner;
            (Vec::new(), false)
        }
    };
    let (args, message) = match trigger {
        Some(inner) => {
            let lower = inner.word.to_lowercase();
            let outer = message("ONBUILD", &split.flags, &[]);
            let message = format!("{outer}{}", message(&lower, &inner.flags, &inner.args));
            let args = std::iter::once(lower).chain(inner.args).collect();
            (args, message)
        }
        None => {
            let message = message(&split.word.to_uppercase(), &split.flags, &args);
            (args, message)
        }
    };
    Instruction {
        keyword,
        word: split.word.to_owned(),
        flags: split.flags,
        args,
        json,
        message,
        heredocs: heredocs && !json,
        issues,
    }
}

fn message(word: &str, flags: &[String], args: &[String]) -> String {
    let mut message = word.to_owned();
    for flag in flags {
        message.push(' ');
        message.push_str(flag);
    }
    message.push(' ');
    message.push_str(&args.join(" "));
    message
}

fn whole(rest: &str) -> Vec<String> {
    if rest.is_empty() {
        Vec::new()
    } else {
        vec![rest.to_owned()]
    }
}

fn json_or(
    rest: &str,
    issues: &mut Vec<Issue>,
    plain: impl Fn(&str) -> Vec<String>,
) -> (Vec<String>, bool) {
    match words::json(rest) {
        Json::Strings(args) => (args, true),
        Json::No => (plain(rest), false),
        Json::NotStrings => {
            issues.push(Issue::new(
                Scope::File,
                FaultKind::Syntax,
                "all elements of the JSON array must be strings",
            ));
            (plain(rest), false)
        }
    }
}

fn health(rest: &str, issues: &mut Vec<Issue>) -> (Vec<String>, bool) {
    let (kind, command) = rest.split_once(words::is_blank).unwrap_or((rest, ""));
    let mut args = whole(kind);
    let (command, json) = json_or(command.trim_start_matches(words::is_blank), issues, whole);
    args.extend(command);
    (args, json)
}

fn pairs(keyword: Keyword, rest: &str, escape: char, issues: &mut Vec<Issue>) -> Vec<String> {
    let message = match words::pairs(rest, escape) {
        Ok(pairs) => return pairs,
        Err(PairFault::NoValue) => {
            format!("{keyword} needs a name and a value: {keyword} NAME=VALUE")
        }
        Err(PairFault::NoEquals(word)) => format!(
            "no `=` in `{}`: every word of {keyword} must be NAME=VALUE; quote values with spaces",
            super::fault::excerpt(&word)
        ),
    };
    issues.push(Issue::new(Scope::File, FaultKind::Syntax, message));
    whole(rest)
}

/// The instruction behind `ONBUILD`. Faults that would only show when it runs are not this
/// build's; one `ONBUILD` behind another is refused, so nothing further is read.
fn onbuild(rest: &str, escape: char, issues: &mut Vec<Issue>) -> Option<Instruction> {
    if rest.is_empty() {
        return None;
    }
    let split = words::split(rest);
    if Keyword::of(split.word) == Keyword::Onbuild {
        return Some(Instruction {
            keyword: Keyword::Onbuild,
            word: split.word.to_owned(),
            flags: split.flags,
            args: Vec::new(),
            json: false,
            message: String::new(),
            heredocs: false,
            issues: Vec::new(),
        });
    }
    let mut inner = read(rest, escape);
    issues.append(&mut inner.issues);
    Some(inner)
}
