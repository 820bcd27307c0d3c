//! Uploads on a cluster: a note a principal as a Nomad Variable, a context as an OCI artifact.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::BackendError;
use crate::backend::uploads::{Depot, Uploads};
use crate::nomad::{Items, Written};

use super::core::Core;
use super::shelf::Shelf;
use super::stored::UPLOADS;

/// What a variable has the note under.
const ITEM: &str = "uploads";

/// See the module.
pub struct NomadDepot {
    core: Arc<Core>,
    scratch: PathBuf,
}

fn path(key: &str) -> String {
    format!("{UPLOADS}{key}")
}

impl NomadDepot {
    /// Uploads of a cluster whose server has a repository; what is on its way lies in `scratch`.
    pub fn new(core: Arc<Core>, scratch: PathBuf) -> Option<Self> {
        core.shelf.is_some().then_some(Self { core, scratch })
    }

    fn shelf(&self) -> Result<&Shelf, BackendError> {
        let shelf = self.core.shelf.as_ref();
        shelf.ok_or_else(|| BackendError::Unavailable("there is no nomad.repository".into()))
    }
}

#[async_trait]
impl Depot for NomadDepot {
    fn scratch(&self) -> &Path {
        &self.scratch
    }

    async fn note(&self, key: &str) -> Result<(Uploads, u64), BackendError> {
        let Some(variable) = self.core.client.variable(&path(key)).await? else {
            return Ok((Uploads::default(), 0));
        };
        let text = variable.items.get(ITEM).map_or("{}", String::as_str);
        let uploads = serde_json::from_str(text).map_err(|error| {
            BackendError::Unavailable(format!("the note of uploads {key} cannot be read: {error}"))
        })?;
        Ok((uploads, variable.modify_index))
    }

    async fn write(&self, key: &str, note: &Uploads, version: u64) -> Result<bool, BackendError> {
        let (client, path) = (&self.core.client, path(key));
        let written = if note.is_empty() {
            if version == 0 {
                return Ok(true);
            }
            client.delete_variable(&path, version).await
        } else {
            let text = serde_json::to_string(note);
            let text = text.map_err(|error| BackendError::Unavailable(error.to_string()))?;
            let items = Items::from([(ITEM.to_owned(), text)]);
            client.write_variable(&path, &items, version).await
        };
        match written {
            Ok(Written::Done(_)) => Ok(true),
            Ok(Written::Conflict(_)) => Ok(false),
            // Nobody knows whether it was written: what is there now tells.
            Err(error) if error.is_transient() => match self.note(key).await {
                Ok((there, _)) if there == *note => Ok(true),
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    async fn keys(&self) -> Result<Vec<String>, BackendError> {
        let list = self.core.client.variables(UPLOADS, 0, Duration::ZERO);
        let list = list.await?;
        let keys = list
            .value
            .iter()
            .filter_map(|one| one.path.strip_prefix(UPLOADS));
        Ok(keys.map(str::to_owned).collect())
    }

    fn place(&self, random: [u8; 16]) -> String {
        format!("context-{}", hex::encode(random))
    }

    async fn bring(&self, tar: &Path, place: &str) -> Result<(), BackendError> {
        let shelf = self.shelf()?;
        Ok(shelf.put_context(place, tar).await?)
    }

    async fn fetch(&self, place: &str, to: &Path) -> Result<(), BackendError> {
        Ok(self.shelf()?.fetch_context(place, to).await?)
    }

    async fn clear(&self, place: &str) -> Result<(), BackendError> {
        Ok(self.shelf()?.remove_tagged(place).await?)
    }
}
