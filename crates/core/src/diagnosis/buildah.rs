//! What Buildah's end means.
//!
//! The verdict rests on Buildah's exit status and its last error. What foreign code printed before only explains.

use std::sync::LazyLock;

use regex::Regex;

use crate::build::{Failure, Fault, Kind, Phase, clean};
use crate::log::Line;

use super::command::{self, Command, KILLED, Reading};
use super::excerpt::{self, quote};
use super::groups::bare;
use super::locations::locations;
use super::rules;
use super::steps::{Place, step_line};
use super::tree::Tree;

/// Buildah's exit status for its own errors.
pub(super) const OWN_ERROR: i32 = 125;
/// How far from the end its error can stand: warnings may follow.
const END: usize = 40;
/// Characters of each of them.
const PART: usize = 1000;
/// Errors that occurred together, which are looked at.
const LISTED: usize = 6;
/// Characters of a message.
const MESSAGE: usize = 600;
/// How Buildah says that its own child has ended, in the isolation chroot.
const SUBPROCESS: &str = "subprocess exited with status ";
/// How `buildah run` says at its end that the command ended with a status: rootless, and in the isolation chroot.
const RUN_ERRORS: [&str; 2] = [
    "Error: while running runtime: exit status ",
    "Error: exit status ",
];

/// `Error: building at STEP "…": while running runtime: exit status 2`, perhaps behind an error of
/// the clean-up
static STEP_ERROR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"^Error: (?:[a-z ]+: )?building at STEP "(.*)": (?:while running runtime: )?exit status (\d+)$"#)
        .ok()
});

/// The file that COPY or ADD wants from the context, as Buildah says that there is none.
static NOT_IN_CONTEXT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"copier: stat: "(/[^"*?\[\]]+)": no such file"#).ok());

/// Everything that is known when `buildah build` has failed.
#[derive(Debug, Clone)]
pub struct BuildahEnd<'a> {
    /// Its exit status.
    pub status: i32,
    /// The last lines of the phase.
    pub lines: &'a [(u64, Line)],
    /// The last step that began.
    pub place: Option<&'a Place>,
    /// What the step could see of the source.
    pub tree: &'a Tree,
}

/// Explains a failed `buildah build`.
pub fn buildah_failure(end: &BuildahEnd<'_>) -> Failure {
    let error = last_error(end.lines);
    let ran = error.and_then(|(_, text)| run_status(text));
    let mut failure = match (ran, error) {
        (Some(status), Some((number, text))) => command_failure(status, (number, text), end),
        // So it ends only for a command; what looks like an error of its own was printed by that.
        _ if is_of_a_command(end) => command_failure(end.status, (u64::MAX, ""), end),
        (_, Some((number, text))) => {
            let named = |it: &&str| text.contains(&format!("building at STEP \"{it}\": "));
            let begun = end.place.map(|place| place.instruction.as_str());
            let instruction = begun.filter(named).or_else(|| instruction_of(text));
            own_failure(&whole(end.lines, number, text), instruction)
        }
        (_, None) if end.status == KILLED => Failure::new(
            Phase::Build,
            Kind::OutOfMemory,
            "Buildah was killed, most likely for want of memory",
        ),
        (_, None) => Failure::new(
            Phase::Build,
            Kind::BuildError,
            format!(
                "Buildah ended with status {} and no word of why",
                end.status
            ),
        ),
    };
    if failure.kind == Kind::CopySourceMissing
        && let Some(meant) = meant_source(&failure.message, end)
    {
        failure.message = format!("{}; the source has \"{}\"", failure.message, quote(meant));
    }
    let killed = ran.is_none() && end.status == KILLED;
    if ran.is_some()
        || killed
        || is_of_a_command(end)
        || (end.status == OWN_ERROR && concerns_a_step(failure.kind))
    {
        point(&mut failure, end.place);
    }
    if failure.excerpt.is_none() {
        show(
            &mut failure,
            excerpt::last(of_step(end.lines, end.place).iter()),
        );
    }
    failure
}

/// Explains a failed `buildah pull` of `image`; `place` is the instruction that wants it.
pub fn pull_failure(image: &str, lines: &[(u64, Line)], place: Option<&Place>) -> Failure {
    let text = last_error(lines).map_or("Buildah ended without a word of why", |(_, text)| text);
    let mut failure = own_failure(text, None);
    failure.phase = Some(Phase::Source);
    failure.message = quote(&format!(
        "the image {image} cannot be fetched: {}",
        text.trim_start_matches("Error: ")
    ));
    point(&mut failure, place);
    show(&mut failure, excerpt::last(lines.iter()));
    failure
}

fn show(failure: &mut Failure, excerpt: Option<(String, String)>) {
    if let Some((text, cursor)) = excerpt {
        failure.excerpt = Some(text);
        failure.log_cursor = Some(cursor);
    }
}

/// The lines behind the line with which the step began.
fn of_step<'a>(lines: &'a [(u64, Line)], place: Option<&Place>) -> &'a [(u64, Line)] {
    let begun = place.and_then(|place| {
        lines.iter().rposition(|(_, line)| {
            step_line(&line.text).is_some_and(|step| step.text.starts_with(&place.instruction))
        })
    });
    begun
        .and_then(|index| lines.get(index + 1..))
        .unwrap_or(lines)
}

/// Buildah's last error, and the number of its line. What a command printed before may have had no newline.
pub(super) fn last_error(lines: &[(u64, Line)]) -> Option<(u64, &str)> {
    lines.iter().rev().take(END).find_map(|(number, line)| {
        let at = match line.text.starts_with("Error: ") {
            true => 0,
            false => line.text.find("Error: building at STEP \"")?,
        };
        Some((*number, line.text.get(at..)?))
    })
}

/// An error with the lines that go on with it: Buildah lists several that occurred together.
fn whole(lines: &[(u64, Line)], number: u64, text: &str) -> String {
    let from = lines.partition_point(|(n, _)| *n <= number);
    let listed = lines
        .iter()
        .skip(from)
        .take(LISTED)
        .take_while(|(_, line)| line.text.starts_with("    * "));
    let mut whole = clean::abridged(text, PART);
    for (_, line) in listed {
        whole.push(' ');
        whole.push_str(&clean::abridged(line.text.trim_start(), PART));
    }
    whole
}

/// What the source has that is like the file that the context does not have.
fn meant_source<'a>(error: &str, end: &BuildahEnd<'a>) -> Option<&'a str> {
    let place = end.place.filter(|place| place.trigger_of.is_none())?;
    if place.instruction.contains("--from=") {
        return None;
    }
    let missing = NOT_IN_CONTEXT.as_ref()?.captures(error)?.get(1)?;
    end.tree.meant(missing.as_str())
}

/// Whether it ended as a command did: for its own errors it has another status once a step has begun, and a signal may
/// have ended itself.
fn is_of_a_command(end: &BuildahEnd<'_>) -> bool {
    end.place.is_some() && (1..128).contains(&end.status) && end.status != OWN_ERROR
}

fn run_status(error: &str) -> Option<i32> {
    STEP_ERROR
        .as_ref()?
        .captures(error)?
        .get(2)?
        .as_str()
        .parse()
        .ok()
}

/// The instruction that Buildah names in its last error.
pub fn named_step(lines: &[(u64, Line)]) -> Option<&str> {
    let (_, text) = last_error(lines)?;
    let (_, rest) = text.split_once("building at STEP \"")?;
    rest.rsplit_once("\": ").map(|(step, _)| step).map(|step| {
        // The message behind the step may have quotes and colons of its own.
        step.split("\": ").next().unwrap_or(step)
    })
}

/// The keyword of the instruction that an error names.
fn instruction_of(error: &str) -> Option<&str> {
    let (_, rest) = error.split_once("building at STEP \"")?;
    rest.split([' ', '"']).next()
}

fn concerns_a_step(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::ContainerfileNotFound | Kind::TargetNotFound | Kind::OutOfMemory
    )
}

fn point(failure: &mut Failure, place: Option<&Place>) {
    let Some(place) = place else { return };
    failure.file = Some(place.file.clone());
    failure.line = Some(place.line);
    failure.stage = Some(place.stage.clone());
    failure.step = Some(place.step);
    failure.instruction = Some(quote(&place.instruction));
    if let Some(base) = &place.trigger_of {
        failure.message = quote(&format!(
            "an ONBUILD instruction of the base image {base} failed: {}",
            failure.message
        ));
    }
}

fn own_failure(text: &str, instruction: Option<&str>) -> Failure {
    // What failed stands at the beginning, why at the end.
    let message = clean::abridged(text.trim_start_matches("Error: "), MESSAGE);
    let Some(known) = rules::for_buildah(text, instruction) else {
        return Failure::new(Phase::Build, Kind::BuildError, message);
    };
    let mut failure = Failure::new(Phase::Build, known.rule.kind, message);
    if let Some(fault) = known.rule.fault {
        failure = failure.with_fault(fault);
    }
    failure.hint.clone_from(&known.rule.hint);
    failure
}

/// `error` is what Buildah says of it, and the number of that line: what follows is its own.
fn command_failure(status: i32, error: (u64, &str), end: &BuildahEnd<'_>) -> Failure {
    let printed = printed(of_step(end.lines, end.place), error);
    let text = end.place.map_or("", |place| place.instruction.as_str());
    let mut failure = Failure::new(
        Phase::Build,
        Kind::CommandFailed,
        format!("the command ended with status {status}"),
    );
    failure.exit_code = Some(status);
    let command = Command {
        lines: &printed,
        status,
        text,
    };
    explain(&mut failure, &command, end.tree);
    failure
}

/// What the command itself printed: without Buildah's words at the end, which may begin in the middle of a line.
fn printed(lines: &[(u64, Line)], (number, error): (u64, &str)) -> Vec<(u64, Line)> {
    let until = lines.partition_point(|(n, _)| *n < number);
    let mut printed = lines.get(..until).unwrap_or(lines).to_vec();
    let mut times = 0;
    while printed
        .last()
        .is_some_and(|(_, line)| line.text.starts_with(SUBPROCESS))
    {
        printed.pop();
        times += 1;
    }
    // It says so twice, the first time perhaps behind what the command printed last.
    if times == 1
        && let Some((_, line)) = printed.last_mut()
        && let Some((before, status)) = line.text.rsplit_once(SUBPROCESS)
        && status.bytes().all(|c| c.is_ascii_digit())
    {
        line.text = before.to_owned();
    }
    let last = lines
        .get(until)
        .and_then(|(_, line)| Some((line, line.text.strip_suffix(error)?)));
    if let Some((line, text)) = last
        && !text.is_empty()
    {
        let text = text.split(SUBPROCESS).next().unwrap_or(text).to_owned();
        printed.push((
            number,
            Line {
                text,
                ..line.clone()
            },
        ));
    }
    printed
}

/// Makes of a failed command what its output tells: kind, fault, hint, excerpt, locations.
fn explain(failure: &mut Failure, command: &Command<'_>, tree: &Tree) {
    let reading = command::read(command);
    failure.kind = reading.kind;
    failure.fault = reading.fault;
    failure.hint = reading.hint.map(str::to_owned);
    if command.status == KILLED && reading.kind == Kind::OutOfMemory && reading.at.is_none() {
        failure.message =
            "the command was ended by a KILL signal, most often for want of memory".into();
    }
    illustrate(failure, command, reading, tree);
}

/// Makes of a failed test what its output tells. Its kind stays: it is the test that did not pass.
pub fn explain_test(failure: &mut Failure, command: &Command<'_>, tree: &Tree) {
    let error = RUN_ERRORS.map(|error| format!("{error}{}", command.status));
    let said = command.lines.last().and_then(|(n, last)| {
        let error = error
            .iter()
            .find(|error| last.text.ends_with(error.as_str()));
        Some(printed(command.lines, (*n, error?)))
    });
    let command = Command {
        lines: said.as_deref().unwrap_or(command.lines),
        ..*command
    };
    let reading = command::read(&command);
    if matches!(failure.kind, Kind::TestFailed | Kind::TestTimedOut) {
        if reading.fault == Fault::Unknown {
            failure.fault = Fault::Unknown;
        }
        failure.hint = failure
            .hint
            .take()
            .or_else(|| reading.hint.map(str::to_owned));
    }
    illustrate(failure, &command, reading, tree);
}

fn illustrate(failure: &mut Failure, command: &Command<'_>, reading: Reading, tree: &Tree) {
    let from = reading.at.map_or(0, |(first, _)| first);
    let reason = command.lines.get(from..).unwrap_or_default();
    let texts = bare(command.lines);
    if let Some(said) = reading.at.and_then(|(_, decisive)| texts.get(decisive)) {
        failure.message = quote(&format!("{}: {}", failure.message, said.trim()));
    }
    let says_all = matches!(
        failure.kind,
        Kind::CommandFailed | Kind::TestFailed | Kind::TestTimedOut
    );
    if says_all && command.lines.is_empty() {
        failure.message += ", without output";
    }
    let shown = match reading.at {
        Some(_) => excerpt::first(reason),
        None => excerpt::last(command.lines.iter()),
    };
    show(failure, shown);
    let is_lint = reading.kind == Kind::LintFailed;
    failure.locations = locations(&texts, reading.begins, tree, command.text, is_lint);
}

#[cfg(test)]
mod tests;
