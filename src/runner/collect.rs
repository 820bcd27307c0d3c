//! Inside the sandbox: copies what was asked for out of a container's file system.
//!
//! Foreign code made that file system, so every path is resolved within it, links included (openat2(2),
//! `RESOLVE_IN_ROOT`), and nothing but regular files, directories and links is read. What is copied is a matter
//! of the sandbox; whoever takes it from there (`outputs`) believes nothing of it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::workdir::write_json;

/// The list of what was found, in the directory of the copies.
pub const LIST: &str = "list.json";
/// How often a path is looked up anew.
const TRIES: u32 = 200;

/// What to collect.
#[derive(Debug, Args)]
pub struct Asked {
    /// Directory of the copies, which are numbered from 0 in the order of the paths.
    #[arg(long)]
    into: PathBuf,
    /// Bytes of all copies together, at most.
    #[arg(long)]
    limit: u64,
    /// Absolute paths in the container.
    #[arg(long)]
    path: Vec<String>,
    /// The command that mounts the container and prints where.
    #[arg(last = true, required = true)]
    mount: Vec<String>,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "found")]
pub enum Found {
    /// A file was copied.
    File {
        /// Whether somebody may run it.
        executable: bool,
    },
    /// A directory was packed.
    Directory,
    /// There is nothing.
    Nothing,
    /// It is a device, a socket or a pipe.
    Other,
    /// Something of it cannot be read: names that are too long together, as foreign code can make them.
    Unreadable,
    /// With it there would be more than the limit.
    TooLarge,
}

/// Copies; writes [`LIST`] at the end.
///
/// # Errors
/// When the container cannot be mounted, or something cannot be read or written.
pub fn collect(asked: &Asked) -> io::Result<()> {
    let root = mounted(&asked.mount)?;
    fs::create_dir_all(&asked.into)?;
    let mut left = asked.limit;
    let mut list = Vec::new();
    for (index, path) in asked.path.iter().enumerate() {
        let to = asked.into.join(index.to_string());
        let found = one(&root, path, &to, &mut left);
        list.push(found.map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?);
    }
    write_json(&asked.into.join(LIST), &list)
}

/// Mounts the container and opens its root.
fn mounted(command: &[String]) -> io::Result<OwnedFd> {
    let (program, words) = command
        .split_first()
        .ok_or_else(|| io::Error::other("there is no command that mounts"))?;
    let output = Command::new(program)
        .args(words)
        // In the user namespace already (github.com/containers/storage, pkg/unshare).
        .env("_CONTAINERS_USERNS_CONFIGURED", "done")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other("the container cannot be mounted"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let root = text.lines().last().unwrap_or_default().trim();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(root, flags, Mode::empty())?)
}

fn one(root: &OwnedFd, path: &str, to: &Path, left: &mut u64) -> io::Result<Found> {
    let open = |flags| {
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        let mut tries = 0;
        loop {
            match openat2(root, path, flags, Mode::empty(), within) {
                // Something was renamed or mounted anywhere on the machine (openat2(2)).
                Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => {
                    tries += 1;
                    std::thread::yield_now();
                }
                opened => return opened,
            }
        }
    };
    let place = match open(OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {
            return Ok(Found::Nothing);
        }
        other => other?,
    };
    let stat = rustix::fs::fstat(&place)?;
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Found::File {
            executable: stat.st_mode & 0o111 != 0,
        },
        FileType::Directory => Found::Directory,
        _ => return Ok(Found::Other),
    };
    let mut copy = Limited {
        file: fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?,
        left: *left,
        is_over: false,
        has_failed: false,
    };
    let copied = match found {
        Found::Directory => pack(&place, &mut copy),
        _ => {
            let mut from = File::from(open(OFlags::RDONLY | OFlags::NONBLOCK)?);
            io::copy(&mut from, &mut copy).map(drop)
        }
    };
    if copy.is_over {
        fs::remove_file(to)?;
        return Ok(Found::TooLarge);
    }
    match copied {
        Ok(()) => {
            *left = copy.left;
            Ok(found)
        }
        Err(_) if !copy.has_failed => {
            fs::remove_file(to)?;
            Ok(Found::Unreadable)
        }
        Err(error) => Err(error),
    }
}

/// Writes a directory as a tar archive; nothing changes it meanwhile. Sockets are left out, as tar(1) does.
fn pack(directory: &OwnedFd, to: &mut Limited) -> io::Result<()> {
    let top = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let mut archive = tar::Builder::new(to);
    archive.follow_symlinks(false);
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        let mut names = Vec::new();
        // With the slash the descriptor itself is followed, and nothing else.
        for entry in fs::read_dir(top.join(&below).join(""))? {
            names.push(entry?.file_name());
        }
        names.sort();
        for name in names {
            let name = below.join(name);
            let metadata = fs::symlink_metadata(top.join(&name))?;
            match metadata.file_type() {
                kind if kind.is_socket() => {}
                kind if kind.is_dir() => {
                    let mut header = header(&metadata);
                    header.set_entry_type(tar::EntryType::Directory);
                    archive.append_data(&mut header, name.join(""), io::empty())?;
                    pending.push(name);
                }
                _ => archive.append_path_with_name(top.join(&name), &name)?,
            }
        }
    }
    archive.finish()
}

fn header(metadata: &fs::Metadata) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

/// A file that takes only so much.
struct Limited {
    file: File,
    left: u64,
    is_over: bool,
    /// Writing has failed, as on a full disk.
    has_failed: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = bytes.len() as u64;
        if size > self.left {
            self.is_over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.file.write(bytes);
        self.has_failed |= written.is_err();
        let written = written?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads the list of what was found; it may be anything.
///
/// # Errors
/// When it is not there, or no list.
pub fn read_list(bytes: &mut dyn Read) -> io::Result<Vec<Found>> {
    serde_json::from_reader(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn run(root: &Path, paths: &[&str], limit: u64) -> (Vec<Found>, tempfile::TempDir) {
        let into = tempfile::tempdir().unwrap();
        let asked = Asked {
            into: into.path().into(),
            limit,
            path: paths.iter().map(|path| (*path).to_owned()).collect(),
            mount: vec!["echo".into(), root.display().to_string()],
        };
        collect(&asked).unwrap();
        let list = read_list(&mut File::open(into.path().join(LIST)).unwrap()).unwrap();
        (list, into)
    }

    #[test]
    fn links_lead_nowhere_but_into_the_container() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "host").unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/secret"), "image").unwrap();
        symlink(outside.path().join("secret"), root.path().join("out")).unwrap();
        symlink("../../../../etc/secret", root.path().join("up")).unwrap();
        symlink("/etc", root.path().join("etc2")).unwrap();
        symlink("/proc/self/root", root.path().join("magic")).unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        let (list, into) = run(
            root.path(),
            &["/out", "/up", "/etc2/secret", "/magic/etc/passwd", "/loop"],
            1000,
        );
        let file = Found::File { executable: false };
        use Found::Nothing;
        assert_eq!(list, [Nothing, file, file, Nothing, Nothing]);
        for copy in ["1", "2"] {
            assert_eq!(fs::read_to_string(into.path().join(copy)).unwrap(), "image");
        }
    }

    #[test]
    fn directories_come_whole_and_what_waits_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("d/e")).unwrap();
        fs::write(at("d/e/run"), "x").unwrap();
        fs::set_permissions(at("d/e/run"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/etc/passwd", at("d/link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("d/socket")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
        let (list, into) = run(root.path(), &["/d", "/fifo", "/d/e/run"], 1 << 20);
        let run = Found::File { executable: true };
        assert_eq!(list, [Found::Directory, Found::Other, run]);
        let mut archive = tar::Archive::new(File::open(into.path().join("0")).unwrap());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                (
                    path,
                    entry.header().entry_type(),
                    entry.header().mode().unwrap() & 0o111 != 0,
                )
            })
            .collect();
        use tar::EntryType::{Directory, Regular, Symlink};
        assert_eq!(
            entries,
            [
                ("e/".to_owned(), Directory, true),
                ("link".to_owned(), Symlink, true),
                ("e/run".to_owned(), Regular, true)
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_costs_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("fine"), "x").unwrap();
        let deep = root.path().join("deep");
        fs::create_dir(&deep).unwrap();
        let mut at = File::open(&deep).unwrap();
        // Deeper than any path can be long.
        for _ in 0..30 {
            let name = "d".repeat(200);
            rustix::fs::mkdirat(&at, &name, 0o755.into()).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            at = File::from(rustix::fs::openat(&at, &name, flags, Mode::empty()).unwrap());
        }
        let (list, into) = run(root.path(), &["/deep", "/fine"], 1 << 20);
        let fine = Found::File { executable: false };
        assert_eq!(list, [Found::Unreadable, fine]);
        assert!(!into.path().join("0").exists());
    }

    #[test]
    fn more_than_the_limit_is_not_copied_and_the_rest_still_is() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("large"), vec![0; 5000]).unwrap();
        fs::write(root.path().join("small"), "x").unwrap();
        let (list, into) = run(root.path(), &["/large", "/small"], 4999);
        assert_eq!(list, [Found::TooLarge, Found::File { executable: false }]);
        assert!(!into.path().join("0").exists());
    }
}
