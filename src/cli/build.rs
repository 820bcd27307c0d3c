//! `nomad-build build`: a directory or a git repository becomes an image.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::build::named_context::{self, NamedContext};
use crate::build::status::BuildStatus;
use crate::client::Steady;
use crate::context::{Extent, control_files};

use super::follow::{self, Ended, Followed};
use super::outputs::{Extract, Wanted};
use super::reach::{Reach, arguments};
use super::{exit, show};

/// Build an image, test it and push it.
///
/// Of a directory, what its ignore file names stays out, everything else goes in, committed or not. Ctrl-C ends the
/// build gracefully; a second one does not wait for that. Exit status: 0 succeeded, 1 did not, or what it made could not
/// be saved, 2 the call was wrong, 3 the server does not answer any more and the build goes on, 4 it was left, 130 Ctrl-C
/// ended it.
#[derive(Debug, Args)]
pub struct Build {
    /// A directory, or the URL of a git repository.
    #[arg(default_value = ".", value_name = "DIR|GIT-URL")]
    pub source: String,
    /// Branch, tag or commit of the repository.
    #[arg(long = "ref", value_name = "REF")]
    pub git_ref: Option<String>,
    /// A patch to the repository at that commit, as `git diff --binary` prints it; - reads standard input.
    #[arg(long, value_name = "FILE")]
    pub patch: Option<PathBuf>,
    /// Directory below the source that becomes the build context.
    #[arg(long, value_name = "PATH")]
    pub subdir: Option<String>,
    /// Path of the Containerfile below the source.
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub containerfile: Option<String>,
    /// Push to this reference when the tests have passed; may be given several times.
    #[arg(short, long = "tag", value_name = "HOST/REPOSITORY:TAG")]
    pub tags: Vec<String>,
    /// Test the image by this command; may be given several times.
    #[arg(long = "test", value_name = "COMMAND")]
    pub tests: Vec<String>,
    /// Run the tests in this stage, not in the final image.
    #[arg(long, value_name = "STAGE", requires = "tests")]
    pub test_stage: Option<String>,
    /// Absolute path of a JUnit file that each test writes: its failing cases are told.
    #[arg(long, value_name = "PATH", requires = "tests")]
    pub report: Option<String>,
    /// Seconds for which each test may run.
    #[arg(long, value_name = "SECONDS", requires = "tests")]
    pub test_timeout: Option<u32>,
    /// Stop after the first failing test.
    #[arg(long, requires = "tests")]
    pub fail_fast: bool,
    /// Save the tested image as an OCI archive, for `podman load`, `docker load` or skopeo.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Save a file of the image, or a directory as a tar archive; may be given several times. FILE: the same name
    /// here (of a directory with .tar), where there is none yet.
    #[arg(long, value_name = "PATH[=FILE]")]
    pub extract: Vec<Extract>,
    /// A build argument; may be given several times.
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    pub build_args: Vec<String>,
    /// A named build context, below the source, or an image; may be given several times.
    #[arg(
        long = "build-context",
        value_name = "NAME=DIR|NAME=docker-image://IMAGE"
    )]
    pub build_contexts: Vec<String>,
    /// A label of the image; may be given several times.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// A secret that the operator offers; may be given several times.
    #[arg(long = "secret", value_name = "NAME")]
    pub secrets: Vec<String>,
    /// The stage to build.
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// A name for the build.
    #[arg(long)]
    pub name: Option<String>,
    /// End older unfinished builds of the same name.
    #[arg(long, requires = "name")]
    pub cancel_previous: bool,
    /// A profile that the operator offers.
    #[arg(long)]
    pub profile: Option<String>,
    /// Execute every step anew.
    #[arg(long)]
    pub no_cache: bool,
    /// Seconds for which the build may run.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u32>,
    /// Seconds for which it may wait for capacity.
    #[arg(long, value_name = "SECONDS")]
    pub queue_timeout: Option<u32>,
    /// Check what can be checked, and build nothing.
    #[arg(long, conflicts_with_all = ["output", "extract", "detach"])]
    pub validate_only: bool,
    /// Print the id, and do not wait for the end.
    #[arg(short, long, conflicts_with_all = ["output", "extract"])]
    pub detach: bool,
    /// Where.
    #[command(flatten)]
    pub reach: Reach,
}

impl Build {
    /// Builds, and waits for the end.
    ///
    /// # Errors
    /// When whoever builds cannot be reached, or refuses.
    pub async fn run(&self) -> anyhow::Result<ExitCode> {
        self.wanted().check()?;
        let mut tools = self.reach.open().await?;
        let source = self.source(&tools).await?;
        let begun = tools.call("build", &self.arguments(source)).await?;
        let status: BuildStatus = self.reach.read(&begun)?;
        if self.validate_only || self.detach {
            let shown = match self.detach {
                true => status.build_id.clone(),
                false => show::plan(&status),
            };
            show::answer(self.reach.json, &begun, &shown)?;
            return Ok(ExitCode::SUCCESS);
        }
        if !self.reach.json {
            show::note(&status.build_id);
        }
        match follow::to_the_end(&mut tools, &status.build_id, &self.reach).await? {
            Followed::Ended(ended) => {
                self.tell(&ended)?;
                Ok(match self.wanted().save(&mut tools, &ended.status).await {
                    Ok(()) => exit::of(&ended.status),
                    Err(error) => {
                        show::note(&format!("nomad-build: {error:#}"));
                        ExitCode::from(exit::FAILED)
                    }
                })
            }
            Followed::Cancelled(ended) => {
                self.tell(&ended)?;
                Ok(ExitCode::from(exit::INTERRUPTED))
            }
            Followed::Left(code) => Ok(ExitCode::from(code)),
        }
    }

    fn tell(&self, ended: &Ended) -> anyhow::Result<()> {
        let text = show::end(&ended.status, self.directory(), &self.reach.again());
        show::status(self.reach.json, &ended.answer, &text)?;
        Ok(())
    }

    fn wanted(&self) -> Wanted {
        Wanted::new(self.output.as_deref(), &self.extract)
    }

    fn is_git(&self) -> bool {
        self.source.contains("://") || self.source.starts_with("git@")
    }

    /// The sources, where they are a directory of this machine.
    fn directory(&self) -> Option<&Path> {
        (!self.is_git()).then(|| Path::new(&self.source))
    }

    /// What of the directory is uploaded: its context, and what has a name beside it.
    fn extent(&self) -> anyhow::Result<Extent> {
        let subdir = self.subdir.as_deref().unwrap_or_default();
        anyhow::ensure!(
            named_context::is_below(subdir.trim_start_matches('/')),
            "--subdir leads out of the source"
        );
        let mut named = Vec::new();
        for context in &self.build_contexts {
            let (name, value) = context.split_once('=').unwrap_or((context, ""));
            let value = named_context::check(name, value)
                .map_err(|problem| anyhow::anyhow!("--build-context {name}: {problem}"))?;
            if let NamedContext::Directory(directory) = NamedContext::of(&value) {
                named.push(directory.to_owned());
            }
        }
        Ok(Extent {
            context: named_context::plain(subdir),
            named,
        })
    }

    fn context(&self, dir: &Path) -> PathBuf {
        let subdir = self.subdir.as_deref().unwrap_or_default();
        dir.join(subdir.trim_start_matches('/'))
    }

    /// Is told at once, and not by a build that fails. Whatever else is wrong the build tells, and it tells machines
    /// of this, too.
    fn has_no_containerfile(&self, dir: &Path) -> bool {
        let found = control_files(&self.context(dir), self.containerfile.as_deref());
        found.is_ok_and(|found| found.containerfile.is_none())
    }

    fn patch(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.patch else {
            return Ok(None);
        };
        let text = match file.to_str() {
            Some("-") => std::io::read_to_string(std::io::stdin()),
            _ => std::fs::read_to_string(file),
        };
        text.map(Some)
            .with_context(|| format!("the patch {} cannot be read", file.display()))
    }

    async fn source(&self, tools: &Steady) -> anyhow::Result<Value> {
        // Machines are told so by the tool.
        if !self.reach.json
            && let Some(path) = self.source.strip_prefix("file://")
        {
            anyhow::bail!(
                "a directory is named by its path alone, not as a URL: {path}; a repository is fetched from a server"
            );
        }
        let mut source = match (self.directory(), tools.remote()) {
            (None, _) => json!({"git": self.source, "ref": self.git_ref, "patch": self.patch()?}),
            (Some(_), _) if self.git_ref.is_some() || self.patch.is_some() => {
                anyhow::bail!("--ref and --patch go with the URL of a git repository")
            }
            (Some(dir), _) if !self.reach.json && self.has_no_containerfile(dir) => anyhow::bail!(
                "{} has no {}: --file names another, --subdir the directory below it that is to be built",
                self.context(dir).display(),
                (self.containerfile.as_deref()).unwrap_or("Containerfile, nor Dockerfile")
            ),
            (Some(dir), None) => json!({"path": absolute(dir)?}),
            (Some(dir), Some(remote)) => {
                let upload = remote.upload(dir, self.extent()?, self.containerfile.as_deref());
                json!({"context": upload.await?})
            }
        };
        if let (Some(subdir), Some(source)) = (&self.subdir, source.as_object_mut()) {
            source.insert("subdir".into(), subdir.clone().into());
        }
        Ok(Value::Object(arguments(source)))
    }

    fn arguments(&self, source: Value) -> Map<String, Value> {
        let numbered = self.tests.iter().enumerate();
        let tests = numbered.map(|(n, command)| {
            let name = format!("test-{}", n + 1);
            Value::from(arguments(
                json!({"name": name, "command": command, "stage": self.test_stage, "timeout": self.test_timeout, "report": self.report}),
            ))
        });
        arguments(json!({
            "source": source,
            "containerfile": self.containerfile,
            "target": self.target,
            "build_args": self.build_args,
            "build_contexts": self.build_contexts,
            "labels": self.labels,
            "tags": self.tags,
            "tests": tests.collect::<Vec<_>>(),
            "outputs": self.wanted().names(),
            "secrets": self.secrets,
            "name": self.name,
            "profile": self.profile,
            "timeout": self.timeout,
            "queue_timeout": self.queue_timeout,
            "fail_fast": self.fail_fast.then_some(true),
            "cancel_previous": self.cancel_previous.then_some(true),
            "no_cache": self.no_cache.then_some(true),
            "validate_only": self.validate_only.then_some(true),
        }))
    }
}

fn absolute(dir: &Path) -> anyhow::Result<PathBuf> {
    let there = || format!("{} is no directory", dir.display());
    let found = std::fs::canonicalize(dir).with_context(there)?;
    anyhow::ensure!(found.is_dir(), there());
    Ok(found)
}
