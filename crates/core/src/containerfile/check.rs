//! Whether an instruction has the arguments and flags Buildah asks for.
//!
//! Only what both 1.28 and 1.43 refuse is a fault, with few exceptions noted where they are made.

use super::expand::{self, Fuel};
use super::fault::{FaultKind, excerpt, nearest};
use super::instruction::{Instruction, Issue, Scope};
use super::keyword::Keyword;

const MOUNT_TYPES: [&str; 5] = ["bind", "cache", "secret", "ssh", "tmpfs"];

pub(super) fn check(instruction: &Instruction) -> Vec<Issue> {
    let mut issues = Vec::new();
    // A second message on arguments that could not be read would only confuse.
    if instruction.issues.is_empty() {
        issues.extend(arguments(instruction));
    }
    issues.extend(flags(instruction));
    issues.extend(expansions(instruction));
    issues
}

fn missing(message: impl Into<String>) -> Option<Issue> {
    Some(Issue::new(
        Scope::Step,
        FaultKind::MissingArguments,
        message,
    ))
}

fn syntax(message: impl Into<String>) -> Option<Issue> {
    Some(Issue::new(Scope::Step, FaultKind::Syntax, message))
}

fn arguments(instruction: &Instruction) -> Option<Issue> {
    let Instruction { keyword, args, .. } = instruction;
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match (keyword, words.as_slice()) {
        (Keyword::Unknown, _) => Some(unknown(&instruction.word)),
        (Keyword::Add | Keyword::Copy, [] | [_]) => {
            missing(format!("{keyword} needs a source and a destination"))
        }
        (Keyword::Arg, []) => Some(Issue::new(
            // 1.28 crashes.
            Scope::File,
            FaultKind::MissingArguments,
            "ARG needs a name",
        )),
        (Keyword::From, []) => Some(Issue::new(
            // 1.28 refuses only the stages it runs.
            Scope::File,
            FaultKind::MissingArguments,
            "FROM needs an image or a stage; `FROM scratch` starts from nothing",
        )),
        (Keyword::From, [_]) => None,
        (Keyword::From, [_, word, _]) if word.eq_ignore_ascii_case("as") => None,
        (Keyword::From, _) => syntax("FROM has one argument or three: FROM IMAGE [AS NAME]"),
        (Keyword::Run, []) if !instruction.json => missing("RUN needs a command"),
        (Keyword::Healthcheck, []) => missing("HEALTHCHECK needs CMD and a command, or NONE"),
        (Keyword::Healthcheck, [kind, rest @ ..]) => health(kind, rest),
        (Keyword::Onbuild, []) => missing("ONBUILD needs an instruction"),
        (Keyword::Onbuild, [trigger, ..]) => match Keyword::of(trigger) {
            Keyword::Onbuild | Keyword::From | Keyword::Maintainer => syntax(format!(
                "{} cannot stand behind ONBUILD",
                trigger.to_uppercase()
            )),
            _ => None,
        },
        (Keyword::Shell, []) => missing(r#"SHELL needs a JSON array: SHELL ["/bin/sh", "-c"]"#),
        (Keyword::Shell, _) if !instruction.json => {
            syntax(r#"SHELL needs a JSON array: SHELL ["/bin/sh", "-c"]"#)
        }
        (Keyword::Volume, paths) if paths.iter().any(|path| path.trim().is_empty()) => {
            syntax("a VOLUME cannot be an empty string")
        }
        (
            Keyword::Env
            | Keyword::Expose
            | Keyword::Label
            | Keyword::Maintainer
            | Keyword::Stopsignal
            | Keyword::User
            | Keyword::Volume
            | Keyword::Workdir,
            [],
        ) => missing(format!("{keyword} needs an argument")),
        _ => None,
    }
}

fn unknown(word: &str) -> Issue {
    let message = if word.is_empty() {
        "a line that only continues has nothing to continue".to_owned()
    } else if let Some(keyword) = nearest(word, Keyword::names()) {
        format!(
            "unknown instruction `{}`: did you mean {keyword}?",
            excerpt(word)
        )
    } else if word.chars().all(char::is_alphabetic) {
        format!("unknown instruction `{}`", excerpt(word))
    } else {
        format!(
            "unknown instruction `{}`: is a continuation character missing at the end of the \
             line before?",
            excerpt(word)
        )
    };
    Issue::new(Scope::Step, FaultKind::UnknownInstruction, message)
}

fn health(kind: &str, rest: &[&str]) -> Option<Issue> {
    match (kind.to_uppercase().as_str(), rest) {
        ("NONE", []) => None,
        ("NONE", _) => syntax("HEALTHCHECK NONE has no arguments"),
        ("CMD", []) => missing("HEALTHCHECK CMD needs a command"),
        ("CMD", _) => None,
        _ => syntax(format!(
            "HEALTHCHECK must be followed by CMD or NONE, not `{}`",
            excerpt(kind)
        )),
    }
}

/// Flags Buildah 1.43 knows, a superset of those of 1.28: with a value, and on or off.
fn known_flags(keyword: Keyword) -> Option<(&'static [&'static str], &'static [&'static str])> {
    match keyword {
        Keyword::Add => Some((
            &["chown", "chmod", "checksum", "exclude"],
            &["link", "keep-git-dir"],
        )),
        Keyword::Copy => Some((&["from", "chown", "chmod", "exclude"], &["link", "parents"])),
        Keyword::From => Some((&["platform"], &[])),
        Keyword::Healthcheck => Some((
            &[
                "interval",
                "timeout",
                "start-period",
                "start-interval",
                "retries",
            ],
            &[],
        )),
        Keyword::Run => Some((&["mount", "network"], &[])),
        // The others drop their flags unread.
        _ => None,
    }
}

fn flags(instruction: &Instruction) -> Vec<Issue> {
    let keyword = instruction.keyword;
    let Some((valued, switches)) = known_flags(keyword) else {
        return Vec::new();
    };
    instruction
        .flags
        .iter()
        // A variable can make a flag anything.
        .filter(|flag| !flag.contains('$'))
        .filter_map(|flag| bad_flag(keyword, flag, valued, switches))
        .map(|message| Issue::new(Scope::Step, FaultKind::BadFlag, message))
        .collect()
}

fn bad_flag(keyword: Keyword, flag: &str, valued: &[&str], switches: &[&str]) -> Option<String> {
    let body = flag.strip_prefix("--").unwrap_or(flag);
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (body, None),
    };
    if switches.contains(&name) {
        let fine = matches!(value, None | Some("true" | "false"));
        return (!fine).then(|| format!("--{name} of {keyword} is either there or not"));
    }
    if valued.contains(&name) {
        return match (name, value) {
            (_, None) | ("from" | "mount", Some("")) => Some(format!(
                "--{name} of {keyword} needs a value: --{name}=VALUE"
            )),
            ("mount", Some(mount)) => bad_mount(mount),
            _ => None,
        };
    }
    let all = valued.iter().chain(switches).copied();
    let hint = match nearest(name, all.clone()) {
        Some(near) => format!("did you mean --{near}?"),
        None => {
            let all: Vec<String> = all.map(|name| format!("--{name}")).collect();
            format!("Buildah knows {}", all.join(", "))
        }
    };
    Some(format!("{keyword} has no flag `{}`: {hint}", excerpt(flag)))
}

fn bad_mount(mount: &str) -> Option<String> {
    let kind = mount
        .split(',')
        .filter_map(|field| field.strip_prefix("type="))
        .next_back()?;
    (!MOUNT_TYPES.contains(&kind)).then(|| {
        format!(
            "there is no mount of type `{}`, only {}",
            excerpt(kind),
            MOUNT_TYPES.join(", ")
        )
    })
}

/// Open quotes and unknown substitutions, where Buildah would replace variables.
fn expansions(instruction: &Instruction) -> Option<Issue> {
    let keyword = instruction.keyword;
    let (args, scope) = match keyword {
        // The base of every stage is expanded, needed or not.
        Keyword::From => (instruction.args.get(..1), Scope::File),
        _ if keyword.expands_arguments() => (instruction.args.get(..), Scope::Step),
        _ => (None, Scope::Step),
    };
    let flags = match keyword {
        Keyword::Add | Keyword::Copy | Keyword::From | Keyword::Run => instruction.flags.as_slice(),
        _ => &[],
    };
    let args = args.into_iter().flatten().map(|word| (word, scope));
    let flags = flags.iter().map(|word| (word, Scope::Step));
    args.chain(flags).find_map(|(word, scope)| {
        let error = expand::expand(word, &|_| None, &mut Fuel::new()).err()?;
        let message = format!("in `{}`: {error}", excerpt(word));
        error
            .is_syntax()
            .then(|| Issue::new(scope, FaultKind::Syntax, message))
    })
}
