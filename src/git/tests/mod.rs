//! Real git against real repositories, honest and hostile.

mod fetching;
mod hostile;
mod limits;
mod patching;
mod server;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::context::Limits;
use server::{Author, Manner, Server};

/// Directories for one fetch.
struct Client {
    root: tempfile::TempDir,
    git: Git,
    lines: Vec<String>,
    cancel: CancellationToken,
    deadline: Instant,
    limits: Limits,
}

impl Client {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("tree")).unwrap();
        Self {
            root,
            git: Git::default(),
            lines: Vec::new(),
            cancel: CancellationToken::new(),
            deadline: Instant::now() + Duration::from_secs(60),
            limits: Limits {
                bytes: 64 << 20,
                entries: 1000,
            },
        }
    }

    fn tree(&self) -> PathBuf {
        self.root.path().join("tree")
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.tree().join(path)).unwrap()
    }

    fn spec(&self, url: &str, reference: Option<&str>) -> FetchSpec {
        FetchSpec {
            url: GitUrl::parse(url, true).unwrap(),
            reference: reference.map(|name| RefName::parse(name).unwrap()),
            dest: self.tree(),
            git_dir: self.root.path().join("git"),
            credentials: Vec::new(),
        }
    }

    async fn run(&mut self, spec: &FetchSpec) -> Result<Fetched, GitError> {
        let lines = &mut self.lines;
        let mut on_line = |line: &str| lines.push(line.to_owned());
        let mut control = Control {
            cancel: self.cancel.clone(),
            deadline: self.deadline,
            limits: self.limits,
            on_line: &mut on_line,
        };
        fetch(&self.git, spec, &mut control).await
    }

    async fn fetch(&mut self, url: &str, reference: Option<&str>) -> Result<Fetched, GitError> {
        let spec = self.spec(url, reference);
        self.run(&spec).await
    }

    async fn patch(&mut self, patch: &[u8]) -> Result<PatchStats, PatchError> {
        let (git_dir, work_tree) = (self.root.path().join("git"), self.tree());
        let place = Place {
            git_dir: &git_dir,
            work_tree: &work_tree,
        };
        let lines = &mut self.lines;
        let mut on_line = |line: &str| lines.push(line.to_owned());
        let mut control = Control {
            cancel: self.cancel.clone(),
            deadline: self.deadline,
            limits: self.limits,
            on_line: &mut on_line,
        };
        apply_patch(&self.git, place, patch, &mut control).await
    }
}

/// The kind of the error of fetching `reference` of `repo.git`.
async fn refused(server: &Server, reference: Option<&str>) -> GitErrorKind {
    let url = format!("{}/repo.git", server.url);
    let error = Client::new().fetch(&url, reference).await.unwrap_err();
    error.kind
}
