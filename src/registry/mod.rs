//! Publishing a tested image from an OCI image layout on disk to registries.
//!
//! The order that makes the commit point exact is the caller's: [`Client::upload_blobs`] and
//! [`Client::put_manifest_by_digest`] for every repository, which nobody sees; then
//! [`Client::put_tag`] for each tag. What is sent is what [`Layout::open`] verified: manifests go as
//! the bytes they are, and registries check blobs against the digest they were verified with.
//!
//! Layout directories and registries' answers are not trusted: sizes are bounded, files are never
//! found through links, digests are compared, and credentials go only where they belong.

mod artifact;
mod auth;
mod client;
mod error;
mod http;
mod layout;
mod manifest;
mod retry;
mod session;
mod token;
mod upload;

#[cfg(test)]
mod tests;

pub use crate::build::digest::{BadDigest, Digest};
pub use crate::build::reference::{PushReference, Reference, ReferenceError, Repository};
pub use artifact::ArtifactFile;
pub use auth::{Auth, AuthError};
pub use client::{Client, ClientOptions};
pub use error::{RegistryError, TlsFault, Unreachable};
pub use layout::{Blob, Layout, LayoutError, MAX_LAYERS};
pub use manifest::{MAX_MANIFEST, Manifest};
pub use upload::Progress;
