//! Keeps the cache of one user in order: nothing that a build left in the middle of its work, and not
//! larger than the operator allows. Runs within the user's namespace, where it may touch files of all
//! its ids.
//!
//! Foreign code may have written to the store of a scope, so no Buildah works on one out here: one in
//! which a build has died goes as a whole.
//!
//! What was used last stays longest. What a running build holds is never touched; a base image goes
//! only after every scope whose layers may lie on it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::cache::{Cache, Held, is_spent, modified};
use super::lock::try_lock;
use super::probe::Host;
use super::sandbox::storage;
use super::store::{INDEX, images_in};
use super::usage::{Ceiling, measure};

/// One sweep.
#[derive(Debug)]
pub struct Sweep {
    /// The cache of a user.
    pub user: PathBuf,
    /// Bytes that it may have.
    pub limit: u64,
    /// The Buildah whose stores are tidied; those of other versions can only be removed.
    pub host: Host,
}

struct Candidate {
    used: SystemTime,
    what: What,
}

enum What {
    Scope(PathBuf),
    Base { file: PathBuf, version: PathBuf },
}

impl Sweep {
    /// Sweeps; returns what the cache holds afterwards, in bytes. Another sweep at the same time is
    /// enough, then this one does nothing.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn run(&self) -> io::Result<Option<u64>> {
        let Some(_lock) = try_lock(&self.user.join("sweep.lock"))? else {
            return Ok(None);
        };
        let mut candidates = Vec::new();
        let mut total = 0;
        for version in directories(&self.user) {
            let cache = Cache::at(&version);
            total += stored(&cache.images(), &cache.images().join(INDEX));
            for scope in directories(&cache.scopes()) {
                // That of a running build stays, and counts.
                if is_spent(&scope) && remove_scope(&scope)? > 0 {
                    continue;
                }
                let used = modified(&scope.join("writer"));
                total += stored(&scope, &scope.join("writer"));
                candidates.push(Candidate {
                    used,
                    what: What::Scope(scope),
                });
            }
            for file in files(&cache.bases()) {
                let what = What::Base {
                    version: version.clone(),
                    file: file.clone(),
                };
                candidates.push(Candidate {
                    used: modified(&file),
                    what,
                });
            }
        }
        // A base is used by each build of a scope on it, so the scope comes first.
        candidates.sort_by_key(|one| (one.used, matches!(one.what, What::Base { .. })));
        for one in candidates {
            if total <= self.limit {
                break;
            }
            total = total.saturating_sub(match one.what {
                What::Scope(dir) => remove_scope(&dir)?,
                What::Base { file, version } => self.remove_base(&file, &version)?,
            });
        }
        Ok(Some(total))
    }

    fn is_current(&self, version: &Path) -> bool {
        version
            .file_name()
            .is_some_and(|name| name == self.host.version.as_str())
    }

    fn remove_base(&self, file: &Path, version: &Path) -> io::Result<u64> {
        let Some(_lock) = try_lock(file)? else {
            return Ok(0);
        };
        let known = fs::read_to_string(file)?;
        let name = known.lines().next().unwrap_or_default();
        let on_it = |scope: &PathBuf| {
            fs::read_to_string(scope.join("bases"))
                .is_ok_and(|bases| bases.lines().any(|base| base == name))
        };
        let cache = Cache::at(version);
        if directories(&cache.scopes()).iter().any(on_it) {
            return Ok(0);
        }
        let images = cache.images();
        let before = size(&images);
        let others: Vec<PathBuf> = (files(&cache.bases()).into_iter())
            .filter(|other| other != file)
            .collect();
        if self.is_current(version) {
            let still: String = others.iter().flat_map(fs::read_to_string).collect();
            for image in images_in(&images) {
                let is_known = known.lines().any(|line| image.is(line));
                if is_known && !still.lines().any(|line| image.is(line)) {
                    let mut command = self.buildah(&images);
                    command.args(["rmi", "--force", &image.id]);
                    if !quiet(&mut command) {
                        return Ok(0);
                    }
                }
            }
        } else if others.is_empty() {
            // The last one takes the store with it.
            let Some(_held) = cache.own_images()? else {
                return Ok(0);
            };
            fs::remove_dir_all(&images)?;
        }
        fs::remove_file(file)?;
        Ok(before.saturating_sub(size(&images)))
    }

    fn buildah(&self, store: &Path) -> Command {
        let mut command = Command::new(&self.host.buildah);
        command.args(storage(store, &self.user.join("sweep/run")));
        command
    }
}

fn remove_scope(dir: &Path) -> io::Result<u64> {
    match Held::take(dir)? {
        None => Ok(0),
        Some(held) => {
            let bytes = size(dir);
            held.remove(dir)?;
            Ok(bytes)
        }
    }
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn size(dir: &Path) -> u64 {
    let ceiling = Ceiling {
        bytes: u64::MAX,
        entries: u64::MAX,
    };
    measure(&[dir.to_owned()], &HashSet::new(), ceiling).bytes
}

/// The size of a directory; counted again only when `changed` is newer than the last count.
fn stored(dir: &Path, changed: &Path) -> u64 {
    if !dir.is_dir() {
        return 0;
    }
    let kept = dir.join(".size");
    if modified(&kept) > modified(changed)
        && let Some(bytes) = fs::read_to_string(&kept)
            .ok()
            .and_then(|text| text.parse().ok())
    {
        return bytes;
    }
    let bytes = size(dir);
    let _ = fs::write(&kept, bytes.to_string());
    bytes
}

fn entries(dir: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(dir).into_iter().flatten().flatten()
}

pub(super) fn directories(dir: &Path) -> Vec<PathBuf> {
    entries(dir)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    entries(dir)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .collect()
}
