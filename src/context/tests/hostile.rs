//! Archives and trees made to do harm.

use super::*;
use proptest::prelude::*;
use tar::{EntryType, Header};

/// An archive of raw headers, which no sane tool would write.
#[derive(Default)]
struct Evil(Vec<u8>);

impl Evil {
    fn add(mut self, kind: EntryType, name: &[u8], link: &[u8], data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(0o6644);
        header.set_mtime(1);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str) -> Self {
        self.add(EntryType::Regular, name.as_bytes(), b"", b"evil")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, name.as_bytes(), target.as_bytes(), b"")
    }

    /// With the mark that ends an archive.
    fn whole(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// A header that claims a size, and nothing behind it.
    fn claim(mut self, kind: EntryType, size: u64) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..1].copy_from_slice(b"c");
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self
    }

    /// Extracts into `inner` of a directory and returns the result with that directory.
    fn unpack(self) -> (Result<Unpacked, UnpackError>, tempfile::TempDir) {
        let dir = tree(&[("outside/kept", "safe")]);
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let result = unpack(&self.whole()[..], &inner, LIMITS);
        let kept = fs::read_to_string(dir.path().join("outside/kept"));
        assert_eq!(kept.unwrap(), "safe");
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        (result, dir)
    }

    #[track_caller]
    fn refused(self) -> EntryFault {
        match self.unpack().0 {
            Err(UnpackError::Entry { fault, .. }) => fault,
            other => panic!("not refused: {other:?}"),
        }
    }
}

#[test]
fn nothing_is_written_outside() {
    let evil = Evil::default;
    for name in [
        "/nonexistent/x",
        "../outside/new",
        "a/../../outside/new",
        "..",
    ] {
        assert!(matches!(evil().file(name).refused(), EntryFault::Name));
    }
    for (target, name) in [
        ("../outside", "l/new"),
        ("../outside/kept", "l/x"),
        ("/nonexistent", "l/a/b"),
        (".", "l/x"),
    ] {
        let fault = evil().link("l", target).file(name).refused();
        assert!(matches!(fault, EntryFault::Parent(_)), "{fault:?}");
    }
    // A file in the place of a link replaces it.
    let (result, dir) = evil().link("l", "../outside/kept").file("l").unpack();
    assert_eq!(result.unwrap().entries, 2);
    let text = fs::read_to_string(dir.path().join("inner/l")).unwrap();
    assert_eq!(text, "evil");
    // A directory does not.
    let slip = evil()
        .link("l", "../outside")
        .add(EntryType::Directory, b"l", b"", b"");
    assert!(matches!(slip.refused(), EntryFault::Parent(_)));
}

#[test]
fn hard_links_lead_to_extracted_files_only() {
    let hard = |evil: Evil, target: &str| evil.add(EntryType::Link, b"h", target.as_bytes(), b"");
    let evil = Evil::default;
    assert!(matches!(
        hard(evil(), "../outside/kept").refused(),
        EntryFault::Name
    ));
    assert!(matches!(
        hard(evil(), "/etc/passwd").refused(),
        EntryFault::Name
    ));
    assert!(matches!(
        hard(evil(), "none").refused(),
        EntryFault::HardLink
    ));
    assert!(matches!(hard(evil(), "h").refused(), EntryFault::HardLink));
    let by_link = evil().link("l", "../outside/kept");
    assert!(matches!(hard(by_link, "l").refused(), EntryFault::HardLink));
    let by_parent = evil().link("l", "../outside");
    assert!(matches!(
        hard(by_parent, "l/kept").refused(),
        EntryFault::Parent(_)
    ));
    assert!(hard(evil().file("f"), "./f").unpack().0.is_ok());
}

#[test]
fn only_files_directories_and_links() {
    for kind in [
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNUSparse,
        EntryType::new(b'Z'),
    ] {
        let fault = Evil::default().add(kind, b"x", b"", b"").refused();
        assert!(matches!(fault, EntryFault::Type(_)), "{fault:?}");
    }
    assert!(matches!(
        Evil::default().link("l", "").refused(),
        EntryFault::Target
    ));
    let twice = Evil::default()
        .add(EntryType::Directory, b"d", b"", b"")
        .file("d");
    assert!(matches!(twice.refused(), EntryFault::Directory));
}

#[test]
fn modes_lose_what_is_dangerous_and_directories_stay_usable() {
    let mut evil = Evil::default().file("suid");
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..1].copy_from_slice(b"d");
    header.set_entry_type(EntryType::Directory);
    header.set_mode(0o1000);
    header.set_size(0);
    header.set_cksum();
    evil.0.extend(header.as_bytes());
    let (result, dir) = evil.file("d/x").unpack();
    result.unwrap();
    let mode = |path: &str| {
        let metadata = fs::metadata(dir.path().join("inner").join(path));
        metadata.unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(
        (mode("suid"), mode("d"), mode("d/x")),
        (0o644, 0o700, 0o644)
    );
}

#[test]
fn extension_headers_are_bounded_and_must_not_contradict() {
    let pax = |records: &[u8]| {
        Evil::default()
            .add(EntryType::XHeader, b"x", b"", records)
            .file("f")
    };
    for records in [
        &b"12 size=999\n"[..],
        b"26 GNU.sparse.realsize=99\n",
        b"nonsense\n",
    ] {
        assert!(matches!(pax(records).refused(), EntryFault::Extension));
    }
    assert!(matches!(
        pax(b"21 path=../outside/x\n").refused(),
        EntryFault::Name
    ));
    let (result, dir) = pax(b"14 path=other\n10 size=4\n").unpack();
    result.unwrap();
    assert!(dir.path().join("inner/other").exists());
    let huge = Evil::default().add(EntryType::GNULongName, b"L", b"", &[b'a'; 5000]);
    assert!(matches!(huge.refused(), EntryFault::Extension));
    let deep = "d/".repeat(129);
    let deep = Evil::default().add(EntryType::GNULongName, b"L", b"", deep.as_bytes());
    assert!(matches!(deep.file("x").refused(), EntryFault::Name));
}

#[test]
fn limits_hold() {
    let small = Limits {
        bytes: 10,
        entries: 5,
    };
    let unpack_small = |evil: Evil| {
        let dir = tempfile::tempdir().unwrap();
        unpack(&evil.whole()[..], dir.path(), small)
    };
    let evil = Evil::default;
    assert!(unpack_small(evil().file("a").file("b")).is_ok());
    let too_big = |evil: Evil| matches!(unpack_small(evil), Err(UnpackError::TooBig(_)));
    assert!(too_big(evil().file("a").file("b").file("c")), "12 bytes");
    assert!(too_big(evil().file("a/b/c/d/e/f")), "six entries");
    let directory = |evil: Evil| evil.add(EntryType::Directory, b"d", b"", b"");
    assert!(too_big((0..9).fold(evil(), |evil, _| directory(evil))));
    let comments = |evil: Evil| evil.add(EntryType::XGlobalHeader, b"g", b"", b"9 c=long\n");
    assert!(too_big((0..99).fold(evil(), |evil, _| comments(evil))));
    // A size that no file has, and no data behind it.
    assert!(too_big(evil().file("a").claim(EntryType::Regular, 1 << 60)));
    // Each name of a file counts: a build makes copies of it.
    let link = |evil: Evil, name: &str| evil.add(EntryType::Link, name.as_bytes(), b"a", b"");
    assert!(unpack_small(link(evil().file("a"), "b")).is_ok());
    assert!(too_big(link(link(evil().file("a"), "b"), "c")), "12 bytes");
    let error = unpack_small(evil().file("a").file("b").file("c")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the source has more than 10 bytes (limits.context_mb)"
    );
}

#[test]
fn no_header_costs_memory_that_is_not_there() {
    let evil = Evil::default;
    for kind in [
        EntryType::XHeader,
        EntryType::GNULongName,
        EntryType::GNULongLink,
    ] {
        assert!(matches!(
            evil().claim(kind, 1 << 60).refused(),
            EntryFault::Extension
        ));
    }
    let records = format!("{} comment={}\n", 70_000, "x".repeat(70_000 - 15));
    let bomb = evil().add(EntryType::XHeader, b"x", b"", records.as_bytes());
    assert!(matches!(bomb.file("f").refused(), EntryFault::Extension));
    for kind in [EntryType::XGlobalHeader, EntryType::GNUSparse] {
        let result = evil().claim(kind, 1 << 60).unpack().0;
        assert!(result.is_err(), "{result:?}");
    }
    // Names and records before an entry that never comes.
    let endless = (0..5000).fold(evil(), |evil, _| {
        evil.add(EntryType::XHeader, b"x", b"", b"9 c=long\n")
    });
    assert!(matches!(endless.unpack().0, Err(UnpackError::TooBig(_))));
}

#[test]
fn an_archive_that_was_cut_off_is_not_a_small_one() {
    let dir = tree(&[("a", "first"), ("d/b", "second"), ("l", "-> a")]);
    let (_, tar) = take(dir.path()).unwrap();
    let whole = tar.len() - 1024;
    for length in (0..=whole).step_by(128) {
        let copy = tempfile::tempdir().unwrap();
        let result = unpack(&tar[..length], copy.path(), LIMITS);
        assert!(
            matches!(
                result,
                Err(UnpackError::Archive(_) | UnpackError::Entry { .. })
            ),
            "{length}: {result:?}"
        );
    }
    let copy = tempfile::tempdir().unwrap();
    unpack(&tar[..whole + 512], copy.path(), LIMITS).unwrap();
}

#[test]
fn names_are_bytes() {
    let (result, dir) = Evil::default()
        .file("A")
        .file("a")
        .add(EntryType::Regular, b"new\nline", b"", b"1")
        .add(EntryType::Regular, b"\xff\x1b[2J", b"", b"2")
        .add(EntryType::Regular, b"a", b"", b"again")
        .add(EntryType::Regular, b"-rf", b"", b"3")
        .unpack();
    assert_eq!(result.unwrap().entries, 6);
    let inner = dir.path().join("inner");
    assert_eq!(fs::read_dir(&inner).unwrap().count(), 5);
    let read = |name: &str| fs::read_to_string(inner.join(name)).unwrap();
    assert_eq!((read("A"), read("a")), ("evil".into(), "again".into()));
    // What is refused is shown without what a terminal would obey.
    let name = b"/\x1b[2J\nerror: ";
    let shown = Evil::default().add(EntryType::Regular, name, b"", b"");
    let shown = shown.unpack().0.unwrap_err().to_string();
    assert!(!shown.contains(['\x1b', '\n']), "{shown:?}");
    // Longer than a file system takes.
    let long = Evil::default().add(EntryType::GNULongName, b"L", b"", &[b'n'; 300]);
    assert!(matches!(long.file("x").refused(), EntryFault::Io(_)));
}

#[test]
fn a_tree_without_end_is_refused() {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let dir = tree(&[("a", "")]);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut deepest = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
    for _ in 0..1200 {
        mkdirat(&deepest, "d", Mode::RWXU).unwrap();
        deepest = openat(&deepest, "d", flags, Mode::empty()).unwrap();
    }
    let found = faults(take(dir.path()));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("lies deeper than 128 directories"),
        "{found:?}"
    );
    let limits = Limits {
        bytes: 1,
        entries: 10_000,
    };
    let measured = measure(dir.path(), limits).unwrap_err();
    assert!(
        matches!(measured, MeasureError::TooBig(Excess::Path)),
        "{measured}"
    );
    // The library removes by recursion with a descriptor for each level.
    let removed = std::process::Command::new("rm")
        .arg("-rf")
        .arg(dir.path())
        .status();
    assert!(removed.unwrap().success());
}

#[test]
fn a_control_file_is_read_within_its_tree_and_up_to_its_limit() {
    let dir = tree(&[
        ("outside", "secret"),
        ("root/file", "0123456789"),
        ("root/inside", "-> sub/link"),
        ("root/sub/link", "-> ../file"),
        ("root/leaves", "-> ../outside"),
        ("root/absolute", "-> /etc/passwd"),
        ("root/up", "-> .."),
        ("root/loop", "-> loop"),
    ]);
    let root = dir.path().join("root");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), fifo, 0o600.into(), 0).unwrap();
    let read = |path: &str| read_file(&root, path, 4).ok();
    for path in ["file", "inside", "sub/link"] {
        assert_eq!(read(path).as_deref(), Some(&b"0123"[..]), "{path}");
    }
    for path in [
        "leaves",
        "absolute",
        "up/outside",
        "loop",
        "fifo",
        "sub",
        "none",
        "../outside",
        "/etc/passwd",
    ] {
        assert_eq!(read(path), None, "{path}");
    }
    // A pipe would be waited on by whoever opens it as a file.
    fs::rename(root.join("fifo"), root.join("Containerfile")).unwrap();
    assert_eq!(control_files(&root, None).unwrap(), ControlFiles::default());
}

#[test]
fn the_destination_must_be_an_empty_directory() {
    let dir = tree(&[("x", "")]);
    let error = unpack(&[][..], dir.path(), LIMITS).unwrap_err();
    assert!(matches!(error, UnpackError::NotEmpty));
    let error = unpack(&[][..], &dir.path().join("x"), LIMITS).unwrap_err();
    assert!(matches!(error, UnpackError::Destination(_)));
}

#[test]
fn overlays_follow_no_link() {
    let dir = tree(&[
        ("outside/kept", "safe"),
        ("in/dir", "-> ../outside"),
        ("in/file", "-> ../outside/kept"),
        ("in/plain", "old"),
        ("in/sub/x", ""),
    ]);
    let root = dir.path().join("in");
    fs::hard_link(dir.path().join("outside/kept"), root.join("hard")).unwrap();
    let mut run = given("new/run", "run");
    run.executable = true;
    overlay_files(&root, &[given("file", "1"), given("hard", "2"), run]).unwrap();
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!(
        (read("in/file"), read("in/hard"), read("outside/kept")),
        ("1".into(), "2".into(), "safe".into())
    );
    let mode = fs::metadata(root.join("new/run")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o755);
    let bad = [
        given("dir/x", ""),
        given("plain/x", ""),
        given("sub", ""),
        given("good", ""),
    ];
    let error = overlay_files(&root, &bad).unwrap_err().to_string();
    assert_eq!(
        error,
        "dir/x: dir is a symbolic link; give the file at the place that it leads to\n\
         plain/x: plain is not a directory\n\
         sub: it is a directory; give a path below it"
    );
    assert!(!dir.path().join("outside/x").exists());
    let many: Vec<_> = (0..25).map(|n| given(&format!("dir/{n}"), "")).collect();
    let error = overlay_files(&root, &many).unwrap_err().to_string();
    assert_eq!(error.lines().count(), MAX_FAULTS + 1);
    assert!(error.ends_with("\nand 5 more"), "{error}");
    assert!(matches!(
        overlay_files(&root, &[given("../x", "")]),
        Err(OverlayError::Paths(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn broken_archives_neither_panic_nor_escape(
        flips in prop::collection::vec((0usize..4096, any::<u8>()), 1..12)
    ) {
        let mut evil = Evil::default()
            .add(EntryType::XHeader, b"x", b"", b"14 path=other\n")
            .file("f")
            .link("l", "../outside")
            .add(EntryType::GNULongName, b"L", b"", b"long/name\0")
            .file("g");
        for (at, byte) in flips {
            if let Some(place) = evil.0.get_mut(at) {
                *place = byte;
            }
        }
        // Mend the sums, so that the damage gets past the first check.
        for block in evil.0.chunks_mut(512) {
            if &block[257..262] == b"ustar" {
                let mut header = Header::from_byte_slice(block).clone();
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        let _ = evil.unpack();
    }
}
