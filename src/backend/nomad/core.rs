//! What all parts of a server on a cluster share, and how they live: until the server is dropped.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::build::BuildId;
use crate::config::Live;
use crate::nomad::{Allocation, Client, NomadError, Task};

use super::books::Books;
use super::reason::{Capacity, Free, capacity};
use super::shelf::Shelf;
use super::spool::Spool;
use super::store::Versioned;
use super::tender;

/// Output of so many builds is followed at the same time, each over a connection of its own; Nomad
/// takes 100 of an address by default (`limits.http_max_conns_per_client`).
pub const FOLLOWED: usize = 40;
/// So many more are read at the same time, each for a moment.
pub const READ: usize = 8;
/// Longest to ask the cluster for something that an answer waits for.
pub const ASKED: Duration = Duration::from_secs(2);
/// For how long what nodes have free is taken as known.
const CAPACITY_KEPT: Duration = Duration::from_secs(10);

/// See the module.
pub struct Core {
    pub config: Live,
    pub client: Client,
    pub books: Books,
    pub spool: Spool,
    /// None: the operator has no repository for inputs and logs.
    pub shelf: Option<Shelf>,
    pub staging: PathBuf,
    /// Permits to follow.
    pub followed: Semaphore,
    /// Permits to read.
    pub read: Semaphore,
    /// Who follows the logs of which build.
    pub followers: Mutex<HashMap<BuildId, super::follow::Handle>>,
    /// What nodes have free, by profile, and when that was asked.
    capacities: tokio::sync::Mutex<HashMap<String, (Instant, Option<Capacity>)>>,
    priorities: tokio::sync::Mutex<HashMap<String, (Instant, Option<u16>)>>,
    alive: CancellationToken,
}

impl Core {
    pub fn new(
        config: Live,
        client: Client,
        spool: Spool,
        shelf: Option<Shelf>,
        staging: PathBuf,
        alive: CancellationToken,
    ) -> Self {
        Self {
            config,
            client,
            books: Books::default(),
            spool,
            shelf,
            staging,
            followed: Semaphore::new(FOLLOWED),
            read: Semaphore::new(READ),
            followers: Mutex::default(),
            capacities: tokio::sync::Mutex::default(),
            priorities: tokio::sync::Mutex::default(),
            alive,
        }
    }

    /// Runs a task for as long as the server lives.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let alive = self.alive.clone();
        tokio::spawn(async move {
            alive.run_until_cancelled(task).await;
        });
    }

    /// Takes a record in, and sees to it that somebody looks after its build.
    pub fn learn(self: &Arc<Self>, record: Versioned) {
        let id = record.stored.record.id.clone();
        if self.books.take_record(record) {
            let core = Arc::clone(self);
            self.spawn(async move { tender::tend(&core, &id).await });
        }
    }

    /// Who follows which logs.
    pub fn with_followers<R>(
        &self,
        f: impl FnOnce(&mut HashMap<BuildId, super::follow::Handle>) -> R,
    ) -> R {
        f(&mut self
            .followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// What the job of a profile needs, and what nodes have free; `None` where this server may not
    /// look at nodes. Asked once in a while for all builds that wait, however many ask.
    pub async fn capacity(&self, profile: &str) -> Option<Capacity> {
        let mut kept = self.capacities.lock().await;
        if let Some((at, known)) = kept.get(profile)
            && at.elapsed() < CAPACITY_KEPT
        {
            return known.clone();
        }
        let known = match tokio::time::timeout(ASKED, self.ask_capacity(profile)).await {
            Ok(Ok(known)) => Some(known),
            Ok(Err(error)) => {
                tracing::debug!(%error, "what nodes have free is not known");
                None
            }
            // As it was.
            Err(_) => kept.get(profile).and_then(|(_, known)| known.clone()),
        };
        kept.insert(profile.to_owned(), (Instant::now(), known.clone()));
        known
    }

    /// The priority of a profile's job; `None` where it cannot be read. Asked once in a while.
    pub async fn priority(&self, profile: &str) -> Option<u16> {
        let mut kept = self.priorities.lock().await;
        if let Some((at, known)) = kept.get(profile)
            && at.elapsed() < CAPACITY_KEPT
        {
            return *known;
        }
        let job = self.config.now().nomad.job_of(profile);
        let asked = tokio::time::timeout(ASKED, self.client.job(&job)).await;
        let known = asked.ok().and_then(Result::ok).map(|job| job.priority);
        kept.insert(profile.to_owned(), (Instant::now(), known));
        known
    }

    async fn ask_capacity(&self, profile: &str) -> Result<Capacity, NomadError> {
        let job = self
            .client
            .job(&self.config.now().nomad.job_of(profile))
            .await?;
        let nodes = self.client.nodes().await?;
        let allocations = self.client.allocated().await?;
        let used = |node: &str| {
            let here = allocations
                .iter()
                .filter(|one| one.node_id == node && !one.client_status.is_terminal());
            here.fold(Free::default(), |sum, one| {
                let has = one.allocated_resources.clone().unwrap_or_default();
                let (memory_mb, cpu) = has.at_once();
                Free {
                    memory_mb: sum.memory_mb + memory_mb,
                    cpu: sum.cpu + cpu,
                    disk_mb: sum.disk_mb + has.shared.disk_mb,
                }
            })
        };
        let group = job.task_groups.first();
        let tasks: Vec<&Task> = group.map_or_else(Vec::new, |group| group.tasks.iter().collect());
        let resources: Vec<_> = tasks
            .iter()
            .filter_map(|task| task.resources.as_ref())
            .collect();
        let disk = group.and_then(|group| group.ephemeral_disk.as_ref());
        Ok(capacity(
            &resources,
            disk.map_or(0, |disk| disk.size_mb),
            &nodes,
            used,
        ))
    }

    /// An allocation as the cluster has it now, for readers of logs.
    pub fn allocation(&self, id: &BuildId) -> Option<Allocation> {
        let page = self.books.page(id)?;
        let began = page.record.stored.allocation.as_deref();
        page.known.allocation(began).cloned()
    }
}
