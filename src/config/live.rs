//! The configuration as it is now, where it can change while the program runs.
//!
//! ```text
//! base (file, environment) ──┐
//! overlay ───────────────────┴─▶ valid: swapped in at once, as a whole
//!                                invalid, or out of reach: what holds goes on
//! ```
//! Whoever needs a configuration that does not change under its hands takes it once, by [`Live::now`].

use std::sync::{Arc, PoisonError, RwLock};

use super::Config;
use super::overlay::{Overlay, Pair};

/// A configuration that can change. Cheap to clone; all clones are the same one.
#[derive(Debug, Clone)]
pub struct Live(Arc<Held>);

#[derive(Debug)]
struct Held {
    base: Config,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<Config>,
    overlay: Standing,
}

/// How what lies over the configuration stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Consul's index of what holds; 0: only the base does.
    pub index: u64,
    /// Why what is there now was refused: every fault. Empty: it was not.
    pub refused: Vec<String>,
    /// Why it cannot be read, while it cannot.
    pub unread: Option<String>,
}

impl Standing {
    /// Whether it was never known what lies over the base, which may allow more than that does.
    pub fn is_unknown(&self) -> bool {
        self.index == 0
    }
}

impl From<Config> for Live {
    fn from(base: Config) -> Self {
        let state = State {
            config: Arc::new(base.clone()),
            overlay: Standing::default(),
        };
        Self(Arc::new(Held {
            base,
            state: RwLock::new(state),
        }))
    }
}

impl Live {
    /// The configuration that holds now, as a whole.
    pub fn now(&self) -> Arc<Config> {
        self.read(|state| Arc::clone(&state.config))
    }

    /// How what lies over it stands; `None` where nothing ever does.
    pub fn standing(&self) -> Option<Standing> {
        self.0.base.consul.keys_below()?;
        Some(self.read(|state| state.overlay.clone()))
    }

    /// Takes what lies over it now, of this index; from then on it holds, if all of it is valid.
    ///
    /// # Errors
    /// Every fault: then what held before goes on to hold.
    pub fn overlay(&self, index: u64, pairs: &[Pair]) -> Result<(), Vec<String>> {
        let config = Overlay::read(pairs).and_then(|overlay| overlay.over(&self.0.base));
        self.write(|state| {
            state.overlay.unread = None;
            match config {
                Ok(config) => {
                    if *state.config != config {
                        state.config = Arc::new(config);
                    }
                    state.overlay.refused.clear();
                    state.overlay.index = index;
                    Ok(())
                }
                Err(faults) => {
                    state.overlay.refused.clone_from(&faults);
                    Err(faults)
                }
            }
        })
    }

    /// Notes that it cannot be read what lies over it; what held goes on to hold.
    pub fn unread(&self, why: String) {
        self.write(|state| state.overlay.unread = Some(why));
    }

    fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.0.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        let base: Config =
            toml::from_str("[consul]\nprefix = \"p\"\n[limits]\nmemory_mb = 256\n").unwrap();
        Live::from(base)
    }

    fn pair(key: &str, value: &str) -> Pair {
        Pair {
            key: key.into(),
            value: value.into(),
        }
    }

    #[test]
    fn the_last_good_one_stays_until_there_is_another() {
        let live = live();
        let memory = |live: &Live| live.now().limits.memory_mb;
        assert_eq!(live.standing(), Some(Standing::default()));
        live.overlay(7, &[pair("limits/memory_mb", "512")]).unwrap();
        let before = live.now();
        // All of it or nothing.
        let given = [pair("limits/memory_mb", "1024"), pair("limits/files", "x")];
        let faults = live.overlay(8, &given).unwrap_err();
        assert_eq!(memory(&live), Some(512));
        let standing = live.standing().unwrap();
        assert_eq!((standing.index, &standing.refused), (7, &faults));
        live.unread("gone".into());
        assert_eq!(live.standing().unwrap().unread.as_deref(), Some("gone"));
        assert_eq!(memory(&live), Some(512));
        // What is not there any more is as in the file.
        live.overlay(9, &[]).unwrap();
        assert_eq!(memory(&live), Some(256));
        let good = Standing {
            index: 9,
            ..Standing::default()
        };
        assert_eq!(live.standing(), Some(good));
        // Whoever holds one has it to the end.
        assert_eq!(before.limits.memory_mb, Some(512));
    }

    #[test]
    fn nothing_is_told_where_nothing_lies_over_it() {
        assert_eq!(Live::from(Config::default()).standing(), None);
    }
}
