//! What a principal may, and whether it does too much.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::backend::View;
use crate::build::validate::{Rules, begins};
use crate::config::principals::{Rights, rights};
use crate::config::{Config, Profile};
use crate::schema::ArgFault;
use crate::schema::error_code::ErrorCode;

use super::{Principal, Service, ToolError};

/// For how many seconds' calls somebody may make up who made none before.
const BURST: u32 = 4;
/// Principals that are counted at the same time.
const MOST: usize = 10_000;
/// Seconds after which a build may have ended.
const LATER: u32 = 30;

/// Who calls how often. Of this server alone: each of several counts on its own.
#[derive(Debug, Default)]
pub struct Pace {
    /// By principal, with the rate that each was made for.
    limiters: Mutex<HashMap<String, (u32, Arc<DefaultDirectRateLimiter>)>>,
}

impl Pace {
    /// How long to wait before this call, if it is one too many.
    fn excess(&self, principal: &Principal, a_second: u32) -> Option<Duration> {
        let limiter = {
            let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
            // Subjects of short-lived tokens come and go.
            if limiters.len() >= MOST {
                limiters.clear();
            }
            match limiters.get(&principal.0) {
                Some((rate, limiter)) if *rate == a_second => Arc::clone(limiter),
                // The first call, or the first after the operator has changed the rate.
                _ => {
                    let limiter = Arc::new(limiter(a_second));
                    limiters.insert(principal.0.clone(), (a_second, Arc::clone(&limiter)));
                    limiter
                }
            }
        };
        let early = limiter.check().err()?;
        Some(early.wait_time_from(DefaultClock::default().now()))
    }
}

fn limiter(a_second: u32) -> DefaultDirectRateLimiter {
    let rate = NonZeroU32::new(a_second).unwrap_or(NonZeroU32::MIN);
    let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(BURST - 1));
    RateLimiter::direct(Quota::per_second(rate).allow_burst(burst))
}

/// A time to wait in whole seconds, not less.
pub(super) fn seconds(wait: Duration) -> u32 {
    let whole = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
    whole.saturating_add(1)
}

/// A refusal that says when to come back.
pub(super) fn too_much(path: &str, problem: String, expected: String, seconds: u32) -> ToolError {
    let fault = ArgFault::new(ErrorCode::LimitReached, path, problem).expecting(expected);
    let mut error = ToolError::one(fault);
    error.retry_after = Some(seconds);
    error
}

impl Service {
    /// The rights of a principal.
    pub(super) fn rights(&self, principal: &Principal) -> Rights {
        rights(&self.config.principals, &principal.0)
            .cloned()
            .unwrap_or_default()
    }

    /// Whether it sees and ends the builds of all.
    pub fn is_operator(&self, principal: &Principal) -> bool {
        self.rights(principal).operator
    }

    /// Counts a call over HTTP.
    ///
    /// # Errors
    /// When it is one too many: how long to wait.
    pub fn count_call(&self, principal: &Principal) -> Result<(), ToolError> {
        let rate = self.rights(principal).calls_per_second;
        match self.pace.excess(principal, rate) {
            None => Ok(()),
            Some(wait) => Err(too_much(
                "call",
                "too many calls".into(),
                format!("at most {rate} a second; wait instead of asking again (wait: 45)"),
                seconds(wait),
            )),
        }
    }

    /// What a request of this principal may ask for.
    pub(super) fn rules(&self, principal: &Principal) -> Rules {
        let mut rules = rules(&self.config, &self.rights(principal));
        rules.paths = self.paths;
        rules.uploads = self.takes_uploads();
        if !self.backend.keeps_outputs() {
            rules.outputs.clear();
        }
        rules
    }

    /// Whether another build is one too many.
    pub(super) async fn refuse_flood(&self, principal: &Principal) -> Result<(), ToolError> {
        let rights = self.rights(principal);
        let own = self.own(principal).await?;
        let unfinished = own.iter().filter(|view| !view.state().is_final());
        let queued = own.iter().filter(|view| is_queued(view)).count();
        for (count, most, what) in [
            (unfinished.count(), rights.builds, "are unfinished"),
            (queued, rights.queued, "wait for capacity"),
        ] {
            if count >= usize::try_from(most).unwrap_or(usize::MAX) {
                return Err(too_much(
                    "build",
                    format!("{count} of your builds {what}"),
                    format!("fewer than {most}"),
                    LATER,
                ));
            }
        }
        Ok(())
    }
}

fn is_queued(view: &View) -> bool {
    view.state() == crate::build::State::Queued
}

fn rules(config: &Config, rights: &Rights) -> Rules {
    let profiles: Vec<Profile> = match &rights.profiles {
        None => config.profiles(),
        Some(allowed) => (allowed.iter())
            .filter_map(|name| config.profile(name))
            .collect(),
    };
    Rules {
        secrets: (profiles.iter())
            .map(|profile| (profile.name.clone(), profile.secrets.clone()))
            .collect(),
        outputs: (profiles.iter())
            .filter(|profile| profile.limits.outputs_mb > 0)
            .map(|profile| profile.name.clone())
            .collect(),
        profiles: profiles.into_iter().map(|profile| profile.name).collect(),
        tags: narrowed(&config.registry.allow, rights.tags.as_deref()),
        git: narrowed(&config.git.allow, rights.git.as_deref()),
        git_allow_http: config.git.allow_http,
        ..Rules::default()
    }
}

/// The beginnings that two lists allow together; the first allows everything when it is empty.
fn narrowed(all: &[String], own: Option<&[String]>) -> Option<Vec<String>> {
    match (all, own) {
        ([], None) => None,
        (all, None) => Some(all.to_vec()),
        ([], Some(own)) => Some(own.to_vec()),
        (all, Some(own)) => {
            let mut both: Vec<String> = Vec::new();
            for one in all {
                for other in own {
                    if begins(one, other) {
                        both.push(one.clone());
                    } else if begins(other, one) {
                        both.push(other.clone());
                    }
                }
            }
            both.sort();
            both.dedup();
            Some(both)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn lists_narrow_each_other() {
        let both = |all: &str, own: Option<&str>| {
            let own = own.map(list);
            narrowed(&list(all), own.as_deref()).map(|both| both.join(" "))
        };
        assert_eq!(both("", None), None);
        assert_eq!(both("a/b", None).as_deref(), Some("a/b"));
        assert_eq!(both("", Some("a")).as_deref(), Some("a"));
        assert_eq!(both("", Some("")).as_deref(), Some(""), "nothing at all");
        assert_eq!(both("a", Some("a/b c")).as_deref(), Some("a/b"));
        assert_eq!(both("a/b d", Some("a")).as_deref(), Some("a/b"));
        assert_eq!(both("host/team", Some("host/team2")).as_deref(), Some(""));
    }

    #[test]
    fn who_calls_too_often_is_told_when_to_come_back() {
        let pace = Pace::default();
        let (ann, bob) = (Principal("token:ann".into()), Principal("token:bob".into()));
        let served = (0..100).take_while(|_| pace.excess(&ann, 2).is_none());
        assert_eq!(served.count(), 8);
        assert!(pace.excess(&ann, 2).unwrap() <= Duration::from_secs(1));
        assert!(pace.excess(&bob, 2).is_none());
    }

    #[test]
    fn another_rate_holds_from_the_next_call_on() {
        let (pace, ann) = (Pace::default(), Principal("token:ann".into()));
        while pace.excess(&ann, 1).is_none() {}
        let served = (0..100).take_while(|_| pace.excess(&ann, 5).is_none());
        assert_eq!(served.count(), 20);
        let served = (0..100).take_while(|_| pace.excess(&ann, 1).is_none());
        assert_eq!(served.count(), 4);
    }
}
