//! What principals have uploaded: contexts that builds can name, and tickets for the next ones.
//!
//! One note a principal, changed by check-and-set, says what there is; the contexts themselves lie
//! in a place of the backend's. A context is noted before it is brought there, and its place until
//! that is clear again, so that nothing is forgotten that a server leaves behind when it dies.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::BackendError;

/// Milliseconds for which a ticket is good.
pub const TICKET_LASTS: i64 = 10 * 60 * 1000;
/// How long an upload may take to arrive.
pub const ARRIVING: Duration = Duration::from_secs(60 * 60);
/// Milliseconds that a server has to bring a context to its place.
const BRINGING: i64 = 60 * 60 * 1000;
/// Milliseconds for which a ticket is held for the upload that took it: to arrive, to be unpacked, to be
/// brought to its place.
const HELD: i64 = 3 * BRINGING;
/// Tickets of one principal at the same time; the oldest make room, first those that were used.
const MOST_TICKETS: usize = 32;
/// Contexts of one principal at the same time: a note has 64 KiB at most.
const MOST_CONTEXTS: usize = 100;
/// Places of one principal that could not be cleared; the oldest are given up.
const MOST_OVER: usize = 200;
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
    /// Places of others, until they are clear.
    pub over: Vec<String>,
}

/// Lets its holder upload one context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ticket {
    /// When it ends.
    pub expires: i64,
    /// Somebody uploads, or has uploaded.
    pub taken: bool,
    /// Until when it is kept for an upload that took it.
    pub held: i64,
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
    /// An upload by it goes on.
    #[error("an upload by this ticket is under way")]
    InUse,
    /// It was used.
    #[error("the ticket was used: it names its upload now, as source.context of build")]
    Used,
}

/// Why there is no room for a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// It is too big, whatever else there is.
    #[error("it has {0} bytes")]
    Alone(u64),
    /// With those that are being brought, which cannot make room.
    #[error("your uploads that are under way have {0} bytes together")]
    UnderWay(u64),
}

/// A context that came to its place too late: it was given up before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it took too long to store the upload")]
pub struct GivenUp;

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
    /// Forgets what is over.
    pub fn sweep(&mut self, now: i64) {
        self.tickets
            .retain(|_, ticket| ticket.expires.max(ticket.held) > now);
        self.give_up(|context| context.expires <= now);
    }

    /// Forgets contexts; their places are to be cleared.
    fn give_up(&mut self, which: impl Fn(&Context) -> bool) {
        let given_up = self.contexts.extract_if(.., |context| which(context));
        self.over.extend(given_up.map(|context| context.place));
        let too_many = self.over.len().saturating_sub(MOST_OVER);
        self.over.drain(..too_many);
    }

    /// Notes that places are clear.
    pub fn cleared(&mut self, places: &[String]) {
        self.over.retain(|place| !places.contains(place));
    }

    /// Whether nothing is left to remember.
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty() && self.contexts.is_empty() && self.over.is_empty()
    }

    /// Notes a new ticket.
    pub fn issue(&mut self, ticket: &str, now: i64) {
        while self.tickets.len() >= MOST_TICKETS {
            let least =
                |(_, one): &(&String, &Ticket)| (one.context.is_none(), one.taken, one.expires);
            let Some((least, _)) = self.tickets.iter().min_by_key(least) else {
                break;
            };
            let least = least.clone();
            self.tickets.remove(&least);
        }
        let fresh = Ticket {
            expires: now + TICKET_LASTS,
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
            Some(one) if one.context.is_some() => Err(TicketFault::Used),
            Some(one) if one.taken => Err(TicketFault::InUse),
            Some(one) if one.expires > now => {
                one.taken = true;
                one.held = now + HELD;
                Ok(())
            }
            _ => Err(TicketFault::Unknown),
        }
    }

    /// Gives a ticket back that was taken for an upload that came to nothing.
    pub fn give_back(&mut self, ticket: &str) {
        if let Some(one) = self.tickets.get_mut(&digest(ticket))
            && one.context.is_none()
        {
            one.taken = false;
            one.held = 0;
        }
    }

    /// Notes a context that is about to be brought to its place; returns false where it is there already.
    /// The oldest that are there make room: builds have copies of their own.
    ///
    /// # Errors
    /// When that is not enough room: `most` is in bytes.
    pub fn reserve(&mut self, context: Context, most: u64) -> Result<bool, Full> {
        let same = |one: &Context| one.there && one.digest == context.digest;
        if self.contexts.iter().any(same) {
            return Ok(false);
        }
        if context.bytes > most {
            return Err(Full::Alone(context.bytes));
        }
        let on_their_way = || self.contexts.iter().filter(|one| !one.there);
        let together = bytes(context.bytes, on_their_way());
        if together > most || on_their_way().count() >= MOST_CONTEXTS {
            return Err(Full::UnderWay(together));
        }
        while self.contexts.len() >= MOST_CONTEXTS || bytes(context.bytes, &self.contexts) > most {
            let there = self.contexts.iter().filter(|one| one.there);
            let Some(oldest) = there.min_by_key(|one| one.expires) else {
                break;
            };
            let oldest = oldest.place.clone();
            self.forget(&oldest);
        }
        self.contexts.push(context);
        Ok(true)
    }

    /// Forgets the context of a place, which is to be cleared.
    pub fn forget(&mut self, place: &str) {
        self.give_up(|one| one.place == place);
    }

    /// Notes that a context is at this place until a time, and by which ticket it came. Where another has
    /// brought the same before, that one stays.
    ///
    /// # Errors
    /// When it was given up in the meantime.
    pub fn settle(
        &mut self,
        digest: &str,
        place: &str,
        ticket: Option<&str>,
        expires: i64,
    ) -> Result<(), GivenUp> {
        let before = |one: &Context| one.there && one.digest == digest;
        if (self.contexts.iter()).any(|one| before(one) && one.place != place) {
            self.forget(place);
        }
        let it = |one: &&mut Context| before(one) || one.place == place;
        let Some(one) = self.contexts.iter_mut().find(it) else {
            // Its place may have been cleared before it came there.
            self.over.push(place.to_owned());
            return Err(GivenUp);
        };
        one.expires = match one.there {
            true => one.expires.max(expires),
            false => expires,
        };
        one.there = true;
        if let Some(ticket) = ticket {
            // It may have made room for others.
            let one = self.tickets.entry(self::digest(ticket)).or_default();
            one.taken = true;
            one.context = Some(digest.to_owned());
            one.expires = expires;
        }
        Ok(())
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

    /// Whether this is a ticket by which nothing has come yet.
    pub fn awaits(&self, name: &str, now: i64) -> bool {
        let ticket = self.tickets.get(&digest(name));
        ticket.is_some_and(|one| one.context.is_none() && one.expires.max(one.held) > now)
    }
}

/// Bytes of contexts, together with `more`.
fn bytes<'a>(more: u64, contexts: impl IntoIterator<Item = &'a Context>) -> u64 {
    let bytes = contexts.into_iter().map(|one| one.bytes);
    bytes.fold(more, u64::saturating_add)
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
        assert_eq!(uploads.take(&ticket, NOW), Err(TicketFault::InUse));
        uploads.give_back(&ticket);
        assert_eq!(uploads.take(&ticket, NOW), Ok(()));
        assert!(uploads.awaits(&ticket, NOW));
        uploads.reserve(context("a", 1, "p"), 10).unwrap();
        let until = NOW + 9 * TICKET_LASTS;
        uploads.settle("a", "p", Some(&ticket), until).unwrap();
        assert!(!uploads.awaits(&ticket, NOW));
        uploads.give_back(&ticket);
        assert_eq!(uploads.take(&ticket, NOW), Err(TicketFault::Used));
        // It goes on to name what came by it.
        let later = NOW + 8 * TICKET_LASTS;
        uploads.sweep(later);
        assert_eq!(uploads.find(&ticket, later).unwrap().digest, "a");
        uploads.sweep(NOW + HELD);
        assert_eq!(uploads.over, ["p"]);
        assert!(!uploads.is_empty(), "its place must be cleared first");
        uploads.cleared(&["p".into()]);
        assert!(uploads.is_empty());
    }

    #[test]
    fn a_ticket_waits_for_its_upload() {
        let mut uploads = Uploads::default();
        let ticket = ticket(&key("x"), [1; 16]);
        uploads.issue(&ticket, NOW);
        uploads.take(&ticket, NOW + TICKET_LASTS - 1).unwrap();
        let later = NOW + 2 * TICKET_LASTS;
        uploads.sweep(later);
        let on_its_way = Context::on_its_way("a", 1, "p", later);
        assert_eq!(uploads.reserve(on_its_way, 10), Ok(true));
        uploads.settle("a", "p", Some(&ticket), later + 9).unwrap();
        assert_eq!(uploads.find(&ticket, later).unwrap().place, "p");
        // One that came to nothing has the time that it had.
        let other = super::ticket(&key("x"), [2; 16]);
        uploads.issue(&other, NOW);
        uploads.take(&other, NOW).unwrap();
        uploads.give_back(&other);
        uploads.sweep(later);
        assert_eq!(uploads.take(&other, later), Err(TicketFault::Unknown));
    }

    #[test]
    fn what_comes_too_late_is_no_success_and_is_cleared_again() {
        let mut uploads = Uploads::default();
        uploads.reserve(context("a", 1, "p"), 10).unwrap();
        uploads.sweep(NOW + BRINGING);
        uploads.cleared(&["p".into()]);
        assert_eq!(uploads.settle("a", "p", None, NOW + 9), Err(GivenUp));
        assert_eq!(uploads.over, ["p"]);
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

    #[test]
    fn tickets_that_were_used_make_room_for_those_that_were_not() {
        let mut uploads = Uploads::default();
        let tickets: Vec<String> = (0..40).map(|n| ticket(&key("x"), [n; 16])).collect();
        for (n, ticket) in tickets.iter().enumerate() {
            uploads.issue(ticket, NOW);
            uploads.take(ticket, NOW).unwrap();
            uploads.reserve(context("a", 1, "p"), 10).unwrap();
            let until = NOW + 9 * TICKET_LASTS + n as i64;
            uploads.settle("a", "p", Some(ticket), until).unwrap();
        }
        let fresh: Vec<String> = (50..53).map(|n| ticket(&key("x"), [n; 16])).collect();
        for ticket in &fresh {
            uploads.issue(ticket, NOW);
        }
        for ticket in &fresh {
            assert_eq!(uploads.take(ticket, NOW), Ok(()));
        }
        assert!(uploads.find(&tickets[39], NOW).is_some());
    }

    fn context(digest: &str, bytes: u64, place: &str) -> Context {
        Context::on_its_way(digest, bytes, place, NOW)
    }

    #[test]
    fn what_is_kept_together_is_bounded() {
        let mut uploads = Uploads::default();
        assert_eq!(
            uploads.reserve(context("a", 11, "p"), 10),
            Err(Full::Alone(11))
        );
        assert_eq!(uploads.reserve(context("a", 6, "p"), 10), Ok(true));
        assert!(uploads.find("a", NOW).is_none(), "it is not there yet");
        let full = uploads.reserve(context("b", 5, "q"), 10);
        assert_eq!(full, Err(Full::UnderWay(11)));
        let until = NOW + 2 * BRINGING;
        uploads.settle("a", "p", None, until).unwrap();
        assert_eq!(uploads.reserve(context("a", 6, "q"), 10), Ok(false));
        assert_eq!(uploads.find("a", NOW).unwrap().place, "p");
        assert!(uploads.find("a", until).is_none());
        // The oldest that is there makes room.
        assert_eq!(uploads.reserve(context("b", 5, "q"), 10), Ok(true));
        assert!(uploads.find("a", NOW).is_none());
        assert_eq!(uploads.over, ["p"]);
    }

    #[test]
    fn a_note_fits_into_a_variable() {
        let mut uploads = Uploads::default();
        let digest = |n: usize| format!("sha256:{n:064}");
        for n in 0..MOST_CONTEXTS + MOST_OVER + 50 {
            let (digest, place) = (digest(n), format!("context-{n:032}"));
            uploads.issue(&place, NOW + n as i64);
            let fits = uploads.reserve(context(&digest, 0, &place), 10);
            assert_eq!(fits, Ok(true), "{n}");
            let until = NOW + 2 * BRINGING + n as i64;
            uploads
                .settle(&digest, &place, Some(&place), until)
                .unwrap();
        }
        assert_eq!(uploads.contexts.len(), MOST_CONTEXTS);
        assert_eq!(uploads.over.len(), MOST_OVER);
        let bytes = serde_json::to_vec(&uploads).unwrap().len();
        assert!(bytes < 60 * 1024, "{bytes}");
    }

    #[test]
    fn two_that_bring_the_same_leave_one() {
        let mut uploads = Uploads::default();
        assert_eq!(uploads.reserve(context("a", 1, "p"), 10), Ok(true));
        assert_eq!(uploads.reserve(context("a", 1, "q"), 10), Ok(true));
        let until = NOW + 2 * BRINGING;
        uploads.settle("a", "q", None, until).unwrap();
        uploads.settle("a", "p", None, until + 9).unwrap();
        assert_eq!(uploads.over, ["p"]);
        assert_eq!(uploads.contexts.len(), 1);
        assert_eq!(uploads.find("a", until + 5).unwrap().place, "q");
    }
}
