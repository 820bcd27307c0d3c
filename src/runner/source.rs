//! Phase source: the sources are brought in, outside the sandbox and with credentials, and the
//! Containerfile is read before anything runs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::build::failure::{Failure, Kind, Location};
use crate::build::git_ref::RefName;
use crate::build::git_url::GitUrl;
use crate::build::plan::PlanSource;
use crate::build::request::FileRequest;
use crate::build::status::SourceStatus;
use crate::build::{Fault, Phase, Plan};
use crate::containerfile::{self, Containerfile, SecretUse};
use crate::context::{self, ContextFile, Limits, UnpackError};
use crate::diagnosis::{Place, invalid_containerfile};
use crate::git;
use crate::log::Event;

use super::kept::{Kept, Tree};
use super::phases::{Job, Stop, is_disk_full};
use super::sandbox::{BUILD_ID, PATH};
use super::workdir::read_json;

/// What the later phases need of the sources.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The build context.
    pub context: PathBuf,
    /// Directories that are named build contexts: as the plan names them, and where they are.
    pub named: Vec<(String, PathBuf)>,
    /// The Containerfile.
    pub containerfile: PathBuf,
    /// Its path relative to the root of the source, as it is shown.
    pub containerfile_shown: String,
    /// The ignore file that holds.
    pub ignore_file: Option<PathBuf>,
    /// The Containerfile as it is.
    pub text: String,
    /// What stands in it.
    pub parsed: Containerfile,
    /// What the tree is, where a later build can take it as it is.
    pub tree: Option<Tree>,
}

/// A credential for git as it lies in the work directory during this phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GitCredentialFile {
    /// Beginning of the URLs it is for.
    pub url: String,
    /// User name, for HTTPS.
    pub username: Option<String>,
    /// Password or token, for HTTPS.
    pub password: Option<String>,
    /// Private key, for SSH.
    pub ssh_key: Option<PathBuf>,
    /// Known hosts, for SSH.
    pub known_hosts: Option<PathBuf>,
}

/// Name of the list of git credentials in the credentials directory.
pub const GIT_CREDENTIALS: &str = "git.json";

/// How many places a failure names.
const NAMED: usize = 10;

/// Brings the sources in; `snapshot` is the tar of a plan whose source is one, and `kept` what the scope may
/// still have of it.
///
/// # Errors
/// Why the build stops.
pub async fn fetch(
    job: &Job<'_>,
    snapshot: Option<File>,
    kept: Option<Kept>,
) -> Result<Sources, Stop> {
    let tree = match &job.plan.source {
        PlanSource::Git {
            url,
            git_ref,
            patch,
            files,
        } => {
            let status = from_git(job, url, git_ref.as_deref()).await?;
            if let Some(patch) = patch {
                apply_patch(job, patch).await?;
            }
            if !files.is_empty() {
                overlay(job, context_files(files)).await?;
            }
            job.reporter.event(Event::Source { source: status });
            None
        }
        PlanSource::Snapshot { digest, .. } => {
            let Some(snapshot) = snapshot else {
                return Err(Stop::internal("the snapshot of the sources is missing"));
            };
            let tree = unpack(job, snapshot, digest, kept).await?;
            let source = SourceStatus {
                digest: Some(digest.clone()),
                subdir: job.plan.subdir.clone().or(job.plan.shown_below.clone()),
                ..SourceStatus::default()
            };
            job.reporter.event(Event::Source { source });
            tree
        }
    };
    read(job, tree).await
}

/// Unpacks a snapshot, unless the scope's last build has kept the same.
async fn unpack(
    job: &Job<'_>,
    snapshot: File,
    digest: &str,
    kept: Option<Kept>,
) -> Result<Option<Tree>, Stop> {
    let (dest, aside, limits) = (job.work.src(), job.work.outdated(), limits(job));
    let (digest, fresh) = (digest.to_owned(), job.plan.no_cache);
    let (tree, was_kept) = blocking(move || {
        if let Some(kept) = kept {
            if fresh {
                kept.discard(&aside);
            }
            let taken = kept.take(&digest, &dest, &aside).map_err(Stop::internal)?;
            if taken.is_some() {
                return Ok((taken, true));
            }
        }
        let tar = io::BufReader::with_capacity(1 << 20, snapshot);
        context::unpack(tar, &dest, limits).map_err(|error| match error {
            UnpackError::TooBig(_) => too_big(error),
            other => refused(&other),
        })?;
        let tree = Tree::unpacked(&digest, &dest)
            .inspect_err(|error| tracing::warn!(%error, "the sources cannot be kept"));
        Ok((tree.ok(), false))
    })
    .await??;
    if was_kept {
        let text = "the sources are those of the last build";
        job.reporter.say(Phase::Source, text);
    }
    Ok(tree)
}

/// Writes the given files over the checkout, which may then be too big.
async fn overlay(job: &Job<'_>, files: Vec<ContextFile>) -> Result<(), Stop> {
    let (dest, limits) = (job.work.src(), limits(job));
    blocking(move || {
        context::overlay_files(&dest, &files).map_err(|error| refused(&error))?;
        context::measure(&dest, limits).map_err(too_big)
    })
    .await?
}

/// The given files as the context module takes them.
pub fn context_files(files: &[FileRequest]) -> Vec<ContextFile> {
    files
        .iter()
        .map(|file| ContextFile {
            path: file.path.clone(),
            text: file.text.clone(),
            executable: file.executable.unwrap_or(false),
        })
        .collect()
}

fn limits(job: &Job<'_>) -> Limits {
    let limits = &job.settings.limits;
    Limits {
        bytes: limits.context_bytes,
        entries: limits.context_entries,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stop> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Stop::internal)
}

/// The source cannot be taken; unless it is the disk.
fn refused(error: &dyn std::fmt::Display) -> Stop {
    let text = error.to_string();
    if is_disk_full(&text) {
        return Stop::internal(text);
    }
    Stop::failed(Failure::new(Phase::Source, Kind::SourceInvalid, text))
}

/// The operator's limits on sources are passed.
fn too_big(message: impl std::fmt::Display) -> Stop {
    Stop::failed(
        Failure::new(Phase::Source, Kind::SourceInvalid, message.to_string())
            .with_hint("Make the source smaller, or ask the operator for a higher limit."),
    )
}

async fn from_git(job: &Job<'_>, url: &str, git_ref: Option<&str>) -> Result<SourceStatus, Stop> {
    let parsed =
        GitUrl::parse(url, job.settings.git_allow_http).map_err(|error| refused(&error))?;
    let reference = git_ref
        .map(RefName::parse)
        .transpose()
        .map_err(|error| refused(&error))?;
    job.reporter.say(
        Phase::Source,
        format!("fetching {url} {}", git_ref.unwrap_or("(default branch)")),
    );
    let git_dir = job.work.git();
    // `git init` wants to make it itself.
    std::fs::remove_dir(&git_dir).map_err(Stop::internal)?;
    let spec = git::FetchSpec {
        url: parsed,
        reference,
        dest: job.work.src(),
        git_dir,
        credentials: credentials(job)?,
    };
    let mut say = |line: &str| job.reporter.say(Phase::Source, line);
    let mut control = git::Control {
        cancel: job.bounds.cancel.clone(),
        deadline: job.bounds.deadline,
        limits: limits(job),
        on_line: &mut say,
    };
    let fetched = git::fetch(&program(job), &spec, &mut control)
        .await
        .map_err(|error| git_failure(job, &error))?;
    job.reporter
        .say(Phase::Source, format!("at commit {}", fetched.commit));
    Ok(SourceStatus {
        git: Some(url.to_owned()),
        git_ref: git_ref.map(str::to_owned),
        commit: Some(fetched.commit),
        subdir: job.plan.subdir.clone(),
        ..SourceStatus::default()
    })
}

fn program(job: &Job<'_>) -> git::Git {
    // With the build's id, by which whoever cleans up knows its processes.
    let id = std::env::var(BUILD_ID).map(|id| (BUILD_ID.to_owned(), id));
    git::Git {
        search_path: PATH.into(),
        environment: (job.settings.environment.iter().cloned())
            .chain(id)
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        ..git::Git::default()
    }
}

fn credentials(job: &Job<'_>) -> Result<Vec<git::Credentials>, Stop> {
    let Some(file) = job.work.credential(GIT_CREDENTIALS) else {
        return Ok(Vec::new());
    };
    let list: Vec<GitCredentialFile> = read_json(&file).map_err(Stop::internal)?;
    let misconfigured = |fault: &dyn std::fmt::Display| {
        Stop::failed(
            Failure::new(
                Phase::Source,
                Kind::GitAuthFailed,
                format!("a credential of the operator cannot be used: {fault}"),
            )
            .with_hint("The operator must mend git.credentials in the configuration."),
        )
    };
    let mut out = Vec::new();
    for one in list {
        let prefix = GitUrl::parse_prefix(&one.url, job.settings.git_allow_http)
            .map_err(|fault| misconfigured(&fault))?;
        if let Some(password) = &one.password {
            let user = one.username.as_deref().unwrap_or("git");
            out.push(
                git::Credentials::basic(prefix.clone(), user, password)
                    .map_err(|fault| misconfigured(&fault))?,
            );
        }
        if let (Some(key), Some(hosts)) = (&one.ssh_key, &one.known_hosts) {
            out.push(
                git::Credentials::key(prefix, key, hosts).map_err(|fault| misconfigured(&fault))?,
            );
        }
    }
    Ok(out)
}

fn git_failure(job: &Job<'_>, error: &git::GitError) -> Stop {
    use git::GitErrorKind as G;
    let (kind, hint) = match error.kind {
        G::Cancelled => return Stop::Interrupted,
        G::TimedOut => return job.out_of_time(Phase::Source),
        G::TooBig => return too_big(&error.message),
        G::AuthFailed => (
            Kind::GitAuthFailed,
            "The operator must give this server credentials for the repository.",
        ),
        G::RepositoryNotFound => (
            Kind::GitRepositoryNotFound,
            "Correct source.git; a private repository needs the operator's credentials.",
        ),
        G::RefNotFound => (
            Kind::GitRefNotFound,
            "Name a branch, tag or full commit id that the repository has.",
        ),
        G::UnknownHost => (
            Kind::GitUnreachable,
            "Correct the host in source.git; where it is right, the machine that builds may be without name resolution or the internet.",
        ),
        G::Unreachable => (Kind::GitUnreachable, "Try again later."),
        G::Tls | G::HostKey => (
            Kind::GitTls,
            "The operator must trust the server's certificate or host key.",
        ),
        G::DiskFull => (Kind::DiskFull, "The operator must free space."),
        _ => (Kind::GitFailed, ""),
    };
    let mut failure = Failure::new(Phase::Source, kind, job.reporter.mask(&error.to_string()));
    if error.kind == G::UnknownHost {
        failure = failure.with_fault(Fault::Unknown);
    }
    Stop::failed(if hint.is_empty() {
        failure
    } else {
        failure.with_hint(hint)
    })
}

async fn apply_patch(job: &Job<'_>, patch: &str) -> Result<(), Stop> {
    let mut say = |line: &str| job.reporter.say(Phase::Source, line);
    let mut control = git::Control {
        cancel: job.bounds.cancel.clone(),
        deadline: job.bounds.deadline,
        limits: limits(job),
        on_line: &mut say,
    };
    let (git_dir, tree) = (job.work.git(), job.work.src());
    let place = git::Place {
        git_dir: &git_dir,
        work_tree: &tree,
    };
    match git::apply_patch(&program(job), place, patch.as_bytes(), &mut control).await {
        Ok(stats) => {
            job.reporter
                .say(Phase::Source, format!("applied the patch: {stats:?}"));
            Ok(())
        }
        Err(git::PatchError::Git(error)) => Err(git_failure(job, &error)),
        Err(error) => {
            let mut failure = patch_rejected(&error);
            failure.message = job.reporter.mask(&failure.message);
            Err(Stop::failed(failure))
        }
    }
}

/// Names some of the files; a patch made against something else may fit none of thousands.
fn patch_rejected(error: &git::PatchError) -> Failure {
    let reject = |message: String| {
        Failure::new(Phase::Source, Kind::PatchRejected, message)
            .with_hint("Make the patch anew with git diff --binary against exactly this ref.")
    };
    let git::PatchError::DoesNotApply(files) = error else {
        return reject(error.to_string());
    };
    let named = || files.iter().take(NAMED);
    let mut message = named().map(hunk).collect::<Vec<_>>().join("; ");
    if let more @ 1.. = files.len().saturating_sub(NAMED) {
        message += &format!("; nor to {more} more files");
    }
    let mut failure = reject(message);
    failure.locations = named()
        .map(|one| Location {
            file: one.file.clone(),
            line: one.line.and_then(|line| u32::try_from(line).ok()),
            column: None,
            message: Some(one.reason.clone()),
        })
        .collect();
    match failure.locations.first().cloned() {
        Some(first) => failure.at(first.file, first.line),
        None => failure,
    }
}

fn hunk(failure: &git::PatchFailure) -> String {
    let place = failure
        .line
        .map(|line| format!(", hunk at line {line}"))
        .unwrap_or_default();
    format!(
        "the patch does not apply to {}{place}: {}",
        failure.file, failure.reason
    )
}

/// Finds and reads the Containerfile in what was brought in.
async fn read(job: &Job<'_>, tree: Option<Tree>) -> Result<Sources, Stop> {
    let root = job.work.src();
    let context = match &job.plan.subdir {
        None => root.clone(),
        Some(subdir) => directory_within(&root, subdir, "source.subdir")?,
    };
    let mut named = Vec::new();
    for (name, directory) in job.plan.context_directories() {
        let argument = format!("build_contexts ({name})");
        let found = directory_within(&root, directory, &argument)?;
        named.push((directory.to_owned(), found));
    }
    let (dir, wanted) = (context.clone(), job.plan.containerfile.clone());
    let found = blocking(move || context::control_files(&dir, wanted.as_deref()))
        .await?
        .map_err(|error| refused(&error))?;
    let Some(name) = found.containerfile else {
        let wanted = job
            .plan
            .containerfile
            .as_deref()
            .unwrap_or("Containerfile, nor Dockerfile");
        return Err(Stop::failed(
            Failure::new(Phase::Source, Kind::ContainerfileNotFound, format!("the source has no {wanted}"))
                .with_hint("Give its path below the context as containerfile, or the directory it is in as source.subdir."),
        ));
    };
    let containerfile = context.join(&name);
    let (dir, path) = (context.clone(), name.clone());
    let text = blocking(move || context::read_file(&dir, &path, containerfile::MAX_BYTES + 1))
        .await?
        .map_err(Stop::internal)?;
    let text = String::from_utf8_lossy(&text);
    let shown = match job.plan.subdir.as_ref().or(job.plan.shown_below.as_ref()) {
        None => name,
        Some(subdir) => format!("{}/{name}", subdir.trim_matches('/')),
    };
    let parsed = Containerfile::parse_for(
        &text,
        job.plan.target.as_deref(),
        &job.plan.build_args,
        &job.plan.build_contexts,
    )
    .map_err(|faults| faults_in(&shown, &faults))?;
    for warning in &parsed.warnings {
        job.reporter
            .say(Phase::Source, format!("{shown}: {warning}"));
    }
    if let Some(secret) = missing_secret(&parsed, job.plan) {
        let failure = Failure::new(
            Phase::Source,
            Kind::SecretMissing,
            format!(
                "RUN requires the secret {}, which the request does not name",
                secret.id
            ),
        )
        .with_hint("Name the secret in secrets.");
        return Err(Stop::failed(failure.at(shown, secret.line)));
    }
    let ignore_file = found.ignore_file.map(|name| context.join(name));
    Ok(Sources {
        context,
        named,
        containerfile,
        ignore_file,
        containerfile_shown: shown,
        text: text.into_owned(),
        parsed,
        tree,
    })
}

/// Indices of the stages that the target and the tests need.
pub fn needed_stages(parsed: &Containerfile, plan: &Plan) -> BTreeSet<usize> {
    let targets = std::iter::once(plan.target.as_deref()).chain(
        plan.tests
            .iter()
            .filter_map(|test| test.stage.as_deref().map(Some)),
    );
    targets
        .filter_map(|target| parsed.plan(target, &plan.build_args).ok())
        .flatten()
        .map(|stage| stage.index)
        .collect()
}

/// A secret that a stage of this build requires and the request does not name.
pub fn missing_secret(parsed: &Containerfile, plan: &Plan) -> Option<SecretUse> {
    let stages = needed_stages(parsed, plan);
    parsed.secret_ids().into_iter().find(|secret| {
        secret.required && stages.contains(&secret.stage) && !plan.secrets.contains(&secret.id)
    })
}

fn no_directory(what: &str, argument: &str) -> Stop {
    let message = format!("the directory of {argument} {what}");
    let hint = format!("Name a directory of the source in {argument}.");
    Stop::failed(Failure::new(Phase::Source, Kind::SourceInvalid, message).with_hint(hint))
}

/// A directory of the source that no link leads out of.
fn directory_within(root: &Path, subdir: &str, argument: &str) -> Result<PathBuf, Stop> {
    let missing = |what| no_directory(what, argument);
    let path = root
        .join(subdir.trim_matches('/'))
        .canonicalize()
        .map_err(|_| missing("is not in the source, or an ignore file keeps it out"))?;
    let root = root.canonicalize().map_err(Stop::internal)?;
    if !path.starts_with(&root) {
        return Err(missing("leads out of the source"));
    }
    if !path.is_dir() {
        return Err(missing("is not a directory"));
    }
    Ok(path)
}

/// A Containerfile that cannot be built.
pub fn invalid(sources: &Sources, faults: &[containerfile::Fault]) -> Stop {
    faults_in(&sources.containerfile_shown, faults)
}

fn faults_in(file: &str, faults: &[containerfile::Fault]) -> Stop {
    match invalid_containerfile(file, faults) {
        Some(failure) => Stop::failed(failure),
        None => Stop::internal("a Containerfile without faults was refused"),
    }
}

impl Sources {
    /// Where the directory of a named build context is, by the plan's word for it.
    pub fn named(&self, directory: &str) -> Option<&Path> {
        let mut named = self.named.iter();
        let (_, path) = named.find(|(name, _)| name == directory)?;
        Some(path)
    }

    /// The step in which a line of the Containerfile stands.
    pub fn place_of_line(&self, line: u32) -> Option<Place> {
        let stages = &self.parsed.stages;
        let stage = stages.iter().rev().find(|stage| stage.line <= line)?;
        let step = stage.steps.iter().rev().find(|step| step.line <= line)?;
        Some(Place::of(&self.containerfile_shown, stage, step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_that_fits_nothing_makes_a_short_failure() {
        let file = |n: usize| git::PatchFailure {
            file: format!("src/{n}.c"),
            line: Some(7),
            reason: "does not match the file".into(),
        };
        let failure = patch_rejected(&git::PatchError::DoesNotApply(
            (0..3000).map(file).collect(),
        ));
        assert_eq!(failure.locations.len(), NAMED);
        assert!(failure.message.len() < 2000, "{}", failure.message);
        assert!(
            failure.message.ends_with("; nor to 2990 more files"),
            "{}",
            failure.message
        );
        assert_eq!(
            (failure.file.as_deref(), failure.line),
            (Some("src/0.c"), Some(7))
        );
        let failure = patch_rejected(&git::PatchError::DoesNotApply(vec![file(1)]));
        assert_eq!(
            failure.message,
            "the patch does not apply to src/1.c, hunk at line 7: does not match the file"
        );
    }

    #[test]
    fn a_subdirectory_lies_in_the_source() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        for (name, target) in [
            ("inside", "a/b"),
            ("up", "../outside"),
            ("far", "/etc"),
            ("loop", "loop"),
        ] {
            std::os::unix::fs::symlink(target, root.join(name)).unwrap();
        }
        for (subdir, found) in [
            ("a/b", true),
            ("/a/", true),
            ("inside", true),
            ("inside/..", true),
            ("up", false),
            ("far", false),
            ("..", false),
            ("a/../../outside", false),
            ("loop", false),
            ("file", false),
            ("none", false),
        ] {
            assert_eq!(
                directory_within(&root, subdir, "source.subdir").is_ok(),
                found,
                "{subdir}"
            );
        }
    }
}
