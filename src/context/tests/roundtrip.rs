//! A tree, its stream, and the tree again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use super::*;

fn rich() -> tempfile::TempDir {
    let long = format!("{}/{}/{}", "d".repeat(90), "e".repeat(200), "f".repeat(250));
    let dir = tree(&[
        ("Containerfile", "FROM scratch"),
        ("a/x", "1"),
        ("a-b", "2"),
        ("odd \n name", "3"),
        (&long, "4"),
        ("links/plain", "-> ../a/x"),
        ("links/odd", "-> .//..//a/./x"),
        ("empty", ""),
    ]);
    symlink(format!("../{long}"), dir.path().join("links/long")).unwrap();
    fs::hard_link(dir.path().join("a/x"), dir.path().join("a/y")).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"not-\xff-utf8");
    fs::write(dir.path().join(name), "5").unwrap();
    fs::create_dir(dir.path().join("nothing")).unwrap();
    for (path, mode) in [("a/x", 0o4755), ("a", 0o751), ("empty", 0o600)] {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(dir.path().join(path), mode).unwrap();
    }
    dir
}

#[test]
fn the_same_tree_has_the_same_digest_after_unpacking() {
    let dir = rich();
    let (snapshot, tar) = take(dir.path()).unwrap();
    let hash = <sha2::Sha256 as sha2::Digest>::digest(&tar);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(snapshot.digest, format!("sha256:{hex}"));
    assert_eq!(snapshot.bytes, tar.len() as u64);
    assert_eq!(snapshot.files, 11);

    let copy = tempfile::tempdir().unwrap();
    let unpacked = unpack(&tar[..], copy.path(), LIMITS).unwrap();
    assert_eq!(unpacked.entries, 16);
    let (again, _) = take(copy.path()).unwrap();
    assert_eq!(again, snapshot);
    let mode = |path: &str| fs::metadata(copy.path().join(path)).unwrap().mode() & 0o7777;
    assert_eq!(
        (mode("a/x"), mode("a"), mode("empty")),
        (0o755, 0o751, 0o600)
    );
    assert_eq!(fs::read_to_string(copy.path().join("a/y")).unwrap(), "1");
}

#[test]
fn other_tools_read_the_stream_and_theirs_are_read() {
    let dir = rich();
    let (_, tar) = take(dir.path()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &tar).unwrap();
    let run = |arguments: &[&std::ffi::OsStr]| {
        let mut command = std::process::Command::new("tar");
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let listed = run(&["-tf".as_ref(), file.path().as_os_str()]);
    assert_eq!(listed.iter().filter(|byte| **byte == b'\n').count(), 16);
    for format in ["gnu", "posix", "ustar", "v7"] {
        let small = tree(&[("d/a", "1"), ("d/l", "-> a"), ("é", "2")]);
        fs::hard_link(small.path().join("d/a"), small.path().join("d/b")).unwrap();
        let tar = run(&[
            format!("--format={format}").as_ref(),
            "-cC".as_ref(),
            small.path().as_os_str(),
            ".".as_ref(),
        ]);
        let copy = tempfile::tempdir().unwrap();
        unpack(&tar[..], copy.path(), LIMITS).unwrap();
        let read = |path: &str| fs::read_to_string(copy.path().join(path)).unwrap();
        assert_eq!((read("d/b"), read("d/l")), ("1".into(), "1".into()));
        assert_eq!(read("é"), "2", "{format}");
    }
}

#[test]
fn time_counts_to_the_second_and_given_files_are_the_newest() {
    let dir = tree(&[("a", "1"), ("b", "2")]);
    let set = |path: &str, seconds: u64, nanos: u32| {
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        let file = File::open(dir.path().join(path)).unwrap();
        file.set_modified(time).unwrap();
    };
    set("a", 1000, 1);
    set("b", 2000, 0);
    set("", 5000, 0);
    let (first, tar) = take_with(dir.path(), None, &[given("c", "")]).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let times: Vec<u64> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().header().mtime().unwrap())
        .collect();
    assert_eq!(times, [1000, 2000, 2000]);
    set("a", 1000, 999);
    let (same, _) = take_with(dir.path(), None, &[given("c", "")]).unwrap();
    assert_eq!(first.digest, same.digest);
    set("a", 1001, 0);
    let (other, _) = take_with(dir.path(), None, &[given("c", "")]).unwrap();
    assert_ne!(first.digest, other.digest);
}

/// Does something to the tree at the first byte written, when all sizes are known.
struct Meddle<F: FnMut()>(F, bool);

impl<F: FnMut()> Write for Meddle<F> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.1, true) {
            (self.0)();
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn meddle(then: impl Fn(&Path)) -> Result<Snapshot, SnapshotError> {
    let dir = tree(&[("a", "first"), ("sub/z", "0123456789")]);
    let out = Meddle(|| then(dir.path()), false);
    snapshot_dir(dir.path(), &Extent::default(), None, &[], LIMITS, out)
}

#[test]
fn files_that_change_while_they_are_read() {
    let still = meddle(|_| {}).unwrap();
    let grown = meddle(|root| {
        let file = File::options().append(true).open(root.join("sub/z"));
        file.unwrap().write_all(b"more").unwrap();
    });
    assert_eq!(grown.unwrap().bytes, still.bytes);
    let changes: [fn(&Path); 4] = [
        |root| fs::write(root.join("sub/z"), "01").unwrap(),
        |root| fs::remove_file(root.join("sub/z")).unwrap(),
        |root| {
            fs::remove_file(root.join("sub/z")).unwrap();
            symlink("/etc/passwd", root.join("sub/z")).unwrap();
        },
        |root| {
            fs::rename(root.join("sub"), root.join("moved")).unwrap();
            symlink("moved", root.join("sub")).unwrap();
        },
    ];
    for change in changes {
        let error = meddle(change).unwrap_err().to_string();
        assert!(
            error.starts_with("sub/z: changed while it was read"),
            "{error}"
        );
    }
}

#[test]
fn a_full_disk_is_not_the_trees_fault() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let dir = tree(&[("a", "1")]);
    let error = snapshot_dir(dir.path(), &Extent::default(), None, &[], LIMITS, full).unwrap_err();
    assert!(matches!(error, SnapshotError::Output(_)), "{error:?}");
    let error = take(&dir.path().join("missing")).unwrap_err();
    assert!(matches!(error, SnapshotError::Root { .. }));
}
