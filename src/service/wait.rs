//! Waiting for a build, without ever holding a caller longer than it allowed.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::{Changes, View};
use crate::build::State;
use crate::build::request::Until;

use super::{Service, ToolError};

/// How a caller waits.
pub struct Waiting<'a> {
    /// What ends the waiting, never the build.
    pub gone: Patience,
    /// Hears how things stand, at least every few seconds.
    pub tell: &'a mut (dyn FnMut(&View) + Send),
}

/// Who may be gone while a call waits.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    /// Fires when the caller is gone.
    pub caller: CancellationToken,
    /// Fires when the server ends.
    pub server: CancellationToken,
}

impl Patience {
    /// Whether one of them is gone.
    pub fn is_cancelled(&self) -> bool {
        self.caller.is_cancelled() || self.server.is_cancelled()
    }

    /// Returns when one of them is gone.
    pub async fn cancelled(&self) {
        tokio::select! {
            () = self.caller.cancelled() => {}
            () = self.server.cancelled() => {}
        }
    }
}

/// Changes of a build that are watched from the first wait on: a watch costs a thread, and most calls find an end.
pub struct Watched<F> {
    begin: F,
    changes: Option<Box<dyn Changes>>,
}

impl<F: Fn() -> Box<dyn Changes>> Watched<F> {
    /// Watches nothing yet.
    pub fn new(begin: F) -> Self {
        Self {
            begin,
            changes: None,
        }
    }

    /// Returns after a change since the last call, at `until`, when somebody is gone, or for no reason.
    pub async fn next(&mut self, until: Instant, gone: &Patience) {
        let Some(changes) = &mut self.changes else {
            self.changes = Some((self.begin)());
            // What changed before this is not told: it is to be looked at once more.
            return;
        };
        tokio::select! {
            () = changes.next(until) => {}
            () = gone.cancelled() => {}
        }
    }
}

/// What making and sending the answer may take.
const MARGIN: Duration = Duration::from_millis(500);
/// How often a waiting caller hears something when nothing changes.
const TELL_EVERY: Duration = Duration::from_secs(5);

impl Service {
    /// When a call that begins now and may wait `seconds` must answer: a little earlier, so that the
    /// answer is there in time.
    pub fn deadline(&self, seconds: u32) -> Instant {
        let wait = Duration::from_secs(seconds.min(self.max_wait()).into());
        Instant::now() + wait.saturating_sub(MARGIN)
    }

    /// Waits with a build that was looked at until what is asked for, or the deadline.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn wait(
        &self,
        first: View,
        until: Until,
        deadline: Instant,
        waiting: &mut Waiting<'_>,
    ) -> Result<View, ToolError> {
        let id = &first.record.id;
        let mut changes = Watched::new(|| self.backend.watch(id));
        let mut view = first.clone();
        let mut told = Instant::now();
        while !reached(&first, &view, until)
            && Instant::now() < deadline
            && !waiting.gone.is_cancelled()
        {
            let soon = deadline.min(told + TELL_EVERY);
            changes.next(soon, &waiting.gone).await;
            let next = self.backend.look(id).await?;
            if mark(&next) != mark(&view) || told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                (waiting.tell)(&next);
            }
            view = next;
        }
        Ok(view)
    }
}

fn reached(first: &View, now: &View, until: Until) -> bool {
    let state = now.state();
    state.is_final()
        || match until {
            Until::Finished => false,
            Until::Started => state != State::Queued,
            Until::Change => mark(first) != mark(now),
        }
}

/// What counts as a change: state, phase, step, test, the wish for an end.
fn mark(view: &View) -> (State, u64, bool) {
    (
        view.state(),
        view.progress.generation,
        view.record.cancel.is_some(),
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use async_trait::async_trait;

    use super::*;

    struct Never;

    #[async_trait]
    impl Changes for Never {
        async fn next(&mut self, until: Instant) {
            tokio::time::sleep_until(until).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_begins_with_the_first_wait_and_what_came_before_is_looked_at() {
        let begun = Cell::new(0);
        let mut changes = Watched::new(|| {
            begun.set(begun.get() + 1);
            Box::new(Never) as Box<dyn Changes>
        });
        assert_eq!(begun.get(), 0);
        let (start, gone) = (Instant::now(), Patience::default());
        let until = start + Duration::from_secs(5);
        changes.next(until, &gone).await;
        assert_eq!((begun.get(), Instant::now()), (1, start));
        changes.next(until, &gone).await;
        assert_eq!((begun.get(), Instant::now()), (1, until));
        gone.caller.cancel();
        changes.next(until + Duration::from_secs(5), &gone).await;
        assert_eq!(Instant::now(), until);
    }
}
