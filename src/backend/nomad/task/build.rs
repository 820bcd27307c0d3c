//! The prestart task: source, build and test, as an unprivileged user.

use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::backend::local::user::{Lease, Users};
use crate::backend::local::workshop::{Part, StopWanted, Workshop};
use crate::backend::local::{queue, reap, sweep};
use crate::build::BuildId;
use crate::config::Config;
use crate::runner::phases::now_seconds;
use crate::runner::workdir::write_json;
use crate::runner::{WorkDir, entry, exit};

use super::super::store::{self, StoreError};
use super::passed_on::PassedOn;
use super::{Place, for_plan, make_dir, refuse, unless_told};

/// How often a task without an account of its own looks for one.
const TICK: Duration = Duration::from_millis(500);

/// Told once, by a signal.
struct Told {
    cancel: CancellationToken,
    told: bool,
}

#[async_trait]
impl StopWanted for Told {
    async fn wanted(&mut self) {
        if self.told {
            std::future::pending::<()>().await;
        }
        self.cancel.cancelled().await;
        self.told = true;
    }
}

/// Runs the task; returns its exit status.
///
/// # Errors
/// When it cannot even begin, or say so.
pub async fn run(config: Config) -> io::Result<u8> {
    let cancel = entry::stop_signal()?;
    let place = Place::of_this_task()?;
    let payload = place.payload()?;
    if !is_ours(&place, &payload.build_id).await {
        return Ok(exit::INTERRUPTED);
    }
    let dir = place.dir();
    // It is there already when this allocation has begun before: never twice.
    make_dir(dir.root())?;
    let context = dir.context();
    let unpack = place.unpack(payload, &config, Some(&context));
    let plan = match unless_told(&cancel, unpack).await {
        None => return Ok(exit::INTERRUPTED),
        Some(Err(error)) => return refuse(0, None, &error),
        Some(Ok(plan)) => plan,
    };
    write_json(&dir.plan(), &plan)?;
    let config = for_plan(config, &plan);
    let workshop = Workshop::new(config, dir, plan, PassedOn::default())?;
    let mut build = Build {
        place,
        workshop,
        cancel,
    };
    build.run().await
}

/// Whether this allocation may begin the build.
async fn is_ours(place: &Place, id: &BuildId) -> bool {
    match store::read(&place.nomad, id).await {
        Ok(there) => {
            let stored = there.stored;
            let over = stored.record.end.is_some() || stored.record.cancel.is_some();
            if over || !stored.is_for(&place.allocation) {
                tracing::warn!("the build is marked, over, or begun elsewhere");
                return false;
            }
            true
        }
        Err(StoreError::NotFound(_)) => {
            tracing::warn!("the build has no record any more");
            false
        }
        // Publish asks again, and fails closed.
        Err(error) => {
            tracing::warn!(%error, "the record of the build cannot be read");
            true
        }
    }
}

struct Build {
    place: Place,
    workshop: Workshop<PassedOn>,
    cancel: CancellationToken,
}

impl Build {
    async fn run(&mut self) -> io::Result<u8> {
        let lease = match self.lease().await {
            Ok(Some(lease)) => lease,
            Ok(None) => return Ok(exit::INTERRUPTED),
            Err(error) => {
                self.workshop.fail(&error);
                return Ok(exit::FAILED);
            }
        };
        let mut stop = Told {
            cancel: self.cancel.clone(),
            told: false,
        };
        let end = self.workshop.end();
        let part = self.workshop.build(&lease.user, end, &mut stop).await;
        let status = match part {
            Ok(part) => self.status(part),
            Err(error) => {
                self.workshop.fail(&error);
                exit::FAILED
            }
        };
        let status = self.put_away(&lease, status).await;
        self.sweep(&lease);
        Ok(status)
    }

    /// A user that no other build on this client has at the same time.
    async fn lease(&self) -> io::Result<Option<Lease>> {
        let (layout, plan) = (&self.workshop.layout, &self.workshop.plan);
        layout.prepare()?;
        let users = Users::open(&self.workshop.config)?;
        users.check_way(self.workshop.dir.root())?;
        // A task ends when it has tidied up.
        let warm = queue::warm(layout, &plan.scopes, false);
        loop {
            if let Ok(lease) = users.take(&warm, 0)? {
                return Ok(Some(lease));
            }
            if now_seconds() >= plan.latest_end() {
                return Err(io::Error::other(
                    "all accounts that builds run as were taken on this client; `nomad-build setup --users N` makes more",
                ));
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.cancel.cancelled() => return Ok(None),
            }
        }
    }

    fn status(&self, part: Part) -> u8 {
        let said = [
            exit::PASSED,
            exit::FAILED,
            exit::TIMED_OUT,
            exit::INTERRUPTED,
        ];
        if let Some(status) = said.into_iter().find(|status| part.is(*status)) {
            return status;
        }
        // The end of the task says the rest; a status of its own must not.
        if let Part::Status(status) = part {
            self.workshop.fail(&io::Error::other(format!(
                "the runner ended with status {status} before it could report; see the task's stderr"
            )));
        }
        exit::FAILED
    }

    /// Leaves nothing of the build but its packed image, where that is to be published, and what is handed over.
    async fn put_away(&mut self, lease: &Lease, status: u8) -> u8 {
        reap::reap(&self.workshop.plan.build_id).await;
        self.workshop.let_go_of_secrets();
        if let Err(error) = lease.clear() {
            tracing::error!(%error, "something of the build runs on");
        }
        let wanted = status == exit::PASSED && !self.workshop.plan.tags.is_empty();
        let kept = if wanted { self.keep_image() } else { Ok(()) };
        let outputs = self.place.outputs();
        tokio::task::block_in_place(|| self.workshop.take_outputs(&outputs));
        let workshop = &self.workshop;
        let (program, dir, id) = (&workshop.program, &workshop.dir, &workshop.plan.build_id);
        if let Err(error) = reap::remove_work(program, dir, id) {
            tracing::error!(%error, "the work directory cannot be removed");
        }
        match kept {
            Ok(()) => status,
            Err(error) => {
                self.workshop.fail(&error);
                exit::FAILED
            }
        }
    }

    /// Moves the packed image to where the user that built it cannot change it any more.
    fn keep_image(&self) -> io::Result<()> {
        let packed = WorkDir::new(self.place.packed());
        let (from, to) = (
            WorkDir::new(self.workshop.dir.work()).layout(),
            packed.layout(),
        );
        make_dir(packed.root())?;
        let parent = to.parent().unwrap_or(packed.root());
        fs::create_dir_all(parent)?;
        fs::rename(from, &to)?;
        own(&to)
    }

    /// Nobody waits for it, but no other build may run as this user meanwhile.
    fn sweep(&self, lease: &Lease) {
        let workshop = &self.workshop;
        let cache = workshop.layout.cache(&lease.user.name);
        tokio::task::block_in_place(|| {
            sweep::sweep(&cache, &workshop.config, &lease.user, &workshop.program);
            workshop.sweep_blobs();
        });
    }
}

/// Gives a tree to this process's user; links are given, not followed.
fn own(path: &Path) -> io::Result<()> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    lchown(path, Some(uid), Some(gid))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path())?;
        }
    }
    Ok(())
}
