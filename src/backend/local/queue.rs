//! Machine-wide slots and who waits for one, in the order of acceptance.
//!
//! A slot is a lock that the job holds; it is free the moment the job dies. A build that waits has
//! a ticket; a ticket whose job is dead does not stand in anybody's way.

use std::fs::{self, File};
use std::io;

use crate::build::BuildId;

use super::layout::Layout;
use super::store::{lock, lock_file, try_lock};

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
        .filter(|name| {
            name.split_once('-')
                .and_then(|(_, id)| id.parse::<BuildId>().ok())
                .is_some_and(|other| is_alive(layout, &other))
        })
        .take(enough)
        .count();
    Ok(alive)
}

/// Whether the job of a build is alive.
pub fn is_alive(layout: &Layout, id: &BuildId) -> bool {
    let lock = layout.build(id).job_lock();
    lock.exists() && matches!(try_lock(&lock), Ok(None))
}

/// Takes a free slot, when nobody who waits longer could have it.
///
/// # Errors
/// When the slots cannot be read.
pub fn take_slot(
    layout: &Layout,
    slots: u32,
    submitted: i64,
    id: &BuildId,
) -> io::Result<Option<File>> {
    let enough = slots as usize;
    if alive_before(layout, submitted, id, enough)? >= enough {
        return Ok(None);
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
    Ok(if free.len() > ahead { free.pop() } else { None })
}

/// Tells those who wait that a slot may be free.
pub fn announce(layout: &Layout) {
    let _ = fs::write(layout.queue().join(".changed"), b"");
}
