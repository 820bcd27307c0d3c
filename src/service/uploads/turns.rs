//! Who may upload, and who may have an upload unpacked, when many want to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::service::rights::too_much;
use crate::service::{Principal, ToolError};

/// Uploads of one principal at the same time, at most.
const OWN: usize = 4;
/// Uploads of all at the same time.
const ALL: usize = 32;
/// Builds of one principal whose uploads are unpacked at the same time: less than there are for all.
const UNPACKING: usize = 2;
/// Seconds after which an upload may have ended.
const LATER: u32 = 15;

/// How many uploads are under way, by principal.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashMap<String, usize>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    all: UnderWay,
    principal: String,
}

impl UnderWay {
    /// Begins another upload. The fewer are left, the fewer has each principal: several that take what they
    /// can get do not keep out one that has none.
    ///
    /// # Errors
    /// When it is one too many: of this principal, or of all.
    pub fn begin(&self, principal: &Principal) -> Result<Turn, ToolError> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = ALL.saturating_sub(counts.values().sum());
        let own = counts.get(&principal.0).copied().unwrap_or_default();
        if own >= OWN {
            let problem = format!("{own} of your uploads are under way");
            return Err(later(
                problem,
                format!("at most {OWN} of one caller at the same time"),
            ));
        }
        if own >= left {
            let problem = "this server has too many uploads of all its callers under way";
            return Err(later(
                problem.into(),
                format!("at most {ALL} at the same time"),
            ));
        }
        counts.insert(principal.0.clone(), own + 1);
        Ok(Turn {
            all: self.clone(),
            principal: principal.0.clone(),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = counts.get_mut(&self.principal) {
            *own -= 1;
        }
        counts.retain(|_, own| *own > 0);
    }
}

/// A refusal that says when there may be room.
pub(super) fn later(problem: String, expected: String) -> ToolError {
    too_much("archive", problem, expected, LATER)
}

/// Turns of principals that want something unpacked, which they wait for.
#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<HashMap<String, Arc<Semaphore>>>);

impl Queues {
    /// The turn of this principal, when it comes.
    ///
    /// # Errors
    /// Never, as long as the server lives.
    pub async fn turn(&self, principal: &Principal) -> Result<OwnedSemaphorePermit, ToolError> {
        let queue = {
            let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody waits in those that are here alone, and nobody has a turn of them.
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
            let queue = queues.entry(principal.0.clone());
            Arc::clone(queue.or_insert_with(|| Arc::new(Semaphore::new(UNPACKING))))
        };
        queue.acquire_owned().await.map_err(ToolError::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn principal(name: &str) -> Principal {
        Principal(name.to_owned())
    }

    #[test]
    fn turns_are_counted() {
        let under_way = UnderWay::default();
        let (ann, bob) = (principal("ann"), principal("bob"));
        let mut turns: Vec<Turn> = (0..OWN)
            .filter_map(|_| under_way.begin(&ann).ok())
            .collect();
        assert_eq!(turns.len(), OWN);
        let refused = under_way.begin(&ann).unwrap_err().to_string();
        assert!(refused.contains("of your uploads"), "{refused}");
        assert!(under_way.begin(&bob).is_ok());
        turns.pop();
        assert!(under_way.begin(&ann).is_ok());
        drop(turns);
        assert!(under_way.0.lock().unwrap().is_empty());
    }

    #[test]
    fn few_that_take_all_they_get_do_not_keep_out_others() {
        let under_way = UnderWay::default();
        let mut turns = Vec::new();
        for n in 0..8 {
            let greedy = principal(&format!("greedy-{n}"));
            turns.extend(std::iter::from_fn(|| under_way.begin(&greedy).ok()));
        }
        let refused = under_way.begin(&principal("greedy-7")).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains("of all its callers"), "{refused}");
        assert!(under_way.begin(&principal("ann")).is_ok());
        assert!(turns.len() < ALL);
    }

    #[tokio::test]
    async fn one_that_waits_for_its_turn_keeps_nobody_else_waiting() {
        let queues = Queues::default();
        let (ann, bob) = (principal("ann"), principal("bob"));
        let mut turns = Vec::new();
        for _ in 0..UNPACKING {
            turns.push(queues.turn(&ann).await.unwrap());
        }
        let mut next = Box::pin(queues.turn(&ann));
        assert!((&mut next).now_or_never().is_none());
        assert!(queues.turn(&bob).now_or_never().is_some());
        turns.pop();
        assert!(next.now_or_never().is_some());
        drop(turns);
        drop(queues.turn(&bob).await.unwrap());
        assert_eq!(queues.0.lock().unwrap().len(), 1);
    }
}
