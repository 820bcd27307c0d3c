//! What principals have uploaded: contexts that builds can name, and tickets for the next ones.
//!
//! One note a principal, changed by check-and-set, says what there is; the contexts themselves lie
//! in a place of the backend's. A context is noted before it is brought there, so that nothing is
//! forgotten that a server leaves behind when it dies.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::BackendError;

/// Milliseconds for which a ticket is good.
pub const TICKET_LASTS: i64 = 10 * 60 * 1000;
/// Milliseconds that a server has to bring a context to its place.
const BRINGING: i64 = 60 * 60 * 1000;
/// Tickets of one principal at the same time; the oldest make room.
const MOST_TICKETS: usize = 32;
/// Contexts of one principal at the same time: a note has 64 KiB at most.
const MOST_CONTEXTS: usize = 100;
/// What every ticket begins with.
const TICKET: &str = "upload-";
/// Letters of a principal's key.
const KEY: usize = 32;

/// Whether a text has the form of a ticket.
pub fn is_ticket(text: &str) -> bool {
    key_of_ticket(text).is_some()
}

/// The key of the principal that a ticket was made for; the note says whether it is one.
pub fn key_of_ticket(ticket: &str) -> Option<&str> {
    let rest = ticket.strip_prefix(TICKET)?;
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let sound = rest.len() == 2 * KEY && rest.bytes().all(hex);
    sound.then(|| rest.get(..KEY)).flatten()
}

/// A new ticket of a principal.
pub fn ticket(key: &str, random: [u8; 16]) -> String {
    format!("{TICKET}{key}{}", hex::encode(random))
}

/// The name of a principal's note.
pub fn key(principal: &str) -> String {
    let mut key = digest(principal);
    key.truncate(KEY);
    key
}

/// Tickets are noted by their digests alone.
pub fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// What a principal has uploaded; times in milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uploads {
    /// Who.
    pub principal: String,
    /// By their digests.
    pub tickets: BTreeMap<String, Ticket>,
    /// Those that are there, and those that are being brought.
    pub contexts: Vec<Context>,
}

/// Lets its holder upload one context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ticket {
    /// When it ends.
    pub expires: i64,
    /// Somebody uploads, or has uploaded.
    pub taken: bool,
    /// What was uploaded.
    pub context: Option<String>,
}

/// An uploaded context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// `sha256:…` of its tar.
    pub digest: String,
    /// Length of its tar.
    pub bytes: u64,
    /// Where the backend has it.
    pub place: String,
    /// When it ends.
    pub expires: i64,
    /// It is there; otherwise it is being brought.
    pub there: bool,
}

/// Why a ticket is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketFault {
    /// There is none, or its time is over.
    #[error("there is no such ticket, or its ten minutes are over")]
    Unknown,
    /// It was used, or is in use.
    #[error("the ticket was used: it is good for one upload")]
    Used,
}

/// Why a context is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Together with those that are there.
    #[error("your uploads would have {0} bytes together")]
    Bytes(u64),
    /// So many are there.
    #[error("{0} of your uploads are kept")]
    Contexts(usize),
}

impl Context {
    /// One that is about to be brought to a place.
    pub fn on_its_way(digest: &str, bytes: u64, place: &str, now: i64) -> Self {
        Self {
            digest: digest.to_owned(),
            bytes,
            place: place.to_owned(),
            expires: now + BRINGING,
            there: false,
        }
    }
}

impl Uploads {
    /// Forgets what is over; returns the places that can be cleared.
    pub fn sweep(&mut self, now: i64) -> Vec<String> {
        self.tickets.retain(|_, ticket| ticket.expires > now);
        let mut places = Vec::new();
        self.contexts.retain(|context| {
            let kept = context.expires > now;
            if !kept {
                places.push(context.place.clone());
            }
            kept
        });
        places
    }

    /// Whether nothing is left to remember.
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty() && self.contexts.is_empty()
    }

    /// Notes a new ticket.
    pub fn issue(&mut self, ticket: &str, now: i64) {
        while self.tickets.len() >= MOST_TICKETS {
            let oldest = self.tickets.iter().min_by_key(|(_, one)| one.expires);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                break;
            };
            self.tickets.remove(&oldest);
        }
        let expires = now + TICKET_LASTS;
        let fresh = Ticket {
            expires,
            ..Ticket::default()
        };
        self.tickets.insert(digest(ticket), fresh);
    }

    /// Takes a ticket for one upload.
    ///
    /// # Errors
    /// When it is not good, or not any more.
    pub fn take(&mut self, ticket: &str, now: i64) -> Result<(), TicketFault> {
        match self.tickets.get_mut(&digest(ticket)) {
            Some(one) if one.expires <= now => Err(TicketFault::Unknown),
            Some(one) if one.taken => Err(TicketFault::Used),
            Some(one) => {
                one.taken = true;
                Ok(())
            }
            None => Err(TicketFault::Unknown),
        }
    }

    /// Gives a ticket back that was taken for an upload that came to nothing.
    pub fn give_back(&mut self, ticket: &str) {
        if let Some(one) = self.tickets.get_mut(&digest(ticket))
            && one.context.is_none()
        {
            one.taken = false;
        }
    }

    /// Notes a context that is about to be brought to its place; returns false where it is there already.
    ///
    /// # Errors
    /// When it is one too many: `most` is in bytes.
    pub fn reserve(&mut self, context: Context, most: u64) -> Result<bool, Full> {
        let same = |one: &Context| one.there && one.digest == context.digest;
        if self.contexts.iter().any(same) {
            return Ok(false);
        }
        let bytes = self.contexts.iter().map(|one| one.bytes);
        let together = bytes.fold(context.bytes, u64::saturating_add);
        if together > most {
            return Err(Full::Bytes(together));
        }
        if self.contexts.len() >= MOST_CONTEXTS {
            return Err(Full::Contexts(self.contexts.len()));
        }
        self.contexts.push(context);
        Ok(true)
    }

    /// Forgets a context that did not come to its place.
    pub fn forget(&mut self, place: &str) {
        self.contexts.retain(|one| one.place != place);
    }

    /// Notes that a context is at this place until a time, and by which ticket it came; returns the place
    /// if it is not needed: another has brought the same meanwhile, or it was there before.
    pub fn settle(
        &mut self,
        digest: &str,
        place: &str,
        ticket: Option<&str>,
        expires: i64,
    ) -> Option<String> {
        let same = |one: &&mut Context| one.there && one.digest == digest;
        let unneeded = if let Some(other) = self.contexts.iter_mut().find(same) {
            other.expires = other.expires.max(expires);
            self.contexts.retain(|one| one.there || one.place != place);
            Some(place.to_owned())
        } else {
            for one in self.contexts.iter_mut().filter(|one| one.place == place) {
                one.there = true;
                one.expires = expires;
            }
            None
        };
        if let Some(one) = ticket.and_then(|ticket| self.tickets.get_mut(&self::digest(ticket))) {
            one.context = Some(digest.to_owned());
            one.expires = expires;
        }
        unneeded
    }

    /// The context that a digest or a ticket names.
    pub fn find(&self, name: &str, now: i64) -> Option<&Context> {
        let ticket = self.tickets.get(&digest(name));
        let wanted = ticket
            .and_then(|one| one.context.as_deref())
            .unwrap_or(name);
        let is_it = |one: &&Context| one.there && one.expires > now && one.digest == wanted;
        self.contexts.iter().find(is_it)
    }
}

/// Where a backend keeps uploads.
#[async_trait]
pub trait Depot: Send + Sync {
    /// A directory for what is on its way, on the file system of the contexts where they are files.
    fn scratch(&self) -> &Path;

    /// A principal's note and its version; 0: there is none.
    async fn note(&self, key: &str) -> Result<(Uploads, u64), BackendError>;

    /// Writes a note, or removes it where nothing is left in it, if its version is this one; returns
    /// whether it was.
    async fn write(&self, key: &str, note: &Uploads, version: u64) -> Result<bool, BackendError>;

    /// The keys of all notes.
    async fn keys(&self) -> Result<Vec<String>, BackendError>;

    /// A place for another context, unlike every other.
    fn place(&self, random: [u8; 16]) -> String;

    /// Brings a tar to a place; the file may be gone afterwards.
    async fn bring(&self, tar: &Path, place: &str) -> Result<(), BackendError>;

    /// Copies what is at a place to a new file.
    async fn fetch(&self, place: &str, to: &Path) -> Result<(), BackendError>;

    /// Clears a place; one with nothing at it is no error.
    async fn clear(&self, place: &str) -> Result<(), BackendError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    #[test]
    fn a_ticket_is_good_once_and_for_ten_minutes() {
        let mut uploads = Uploads::default();
        let ticket = ticket(&key("token:ann"), [1; 16]);
        assert!(is_ticket(&ticket), "{ticket}");
        assert_eq!(key_of_ticket(&ticket), Some(key("token:ann").as_str()));
        for wrong in ["", "upload-", "upload-0", &ticket.replace("01", "0x")] {
            assert!(!is_ticket(wrong), "{wrong}");
        }
        assert_eq!(uploads.take(&ticket, NOW), Err(TicketFault::Unknown));
        uploads.issue(&ticket, NOW);
        assert_eq!(
            uploads.take(&ticket, NOW + TICKET_LASTS),
            Err(TicketFault::Unknown)
        );
        assert_eq!(uploads.take(&ticket, NOW), Ok(()));
        assert_eq!(uploads.take(&ticket, NOW), Err(TicketFault::Used));
        uploads.give_back(&ticket);
        assert_eq!(uploads.take(&ticket, NOW), Ok(()));
        uploads.reserve(context("a", 1, "p"), 10).unwrap();
        uploads.settle("a", "p", Some(&ticket), NOW + 9 * TICKET_LASTS);
        uploads.give_back(&ticket);
        assert_eq!(uploads.take(&ticket, NOW), Err(TicketFault::Used));
        // It goes on to name what came by it.
        let later = NOW + 8 * TICKET_LASTS;
        assert!(uploads.sweep(later).is_empty());
        assert_eq!(uploads.find(&ticket, later).unwrap().digest, "a");
        assert_eq!(uploads.sweep(NOW + 9 * TICKET_LASTS), ["p"]);
        assert!(uploads.is_empty());
    }

    #[test]
    fn the_oldest_tickets_make_room() {
        let mut uploads = Uploads::default();
        let tickets: Vec<String> = (0..40).map(|n| ticket(&key("x"), [n; 16])).collect();
        for (n, ticket) in tickets.iter().enumerate() {
            uploads.issue(ticket, NOW + n as i64);
        }
        assert_eq!(uploads.tickets.len(), MOST_TICKETS);
        assert!(uploads.take(&tickets[0], NOW).is_err());
        assert!(uploads.take(&tickets[39], NOW).is_ok());
    }

    fn context(digest: &str, bytes: u64, place: &str) -> Context {
        Context::on_its_way(digest, bytes, place, NOW)
    }

    #[test]
    fn what_is_kept_together_is_bounded() {
        let mut uploads = Uploads::default();
        assert_eq!(uploads.reserve(context("a", 6, "p"), 10), Ok(true));
        assert!(uploads.find("a", NOW).is_none(), "it is not there yet");
        let full = uploads.reserve(context("b", 5, "q"), 10);
        assert_eq!(full, Err(Full::Bytes(11)));
        assert_eq!(uploads.settle("a", "p", None, NOW + 100), None);
        assert_eq!(uploads.reserve(context("a", 6, "q"), 10), Ok(false));
        assert_eq!(uploads.find("a", NOW).unwrap().place, "p");
        assert!(uploads.find("a", NOW + 100).is_none());
        let digest = |n: usize| format!("sha256:{n:064}");
        for n in 1..MOST_CONTEXTS {
            let place = format!("registry.example.com/nomad-build:context-{n:032}");
            uploads.reserve(context(&digest(n), 0, &place), 10).unwrap();
        }
        let full = uploads.reserve(context("b", 0, "q"), 10);
        assert_eq!(full, Err(Full::Contexts(MOST_CONTEXTS)));
        let bytes = serde_json::to_vec(&uploads).unwrap().len();
        assert!(bytes < 48 * 1024, "{bytes}");
    }

    #[test]
    fn two_that_bring_the_same_leave_one() {
        let mut uploads = Uploads::default();
        assert_eq!(uploads.reserve(context("a", 1, "p"), 10), Ok(true));
        assert_eq!(uploads.reserve(context("a", 1, "q"), 10), Ok(true));
        assert_eq!(uploads.settle("a", "q", None, NOW + 100), None);
        let first = uploads.settle("a", "p", None, NOW + 200);
        assert_eq!(first.as_deref(), Some("p"));
        assert_eq!(uploads.contexts.len(), 1);
        assert_eq!(uploads.find("a", NOW + 150).unwrap().place, "q");
    }
}
