//! The plan: a validated request as the runner gets it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::BuildId;
use super::named_context::NamedContext;
use super::output::IMAGE;
use super::request::FileRequest;
use super::scope::Scopes;

/// Newest version of the plan's format that this program makes and takes.
pub const PLAN_VERSION: u32 = 2;
/// What a plan is that has nothing but what every version knows.
const FIRST_VERSION: u32 = 1;

/// Everything the runner needs to know, and nothing secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The oldest version of the format that has all that is in it: 2 where there are named build contexts, else 1.
    pub v: u32,
    /// The build.
    pub build_id: BuildId,
    /// Where the sources come from.
    pub source: PlanSource,
    /// Directory of the source that becomes the context; `None`: its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdir: Option<String>,
    /// Directory of the caller's source that the snapshot was taken of, for display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_below: Option<String>,
    /// Path of the Containerfile below the context; `None`: Containerfile, then Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containerfile: Option<String>,
    /// Stage to build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `KEY=VALUE` build arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_args: Vec<(String, String)>,
    /// Named build contexts, as [`NamedContext::of`] reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_contexts: Vec<(String, String)>,
    /// `KEY=VALUE` labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    /// Full references to push to, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Tests, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<PlanTest>,
    /// What is handed over: absolute paths in the final image, and `image` for itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// Stop after the first failing test.
    #[serde(default)]
    pub fail_fast: bool,
    /// Names of the secrets for `RUN --mount=type=secret`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Execute every step anew.
    #[serde(default)]
    pub no_cache: bool,
    /// What it may reuse, and where it may leave something.
    #[serde(default)]
    pub scopes: Scopes,
    /// Profile whose limits hold.
    pub profile: String,
    /// Seconds the build may take from its start.
    pub timeout: u32,
    /// Seconds it may wait for capacity.
    pub queue_timeout: u32,
    /// When it was accepted, in seconds since 1970; the bounds above count from here and from the start.
    pub submitted: i64,
}

impl Plan {
    /// The version of a plan with these named build contexts.
    pub fn version(build_contexts: &[(String, String)]) -> u32 {
        match build_contexts {
            [] => FIRST_VERSION,
            _ => PLAN_VERSION,
        }
    }

    /// No part of this build may go on after this moment, in seconds since 1970.
    pub fn latest_end(&self) -> i64 {
        self.submitted + i64::from(self.queue_timeout) + i64::from(self.timeout)
    }

    /// Named build contexts that are directories: names, and paths below the root of the source, empty for the root.
    pub fn context_directories(&self) -> impl Iterator<Item = (&str, &str)> {
        let contexts = self.build_contexts.iter();
        contexts.filter_map(|(name, value)| match NamedContext::of(value) {
            NamedContext::Directory(path) => Some((name.as_str(), path)),
            NamedContext::Image(_) => None,
        })
    }

    /// The directory of the source that a snapshot is taken of; `None`: its root.
    pub fn snapshot_below(&self) -> Option<&str> {
        // Named contexts may lie beside it.
        let is_alone = self.context_directories().next().is_none();
        self.subdir.as_deref().filter(|_| is_alone)
    }

    /// Paths of the final image that are handed over.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let paths = self.outputs.iter().filter(|from| *from != IMAGE);
        paths.map(String::as_str)
    }

    /// Whether the image itself is handed over.
    pub fn wants_image(&self) -> bool {
        self.outputs.iter().any(|from| from == IMAGE)
    }

    /// All that is handed over: of the image as it was asked for, of a test `TEST:PATH`.
    pub fn every_output(&self) -> impl Iterator<Item = String> {
        let left = (self.tests.iter())
            .flat_map(|test| test.outputs.iter().map(move |path| (&test.name, path)));
        let left = left.map(|(test, path)| format!("{test}:{path}"));
        self.outputs.iter().cloned().chain(left)
    }

    /// Names of the secrets that tests find, each once.
    pub fn test_secrets(&self) -> BTreeSet<&str> {
        let all = self.tests.iter().flat_map(|test| &test.secrets);
        all.map(String::as_str).collect()
    }
}

/// Where the sources come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PlanSource {
    /// A git repository, fetched by the runner.
    Git {
        /// URL without credentials.
        url: String,
        /// Branch, tag or commit; `None`: the default branch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        git_ref: Option<String>,
        /// Patch to apply.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        patch: Option<String>,
        /// Files laid over the checkout.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<FileRequest>,
    },
    /// A snapshot (tar) that was taken when the build was accepted.
    Snapshot {
        /// `sha256:` digest of the tar.
        digest: String,
        /// What the caller named: `path`, `files` or `context`, for display.
        origin: String,
    },
}

/// One test as the runner gets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanTest {
    /// Unique within the plan.
    pub name: String,
    /// Program and arguments; a command line has become `/bin/sh -c LINE`.
    pub argv: Vec<String>,
    /// Environment on top of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(String, String)>,
    /// Seconds it may take.
    pub timeout: u32,
    /// Stage in whose image it runs; `None`: the final image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Names of the secrets that it finds at `/run/secrets/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Absolute paths in its container that are handed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// Absolute path in its container of a JUnit file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}
