//! Git for strangers: fetches one commit of an untrusted repository and applies a patch to it.
//!
//! ```text
//! GitUrl, RefName ─▶ fetch: init ─▶ fetch ─▶ census ─▶ checkout ─▶ tree without .git ─▶ apply_patch
//! ```
//!
//! Invariants
//! - Every git runs with a cleared environment, no configuration but its command line, no hooks,
//!   filters, helpers or prompts, and only the one transport that its URL names.
//! - The repository lies outside of the tree, so that nothing finds a `.git` in what a user wrote.
//! - Credentials stand neither in an argument nor in a message, and go to one URL prefix only.
//! - Neither the repository nor the tree gets bigger than a source may be, and no process of git
//!   takes memory without end.
//! - A git that is cancelled, late or too big goes with all its children.

mod bounds;
mod census;
mod command;
mod credentials;
mod error;
mod fetch;
mod patch;
mod patch_files;
mod run;
mod text;

#[cfg(test)]
mod tests;

pub use crate::build::git_ref::{RefFault, RefName};
pub use crate::build::git_url::{GitUrl, Transport, UrlFault};
pub use command::{Git, Place};
pub use credentials::{CredentialFault, Credentials};
pub use error::{GitError, GitErrorKind};
pub use fetch::{FetchSpec, Fetched, RefKind, fetch};
pub use patch::{PatchError, PatchFailure, PatchStats, apply_patch};
pub use patch_files::UnsafePatch;
pub use run::Control;
