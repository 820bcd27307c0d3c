//! Fetches one commit into a tree without `.git`.

use std::fs;
use std::path::PathBuf;

use tokio::process::Command;

use super::bounds::{Bounds, too_big};
use super::census::Census;
use super::command::{Git, Place};
use super::credentials::Credentials;
use super::error::{GitError, GitErrorKind};
use super::run::{Control, Sink, run};
use super::text::Scrubber;
use crate::build::git_ref::RefName;
use crate::build::git_url::GitUrl;

/// What of a repository's attributes does not hold: to write a file in another encoding, the C
/// library would load a converter by a stranger's name and give it a stranger's text.
const ATTRIBUTES: &str = "* !working-tree-encoding\n";
/// As deep as the history goes. With a depth, git refuses servers that hand out files one by one.
const ALL: &str = "--depth=2147483647";
/// Refuse single commits in so many words; the history may still hold them.
const REFUSES_COMMITS: [&str; 3] = ["unadvertised object", "not our ref", "not valid"];

/// What to fetch, and whereto.
#[derive(Debug, Clone)]
pub struct FetchSpec {
    pub url: GitUrl,
    /// Default: the default branch of the server.
    pub reference: Option<RefName>,
    /// The tree: an existing empty directory.
    pub dest: PathBuf,
    /// The repository: a path outside of `dest` where nothing is yet.
    pub git_dir: PathBuf,
    /// The first that applies to the URL is used.
    pub credentials: Vec<Credentials>,
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Full commit id.
    pub commit: String,
    pub ref_kind: RefKind,
}

/// What the name stood for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefKind {
    /// No name was given.
    DefaultBranch,
    Branch,
    Tag,
    Commit,
    /// Another ref, such as `refs/pull/1/head`.
    Other,
}

/// Fetches `spec` with the history of one commit, and writes its tree to `spec.dest`.
///
/// Submodules are empty directories, LFS files their pointers, and texts are in the encoding in
/// which git keeps them. A tree that is bigger than `control` allows is refused before any of it is
/// written. On an error both directories are to be discarded.
pub async fn fetch(
    git: &Git,
    spec: &FetchSpec,
    control: &mut Control<'_>,
) -> Result<Fetched, GitError> {
    let credentials = spec.credentials.iter().find(|one| one.apply_to(&spec.url));
    let secrets = credentials.map(Credentials::secrets).unwrap_or_default();
    let mut session = Session {
        git,
        spec,
        credentials,
        scrubber: Scrubber::new(secrets),
        control,
    };
    session.init().await?;
    let wanted = spec.reference.as_ref().map_or("HEAD", RefName::as_str);
    let commit = match session.fetch(&["--depth=1"], &[wanted]).await {
        Ok(()) => session.resolve("FETCH_HEAD").await?,
        Err(error) if session.refuses_commits(&error) => session.search_history(wanted).await?,
        Err(error) => return Err(session.explain(error)),
    };
    let ref_kind = session.ref_kind();
    session.count(&commit).await?;
    session
        .local(&["checkout", "--quiet", "--force", "--detach", &commit, "--"])
        .await?;
    Ok(Fetched { commit, ref_kind })
}

struct Session<'a, 'c> {
    git: &'a Git,
    spec: &'a FetchSpec,
    credentials: Option<&'a Credentials>,
    scrubber: Scrubber,
    control: &'a mut Control<'c>,
}

impl<'a> Session<'a, '_> {
    fn place(&self) -> Place<'a> {
        Place {
            git_dir: &self.spec.git_dir,
            work_tree: &self.spec.dest,
        }
    }

    /// A repository of the kind that a full commit id tells; SHA-1 for names.
    async fn init(&mut self) -> Result<(), GitError> {
        let name = self.spec.reference.as_ref();
        let sha256 = name.is_some_and(|name| name.is_commit() && name.as_str().len() == 64);
        let format = if sha256 { "sha256" } else { "sha1" };
        let format = format!("--object-format={format}");
        self.local(&["init", "--quiet", "--template=", &format])
            .await?;
        let info = self.spec.git_dir.join("info");
        fs::create_dir_all(&info)
            .and_then(|()| fs::write(info.join("attributes"), ATTRIBUTES))
            .map_err(|error| GitError::new(GitErrorKind::Failed, error.to_string()))
    }

    async fn local(&mut self, arguments: &[&str]) -> Result<String, GitError> {
        let mut stdout = Vec::new();
        let mut keep = |bytes: &[u8]| {
            stdout.extend_from_slice(bytes);
            Ok(())
        };
        self.local_into(arguments, &mut keep).await?;
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    async fn local_into(&mut self, arguments: &[&str], sink: Sink<'_>) -> Result<(), GitError> {
        let command = self.git.command(self.place(), arguments);
        self.run(command, sink).await
    }

    async fn run(&mut self, command: Command, sink: Sink<'_>) -> Result<(), GitError> {
        let bounds = Bounds::new(self.git, self.place(), self.control.limits);
        let outcome = run(command, &[], sink, bounds, self.control, &self.scrubber).await?;
        outcome.success(&self.scrubber)
    }

    /// Counts the tree of a commit against the limits.
    async fn count(&mut self, commit: &str) -> Result<(), GitError> {
        let limits = self.control.limits;
        let mut census = Census::new(limits);
        let mut count = |bytes: &[u8]| {
            let counted = census.take(bytes);
            counted.map_err(|excess| too_big("source", excess, limits))
        };
        let list = ["ls-tree", "-r", "-t", "-l", "-z", "--full-tree", commit];
        self.local_into(&list, &mut count).await?;
        if let Some(note) = census.submodules() {
            (self.control.on_line)(&self.scrubber.clean(&note));
        }
        Ok(())
    }

    async fn fetch(&mut self, options: &[&str], refs: &[&str]) -> Result<(), GitError> {
        let url = &self.spec.url;
        let fixed = [
            "fetch",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-auto-maintenance",
        ];
        let from = ["--", url.as_str()];
        let arguments = fixed.iter().chain(options).chain(&from).chain(refs);
        let command =
            self.git
                .network_command(self.place(), url.transport(), self.credentials, arguments);
        self.run(command, &mut |_| Ok(())).await
    }

    fn refuses_commits(&self, error: &GitError) -> bool {
        let asked = self.spec.reference.as_ref().is_some_and(RefName::is_commit);
        asked
            && REFUSES_COMMITS
                .iter()
                .any(|words| error.message.contains(words))
    }

    /// All branches and tags with their history, for servers that hand out nothing else.
    async fn search_history(&mut self, commit: &str) -> Result<String, GitError> {
        (self.control.on_line)(
            "the server does not hand out this commit by itself: fetching all branches and tags",
        );
        let all = [
            "+refs/heads/*:refs/fetched/heads/*",
            "+refs/tags/*:refs/fetched/tags/*",
        ];
        self.fetch(&[ALL], &all).await?;
        self.resolve(commit).await.map_err(|_| {
            GitError::new(
                GitErrorKind::RefNotFound,
                format!("{commit} is in no branch or tag of the server"),
            )
        })
    }

    async fn resolve(&mut self, name: &str) -> Result<String, GitError> {
        let commit = format!("{name}^{{commit}}");
        let found = self
            .local(&[
                "rev-parse",
                "--quiet",
                "--verify",
                "--end-of-options",
                &commit,
            ])
            .await
            .map_err(|error| match error.kind {
                GitErrorKind::Failed => {
                    GitError::new(GitErrorKind::RefNotFound, "the ref is not one of a commit")
                }
                _ => error,
            })?;
        // `--end-of-options` is echoed by some versions.
        let id = found.lines().last().unwrap_or_default().trim();
        Ok(id.to_owned())
    }

    /// A short commit id is a frequent mistake, and git's message does not tell of it.
    fn explain(&self, error: GitError) -> GitError {
        let reference = self.spec.reference.as_ref();
        if error.kind == GitErrorKind::RefNotFound
            && reference.is_some_and(RefName::looks_abbreviated)
        {
            let message = "a commit can only be fetched by its full id of 40 digits";
            return GitError::new(error.kind, message);
        }
        error
    }

    /// git notes what it took the name for, like `<id>\t\tbranch 'main' of <url>`.
    fn ref_kind(&self) -> RefKind {
        match &self.spec.reference {
            None => return RefKind::DefaultBranch,
            Some(reference) if reference.is_commit() => return RefKind::Commit,
            Some(_) => {}
        }
        let notes = fs::read_to_string(self.spec.git_dir.join("FETCH_HEAD"));
        let notes = notes.unwrap_or_default();
        let what = notes.splitn(3, '\t').nth(2).unwrap_or_default();
        if what.starts_with("branch '") {
            RefKind::Branch
        } else if what.starts_with("tag '") {
            RefKind::Tag
        } else {
            RefKind::Other
        }
    }
}
