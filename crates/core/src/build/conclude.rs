//! The precedence of evidence: how a build ended, decided from everything that is known.
//!
//! recorded final state > the runner's result > what the scheduler says (DESIGN, "Truth").

use super::failure::{Failure, Fault, Kind};
use super::record::Record;
use super::state::{Phase, State};

/// What the runner said of itself in its last `result`.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The phases of this runner ended well.
    Passed,
    /// It failed for this reason.
    Failed(Box<Failure>),
    /// The build's time was over.
    TimedOut(Box<Failure>),
    /// It was told to stop, and did.
    Interrupted,
}

/// What else is known about the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// The job ended in order.
    Exited,
    /// The job vanished without a word.
    Vanished,
    /// It never began: its time in the queue was over.
    QueueTimedOut,
    /// It never began, although it was started several times.
    NeverBegan,
    /// It had to be killed long after the build's time was over.
    Overtime,
    /// The scheduler took its place away, for this reason.
    Displaced(String),
    /// The kernel killed the runner itself for want of memory.
    Starved,
    /// No machine can ever run it, for this reason.
    Unplaceable(String),
    /// The scheduler could not start it, for this reason.
    NotStarted(String),
}

/// Decides the final state and its failure.
///
/// `last` is the last result of any of the build's runners, `phase` the last that began.
pub fn conclude(
    record: &Record,
    last: Option<&Outcome>,
    phase: Option<Phase>,
    gone: Gone,
) -> (State, Option<Failure>) {
    let publish_wanted = !record.tags.is_empty();
    let cancelled = record.cancel.is_some() && record.commit.is_none();
    match last {
        Some(Outcome::Failed(failure)) => (State::Failed, Some((**failure).clone())),
        Some(Outcome::TimedOut(failure)) => (State::TimedOut, Some((**failure).clone())),
        Some(Outcome::Passed) if !publish_wanted || phase == Some(Phase::Publish) => {
            (State::Succeeded, None)
        }
        _ if cancelled => (State::Cancelled, None),
        _ if gone == Gone::QueueTimedOut => (
            State::Failed,
            Some(
                Failure::new(
                    None,
                    Kind::QueueTimedOut,
                    format!("no capacity within {} s", record.queue_timeout),
                )
                .with_hint("Ask the operator for more capacity, or give a longer queue_timeout."),
            ),
        ),
        _ if gone == Gone::NeverBegan => (
            State::Failed,
            Some(
                Failure::new(
                    None,
                    Kind::Internal,
                    "the job of this build cannot be started",
                )
                .with_hint("The operator must look at runner.log of this build."),
            ),
        ),
        _ if let Gone::Unplaceable(reason) = &gone => (
            State::Failed,
            Some(
                Failure::new(None, Kind::Unplaceable, reason.clone()).with_hint(
                    "Choose another profile, or ask the operator for machines that fit this one.",
                ),
            ),
        ),
        _ if let Gone::NotStarted(reason) = &gone => (
            State::Failed,
            Some(
                Failure::new(None, Kind::NotStarted, reason.clone())
                    .with_hint("The operator must look at the profile's job and its machines."),
            ),
        ),
        _ if gone == Gone::Starved && record.commit.is_none() => (
            State::Failed,
            Some(
                Failure::new(
                    phase,
                    Kind::OutOfMemory,
                    "the build used all memory that its profile has",
                )
                .with_hint("Use less memory, or choose a profile with more."),
            ),
        ),
        _ if gone == Gone::Overtime && record.commit.is_none() => (
            State::TimedOut,
            Some(Failure::new(
                phase,
                Kind::TimedOut,
                format!("the build did not end within {} s", record.timeout),
            )),
        ),
        Some(Outcome::Interrupted) => (
            State::Lost,
            Some(lost(
                record,
                phase,
                match &gone {
                    Gone::Displaced(why) => why,
                    _ => "the runner was stopped by somebody unknown",
                },
            )),
        ),
        Some(Outcome::Passed) | None => (
            State::Lost,
            Some(lost(
                record,
                phase,
                match &gone {
                    Gone::Exited => "the runner ended without a result",
                    Gone::Displaced(why) => why,
                    _ => "the runner is gone without a result",
                },
            )),
        ),
    }
}

fn lost(record: &Record, phase: Option<Phase>, message: &str) -> Failure {
    let failure = Failure::new(phase, Kind::Interrupted, message).with_fault(Fault::Transient);
    if record.commit.is_some() {
        failure.with_hint("Tags may have been written: look at image.tags before building again.")
    } else {
        failure.with_hint("Nothing was tagged. Build again.")
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::CancelMark;
    use super::super::samples::record;
    use super::*;

    fn failed() -> Outcome {
        Outcome::Failed(Box::new(Failure::new(
            Phase::Build,
            Kind::CommandFailed,
            "x",
        )))
    }

    #[test]
    fn evidence_is_weighed_in_order() {
        let plain = record();
        let mut tagged = record();
        tagged.tags = vec!["r/x:1".into()];
        let mut marked = tagged.clone();
        marked.cancel = Some(CancelMark {
            by: "me".into(),
            reason: None,
            at: 1,
        });
        let mut committed = tagged.clone();
        committed.commit = Some(1);
        let state =
            |r: &Record, last: Option<&Outcome>, phase, gone| conclude(r, last, phase, gone).0;
        let passed = Outcome::Passed;
        let stopped = Outcome::Interrupted;
        use Gone::*;
        assert_eq!(
            state(&plain, Some(&passed), Some(Phase::Test), Exited),
            State::Succeeded
        );
        assert_eq!(
            state(&tagged, Some(&passed), Some(Phase::Test), Vanished),
            State::Lost
        );
        assert_eq!(
            state(&tagged, Some(&passed), Some(Phase::Publish), Exited),
            State::Succeeded
        );
        assert_eq!(
            state(&marked, Some(&passed), Some(Phase::Test), Vanished),
            State::Cancelled
        );
        assert_eq!(
            state(&marked, Some(&stopped), Some(Phase::Build), Exited),
            State::Cancelled
        );
        assert_eq!(
            state(&marked, Some(&failed()), Some(Phase::Build), Exited),
            State::Failed
        );
        assert_eq!(state(&marked, None, None, Exited), State::Cancelled);
        assert_eq!(
            state(&tagged, Some(&stopped), Some(Phase::Build), Exited),
            State::Lost
        );
        assert_eq!(
            state(&committed, None, Some(Phase::Publish), Vanished),
            State::Lost
        );
        assert_eq!(state(&plain, None, None, QueueTimedOut), State::Failed);
        assert_eq!(state(&plain, None, None, NeverBegan), State::Failed);
        let build = Some(Phase::Build);
        assert_eq!(state(&plain, None, build, Overtime), State::TimedOut);
        let publish = Some(Phase::Publish);
        assert_eq!(state(&committed, None, publish, Overtime), State::Lost);
        assert_eq!(state(&marked, None, None, QueueTimedOut), State::Cancelled);
    }

    #[test]
    fn a_build_that_stops_by_itself_after_a_stranger_is_lost_and_may_be_repeated() {
        let (_, failure) = conclude(
            &record(),
            Some(&Outcome::Interrupted),
            Some(Phase::Build),
            Gone::Exited,
        );
        let failure = failure.unwrap();
        assert_eq!(
            (failure.kind, failure.fault, failure.retryable),
            (Kind::Interrupted, Fault::Transient, true)
        );
    }
}
