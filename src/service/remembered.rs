//! Answers that are given again for a while: each looks at every build there is, and agents ask all the time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::build::BuildId;

/// How long an answer is given again.
const LASTS: Duration = Duration::from_secs(60);
/// So many answers are kept before old ones are removed.
const KEPT: usize = 1024;

/// Answers by build.
#[derive(Debug)]
pub struct Remembered<T>(Mutex<HashMap<BuildId, (Instant, Option<T>)>>);

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Remembered<T> {
    /// What was answered a short while ago.
    pub fn known(&self, id: &BuildId) -> Option<Option<T>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, answer) = kept.get(id)?;
        (at.elapsed() < LASTS).then(|| answer.clone())
    }

    /// Remembers an answer, and returns it.
    pub fn keep(&self, id: &BuildId, answer: Option<T>) -> Option<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.retain(|_, (at, _)| at.elapsed() < LASTS);
        }
        kept.insert(id.clone(), (Instant::now(), answer.clone()));
        answer
    }
}
