//! Claims: which build holds a retry token.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::backend::Claim;
use crate::build::BuildId;
use crate::runner::workdir::read_json;

use super::layout::Layout;
use super::store;

#[derive(Debug, Serialize, Deserialize)]
struct Held {
    id: BuildId,
    at: i64,
    lasts: i64,
}

/// The build that holds one of the claims, if any. Call it with [`guard`] held.
///
/// # Errors
/// When a claim exists and cannot be read.
pub fn holder(layout: &Layout, claims: &[Claim], now: i64) -> io::Result<Option<BuildId>> {
    for claim in claims {
        let held: Held = match read_json(&layout.claim(&claim.name)) {
            Ok(held) => held,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if now - held.at > held.lasts {
            continue;
        }
        // A claim without its build: the server died before it was accepted.
        let Ok(record) = store::read(&layout.build(&held.id)) else {
            continue;
        };
        if !claim.unfinished_only || record.end.is_none() {
            return Ok(Some(held.id));
        }
    }
    Ok(None)
}

/// Writes the claims for a build. Call it with [`guard`] held.
///
/// # Errors
/// When one cannot be written.
pub fn write(layout: &Layout, claims: &[Claim], id: &BuildId, now: i64) -> io::Result<()> {
    for claim in claims {
        let held = Held {
            id: id.clone(),
            at: now,
            lasts: claim.lasts,
        };
        store::replace(
            &layout.claim(&claim.name),
            &serde_json::to_vec(&held).map_err(io::Error::other)?,
        )?;
    }
    Ok(())
}

/// Held while claims are compared and written.
///
/// # Errors
/// When it cannot be locked.
pub fn guard(layout: &Layout) -> io::Result<fs::File> {
    store::lock(&layout.claim(".lock"))
}

/// Removes claims whose time is over.
pub fn sweep(layout: &Layout, now: i64) {
    let Ok(_guard) = guard(layout) else {
        return;
    };
    let Ok(entries) = fs::read_dir(layout.claim("")) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name() == ".lock" {
            continue;
        }
        let over = read_json::<Held>(&entry.path()).map_or(true, |held| now - held.at > held.lasts);
        if over {
            let _ = fs::remove_file(entry.path());
        }
    }
}
