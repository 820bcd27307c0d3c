//! Waiting for a build, without ever holding a caller longer than it allowed.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::View;
use crate::build::request::Until;
use crate::build::{BuildId, State};

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

    /// Waits until what is asked for, or the deadline.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn wait(
        &self,
        id: &BuildId,
        until: Until,
        deadline: Instant,
        waiting: &mut Waiting<'_>,
    ) -> Result<View, ToolError> {
        let mut changes = self.backend.watch(id);
        let first = self.backend.look(id).await?;
        let mut view = first.clone();
        let mut told = Instant::now();
        while !reached(&first, &view, until)
            && Instant::now() < deadline
            && !waiting.gone.is_cancelled()
        {
            tokio::select! {
                () = changes.next(deadline.min(told + TELL_EVERY)) => {}
                () = waiting.gone.cancelled() => {}
            }
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
