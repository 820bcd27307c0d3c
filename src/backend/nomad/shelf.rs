//! The server's own repository: inputs that are too large for a dispatch, uploads, and archived logs.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::backend::local::credentials;
use crate::build::output::OutputStatus;
use crate::build::{BuildId, Plan};
use crate::config::Config;
use crate::registry::{
    ArtifactFile, Auth, Client, ClientOptions, Digest, PushReference, Reference, RegistryError,
    Repository,
};
use crate::runner::workdir::write_json;

use super::payload::{CONTEXT_TYPE, INPUT_TYPE, PLAN_TYPE, UPLOAD_TYPE};
use super::task::archive::{log_tag, outputs_tag};

/// Most bytes of an archived log, packed and unpacked.
const MAX_LOG: u64 = 4 << 30;

/// A tag that nobody sets.
const NOBODYS: &str = "nomad-build-check";

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

    /// Whether the repository can be read; it may be empty.
    ///
    /// # Errors
    /// When the registry does not answer, or refuses.
    pub async fn check(&self) -> io::Result<()> {
        let reference = Reference::parse(&format!("{}:{NOBODYS}", self.repository));
        let reference = reference.map_err(io::Error::other)?;
        let found = self.client.resolve(&reference, &self.auth()?).await;
        found.map(drop).map_err(io::Error::other)
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
        self.put(&format!("input-{id}"), INPUT_TYPE, &files, scratch.path())
            .await
    }

    /// Brings files into the repository under a tag; returns `host/repository@digest`. `scratch` is best on their file
    /// system.
    ///
    /// # Errors
    /// When the registry does not take them.
    pub async fn put(
        &self,
        tag: &str,
        kind: &str,
        files: &[ArtifactFile],
        scratch: &Path,
    ) -> io::Result<String> {
        let target = PushReference::parse(&format!("{}:{tag}", self.repository));
        let target = target.map_err(io::Error::other)?;
        let layout = scratch.join("layout");
        let auth = self.auth()?;
        let pushed = self
            .client
            .push_artifact(&target, kind, files, &layout, &auth);
        let digest = pushed.await.map_err(io::Error::other)?;
        Ok(Reference::by_digest(self.repository.clone(), digest).to_string())
    }

    /// Brings an upload into the repository, under a tag.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub async fn put_context(&self, tag: &str, tar: &Path) -> io::Result<()> {
        // Beside it: whoever sweeps what dead servers left finds both.
        let near = tar.parent().unwrap_or(tar);
        let scratch = tempfile::Builder::new().prefix("push-").tempdir_in(near)?;
        let files = [ArtifactFile {
            path: tar.to_owned(),
            media_type: CONTEXT_TYPE.into(),
        }];
        let put = self.put(tag, UPLOAD_TYPE, &files, scratch.path());
        put.await.map(drop)
    }

    /// Fetches an upload to `to`.
    ///
    /// # Errors
    /// When it is not there, or damaged.
    pub async fn fetch_context(&self, tag: &str, to: &Path) -> io::Result<()> {
        let artifact = self.resolve(tag).await?;
        let artifact = artifact.ok_or(io::ErrorKind::NotFound)?;
        let near = to.parent().unwrap_or(to);
        let scratch = tempfile::Builder::new().prefix("pull-").tempdir_in(near)?;
        let file = self.first_of(&artifact, scratch.path(), u64::MAX).await?;
        std::fs::rename(file.path, to)
    }

    /// Removes what has a tag; nothing is no error.
    ///
    /// # Errors
    /// When the registry does not remove it.
    pub async fn remove_tagged(&self, tag: &str) -> io::Result<()> {
        match self.resolve(tag).await? {
            Some(artifact) => self.remove(&artifact).await,
            None => Ok(()),
        }
    }

    /// What a tag stands for; `None`: nothing.
    async fn resolve(&self, tag: &str) -> io::Result<Option<String>> {
        let reference = Reference::parse(&format!("{}:{tag}", self.repository));
        let reference = reference.map_err(io::Error::other)?;
        let auth = self.auth()?;
        let found = self.client.resolve(&reference, &auth).await;
        let digest = found.map_err(io::Error::other)?;
        Ok(digest.map(|digest| Reference::by_digest(self.repository.clone(), digest).to_string()))
    }

    /// Fetches the first file of an artifact.
    async fn first_of(&self, artifact: &str, into: &Path, limit: u64) -> io::Result<ArtifactFile> {
        let reference = Reference::parse(artifact).map_err(io::Error::other)?;
        let auth = self.auth()?;
        let pulled = self.client.pull_artifact(&reference, into, limit, &auth);
        let files = pulled.await.map_err(io::Error::other)?;
        let first = files.into_iter().next();
        first.ok_or_else(|| io::Error::other("the artifact is empty"))
    }

    /// Fetches an output to `to`; `false`: it is not there any more.
    ///
    /// # Errors
    /// When the registry does not answer, or has something else.
    pub async fn fetch_output(&self, output: &OutputStatus, to: &Path) -> io::Result<bool> {
        let digest = output.digest.as_deref().unwrap_or_default();
        let digest = Digest::parse(digest).map_err(io::Error::other)?;
        let near = to.parent().unwrap_or(to);
        let scratch = tempfile::Builder::new()
            .prefix("output-")
            .tempdir_in(near.parent().unwrap_or(near))?;
        let part = scratch.path().join("part");
        let auth = self.auth()?;
        let size = output.size_bytes.unwrap_or(0);
        let pulled = self
            .client
            .pull_blob(&self.repository, &digest, size, &part, &auth);
        match pulled.await {
            Ok(()) => {}
            Err(RegistryError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(io::Error::other(error)),
        }
        if output.executable == Some(true) {
            std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o700))?;
        }
        std::fs::rename(part, to)?;
        Ok(true)
    }

    /// The log of an allocation, which it brought there itself; `None`: it did not.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn find_log(&self, id: &BuildId, allocation: &str) -> io::Result<Option<String>> {
        self.resolve(&log_tag(id, allocation)).await
    }

    /// Whether an allocation has brought its outputs there.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn has_outputs(&self, id: &BuildId, allocation: &str) -> io::Result<bool> {
        let found = self.resolve(&outputs_tag(id, allocation)).await?;
        Ok(found.is_some())
    }

    /// Fetches an archived log and unpacks it to `to`.
    ///
    /// # Errors
    /// When it is not there, or damaged.
    pub async fn fetch_log(&self, artifact: &str, to: &Path) -> io::Result<()> {
        let near = to.parent().unwrap_or(to);
        let scratch = tempfile::Builder::new().prefix("log-").tempdir_in(near)?;
        let file = self.first_of(artifact, scratch.path(), MAX_LOG).await?;
        let (from, to) = (file.path, to.to_owned());
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
            Err(RegistryError::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}
