//! How a build goes, on a terminal: drawn over again as long as it runs.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::build::clean;
use crate::build::status::BuildStatus;

use super::table::duration;

/// How often the sign moves that says that this program lives.
const TICK: Duration = Duration::from_millis(120);
/// Characters of foreign words in a line.
const SHOWN: usize = 100;

/// What is drawn on standard error, if that is a terminal.
#[derive(Debug)]
pub struct Live(ProgressBar);

impl Live {
    /// Begins to draw; `quiet`: or not.
    pub fn begin(quiet: bool) -> Self {
        let target = match quiet {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    /// Whether anybody sees it.
    pub fn is_seen(&self) -> bool {
        !self.0.is_hidden()
    }

    /// Draws how a build stands.
    pub fn show(&self, status: &BuildStatus) {
        self.say(&describe(status));
    }

    /// Draws some lines.
    pub fn say(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }

    /// Takes away what was drawn.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

fn describe(status: &BuildStatus) -> String {
    let mut first = status.build_id.clone();
    if let Some(queue) = &status.queue {
        return format!("{first} waits: {}", queue.reason);
    }
    if let Some(phase) = status.phase {
        first += &format!(" {}", phase.as_str());
    }
    if let Some(step) = &status.step {
        let instruction = clean::short(&step.instruction, SHOWN);
        first += &format!(" {}/{} {instruction}", step.index, step.of);
    }
    if let Some(seconds) = status.elapsed_seconds {
        first += &format!(" ({}", duration(seconds));
        if let Some(typical) = status.typical_seconds {
            first += &format!(", usually {}", duration(typical));
        }
        first.push(')');
    }
    let last = status.last_line.as_deref();
    let last = last.map(|line| format!("\n  {}", clean::short(line, SHOWN)));
    first + &last.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Phase;
    use crate::build::status::{QueueStatus, StepStatus};

    #[test]
    fn it_says_where_the_build_is() {
        let mut status = BuildStatus {
            build_id: "b7k2m-9xqdt".into(),
            phase: Some(Phase::Build),
            step: Some(StepStatus {
                index: 3,
                of: 7,
                instruction: "RUN make".into(),
                ..StepStatus::default()
            }),
            elapsed_seconds: Some(62),
            typical_seconds: Some(90),
            last_line: Some("cc -c main.c".into()),
            ..BuildStatus::default()
        };
        assert_eq!(
            describe(&status),
            "b7k2m-9xqdt build 3/7 RUN make (1:02 min, usually 1:30 min)\n  cc -c main.c"
        );
        status.queue = Some(QueueStatus {
            reason: "all 2 slots are taken".into(),
            ..QueueStatus::default()
        });
        assert_eq!(
            describe(&status),
            "b7k2m-9xqdt waits: all 2 slots are taken"
        );
    }
}
