//! What a build has written: bytes and entries below directories that foreign code may change at
//! any time, counted without following where it leads.
//!
//! Run it where every file can be read: what cannot be read counts without what is below it.

use std::collections::HashSet;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, open, openat, statat};
use serde::{Deserialize, Serialize};

use super::settings::Limits;

/// Directories that are open at the same time, however deep the tree is.
const OPEN: usize = 64;
/// Where the names of the baseline stand, counted from 1 for what lies directly in a root
/// (`overlay/LAYER` in a storage).
const BASELINE_DEPTH: usize = 2;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on the disk; those of a hard link once.
    pub bytes: u64,
    /// Files, directories and everything else below the roots, by names.
    pub entries: u64,
    /// Directories were moved meanwhile, so that a part was not seen: count again.
    pub moved: bool,
}

/// What may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files, directories and everything else.
    pub entries: u64,
}

impl From<&Limits> for Ceiling {
    fn from(limits: &Limits) -> Self {
        Self {
            bytes: limits.disk_bytes,
            entries: limits.files,
        }
    }
}

/// Which limit is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// Of bytes.
    Bytes,
    /// Of entries.
    Entries,
}

impl Usage {
    /// Whether it is more than may be there.
    pub fn over(&self, ceiling: Ceiling) -> Option<Over> {
        match () {
            () if self.bytes > ceiling.bytes => Some(Over::Bytes),
            () if self.entries > ceiling.entries => Some(Over::Entries),
            () => None,
        }
    }
}

/// Counts what is below `roots`, the roots' own blocks included; gives up beyond the ceiling.
///
/// Does not follow links and stays on the file system of each root. Directories named in
/// `baseline`, two levels below a root, do not count: layers that were there before. What vanishes
/// while it is counted does not count either. Blocks; costs what du(1) does, some 4 µs an entry.
pub fn measure(roots: &[PathBuf], baseline: &HashSet<OsString>, ceiling: Ceiling) -> Usage {
    let mut walk = Walk {
        found: Usage::default(),
        linked: HashSet::new(),
        baseline,
        ceiling,
    };
    for root in roots {
        if let Ok(fd) = open(root, DIRECTORY, Mode::empty()) {
            walk.root(fd);
        }
    }
    walk.found
}

struct Walk<'a> {
    found: Usage,
    /// Files with several names that were counted.
    linked: HashSet<Id>,
    baseline: &'a HashSet<OsString>,
    ceiling: Ceiling,
}

/// Device and number of an inode.
type Id = (u64, u64);

/// A directory on the way down.
struct Level {
    /// Closed when the way is long; opened again on the way back.
    fd: Option<OwnedFd>,
    id: Id,
    /// Directories in it that were not yet entered.
    waiting: Vec<CString>,
}

impl Walk<'_> {
    fn root(&mut self, fd: OwnedFd) {
        let Ok(stat) = fstat(&fd) else { return };
        self.found.bytes += bytes_of(&stat);
        let waiting = self.list(&fd, 1, stat.st_dev);
        let mut way = vec![Level {
            fd: Some(fd),
            id: id_of(&stat),
            waiting,
        }];
        loop {
            let depth = way.len() + 1;
            let Some(here) = way.last_mut() else { return };
            if self.found.over(self.ceiling).is_some() {
                return;
            }
            let Some(fd) = &here.fd else { return };
            if let Some(name) = here.waiting.pop() {
                if let Some(below) = self.enter(fd, &name, depth, stat.st_dev) {
                    way.push(below);
                    if let Some(far) = way.len().checked_sub(OPEN)
                        && let Some(level) = way.get_mut(far)
                    {
                        level.fd = None;
                    }
                }
                continue;
            }
            let done = way.pop().and_then(|level| level.fd);
            if let (Some(above), Some(done)) = (way.last_mut(), done)
                && above.fd.is_none()
            {
                above.fd = parent(&done, above.id);
                self.found.moved |= above.fd.is_none();
            }
        }
    }

    fn enter(
        &mut self,
        above: &OwnedFd,
        name: &CString,
        depth: usize,
        device: u64,
    ) -> Option<Level> {
        let fd = openat(above, name, DIRECTORY, Mode::empty()).ok()?;
        let stat = fstat(&fd).ok().filter(|stat| stat.st_dev == device)?;
        Some(Level {
            waiting: self.list(&fd, depth, device),
            fd: Some(fd),
            id: id_of(&stat),
        })
    }

    /// Counts what is in a directory; returns the directories among it.
    fn list(&mut self, fd: &OwnedFd, depth: usize, device: u64) -> Vec<CString> {
        let mut directories = Vec::new();
        let Ok(entries) = Dir::read_from(fd) else {
            return directories;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..")
                || (depth == BASELINE_DEPTH
                    && self.baseline.contains(OsStr::from_bytes(name.to_bytes())))
            {
                continue;
            }
            let Ok(stat) = statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if stat.st_dev != device {
                continue;
            }
            self.found.entries += 1;
            let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
            if is_directory || stat.st_nlink < 2 || self.linked.insert(id_of(&stat)) {
                self.found.bytes += bytes_of(&stat);
            }
            if self.found.over(self.ceiling).is_some() {
                break;
            }
            if is_directory {
                directories.push(name.to_owned());
            }
        }
        directories
    }
}

/// The directory above, if it is still the one that was left on the way down.
fn parent(fd: impl AsFd, id: Id) -> Option<OwnedFd> {
    let above = openat(fd, c"..", DIRECTORY, Mode::empty()).ok()?;
    let stat = fstat(&above).ok()?;
    (id_of(&stat) == id).then_some(above)
}

fn id_of(stat: &Stat) -> Id {
    (stat.st_dev, stat.st_ino)
}

/// stat(2): blocks of 512 bytes, whatever the file system's own are.
fn bytes_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks)
        .unwrap_or(0)
        .saturating_mul(512)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    const UNBOUNDED: Ceiling = Ceiling {
        bytes: u64::MAX,
        entries: u64::MAX,
    };

    fn all(root: &Path) -> Usage {
        measure(&[root.to_owned()], &HashSet::new(), UNBOUNDED)
    }

    fn number(program: &str, args: &[&str], root: &Path) -> u64 {
        let output = Command::new(program).arg(root).args(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        match program {
            "find" => text.bytes().filter(|&byte| byte == 0).count() as u64,
            _ => text.split('\t').next().unwrap().parse().unwrap(),
        }
    }

    /// One thing that a build may do to a tree.
    #[derive(Debug, Clone)]
    enum Act {
        File(u8, usize),
        Sparse(u8, u64),
        Directory(u8),
        HardLink(u8, u8),
        Link(u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (any::<u8>(), 0usize..20_000).prop_map(|(at, size)| Act::File(at, size)),
            (any::<u8>(), 0u64..1 << 30).prop_map(|(at, size)| Act::Sparse(at, size)),
            any::<u8>().prop_map(Act::Directory),
            (any::<u8>(), any::<u8>()).prop_map(|(of, at)| Act::HardLink(of, at)),
            any::<u8>().prop_map(Act::Link),
        ]
    }

    fn grow(root: &Path, acts: &[Act]) {
        let (mut dirs, mut made) = (vec![root.to_owned()], Vec::new());
        for (n, act) in acts.iter().enumerate() {
            let below = |at: u8| dirs[usize::from(at) % dirs.len()].join(format!("n{n}\n"));
            match *act {
                Act::File(at, size) => {
                    fs::write(below(at), vec![7; size]).unwrap();
                    made.push(below(at));
                }
                Act::Sparse(at, size) => {
                    fs::File::create(below(at)).unwrap().set_len(size).unwrap()
                }
                Act::Directory(at) => {
                    let path = below(at);
                    fs::create_dir(&path).unwrap();
                    dirs.push(path);
                }
                Act::HardLink(of, at) if !made.is_empty() => {
                    let of = &made[usize::from(of) % made.len()];
                    fs::hard_link(of, below(at)).unwrap();
                }
                Act::Link(at) => symlink("/usr", below(at)).unwrap(),
                Act::HardLink(..) => {}
            }
        }
        // Blocks of files that are not yet on the disk are an estimate.
        rustix::fs::syncfs(fs::File::open(root).unwrap()).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn du_and_find_count_the_same(acts in prop::collection::vec(act(), 0..40)) {
            let root = tempfile::tempdir().unwrap();
            grow(root.path(), &acts);
            let found = all(root.path());
            prop_assert_eq!(found.bytes, number("du", &["-s", "--block-size=1"], root.path()));
            prop_assert_eq!(found.entries, number("find", &["-mindepth", "1", "-print0"], root.path()));
            prop_assert!(!found.moved);
        }
    }

    #[test]
    fn it_stops_beyond_the_ceiling_and_says_which() {
        let root = tempfile::tempdir().unwrap();
        for n in 0..100 {
            fs::write(root.path().join(n.to_string()), [1; 5000]).unwrap();
        }
        let few = Ceiling {
            entries: 10,
            ..UNBOUNDED
        };
        let found = measure(&[root.path().to_owned()], &HashSet::new(), few);
        assert_eq!((found.entries, found.over(few)), (11, Some(Over::Entries)));
        let small = Ceiling {
            bytes: 40_000,
            ..UNBOUNDED
        };
        let found = measure(&[root.path().to_owned()], &HashSet::new(), small);
        assert_eq!(found.over(small), Some(Over::Bytes));
        assert!(found.entries < 20, "{found:?}");
        assert_eq!(all(root.path()).over(UNBOUNDED), None);
    }

    #[test]
    fn the_baseline_does_not_count_and_only_there() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["overlay/old/diff", "overlay/new/old", "old"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let baseline = HashSet::from(["old".into()]);
        let found = measure(&[root.path().to_owned()], &baseline, UNBOUNDED);
        // overlay, overlay/new, overlay/new/old, old
        assert_eq!((found.entries, all(root.path()).entries), (4, 6));
    }

    #[test]
    fn roots_add_up_and_may_be_missing_or_links() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for dir in ["a", "b"] {
            fs::create_dir(path(dir)).unwrap();
            fs::write(path(dir).join("file"), [1; 5000]).unwrap();
        }
        fs::hard_link(path("a/file"), path("b/same")).unwrap();
        symlink(path("a"), path("link")).unwrap();
        let both = measure(
            &[path("a"), path("b"), path("gone"), path("link")],
            &HashSet::new(),
            UNBOUNDED,
        );
        let (a, b) = (all(&path("a")), all(&path("b")));
        assert_eq!(both.entries, a.entries + b.entries);
        let file = fs::metadata(path("a/file")).unwrap();
        let blocks = std::os::unix::fs::MetadataExt::blocks(&file) * 512;
        assert_eq!(both.bytes, a.bytes + b.bytes - blocks);
    }

    #[test]
    fn deep_trees_need_few_open_files_and_paths_beyond_the_kernel_s() {
        let root = tempfile::tempdir().unwrap();
        let name = "a-name-of-some-length-";
        let mut fd: OwnedFd = fs::File::open(root.path()).unwrap().into();
        let depth = 3 * OPEN + 5;
        for _ in 0..depth {
            for side in ["", "side"] {
                let name = format!("{name}{side}");
                rustix::fs::mkdirat(&fd, name.as_str(), Mode::RWXU).unwrap();
            }
            fd = openat(&fd, name, DIRECTORY, Mode::empty()).unwrap();
        }
        assert!(depth * name.len() > 4096);
        let found = all(root.path());
        assert_eq!((found.entries, found.moved), (2 * depth as u64, false));
    }

    #[test]
    fn a_directory_that_was_moved_is_no_way_back() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::create_dir(path("c")).unwrap();
        let above = id_of(&rustix::fs::stat(path("a")).unwrap());
        let b = fs::File::open(path("a/b")).unwrap();
        assert!(parent(&b, above).is_some());
        fs::rename(path("a/b"), path("c/b")).unwrap();
        assert!(parent(&b, above).is_none());
    }

    #[test]
    fn what_cannot_be_read_counts_itself() {
        let root = tempfile::tempdir().unwrap();
        let closed = root.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
        assert_eq!(all(root.path()).entries, 1);
    }
}
