//! What callers elsewhere upload for their builds, and the tickets that let them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use crate::backend::Depot;
use crate::backend::uploads::{Context, TicketFault, Uploads, key, key_of_ticket, ticket};
use crate::build::clean;
use crate::context::{self, Decoded, Limits, SnapshotError, UnpackError};
use crate::runner::reporter::now_ms;
use crate::schema::ArgFault;
use crate::schema::error_code::ErrorCode;

use super::rights::too_much;
use super::{Principal, Service, ToolError};

/// How often a note is written against others who write it.
const ATTEMPTS: u32 = 50;
/// How often it is looked for what is over.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// How old a directory is that no upload and no build can be at any more.
const ABANDONED: Duration = Duration::from_secs(2 * 60 * 60);
/// Beginning of the names of directories for what is on its way.
const SCRATCH: &str = "on-the-way-";
/// Uploads at the same time: of one principal, and of all.
const AT_ONCE: (usize, usize) = (4, 16);
/// Uploads that are packed or unpacked at the same time.
const PACKING: usize = 4;
/// Seconds after which an upload may have ended.
const LATER: u32 = 15;
/// Bytes behind the end of an archive that are read: programs fill up their last block.
const PADDING: u64 = 1 << 20;
/// Bytes that an entry of an archive has at most beside its contents, on average.
const HEADERS: u64 = 4096;

/// An upload that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uploaded {
    /// What `source.context` takes: `sha256:…`.
    pub context: String,
    /// Length of the tar that is kept.
    pub bytes: u64,
    /// Files and links in it.
    pub files: u64,
    /// Until it is removed.
    pub expires_in_seconds: u32,
}

/// What uploads share.
#[derive(Debug)]
pub(super) struct Uploading {
    under_way: UnderWay,
    /// Held by whoever packs or unpacks: many at once are not faster.
    disk: Semaphore,
}

impl Default for Uploading {
    fn default() -> Self {
        Self {
            under_way: UnderWay::default(),
            disk: Semaphore::new(PACKING),
        }
    }
}

/// How many uploads are under way, by principal.
#[derive(Debug, Clone, Default)]
struct UnderWay(Arc<Mutex<HashMap<String, usize>>>);

/// One of them, until it is dropped.
struct Turn {
    all: UnderWay,
    principal: String,
}

impl UnderWay {
    fn begin(&self, principal: &Principal) -> Option<Turn> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let own = counts.entry(principal.0.clone()).or_default();
        if *own >= AT_ONCE.0 || all >= AT_ONCE.1 {
            return None;
        }
        *own += 1;
        Some(Turn {
            all: self.clone(),
            principal: principal.0.clone(),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = counts.get_mut(&self.principal) {
            *own -= 1;
        }
        counts.retain(|_, own| *own > 0);
    }
}

/// A context that was received, checked, and written anew.
struct Received {
    scratch: TempDir,
    digest: String,
    bytes: u64,
    files: u64,
}

impl Received {
    fn tar(&self) -> PathBuf {
        tar(self.scratch.path())
    }
}

fn tar(scratch: &Path) -> PathBuf {
    scratch.join("tar")
}

fn tree(scratch: &Path) -> PathBuf {
    scratch.join("tree")
}

fn random() -> Result<[u8; 16], ToolError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(ToolError::internal)?;
    Ok(random)
}

fn bad(problem: impl std::fmt::Display) -> ToolError {
    let problem = clean::short(&problem.to_string(), 400);
    ToolError::one(ArgFault::new(
        ErrorCode::InvalidArgument,
        "archive",
        problem,
    ))
}

impl Service {
    /// Whether callers may upload.
    pub fn takes_uploads(&self) -> bool {
        !self.paths && self.backend.depot().is_some()
    }

    fn depot(&self) -> Result<&dyn Depot, ToolError> {
        let depot = self.backend.depot().filter(|_| !self.paths);
        depot.ok_or_else(|| {
            ToolError::one(ArgFault::new(
                ErrorCode::NotAllowed,
                "archive",
                "this server takes no uploads",
            ))
        })
    }

    /// Changes a note: nobody else writes between reading and writing. What is over is forgotten on the
    /// way, and its places are cleared.
    async fn change<T>(
        &self,
        key: &str,
        mut change: impl FnMut(&mut Uploads) -> T,
    ) -> Result<T, ToolError> {
        let depot = self.depot()?;
        for _ in 0..ATTEMPTS {
            let (before, version) = depot.note(key).await?;
            let mut after = before.clone();
            let over = after.sweep(now_ms());
            let answer = change(&mut after);
            if after == before || depot.write(key, &after, version).await? {
                for place in over {
                    self.clear(&place).await;
                }
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..40))).await;
        }
        Err(ToolError::internal(
            "the uploads of this principal are changed by too many at the same time",
        ))
    }

    async fn clear(&self, place: &str) {
        if let Ok(depot) = self.depot()
            && let Err(error) = depot.clear(place).await
        {
            tracing::warn!(%error, place, "an upload cannot be removed");
        }
    }

    /// A ticket with which somebody else can upload a context for this principal.
    ///
    /// # Errors
    /// When no uploads are taken, or the note cannot be written.
    pub async fn open_ticket(&self, principal: &Principal) -> Result<String, ToolError> {
        let key = key(&principal.0);
        let ticket = ticket(&key, random()?);
        let issue = |uploads: &mut Uploads| {
            uploads.principal.clone_from(&principal.0);
            uploads.issue(&ticket, now_ms());
        };
        self.change(&key, issue).await?;
        Ok(ticket)
    }

    /// Takes a ticket; returns for whom it is.
    ///
    /// # Errors
    /// When it is not good.
    pub async fn take_ticket(&self, ticket: &str) -> Result<Principal, ToolError> {
        let refused = |fault: TicketFault| {
            ToolError::one(
                ArgFault::new(ErrorCode::NotAllowed, "ticket", fault.to_string()).expecting(
                    "one that the error of build for a path has just given, or your token",
                ),
            )
        };
        let key = key_of_ticket(ticket).ok_or_else(|| refused(TicketFault::Unknown))?;
        let take = |uploads: &mut Uploads| {
            let principal = Principal(uploads.principal.clone());
            uploads.take(ticket, now_ms()).map(|()| principal)
        };
        self.change(key, take).await?.map_err(refused)
    }

    async fn give_back(&self, ticket: &str) {
        if let Some(key) = key_of_ticket(ticket) {
            let given = self.change(key, |uploads| uploads.give_back(ticket)).await;
            if let Err(error) = given {
                tracing::warn!(%error, "a ticket cannot be given back");
            }
        }
    }

    /// Takes an upload: a tar, plain or packed, which came by `ticket` if by one. One that came to
    /// nothing leaves its ticket good.
    ///
    /// # Errors
    /// What is wrong with it, or that there is no room for it.
    pub async fn upload(
        &self,
        principal: &Principal,
        ticket: Option<&str>,
        archive: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
    ) -> Result<Uploaded, ToolError> {
        let uploaded = self.receive_and_keep(principal, ticket, archive).await;
        if let (Err(_), Some(ticket)) = (&uploaded, ticket) {
            self.give_back(ticket).await;
        }
        uploaded
    }

    async fn receive_and_keep(
        &self,
        principal: &Principal,
        ticket: Option<&str>,
        archive: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
    ) -> Result<Uploaded, ToolError> {
        let depot = self.depot()?;
        let Some(_turn) = self.uploading.under_way.begin(principal) else {
            return Err(too_much(
                "archive",
                "too many uploads at the same time".into(),
                format!("at most {} of one caller", AT_ONCE.0),
                LATER,
            ));
        };
        let scratch = scratch(depot).map_err(ToolError::internal)?;
        let limits = self.upload_limits(principal);
        let path = scratch.path().join("archive");
        write_down(archive, &path, limits).await?;
        let received = self.at_the_disk(move || {
            let archive = File::open(&path).map_err(ToolError::internal)?;
            let received = receive(archive, scratch, limits)?;
            fs::remove_file(path).map_err(ToolError::internal)?;
            Ok::<_, ToolError>(received)
        });
        let received = received.await??;
        self.keep(principal, ticket, depot, &received).await
    }

    /// Does something that blocks for long.
    async fn at_the_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ToolError> {
        let turn = self.uploading.disk.acquire().await;
        let _turn = turn.map_err(ToolError::internal)?;
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(ToolError::internal)
    }

    async fn keep(
        &self,
        principal: &Principal,
        ticket: Option<&str>,
        depot: &dyn Depot,
        received: &Received,
    ) -> Result<Uploaded, ToolError> {
        let key = key(&principal.0);
        let (digest, bytes) = (&received.digest, received.bytes);
        let place = depot.place(random()?);
        let most = u64::from(self.rights(principal).upload_mb) << 20;
        let reserve = |uploads: &mut Uploads| {
            uploads.principal.clone_from(&principal.0);
            uploads.reserve(Context::on_its_way(digest, bytes, &place, now_ms()), most)
        };
        let wanted = self.change(&key, reserve).await?.map_err(|full| {
            too_much(
                "archive",
                full.to_string(),
                format!("at most {most} bytes; uploads are removed when their time is over"),
                self.config.http.uploads_keep,
            )
        })?;
        if wanted && let Err(error) = depot.bring(&received.tar(), &place).await {
            let forget = |uploads: &mut Uploads| uploads.forget(&place);
            self.change(&key, forget).await?;
            self.clear(&place).await;
            return Err(error.into());
        }
        let keep = self.config.http.uploads_keep;
        let settle = |uploads: &mut Uploads| {
            let expires = now_ms() + i64::from(keep) * 1000;
            uploads.settle(digest, &place, ticket, expires)
        };
        if let Some(unneeded) = self.change(&key, settle).await?
            && wanted
        {
            self.clear(&unneeded).await;
        }
        Ok(Uploaded {
            context: digest.clone(),
            bytes,
            files: received.files,
            expires_in_seconds: keep,
        })
    }

    /// How big an upload of this principal may be: as big as the sources of the largest of its profiles.
    fn upload_limits(&self, principal: &Principal) -> Limits {
        let profiles = self.rules(principal).profiles;
        let profiles = profiles.iter().filter_map(|name| self.config.profile(name));
        let most = profiles
            .map(|profile| profile.limits)
            .fold((0, 0), |most, limits| {
                (
                    most.0.max(limits.context_mb << 20),
                    most.1.max(limits.context_entries),
                )
            });
        Limits {
            bytes: most.0,
            entries: most.1,
        }
    }

    /// Unpacks the upload that a digest or a ticket names; returns its digest, and a directory that
    /// is removed when it is dropped.
    ///
    /// # Errors
    /// When this principal has none of that name.
    pub(super) async fn unpacked(
        &self,
        principal: &Principal,
        name: &str,
    ) -> Result<(String, Unpacked), ToolError> {
        let depot = self.depot()?;
        let missing = || {
            ToolError::not_found(
                "source.context",
                "you have no such upload, or its time is over",
                name,
            )
            .expecting("the digest or the ticket of an upload: PUT /v1/contexts")
        };
        let (uploads, _) = depot.note(&key(&principal.0)).await?;
        let context = uploads.find(name, now_ms()).ok_or_else(missing)?;
        let (digest, place) = (context.digest.clone(), context.place.clone());
        let scratch = scratch(depot).map_err(ToolError::internal)?;
        depot.fetch(&place, &tar(scratch.path())).await?;
        let wanted = digest.clone();
        let unpacked = self.at_the_disk(move || unpack(scratch, &wanted)).await?;
        Ok((digest, unpacked.map_err(ToolError::internal)?))
    }

    /// Removes uploads whose time is over, for as long as the server lives.
    pub async fn look_after_uploads(&self) {
        loop {
            if let Err(error) = self.sweep_uploads().await {
                tracing::warn!(%error, "old uploads cannot be removed");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn sweep_uploads(&self) -> Result<(), ToolError> {
        let depot = self.depot()?;
        for key in depot.keys().await? {
            self.change(&key, |_| ()).await?;
        }
        let dir = depot.scratch().to_owned();
        let swept = self.at_the_disk(move || sweep_scratch(&dir, SystemTime::now()));
        swept.await?.map_err(ToolError::internal)
    }
}

/// An upload as a directory.
pub(super) struct Unpacked {
    scratch: TempDir,
}

impl Unpacked {
    /// Its root.
    pub fn root(&self) -> PathBuf {
        tree(self.scratch.path())
    }
}

fn scratch(depot: &dyn Depot) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    // Whether something is below a directory is told by names without links.
    let dir = fs::canonicalize(depot.scratch())?;
    builder.prefix(SCRATCH).tempdir_in(dir)
}

/// Removes what servers that died had on its way.
fn sweep_scratch(dir: &Path, now: SystemTime) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let ours = entry.file_name().to_string_lossy().starts_with(SCRATCH);
        let modified = entry.metadata()?.modified()?;
        if ours && now.duration_since(modified).unwrap_or_default() > ABANDONED {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Writes an archive to a file as it comes: whoever sends slowly must not keep a thread.
async fn write_down(
    mut archive: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
    path: &Path,
    limits: Limits,
) -> Result<(), ToolError> {
    let most = (limits.entries.saturating_mul(HEADERS)).saturating_add(limits.bytes);
    let file = tokio::fs::File::create(path).await;
    let mut file = file.map_err(ToolError::internal)?;
    let mut written = 0u64;
    while let Some(part) = archive.next().await {
        let part = part.map_err(|error| bad(format_args!("it did not come whole: {error}")))?;
        written = written.saturating_add(part.len() as u64);
        if written > most {
            return Err(bad(format_args!("it has more than {most} bytes")));
        }
        file.write_all(&part).await.map_err(ToolError::internal)?;
    }
    file.flush().await.map_err(ToolError::internal)
}

/// Unpacks an archive, and packs it anew: what is kept is ours, and the same tree has the same digest. Blocks.
fn receive(archive: impl Read, scratch: TempDir, limits: Limits) -> Result<Received, ToolError> {
    let root = tree(scratch.path());
    fs::create_dir(&root).map_err(ToolError::internal)?;
    let broken = |error: io::Error| bad(format_args!("it cannot be read: {error}"));
    let mut decoded = Decoded::new(archive).map_err(broken)?;
    context::unpack(&mut decoded, &root, limits).map_err(|error| match error {
        UnpackError::Destination(_) | UnpackError::NotEmpty => ToolError::internal(error),
        _ => bad(error),
    })?;
    // Also what packs it must have come whole: its checksum is at the end.
    let mut padding = decoded.take(PADDING);
    let rest = io::copy(&mut padding, &mut io::sink()).map_err(broken)?;
    if rest == PADDING {
        return Err(bad("there is more behind its end"));
    }
    context::check_dir(&root, limits).map_err(refused)?;
    let path = tar(scratch.path());
    let file = File::create(path).map_err(ToolError::internal)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let snapshot = context::snapshot_whole(&root, limits, &mut out).map_err(refused)?;
    out.flush().map_err(ToolError::internal)?;
    fs::remove_dir_all(&root).map_err(ToolError::internal)?;
    Ok(Received {
        scratch,
        digest: snapshot.digest,
        bytes: snapshot.bytes,
        files: snapshot.files,
    })
}

fn refused(error: SnapshotError) -> ToolError {
    match error {
        SnapshotError::Faults(faults) => {
            let named = faults.named.iter().map(|fault| {
                let problem = clean::short(&fault.to_string(), 400);
                ArgFault::new(ErrorCode::InvalidArgument, "archive", problem)
            });
            ToolError::all(named.collect())
        }
        SnapshotError::TooBig { .. } => bad(error),
        SnapshotError::Root { .. } | SnapshotError::Output(_) => ToolError::internal(error),
    }
}

/// Unpacks what is kept. Blocks.
fn unpack(scratch: TempDir, digest: &str) -> io::Result<Unpacked> {
    /// It was within its limits when it came.
    const ANY: Limits = Limits {
        bytes: u64::MAX,
        entries: u64::MAX,
    };
    let (path, root) = (tar(scratch.path()), tree(scratch.path()));
    fs::create_dir(&root)?;
    let mut hashing = Hashing {
        inner: BufReader::with_capacity(1 << 20, File::open(&path)?),
        hash: Sha256::new(),
    };
    context::unpack(&mut hashing, &root, ANY).map_err(io::Error::other)?;
    io::copy(&mut hashing, &mut io::sink())?;
    let found = format!("sha256:{}", hex::encode(hashing.hash.finalize()));
    if found != digest {
        return Err(io::Error::other(format!(
            "the upload {digest} is damaged: it has the digest {found}"
        )));
    }
    fs::remove_file(path)?;
    Ok(Unpacked { scratch })
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        bytes: 1000,
        entries: 10,
    };

    fn take(archive: &[u8]) -> Result<Received, String> {
        let scratch = tempfile::tempdir().unwrap();
        receive(archive, scratch, LIMITS).map_err(|error| error.to_string())
    }

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, *data).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn the_same_tree_has_the_same_digest_however_it_comes() {
        let plain = archive(&[("b", b"2"), ("a", b"1")]);
        let other = archive(&[("a", b"1"), ("b", b"2")]);
        let packed = zstd::encode_all(&plain[..], 3).unwrap();
        let one = take(&plain).unwrap();
        assert_eq!(one.files, 2);
        assert_eq!(one.digest, take(&other).unwrap().digest);
        assert_eq!(one.digest, take(&packed).unwrap().digest);
        let unpacked = unpack(one.scratch, &one.digest).unwrap();
        assert_eq!(fs::read(unpacked.root().join("a")).unwrap(), b"1");
    }

    #[test]
    fn what_is_kept_is_compared() {
        let one = take(&archive(&[("a", b"1")])).unwrap();
        let two = take(&archive(&[("a", b"2")])).unwrap();
        assert!(unpack(one.scratch, &two.digest).is_err());
    }

    #[test]
    fn bombs_and_scraps_are_refused() {
        let said = |archive: &[u8]| take(archive).err().unwrap();
        let zeros = archive(&[("a", &[0; 100_000])]);
        let bomb = zstd::encode_all(&zeros[..], 19).unwrap();
        assert!(bomb.len() < 1000);
        assert!(
            said(&bomb).contains("more than 1000 bytes"),
            "{}",
            said(&bomb)
        );
        let whole = archive(&[("a", b"1")]);
        let packed = zstd::encode_all(&whole[..], 3).unwrap();
        for cut in [&whole[..700], &packed[..packed.len() - 2], b"", b"<html>"] {
            assert!(
                said(cut).starts_with("error[invalid_argument] archive"),
                "{}",
                said(cut)
            );
        }
        let mut behind = whole.clone();
        behind.resize(whole.len() + (PADDING as usize), b'x');
        assert!(said(&behind).contains("behind its end"));
        let many: Vec<String> = (0..20).map(|n| format!("{n}")).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert!(said(&archive(&many)).contains("files and directories"));
    }

    #[test]
    fn links_may_leave_only_where_they_are_ignored() {
        let with_link = |ignored: bool| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            tar.append_link(&mut header, "venv", "/usr").unwrap();
            if ignored {
                let mut header = tar::Header::new_gnu();
                header.set_size(4);
                header.set_mode(0o644);
                tar.append_data(&mut header, ".containerignore", &b"venv"[..])
                    .unwrap();
            }
            tar.into_inner().unwrap()
        };
        let error = take(&with_link(false)).err().unwrap();
        assert!(error.contains("venv: is a link that leaves"), "{error}");
        assert_eq!(take(&with_link(true)).unwrap().files, 2);
    }

    #[test]
    fn turns_are_counted() {
        let under_way = UnderWay::default();
        let (ann, bob) = (Principal("ann".into()), Principal("bob".into()));
        let mut turns: Vec<Turn> = (0..AT_ONCE.0)
            .filter_map(|_| under_way.begin(&ann))
            .collect();
        assert_eq!(turns.len(), AT_ONCE.0);
        assert!(under_way.begin(&ann).is_none());
        assert!(under_way.begin(&bob).is_some());
        turns.pop();
        assert!(under_way.begin(&ann).is_some());
        drop(turns);
        assert!(under_way.0.lock().unwrap().is_empty());
    }

    #[test]
    fn what_dead_servers_left_goes_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(format!("{SCRATCH}x"));
        fs::create_dir(&left).unwrap();
        fs::write(dir.path().join("other"), "").unwrap();
        sweep_scratch(dir.path(), SystemTime::now()).unwrap();
        assert!(left.exists());
        sweep_scratch(dir.path(), SystemTime::now() + 2 * ABANDONED).unwrap();
        assert!(!left.exists());
        assert!(dir.path().join("other").exists());
    }
}
