//! The server's own repository: inputs that are too large for a dispatch, and archived logs.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::GzDecoder;

use crate::backend::local::credentials;
use crate::build::{BuildId, Plan};
use crate::config::Config;
use crate::registry::{
    ArtifactFile, Auth, Client, ClientOptions, PushReference, Reference, Repository,
};
use crate::runner::workdir::write_json;

use super::payload::{CONTEXT_TYPE, INPUT_TYPE, PLAN_TYPE};
use super::task::archive::log_tag;

/// Most bytes of an archived log, packed and unpacked.
const MAX_LOG: u64 = 4 << 30;

/// See the module.
#[derive(Debug)]
pub struct Shelf {
    config: Config,
    client: Client,
    repository: Repository,
}

impl Shelf {
    /// The repository of the configuration, if there is one.
    ///
    /// # Errors
    /// When the configuration of registries cannot be used.
    pub fn open(config: &Config) -> io::Result<Option<Self>> {
        let Some(repository) = &config.nomad.repository else {
            return Ok(None);
        };
        Ok(Some(Self {
            client: Client::new(ClientOptions::from(&config.registry)).map_err(io::Error::other)?,
            repository: Repository::parse(repository).map_err(io::Error::other)?,
            config: config.clone(),
        }))
    }

    /// Read for each use: it may be renewed.
    fn auth(&self) -> io::Result<Auth> {
        Auth::from_slice(&credentials::registry(&self.config)?).map_err(io::Error::other)
    }

    /// Brings plan and context of a build into the repository; returns `host/repository@digest`.
    ///
    /// # Errors
    /// When the registry does not take them.
    pub async fn put_input(
        &self,
        id: &BuildId,
        plan: Option<&Plan>,
        context: Option<&Path>,
        staging: &Path,
    ) -> io::Result<String> {
        let scratch = tempfile::Builder::new()
            .prefix("input-")
            .tempdir_in(staging)?;
        let mut files = Vec::new();
        if let Some(plan) = plan {
            let path = scratch.path().join("plan.json");
            write_json(&path, plan)?;
            files.push(ArtifactFile {
                path,
                media_type: PLAN_TYPE.into(),
            });
        }
        files.extend(context.map(|path| ArtifactFile {
            path: path.to_owned(),
            media_type: CONTEXT_TYPE.into(),
        }));
        let target = PushReference::parse(&format!("{}:input-{id}", self.repository));
        let target = target.map_err(io::Error::other)?;
        let layout = scratch.path().join("layout");
        let auth = self.auth()?;
        let pushed = self
            .client
            .push_artifact(&target, INPUT_TYPE, &files, &layout, &auth);
        let digest = pushed.await.map_err(io::Error::other)?;
        Ok(Reference::by_digest(self.repository.clone(), digest).to_string())
    }

    /// The log of an allocation, which it brought there itself; `None`: it did not.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn find_log(&self, id: &BuildId, allocation: &str) -> io::Result<Option<String>> {
        let tag = log_tag(id, allocation);
        let reference = Reference::parse(&format!("{}:{tag}", self.repository));
        let reference = reference.map_err(io::Error::other)?;
        let auth = self.auth()?;
        let found = self.client.resolve(&reference, &auth).await;
        let digest = found.map_err(io::Error::other)?;
        Ok(digest.map(|digest| Reference::by_digest(self.repository.clone(), digest).to_string()))
    }

    /// Fetches an archived log and unpacks it to `to`.
    ///
    /// # Errors
    /// When it is not there, or damaged.
    pub async fn fetch_log(&self, artifact: &str, to: &Path) -> io::Result<()> {
        let reference = Reference::parse(artifact).map_err(io::Error::other)?;
        let near = to.parent().unwrap_or(to);
        let scratch = tempfile::Builder::new().prefix("log-").tempdir_in(near)?;
        let auth = self.auth()?;
        let pulled = self
            .client
            .pull_artifact(&reference, scratch.path(), MAX_LOG, &auth);
        let files = pulled.await.map_err(io::Error::other)?;
        let file = files
            .first()
            .ok_or_else(|| io::Error::other("the archive of the log is empty"))?;
        let (from, to) = (file.path.clone(), to.to_owned());
        tokio::task::spawn_blocking(move || {
            // Beside it first: whoever reads the log sees the old or the new one.
            let whole = from.with_extension("whole");
            let mut log = GzDecoder::new(File::open(from)?).take(MAX_LOG);
            io::copy(&mut log, &mut File::create(&whole)?)?;
            std::fs::rename(whole, to)
        })
        .await
        .map_err(io::Error::other)?
    }

    /// Removes an artifact; one that is not there is no error.
    ///
    /// # Errors
    /// When the registry does not remove it.
    pub async fn remove(&self, artifact: &str) -> io::Result<()> {
        let reference = Reference::parse(artifact).map_err(io::Error::other)?;
        let Some(digest) = reference.digest() else {
            return Ok(());
        };
        let auth = self.auth()?;
        let removed = self
            .client
            .delete_manifest(reference.repository(), digest, &auth);
        match removed.await {
            Err(crate::registry::RegistryError::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}
