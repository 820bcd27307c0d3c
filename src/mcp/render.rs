//! The text of every kind of answer: short, fixed, and saying the same as the structured content.

use crate::build::Failure;
use crate::build::inputs::SinceSuccess;
use crate::build::output::OutputStatus;
use crate::build::request::StatusRequest;
use crate::build::status::{
    BuildStatus, KillAnswer, LogsAnswer, Offers, PlanStatus, ProfileOffer, StatusAnswer, TagState,
    TestResult,
};

use super::fence::{fence, quoted};

/// A full status.
pub fn build(status: &BuildStatus, nonce: &str) -> String {
    let mut out = vec![status.summary.clone()];
    if status.reused == Some(true) {
        out.push("This build was there already; nothing new was started.".into());
    }
    if let Some(image) = &status.image {
        for tag in &image.tags {
            out.push(match tag.state {
                TagState::Confirmed => format!(
                    "pushed {} @ {}",
                    tag.tag,
                    tag.digest.as_deref().unwrap_or("?")
                ),
                TagState::Unknown => {
                    format!("unknown {}: it may or may not have been written", tag.tag)
                }
            });
        }
    }
    out.extend(
        status
            .tests
            .iter()
            .filter(|test| shown(test.status, &status.state))
            .map(|test| {
                let lines = match (test.first_line, test.last_line) {
                    (Some(first), Some(last)) => format!(", log lines {first}-{last}"),
                    _ => String::new(),
                };
                match (test.status, test.exit_code) {
                    (TestResult::NotRun, _) => format!("test {} did not run", test.name),
                    (TestResult::TimedOut, _) => format!("test {} timed out{lines}", test.name),
                    (_, code) => format!(
                        "test {} failed with status {}{lines}",
                        test.name,
                        code.unwrap_or(-1)
                    ),
                }
            }),
    );
    out.extend(status.outputs.iter().map(output));
    if let Some(plan) = &status.plan {
        out.extend(plan_lines(plan));
    }
    out.extend(status.offers.iter().flat_map(offers_lines));
    let foreign = foreign(status);
    if !foreign.is_empty() {
        out.push(fence(
            &status.build_id,
            nonce,
            foreign.iter().flat_map(|text| quoted(text)),
        ));
    }
    if let Some(hint) = status
        .failure
        .as_ref()
        .and_then(|failure| failure.hint.as_ref())
    {
        out.push(format!("hint: {hint}"));
    }
    out.extend(
        status
            .since_success
            .iter()
            .map(|since| since.summary.clone()),
    );
    out.extend(log_missing(status.log_missing.as_deref()));
    out.extend(status.notes.iter().map(|note| format!("note: {note}")));
    out.extend(status.next.iter().map(|next| format!("next: {next}")));
    out.join("\n")
}

/// How to get an output: names are of plain characters, and what was asked for was checked when it was accepted.
fn output(output: &OutputStatus) -> String {
    let of = match &output.test {
        Some(test) => format!("{} of test {test}", output.from),
        None => output.from.clone(),
    };
    if let Some(missing) = &output.missing {
        return format!("no output {of}: {missing}");
    }
    let size = output.size_bytes.unwrap_or(0);
    let place = [&output.path, &output.uri].into_iter().flatten().next();
    match place {
        Some(place) => format!("output {} ({of}, {size} bytes): {place}", output.name),
        None => format!("output {} ({of}, {size} bytes)", output.name),
    }
}

/// Passed tests are counted in the summary; those that did not run are news only in a failed build.
fn shown(result: TestResult, state: &str) -> bool {
    match result {
        TestResult::Passed => false,
        TestResult::NotRun => state == "failed",
        TestResult::Failed | TestResult::TimedOut => true,
    }
}

/// Words that came from elsewhere.
fn foreign(status: &BuildStatus) -> Vec<String> {
    let mut foreign = Vec::new();
    foreign.extend(status.plan.iter().flat_map(PlanStatus::words));
    match &status.failure {
        Some(failure) => foreign.extend(failure_words(failure)),
        None if status.state == "running" => {
            foreign.extend(
                status
                    .step
                    .iter()
                    .filter(|_| status.phase == Some(crate::build::Phase::Build))
                    .map(|step| step.instruction.clone()),
            );
            foreign.extend(status.last_line.clone());
        }
        None => {}
    }
    foreign.extend(status.since_success.iter().flat_map(SinceSuccess::words));
    foreign.extend(
        status
            .cancel
            .as_ref()
            .and_then(|cancel| cancel.reason.as_ref())
            .map(|reason| format!("reason of the cancellation: {reason}")),
    );
    foreign
}

fn failure_words(failure: &Failure) -> Vec<String> {
    let mut words = vec![failure.message.clone()];
    words.extend(failure.instruction.clone());
    for location in &failure.locations {
        let line = location
            .line
            .map(|line| format!(":{line}"))
            .unwrap_or_default();
        let column = location
            .column
            .map(|column| format!(":{column}"))
            .unwrap_or_default();
        words.push(format!(
            "{}{line}{column}: {}",
            location.file,
            location.message.as_deref().unwrap_or("")
        ));
    }
    words.extend(failure.excerpt.clone());
    words
}

fn plan_lines(plan: &PlanStatus) -> Vec<String> {
    let mut lines = Vec::new();
    for (what, list) in [
        ("test", &plan.tests),
        ("tag", &plan.tags),
        ("output", &plan.outputs),
    ] {
        lines.extend(list.iter().map(|one| format!("{what}: {one}")));
    }
    lines.extend(
        plan.not_checked
            .iter()
            .map(|what| format!("not checked: {what}")),
    );
    lines
}

/// What may be asked for: a line, and one more for each profile.
fn offers_lines(offers: &Offers) -> Vec<String> {
    let none = |list: &[String], empty: &str| match list {
        [] => empty.to_owned(),
        list => list.join(", "),
    };
    let all = format!(
        "offers: profiles {}; secrets {}; registries {}; sources {}; {}",
        none(&offers.profiles, "none"),
        none(&offers.secrets, "none"),
        none(&offers.registries, "all"),
        none(&offers.sources, "none"),
        offers.limits.join("; ")
    );
    let profile = |one: &ProfileOffer| {
        let words = (one.description.iter()).chain(&one.limits);
        let words: Vec<&str> = words.map(String::as_str).collect();
        format!("profile {}: {}", one.name, words.join("; "))
    };
    std::iter::once(all)
        .chain(offers.profile_details.iter().map(profile))
        .collect()
}

/// One status, or a list.
pub fn status(answer: &StatusAnswer, request: &StatusRequest, nonce: &str) -> String {
    if let ([one], Some(_)) = (answer.builds.as_slice(), &request.build_id) {
        return with_notes(build(one, nonce), &answer.notes);
    }
    let mut out: Vec<String> = answer.builds.iter().map(row).collect();
    if out.is_empty() {
        out.push("no builds".into());
    }
    if let Some(counts) = &answer.counts {
        out.push(format!(
            "all: {} queued, {} running, {} succeeded, {} failed, {} cancelled, {} timed out, {} lost",
            counts.queued, counts.running, counts.succeeded, counts.failed, counts.cancelled, counts.timed_out, counts.lost
        ));
    }
    out.extend(answer.offers.iter().flat_map(offers_lines));
    if let Some(cursor) = &answer.next_cursor {
        let next = StatusRequest {
            cursor: Some(cursor.clone()),
            wait: None,
            ..request.clone()
        };
        out.push(format!(
            "next: status {} for more",
            serde_json::to_string(&next).unwrap_or_default()
        ));
    }
    with_notes(out.join("\n"), &answer.notes)
}

/// A row of a list: its sentence, and the tags, which were checked when it was accepted.
fn row(row: &BuildStatus) -> String {
    let mut text = row.summary.clone();
    if row.mine == Some(true) {
        text.push_str(" (mine)");
    }
    if let Some(principal) = &row.principal {
        text.push_str(&format!(" (of {})", plain(principal)));
    }
    if !row.tags.is_empty() {
        text.push_str(&format!(" [{}]", row.tags.join(", ")));
    }
    text
}

/// A principal as it may stand in our own sentences: an issuer's subject may be any words.
fn plain(principal: &str) -> &str {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ":._-/@".contains(c);
    if principal.chars().all(is_plain) {
        principal
    } else {
        "another"
    }
}

/// Lines of a log.
pub fn logs(answer: &LogsAnswer, id: &str, nonce: &str) -> String {
    let mut head = match (answer.first_line, answer.last_line) {
        (Some(first), Some(last)) => format!("lines {first}-{last} of {}", answer.total_lines),
        _ => format!("no lines to show; the log has {}", answer.total_lines),
    };
    if let Some(matches) = answer.matches {
        head.push_str(&format!(", {matches} matches"));
    }
    if answer.omitted_lines > 0 {
        head.push_str(&format!(", {} omitted", answer.omitted_lines));
    }
    head.push_str(if answer.complete {
        "; complete"
    } else {
        "; the build goes on"
    });
    let mut out = vec![head];
    out.extend(log_missing(answer.log_missing.as_deref()));
    if answer.first_line.is_some() {
        out.push(fence(id, nonce, answer.text.lines()));
    }
    if (answer.more_before || answer.more_after)
        && let Some(cursor) = &answer.cursor
    {
        out.push(format!(
            "more before: {}, more after: {}, cursor: {cursor}",
            yes(answer.more_before),
            yes(answer.more_after)
        ));
    }
    with_notes(out.join("\n"), &answer.notes)
}

/// The answer of `kill`.
pub fn kill(answer: &KillAnswer) -> String {
    let word = serde_json::to_value(answer.kill_result)
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default();
    let mut out = vec![format!("{word}: {}", answer.summary)];
    if let Some(image) = &answer.image {
        out.extend(image.tags.iter().map(|tag| {
            format!(
                "{} {}",
                if tag.state == TagState::Confirmed {
                    "pushed"
                } else {
                    "unknown"
                },
                tag.tag
            )
        }));
    }
    out.extend(answer.next.iter().map(|next| format!("next: {next}")));
    with_notes(out.join("\n"), &answer.notes)
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// What of a log is lost: one of our own sentences.
fn log_missing(missing: Option<&str>) -> Option<String> {
    missing.map(|missing| format!("log_complete: false; {missing}"))
}

fn with_notes(mut text: String, notes: &[String]) -> String {
    for note in notes {
        text.push_str(&format!("\nnote: {note}"));
    }
    text
}
