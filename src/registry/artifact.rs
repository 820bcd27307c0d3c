//! Files in a repository that are no image: an OCI manifest whose layers are the files.
//!
//! "Guidelines for Artifact Usage" of the OCI image specification 1.1: the configuration is the
//! empty JSON object, `artifactType` says what it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use super::Repository;
use super::auth::Auth;
use super::client::Client;
use super::error::RegistryError;
use super::layout::Layout;
use super::manifest::OCI_MANIFEST;
use crate::build::digest::{Digest, Hashing};
use crate::build::reference::{PushReference, Reference};

/// Annotation with the owner.
const OWNER: &str = "nomad-build.owner";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Longest without any progress of a download.
const STALLED: std::time::Duration = std::time::Duration::from_secs(60);

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// Where it is on this machine.
    pub path: PathBuf,
    /// What it is.
    pub media_type: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: Digest,
    size: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ArtifactManifest {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: String,
    #[serde(rename = "artifactType")]
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    /// Whose it is: no two owners have the same manifest, so what one removes is its own.
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Client {
    /// Pushes files under a tag, which is their owner's alone; `scratch` is an empty directory for the layout, best on the files' own
    /// file system. Returns the manifest's digest.
    ///
    /// # Errors
    /// When a file cannot be read, or the registry does not take it.
    pub async fn push_artifact(
        &self,
        target: &PushReference,
        artifact_type: &str,
        files: &[ArtifactFile],
        scratch: &Path,
        auth: &Auth,
    ) -> Result<Digest, RegistryError> {
        let (dir, kind, files) = (
            scratch.to_owned(),
            artifact_type.to_owned(),
            files.to_owned(),
        );
        let owner = target.tag().to_owned();
        let layout = tokio::task::spawn_blocking(move || {
            lay_out(&dir, &kind, &files, &owner).map_err(|error| error.to_string())?;
            Layout::open(&dir, u64::MAX).map_err(|error| error.to_string())
        });
        let layout = layout
            .await
            .unwrap_or_else(|error| Err(error.to_string()))
            .map_err(RegistryError::Setup)?;
        self.upload_blobs(&layout, target.repository(), auth, &mut |_| {})
            .await?;
        self.put_tag(layout.manifest(), target, auth).await
    }

    /// Fetches the files of an artifact, given by its digest, into a directory; every byte is
    /// compared, and `limit` bounds them together.
    ///
    /// # Errors
    /// When it is not there, is something else, or is larger.
    pub async fn pull_artifact(
        &self,
        reference: &Reference,
        into: &Path,
        limit: u64,
        auth: &Auth,
    ) -> Result<Vec<ArtifactFile>, RegistryError> {
        let manifest = self.manifest(reference, auth).await?;
        let protocol = |what| RegistryError::Protocol {
            host: reference.repository().host().to_owned(),
            what,
        };
        let read: ArtifactManifest = serde_json::from_slice(manifest.bytes())
            .map_err(|_| protocol("a manifest that is no artifact's"))?;
        let total = read.layers.iter().map(|layer| layer.size);
        if total.fold(0, u64::saturating_add) > limit {
            return Err(protocol("an artifact that is larger than it may be"));
        }
        let mut files = Vec::new();
        for (index, layer) in read.layers.into_iter().enumerate() {
            let path = into.join(format!("layer-{index}"));
            self.pull_blob(
                reference.repository(),
                &layer.digest,
                layer.size,
                &path,
                auth,
            )
            .await?;
            files.push(ArtifactFile {
                path,
                media_type: layer.media_type,
            });
        }
        Ok(files)
    }

    /// Fetches a blob of `size` bytes to `path`, and compares every byte.
    ///
    /// # Errors
    /// When it is not there, is another, or cannot be written.
    pub async fn pull_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        path: &Path,
        auth: &Auth,
    ) -> Result<(), RegistryError> {
        let host = || repository.host().to_owned();
        let local = |error: io::Error| RegistryError::Setup(format!("{}: {error}", path.display()));
        let mut file = tokio::fs::File::create(path).await.map_err(local)?;
        let mut response = self.blob(repository, digest, auth).await?;
        let (mut hash, mut came) = (Sha256::new(), 0u64);
        loop {
            let chunk = tokio::time::timeout(STALLED, response.chunk()).await;
            let chunk = chunk.map_err(|_| RegistryError::Protocol {
                host: host(),
                what: "a blob that does not come to its end",
            })?;
            let chunk = chunk.map_err(|error| RegistryError::from_transport(&host(), error))?;
            let Some(bytes) = chunk else { break };
            came += bytes.len() as u64;
            if came > size {
                break;
            }
            hash.update(&bytes);
            file.write_all(&bytes).await.map_err(local)?;
        }
        file.flush().await.map_err(local)?;
        let found = Digest::of_hash(hash);
        if came != size || found != *digest {
            return Err(RegistryError::DigestMismatch {
                host: host(),
                expected: digest.clone(),
                found,
            });
        }
        Ok(())
    }
}

/// Makes an image layout in `dir` with these files as layers. Blocks.
fn lay_out(dir: &Path, artifact_type: &str, files: &[ArtifactFile], owner: &str) -> io::Result<()> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let bytes_in = |bytes: &[u8], media_type: &str| -> io::Result<Descriptor> {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes)?;
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size: bytes.len() as u64,
        })
    };
    let mut layers = Vec::new();
    for file in files {
        let mut hashing = Hashing::new(io::sink());
        io::copy(&mut fs::File::open(&file.path)?, &mut hashing)?;
        let (digest, size) = hashing.finish();
        let blob = blobs.join(digest.hex());
        if !blob.exists() && fs::hard_link(&file.path, &blob).is_err() {
            fs::copy(&file.path, &blob)?;
        }
        layers.push(Descriptor {
            media_type: file.media_type.clone(),
            digest,
            size,
        });
    }
    let manifest = ArtifactManifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.into(),
        artifact_type: artifact_type.into(),
        config: bytes_in(b"{}", EMPTY)?,
        layers,
        annotations: [(OWNER.to_owned(), owner.to_owned())].into(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(io::Error::other)?;
    let named = bytes_in(&bytes, OCI_MANIFEST)?;
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [named]});
    fs::write(dir.join("index.json"), index.to_string())?;
    fs::write(dir.join("oci-layout"), super::layout::LAYOUT_FILE)
}
