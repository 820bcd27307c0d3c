//! Why a directory cannot become a context.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Limits;
use super::ignorefile::IgnoreFault;
use super::path::{FileFault, MAX_DEPTH, MAX_PATH, PathFault, show};

/// How many faults are named; the rest is counted.
pub const MAX_FAULTS: usize = 20;

/// Why no snapshot was taken.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The directory itself cannot be opened.
    #[error("{}: {source}", show(path))]
    Root { path: PathBuf, source: io::Error },
    /// What must be mended in the tree or in the given files.
    #[error("{0}")]
    Faults(Faults),
    /// The context is bigger than allowed.
    #[error("{}", too_big(.bytes, .entries, .counted_all, .limits, .biggest))]
    TooBig {
        /// Counted so far, in bytes.
        bytes: u64,
        entries: u64,
        /// False when counting was given up.
        counted_all: bool,
        limits: Limits,
        /// At most three, the biggest first.
        biggest: Vec<Heavy>,
    },
    /// The stream could not be written.
    #[error("writing the context failed: {0}")]
    Output(#[source] io::Error),
}

/// A directory and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heavy {
    pub path: PathBuf,
    pub bytes: u64,
    pub entries: u64,
}

/// What is wrong with one path of a tree.
#[derive(Debug, Error)]
#[error("{}: {kind}", show(path))]
pub struct Fault {
    /// Relative to the root.
    pub path: PathBuf,
    pub kind: FaultKind,
}

/// What is wrong, and what to do about it.
#[derive(Debug, Error)]
pub enum FaultKind {
    #[error(
        "is a link that leaves the context (it leads to {}); replace it by a relative link or a copy, or ignore it in .containerignore",
        show(target)
    )]
    LinkLeaves { target: PathBuf },
    #[error(
        "leaves the context through the link {} (to {}); the Containerfile and the ignore file must lie in it, so replace the link by the file",
        show(link),
        show(target)
    )]
    ControlLeaves { link: PathBuf, target: PathBuf },
    #[error("is a {what}, which a context cannot hold; remove it or ignore it in .containerignore")]
    Special { what: &'static str },
    #[error("cannot be read ({0}); make it readable or ignore it in .containerignore")]
    Unreadable(#[source] io::Error),
    #[error("changed while it was read; try again when nothing writes to it")]
    Changed,
    #[error(
        "lies deeper than {MAX_DEPTH} directories or has a path of more than {MAX_PATH} bytes; ignore it in .containerignore"
    )]
    TooDeep,
    #[error("{0}")]
    Ignore(#[source] IgnoreFault),
    #[error("{0}")]
    Given(#[source] PathFault),
    #[error(
        "cannot be given, because {} is not a directory in the context",
        show(parent)
    )]
    GivenBelowFile { parent: PathBuf },
    #[error("cannot be given as a file, because it is a directory in the context")]
    GivenOverDirectory,
}

/// All that was found, in the order of the tree; the first [`MAX_FAULTS`] by name.
#[derive(Debug, Default)]
pub struct Faults {
    /// Those that are named.
    pub named: Vec<Fault>,
    /// How many more there were.
    pub more: u64,
}

impl Faults {
    pub(super) fn add(&mut self, path: &Path, kind: FaultKind) {
        if self.named.iter().any(|fault| fault.path == path) {
            return;
        }
        if self.named.len() == MAX_FAULTS {
            self.more += 1;
            return;
        }
        self.named.push(Fault {
            path: path.to_owned(),
            kind,
        });
    }

    pub(super) fn one(path: &Path, kind: FaultKind) -> SnapshotError {
        let mut faults = Self::default();
        faults.add(path, kind);
        SnapshotError::Faults(faults)
    }

    /// An error when there is a fault.
    pub(super) fn check(self) -> Result<(), SnapshotError> {
        if self.named.is_empty() {
            Ok(())
        } else {
            Err(SnapshotError::Faults(self))
        }
    }
}

impl From<Vec<FileFault>> for Faults {
    fn from(given: Vec<FileFault>) -> Self {
        let mut faults = Self::default();
        for fault in given {
            faults.add(Path::new(&fault.path), FaultKind::Given(fault.fault));
        }
        faults
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.named.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{fault}")?;
        }
        if self.more > 0 {
            write!(formatter, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

fn too_big(
    bytes: &u64,
    entries: &u64,
    counted_all: &bool,
    limits: &Limits,
    biggest: &[Heavy],
) -> String {
    let at_least = if *counted_all { "" } else { "at least " };
    let mut text = format!(
        "the context has {at_least}{} in {entries} entries; allowed are {} and {} entries",
        size(*bytes),
        size(limits.bytes),
        limits.entries,
    );
    for (index, heavy) in biggest.iter().enumerate() {
        text += if index == 0 {
            "; the biggest directories are "
        } else {
            ", "
        };
        text += &format!(
            "{} ({}, {} entries)",
            show(&heavy.path),
            size(heavy.bytes),
            heavy.entries
        );
    }
    text + "; list what the build does not need in .containerignore"
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} KB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}
