//! What is to be done for a build, from its record, what the cluster tells, and the time.
//!
//! Pure: one function, asked after each change. Whoever does what it says asks it again.

use crate::build::conclude::Gone;
use crate::build::{BuildId, State};
use crate::config;
use crate::nomad::{AllocStatus, Allocation};

use super::cluster::{self, BUILD, Known, PUBLISH, began, is_done, is_running};
use super::reason::{self, Waits};
use super::stored::Stored;

/// Milliseconds between two signals to a task that does not end.
const SIGNAL_EVERY: i64 = 2_000;
/// Milliseconds for which a build whose job is not seen anywhere may only be late.
const NOT_SEEN: i64 = 30_000;
/// Milliseconds that a runner has for its own deadline before a server enforces it.
const OVERTIME: i64 = 120_000;
/// Milliseconds after which a job is tried again that may not be stopped: rights change.
const REFUSED: i64 = 60_000;
/// Milliseconds that the task which writes the end has for that.
const ARCHIVE: i64 = 15_000;
/// The same for one that writes its tags.
const COMMITTED: i64 = 60_000;
/// Milliseconds that Nomad may take to tell that a job is stopped.
const STOPPING: i64 = 10_000;
/// Milliseconds after the end of a build for which whatever still runs of it may end on its own.
const AFTERMATH: i64 = 5_000;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Claim the build for the allocation that began it, at a time in milliseconds since 1970.
    Begin {
        job: String,
        allocation: String,
        at: i64,
    },
    /// Tell the running task to stop.
    Signal {
        allocation: String,
        task: &'static str,
    },
    /// Stop the job: nothing of it runs yet, or its grace is over, or it is not needed any more.
    Deregister { job: String },
    /// Write the end.
    Finish {
        gone: Gone,
        /// Somebody unknown stopped its job.
        stopped: bool,
    },
    /// Look whether the log was archived without a word in the record.
    FindLog,
    /// Remove the artifact of the inputs.
    RemoveInput,
    /// There is nothing to do for it any more.
    Forget,
}

/// What is to be done now, or when to look again, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Do this.
    Act(Action),
    /// Nothing before this time, unless something changes.
    Wait(i64),
}

/// What was done already and seen, as far as this server knows; times in milliseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// When a signal was sent last.
    pub signalled: Option<i64>,
    /// The job was stopped.
    pub deregistered: bool,
    /// When it was last refused to stop the job.
    pub refused: Option<i64>,
    /// Since when no machine can ever take the build.
    pub never_since: Option<i64>,
    /// Since when both its tasks are over and the last one, which writes its end, is not.
    pub over_since: Option<i64>,
}

/// See the module. `seen` is when this server first saw the record; `never` says why no machine can
/// ever take the build, if that is so.
pub fn decide(
    stored: &Stored,
    known: &Known,
    seen: i64,
    never: Option<&str>,
    done: Done,
    now: i64,
    config: &config::Nomad,
) -> Decision {
    let build = Build {
        stored,
        known,
        seen,
        never,
        done,
        now,
        config,
        allocation: known.allocation(stored.allocation.as_deref()),
    };
    if stored.record.end.is_some() {
        build.after_the_end()
    } else {
        match build.allocation {
            Some(allocation) => build.placed(allocation),
            None => build.unplaced(),
        }
    }
}

struct Build<'a> {
    stored: &'a Stored,
    known: &'a Known,
    seen: i64,
    never: Option<&'a str>,
    done: Done,
    now: i64,
    config: &'a config::Nomad,
    allocation: Option<&'a Allocation>,
}

impl Build<'_> {
    fn finish(&self, gone: Gone) -> Decision {
        Decision::Act(Action::Finish {
            gone,
            stopped: false,
        })
    }

    /// Stops the job, where that can help and was not done.
    fn deregister(&self) -> Option<Decision> {
        let job = self.known.job.as_ref()?;
        let refused = self.done.refused.is_some_and(|at| self.now < at + REFUSED);
        let idle = job.stop || self.done.deregistered || refused;
        (!idle && self.known.gone_since.is_none()).then(|| {
            Decision::Act(Action::Deregister {
                job: job.id.clone(),
            })
        })
    }

    /// Somebody stopped the job: not this server, nor another for a mark.
    fn is_stopped(&self) -> bool {
        if self.now >= self.overtime() {
            return false;
        }
        let stopped = self.known.job.as_ref().is_some_and(|job| job.stop);
        (stopped || self.known.gone_since.is_some()) && self.stored.record.cancel.is_none()
    }

    /// Milliseconds since 1970 at which a server ends a build that goes on after its time.
    fn overtime(&self) -> i64 {
        let record = &self.stored.record;
        let began = record.began.or(self.allocation.and_then(began));
        began.map_or(i64::MAX, |began| {
            began + i64::from(record.timeout) * 1000 + OVERTIME
        })
    }

    fn stopped(&self) -> Decision {
        Decision::Act(Action::Finish {
            gone: Gone::Vanished,
            stopped: true,
        })
    }

    /// Milliseconds since 1970 until which it may wait for capacity.
    fn gives_up(&self) -> i64 {
        let record = &self.stored.record;
        record.submitted + i64::from(record.queue_timeout) * 1000
    }

    fn unplaced(&self) -> Decision {
        let record = &self.stored.record;
        if record.cancel.is_some() {
            return self.deregister().unwrap_or_else(|| self.marked_in_time());
        }
        if self.stored.allocation.is_some() {
            // It had begun, and its allocation was collected before its end was written.
            return self.finish(Gone::Displaced("its allocation is gone".into()));
        }
        if self.is_stopped() {
            return self.stopped();
        }
        if self.now >= self.gives_up() {
            return self.finish(Gone::QueueTimedOut);
        }
        let Some(job) = &self.known.job else {
            let late = self.seen + NOT_SEEN;
            return if self.now >= late {
                self.finish(Gone::NeverBegan)
            } else {
                Decision::Wait(late)
            };
        };
        if job.status == "dead" {
            return self.finish(Gone::NeverBegan);
        }
        let mut next = self.gives_up();
        if let (Some(never), Some(since)) = (self.never, self.done.never_since) {
            let until = since + i64::from(self.config.unplaceable_after) * 1000;
            if self.now >= until {
                return self.finish(Gone::Unplaceable(never.to_owned()));
            }
            next = next.min(until);
        }
        Decision::Wait(next)
    }

    /// A build that was marked while it waited ends when Nomad says that its job is stopped: what
    /// was placed before that is known by then.
    fn marked_in_time(&self) -> Decision {
        let marked = self.stored.record.cancel.as_ref().map_or(0, |mark| mark.at);
        let job = self.known.job.as_ref();
        let stops = self.done.deregistered && job.is_some_and(|job| !job.is_over());
        if stops && self.now < marked + STOPPING {
            Decision::Wait(marked + STOPPING)
        } else {
            self.finish(Gone::Exited)
        }
    }

    fn placed(&self, allocation: &Allocation) -> Decision {
        if self.stored.allocation.is_none()
            && let (Some(at), Some(job)) = (began(allocation), &self.known.job)
        {
            return Decision::Act(Action::Begin {
                job: job.id.clone(),
                allocation: allocation.id.clone(),
                at,
            });
        }
        if let Some(since) = self.known.gone_since {
            return self.purged(since);
        }
        let silent = self
            .done
            .over_since
            .is_some_and(|at| self.now >= at + ARCHIVE);
        // Of one that never began, the last task has nothing to tell.
        let unheard = cluster::task(allocation, BUILD)
            .is_some_and(|task| task.is_dead() && !task.has_started());
        if is_done(allocation) || silent || unheard {
            return if self.is_stopped() {
                self.stopped()
            } else if self.now >= self.overtime() {
                self.finish(Gone::Overtime)
            } else {
                self.finish(gone(allocation))
            };
        }
        if self.stored.record.cancel.is_some() {
            return self.kill(allocation);
        }
        if allocation.client_status == AllocStatus::Unknown {
            let since = self.known.unreachable_since.unwrap_or(self.now);
            let until = since + i64::from(self.config.lost_after) * 1000;
            return if self.now >= until {
                self.finish(Gone::Displaced("its machine does not answer".into()))
            } else {
                Decision::Wait(until)
            };
        }
        let secrets = waits_for_secrets(allocation);
        let within = self.config.secrets_within;
        let enough = |waits: &Waits| waits.since + i64::from(within) * 1000;
        if let Some(waits) = secrets.as_ref().filter(|waits| self.now >= enough(waits)) {
            return self.finish(Gone::NotStarted(reason::no_secrets(waits, within)));
        }
        let secrets = secrets.as_ref().map_or(i64::MAX, enough);
        let record = &self.stored.record;
        let archive = self.done.over_since.map_or(i64::MAX, |at| at + ARCHIVE);
        let soon = archive.min(secrets);
        if record.began.or(began(allocation)).is_none() {
            return if self.now >= self.gives_up() {
                self.finish(Gone::QueueTimedOut)
            } else {
                Decision::Wait(self.gives_up().min(soon))
            };
        }
        let until = self.overtime();
        if self.now < until {
            return Decision::Wait(until.min(soon));
        }
        self.deregister().unwrap_or_else(|| {
            // Its tasks have their time to stop, and to say what they did.
            if self.now < until + COMMITTED {
                Decision::Wait(until + COMMITTED)
            } else {
                self.finish(Gone::Overtime)
            }
        })
    }

    /// The job was purged under a build that runs. Its client stops it, and nobody tells when: it has
    /// a while to write its end itself, a longer one where tags are being written.
    fn purged(&self, since: i64) -> Decision {
        let committed = self.stored.record.commit.is_some();
        let until = since + if committed { COMMITTED } else { AFTERMATH };
        match (self.now < until, self.is_stopped()) {
            (true, _) => Decision::Wait(until),
            (false, true) => self.stopped(),
            (false, false) => self.finish(Gone::Vanished),
        }
    }

    /// A marked build is told to stop until it does.
    fn kill(&self, allocation: &Allocation) -> Decision {
        let marked = self.stored.record.cancel.as_ref().map_or(0, |mark| mark.at);
        let grace = marked + i64::from(self.config.kill_grace) * 1000;
        if self.now >= grace {
            return self.deregister().unwrap_or_else(|| {
                // Its machine may never answer again; and the mark keeps it from publishing.
                let last = grace + i64::from(self.config.kill_grace) * 1000;
                if self.now >= last {
                    self.finish(Gone::Overtime)
                } else {
                    Decision::Wait(last)
                }
            });
        }
        let running = [BUILD, PUBLISH]
            .into_iter()
            .find(|task| is_running(allocation, task));
        match running {
            Some(task) => {
                let again = self.done.signalled.map_or(0, |at| at + SIGNAL_EVERY);
                if self.now >= again {
                    Decision::Act(Action::Signal {
                        allocation: allocation.id.clone(),
                        task,
                    })
                } else {
                    Decision::Wait(again)
                }
            }
            // Between two tasks, or before the first: then nothing runs that could be told.
            None if began(allocation).is_none() => {
                self.deregister().unwrap_or(Decision::Wait(grace))
            }
            None => Decision::Wait(grace),
        }
    }

    fn after_the_end(&self) -> Decision {
        let record = &self.stored.record;
        let at = record.end.as_ref().map_or(0, |end| end.at);
        let told = self.known.gone_since.is_none();
        let running = told && self.known.allocations.values().any(|one| !is_done(one));
        let pending = self
            .known
            .job
            .as_ref()
            .is_some_and(|job| !job.is_over() && self.known.gone_since.is_none());
        let archiving = self.allocation.is_some_and(cluster::is_archiving);
        // What waits, or was begun again elsewhere, is not needed any more.
        if pending && !archiving {
            if self.now < at + AFTERMATH && self.allocation.is_some() {
                return Decision::Wait(at + AFTERMATH);
            }
            if let Some(decision) = self.deregister() {
                return decision;
            }
        }
        if running && self.now < at + i64::from(self.config.lost_after) * 1000 {
            return Decision::Wait(at + i64::from(self.config.lost_after) * 1000);
        }
        if self.stored.log.is_none() && self.stored.allocation.is_some() {
            return Decision::Act(Action::FindLog);
        }
        if self.stored.input.is_some() {
            return Decision::Act(Action::RemoveInput);
        }
        Decision::Act(Action::Forget)
    }
}

/// Whether the task whose turn it is waits for its secrets.
pub fn waits_for_secrets(allocation: &Allocation) -> Option<Waits> {
    let build = cluster::task(allocation, BUILD)?;
    let whose = if build.is_dead() {
        cluster::task(allocation, PUBLISH)?
    } else {
        build
    };
    reason::waits_for_secrets(whose)
}

/// What the end of an allocation means where its log does not say.
fn gone(allocation: &Allocation) -> Gone {
    let migrates = allocation
        .desired_transition
        .as_ref()
        .is_some_and(|transition| transition.migrate == Some(true));
    if !allocation.preempted_by_allocation.is_empty() || allocation.desired_status == "evict" {
        return Gone::Displaced("it had to make room for a more important job".into());
    }
    if migrates {
        return Gone::Displaced("its machine was drained".into());
    }
    if allocation.client_status == AllocStatus::Lost {
        return Gone::Displaced("its machine is gone".into());
    }
    if allocation
        .task_states
        .values()
        .any(crate::nomad::TaskState::is_out_of_memory)
    {
        return Gone::Starved;
    }
    match cluster::task(allocation, BUILD) {
        Some(task) if !task.has_started() => Gone::NotStarted(reason::not_started(task)),
        _ => reason::stopped(allocation).map_or(Gone::Vanished, Gone::Displaced),
    }
}

/// Whether a build of this record waits: it has neither begun nor ended.
pub fn waits(stored: &Stored, known: &Known) -> bool {
    let began = known
        .allocation(stored.allocation.as_deref())
        .and_then(began);
    stored.record.state() == State::Queued && began.is_none()
}

/// How many builds of the same profile wait before this one.
pub fn ahead<'a>(
    stored: &Stored,
    others: impl Iterator<Item = (&'a BuildId, &'a Stored, &'a Known)>,
) -> usize {
    let own = (stored.record.submitted, &stored.record.id);
    others
        .filter(|(id, other, known)| {
            (other.record.submitted, *id) < own
                && other.record.profile == stored.record.profile
                && waits(other, known)
        })
        .count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::backend::nomad::cluster::ChildJob;
    use crate::backend::nomad::stored::{ArchivedLog, tests::stored};
    use crate::build::{record::CancelMark, samples::end};

    const JOB: &str = "p/dispatch-x";
    const BEGAN: i64 = 1_000_000;

    fn job(stop: bool, status: &str) -> Option<ChildJob> {
        Some(ChildJob {
            id: JOB.into(),
            status: status.into(),
            stop,
            index: 5,
        })
    }

    /// A build whose tasks stand so: `-` has not begun, `r` runs, `d` has ended.
    fn allocation(tasks: &str, status: &str) -> Allocation {
        let states: serde_json::Map<String, serde_json::Value> = ["build", "publish", "archive"]
            .into_iter()
            .zip(tasks.chars())
            .map(|(name, state)| {
                let began = jiff::Timestamp::from_millisecond(BEGAN)
                    .unwrap()
                    .to_string();
                let task = match state {
                    '-' => json!({"State": "pending"}),
                    'r' => json!({"State": "running", "StartedAt": began}),
                    'n' => json!({"State": "dead"}),
                    _ => json!({"State": "dead", "StartedAt": began}),
                };
                (name.to_owned(), task)
            })
            .collect();
        serde_json::from_value(json!({"ID": "a", "JobID": JOB, "ClientStatus": status,
            "DesiredStatus": "run", "TaskStates": states, "ModifyIndex": 9}))
        .unwrap()
    }

    fn known(allocation: Option<Allocation>) -> Known {
        let mut known = Known {
            job: job(false, "running"),
            ..Known::default()
        };
        if let Some(allocation) = allocation {
            known.take_allocation(allocation, BEGAN);
        }
        known
    }

    #[test]
    fn a_build_that_never_began_waits_for_no_last_word() {
        let never = known(Some(allocation("n--", "pending")));
        let Decision::Act(Action::Finish { gone, .. }) =
            act(&stored(), &never, Done::default(), BEGAN)
        else {
            panic!("it waits");
        };
        assert!(matches!(gone, Gone::NotStarted(_)), "{gone:?}");
    }

    #[test]
    fn secrets_that_never_come_end_a_build() {
        let mut waiting = allocation("---", "pending");
        let event =
            json!({"Type": "Template", "Time": BEGAN * 1_000_000, "DisplayMessage": "Missing: x"});
        let event: crate::nomad::TaskEvent = serde_json::from_value(event).unwrap();
        let task = waiting.task_states.get_mut("build").unwrap();
        task.events = vec![event.clone()];
        let mut stored = stored();
        stored.record.submitted = BEGAN;
        let within = i64::from(config::Nomad::default().secrets_within) * 1000;
        let known_as = known(Some(waiting));
        let at = |now| act(&stored, &known_as, Done::default(), now);
        assert_eq!(at(BEGAN + 1), Decision::Wait(BEGAN + within));
        let text = "its task was not started within 120 s: Missing: x";
        let end = Decision::Act(Action::Finish {
            gone: Gone::NotStarted(text.into()),
            stopped: false,
        });
        assert_eq!(at(BEGAN + within), end);
        // The same before the push.
        let mut before_push = allocation("d--", "pending");
        before_push.task_states.get_mut("publish").unwrap().events = vec![event];
        let known_as = known(Some(before_push));
        assert_eq!(
            act(&begun(), &known_as, Done::default(), BEGAN + within),
            end
        );
    }

    fn begun() -> Stored {
        let mut stored = stored();
        stored.begin(JOB, "a", BEGAN);
        stored
    }

    fn marked(mut stored: Stored, at: i64) -> Stored {
        stored.record.request_cancel(CancelMark {
            by: "me".into(),
            reason: None,
            at,
        });
        stored
    }

    fn act(stored: &Stored, known: &Known, done: Done, now: i64) -> Decision {
        decide(
            stored,
            known,
            BEGAN,
            None,
            done,
            now,
            &config::Nomad::default(),
        )
    }

    fn finish(gone: Gone, stopped: bool) -> Decision {
        Decision::Act(Action::Finish { gone, stopped })
    }

    #[test]
    fn a_build_is_claimed_for_the_allocation_that_began_it() {
        let running = known(Some(allocation("r--", "running")));
        let begin = Action::Begin {
            job: JOB.into(),
            allocation: "a".into(),
            at: BEGAN,
        };
        assert_eq!(
            act(&stored(), &running, Done::default(), BEGAN),
            Decision::Act(begin)
        );
        let waits = act(&begun(), &running, Done::default(), BEGAN);
        assert!(
            matches!(waits, Decision::Wait(until) if until > BEGAN),
            "{waits:?}"
        );
    }

    #[test]
    fn the_end_is_written_when_nothing_runs_any_more() {
        let now = BEGAN + 1000;
        // A failed task makes the allocation failed while the archive still runs.
        let archiving = known(Some(allocation("dnr", "failed")));
        assert!(matches!(
            act(&begun(), &archiving, Done::default(), now),
            Decision::Wait(_)
        ));
        let over = known(Some(allocation("dnd", "failed")));
        assert_eq!(
            act(&begun(), &over, Done::default(), now),
            finish(Gone::Vanished, false)
        );
        let lost = known(Some(allocation("r--", "lost")));
        let gone = Gone::Displaced("its machine is gone".into());
        assert_eq!(
            act(&begun(), &lost, Done::default(), now),
            finish(gone, false)
        );
        let mut stopped = over;
        stopped.job = job(true, "dead");
        assert_eq!(
            act(&begun(), &stopped, Done::default(), now),
            finish(Gone::Vanished, true)
        );
        // By whoever set the mark, then.
        let marked = marked(begun(), now);
        assert_eq!(
            act(&marked, &stopped, Done::default(), now),
            finish(Gone::Vanished, false)
        );
    }

    #[test]
    fn a_marked_build_is_told_until_it_stops_then_its_job_is_stopped() {
        let running = known(Some(allocation("dr-", "running")));
        let running_one = marked(begun(), BEGAN);
        let signal = Decision::Act(Action::Signal {
            allocation: "a".into(),
            task: PUBLISH,
        });
        assert_eq!(act(&running_one, &running, Done::default(), BEGAN), signal);
        let told = Done {
            signalled: Some(BEGAN),
            ..Done::default()
        };
        assert_eq!(
            act(&running_one, &running, told, BEGAN + 1),
            Decision::Wait(BEGAN + SIGNAL_EVERY)
        );
        assert_eq!(
            act(&running_one, &running, told, BEGAN + SIGNAL_EVERY),
            signal
        );
        let deregister = Decision::Act(Action::Deregister { job: JOB.into() });
        assert_eq!(
            act(&running_one, &running, told, BEGAN + 60_000),
            deregister
        );
        // Before anything of it runs, at once.
        let waiting = marked(stored(), BEGAN);
        assert_eq!(
            act(&waiting, &known(None), Done::default(), BEGAN),
            deregister
        );
        let done = Done {
            deregistered: true,
            ..Done::default()
        };
        let mut known = known(None);
        assert_eq!(
            act(&waiting, &known, done, BEGAN),
            Decision::Wait(BEGAN + STOPPING)
        );
        known.job = job(true, "dead");
        assert_eq!(
            act(&waiting, &known, done, BEGAN),
            finish(Gone::Exited, false)
        );
    }

    #[test]
    fn queues_end() {
        let mut waiting = stored();
        waiting.record.submitted = BEGAN;
        let gives_up = BEGAN + i64::from(waiting.record.queue_timeout) * 1000;
        let queued = known(None);
        assert_eq!(
            act(&waiting, &queued, Done::default(), BEGAN),
            Decision::Wait(gives_up)
        );
        assert_eq!(
            act(&waiting, &queued, Done::default(), gives_up),
            finish(Gone::QueueTimedOut, false)
        );
        let config = config::Nomad::default();
        let until = BEGAN + i64::from(config.unplaceable_after) * 1000;
        let done = Done {
            never_since: Some(BEGAN),
            ..Done::default()
        };
        let never = |now| decide(&waiting, &queued, BEGAN, Some("no"), done, now, &config);
        assert_eq!(never(BEGAN), Decision::Wait(until));
        assert_eq!(never(until), finish(Gone::Unplaceable("no".into()), false));
        // Placed, and never started: the same.
        let starting = known(Some(allocation("---", "pending")));
        assert_eq!(
            act(&waiting, &starting, Done::default(), gives_up),
            finish(Gone::QueueTimedOut, false)
        );
    }

    #[test]
    fn what_is_not_needed_any_more_is_removed_once() {
        let mut ended = begun();
        ended.record.end = Some(end(State::Lost));
        ended.input = Some("r.example/x@sha256:00".into());
        ended.log = Some(ArchivedLog {
            artifact: None,
            lines: 0,
            missing: None,
        });
        let over = known(Some(allocation("ddd", "complete")));
        let mut dead = over.clone();
        dead.job = job(false, "dead");
        assert_eq!(
            act(&ended, &dead, Done::default(), BEGAN),
            Decision::Act(Action::RemoveInput)
        );
        ended.input = None;
        assert_eq!(
            act(&ended, &dead, Done::default(), BEGAN),
            Decision::Act(Action::Forget)
        );
        // Nomad would place it anew.
        let mut again = known(Some(allocation("r--", "lost")));
        again.job = job(false, "pending");
        let decision = act(&ended, &again, Done::default(), BEGAN);
        assert_eq!(
            decision,
            Decision::Act(Action::Deregister { job: JOB.into() })
        );
    }

    fn any_known() -> impl Strategy<Value = Known> {
        const ALLOCATIONS: &[&str] = &["---", "r--", "dr-", "ddr", "ddd", "dnd", "nnd"];
        const STATUSES: &[&str] = &[
            "pending", "running", "complete", "failed", "lost", "unknown",
        ];
        let placed = prop::option::of((
            prop::sample::select(ALLOCATIONS),
            prop::sample::select(STATUSES),
        ));
        (
            placed,
            any::<bool>(),
            prop::sample::select(&["pending", "running", "dead"] as &[_]),
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(|(placed, stop, status, seen, gone)| {
                let mut known = known(placed.map(|(tasks, status)| allocation(tasks, status)));
                known.job = if seen { job(stop, status) } else { None };
                known.gone_since = gone.then_some(BEGAN);
                known
            })
    }

    proptest! {
        /// Whatever the cluster tells: doing what is said, and letting time pass, comes to an end, and
        /// the same is never said twice in a row without something having changed.
        #[test]
        fn it_comes_to_an_end(known in any_known(), began: bool, mark: bool, commit: bool, may_not: bool) {
            let mut stored = if began { begun() } else { stored() };
            if commit { stored.record.request_commit(BEGAN); }
            if mark { stored = marked(stored, BEGAN); }
            let mut done = Done { refused: may_not.then_some(BEGAN), ..Done::default() };
            let mut now = BEGAN;
            let mut last = None;
            for _ in 0..10_000 {
                let decision = act(&stored, &known, done, now);
                let same = last.as_ref() == Some(&decision);
                match &decision {
                    Decision::Wait(until) => {
                        prop_assert!(*until > now, "{decision:?} at {now}");
                        now = *until;
                    }
                    Decision::Act(action) => {
                        prop_assert!(!same, "{decision:?} again, at {now}");
                        match action {
                            Action::Begin { job, allocation, at } => { stored.begin(job, allocation, *at); }
                            Action::Signal { .. } => done.signalled = Some(now),
                            Action::Deregister { .. } => done.deregistered = true,
                            Action::Finish { .. } => {
                                prop_assert!(stored.record.end.is_none());
                                let mut end = end(State::Lost);
                                end.at = now;
                                stored.record.finish(end);
                            }
                            Action::FindLog => stored.log = Some(ArchivedLog { artifact: None, lines: 0, missing: None }),
                            Action::RemoveInput => stored.input = None,
                            Action::Forget => {
                                prop_assert!(stored.record.end.is_some());
                                return Ok(());
                            }
                        }
                    }
                }
                last = Some(decision);
            }
            prop_assert!(false, "it goes on for ever");
        }
    }
}
