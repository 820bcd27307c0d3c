//! Counts a commit's tree before it is written: a few kilobytes of objects can name more files
//! than a disk holds. Pure: it reads what `git ls-tree -r -t -l -z` prints.

use crate::context::{Excess, Limits, MAX_DEPTH, MAX_PATH};

/// Mode, type, id and size before a path, in bytes; they are padded.
const BEFORE_PATH: usize = 200;
/// How many submodules are named.
const NAMED: usize = 3;

/// What was counted so far.
#[derive(Debug)]
pub(super) struct Census {
    limits: Limits,
    bytes: u64,
    entries: u64,
    /// The beginning of an entry whose end is to come.
    entry: Vec<u8>,
    submodules: u64,
    named: Vec<String>,
}

impl Census {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            bytes: 0,
            entries: 0,
            entry: Vec::new(),
            submodules: 0,
            named: Vec::new(),
        }
    }

    /// Takes the next piece of the list.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), Excess> {
        let mut parts = piece.split(|byte| *byte == 0).peekable();
        while let Some(part) = parts.next() {
            self.entry.extend_from_slice(part);
            if self.entry.len() > BEFORE_PATH + MAX_PATH {
                return Err(Excess::Path);
            }
            if parts.peek().is_some() {
                let entry = std::mem::take(&mut self.entry);
                self.count(&entry)?;
            }
        }
        Ok(())
    }

    /// Counts `<mode> <type> <id> <size>\t<path>`.
    fn count(&mut self, entry: &[u8]) -> Result<(), Excess> {
        let mut halves = entry.splitn(2, |byte| *byte == b'\t');
        let about = String::from_utf8_lossy(halves.next().unwrap_or_default());
        let path = halves.next().unwrap_or_default();
        let mut about = about.split_ascii_whitespace().skip(1);
        if about.next() == Some("commit") {
            self.submodules += 1;
            if self.named.len() < NAMED {
                self.named.push(String::from_utf8_lossy(path).into_owned());
            }
        }
        // Directories and submodules have no size.
        let size = about.nth(1).and_then(|size| size.parse().ok()).unwrap_or(0);
        self.bytes = self.bytes.saturating_add(size);
        self.entries += 1;
        let depth = path.iter().filter(|byte| **byte == b'/').count();
        if path.len() > MAX_PATH || depth >= MAX_DEPTH {
            return Err(Excess::Path);
        }
        self.limits.check(self.bytes, self.entries)
    }

    /// A sentence about the submodules, if there are some.
    pub fn submodules(&self) -> Option<String> {
        let names = self.named.join(", ");
        match self.submodules {
            0 => None,
            count if count > NAMED as u64 => Some(format!(
                "submodules are not fetched: {names} and {} more are empty directories",
                count - NAMED as u64
            )),
            _ => Some(format!(
                "submodules are not fetched, they are empty directories: {names}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        bytes: 100,
        entries: 5,
    };

    fn entry(kind: &str, size: &str, path: &str) -> String {
        format!("100644 {kind} 0123456789012345678901234567890123456789 {size:>7}\t{path}\0")
    }

    /// Taken in pieces of `step` bytes.
    fn count(list: &str, step: usize) -> (Census, Result<(), Excess>) {
        let mut census = Census::new(LIMITS);
        let result = list
            .as_bytes()
            .chunks(step)
            .try_for_each(|piece| census.take(piece));
        (census, result)
    }

    #[test]
    fn sizes_and_entries_add_up_however_the_list_is_cut() {
        let list =
            entry("tree", "-", "d") + &entry("blob", "60", "d/x\ty") + &entry("blob", "40", "z");
        for step in [1, 7, 1000] {
            let (census, result) = count(&list, step);
            assert_eq!((census.bytes, census.entries, result), (100, 3, Ok(())));
        }
        let (_, result) = count(&(list.clone() + &entry("blob", "1", "w")), 10);
        assert_eq!(result, Err(Excess::Bytes(100)));
        let (_, result) = count(&(list + &entry("tree", "-", "e").repeat(3)), 10);
        assert_eq!(result, Err(Excess::Entries(5)));
    }

    #[test]
    fn long_and_deep_paths_are_refused_before_they_end() {
        let (_, result) = count(&entry("blob", "1", &"a/".repeat(MAX_DEPTH)), 100);
        assert_eq!(result, Err(Excess::Path));
        let (_, result) = count(
            &entry("blob", "1", &("a/".repeat(MAX_DEPTH - 1) + "x")),
            100,
        );
        assert_eq!(result, Ok(()));
        let endless = "x".repeat(2 * MAX_PATH);
        assert_eq!(count(&endless, 100).1, Err(Excess::Path));
    }

    #[test]
    fn submodules_are_named() {
        let commit = |name: &str| entry("commit", "-", name);
        assert_eq!(count(&entry("blob", "1", "x"), 9).0.submodules(), None);
        let (census, _) = count(&commit("lib/a"), 9);
        let expected = "submodules are not fetched, they are empty directories: lib/a";
        assert_eq!(census.submodules().as_deref(), Some(expected));
        let (census, _) = count(
            &"abcd"
                .chars()
                .map(|c| commit(&c.to_string()))
                .collect::<String>(),
            9,
        );
        let expected = "submodules are not fetched: a, b, c and 1 more are empty directories";
        assert_eq!(census.submodules().as_deref(), Some(expected));
    }

    proptest! {
        #[test]
        fn no_list_panics(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..9)) {
            let mut census = Census::new(LIMITS);
            for piece in pieces {
                let _ = census.take(&piece);
            }
        }
    }
}
