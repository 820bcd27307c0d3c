//! The end of a build, written once, from everything that is known.

use std::io;

use crate::build::conclude::{Gone, conclude};
use crate::build::record::Final;
use crate::build::status::every_test;
use crate::build::{Phase, State};
use crate::log::{LogReader, Progress};
use crate::runner::reporter::now_ms;

use super::layout::BuildDir;
use super::store;

/// Reads the whole log into a progress.
///
/// # Errors
/// When it cannot be read.
pub fn progress(dir: &BuildDir) -> io::Result<Progress> {
    let mut progress = Progress::default();
    if let Some(mut log) = LogReader::open(&dir.log())? {
        for (_, record) in log.forward(0)? {
            progress.take(record);
        }
    }
    Ok(progress)
}

/// Writes the end, unless somebody did before.
///
/// # Errors
/// When the record cannot be written.
pub fn write_end(dir: &BuildDir, gone: Gone) -> io::Result<()> {
    let progress = progress(dir)?;
    store::update(dir, |record| {
        if record.end.is_some() {
            return;
        }
        let phase = progress.standing.phase;
        let (state, failure) = conclude(record, progress.outcome.as_ref(), phase, gone);
        let mut image = progress.image.clone();
        if let Some(image) = &mut image {
            image.published = progress.published(&record.tags);
        }
        record.finish(Final {
            state,
            at: now_ms(),
            failure,
            phase,
            step: progress.step.clone(),
            source: progress.source.clone(),
            image: image.filter(|image| {
                state == State::Succeeded || phase >= Some(Phase::Test) || !image.tags.is_empty()
            }),
            tests: every_test(&record.tests, &progress.tests),
            phase_seconds: progress.phase_seconds.clone(),
            log_lines: progress.lines,
            resources: progress.resources.clone(),
        });
    })?;
    Ok(())
}
