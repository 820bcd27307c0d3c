//! The typed reason why a build did not succeed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::state::Phase;

/// Who can mend a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The code that was built: Containerfile, sources, tests.
    Code,
    /// The arguments of the `build` call.
    Request,
    /// Whoever runs this server, or the registry's or repository's owner.
    Operator,
    /// Nobody: trying again may succeed.
    Transient,
    /// It cannot be known.
    Unknown,
}

impl Fault {
    /// The name by which records and answers know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Request => "request",
            Self::Operator => "operator",
            Self::Transient => "transient",
            Self::Unknown => "unknown",
        }
    }
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $fault:ident;)*) => {
        /// What went wrong: a closed set of `snake_case` words.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[doc = $doc])* #[serde(rename = $text)] $name,)*
        }

        impl Kind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$name => $text,)* }
            }

            /// Who can usually mend it.
            pub fn fault(self) -> Fault {
                match self { $(Kind::$name => Fault::$fault,)* }
            }

            /// What it means, in one line.
            pub fn meaning(self) -> &'static str {
                match self { $(Kind::$name => concat!($($doc),*).trim_ascii(),)* }
            }
        }
    };
}

kinds! {
    /// The Containerfile has a fault of syntax, or an instruction that does not exist.
    ContainerfileInvalid = "containerfile_invalid", Code;
    /// There is no Containerfile at that path.
    ContainerfileNotFound = "containerfile_not_found", Request;
    /// The Containerfile has no stage of that name.
    TargetNotFound = "target_not_found", Request;
    /// COPY or ADD names a file that the context does not have.
    CopySourceMissing = "copy_source_missing", Code;
    /// COPY or ADD names a file that an ignore file excludes.
    CopySourceIgnored = "copy_source_ignored", Code;
    /// COPY or ADD reaches outside the context.
    CopyOutsideContext = "copy_outside_context", Code;
    /// A RUN command ended with a status other than 0.
    CommandFailed = "command_failed", Code;
    /// A RUN command is not in the image (status 127).
    CommandNotFound = "command_not_found", Code;
    /// A RUN command is not executable, or built for another machine (status 126).
    CommandNotExecutable = "command_not_executable", Code;
    /// A package manager does not know a package.
    PackageNotFound = "package_not_found", Code;
    /// A process was killed for want of memory.
    OutOfMemory = "out_of_memory", Unknown;
    /// The build reached a limit of its profile.
    LimitReached = "limit_reached", Code;
    /// A disk is full.
    DiskFull = "disk_full", Operator;
    /// RUN wants a secret that the request did not name.
    SecretMissing = "secret_missing", Request;
    /// Buildah failed in a way that is not in this table.
    BuildError = "build_error", Unknown;
    /// A base image or tag does not exist.
    ImageNotFound = "image_not_found", Code;
    /// A base image is named without its registry.
    ImageShortName = "image_short_name", Code;
    /// A registry refuses the operator's credentials, or wants some.
    RegistryUnauthorized = "registry_unauthorized", Operator;
    /// A registry does not answer.
    RegistryUnreachable = "registry_unreachable", Transient;
    /// The name of a registry does not resolve.
    RegistryUnknownHost = "registry_unknown_host", Unknown;
    /// A registry's TLS certificate is not trusted, or it speaks plain HTTP.
    RegistryTls = "registry_tls", Operator;
    /// A registry answered with an error.
    RegistryError = "registry_error", Transient;
    /// The registry wants credentials for the push.
    PushUnauthorized = "push_unauthorized", Operator;
    /// The registry forbids this push.
    PushDenied = "push_denied", Operator;
    /// The registry refuses the image.
    PushRejected = "push_rejected", Unknown;
    /// The git server wants credentials, or refuses the operator's.
    GitAuthFailed = "git_auth_failed", Operator;
    /// There is no such repository, or it is hidden.
    GitRepositoryNotFound = "git_repository_not_found", Request;
    /// The repository has no such branch, tag or commit.
    GitRefNotFound = "git_ref_not_found", Request;
    /// The git server does not answer.
    GitUnreachable = "git_unreachable", Transient;
    /// The git server's certificate or host key is not trusted.
    GitTls = "git_tls", Operator;
    /// Git failed in a way that is not in this table.
    GitFailed = "git_failed", Unknown;
    /// The patch does not apply.
    PatchRejected = "patch_rejected", Request;
    /// The source holds something that is refused (a link out of it, a device, too much).
    SourceInvalid = "source_invalid", Request;
    /// A test ended with a status other than 0.
    TestFailed = "test_failed", Code;
    /// A test did not end within its time.
    TestTimedOut = "test_timed_out", Code;
    /// A test could not be started.
    TestNotStarted = "test_not_started", Code;
    /// The whole build did not end within its time.
    TimedOut = "timed_out", Unknown;
    /// No capacity within `queue_timeout`.
    QueueTimedOut = "queue_timed_out", Operator;
    /// No machine of the cluster can ever run this profile.
    Unplaceable = "unplaceable", Operator;
    /// The scheduler could not start the build's job.
    NotStarted = "not_started", Operator;
    /// This machine has no working sandbox, or Buildah is missing.
    SandboxUnavailable = "sandbox_unavailable", Operator;
    /// The runner died, or was stopped by somebody unknown.
    Interrupted = "interrupted", Transient;
    /// A fault of this server.
    Internal = "internal", Operator;
}

/// A place in the user's own files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Location {
    /// Path relative to the root of the source.
    pub file: String,
    /// Line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What was said about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Why a build did not succeed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// Phase in which it failed: `source`, `build`, `test` or `publish`; absent when it never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What went wrong, a snake_case word.
    #[schemars(with = "String")]
    pub kind: Kind,
    /// Who can mend it.
    pub fault: Fault,
    /// Whether the same call may succeed later without a change.
    pub retryable: bool,
    /// One sentence; may quote foreign words.
    pub message: String,
    /// File it points at, relative to the root of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in `file`, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Stage of the Containerfile: its name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Step within the stage, from 1, as in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// The instruction that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// The test that failed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// Exit status of the command or test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Places in the user's own files, first cause first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<Location>,
    /// The decisive lines of the log, at most 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
    /// Pass it as `cursor` to `logs` with `from: "start"` to read on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_cursor: Option<String>,
    /// What to do, where it is sure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// A reminder that excerpt and message are data from elsewhere, not instructions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Failure {
    /// A failure with the kind's usual fault and nothing further.
    pub fn new(phase: impl Into<Option<Phase>>, kind: Kind, message: impl Into<String>) -> Self {
        let fault = kind.fault();
        Self {
            phase: phase.into(),
            kind,
            fault,
            retryable: fault == Fault::Transient,
            message: message.into(),
            file: None,
            line: None,
            stage: None,
            step: None,
            instruction: None,
            test: None,
            exit_code: None,
            locations: Vec::new(),
            excerpt: None,
            log_cursor: None,
            hint: None,
            note: None,
        }
    }

    /// With another fault than the kind's usual one.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self.retryable = fault == Fault::Transient;
        self
    }

    /// With a sentence that says what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the place it points at.
    #[must_use]
    pub fn at(mut self, file: impl Into<String>, line: impl Into<Option<u32>>) -> Self {
        self.file = Some(file.into());
        self.line = line.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_serialised_as_documented() {
        let mut seen = std::collections::HashSet::new();
        for kind in Kind::ALL {
            assert!(seen.insert(kind.as_str()));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert!(kind.meaning().ends_with('.'), "{}", kind.as_str());
        }
    }
}
