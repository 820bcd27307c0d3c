//! The states of a build and the one function that changes them.
//!
//! ```text
//! queued ──▶ running ──▶ succeeded | failed | cancelled | timed_out | lost
//!    └──────────────────────────────▲ (a queued build can end, too)
//! ```
//! A state never goes backwards and never leaves a final state.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// State of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Accepted, waiting for capacity.
    Queued,
    /// A runner is at work.
    Running,
    /// Every phase that was asked for ended well.
    Succeeded,
    /// It failed; see the failure.
    Failed,
    /// Somebody asked for its end.
    Cancelled,
    /// The whole build's time was over.
    TimedOut,
    /// Its runner is gone, and nobody knows more.
    Lost,
}

impl State {
    /// Whether the build has ended.
    pub fn is_final(self) -> bool {
        !matches!(self, State::Queued | State::Running)
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::TimedOut => "timed_out",
            State::Lost => "lost",
        }
    }
}

/// Phase of a running build.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The sources and base images are brought in.
    Source,
    /// Buildah executes the Containerfile.
    Build,
    /// The tests run in the image.
    Test,
    /// The image is pushed.
    Publish,
}

impl Phase {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Source => "source",
            Phase::Build => "build",
            Phase::Test => "test",
            Phase::Publish => "publish",
        }
    }
}

/// What can happen to a build's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A runner began.
    Started,
    /// A phase began.
    Phase(Phase),
    /// It ended so.
    Ended(State),
}

/// State and phase together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The state.
    pub state: State,
    /// The last phase that began.
    pub phase: Option<Phase>,
}

impl Standing {
    /// A build that was just accepted.
    pub const ACCEPTED: Standing = Standing {
        state: State::Queued,
        phase: None,
    };
}

/// The one owner of state changes: what cannot follow is ignored.
#[must_use]
pub fn apply(now: Standing, event: Event) -> Standing {
    if now.state.is_final() {
        return now;
    }
    match event {
        Event::Started => Standing {
            state: State::Running,
            ..now
        },
        Event::Phase(phase) => Standing {
            state: State::Running,
            phase: now.phase.max(Some(phase)),
        },
        Event::Ended(state) if state.is_final() => Standing { state, ..now },
        Event::Ended(_) => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Started),
            prop_oneof![
                Just(Phase::Source),
                Just(Phase::Build),
                Just(Phase::Test),
                Just(Phase::Publish)
            ]
            .prop_map(Event::Phase),
            prop_oneof![
                Just(State::Queued),
                Just(State::Running),
                Just(State::Succeeded),
                Just(State::Failed),
                Just(State::Cancelled),
                Just(State::TimedOut),
                Just(State::Lost)
            ]
            .prop_map(Event::Ended),
        ]
    }

    fn rank(state: State) -> u8 {
        match state {
            State::Queued => 0,
            State::Running => 1,
            _ => 2,
        }
    }

    proptest! {
        #[test]
        fn never_backwards_and_never_out_of_a_final_state(list in prop::collection::vec(events(), 0..40)) {
            let mut now = Standing::ACCEPTED;
            for event in list {
                let next = apply(now, event);
                prop_assert!(rank(next.state) >= rank(now.state));
                prop_assert!(next.phase >= now.phase);
                if now.state.is_final() {
                    prop_assert_eq!(next, now);
                }
                if let (Event::Ended(state), false) = (event, now.state.is_final()) {
                    prop_assert_eq!(next.state == state, state.is_final() || now.state == state);
                }
                now = next;
            }
        }
    }
}
