//! What files of a context are, in short: to tell whether they are those of another build.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use regex::bytes::Regex;
use sha2::{Digest, Sha256};

use super::Limits;
use super::beneath::{Beneath, open_file};
use super::error::{Faults, SnapshotError};
use super::extent::Extent;
use super::glob::{SPECIAL, translate};
use super::snapshot::Survey;
use super::walk::{Node, Tree};

/// Entries of a context in which files are looked for.
const ENTRIES: u64 = 20_000;
/// Bytes that are read of all files together.
const BYTES: u64 = 64 << 20;
/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Bytes of a fingerprint.
const SHORT: usize = 8;

/// A context whose files are read as they are asked for.
#[derive(Debug)]
pub struct Fingerprints {
    beneath: Beneath,
    tree: Tree,
    read: HashMap<PathBuf, [u8; 32]>,
    bytes_left: u64,
}

impl Fingerprints {
    /// Looks through the context `root`, without what the ignore file of `containerfile` keeps out. `None` where
    /// it has more than 20,000 entries or such as no context may have. It is one of `among` that share these bounds,
    /// and those on what is read. Blocks.
    #[must_use]
    pub fn of(root: &Path, containerfile: Option<&str>, among: u64) -> Option<Self> {
        Self::begin(among, |limits, faults| {
            let extent = Extent::default();
            Survey::walk(root, &extent, containerfile, &[], limits, faults)
        })
    }

    /// The same for a named context, of which no ignore file keeps anything out.
    #[must_use]
    pub fn of_named(root: &Path, among: u64) -> Option<Self> {
        Self::begin(among, |limits, faults| Survey::whole(root, limits, faults))
    }

    fn begin(
        among: u64,
        survey: impl FnOnce(Limits, &mut Faults) -> Result<Survey, SnapshotError>,
    ) -> Option<Self> {
        let among = among.max(1);
        let limits = Limits {
            bytes: u64::MAX,
            entries: ENTRIES / among,
        };
        let mut faults = Faults::default();
        let survey = survey(limits, &mut faults).ok()?;
        faults.check().ok()?;
        Some(Self {
            beneath: survey.beneath,
            tree: survey.tree,
            read: HashMap::new(),
            bytes_left: BYTES / among,
        })
    }

    /// A fingerprint of names, modes and contents of all that `sources` stand for: paths below the context, with
    /// wildcards as those of `COPY`. `None` where that is more than is read of one context. Blocks.
    pub fn of_sources(&mut self, sources: &[String]) -> Option<String> {
        let mut sum = Sha256::new();
        for source in sources {
            self.add_all(&Wanted::new(source)?, &mut sum)?;
            sum.update([0]);
        }
        short(sum)
    }

    /// The same of one path as it is written, for a mount. `None` also where it is not there, or a link is on the way:
    /// whoever mounts it follows that.
    pub fn of_mounted(&mut self, source: &str) -> Option<String> {
        let source = Path::new(source.trim_start_matches('/'));
        let parts: Option<PathBuf> = (source.components())
            .filter(|part| !matches!(part, Component::CurDir))
            .map(|part| matches!(part, Component::Normal(_)).then_some(part))
            .collect();
        let path = parts?;
        let ways = path.ancestors().filter(|way| !way.as_os_str().is_empty());
        for way in ways {
            if matches!(self.tree.get(way)?.node, Node::Link(_)) {
                return None;
            }
        }
        let mut sum = Sha256::new();
        self.add_all(&Wanted::Below(path), &mut sum)?;
        short(sum)
    }

    fn add_all(&mut self, wanted: &Wanted, sum: &mut Sha256) -> Option<()> {
        let found = self.tree.keys().filter(|path| wanted.has(path));
        let found: Vec<PathBuf> = found.cloned().collect();
        found.iter().try_for_each(|path| self.add(path, sum))
    }

    fn add(&mut self, path: &Path, sum: &mut Sha256) -> Option<()> {
        let entry = self.tree.get(path)?;
        sum.update(path.as_os_str().as_bytes());
        sum.update(format!("\0{:o}\0", entry.mode));
        match &entry.node {
            Node::Directory | Node::Given(_) => sum.update("d"),
            Node::Link(target) => {
                sum.update("l");
                sum.update(target.as_os_str().as_bytes());
            }
            Node::File(size) => {
                let size = *size;
                sum.update("f");
                sum.update(self.content(path, size)?);
            }
        }
        sum.update([0]);
        Some(())
    }

    fn content(&mut self, path: &Path, size: u64) -> Option<[u8; 32]> {
        if let Some(known) = self.read.get(path) {
            return Some(*known);
        }
        self.bytes_left = self.bytes_left.checked_sub(size)?;
        let (parent, name) = self.beneath.parent_of(path, false).ok()?;
        let file = File::from(open_file(parent, name).ok()?);
        let sum = digest(file.take(size)).ok()?;
        self.read.insert(path.to_owned(), sum);
        Some(sum)
    }
}

fn short(sum: Sha256) -> Option<String> {
    Some(hex::encode(sum.finalize().get(..SHORT)?))
}

fn digest(mut file: impl Read) -> io::Result<[u8; 32]> {
    let mut sum = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read) {
            None | Some([]) => return Ok(sum.finalize().into()),
            Some(bytes) => sum.update(bytes),
        }
    }
}

/// What a source of `COPY` stands for.
enum Wanted {
    Below(PathBuf),
    Matching(Regex),
}

impl Wanted {
    fn new(source: &str) -> Option<Self> {
        let parts: Vec<&str> = (source.split('/'))
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        let path = parts.join("/");
        if !path.contains(SPECIAL) {
            return Some(Wanted::Below(path.into()));
        }
        let regex = translate(&path).ok()?;
        Regex::new(&format!("^(?:{regex})(?:/.*)?$"))
            .ok()
            .map(Wanted::Matching)
    }

    fn has(&self, path: &Path) -> bool {
        match self {
            Wanted::Below(root) => path.starts_with(root),
            Wanted::Matching(regex) => regex.is_match(path.as_os_str().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn print(root: &Path, sources: &[&str]) -> Option<String> {
        let sources: Vec<String> = sources.iter().map(|&source| source.to_owned()).collect();
        Fingerprints::of(root, None, 1)?.of_sources(&sources)
    }

    #[test]
    fn a_change_is_seen_where_it_is_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("src/deep")).unwrap();
        fs::create_dir(root.join("target")).unwrap();
        for file in [
            "Containerfile",
            "src/a.c",
            "src/deep/b.c",
            "src/b.h",
            "target/out",
            "x",
        ] {
            fs::write(root.join(file), file).unwrap();
        }
        fs::write(root.join(".dockerignore"), "target\n").unwrap();
        symlink("a.c", root.join("src/link")).unwrap();
        let sources: [&[&str]; 6] = [
            &["."],
            &["/src/"],
            &["src/*.c"],
            &["src/?.h"],
            &["s*"],
            &["x", "src/a.c"],
        ];
        let all = || sources.map(|source| print(root, source).unwrap());
        let mut before = all();
        let mut changed = || {
            let now = all();
            let differ: Vec<usize> = (0..sources.len())
                .filter(|&i| now[i] != before[i])
                .collect();
            before = now;
            differ
        };
        assert_eq!(changed(), [0; 0]);
        fs::write(root.join("target/out"), "2").unwrap();
        assert_eq!(changed(), [0; 0]);
        fs::write(root.join("src/a.c"), "2").unwrap();
        assert_eq!(changed(), [0, 1, 2, 4, 5]);
        fs::write(root.join("src/deep/b.c"), "2").unwrap();
        assert_eq!(changed(), [0, 1, 4]);
        fs::set_permissions(root.join("src/b.h"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(changed(), [0, 1, 3, 4]);
        fs::rename(root.join("x"), root.join("y")).unwrap();
        assert_eq!(changed(), [0, 5]);
        fs::remove_file(root.join("src/link")).unwrap();
        symlink("b.h", root.join("src/link")).unwrap();
        assert_eq!(changed(), [0, 1, 4]);
    }

    #[test]
    fn a_mount_is_known_by_all_below_its_path_and_not_by_links() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/c"), "1").unwrap();
        fs::write(root.join("a*"), "1").unwrap();
        symlink("a", root.join("link")).unwrap();
        let print = |source: &str| Fingerprints::of_named(root, 1)?.of_mounted(source);
        let all = [".", "", "/", "a", "/a/b", "./a//b/c", "a*"].map(print);
        assert!(all.iter().all(Option::is_some), "{all:?}");
        assert!(all[0] == all[1] && all[1] == all[2] && all[3] != all[4]);
        assert_eq!(
            ["link", "link/b/c", "none", "../a", "a/../a"].map(print),
            [const { None }; 5]
        );
        fs::write(root.join("a/b/c"), "2").unwrap();
        let now = [".", "a/b", "a*"].map(print);
        assert_eq!(
            [now[0] == all[0], now[1] == all[4], now[2] == all[6]],
            [false, false, true]
        );
    }

    #[test]
    fn what_is_too_much_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let big = File::create(dir.path().join("big")).unwrap();
        big.set_len(BYTES).unwrap();
        fs::write(dir.path().join("small"), "1").unwrap();
        assert_eq!(print(dir.path(), &["."]), None);
        assert!(print(dir.path(), &["big", "big"]).is_some());
        assert_eq!(print(dir.path(), &["[a"]), None);
        assert_eq!(print(&dir.path().join("none"), &["."]), None);
    }
}
