//! The end of a build, from everything that is known of it.

use crate::build::conclude::{Gone, conclude};
use crate::build::record::Final;
use crate::build::status::every_test;
use crate::build::{Phase, Record, State};
use crate::log::Progress;

/// The end of the build of `record`, whose log tells `progress`, at `now` in milliseconds since 1970.
pub fn ending(record: &Record, progress: &Progress, gone: Gone, now: i64) -> Final {
    let phase = progress.standing.phase;
    let (state, failure) = conclude(record, progress.outcome.as_ref(), phase, gone);
    let mut image = progress.image.clone();
    if let Some(image) = &mut image {
        image.published = progress.published(&record.tags);
    }
    Final {
        state,
        at: now,
        failure,
        phase,
        step: progress.step.clone(),
        source: progress.source.clone(),
        inputs: progress.inputs.clone(),
        image: image.filter(|image| {
            state == State::Succeeded || phase >= Some(Phase::Test) || !image.tags.is_empty()
        }),
        tests: every_test(&record.tests, &progress.tests),
        outputs: progress.outputs.clone(),
        phase_seconds: progress.phase_seconds.clone(),
        log_lines: progress.lines,
        resources: progress.resources.clone(),
    }
}
