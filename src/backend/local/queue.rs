//! What a build needs to run, a slot and a user, and who waits for them, in the order of acceptance.
//!
//! A slot is a lock that the job holds; it is free the moment the job dies. A build that waits has
//! a ticket, which says what it waits for; a ticket whose job is dead does not stand in anybody's
//! way. A job takes both or nothing.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use crate::build::BuildId;
use crate::build::scope::Scopes;
use crate::runner::cache::has_scope;

use super::layout::Layout;
use super::store::{lock, lock_file, try_lock};
use super::user::{Lease, Users};

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
}

impl Missing {
    /// A stable word.
    pub fn code(self) -> &'static str {
        match self {
            Self::Slot => "slots_busy",
            Self::User => "users_busy",
        }
    }
}

/// Ticket of a build.
fn ticket(submitted: i64, id: &BuildId) -> String {
    format!("{submitted:020}-{id}")
}

/// Takes a place in the queue; taking it again changes nothing.
///
/// # Errors
/// When the ticket cannot be written.
pub fn enter(layout: &Layout, submitted: i64, id: &BuildId) -> io::Result<()> {
    lock_file(&layout.queue().join(ticket(submitted, id))).map(|_| ())
}

/// Gives the place up.
pub fn leave(layout: &Layout, submitted: i64, id: &BuildId) {
    let _ = fs::remove_file(layout.queue().join(ticket(submitted, id)));
}

/// Tickets before this one, the oldest first.
fn tickets_before(layout: &Layout, submitted: i64, id: &BuildId) -> io::Result<Vec<String>> {
    let own = ticket(submitted, id);
    let mut tickets = Vec::new();
    for entry in fs::read_dir(layout.queue())? {
        if let Ok(name) = entry?.file_name().into_string()
            && name < own
            && !name.starts_with('.')
        {
            tickets.push(name);
        }
    }
    tickets.sort_unstable();
    Ok(tickets)
}

/// Every ticket and its build.
///
/// # Errors
/// When the queue cannot be read.
pub fn tickets(layout: &Layout) -> io::Result<Vec<(PathBuf, BuildId)>> {
    let mut tickets = Vec::new();
    for entry in fs::read_dir(layout.queue())? {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(build_of);
        tickets.extend(id.map(|id| (entry.path(), id)));
    }
    Ok(tickets)
}

/// The build of a ticket.
fn build_of(ticket: &str) -> Option<BuildId> {
    ticket.split_once('-')?.1.parse().ok()
}

/// How many builds wait before this one.
///
/// # Errors
/// When the queue cannot be read.
pub fn before(layout: &Layout, submitted: i64, id: &BuildId) -> io::Result<usize> {
    tickets_before(layout, submitted, id).map(|tickets| tickets.len())
}

/// How many builds that are alive wait before this one, counted up to `enough`.
fn alive_before(layout: &Layout, submitted: i64, id: &BuildId, enough: usize) -> io::Result<usize> {
    let alive = tickets_before(layout, submitted, id)?
        .iter()
        .filter(|name| build_of(name).is_some_and(|other| is_alive(layout, &other)))
        .take(enough)
        .count();
    Ok(alive)
}

/// Whether the job of a build is alive.
pub fn is_alive(layout: &Layout, id: &BuildId) -> bool {
    let lock = layout.build(id).job_lock();
    lock.exists() && matches!(try_lock(&lock), Ok(None))
}

/// Takes a slot and a user, when nobody who waits longer could have them.
///
/// # Errors
/// When the slots or the users cannot be read.
pub fn take(
    layout: &Layout,
    slots: u32,
    users: &Users,
    submitted: i64,
    id: &BuildId,
    scopes: &Scopes,
) -> io::Result<Result<Place, Missing>> {
    let enough = slots as usize;
    if alive_before(layout, submitted, id, enough)? >= enough {
        return Ok(Err(Missing::Slot));
    }
    let _guard = lock(&layout.queue().join(".lock"))?;
    let ahead = alive_before(layout, submitted, id, enough)?;
    let mut free = Vec::new();
    for slot in 0..slots {
        if let Some(file) = try_lock(&layout.slots().join(slot.to_string()))? {
            free.push(file);
        }
    }
    // Those ahead take theirs; the ones not needed are let go at once.
    let slot = if free.len() > ahead { free.pop() } else { None };
    let Some(slot) = slot else {
        return Ok(Err(Missing::Slot));
    };
    drop(free);
    let lease = users.take(&warm(layout, scopes), ahead)?;
    Ok(lease
        .map(|lease| Place { lease, _slot: slot })
        .ok_or(Missing::User))
}

/// Users that have something here already: first those who have layers of the build's own scope, then
/// of the one it reads, then anything.
pub fn warm(layout: &Layout, scopes: &Scopes) -> Vec<String> {
    let entries = fs::read_dir(layout.caches()).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort_by_cached_key(|name| {
        let user = layout.cache(name);
        let lacks = |scope: &str| !has_scope(&user, scope);
        let shared = scopes.shared.as_deref();
        (lacks(&scopes.own), shared.is_none_or(lacks), name.clone())
    });
    names
}

/// Writes on a build's ticket what it waits for.
pub fn tell(layout: &Layout, submitted: i64, id: &BuildId, missing: Missing) {
    let _ = fs::write(layout.queue().join(ticket(submitted, id)), missing.code());
}

/// What a build waits for, as its job last said; a slot, as long as it has said nothing.
pub fn missing(layout: &Layout, submitted: i64, id: &BuildId) -> Missing {
    let said = fs::read_to_string(layout.queue().join(ticket(submitted, id)));
    match said {
        Ok(code) if code == Missing::User.code() => Missing::User,
        _ => Missing::Slot,
    }
}

/// Tells those who wait that a slot may be free.
pub fn announce(layout: &Layout) {
    let _ = fs::write(layout.queue().join(".changed"), b"");
}
