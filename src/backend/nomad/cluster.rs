//! What the cluster tells of one build's job: merged from events and lists, newest first.
//!
//! Pure. Events may come twice, and a list may be older than the event before it: what has a lower
//! index than what is known is ignored.

use std::collections::BTreeMap;

use crate::build::BuildId;
use crate::nomad::{AllocStatus, Allocation, Evaluation, Job, JobStub, TaskState};

/// The tasks of a build's job; the job files of `nomad/` name them so.
pub const BUILD: &str = "build";
/// See [`BUILD`].
pub const PUBLISH: &str = "publish";
/// See [`BUILD`].
pub const ARCHIVE: &str = "archive";

/// The build of a child job, whose id is `JOB/dispatch-BUILD-TIME-RANDOM`.
pub fn build_of(job: &str) -> Option<BuildId> {
    let (_, child) = job.split_once("/dispatch-")?;
    child.get(..11)?.parse().ok()
}

/// A child job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChildJob {
    /// Its id.
    pub id: String,
    /// `pending`, `running` or `dead`.
    pub status: String,
    /// Somebody stopped it.
    pub stop: bool,
    /// Index of its last change.
    pub index: u64,
}

impl ChildJob {
    /// Whether Nomad places nothing of it any more.
    pub fn is_over(&self) -> bool {
        self.stop || self.status == "dead"
    }
}

impl From<&Job> for ChildJob {
    fn from(job: &Job) -> Self {
        Self {
            id: job.id.clone(),
            status: job.status.clone(),
            stop: job.stop,
            index: job.modify_index,
        }
    }
}

impl From<&JobStub> for ChildJob {
    fn from(job: &JobStub) -> Self {
        Self {
            id: job.id.clone(),
            status: job.status.clone(),
            stop: job.stop,
            index: job.modify_index,
        }
    }
}

/// Everything the cluster tells of one build.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// The child job, as soon as it is known.
    pub job: Option<ChildJob>,
    /// When it was seen that the job is not there any more, in milliseconds since 1970: somebody
    /// purged it, or Nomad collected it. No event tells of its allocations then.
    pub gone_since: Option<i64>,
    /// Its allocations by their ids; there is more than one only where Nomad replaced one.
    pub allocations: BTreeMap<String, Allocation>,
    /// The evaluation that could not place it, while it waits.
    pub blocked: Option<Evaluation>,
    /// When its allocation was first seen to be out of reach, in milliseconds since 1970.
    pub unreachable_since: Option<i64>,
    /// Nomad has collected its allocation, or that node what the allocation wrote: no event tells of
    /// that, it was found by whoever asked for it.
    pub log_collected: bool,
}

impl Known {
    /// Takes a job in; `false`: nothing new.
    pub fn take_job(&mut self, job: ChildJob) -> bool {
        match &self.job {
            // Two jobs for one build: the first that was known counts (run once).
            Some(known) if known.id != job.id || known.index >= job.index => false,
            _ => {
                self.job = Some(job);
                self.gone_since = None;
                true
            }
        }
    }

    /// The job was purged or collected, as is seen at `now`; `false`: nothing new.
    pub fn lose_job(&mut self, now: i64) -> bool {
        let news = self.gone_since.is_none();
        self.gone_since.get_or_insert(now);
        news
    }

    /// Its log is not with its allocation any more; `false`: nothing new.
    pub fn lose_log(&mut self) -> bool {
        !std::mem::replace(&mut self.log_collected, true)
    }

    /// Takes an allocation in, as it is at `now`; `false`: nothing new.
    pub fn take_allocation(&mut self, allocation: Allocation, now: i64) -> bool {
        let known = self.allocations.get(&allocation.id);
        if known.is_some_and(|known| known.modify_index >= allocation.modify_index) {
            return false;
        }
        if allocation.client_status == AllocStatus::Unknown {
            self.unreachable_since.get_or_insert(now);
        } else {
            self.unreachable_since = None;
        }
        self.blocked = None;
        self.allocations.insert(allocation.id.clone(), allocation);
        true
    }

    /// Whatever comes next is newer, whatever its index.
    pub fn restart(&mut self) {
        if let Some(job) = &mut self.job {
            job.index = 0;
        }
        for allocation in self.allocations.values_mut() {
            allocation.modify_index = 0;
        }
        self.log_collected = false;
    }

    /// Takes an evaluation in; `false`: nothing new.
    pub fn take_evaluation(&mut self, evaluation: Evaluation) -> bool {
        let older = |known: &Evaluation| known.modify_index >= evaluation.modify_index;
        if self.blocked.as_ref().is_some_and(older) || !self.allocations.is_empty() {
            return false;
        }
        if evaluation.failed.is_empty() {
            return false;
        }
        self.blocked = Some(evaluation);
        true
    }

    /// The allocation that counts: the one that began the build, else the newest.
    pub fn allocation(&self, began: Option<&str>) -> Option<&Allocation> {
        match began {
            Some(id) => self.allocations.get(id),
            None => {
                let all = self.allocations.values();
                all.max_by_key(|allocation| allocation.create_index)
            }
        }
    }
}

/// A task's state; a task that has not been told of has not begun.
pub fn task<'a>(allocation: &'a Allocation, name: &str) -> Option<&'a TaskState> {
    allocation.task_states.get(name)
}

/// Whether a task runs now.
pub fn is_running(allocation: &Allocation, name: &str) -> bool {
    task(allocation, name).is_some_and(|task| task.has_started() && !task.is_dead())
}

/// Whether a task has ended, or will never begin.
pub fn is_over(allocation: &Allocation, name: &str) -> bool {
    task(allocation, name).is_some_and(TaskState::is_dead) || is_done(allocation)
}

/// Whether nothing of an allocation runs, and nothing will.
///
/// Its status alone does not tell: it is `failed` as soon as one task is, while `archive` still runs.
pub fn is_done(allocation: &Allocation) -> bool {
    let tasks = &allocation.task_states;
    let all_dead = tasks.values().all(TaskState::is_dead);
    allocation.client_status.is_terminal()
        && (all_dead || allocation.client_status == AllocStatus::Lost)
}

/// Whether its last task alone is not over.
pub fn is_archiving(allocation: &Allocation) -> bool {
    !is_done(allocation) && is_over(allocation, BUILD) && is_over(allocation, PUBLISH)
}

/// When a build began, in milliseconds since 1970, if it did.
pub fn began(allocation: &Allocation) -> Option<i64> {
    let started = task(allocation, BUILD)?.started_at.as_deref()?;
    let time: jiff::Timestamp = started.parse().ok()?;
    Some(time.as_millisecond()).filter(|at| *at > 0)
}
