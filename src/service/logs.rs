//! `logs`: lines of a build's log.

use tokio::time::Instant;

use crate::backend::View;
use crate::build::State;
use crate::build::request::{LogFrom, LogsRequest};
use crate::build::status::LogsAnswer;
use crate::log::{Pattern, Query, Row, Selection, Start};
use crate::schema::ArgFault;
use crate::schema::error_code::ErrorCode;

use super::present::NOTE;
use super::wait::{Waiting, Watched};
use super::{Principal, Service, ToolError};

const DEFAULT_LINES: u32 = 200;
const DEFAULT_BYTES: u32 = 16_000;
const DEFAULT_CONTEXT: u32 = 2;
/// Lines shown behind the beginning of what failed: an excerpt, and what came after.
const AFTER_FAILURE: u64 = 40;

impl Service {
    /// Lines of a log as an agent reads them, with how to read on.
    ///
    /// # Errors
    /// When there is no such build, or an argument does not fit.
    pub async fn logs(
        &self,
        principal: &Principal,
        request: &LogsRequest,
        waiting: &mut Waiting<'_>,
    ) -> Result<LogsAnswer, ToolError> {
        self.read_logs(principal, request, waiting, true).await
    }

    /// The same word for word: nothing is folded or cut.
    ///
    /// # Errors
    /// As of [`Service::logs`].
    pub async fn whole_logs(
        &self,
        principal: &Principal,
        request: &LogsRequest,
        waiting: &mut Waiting<'_>,
    ) -> Result<LogsAnswer, ToolError> {
        self.read_logs(principal, request, waiting, false).await
    }

    async fn read_logs(
        &self,
        principal: &Principal,
        request: &LogsRequest,
        waiting: &mut Waiting<'_>,
        lean: bool,
    ) -> Result<LogsAnswer, ToolError> {
        let view = self.find(principal, &request.build_id).await?;
        let (mut query, from, reason) = query(request, &view)?;
        query.lean = lean;
        let deadline = self.deadline(request.wait.unwrap_or(0));
        let id = &view.record.id;
        let mut changes = Watched::new(|| self.backend.watch(id));
        let mut next = query.clone();
        let mut reached = None;
        loop {
            // Looked at before the log is read: what is complete now was complete then.
            let mut view = self.backend.look(id).await?;
            let ended = view.state().is_final();
            let mut selection = self.backend.read_log(id, next.clone()).await?;
            if let Some(reason) = reason
                && let Some(on) = from_the_reason(&next, reason, &selection)
            {
                query = on.clone();
                next = on;
                selection = self.backend.read_log(id, next.clone()).await?;
            }
            let wrote = view.record.end.as_ref().map_or(0, |end| end.log_lines);
            if selection.total < wrote && view.log_missing.is_none() {
                // That it is lost was found by trying to read it.
                view = self.backend.look(id).await.unwrap_or(view);
            }
            reached = selection.reached.or(reached);
            selection.reached = reached;
            if !selection.rows.is_empty()
                || ended
                || Instant::now() >= deadline
                || waiting.gone.is_cancelled()
            {
                return Ok(answer(&query, from, selection, &view));
            }
            // What was searched is not searched again, but for what surrounds a match.
            if let (Start::After(begun), Some(reached)) = (query.start, reached) {
                let surrounds = reached.saturating_sub(query.context as u64);
                next.start = Start::After(surrounds.max(begun));
            }
            changes.next(deadline, &waiting.gone).await;
        }
    }
}

/// The query from the line of the reason on, where what is behind it took so many bytes that it would not be shown.
fn from_the_reason(query: &Query, reason: u64, selection: &Selection) -> Option<Query> {
    let is_hidden = (selection.rows.first()).is_some_and(|row| row.n > reason);
    is_hidden.then(|| Query {
        start: Start::After(reason.saturating_sub(1)),
        ..query.clone()
    })
}

/// What is asked for, from where, and the line of the reason that is to be shown.
fn query(request: &LogsRequest, view: &View) -> Result<(Query, LogFrom, Option<u64>), ToolError> {
    let mut faults = Vec::new();
    let cursor = request.cursor.as_deref().map(|text| {
        text.trim().parse::<u64>().unwrap_or_else(|_| {
            faults.push(
                ArgFault::new(
                    ErrorCode::InvalidArgument,
                    "cursor",
                    "it is not a line number",
                )
                .expecting("a line number as text, such as cursor of the answer before")
                .got(text)
                .example("\"1040\""),
            );
            0
        })
    });
    let grep = request.grep.as_deref().and_then(|pattern| {
        match Pattern::new(pattern, request.ignore_case.unwrap_or(false)) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let problem = match error.kind() {
                    grep_regex::ErrorKind::NotAllowed(_) => {
                        "it has a line break, and each line is looked at alone".to_owned()
                    }
                    _ => format!(
                        "it is not a regular expression: {}",
                        last_line(&error.to_string())
                    ),
                };
                faults.push(
                    ArgFault::new(ErrorCode::InvalidArgument, "grep", problem)
                        .expecting(
                            "a Rust regular expression, without look-around and back-references",
                        )
                        .got(pattern)
                        .example("\"error|warning\""),
                );
                None
            }
        }
    });
    if !faults.is_empty() {
        return Err(ToolError::all(faults));
    }
    let failed = matches!(view.state(), State::Failed | State::TimedOut | State::Lost);
    let filtered = request.grep.is_some()
        || request.phase.is_some()
        || request.step.is_some()
        || request.test.is_some();
    let from = request.from.unwrap_or(if failed && !filtered {
        LogFrom::Failure
    } else {
        LogFrom::End
    });
    let failure = view
        .record
        .end
        .as_ref()
        .and_then(|end| end.failure.as_ref())
        .and_then(|failure| failure.log_cursor.as_ref()?.parse::<u64>().ok());
    let lines = request.lines.unwrap_or(DEFAULT_LINES);
    // Few lines are those from the reason on; of many, some show what came before.
    let behind = AFTER_FAILURE.min(u64::from(lines - lines / 4));
    let start = match (from, cursor) {
        (LogFrom::Start, cursor) => Start::After(cursor.unwrap_or(0)),
        (LogFrom::Failure, Some(cursor)) => Start::After(cursor),
        (LogFrom::Failure, None) => failure.map_or(Start::Before(None), |cursor| {
            Start::Before(Some(cursor + 1 + behind))
        }),
        (LogFrom::End, cursor) => Start::Before(cursor),
    };
    let query = Query {
        start,
        lines: lines as usize,
        max_bytes: request.max_bytes.unwrap_or(DEFAULT_BYTES) as usize,
        phase: request.phase,
        step: request.step,
        test: request.test.clone(),
        stream: request.stream,
        grep,
        context: request.context_lines.unwrap_or(DEFAULT_CONTEXT) as usize,
        lean: true,
        timestamps: request.timestamps.unwrap_or(false),
    };
    let reason = failure.filter(|_| from == LogFrom::Failure && cursor.is_none() && !filtered);
    Ok((query, from, reason.map(|cursor| cursor + 1)))
}

fn last_line(text: &str) -> String {
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

fn answer(query: &Query, from: LogFrom, selection: Selection, view: &View) -> LogsAnswer {
    let first = selection.rows.first().map(|row| row.n);
    let last = selection.rows.last().map(Row::last);
    let text: Vec<String> = (selection.rows.iter())
        .flat_map(|row| query.render(row))
        .collect();
    let shown = selection.shown();
    let (cursor, more_before, more_after) = match query.start {
        Start::After(after) => (
            selection.reached.or(Some(after)),
            after > 0 && selection.total > 0,
            selection.more,
        ),
        Start::Before(before) => (
            // Around a failure one reads on forwards, from the end one goes back.
            if from == LogFrom::Failure {
                last
            } else {
                selection.reached.or(before)
            },
            selection.more,
            before.is_some_and(|before| before <= selection.total),
        ),
    };
    let mut notes = Vec::new();
    if !query.is_filtered() {
        notes.extend(selection.gaps(query.start).map(|(first, last)| {
            format!(
                "lines {first}-{last} are not there: the log had reached its limit (limits.log_mb)"
            )
        }));
    }
    if selection.out_of_time {
        notes.push("the search stopped after 5 s; go on with cursor".into());
    }
    LogsAnswer {
        note: NOTE.into(),
        text: text.join("\n"),
        first_line: first,
        last_line: last,
        total_lines: selection.total,
        cursor: cursor.map(|n| n.to_string()),
        more_before,
        more_after,
        matches: query.grep.as_ref().map(|_| selection.matches),
        omitted_lines: match (first, last) {
            (Some(first), Some(last)) => (last - first + 1).saturating_sub(shown),
            _ => 0,
        },
        complete: view.state().is_final(),
        log_complete: view.log_missing.as_ref().map(|_| false),
        log_missing: view.log_missing.clone(),
        notes,
    }
}
