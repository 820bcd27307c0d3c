//! Records in Nomad Variables, changed by check-and-set.

use crate::backend::BackendError;
use crate::build::BuildId;
use crate::nomad::{Client, NomadError, Variable, Written};

use super::stored::{Stored, StoredError, path};

/// How often a change is tried against others who write the same record.
const ATTEMPTS: u32 = 20;

/// Why a record could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such build.
    #[error("there is no build {0}")]
    NotFound(BuildId),
    /// Nomad does not do it.
    #[error(transparent)]
    Nomad(#[from] NomadError),
    /// It cannot be stored, or what is stored cannot be read.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// Others were always faster.
    #[error("the record of {0} is written by too many at the same time")]
    Contended(BuildId),
}

impl From<StoreError> for BackendError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(id) => Self::NotFound(id),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<NomadError> for BackendError {
    fn from(error: NomadError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// A record and the index of its last change.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned {
    /// The record.
    pub stored: Stored,
    /// The index.
    pub index: u64,
}

fn versioned(variable: &Variable) -> Result<Versioned, StoreError> {
    Ok(Versioned {
        stored: Stored::decode(&variable.items)?,
        index: variable.modify_index,
    })
}

/// Reads a record.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none.
pub async fn read(client: &Client, id: &BuildId) -> Result<Versioned, StoreError> {
    match client.variable(&path(id)).await? {
        Some(variable) => versioned(&variable),
        None => Err(StoreError::NotFound(id.clone())),
    }
}

/// Makes a record; there must be none.
///
/// # Errors
/// When it cannot be written.
pub async fn create(client: &Client, stored: &Stored) -> Result<Versioned, StoreError> {
    let id = &stored.record.id;
    let items = stored.encode()?;
    match client.write_variable(&path(id), &items, 0).await {
        Ok(Written::Done(index)) => Ok(Versioned {
            stored: Stored::decode(&items)?,
            index,
        }),
        Ok(Written::Conflict(_)) => Err(StoreError::Contended(id.clone())),
        // Nobody knows whether it was written: what is there now tells.
        Err(error) if error.is_transient() => match read(client, id).await {
            Ok(there) if there.stored.record == stored.record => Ok(there),
            _ => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Changes a record: nobody else has written between reading and writing. `known` saves the first
/// reading. Returns the answer of the change that was written, or that changed nothing.
///
/// # Errors
/// When it cannot be read or written; then it is as before.
pub async fn update<T>(
    client: &Client,
    id: &BuildId,
    known: Option<Versioned>,
    change: impl Fn(&mut Stored) -> T,
) -> Result<(T, Versioned), StoreError> {
    let mut before = match known {
        Some(known) => known,
        None => read(client, id).await?,
    };
    for _ in 0..ATTEMPTS {
        let mut after = before.stored.clone();
        let answer = change(&mut after);
        if after == before.stored {
            return Ok((answer, before));
        }
        let items = after.encode()?;
        let written = client.write_variable(&path(id), &items, before.index).await;
        before = match written {
            Ok(Written::Done(index)) => {
                let stored = Stored::decode(&items)?;
                return Ok((answer, Versioned { stored, index }));
            }
            Ok(Written::Conflict(Some(variable))) => versioned(&variable)?,
            Ok(Written::Conflict(None)) => read(client, id).await?,
            // It may have been written: then the change finds itself done.
            Err(error) if error.is_transient() => {
                let there = read(client, id).await.map_err(|_| error)?;
                let ours = Stored::decode(&items)?;
                if there.stored == ours && there.index != before.index {
                    return Ok((answer, there));
                }
                there
            }
            Err(error) => return Err(error.into()),
        };
        // Those who collided must not collide again.
        let pause = std::time::Duration::from_millis(fastrand::u64(1..40));
        tokio::time::sleep(pause).await;
    }
    Err(StoreError::Contended(id.clone()))
}
