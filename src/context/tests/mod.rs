//! Behaviour of the whole module on real trees and hostile archives.

mod hostile;
mod roundtrip;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;

const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    entries: 1000,
};

fn given(path: &str, text: &str) -> ContextFile {
    ContextFile {
        path: path.to_owned(),
        text: text.to_owned(),
        executable: false,
    }
}

/// A directory with these files; `-> x` makes a link to x.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text.strip_prefix("-> ") {
            Some(target) => symlink(target, path).unwrap(),
            None => fs::write(path, text).unwrap(),
        }
    }
    dir
}

fn take(root: &Path) -> Result<(Snapshot, Vec<u8>), SnapshotError> {
    take_with(root, None, &[])
}

fn take_with(
    root: &Path,
    containerfile: Option<&str>,
    files: &[ContextFile],
) -> Result<(Snapshot, Vec<u8>), SnapshotError> {
    let mut out = Vec::new();
    let snapshot = snapshot_dir(
        root,
        &Extent::default(),
        containerfile,
        files,
        LIMITS,
        &mut out,
    )?;
    Ok((snapshot, out))
}

/// Path → text, `-> target`, or `/` for a directory.
fn listing(tar: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    let listed = entries.map(|entry| {
        let mut entry = entry.unwrap();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let text = match entry.header().entry_type() {
            tar::EntryType::Directory => "/".to_owned(),
            tar::EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap();
                format!("-> {}", String::from_utf8_lossy(&target))
            }
            _ => {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
                text
            }
        };
        (path, text)
    });
    listed.collect()
}

fn names(root: &Path, containerfile: Option<&str>) -> Vec<String> {
    let (_, tar) = take_with(root, containerfile, &[]).unwrap();
    listing(&tar).into_keys().collect()
}

fn faults(result: Result<(Snapshot, Vec<u8>), SnapshotError>) -> Vec<String> {
    match result {
        Err(SnapshotError::Faults(faults)) => {
            faults.named.iter().map(ToString::to_string).collect()
        }
        other => panic!("no faults: {other:?}"),
    }
}

#[track_caller]
fn assert_faults(found: &[String], expected: &[&str]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found:?} is not {expected:?}");
    }
}

#[test]
fn the_ignore_file_beside_the_containerfile_wins() {
    let dir = tree(&[
        ("sub/Build", "FROM scratch"),
        ("sub/Build.containerignore", "a"),
        (".containerignore", "b"),
        (".dockerignore", "c"),
        ("a", ""),
        ("b", ""),
        ("c", ""),
    ]);
    let left_out = |containerfile: Option<&str>| {
        let names = names(dir.path(), containerfile);
        ["a", "b", "c"]
            .into_iter()
            .filter(|name| !names.iter().any(|have| have == name))
            .collect::<String>()
    };
    assert_eq!(left_out(Some("sub/Build")), "a");
    assert_eq!(left_out(None), "b");
    fs::remove_file(dir.path().join(".containerignore")).unwrap();
    assert_eq!(left_out(None), "c");
    fs::write(dir.path().join("sub/Build.dockerignore"), "b\nc").unwrap();
    assert_eq!(left_out(Some("sub/Build")), "bc");
    let (snapshot, _) = take_with(dir.path(), Some("sub/Build"), &[]).unwrap();
    let ignore_file = snapshot.control.ignore_file.unwrap();
    assert_eq!(ignore_file, "sub/Build.dockerignore");
    assert_eq!(snapshot.skipped_ignored, 2);
}

#[test]
fn what_the_build_needs_is_never_ignored() {
    let dir = tree(&[
        ("Containerfile", "-> docker/Prod"),
        ("docker/Prod", "FROM scratch"),
        ("docker/other", ""),
        (".containerignore", "*\n!src/keep/*.c"),
        ("src/keep/a.c", ""),
        ("src/keep/a.o", ""),
        ("src/b.c", ""),
        ("node_modules/x", ""),
    ]);
    assert_eq!(
        names(dir.path(), None),
        [
            ".containerignore",
            "Containerfile",
            "docker",
            "docker/Prod",
            "src",
            "src/keep",
            "src/keep/a.c"
        ]
    );
}

#[test]
fn a_bad_ignore_file_is_a_fault_with_its_line() {
    let dir = tree(&[(".dockerignore", "ok\n[a")]);
    assert_faults(
        &faults(take(dir.path())),
        &[".dockerignore: line 2: \"[a\" is not a pattern"],
    );
}

#[test]
fn every_fault_at_once_each_with_its_remedy() {
    let dir = tree(&[
        ("abs", "-> /etc/passwd"),
        ("up/l", "-> ../../x"),
        ("a/b/deep", "-> ../.."),
        ("hidden", "-> a/b/deep/../x"),
        ("fine", "-> up/l2"),
        ("up/l2", "-> ../missing"),
        (".containerignore", "ignored"),
        ("ignored/abs", "-> /etc"),
    ]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let found = faults(take(dir.path()));
    assert_faults(
        &found,
        &[
            "pipe: is a named pipe",
            "socket: is a socket",
            "abs: is a link that leaves the context (it leads to /etc/passwd); replace it",
            "hidden: is a link that leaves the context",
            "up/l: is a link that leaves the context (it leads to ../../x)",
        ],
    );
    assert!(found[2].contains(".containerignore"));
    drop(socket);
}

#[test]
fn at_most_twenty_faults_are_named() {
    let dir = tree(&[]);
    for n in 0..25 {
        symlink("/", dir.path().join(format!("l{n:02}"))).unwrap();
    }
    let error = take(dir.path()).unwrap_err();
    assert_eq!(error.to_string().lines().count(), MAX_FAULTS + 1);
    assert!(error.to_string().ends_with("\nand 5 more"));
}

#[test]
fn control_files_that_lead_out_are_refused() {
    for name in [
        "Containerfile",
        ".containerignore",
        "Containerfile.dockerignore",
    ] {
        let dir = tree(&[("Containerfile", "FROM scratch"), ("d/l", "-> /etc")]);
        let _ = fs::remove_file(dir.path().join(name));
        symlink("d/l/passwd", dir.path().join(name)).unwrap();
        let error = control_files(dir.path(), None).unwrap_err().to_string();
        let expected = format!("{name}: leaves the context through the link d/l (to /etc)");
        assert!(error.starts_with(&expected), "{error}");
        assert!(faults(take(dir.path()))[0].starts_with(&expected));
    }
    let dir = tree(&[
        ("Dockerfile", ""),
        ("Containerfile", "-> loop"),
        ("loop", "-> loop"),
    ]);
    let found = control_files(dir.path(), None).unwrap();
    assert_eq!(found.containerfile.as_deref(), Some("Dockerfile"));
    assert_eq!(found.ignore_file, None);
    assert!(control_files(dir.path(), Some("../x")).is_err());
}

#[test]
fn unreadable_files_are_named() {
    let dir = tree(&[("secret", "x"), ("closed/x", ""), ("ok", "")]);
    for name in ["secret", "closed"] {
        let mode = fs::Permissions::from_mode(0o0);
        fs::set_permissions(dir.path().join(name), mode).unwrap();
    }
    let root = dir.path().to_owned();
    // Even root must not get past the mode here: the thread gives up its capabilities.
    let found = std::thread::spawn(move || {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective = rustix::thread::CapabilitySet::empty();
        rustix::thread::set_capabilities(None, sets).unwrap();
        faults(take(&root))
    })
    .join()
    .unwrap();
    assert_faults(
        &found,
        &[
            "closed: cannot be read (Permission denied",
            "secret: cannot be read (Permission denied",
        ],
    );
}

#[test]
fn limits_name_the_biggest_directories() {
    let dir = tree(&[("src/a", "x"), ("web/index", "x")]);
    fs::create_dir_all(dir.path().join("web/node_modules/deep")).unwrap();
    for n in 0..50 {
        fs::write(dir.path().join(format!("web/node_modules/deep/{n}")), "").unwrap();
    }
    let small = |bytes, entries| {
        let limits = Limits { bytes, entries };
        snapshot_dir(
            dir.path(),
            &Extent::default(),
            None,
            &[],
            limits,
            Vec::new(),
        )
    };
    let error = small(1000, 40).unwrap_err().to_string();
    assert_eq!(
        error,
        "the context has 2 bytes in 56 entries; allowed are 1000 bytes and 40 entries; \
         the biggest directories are web/node_modules (0 bytes, 51 entries), \
         src (0 bytes, 1 entries); list what the build does not need in .containerignore"
            .replace("src (0 bytes", "src (1 bytes")
    );
    let error = small(1000, 4).unwrap_err().to_string();
    assert!(error.starts_with("the context has at least "), "{error}");
    let error = small(1, 1000).unwrap_err().to_string();
    assert!(error.starts_with("the context has 2 bytes"), "{error}");
    assert!(small(2, 56).is_ok());
    let many = [given("a", "xx"), given("b", "x")];
    let limits = Limits {
        bytes: 2,
        entries: 9,
    };
    assert!(snapshot_files(&many, limits, Vec::new()).is_err());
}

#[test]
fn given_files_replace_what_is_there() {
    let dir = tree(&[
        ("src/a.c", "old"),
        ("src/b.c", "kept"),
        ("link", "-> /etc/passwd"),
        ("Containerfile", "FROM old"),
        (".containerignore", "nothing"),
    ]);
    let mut script = given("new/dir/run.sh", "run");
    script.executable = true;
    let files = [
        given("src/a.c", "new"),
        given("link", "text"),
        given(".containerignore", "src/b.c"),
        script,
    ];
    let (_, tar) = take_with(dir.path(), None, &files).unwrap();
    let expected = [
        (".containerignore", "src/b.c"),
        ("Containerfile", "FROM old"),
        ("link", "text"),
        ("new", "/"),
        ("new/dir", "/"),
        ("new/dir/run.sh", "run"),
        ("src", "/"),
        ("src/a.c", "new"),
    ];
    let expected: BTreeMap<_, _> = expected
        .map(|(path, text)| (path.to_owned(), text.to_owned()))
        .into();
    assert_eq!(listing(&tar), expected);

    let bad = [
        given("link/x", ""),
        given("Containerfile/x", ""),
        given("src", ""),
        given("../x", ""),
    ];
    assert_faults(
        &faults(take_with(dir.path(), None, &bad)),
        &[
            "../x: the path has a `..`",
            "link/x: cannot be given, because link is not a directory",
            "Containerfile/x: cannot be given, because Containerfile is not",
            "src: cannot be given as a file, because it is a directory",
            "link: is a link that leaves the context",
        ],
    );
}

#[test]
fn given_files_alone() {
    let files = [given("b/c", "1"), given("a", "2")];
    let mut tar = Vec::new();
    let snapshot = snapshot_files(&files, LIMITS, &mut tar).unwrap();
    assert_eq!(
        listing(&tar).into_keys().collect::<Vec<_>>(),
        ["a", "b", "b/c"]
    );
    let reversed = [given("a", "2"), given("b/c", "1")];
    let again = snapshot_files(&reversed, LIMITS, Vec::new()).unwrap();
    assert_eq!(snapshot, again);
    assert_eq!((snapshot.files, snapshot.bytes), (2, tar.len() as u64));
    assert!(snapshot_files(&[given("/a", "")], LIMITS, Vec::new()).is_err());
}

#[test]
fn of_a_source_goes_in_what_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for path in [
        "app/Dockerfile",
        "app/src/a",
        "app/out/b",
        "app/out/gen/c",
        "libs/shared/out/d",
        "libs/other/e",
        "Dockerfile",
        "top",
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    fs::write(dir.path().join("app/.dockerignore"), "out\nDockerfile\n").unwrap();
    fs::write(dir.path().join(".dockerignore"), "src\nlibs\n").unwrap();
    symlink("app", dir.path().join("link")).unwrap();
    symlink("/etc/passwd", dir.path().join("libs/other/out")).unwrap();
    let paths = |context: &str, named: &[&str]| {
        let extent = Extent {
            context: context.into(),
            named: named.iter().map(|path| (*path).to_owned()).collect(),
        };
        let mut out = Vec::new();
        let snapshot = snapshot_dir(dir.path(), &extent, None, &[], LIMITS, &mut out).unwrap();
        let mut archive = tar::Archive::new(out.as_slice());
        let paths = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            entry.path().unwrap().display().to_string()
        });
        let is_file = |path: &String| !dir.path().join(path).is_dir() || path == "link";
        let paths: Vec<String> = paths.filter(is_file).collect();
        (snapshot.control.containerfile, paths)
    };
    let (containerfile, found) = paths("app", &["libs/shared", "app/out/gen"]);
    assert_eq!(containerfile.as_deref(), Some("app/Dockerfile"));
    let all = [
        "app/.dockerignore",
        "app/Dockerfile",
        "app/out/gen/c",
        "app/src/a",
        "libs/shared/out/d",
    ];
    assert_eq!(found, all);
    // By a link, which is then there, too.
    let (containerfile, found) = paths("link", &[]);
    assert_eq!(containerfile.as_deref(), Some("link/Dockerfile"));
    assert_eq!(
        found,
        ["app/.dockerignore", "app/Dockerfile", "app/src/a", "link"]
    );
    let (_, found) = paths("", &["app/out"]);
    assert_eq!(
        found,
        [
            ".dockerignore",
            "Dockerfile",
            "app/.dockerignore",
            "app/Dockerfile",
            "app/out/b",
            "app/out/gen/c",
            "app/src/a",
            "link",
            "top"
        ]
    );
}
