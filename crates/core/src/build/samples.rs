//! Records for tests.

use super::id::BuildId;
use super::record::{Final, RECORD_VERSION, Record};
use super::state::State;
use super::status::SourceStatus;

/// A build that has been accepted.
pub fn record() -> Record {
    Record {
        v: RECORD_VERSION,
        id: BuildId::from_random([7; 16]),
        principal: "local".into(),
        name: None,
        profile: "default".into(),
        request_digest: "sha256:00".into(),
        source: SourceStatus::default(),
        tags: vec![],
        tests: vec![],
        timeout: 3600,
        queue_timeout: 1800,
        submitted: 0,
        starts: 0,
        began: None,
        cancel: None,
        commit: None,
        end: None,
    }
}

/// That it has ended so.
pub fn end(state: State) -> Final {
    Final {
        state,
        at: 1,
        failure: None,
        phase: None,
        step: None,
        source: None,
        inputs: None,
        image: None,
        tests: vec![],
        outputs: vec![],
        phase_seconds: vec![],
        log_lines: 0,
        resources: None,
    }
}
