//! Claims as Nomad Variables: which build holds a retry token.
//!
//! A claim is taken before its build's record is made. One without a record is therefore in the
//! hands of a server that is about to accept the build; or of one that died, after a while.

use std::time::Duration;

use crate::backend::Claim;
use crate::build::{BuildId, Record};
use crate::nomad::{Client, Items, Variable, Written};
use crate::runner::reporter::now_ms;

use super::store::{self, StoreError};
use super::stored::CLAIMS;

/// Milliseconds that a server has between a claim and the record of its build.
const ABOUT_TO: i64 = 20_000;
/// How often it is looked whether the record is there.
const LOOK: Duration = Duration::from_millis(50);

/// Claims that were taken, to be given back when the build is not accepted after all.
#[derive(Debug, Default)]
pub struct Taken(Vec<(String, u64)>);

/// What became of an attempt to take claims.
#[derive(Debug)]
pub enum Attempt {
    /// All are taken.
    Taken(Taken),
    /// Another build holds one.
    Held(Box<Record>),
}

#[derive(Debug)]
struct Held {
    build: BuildId,
    at: i64,
    lasts: i64,
}

impl Held {
    fn read(variable: &Variable) -> Option<Self> {
        let item = |name: &str| variable.items.get(name);
        Some(Self {
            build: item("build")?.parse().ok()?,
            at: item("at")?.parse().ok()?,
            lasts: item("lasts_ms")?.parse().ok()?,
        })
    }
}

fn items(id: &BuildId, claim: &Claim, now: i64) -> Items {
    Items::from([
        ("build".to_owned(), id.to_string()),
        ("at".to_owned(), now.to_string()),
        ("lasts_ms".to_owned(), claim.lasts.to_string()),
    ])
}

fn path(claim: &Claim) -> String {
    format!("{CLAIMS}{}", claim.name)
}

/// Who holds a claim, or the index at which it may be taken.
enum Holder {
    Build(Box<Record>),
    Nobody(u64),
}

async fn holder(client: &Client, claim: &Claim, own: &BuildId) -> Result<Holder, StoreError> {
    loop {
        let Some(variable) = client.variable(&path(claim)).await? else {
            return Ok(Holder::Nobody(0));
        };
        let free = Holder::Nobody(variable.modify_index);
        let Some(held) = Held::read(&variable) else {
            return Ok(free);
        };
        let now = now_ms();
        if held.build == *own || now - held.at > held.lasts {
            return Ok(free);
        }
        match store::read(client, &held.build).await {
            Ok(there) => {
                let record = there.stored.record;
                let holds = !claim.unfinished_only || record.end.is_none();
                return Ok(if holds {
                    Holder::Build(Box::new(record))
                } else {
                    free
                });
            }
            Err(StoreError::NotFound(_)) if now - held.at > ABOUT_TO => return Ok(free),
            Err(StoreError::NotFound(_)) => tokio::time::sleep(LOOK).await,
            Err(error) => return Err(error),
        }
    }
}

/// Takes all claims for a build, or none.
///
/// # Errors
/// When a claim cannot be read or written.
pub async fn take(client: &Client, claims: &[Claim], id: &BuildId) -> Result<Attempt, StoreError> {
    'again: loop {
        let mut free = Vec::new();
        for claim in claims {
            match holder(client, claim, id).await? {
                Holder::Build(record) => return Ok(Attempt::Held(record)),
                Holder::Nobody(index) => free.push((claim, index)),
            }
        }
        let mut taken = Taken::default();
        for (claim, index) in free {
            let items = items(id, claim, now_ms());
            match client.write_variable(&path(claim), &items, index).await? {
                Written::Done(index) => taken.0.push((path(claim), index)),
                // Somebody was faster: it has to be seen who.
                Written::Conflict(_) => {
                    taken.give_back(client).await;
                    continue 'again;
                }
            }
        }
        return Ok(Attempt::Taken(taken));
    }
}

/// A build that is the same as another holds that one's claims, too: those that are free.
///
/// # Errors
/// When a claim cannot be read or written.
pub async fn add(client: &Client, claims: &[Claim], id: &BuildId) -> Result<(), StoreError> {
    for claim in claims {
        if let Holder::Nobody(index) = holder(client, claim, id).await? {
            let items = items(id, claim, now_ms());
            // Whoever takes it in between has it.
            client.write_variable(&path(claim), &items, index).await?;
        }
    }
    Ok(())
}

impl Taken {
    /// Gives them back.
    pub async fn give_back(self, client: &Client) {
        for (path, index) in self.0 {
            if let Err(error) = client.delete_variable(&path, index).await {
                tracing::warn!(%error, "a claim cannot be given back; it ends on its own");
            }
        }
    }

    /// Whether they are still this build's: a server that was stopped for long may have lost them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn are_held(&self, client: &Client) -> Result<bool, StoreError> {
        for (path, index) in &self.0 {
            let there = client.variable(path).await?;
            if there.is_none_or(|there| there.modify_index != *index) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Removes claims whose time is over: `lasts_at_most` is in milliseconds.
///
/// # Errors
/// When they cannot be listed.
pub async fn sweep(client: &Client, lasts_at_most: i64) -> Result<(), StoreError> {
    let list = client.variables(CLAIMS, 0, Duration::ZERO).await?;
    let oldest = now_ms() - lasts_at_most;
    for claim in list.value {
        if claim.modify_time / 1_000_000 < oldest {
            client
                .delete_variable(&claim.path, claim.modify_index)
                .await?;
        }
    }
    Ok(())
}
