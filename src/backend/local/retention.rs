//! How long ended builds are kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::build::BuildId;
use crate::config::Config;

use super::claims;
use super::layout::{BuildDir, Layout};
use super::private;
use super::queue;
use super::reap;
use super::store;

const DAY: i64 = 24 * 60 * 60 * 1000;

/// Removes ended builds beyond the operator's number and age, never one that is unfinished; and
/// what dead servers left in the staging directory.
pub fn sweep(layout: &Layout, config: &Config, program: &Path, now: i64) {
    let mut ended = Vec::new();
    for entry in fs::read_dir(layout.builds())
        .into_iter()
        .flatten()
        .flatten()
    {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<BuildId>().ok())
        else {
            continue;
        };
        let dir = layout.build(&id);
        if let Ok(record) = store::read(&dir)
            && let Some(end) = &record.end
        {
            match remove_rest(program, &dir, &id) {
                Ok(true) => ended.push((end.at, dir)),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, build = %id, "a work directory remains"),
            }
        }
    }
    ended.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let oldest = now - i64::from(config.local.keep_days) * DAY;
    for (position, (at, dir)) in ended.iter().enumerate() {
        if (position >= config.local.keep_builds as usize || *at < oldest)
            && let Err(error) = fs::remove_dir_all(dir.root())
        {
            tracing::warn!(%error, "an old build cannot be removed");
        }
    }
    let outputs = ended.iter().map(|(_, dir)| dir.outputs());
    if let Err(error) = sweep_outputs(outputs, config.local.keep_outputs_mb << 20) {
        tracing::warn!(%error, "outputs of old builds cannot be removed");
    }
    claims::sweep(layout, now);
    if let Err(error) = sweep_unaccepted(layout) {
        tracing::warn!(%error, "what dead servers were about to accept remains");
    }
}

/// Keeps outputs within their limit; those of the newest build stay in any case.
fn sweep_outputs(newest_first: impl Iterator<Item = PathBuf>, limit: u64) -> io::Result<()> {
    let mut total = 0;
    for dir in newest_first {
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        let is_first = total == 0;
        for entry in entries {
            total += entry?.metadata()?.len();
        }
        if total > limit && !is_first {
            fs::remove_dir_all(dir)?;
        }
    }
    Ok(())
}

/// Removes what servers that died had of builds that they did not come to accept: directories and
/// tickets, which are made only by who holds the guard, and snapshots, which their server holds.
fn sweep_unaccepted(layout: &Layout) -> io::Result<()> {
    let _guard = claims::guard(layout)?;
    for entry in fs::read_dir(layout.staging())? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else if store::try_lock(&path)?.is_some() {
            fs::remove_file(&path)?;
        }
    }
    queue::tidy(layout)?;
    for ticket in queue::tickets(layout)? {
        if !layout.build(&ticket.id).root().exists() {
            queue::discard(layout, &ticket)?;
        }
    }
    Ok(())
}

/// Removes what was not removed when the build ended; returns whether nothing remains, which is not so as
/// long as its job is at it.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_rest(program: &Path, dir: &BuildDir, id: &BuildId) -> io::Result<bool> {
    if dir.is_tidy() && !private::is_there(id) {
        return Ok(true);
    }
    match store::try_lock(&dir.job_lock())? {
        Some(_lock) => reap::remove_work(program, dir, id).map(|()| true),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::State;
    use crate::build::samples::{end, record};

    #[test]
    fn outputs_of_the_oldest_builds_go_first() {
        let root = tempfile::tempdir().unwrap();
        let dirs: Vec<PathBuf> = (0..5).map(|n| root.path().join(n.to_string())).collect();
        for (n, dir) in dirs.iter().enumerate().filter(|(n, _)| *n != 1) {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("a"), vec![0; 10 * (n + 1)]).unwrap();
        }
        let left = |limit| {
            sweep_outputs(dirs.iter().cloned(), limit).unwrap();
            dirs.iter().filter(|dir| dir.exists()).count()
        };
        assert_eq!((left(130), left(129), left(79), left(1)), (4, 3, 2, 1));
        assert!(dirs[0].exists());
    }

    #[test]
    fn the_newest_ended_and_every_unfinished_build_stay() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        layout.prepare().unwrap();
        let mut config = Config::default();
        config.local.keep_builds = 2;
        config.local.keep_days = 10;
        let now = 100 * DAY;
        let ages = [
            (1u8, Some(1)),
            (2, Some(2)),
            (3, Some(3)),
            (4, None),
            (5, Some(11)),
        ];
        for (n, days) in ages {
            let mut record = record();
            record.id = BuildId::from_random([n; 16]);
            record.end = days.map(|days| {
                let mut end = end(State::Succeeded);
                end.at = now - days * DAY;
                end
            });
            let dir = layout.build(&record.id);
            fs::create_dir(dir.root()).unwrap();
            store::replace(&dir.record(), &serde_json::to_vec(&record).unwrap()).unwrap();
        }
        sweep(&layout, &config, Path::new("nomad-build"), now);
        let left: Vec<bool> = ages
            .iter()
            .map(|(n, _)| {
                layout
                    .build(&BuildId::from_random([*n; 16]))
                    .root()
                    .exists()
            })
            .collect();
        assert_eq!(left, [true, true, false, true, false]);
    }
}
