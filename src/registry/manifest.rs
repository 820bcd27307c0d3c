//! A manifest as bytes: what is hashed, tagged and sent is never parsed and written anew.

use crate::build::digest::Digest;

/// Largest manifest (and `index.json`), in bytes; registries take no larger one either.
pub const MAX_MANIFEST: u64 = 4 << 20;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A manifest's bytes, their digest and media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    bytes: Vec<u8>,
    media_type: String,
    digest: Digest,
}

impl Manifest {
    pub fn new(bytes: Vec<u8>, media_type: &str) -> Self {
        Self {
            digest: Digest::of(&bytes),
            media_type: media_type.to_owned(),
            bytes,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}
