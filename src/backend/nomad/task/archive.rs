//! The poststop task: writes the end where it is sure, and brings the log into the registry.
//!
//! It runs whatever became of the others, also when the job was stopped. What only the cluster
//! knows (who stopped the job, why an allocation was moved) it leaves to the server.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use crate::backend::ending::ending;
use crate::backend::local::reap;
use crate::build::conclude::{Gone, Outcome};
use crate::build::output::OutputStatus;
use crate::build::{BuildId, Phase, Record};
use crate::config::Config;
use crate::log::Progress;
use crate::registry::ArtifactFile;
use crate::runner::reporter::now_ms;
use crate::runner::workdir::remove_all;
use crate::runner::{exit, outputs};

use super::super::shelf::Shelf;
use super::super::store;
use super::super::stored::{ArchivedLog, Stored};
use super::Place;
use super::shared_log::{self, SharedLog};

/// How long Nomad may take to write what the tasks have said; a killed one says nothing more.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often what remains is removed, and the pause in between.
const TRIES: u32 = 20;
const AGAIN: Duration = Duration::from_millis(100);
/// How long it may take to bring what was handed over into the registry.
const OUTPUTS_WITHIN: Duration = Duration::from_secs(600);
/// The tasks whose records are the log, in their order.
const TASKS: &[&str] = &["build", "publish"];
/// Type of the artifact.
pub const LOG_ARTIFACT: &str = "application/vnd.nomad-build.log.v1";
/// Type of the artifact of what a build has handed over.
pub const OUTPUTS_ARTIFACT: &str = "application/vnd.nomad-build.outputs.v1";
/// Media type of the log in it.
pub const LOG_TYPE: &str = "application/vnd.nomad-build.log.v1.ndjson+gzip";

/// Runs the task; returns its exit status.
///
/// Nomad takes no word any more of a task whose allocation has failed (`nomad/auth/auth.go`,
/// `verifyWorkloadIdentityClaim`), which it has as soon as the task `build` has. Then the server writes
/// the end, and finds the log by its tag.
///
/// # Errors
/// When it cannot even begin.
pub async fn run(config: Config) -> io::Result<u8> {
    let place = Place::of_this_task()?;
    let id = place.payload()?.build_id;
    let known = match store::read(&place.nomad, &id).await {
        Ok(known) => Some(known),
        Err(error) => {
            tracing::warn!(%error, "the record of the build cannot be read");
            None
        }
    };
    let record = known.as_ref().map(|known| &known.stored.record);
    let is_whole = |progress: &Progress| match record {
        Some(record) => is_last_word(record, progress),
        None => progress.outcome.is_some(),
    };
    let settled = shared_log::settled(&place.alloc_dir, TASKS, PATIENCE, is_whole);
    let progress = settled.await?;
    let mine = match &known {
        Some(known) => known.stored.is_for(&place.allocation),
        // One that was not to begin has said nothing.
        None => progress.started.is_some(),
    };
    if !mine {
        tracing::warn!("the build is another allocation's");
        remove_dirs(&place, &id)?;
        remove_all([place.outputs()])?;
        return Ok(exit::INTERRUPTED);
    }
    clean_up(&place, &id).await;
    let change = |stored: &mut Stored| {
        if !stored.is_for(&place.allocation) {
            return false;
        }
        conclude(stored, &progress, &place);
        true
    };
    let ended = store::update(&place.nomad, &id, known, change).await;
    let log = archive(&place, &config, &id, &progress).await;
    if matches!(ended, Ok((false, _))) {
        remove_all([place.outputs()])?;
        return Ok(exit::INTERRUPTED);
    }
    let written = match ended {
        Ok((_, written)) => {
            let archived = |stored: &mut Stored| stored.log = Some(log.clone());
            store::update(&place.nomad, &id, Some(written), archived)
                .await
                .map(|((), written)| written)
        }
        Err(error) => Err(error),
    };
    // Behind the end, which does not wait for them.
    let lost = bring_outputs(&place, &config, &id, progress.outputs).await;
    let written = match written {
        Ok(written) if !lost.is_empty() => {
            let told = |stored: &mut Stored| stored.lose_outputs(&lost);
            store::update(&place.nomad, &id, Some(written), told)
                .await
                .map(drop)
        }
        other => other.map(drop),
    };
    if let Err(error) = written {
        tracing::warn!(%error, "the end is left to the server");
    }
    Ok(exit::PASSED)
}

/// Tag of what a build has handed over.
pub fn outputs_tag(id: &BuildId, allocation: &str) -> String {
    tag_of("outputs", id, allocation)
}

/// Tag of a log, by which it is found without a word in the record.
pub fn log_tag(id: &BuildId, allocation: &str) -> String {
    tag_of("log", id, allocation)
}

fn tag_of(what: &str, id: &BuildId, allocation: &str) -> String {
    let allocation: String = allocation.chars().take(8).collect();
    format!("{what}-{id}-{allocation}")
}

/// Writes the end into the record, where the log alone decides it.
fn conclude(stored: &mut Stored, progress: &Progress, place: &Place) {
    if let Some(started) = progress.started {
        stored.begin(&place.job, &place.allocation, started);
    }
    if is_decided(&stored.record, progress) {
        let end = ending(&stored.record, progress, Gone::Exited, now_ms());
        stored.record.finish(end);
    }
}

/// Whether no task has anything to add.
fn is_last_word(record: &Record, progress: &Progress) -> bool {
    let published = progress.standing.phase == Some(Phase::Publish);
    match &progress.outcome {
        Some(Outcome::Passed) => record.tags.is_empty() || published,
        Some(_) => true,
        None => false,
    }
}

/// Whether the end is sure without a look at the cluster.
fn is_decided(record: &Record, progress: &Progress) -> bool {
    match &progress.outcome {
        Some(Outcome::Failed(_) | Outcome::TimedOut(_)) => true,
        Some(Outcome::Passed) if is_last_word(record, progress) => true,
        _ => record.cancel.is_some() && record.commit.is_none(),
    }
}

/// Leaves nothing of the build in the allocation but what Nomad keeps.
async fn clean_up(place: &Place, id: &BuildId) {
    reap::reap(id).await;
    for _ in 0..TRIES {
        match remove_dirs(place, id) {
            Ok(()) => return,
            // What was killed may still be on its way out.
            Err(error) => tracing::warn!(%error, "something of the build remains"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn remove_dirs(place: &Place, id: &BuildId) -> io::Result<()> {
    reap::remove_work(&std::env::current_exe()?, &place.dir(), id)?;
    remove_all([place.dir().root().to_owned(), place.packed()])
}

async fn archive(place: &Place, config: &Config, id: &BuildId, progress: &Progress) -> ArchivedLog {
    let mut log = ArchivedLog {
        artifact: None,
        lines: progress.lines,
        missing: None,
    };
    match push(place, config, id).await {
        Ok((artifact, headless)) => {
            log.artifact = artifact;
            log.missing = headless.then(|| "Nomad has thrown away its beginning".into());
        }
        Err(error) => {
            tracing::error!(%error, "the log cannot be archived");
            log.missing = Some("it could not be archived".into());
        }
    }
    log
}

async fn push(place: &Place, config: &Config, id: &BuildId) -> io::Result<(Option<String>, bool)> {
    let shared = SharedLog::of(&place.alloc_dir, TASKS)?;
    let Some(shelf) = Shelf::open(config)? else {
        return Ok((None, shared.is_headless()));
    };
    let scratch = scratch(place)?;
    let path = scratch.path().join("log.ndjson.gz");
    compress(&shared, &path)?;
    let files = [ArtifactFile {
        path,
        media_type: LOG_TYPE.into(),
    }];
    let tag = log_tag(id, &place.allocation);
    let pushed = shelf.put(&tag, LOG_ARTIFACT, &files, scratch.path());
    Ok((Some(pushed.await?), shared.is_headless()))
}

/// A directory on the file system of what is pushed.
fn scratch(place: &Place) -> io::Result<TempDir> {
    tempfile::tempdir_in(place.alloc_dir.join("data"))
}

/// Brings what was handed over into the registry, where each is found by its digest; tells which could not be.
async fn bring_outputs(
    place: &Place,
    config: &Config,
    id: &BuildId,
    told: Vec<OutputStatus>,
) -> Vec<OutputStatus> {
    let (whole, mut lost): (Vec<_>, Vec<_>) = told
        .into_iter()
        .filter(OutputStatus::is_there)
        .partition(|output| outputs::is_whole(&place.outputs(), output));
    if !whole.is_empty() {
        let pushed = push_outputs(place, config, id, &whole);
        let pushed = tokio::time::timeout(OUTPUTS_WITHIN, pushed).await;
        let late = |_| Err(io::Error::other("the registry takes too long"));
        if let Err(error) = pushed.unwrap_or_else(late) {
            tracing::error!(%error, "the outputs cannot be stored");
            lost.extend(whole);
        }
    }
    if let Err(error) = remove_all([place.outputs()]) {
        tracing::warn!(%error, "outputs of the build remain");
    }
    lost
}

async fn push_outputs(
    place: &Place,
    config: &Config,
    id: &BuildId,
    outputs: &[OutputStatus],
) -> io::Result<()> {
    let files: Vec<ArtifactFile> = outputs
        .iter()
        .map(|output| ArtifactFile {
            path: place.outputs().join(&output.name),
            media_type: output.media_type().into(),
        })
        .collect();
    let shelf = Shelf::open(config)?;
    let shelf =
        shelf.ok_or_else(|| io::Error::other("there is no repository (nomad.repository)"))?;
    let tag = outputs_tag(id, &place.allocation);
    let scratch = scratch(place)?;
    let pushed = shelf.put(&tag, OUTPUTS_ARTIFACT, &files, scratch.path());
    pushed.await.map(drop)
}

fn compress(log: &SharedLog, to: &Path) -> io::Result<()> {
    let file = io::BufWriter::new(File::create(to)?);
    let mut gzip = GzEncoder::new(file, Compression::default());
    log.copy_to(&mut gzip)?;
    gzip.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::record::CancelMark;
    use crate::build::{Failure, Kind};

    #[test]
    fn only_what_the_log_decides_is_decided_here() {
        let plain = super::super::super::stored::tests::stored().record;
        let mut tagged = plain.clone();
        tagged.tags = vec!["r.example/x:1".into()];
        let mut marked = tagged.clone();
        marked.request_cancel(CancelMark {
            by: "me".into(),
            reason: None,
            at: 1,
        });
        let mut committed = tagged.clone();
        committed.request_commit(1);
        let failed = Outcome::Failed(Box::new(Failure::new(None, Kind::Internal, "x")));
        let decided = |record: &Record, outcome: Option<Outcome>, phase| {
            let mut progress = Progress {
                outcome,
                ..Progress::default()
            };
            progress.standing.phase = phase;
            is_decided(record, &progress)
        };
        use Outcome::{Interrupted, Passed};
        let (test, publish) = (Some(Phase::Test), Some(Phase::Publish));
        assert!(decided(&plain, Some(Passed), test));
        assert!(!decided(&tagged, Some(Passed), test));
        assert!(decided(&tagged, Some(Passed), publish));
        assert!(decided(&tagged, Some(failed), test));
        assert!(!decided(&tagged, Some(Interrupted), test));
        assert!(decided(&marked, Some(Interrupted), test));
        assert!(decided(&marked, None, None));
        assert!(!decided(&committed, None, publish));
        assert!(!decided(&plain, None, test));
    }
}
