//! Builds as jobs of a Nomad cluster.
//!
//! ```text
//!            ┌─ feed: records, events ─▶ books ─▶ look, list, watch
//! cluster ◀──┤                             └────▶ tender (one a build): decide ─▶ act
//!            └─ follow: logs ─▶ spool ─▶ read_log
//! ```
//! The truth is in the cluster: a record a build as a Nomad Variable, a child job a build. What a
//! server holds it can read back; several servers may look at the same builds.

pub mod accept;
pub mod books;
pub mod claims;
pub mod cluster;
pub mod core;
pub mod decide;
mod depot;
pub mod feed;
pub mod follow;
mod health;
pub mod payload;
pub mod reason;
pub mod shelf;
pub mod spool;
pub mod store;
pub mod stored;
pub mod sweep;
pub mod task;
pub mod tender;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::build::output::OutputStatus;
use crate::build::record::{CancelMark, CancelOutcome};
use crate::build::status::QueueStatus;
use crate::build::{BuildId, State};
use crate::config::Live;
use crate::log::{LogReader, Progress, Query, Selection};
use crate::nomad::{Allocation, Client, NomadError, Options};
use crate::runner::reporter::now_ms;

use self::books::Page;
use self::cluster::Known;
use self::core::{ASKED, Core};
use self::depot::NomadDepot;
use self::health::Examined;
use self::shelf::Shelf;
use self::spool::Spool;
use self::store::StoreError;
use super::{
    Backend, BackendError, Changes, Dependency, Depot, Health, Standing, Submission, Submitted,
    View, Vitals,
};

/// How long an answer waits for a server that has just begun to know all builds.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest for Nomad to be found well.
const WELL: Duration = Duration::from_secs(3);
/// How long an answer waits for what a running build has said so far, where nobody has read it yet.
const FIRST_READ: Duration = Duration::from_secs(2);
/// Pause before what comes behind the end of a build is looked for again.
const AGAIN: Duration = Duration::from_millis(100);
/// Events closer together than this are taken together.
const COALESCE: Duration = Duration::from_millis(10);

/// Builds on a cluster.
pub struct NomadBackend {
    core: Arc<Core>,
    depot: Option<NomadDepot>,
    sweep: mpsc::Sender<()>,
    examined: Examined,
    began: Instant,
    /// What this server does in the background ends with it.
    _alive: DropGuard,
}

impl NomadBackend {
    /// Begins to look after the builds of a cluster. Within a Tokio runtime.
    ///
    /// # Errors
    /// When the configuration cannot be used; a cluster that does not answer is no error.
    pub fn open(live: impl Into<Live>, options: Options) -> io::Result<Self> {
        let live = live.into();
        let config = live.now();
        let options = options.in_namespace(config.nomad.namespace.as_deref());
        let client = Client::new(options).map_err(io::Error::other)?;
        let named = |error: io::Error| {
            let dir = config.state_dir.display();
            let text = format!("the state directory {dir} cannot be used: {error}");
            io::Error::new(error.kind(), text)
        };
        let staging = config.state_dir.join("staging");
        let uploads = config.state_dir.join("uploads");
        let mut dir = fs::DirBuilder::new();
        for path in [&staging, &uploads] {
            dir.recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(named)?;
        }
        sweep::staging(&staging).map_err(named)?;
        let spool = Spool::open(&config.state_dir.join("spool")).map_err(named)?;
        let shelf = Shelf::open(&config)?;
        let alive = CancellationToken::new();
        let core = Core::new(live, client, spool, shelf, staging, alive.clone());
        let core = Arc::new(core);
        let (sweep, wanted) = mpsc::channel(1);
        let part = Arc::clone(&core);
        core.spawn(async move { feed::records(&part).await });
        let part = Arc::clone(&core);
        core.spawn(async move { feed::cluster(&part).await });
        let part = Arc::clone(&core);
        core.spawn(async move { sweep::run(&part, wanted).await });
        Ok(Self {
            depot: NomadDepot::new(Arc::clone(&core), uploads),
            core,
            sweep,
            examined: Examined::default(),
            began: Instant::now(),
            _alive: alive.drop_guard(),
        })
    }

    /// A build, read from the cluster where this server does not know it yet.
    async fn page(&self, id: &BuildId) -> Result<Page, BackendError> {
        if let Some(page) = self.core.books.page(id) {
            return Ok(page);
        }
        let record = store::read(&self.core.client, id).await?;
        self.core.learn(record);
        let page = self.core.books.page(id);
        page.ok_or_else(|| BackendError::NotFound(id.clone()))
    }

    /// The page of a build; of one that seems to wait, as soon as this server knows what the cluster tells: it may
    /// have been placed before this server began.
    async fn current_page(&self, id: &BuildId) -> Result<Page, BackendError> {
        let page = self.page(id).await?;
        let is_placed = page.known.allocation(None).is_some();
        if page.record.stored.record.state() != State::Queued || is_placed {
            return Ok(page);
        }
        let mut ready = self.core.books.ready();
        let begun = ready.wait_for(|ready| ready.cluster_once);
        // Where the cluster is silent for longer, what is known has to do.
        let _ = tokio::time::timeout_at(self.began + PATIENCE, begun).await;
        Ok(self.core.books.page(id).unwrap_or(page))
    }

    /// The page of a build; of one that has ended, whose log may be with its allocation alone, that is asked
    /// for: no event may have told of it yet, and none tells when it is collected.
    async fn settled_page(&self, id: &BuildId) -> Result<Page, BackendError> {
        let page = self.current_page(id).await?;
        let (stored, known) = (&page.record.stored, &page.known);
        let (Some(end), Some(placed)) = (&stored.record.end, stored.allocation.as_deref()) else {
            return Ok(page);
        };
        let is_told = stored.log_artifact().is_some() || log_missing(&page).is_some();
        let is_kept = (known.allocation(Some(placed))).is_some_and(|one| !cluster::is_done(one));
        if is_told || is_kept || end.log_lines == 0 || self.has_read(id, end.log_lines) {
            return Ok(page);
        }
        let asked = tokio::time::timeout(ASKED, self.core.client.allocation(placed)).await;
        match asked {
            Ok(Ok(allocation)) => {
                (self.core.books).take(id, |known| known.take_allocation(allocation, now_ms()))
            }
            Ok(Err(NomadError::NotFound { .. })) => self.lose_log(id),
            Ok(Err(error)) => {
                tracing::debug!(%error, build = %id, "the allocation of an ended build cannot be read");
            }
            Err(_) => {
                tracing::debug!(build = %id, "the allocation of an ended build is not told in time")
            }
        }
        Ok(self.core.books.page(id).unwrap_or(page))
    }

    /// Notes that nothing of a log is left where it was written. Where there is a repository, the build's last task or
    /// a server says what became of it.
    fn lose_log(&self, id: &BuildId) {
        if self.core.shelf.is_none() {
            self.core.books.take(id, Known::lose_log);
        }
    }

    /// Whether this server has read so many lines of a log; `false` also while somebody reads it.
    fn has_read(&self, id: &BuildId, lines: u64) -> bool {
        let log = self.core.spool.log(id);
        log.try_lock().is_ok_and(|log| log.progress.lines >= lines)
    }

    fn view(page: &Page, queue: Option<QueueStatus>) -> View {
        let log_missing = log_missing(page);
        let stored = &page.record.stored;
        let mut record = stored.record.clone();
        let progress = if record.end.is_some() {
            Progress::default()
        } else {
            (*page.progress).clone()
        };
        if record.began.is_none() && record.end.is_none() {
            let allocation = page.known.allocation(stored.allocation.as_deref());
            record.began = allocation.and_then(cluster::began);
        }
        View {
            record,
            progress,
            queue,
            log_missing,
        }
    }

    async fn queue(&self, page: &Page) -> Option<QueueStatus> {
        let stored = &page.record.stored;
        let record = &stored.record;
        if !decide::waits(stored, &page.known) {
            return None;
        }
        let blocked = page.known.blocked.as_ref();
        let capacity = match blocked {
            Some(_) => self.core.capacity(&record.profile).await,
            None => None,
        };
        let (code, reason) = match page.known.allocation(None) {
            Some(allocation) => ("starting", starting(allocation)),
            None => reason::why(blocked, capacity.as_ref()),
        };
        let waited = u64::try_from((now_ms() - record.submitted) / 1000).unwrap_or(0);
        Some(QueueStatus {
            position: u32::try_from(self.core.books.ahead(stored) + 1).ok(),
            code: code.into(),
            reason,
            seconds: waited,
            gives_up_in_seconds: u64::from(record.queue_timeout).saturating_sub(waited),
        })
    }

    /// Waits until all builds are known; a server that lost its cluster says so.
    async fn all_known(&self) -> Result<(), BackendError> {
        let mut ready = self.core.books.ready();
        let known = ready.wait_for(|ready| ready.records && ready.cluster);
        match tokio::time::timeout(PATIENCE, known).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(BackendError::Unavailable(format!(
                "Nomad at {} does not answer",
                self.core.client.address()
            ))),
        }
    }

    /// Brings the log of an ended build into the spool, from wherever it still is: its client as long as
    /// that keeps it, then the registry. In between it may take a moment.
    async fn fetch_ended(&self, id: &BuildId) {
        let mut changed = self.core.books.subscribe(id);
        let deadline = Instant::now() + PATIENCE;
        let mut again = AGAIN;
        loop {
            changed.borrow_and_update();
            let Some(page) = self.core.books.page(id) else {
                return;
            };
            let fetch = self.try_fetch(id, &page);
            let there = tokio::time::timeout_at(deadline, fetch).await;
            let there = there.unwrap_or(false);
            if there || page.record.stored.log.is_some() || Instant::now() >= deadline {
                return;
            }
            if !look_again(&mut changed, &mut again).await {
                return;
            }
        }
    }

    /// Whether the whole log is in the spool.
    async fn try_fetch(&self, id: &BuildId, page: &Page) -> bool {
        let stored = &page.record.stored;
        let lines = stored.record.end.as_ref().map_or(0, |end| end.log_lines);
        let log = self.core.spool.log(id);
        let mut log = log.lock().await;
        if log.progress.lines >= lines {
            return true;
        }
        if let (Some(shelf), Some(artifact)) = (&self.core.shelf, stored.log_artifact()) {
            let fetched = shelf.fetch_log(artifact, log.path()).await;
            match fetched.and_then(|()| log.reread()) {
                Ok(()) => return true,
                Err(error) => tracing::warn!(%error, build = %id, "an archived log cannot be read"),
            }
        }
        if let Some(allocation) = page.known.allocation(stored.allocation.as_deref())
            && let Err(error) = follow::advance_ended(&self.core, allocation, &mut log).await
        {
            tracing::debug!(%error, build = %id, "the log of an ended build cannot be read");
            if follow::is_collected(&error) {
                self.lose_log(id);
            }
        }
        log.progress.lines >= lines
    }
}

/// Returns when something of a build may have changed: after longer pauses each time; `false`: it was forgotten.
async fn look_again(changed: &mut watch::Receiver<u64>, pause: &mut Duration) -> bool {
    let told = tokio::time::timeout(*pause, changed.changed()).await;
    *pause = (*pause * 2).min(Duration::from_secs(2));
    !matches!(told, Ok(Err(_)))
}

/// Fetches an output; `false`: it is nowhere. It comes behind the end of its build, as long as the last task runs.
async fn fetch_output(
    core: &Core,
    id: &BuildId,
    output: &OutputStatus,
    to: &Path,
) -> io::Result<bool> {
    let Some(shelf) = &core.shelf else {
        return Ok(false);
    };
    let mut changed = core.books.subscribe(id);
    let mut again = AGAIN;
    loop {
        changed.borrow_and_update();
        let coming = core.books.page(id).is_some_and(|page| {
            let allocation = page.record.stored.allocation.as_deref();
            let allocation = page.known.allocation(allocation);
            allocation.is_some_and(|allocation| !cluster::is_done(allocation))
        });
        {
            let _alone = core.spool.fetching.lock().await;
            if to.is_file() {
                return Ok(true);
            }
            core.spool.make_room(id, output.size_bytes.unwrap_or(0))?;
            if shelf.fetch_output(output, to).await? {
                return Ok(true);
            }
        }
        if !coming {
            return Ok(false);
        }
        if !look_again(&mut changed, &mut again).await {
            return Ok(false);
        }
    }
}

/// How far a build is that has its place.
fn starting(allocation: &Allocation) -> String {
    let node = crate::build::clean::short(&allocation.node_name, 60);
    let waits = decide::waits_for_secrets(allocation).and_then(|waits| waits.what);
    let waits = waits.map_or(String::new(), |what| format!(", and waits there: {what}"));
    format!("it is being started on the node {node}{waits}")
}

/// What of the log of an ended build can never be read again.
fn log_missing(page: &Page) -> Option<String> {
    let stored = &page.record.stored;
    stored.record.end.as_ref().filter(|end| end.log_lines > 0)?;
    if let Some(missing) = stored.log.as_ref().and_then(|log| log.missing.clone()) {
        return Some(missing);
    }
    let lost = "its allocation was collected, and the operator keeps no logs (nomad.repository)";
    let is_archived = stored.log_artifact().is_some();
    (!is_archived && page.known.log_collected).then(|| lost.into())
}

#[async_trait]
impl Backend for NomadBackend {
    fn staging(&self) -> &Path {
        &self.core.staging
    }

    async fn submit(&self, submission: Submission) -> Result<Submitted, BackendError> {
        let submitted = accept::accept(&self.core, submission).await?;
        let _ = self.sweep.try_send(());
        Ok(submitted)
    }

    async fn owner(&self, id: &BuildId, expected: Option<&str>) -> Result<String, BackendError> {
        if let Some(page) = self.core.books.page(id) {
            let owner = &page.record.stored.record.principal;
            if expected.is_none_or(|expected| expected == owner) {
                return Ok(owner.clone());
            }
        }
        let record = store::read(&self.core.client, id).await?;
        let owner = record.stored.record.principal.clone();
        self.core.learn(record);
        Ok(owner)
    }

    async fn look(&self, id: &BuildId) -> Result<View, BackendError> {
        let page = self.settled_page(id).await?;
        let view = Self::view(&page, None);
        match view.state() {
            State::Queued => Ok(View {
                queue: self.queue(&page).await,
                ..view
            }),
            State::Running => {
                follow::want(&self.core, id, FIRST_READ).await;
                let page = self.core.books.page(id);
                let page = page.ok_or_else(|| BackendError::NotFound(id.clone()))?;
                Ok(Self::view(&page, None))
            }
            _ => Ok(view),
        }
    }

    fn watch(&self, id: &BuildId) -> Box<dyn Changes> {
        Box::new(NomadChanges {
            changed: self.core.books.subscribe(id),
        })
    }

    async fn read_log(&self, id: &BuildId, query: Query) -> Result<Selection, BackendError> {
        let page = self.settled_page(id).await?;
        if page.record.stored.record.end.is_some() {
            self.fetch_ended(id).await;
        } else {
            follow::want(&self.core, id, FIRST_READ).await;
        }
        let path = self.core.spool.path(id);
        let read = move || match LogReader::open(&path)? {
            Some(log) => query.run(&log),
            None => Ok(Selection::default()),
        };
        Ok(tokio::task::spawn_blocking(read)
            .await
            .map_err(io::Error::other)??)
    }

    fn keeps_outputs(&self) -> bool {
        self.core.shelf.is_some()
    }

    async fn output(
        &self,
        id: &BuildId,
        output: &OutputStatus,
    ) -> Result<Option<PathBuf>, BackendError> {
        let path = self.core.spool.output(id, &output.name);
        if path.is_file() {
            return Ok(Some(path));
        }
        // Whoever asks may not wait for it; the next one finds it.
        let (core, wanted) = (Arc::clone(&self.core), output.clone());
        let (id, to) = (id.clone(), path.clone());
        let fetching = tokio::spawn(async move { fetch_output(&core, &id, &wanted, &to).await });
        let fetched = fetching.await.map_err(io::Error::other)??;
        Ok(fetched.then_some(path))
    }

    async fn cancel(&self, id: &BuildId, mark: CancelMark) -> Result<CancelOutcome, BackendError> {
        Ok(accept::cancel(&self.core, id, mark).await?)
    }

    async fn list(&self) -> Result<Vec<View>, BackendError> {
        self.all_known().await?;
        let pages = self.core.books.pages();
        let mut views: Vec<View> = pages.iter().map(|page| Self::view(page, None)).collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.record.submitted));
        Ok(views)
    }

    async fn request(&self, id: &BuildId) -> Result<serde_json::Value, BackendError> {
        let page = self.page(id).await?;
        let request = page.record.stored.request.clone();
        request.ok_or_else(|| {
            BackendError::Unavailable(format!(
                "the request of {id} was larger than what is kept of it"
            ))
        })
    }

    fn capacity(&self) -> String {
        "builds run as jobs of a Nomad cluster, those that find no room wait".into()
    }

    async fn health(&self) -> Health {
        let well = async {
            self.core.client.leader().await?;
            self.all_known().await
        };
        let late = "Nomad does not tell its leader and all builds in time";
        let late = |_| Err(BackendError::Unavailable(late.into()));
        let well = tokio::time::timeout(WELL, well).await.unwrap_or_else(late);
        let nomad = (Dependency::Nomad, Standing::of(well));
        if nomad.1 != Standing::Up {
            return Health::of([nomad]);
        }
        let examined = self.examined.look(&self.core).await;
        Health::of(std::iter::once(nomad).chain(examined))
    }

    fn depot(&self) -> Option<&dyn Depot> {
        self.depot.as_ref().map(|depot| depot as &dyn Depot)
    }

    fn vitals(&self) -> Vitals {
        let traffic = self.core.client.traffic();
        Vitals {
            requests: traffic.requests().to_vec(),
            silence: traffic.silence(),
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::other(error)
    }
}

struct NomadChanges {
    changed: watch::Receiver<u64>,
}

#[async_trait]
impl Changes for NomadChanges {
    async fn next(&mut self, until: Instant) {
        let soon = Instant::now() + COALESCE;
        tokio::select! {
            changed = self.changed.changed() => match changed {
                Ok(()) => tokio::time::sleep_until(soon.min(until)).await,
                // The build was forgotten; whoever looks will find that.
                Err(_) => tokio::time::sleep_until((soon + PATIENCE).min(until)).await,
            },
            () = tokio::time::sleep_until(until) => {}
        }
    }
}
