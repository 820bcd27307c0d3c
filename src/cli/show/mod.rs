//! What people see: answers, the end of a build, tables; live while it runs.

mod failure;
mod live;
mod options;
mod plan;
mod table;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::build::clean;
use crate::build::status::{BuildStatus, ImageStatus, TagState, TestResult};
use crate::client::Answer;

pub use live::Live;
pub use options::refusal;
pub use plan::plan;
pub use table::table;

/// Prints what a tool answered: as JSON, or in other words.
///
/// # Errors
/// When nobody reads it.
pub fn answer(json: bool, answer: &Answer, text: &str) -> io::Result<()> {
    match &answer.value {
        Some(value) if json => print(&value.to_string()),
        _ => print(text),
    }
}

/// The same of an answer of `status`, of which one build is told.
///
/// # Errors
/// When nobody reads it.
pub fn status(json: bool, answer: &Answer, text: &str) -> io::Result<()> {
    let one = answer
        .value
        .as_ref()
        .and_then(|value| value["builds"].get(0));
    match one {
        Some(value) if json => print(&value.to_string()),
        _ => print(text),
    }
}

/// Prints why a tool refused, for machines.
///
/// # Errors
/// When nobody reads it.
pub fn error(refusal: &Value) -> io::Result<()> {
    print(&json!({"error": refusal}).to_string())
}

/// Prints a text; the program ends where nobody reads it.
///
/// # Errors
/// When it cannot be written otherwise.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        done => done,
    }
}

/// Something that is no result.
pub fn note(text: &str) {
    // Nobody need read it.
    let _ = writeln!(io::stderr(), "{text}");
}

/// What an answer says besides.
pub fn notes(notes: &[String]) {
    for text in notes {
        note(&format!("note: {text}"));
    }
}

/// Whether standard output takes colours: a terminal, and nobody has said no (https://no-color.org).
fn has_colour() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !unwanted && !dumb
}

/// How a build has ended, or stands. `sources`: where its sources are on this machine; `again`: the options that lead
/// another command to it.
pub fn end(status: &BuildStatus, sources: Option<&Path>, again: &str) -> String {
    let mut out = vec![status.summary.clone()];
    let reason = status
        .cancel
        .as_ref()
        .and_then(|cancel| cancel.reason.as_ref());
    out.extend(reason.map(|reason| format!("reason: {}", clean::line(reason))));
    out.extend(status.image.iter().flat_map(image));
    for test in &status.tests {
        let took = test.seconds.map(|seconds| format!(" in {seconds:.1} s"));
        let result = match test.status {
            TestResult::Passed => "passed",
            TestResult::Failed => "failed",
            TestResult::TimedOut => "timed out",
            TestResult::NotRun => "did not run",
        };
        out.push(format!(
            "test {} {result}{}",
            test.name,
            took.unwrap_or_default()
        ));
    }
    for output in &status.outputs {
        out.push(
            match (
                &output.missing,
                output.path.as_ref().or(output.uri.as_ref()),
            ) {
                (Some(missing), _) => format!("no output {}: {missing}", output.from),
                (None, Some(place)) => format!("output {}: {place}", output.name),
                (None, None) => format!("output {}", output.name),
            },
        );
    }
    if let Some(queue) = &status.queue {
        out.push(format!("it waits: {}", queue.reason));
    }
    if let Some(failure) = &status.failure {
        out.push(failure::render(failure, sources, has_colour()));
        if failure.log_cursor.is_some() && status.log_missing.is_none() {
            let id = &status.build_id;
            out.push(format!(
                "the log around it: nomad-build logs{again} {id} --from failure"
            ));
        }
    }
    if let Some(since) = &status.since_success {
        out.push(since.summary.clone());
        out.extend(
            since
                .words()
                .iter()
                .map(|words| format!("  {}", clean::line(words))),
        );
    }
    out.extend(status.log_missing.clone());
    out.extend(status.notes.iter().map(|note| format!("note: {note}")));
    out.join("\n")
}

fn image(image: &ImageStatus) -> Vec<String> {
    let tags = image.tags.iter().map(|tag| match tag.state {
        TagState::Confirmed => {
            format!(
                "pushed {} @ {}",
                tag.tag,
                tag.digest.as_deref().unwrap_or("?")
            )
        }
        TagState::Unknown => format!("unknown whether {} was written", tag.tag),
    });
    std::iter::once(format!("image id {}", image.id))
        .chain(tags)
        .collect()
}
