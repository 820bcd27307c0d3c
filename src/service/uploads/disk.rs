//! Uploads on the disk: unpacked, checked, packed anew, removed. Blocks.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::backend::Depot;
use crate::build::clean;
use crate::context::{
    self, Decoded, EntryFault, FaultKind, Limits, Snapshot, SnapshotError, UnpackError,
};
use crate::schema::ArgFault;
use crate::schema::error_code::ErrorCode;
use crate::service::ToolError;

/// How old a directory is that no upload and no build can be at any more.
const ABANDONED: Duration = Duration::from_secs(2 * 60 * 60);
/// Beginning of the names of directories for what is on its way.
const SCRATCH: &str = "on-the-way-";
/// Bytes behind the end of an archive that are read: programs fill up their last block.
const PADDING: u64 = 1 << 20;
/// Bytes that an entry of an archive has at most beside its contents, on average.
const HEADERS: u64 = 4096;

/// A directory for what is on its way.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    dir: Option<TempDir>,
}

impl Scratch {
    /// One on the file system of the contexts.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(depot: &dyn Depot) -> io::Result<Self> {
        Self::within(depot.scratch())
    }

    fn within(dir: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(dir)?;
        Ok(Self {
            path: dir.path().to_owned(),
            dir: Some(dir),
        })
    }

    /// What has come.
    pub fn archive(&self) -> PathBuf {
        self.path.join("archive")
    }

    /// What is kept.
    pub fn tar(&self) -> PathBuf {
        self.path.join("tar")
    }

    /// What it holds.
    pub fn tree(&self) -> PathBuf {
        self.path.join("tree")
    }

    /// Removes it. Blocks.
    pub fn remove(mut self) {
        self.dir.take();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        // A large tree keeps a thread busy, which others wait for when it is not for that.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(dir));
        }
    }
}

/// Removes what servers that died had on its way.
pub(super) fn sweep(dir: &Path, now: SystemTime) {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%error, "what is left of uploads cannot be found");
            return;
        }
    };
    for entry in entries.flatten() {
        match sweep_one(&entry, now) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "what is left of an upload cannot be removed");
            }
            _ => {}
        }
    }
}

fn sweep_one(entry: &fs::DirEntry, now: SystemTime) -> io::Result<()> {
    if !entry.file_name().to_string_lossy().starts_with(SCRATCH) {
        return Ok(());
    }
    let modified = entry.metadata()?.modified()?;
    if now.duration_since(modified).unwrap_or_default() > ABANDONED {
        fs::remove_dir_all(entry.path())?;
    }
    Ok(())
}

/// What is wrong with an archive.
pub(super) fn bad(problem: impl std::fmt::Display) -> ToolError {
    let problem = clean::short(&problem.to_string(), 400);
    ToolError::one(ArgFault::new(
        ErrorCode::InvalidArgument,
        "archive",
        problem,
    ))
}

/// How many bytes an archive of these limits has at most when it is not packed.
pub(super) fn most_bytes(limits: Limits) -> u64 {
    (limits.entries.saturating_mul(HEADERS)).saturating_add(limits.bytes)
}

/// Whether an error is this machine's, such as that its disk is full, and not the archive's: what the system
/// says of names, links and modes that only the archive can have.
fn is_ours(error: &io::Error) -> bool {
    const THEIRS: [Errno; 4] = [
        Errno::NAMETOOLONG,
        Errno::ILSEQ,
        Errno::MLINK,
        Errno::ACCESS,
    ];
    Errno::from_io_error(error).is_some_and(|errno| !THEIRS.contains(&errno))
}

/// Unpacks the archive, and packs it anew: what is kept is ours, and the same tree has the same digest.
pub(super) fn receive(scratch: &Scratch, limits: Limits) -> Result<Snapshot, ToolError> {
    let root = scratch.tree();
    let archive = File::open(scratch.archive()).map_err(ToolError::internal)?;
    fs::create_dir(&root).map_err(ToolError::internal)?;
    take_apart(archive, &root, limits)?;
    fs::remove_file(scratch.archive()).map_err(ToolError::internal)?;
    context::check_dir(&root, limits).map_err(refused)?;
    let file = File::create(scratch.tar()).map_err(ToolError::internal)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let snapshot = context::snapshot_whole(&root, limits, &mut out).map_err(refused)?;
    out.flush().map_err(ToolError::internal)?;
    fs::remove_dir_all(&root).map_err(ToolError::internal)?;
    if snapshot.files == 0 {
        return Err(bad("it holds no files"));
    }
    Ok(snapshot)
}

/// Unpacks an archive into an empty directory, all of it.
fn take_apart(archive: impl Read, root: &Path, limits: Limits) -> Result<(), ToolError> {
    let broken = |error: io::Error| match is_ours(&error) {
        true => ToolError::internal(error),
        false => bad(format_args!("it cannot be read: {error}")),
    };
    // Headers count as well: they, too, can be packed to next to nothing.
    let most = most_bytes(limits).saturating_add(PADDING);
    let mut decoded = Decoded::new(archive).map_err(broken)?.take(most);
    let unpacked = context::unpack(&mut decoded, root, limits);
    if decoded.limit() == 0 {
        return Err(bad(format_args!(
            "it has more than {most} bytes when it is unpacked"
        )));
    }
    unpacked.map_err(|error| match &error {
        UnpackError::Destination(_) | UnpackError::NotEmpty => ToolError::internal(error),
        UnpackError::Archive(cause)
        | UnpackError::Entry {
            fault: EntryFault::Io(cause),
            ..
        } if is_ours(cause) => ToolError::internal(error),
        _ => bad(error),
    })?;
    // Also what packs it must have come whole: its checksum is at the end.
    let mut padding = decoded.take(PADDING);
    let rest = io::copy(&mut padding, &mut io::sink()).map_err(broken)?;
    if rest == PADDING {
        return Err(bad("there is more behind its end"));
    }
    Ok(())
}

fn refused(error: SnapshotError) -> ToolError {
    match error {
        SnapshotError::Faults(faults) => {
            let ours = faults.named.iter().find(
                |fault| matches!(&fault.kind, FaultKind::Unreadable(cause) if is_ours(cause)),
            );
            if let Some(ours) = ours {
                return ToolError::internal(ours);
            }
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

/// Unpacks what is kept.
///
/// # Errors
/// When it cannot be read, or is not what has this digest.
pub(super) fn unpack(scratch: &Scratch, digest: &str) -> io::Result<()> {
    /// It was within its limits when it came.
    const ANY: Limits = Limits {
        bytes: u64::MAX,
        entries: u64::MAX,
    };
    let (path, root) = (scratch.tar(), scratch.tree());
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
    fs::remove_file(path)
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

    /// What was received, and where it is.
    struct Received(
        Snapshot,
        Scratch,
        #[expect(dead_code, reason = "holds what is in it")] TempDir,
    );

    fn take(archive: &[u8]) -> Result<Received, String> {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::within(dir.path()).unwrap();
        fs::write(scratch.archive(), archive).unwrap();
        let snapshot = receive(&scratch, LIMITS).map_err(|error| error.to_string())?;
        Ok(Received(snapshot, scratch, dir))
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
        assert_eq!(one.0.files, 2);
        assert_eq!(one.0.digest, take(&other).unwrap().0.digest);
        assert_eq!(one.0.digest, take(&packed).unwrap().0.digest);
        unpack(&one.1, &one.0.digest).unwrap();
        assert_eq!(fs::read(one.1.tree().join("a")).unwrap(), b"1");
    }

    #[test]
    fn directories_of_which_an_archive_says_nothing_have_the_same_time_always() {
        let one = take(&archive(&[("a/b/c", b"1")])).unwrap();
        let two = take(&archive(&[("a/b/c", b"1")])).unwrap();
        for Received(snapshot, scratch, _) in [&one, &two] {
            unpack(scratch, &snapshot.digest).unwrap();
            let modified = |path: &str| {
                let metadata = fs::metadata(scratch.tree().join(path)).unwrap();
                metadata.modified().unwrap()
            };
            let sometime = SystemTime::now() - Duration::from_secs(365 * 24 * 60 * 60);
            assert!(modified("a") < sometime && modified("a/b") < sometime);
        }
        assert_eq!(one.0.digest, two.0.digest);
    }

    #[test]
    fn what_is_kept_is_compared() {
        let one = take(&archive(&[("a", b"1")])).unwrap();
        let two = take(&archive(&[("a", b"2")])).unwrap();
        assert!(unpack(&one.1, &two.0.digest).is_err());
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
        assert!(said(&archive(&[])).contains("it holds no files"));
        let many: Vec<String> = (0..20).map(|n| format!("{n}")).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert!(said(&archive(&many)).contains("files and directories"));
    }

    #[test]
    fn headers_that_say_nothing_are_counted_too() {
        let mut tar = tar::Builder::new(Vec::new());
        for _ in 0..40 {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::XHeader);
            header.set_size(60_000);
            header.set_cksum();
            let comment = format!("60000 comment={}\n", "x".repeat(60_000 - 15));
            tar.append(&header, comment.as_bytes()).unwrap();
        }
        let packed = zstd::encode_all(&tar.into_inner().unwrap()[..], 3).unwrap();
        let error = take(&packed).err().unwrap();
        assert!(error.contains("bytes when it is unpacked"), "{error}");
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XGlobalHeader);
        header.set_size(100_000);
        header.set_cksum();
        tar.append(&header, &[b'x'; 100_000][..]).unwrap();
        let error = take(&tar.into_inner().unwrap()).err().unwrap();
        assert!(error.contains("extended headers"), "{error}");
    }

    #[test]
    fn a_full_disk_is_not_the_callers_fault() {
        for (errno, ours) in [
            (Errno::NOSPC, true),
            (Errno::DQUOT, true),
            (Errno::MFILE, true),
            (Errno::NAMETOOLONG, false),
            (Errno::ILSEQ, false),
        ] {
            assert_eq!(is_ours(&errno.into()), ours, "{errno}");
        }
        assert!(!is_ours(&io::ErrorKind::UnexpectedEof.into()));
    }

    #[tokio::test]
    async fn what_is_dropped_is_removed_by_a_thread_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::within(dir.path()).unwrap();
        drop(scratch);
        while dir.path().read_dir().unwrap().next().is_some() {
            tokio::task::yield_now().await;
        }
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
        assert_eq!(take(&with_link(true)).unwrap().0.files, 2);
    }

    #[test]
    fn what_dead_servers_left_goes_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(format!("{SCRATCH}x"));
        fs::create_dir(&left).unwrap();
        fs::write(dir.path().join("other"), "").unwrap();
        sweep(dir.path(), SystemTime::now());
        assert!(left.exists());
        sweep(dir.path(), SystemTime::now() + 2 * ABANDONED);
        assert!(!left.exists());
        assert!(dir.path().join("other").exists());
    }
}
