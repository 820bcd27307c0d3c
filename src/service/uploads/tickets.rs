//! Tickets: who has one can upload one context for who got it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::backend::uploads::{
    TICKET_LASTS, TicketFault, Uploads, digest, key, key_of_ticket, ticket,
};
use crate::runner::reporter::now_ms;
use crate::schema::ArgFault;
use crate::schema::error_code::ErrorCode;
use crate::service::rights::{seconds, too_much};
use crate::service::{Principal, Service, ToolError, random};

/// Tickets a second that this server looks for in the notes without having given them, on average and at
/// once: whoever has no token must not keep the backend busy.
const STRANGE: (NonZeroU32, NonZeroU32) = (
    NonZeroU32::MIN.saturating_add(9),
    NonZeroU32::MIN.saturating_add(39),
);
/// What would do instead of a ticket that does not.
const GOOD: &str = "one that the error of build for a path has just given, or your token";
/// Tickets that this server has given and knows.
const MOST: usize = 10_000;

/// Which tickets are looked for in the notes. Of this server alone: those of others are strange to it.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    /// The digests of tickets that this server gave, and until when they can be used.
    given: Mutex<HashMap<String, i64>>,
    strange: DefaultDirectRateLimiter,
}

impl Default for Doorkeeper {
    fn default() -> Self {
        let quota = Quota::per_second(STRANGE.0).allow_burst(STRANGE.1);
        Self {
            given: Mutex::default(),
            strange: RateLimiter::direct(quota),
        }
    }
}

impl Doorkeeper {
    /// Notes a ticket that was given, or given back.
    fn know(&self, ticket: &str, now: i64) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= MOST {
            given.retain(|_, until| *until > now);
        }
        if given.len() < MOST {
            given.insert(digest(ticket), now + TICKET_LASTS);
        }
    }

    /// Lets a ticket pass, a known one once.
    ///
    /// # Errors
    /// When too many are tried.
    fn pass(&self, ticket: &str) -> Result<(), ToolError> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.remove(&digest(ticket)).is_some() {
            return Ok(());
        }
        self.strange.check().map_err(|early| {
            let wait = early.wait_time_from(DefaultClock::default().now());
            too_much(
                "ticket",
                "too many tickets are tried that this server has not given".into(),
                GOOD.into(),
                seconds(wait),
            )
        })
    }
}

fn refused(fault: TicketFault) -> ToolError {
    let fault = ArgFault::new(ErrorCode::NotAllowed, "ticket", fault.to_string());
    ToolError::one(fault.expecting(GOOD))
}

impl Service {
    /// A ticket with which somebody else can upload a context for this principal.
    ///
    /// # Errors
    /// When no uploads are taken, or the note cannot be written.
    pub async fn open_ticket(&self, principal: &Principal) -> Result<String, ToolError> {
        let key = key(&principal.0);
        let ticket = ticket(&key, random()?);
        let issue = |uploads: &mut Uploads| {
            uploads.principal.clone_from(&principal.0);
            uploads.issue(&ticket, now_ms());
        };
        self.change(&key, issue).await?;
        self.uploading.door.know(&ticket, now_ms());
        Ok(ticket)
    }

    /// Takes a ticket; returns for whom it is.
    ///
    /// # Errors
    /// When it is not good, or too many are tried.
    pub async fn take_ticket(&self, ticket: &str) -> Result<Principal, ToolError> {
        let key = key_of_ticket(ticket).ok_or_else(|| refused(TicketFault::Unknown))?;
        self.uploading.door.pass(ticket)?;
        let take = |uploads: &mut Uploads| {
            let principal = Principal(uploads.principal.clone());
            uploads.take(ticket, now_ms()).map(|()| principal)
        };
        self.change(key, take).await?.map_err(refused)
    }

    pub(super) async fn give_back(&self, ticket: &str) {
        if let Some(key) = key_of_ticket(ticket) {
            let given = self.change(key, |uploads| uploads.give_back(ticket)).await;
            match given {
                Ok(()) => self.uploading.door.know(ticket, now_ms()),
                Err(error) => tracing::warn!(%error, "a ticket cannot be given back"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strange_tickets_are_few_and_keep_out_none_that_is_known() {
        let door = Doorkeeper::default();
        let strange = |n: u32| door.pass(&format!("upload-{n}"));
        door.know("upload-known", 0);
        let passed = (0..100).filter(|n| strange(*n).is_ok()).count();
        assert!((40..60).contains(&passed), "{passed}");
        let refused = strange(1).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::LimitReached);
        assert_eq!(refused.retry_after, Some(1));
        assert!(door.pass("upload-known").is_ok());
        assert!(door.pass("upload-known").is_err(), "it is known once");
    }
}
