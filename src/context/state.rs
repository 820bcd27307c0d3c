//! Whether a tree is as it was left: the state of all that is in it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, statat};
use sha2::{Digest, Sha256};

use super::beneath::open_directory;
use super::path::MAX_DEPTH;

/// A digest of names, kinds, modes, sizes, inodes, and times of the last change of all that is below `root`,
/// itself not included. Whoever changes something later than a tick of the clock (some milliseconds before
/// Linux 6.13) changes it, since nobody can set the time of the last change (inode(7), ctime). Contents are not
/// read. Blocks.
///
/// # Errors
/// When the tree cannot be read, or is deeper than a source may be.
pub fn state(root: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let mut sum = Sha256::new();
    directory(root.as_fd(), 0, &mut sum)?;
    Ok(hex::encode(sum.finalize()))
}

fn directory(fd: BorrowedFd<'_>, depth: usize, sum: &mut Sha256) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("the tree is too deep"));
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let name = OsString::from_vec(entry?.file_name().to_bytes().to_owned());
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    for name in &names {
        let stat = statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        sum.update(name.as_bytes());
        let numbers = format!(
            "\0{:o} {} {} {}.{} {}.{}\0",
            stat.st_mode,
            stat.st_ino,
            stat.st_size,
            stat.st_mtime,
            stat.st_mtime_nsec,
            stat.st_ctime,
            stat.st_ctime_nsec,
        );
        sum.update(numbers);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            directory(open_directory(fd, name)?.as_fd(), depth + 1, sum)?;
            sum.update([0]);
        }
    }
    Ok(())
}

/// Waits until a change in `dir` has another time than one before.
#[cfg(test)]
pub(crate) fn next_tick(dir: &Path) {
    use std::os::unix::fs::MetadataExt;
    let tick = || {
        let file = tempfile::NamedTempFile::new_in(dir).unwrap();
        let now = file.as_file().metadata().unwrap();
        (now.ctime(), now.ctime_nsec())
    };
    let before = tick();
    while tick() == before {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    #[test]
    fn a_tree_that_was_moved_is_the_same_and_one_that_was_touched_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (at, root) = (dir.path().join("moved"), dir.path().join("root"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/x"), "1").unwrap();
        std::os::unix::fs::symlink("x", root.join("a/l")).unwrap();
        let before = state(&root).unwrap();
        fs::rename(&root, &at).unwrap();
        assert_eq!(state(&at).unwrap(), before);
        let path = at.join("a/b/x");
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let mut seen = vec![before];
        let mut look = || {
            let now = state(&at).unwrap();
            assert!(!seen.contains(&now));
            seen.push(now);
            next_tick(dir.path());
        };
        next_tick(dir.path());
        // The same size, and the same time of the last modification.
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        io::Write::write_all(&mut &file, b"2").unwrap();
        file.set_modified(time).unwrap();
        look();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        look();
        fs::write(at.join("a/new"), "").unwrap();
        look();
        fs::remove_file(at.join("a/l")).unwrap();
        std::os::unix::fs::symlink("y", at.join("a/l")).unwrap();
        look();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        look();
        assert!(state(&path).is_err());
    }
}
