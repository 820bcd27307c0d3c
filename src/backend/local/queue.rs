//! What a build needs to run, a slot and a user, and who waits for them: principals take turns, and the
//! builds of one have theirs in the order of acceptance.
//!
//! A slot is a lock that the job holds; it is free the moment the job dies. A build that waits has
//! a ticket, which says what it waits for; a ticket whose job is dead does not stand in anybody's
//! way. A job takes both or nothing.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::build::scope::Scopes;
use crate::build::{BuildId, Record};
use crate::runner::cache::has_scope;

use super::layout::Layout;
use super::store::{lock, lock_file, try_lock};
use super::user::{Lacking, Lease, Users, Wanted, Warmth};

/// What a running build holds, as long as it lives.
#[derive(Debug)]
pub struct Place {
    /// The user.
    pub lease: Lease,
    _slot: File,
}

/// What is missing for a build to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A slot.
    Slot,
    /// A user, though there would be a slot.
    User,
    /// The user with its layers, which is tidied up.
    Layers,
}

impl Missing {
    /// A stable word.
    pub fn code(self) -> &'static str {
        match self {
            Self::Slot => "slots_busy",
            Self::User => "users_busy",
            Self::Layers => "tidying_up",
        }
    }
}

/// A place in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// When the build was accepted, in milliseconds since 1970.
    submitted: i64,
    /// Who asked for it, as a word of sixteen digits.
    owner: String,
    /// The build.
    pub id: BuildId,
}

impl Ticket {
    /// That of a build.
    pub fn of(record: &Record) -> Self {
        let digest = hex::encode(Sha256::digest(record.principal.as_bytes()));
        Self {
            submitted: record.submitted,
            owner: digest.chars().take(16).collect(),
            id: record.id.clone(),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '-');
        Some(Self {
            submitted: parts.next()?.parse().ok()?,
            owner: parts.next()?.to_owned(),
            id: parts.next()?.parse().ok()?,
        })
    }

    fn path(&self, layout: &Layout) -> PathBuf {
        let name = format!("{:020}-{}-{}", self.submitted, self.owner, self.id);
        layout.queue().join(name)
    }
}

/// Takes a place in the queue; taking it again changes nothing.
///
/// # Errors
/// When the ticket cannot be written.
pub fn enter(layout: &Layout, ticket: &Ticket) -> io::Result<()> {
    lock_file(&ticket.path(layout)).map(|_| ())
}

/// Gives the place up.
pub fn leave(layout: &Layout, ticket: &Ticket) {
    let _ = fs::remove_file(ticket.path(layout));
}

/// Every ticket, in the order of acceptance.
///
/// # Errors
/// When the queue cannot be read.
pub fn tickets(layout: &Layout) -> io::Result<Vec<Ticket>> {
    let mut tickets = Vec::new();
    for entry in fs::read_dir(layout.queue())? {
        tickets.extend(entry?.file_name().to_str().and_then(Ticket::parse));
    }
    tickets.sort_unstable_by(|a, b| (a.submitted, &a.id).cmp(&(b.submitted, &b.id)));
    Ok(tickets)
}

/// Removes a ticket that is nobody's.
///
/// # Errors
/// When it cannot be removed.
pub fn discard(layout: &Layout, ticket: &Ticket) -> io::Result<()> {
    fs::remove_file(ticket.path(layout))
}

/// Removes what is in the queue and no ticket: of an earlier version, whose jobs make theirs anew.
///
/// # Errors
/// When the queue cannot be read.
pub fn tidy(layout: &Layout) -> io::Result<()> {
    for entry in fs::read_dir(layout.queue())? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') && Ticket::parse(&name).is_none() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Puts tickets, which are in the order of acceptance, into the order of their turns: principals take
/// turns, and one that had slots last has had as many. `held` has the last owner of each slot.
fn in_turn(tickets: Vec<Ticket>, held: &[String]) -> Vec<Ticket> {
    let mut turns: HashMap<String, usize> = HashMap::new();
    for owner in held {
        *turns.entry(owner.clone()).or_default() += 1;
    }
    let mut order: Vec<(usize, Ticket)> = (tickets.into_iter())
        .map(|ticket| {
            let turn = turns.entry(ticket.owner.clone()).or_default();
            *turn += 1;
            (*turn, ticket)
        })
        .collect();
    // Stable: of the same turn, who was accepted first.
    order.sort_by_key(|(turn, _)| *turn);
    order.into_iter().map(|(_, ticket)| ticket).collect()
}

/// How many builds wait before this one.
///
/// # Errors
/// When the queue cannot be read.
pub fn before(layout: &Layout, slots: u32, ticket: &Ticket) -> io::Result<usize> {
    let order = in_turn(tickets(layout)?, &held(layout, slots));
    Ok(order
        .iter()
        .take_while(|other| other.id != ticket.id)
        .count())
}

/// Who holds the slots, or held them last, as whoever took one wrote it down.
fn held(layout: &Layout, slots: u32) -> Vec<String> {
    let slots = (0..slots).map(|slot| layout.slots().join(slot.to_string()));
    slots
        .filter_map(|slot| fs::read_to_string(slot).ok())
        .collect()
}

/// How many of these tickets are alive, counted up to `enough`.
fn alive<'a>(layout: &Layout, tickets: impl Iterator<Item = &'a Ticket>, enough: usize) -> usize {
    tickets
        .filter(|ticket| is_alive(layout, &ticket.id))
        .take(enough)
        .count()
}

/// Whether the job of a build is alive.
pub fn is_alive(layout: &Layout, id: &BuildId) -> bool {
    let lock = layout.build(id).job_lock();
    lock.exists() && matches!(try_lock(&lock), Ok(None))
}

/// Takes a slot and a user, when nobody whose turn comes before could have them; who `is_patient` waits for the
/// user with its layers.
///
/// # Errors
/// When the slots or the users cannot be read.
pub fn take(
    layout: &Layout,
    slots: u32,
    users: &Users,
    ticket: &Ticket,
    scopes: &Scopes,
    is_patient: bool,
) -> io::Result<Result<Place, Missing>> {
    let enough = slots as usize;
    // Whoever had the slots, those of the same principal that were accepted before have their turns before.
    let all = tickets(layout)?;
    let own = all.iter().filter(|other| other.owner == ticket.owner);
    let own = own.take_while(|other| other.id != ticket.id);
    if alive(layout, own, enough) >= enough {
        return Ok(Err(Missing::Slot));
    }
    let _guard = lock(&layout.queue().join(".lock"))?;
    let mut free = Vec::new();
    for slot in 0..slots {
        if let Some(file) = try_lock(&layout.slots().join(slot.to_string()))? {
            free.push((slot, file));
        }
    }
    let order = in_turn(tickets(layout)?, &held(layout, slots));
    let before = order.iter().take_while(|other| other.id != ticket.id);
    let ahead = alive(layout, before, enough);
    // Those ahead take theirs; the ones not needed are let go at once.
    let slot = if free.len() > ahead { free.pop() } else { None };
    let Some((number, slot)) = slot else {
        return Ok(Err(Missing::Slot));
    };
    drop(free);
    let lease = match users.take(&warm(layout, scopes, is_patient), ahead)? {
        Ok(lease) => lease,
        Err(Lacking::All) => return Ok(Err(Missing::User)),
        Err(Lacking::Better) => return Ok(Err(Missing::Layers)),
    };
    // Whose turn is next hangs on it, and nothing else.
    let _ = fs::write(layout.slots().join(number.to_string()), &ticket.owner);
    Ok(Ok(Place { lease, _slot: slot }))
}

/// Users that have something here already: first those who have layers of the build's own scope, then
/// of the one it reads, then anything.
pub fn warm(layout: &Layout, scopes: &Scopes, is_patient: bool) -> Wanted {
    let entries = fs::read_dir(layout.caches()).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let ranked = names.map(|name| {
        let user = layout.cache(&name);
        let has = |scope: &str| has_scope(&user, scope);
        let warmth = match scopes.shared.as_deref() {
            _ if has(&scopes.own) => Warmth::Own,
            Some(shared) if has(shared) => Warmth::Shared,
            _ => Warmth::Nothing,
        };
        (warmth, name)
    });
    let mut names: Vec<(Warmth, String)> = ranked.collect();
    names.sort_unstable();
    Wanted { names, is_patient }
}

/// Writes on a build's ticket what it waits for.
pub fn tell(layout: &Layout, ticket: &Ticket, missing: Missing) {
    let _ = fs::write(ticket.path(layout), missing.code());
}

/// What a build waits for, as its job last said; `None` as long as it has said nothing.
pub fn missing(layout: &Layout, ticket: &Ticket) -> Option<Missing> {
    let code = fs::read_to_string(ticket.path(layout)).ok()?;
    [Missing::Slot, Missing::User, Missing::Layers]
        .into_iter()
        .find(|missing| missing.code() == code)
}

/// Tells those who wait that a slot may be free.
pub fn announce(layout: &Layout) {
    let _ = fs::write(layout.queue().join(".changed"), b"");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(tickets: &str, held: &str) -> String {
        let ticket = |(index, owner): (usize, &str)| {
            let mut random = [0u8; 16];
            random[0] = u8::try_from(index).unwrap();
            Ticket {
                submitted: i64::try_from(index).unwrap(),
                owner: owner.into(),
                id: BuildId::from_random(random),
            }
        };
        let tickets = tickets.split_whitespace().enumerate().map(ticket).collect();
        let held: Vec<String> = held.split_whitespace().map(str::to_owned).collect();
        let order = in_turn(tickets, &held);
        let words: Vec<String> = (order.iter())
            .map(|ticket| format!("{}{}", ticket.owner, ticket.submitted))
            .collect();
        words.join(" ")
    }

    #[test]
    fn principals_take_turns() {
        assert_eq!(order("a a a", ""), "a0 a1 a2");
        assert_eq!(order("a a a b", ""), "a0 b3 a1 a2");
        assert_eq!(order("a a a b", "a a"), "b3 a0 a1 a2");
        assert_eq!(order("a a b b c", "a b"), "c4 a0 b2 a1 b3");
        assert_eq!(order("a b", "x x x"), "a0 b1");
    }

    #[test]
    fn a_ticket_is_found_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        fs::create_dir_all(layout.queue()).unwrap();
        let ticket = Ticket {
            submitted: 1_700_000_000_000,
            owner: "0123456789abcdef".into(),
            id: BuildId::from_random([7; 16]),
        };
        enter(&layout, &ticket).unwrap();
        fs::write(layout.queue().join(".changed"), "").unwrap();
        tell(&layout, &ticket, Missing::User);
        assert_eq!(tickets(&layout).unwrap(), std::slice::from_ref(&ticket));
        assert_eq!(missing(&layout, &ticket), Some(Missing::User));
        leave(&layout, &ticket);
        assert_eq!(tickets(&layout).unwrap(), []);
        enter(&layout, &ticket).unwrap();
        fs::write(layout.queue().join(format!("{:020}-{}", 1, ticket.id)), "").unwrap();
        tidy(&layout).unwrap();
        assert_eq!(fs::read_dir(layout.queue()).unwrap().count(), 2);
    }
}
