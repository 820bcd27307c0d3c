//! Whether what builds on a cluster need is there, found out in the time that a health check has.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Mutex;

use crate::backend::{Dependency, Standing};
use crate::nomad::{Job, NomadError};

use super::core::Core;

/// Longest for jobs and repository. With what Nomad itself gets, it is less than the checks of `nomad/` wait.
const EXAMINED: Duration = Duration::from_millis(1500);
/// For how long they are taken to be there when they were.
const KEPT: Duration = Duration::from_secs(10);

/// When jobs and repository were all there last.
#[derive(Debug, Default)]
pub struct Examined(Mutex<Option<Instant>>);

impl Examined {
    /// The jobs of the profiles, and the repository where the operator has one.
    pub async fn look(&self, core: &Core) -> Vec<(Dependency, Standing)> {
        let mut last = self.0.lock().await;
        if last.is_some_and(|at| at.elapsed() < KEPT) {
            let there = |dependency| (dependency, Standing::Up);
            let repository = core.shelf.is_some().then_some(Dependency::Repository);
            let all = std::iter::once(Dependency::Jobs).chain(repository);
            return all.map(there).collect();
        }
        let (jobs, repository) = tokio::join!(jobs(core), repository(core));
        let found: Vec<_> = std::iter::once(jobs).chain(repository).collect();
        let fine = found.iter().all(|(_, standing)| *standing == Standing::Up);
        *last = fine.then(Instant::now);
        found
    }
}

/// Builds of one profile do without the job of another.
async fn jobs(core: &Core) -> (Dependency, Standing) {
    let config = core.config.now();
    let profiles = config.profiles();
    let names = profiles
        .iter()
        .map(|profile| config.nomad.job_of(&profile.name));
    let asked = join_all(names.map(|name| async move {
        let job = core.client.job(&name).await;
        (name, job)
    }));
    let Ok(asked) = tokio::time::timeout(EXAMINED, asked).await else {
        let why = "Nomad does not tell its jobs in time";
        return (Dependency::Nomad, Standing::Down(why.into()));
    };
    let mut missing = Vec::new();
    for (name, job) in &asked {
        match takes_dispatches(job) {
            Ok(true) => {}
            Ok(false) => missing.push(name.as_str()),
            Err(error) => return (Dependency::Nomad, Standing::Down(error.to_string())),
        }
    }
    let why = || {
        let names = missing.join(", ");
        format!("not registered, stopped or not parameterized: {names} (see nomad/README.md)")
    };
    let standing = match missing.len() {
        0 => Standing::Up,
        all if all == asked.len() => Standing::Down(why()),
        _ => Standing::Impaired(why()),
    };
    (Dependency::Jobs, standing)
}

fn takes_dispatches(job: &Result<Job, NomadError>) -> Result<bool, &NomadError> {
    match job {
        Ok(job) => Ok(!job.stop && job.parameterized_job.is_some()),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Small sources need no repository; large ones and logs do.
async fn repository(core: &Core) -> Option<(Dependency, Standing)> {
    let shelf = core.shelf.as_ref()?;
    let why = match tokio::time::timeout(EXAMINED, shelf.check()).await {
        Ok(Ok(())) => return Some((Dependency::Repository, Standing::Up)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the registry does not answer in time".to_owned(),
    };
    Some((Dependency::Repository, Standing::Impaired(why)))
}
