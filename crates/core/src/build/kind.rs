//! The closed set of failures: what each is called, means, asks for, and who can usually mend it.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// Where a kind of failure comes from: a chapter of its documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The Containerfile, its context, or Buildah itself.
    Containerfile,
    /// What a command printed, in RUN or in a test, or how it ended.
    Command,
    /// A limit of the profile or of the machine.
    Limits,
    /// A registry, for base images or for a push.
    Registry,
    /// Git, patch and files of the source.
    Source,
    /// A test of the request.
    Test,
    /// The server, the scheduler, the sandbox, and their clocks.
    Server,
}

impl Origin {
    const ALL: &[Origin] = &[
        Origin::Source,
        Origin::Containerfile,
        Origin::Command,
        Origin::Test,
        Origin::Limits,
        Origin::Registry,
        Origin::Server,
    ];

    fn title(self) -> &'static str {
        match self {
            Origin::Containerfile => "Containerfile and context",
            Origin::Command => "Commands of RUN, and of tests",
            Origin::Limits => "Limits",
            Origin::Registry => "Registries",
            Origin::Source => "Source",
            Origin::Test => "Tests",
            Origin::Server => "Server and time",
        }
    }
}

macro_rules! kinds {
    ($($origin:ident { $($(#[doc = $doc:literal])* $name:ident = $text:literal, $fault:ident, $remedy:literal;)* })*) => {
        /// What went wrong: a closed set of `snake_case` words.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $($($(#[doc = $doc])* #[serde(rename = $text)] $name,)*)*
        }

        impl Kind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &[Kind] = &[$($(Kind::$name,)*)*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $($(Kind::$name => $text,)*)* }
            }

            /// Who can usually mend it.
            pub fn fault(self) -> Fault {
                match self { $($(Kind::$name => Fault::$fault,)*)* }
            }

            /// What it means, in one line.
            pub fn meaning(self) -> &'static str {
                match self { $($(Kind::$name => concat!($($doc),*).trim_ascii(),)*)* }
            }

            /// What to do about it, in one line.
            pub fn remedy(self) -> &'static str {
                match self { $($(Kind::$name => $remedy,)*)* }
            }

            /// Where it comes from.
            pub fn origin(self) -> Origin {
                match self { $($(Kind::$name => Origin::$origin,)*)* }
            }
        }
    };
}

kinds! {
Source {
    /// The git server wants credentials, or refuses the operator's.
    GitAuthFailed = "git_auth_failed", Operator, "Ask the operator for credentials for this repository.";
    /// There is no such repository, or it is hidden.
    GitRepositoryNotFound = "git_repository_not_found", Request, "Correct the URL; a private repository needs the operator's credentials.";
    /// The repository has no such branch, tag or commit.
    GitRefNotFound = "git_ref_not_found", Request, "Name a branch, tag or full commit id that the repository has.";
    /// The git server does not answer, or its name does not resolve (then the fault is unknown).
    GitUnreachable = "git_unreachable", Transient, "Try again later; correct the host where its name does not resolve.";
    /// The git server's certificate or host key is not trusted.
    GitTls = "git_tls", Operator, "Ask the operator to trust the certificate or host key.";
    /// Git failed in a way that is not in this table.
    GitFailed = "git_failed", Unknown, "Read the message and the log.";
    /// The patch does not apply.
    PatchRejected = "patch_rejected", Request, "Make the patch anew against exactly this ref.";
    /// The source holds something that is refused (a link out of it, a device, too much).
    SourceInvalid = "source_invalid", Request, "Remove what the message names from the source.";
}
Containerfile {
    /// The Containerfile has a fault of syntax, or an instruction that does not exist; or FROM takes an ARG that has neither
    /// default nor value (then the request is at fault).
    ContainerfileInvalid = "containerfile_invalid", Code, "Correct the line.";
    /// There is no Containerfile at that path.
    ContainerfileNotFound = "containerfile_not_found", Request, "Give its path as containerfile, or its directory as source.subdir.";
    /// The Containerfile has no stage of that name.
    TargetNotFound = "target_not_found", Request, "Name a stage of the Containerfile.";
    /// COPY or ADD names a file that the context, stage or image does not have.
    CopySourceMissing = "copy_source_missing", Code, "Copy a file that is there; mind the case of letters and the directory.";
    /// COPY or ADD names a file that an ignore file excludes.
    CopySourceIgnored = "copy_source_ignored", Code, "Take the file out of the ignore file.";
    /// COPY or ADD reaches outside the context.
    CopyOutsideContext = "copy_outside_context", Code, "Copy only from below the context.";
    /// COPY or ADD cannot write to that place.
    CopyDestinationInvalid = "copy_destination_invalid", Code, "End the destination of several files with a slash, and let no file be in its way.";
    /// ADD of an archive that is damaged.
    ArchiveInvalid = "archive_invalid", Code, "Replace the archive, or use COPY to take it as a file.";
    /// A user or group is not in the image.
    UserNotFound = "user_not_found", Code, "Make the user in an earlier step, or give its number.";
    /// What RUN --mount wants cannot be mounted.
    MountFailed = "mount_failed", Code, "Correct source, from and target of the mount.";
    /// RUN wants a secret that the request did not name.
    SecretMissing = "secret_missing", Request, "Name the secret in secrets.";
    /// A name of an image cannot be read.
    ImageReferenceInvalid = "image_reference_invalid", Code, "Write it as registry.example.com/name:tag, in lower case.";
    /// The image has nothing at a path of `outputs`.
    OutputMissing = "output_missing", Request, "Name a path that the final image has; mind the case of letters.";
    /// Buildah failed in a way that is not in this table.
    BuildError = "build_error", Unknown, "Read the message and the log.";
}
Command {
    /// A command ended with a status other than 0, for a reason that is not in this table.
    CommandFailed = "command_failed", Code, "Read the excerpt and the log.";
    /// A command is not in the image (status 127).
    CommandNotFound = "command_not_found", Code, "Install it in an earlier step, or correct its name.";
    /// A command is not executable (status 126).
    CommandNotExecutable = "command_not_executable", Code, "Make the file executable.";
    /// A program or image was built for another machine.
    WrongArchitecture = "wrong_architecture", Code, "Use a program or image for the architecture of this server.";
    /// A command died of a signal: a crash.
    CommandCrashed = "command_crashed", Unknown, "Look for a fault of the program; an illegal instruction may also be a processor that lacks it.";
    /// A command was ended by its own time limit.
    CommandTimedOut = "command_timed_out", Unknown, "Find what it waited for, or give it more time.";
    /// A shell cannot read its script.
    ShellError = "shell_error", Code, "Correct the script; /bin/sh is often not bash.";
    /// A file that a command wants is not there.
    FileNotFound = "file_not_found", Code, "Copy or make the file in an earlier step, or correct its path.";
    /// A command may not read, write or run a file as the user it runs as.
    PermissionDenied = "permission_denied", Code, "Change the file's owner or mode, or the USER of the step.";
    /// The system refused an operation that needs more rights than a build has.
    OperationNotPermitted = "operation_not_permitted", Unknown, "Do without it: builds have no rights over the machine.";
    /// A package manager does not know a package or version.
    PackageNotFound = "package_not_found", Code, "Correct its name or version, or refresh the index in the same RUN.";
    /// The index of a package manager cannot be had, or is out of date.
    PackageIndexFailed = "package_index_failed", Unknown, "Refresh the index in the same RUN; if it was refreshed, try again later.";
    /// The wanted versions of packages do not go together.
    PackageConflict = "package_conflict", Code, "Loosen or correct the versions that the excerpt names.";
    /// A lock file is missing, or does not fit what it locks.
    LockfileOutdated = "lockfile_outdated", Code, "Make the lock file anew and commit it.";
    /// A package was found and cannot be installed.
    PackageInstallFailed = "package_install_failed", Unknown, "Read the excerpt: often a tool or library for its build is missing.";
    /// What was downloaded has another checksum or signature than it should.
    ChecksumMismatch = "checksum_mismatch", Unknown, "Find out which of file and checksum is right.";
    /// A compiler refuses the code.
    CompileError = "compile_error", Code, "Correct the code at the first of the locations.";
    /// A linker refuses the objects.
    LinkError = "link_error", Code, "Define or link what is missing; install the library.";
    /// A build system refuses its own files, or lacks what they ask for.
    BuildToolError = "build_tool_error", Code, "Correct the file, or install what it asks for.";
    /// A linter, formatter or type checker objects.
    LintFailed = "lint_failed", Code, "Correct what it names.";
    /// A module or shared library is missing when a program starts.
    ModuleNotFound = "module_not_found", Code, "Install it, or correct its name or the search path.";
    /// A program ended with an exception or a panic.
    UncaughtException = "uncaught_exception", Code, "Correct the cause; locations has the frames in files of the source.";
    /// A name of a host does not resolve within a command.
    NameNotResolved = "name_not_resolved", Unknown, "Correct the name; if it is right, try again or ask the operator about the network of builds.";
    /// A host cannot be reached within a command.
    HostUnreachable = "host_unreachable", Unknown, "Builds reach no service of this machine; if it is another, try again later.";
    /// TLS with a host fails within a command.
    TlsFailed = "tls_failed", Unknown, "Install ca-certificates in the image; a private authority must be copied in.";
    /// A download within a command, or of ADD, took too long.
    DownloadTimedOut = "download_timed_out", Unknown, "Try again later.";
    /// What a command or ADD downloads is not there.
    DownloadNotFound = "download_not_found", Code, "Correct the URL or version.";
    /// A server refuses a download, or wants credentials.
    DownloadDenied = "download_denied", Unknown, "Pass a credential as a secret, or use another source.";
    /// A server failed during a download, or asks for patience.
    DownloadFailed = "download_failed", Unknown, "Try again later.";
}
Test {
    /// A test did not pass: one of the request, or of a test framework in RUN.
    TestFailed = "test_failed", Code, "Correct the code or the test.";
    /// A test did not end within its time.
    TestTimedOut = "test_timed_out", Code, "Make it faster, or give it a longer timeout.";
    /// A test could not be started.
    TestNotStarted = "test_not_started", Code, "Use a program that the image has; without a shell use argv.";
}
Limits {
    /// A process was killed for want of memory.
    OutOfMemory = "out_of_memory", Unknown, "Use less memory, as by fewer parallel jobs, or a profile with more.";
    /// The build reached a limit of its profile.
    LimitReached = "limit_reached", Code, "Need less, or choose a profile with more.";
    /// A disk is full.
    DiskFull = "disk_full", Operator, "Ask the operator for space; write less.";
}
Registry {
    /// A base image or tag does not exist.
    ImageNotFound = "image_not_found", Code, "Name an image and tag that exist.";
    /// A base image is named without its registry.
    ImageShortName = "image_short_name", Code, "Write the image with its registry.";
    /// A registry refuses the operator's credentials, or wants some.
    RegistryUnauthorized = "registry_unauthorized", Operator, "Ask the operator for credentials; mind that a registry also hides what does not exist.";
    /// A registry does not answer.
    RegistryUnreachable = "registry_unreachable", Transient, "Try again later.";
    /// The name of a registry does not resolve.
    RegistryUnknownHost = "registry_unknown_host", Unknown, "Correct the name; where it is right, the builder may be without name resolution or the internet.";
    /// A registry's TLS certificate is not trusted, or it speaks plain HTTP.
    RegistryTls = "registry_tls", Operator, "Ask the operator to trust it.";
    /// A registry wants fewer requests.
    RegistryRateLimited = "registry_rate_limited", Transient, "Try again later; the operator's credentials may raise the limit.";
    /// A registry answered with an error.
    RegistryError = "registry_error", Transient, "Try again later.";
    /// The registry wants credentials for the push.
    PushUnauthorized = "push_unauthorized", Operator, "Ask the operator for credentials that may push there.";
    /// The registry forbids this push.
    PushDenied = "push_denied", Operator, "Push to a repository that the operator's credentials may write to.";
    /// The registry refuses the image.
    PushRejected = "push_rejected", Unknown, "Read the message.";
}
Server {
    /// The whole build did not end within its time.
    TimedOut = "timed_out", Unknown, "Make the build faster, or give a longer timeout.";
    /// No capacity within `queue_timeout`.
    QueueTimedOut = "queue_timed_out", Operator, "Give a longer queue_timeout, or ask for capacity.";
    /// No machine of the cluster can ever run this profile.
    Unplaceable = "unplaceable", Operator, "Choose another profile.";
    /// The scheduler could not start the build's job.
    NotStarted = "not_started", Operator, "Ask the operator to look at the profile's job.";
    /// This machine has no working sandbox, or Buildah is missing.
    SandboxUnavailable = "sandbox_unavailable", Operator, "Ask the operator to run nomad-build check.";
    /// The runner died, its machine is gone, or it was stopped by somebody unknown.
    Interrupted = "interrupted", Transient, "Build again.";
    /// A fault of this server.
    Internal = "internal", Operator, "Ask the operator to look at the server's log.";
}
}

impl Kind {
    /// The documentation of all kinds, in Markdown.
    pub fn document() -> String {
        let mut text = String::from(
            "# Kinds of failures\n\n\
             Generated by `nomad-build schema --failures docs/failures.md`; a test compares.\n\n\
             `failure.kind` is one of these words. `failure.fault` says who can mend it: `code` (Containerfile, sources, tests),\n\
             `request` (the arguments of `build`), `operator` (who runs this server, a registry or a repository), `transient` (trying\n\
             again may succeed), or `unknown`. The fault of a failure is the one below unless more is known. What a command prints\n\
             can be made up: where it speaks of anything but the code, the fault is `unknown`.\n",
        );
        for origin in Origin::ALL {
            let _ = write!(
                text,
                "\n## {}\n\n| kind | usual fault | meaning | what to do |\n|---|---|---|---|\n",
                origin.title()
            );
            for kind in Kind::ALL.iter().filter(|kind| kind.origin() == *origin) {
                let _ = writeln!(
                    text,
                    "| `{}` | {} | {} | {} |",
                    kind.as_str(),
                    kind.fault().as_str(),
                    kind.meaning(),
                    kind.remedy()
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_serialised_as_documented() {
        let document = Kind::document();
        let mut seen = std::collections::HashSet::new();
        for kind in Kind::ALL {
            assert!(seen.insert(kind.as_str()));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert!(kind.meaning().ends_with('.'), "{}", kind.as_str());
            assert!(kind.remedy().ends_with('.'), "{}", kind.as_str());
            let row = format!("| `{}` | {} |", kind.as_str(), kind.fault().as_str());
            assert_eq!(document.matches(&row).count(), 1, "{row}");
        }
    }
}
