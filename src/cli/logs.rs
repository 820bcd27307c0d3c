//! `nomad-build logs`: what a build has printed.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::build::request::MAX_WAIT;
use crate::build::status::LogsAnswer;
use crate::client::Steady;

use super::exit;
use super::reach::{Reach, arguments};
use super::show;

/// Lines and bytes that one call asks for: the most.
const LINES: u32 = 2000;
const BYTES: u32 = 30_720;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum From {
    /// At the first line.
    Start,
    /// So that the last line is shown.
    End,
    /// Around the beginning of what failed.
    Failure,
}

/// Print the log of a build.
#[derive(Debug, Args)]
pub struct Logs {
    /// Id of the build, or its beginning.
    pub build_id: String,
    /// Go on until the build has ended.
    #[arg(short = 'F', long)]
    pub follow: bool,
    /// Where to begin. Default: the start, and the whole log is printed.
    #[arg(long, value_enum)]
    pub from: Option<From>,
    /// Lines at most. Default: all from the start, else 200.
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub lines: Option<u32>,
    /// Only lines that match this regular expression.
    #[arg(short, long, value_name = "REGEX")]
    pub grep: Option<String>,
    /// Whatever their case.
    #[arg(short, long, requires = "grep")]
    pub ignore_case: bool,
    /// Lines around each match.
    #[arg(
        short = 'C',
        long,
        value_name = "COUNT",
        requires = "grep",
        default_value_t = 0
    )]
    pub context: u32,
    /// Say of each line when it was printed (UTC).
    #[arg(long)]
    pub timestamps: bool,
    /// Only of this phase: source, build, test or publish.
    #[arg(long)]
    pub phase: Option<String>,
    /// Only of this step.
    #[arg(long)]
    pub step: Option<u32>,
    /// Only of this test.
    #[arg(long)]
    pub test: Option<String>,
    /// Where.
    #[command(flatten)]
    pub reach: Reach,
}

impl Logs {
    /// Reads, and prints.
    ///
    /// # Errors
    /// When whoever has the build cannot be reached, or refuses.
    pub async fn run(&self) -> anyhow::Result<ExitCode> {
        let mut tools = self.reach.open().await?;
        let piece = match self.from {
            None | Some(From::Start) => None,
            Some(From::End) => Some("end"),
            Some(From::Failure) => Some("failure"),
        };
        let read = async {
            match piece {
                Some(from) if !self.follow => self.once(&mut tools, from).await,
                _ => self.through(&mut tools, piece).await,
            }
        };
        tokio::select! {
            done = read => done.map(|()| ExitCode::SUCCESS),
            told = tokio::signal::ctrl_c() => {
                told?;
                Ok(ExitCode::from(exit::LEFT))
            }
        }
    }

    /// One piece of it.
    async fn once(&self, tools: &mut Steady, from: &str) -> anyhow::Result<()> {
        let lines = self.lines.unwrap_or(200);
        let answer = tools
            .call("logs", &self.asked(from, None, lines, 0))
            .await?;
        let told: LogsAnswer = self.reach.read(&answer)?;
        if self.reach.json || !told.text.is_empty() {
            show::answer(self.reach.json, &answer, &told.text)?;
        }
        show::notes(&told.notes);
        self.tell_of_none(told.text.is_empty() && !told.more_before && !told.more_after);
        Ok(())
    }

    /// Whoever searched is told that nothing was found.
    fn tell_of_none(&self, is_none: bool) {
        if let (true, Some(pattern)) = (is_none, &self.grep) {
            show::note(&format!("no line matches {pattern}"));
        }
    }

    /// From the start, or from what `tail` says, to the end of the log, or of the build.
    async fn through(&self, tools: &mut Steady, tail: Option<&str>) -> anyhow::Result<()> {
        let mut left = self.lines.map_or(u64::MAX, u64::from);
        let mut cursor = None;
        let mut is_none = true;
        if let Some(from) = tail {
            let asked = self.asked(from, None, self.lines.unwrap_or(20), 0);
            let answer = tools.call("logs", &asked).await?;
            let told: LogsAnswer = self.reach.read(&answer)?;
            show::answer(self.reach.json, &answer, &told.text)?;
            cursor = told.last_line.map(|line| line.to_string());
            is_none = told.text.is_empty() && !told.more_before;
            left = u64::MAX;
        }
        loop {
            let wait = if self.follow { MAX_WAIT } else { 0 };
            let lines = u32::try_from(left.min(LINES.into())).unwrap_or(LINES);
            let asked = self.asked("start", cursor.as_deref(), lines, wait);
            let answer = tools.call("logs", &asked).await?;
            let told: LogsAnswer = self.reach.read(&answer)?;
            let shown = told.text.lines().count() as u64;
            let is_last = shown == 0 && !self.follow;
            if shown > 0 || self.reach.json && is_last && cursor.is_none() {
                show::answer(self.reach.json, &answer, &told.text)?;
            }
            left = left.saturating_sub(shown);
            is_none &= shown == 0;
            let before = cursor.clone();
            cursor = told.cursor.or(cursor);
            let stuck = cursor == before && shown == 0;
            if left == 0
                || !told.more_after && (told.complete || !self.follow)
                || stuck && !self.follow
            {
                show::notes(&told.notes);
                self.tell_of_none(is_none);
                return Ok(());
            }
        }
    }

    fn asked(
        &self,
        from: &str,
        cursor: Option<&str>,
        lines: u32,
        wait: u32,
    ) -> serde_json::Map<String, serde_json::Value> {
        arguments(json!({
            "build_id": self.build_id,
            "from": from,
            "cursor": cursor,
            "lines": lines.min(LINES),
            "max_bytes": BYTES,
            "grep": self.grep,
            "ignore_case": self.ignore_case.then_some(true),
            "context_lines": self.grep.as_ref().map(|_| self.context),
            "timestamps": self.timestamps.then_some(true),
            "phase": self.phase,
            "step": self.step,
            "test": self.test,
            "wait": wait,
        }))
    }
}
