//! The end of a build, written once, from everything that is known.

use std::io;

use crate::backend::ending::ending;
use crate::build::conclude::Gone;
use crate::log::{LogReader, Progress};
use crate::runner::outputs;
use crate::runner::reporter::now_ms;

use super::layout::BuildDir;
use super::store;

/// Reads the whole log into a progress.
///
/// # Errors
/// When it cannot be read.
pub fn progress(dir: &BuildDir) -> io::Result<Progress> {
    let mut progress = Progress::default();
    if let Some(log) = LogReader::open(&dir.log())? {
        log.tell(0, &mut progress)?;
    }
    Ok(progress)
}

/// Writes the end, unless somebody did before.
///
/// # Errors
/// When the record cannot be written.
pub fn write_end(dir: &BuildDir, gone: Gone) -> io::Result<()> {
    let mut progress = progress(dir)?;
    // What a job that died had not handed over is gone with it.
    for output in progress.outputs.iter_mut().filter(|one| one.is_there()) {
        if !outputs::is_whole(&dir.outputs(), output) {
            output.lose("it was lost with the job of the build");
        }
    }
    store::update(dir, |record| {
        if record.end.is_some() {
            return;
        }
        record.finish(ending(record, &progress, gone, now_ms()));
    })?;
    Ok(())
}
