//! Tells at a fraction of the cost of a search that there is nothing to be found: most lines have no secret.
//!
//! As Wu and Manber do: three bytes tell how far the search may go on before a pattern can end its
//! beginning there.

/// Bits of a hash of three bytes.
const BITS: u32 = 15;
const MASK: u32 = (1 << BITS) - 1;
/// No more of the beginnings of patterns is looked at.
const LONGEST_WINDOW: usize = 8;

/// See the module.
#[derive(Debug, Clone)]
pub struct Prefilter {
    shifts: Vec<u8>,
    /// So many bytes at the beginning of each pattern are looked at.
    window: usize,
}

impl Prefilter {
    /// For these patterns, none of which is shorter than three bytes; `None` where one is.
    pub fn new<'a>(patterns: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Self> {
        let shortest = patterns.clone().map(<[u8]>::len).min()?;
        let window = shortest.min(LONGEST_WINDOW);
        let last = window.checked_sub(3)?;
        let furthest = u8::try_from(last + 1).ok()?;
        let mut shifts = vec![furthest; 1 << BITS];
        for pattern in patterns {
            for (at, three) in pattern.windows(3).take(last + 1).enumerate() {
                if let Some(shift) = shifts.get_mut(hash(three)) {
                    *shift = (*shift).min(u8::try_from(last - at).unwrap_or(0));
                }
            }
        }
        Some(Self { shifts, window })
    }

    /// Whether there may be a pattern in the bytes.
    pub fn may_match(&self, bytes: &[u8]) -> bool {
        let mut at = self.window - 3;
        while let Some(three) = bytes.get(at..at + 3) {
            match self.shifts.get(hash(three)) {
                Some(0) | None => return true,
                Some(shift) => at += usize::from(*shift),
            }
        }
        false
    }
}

fn hash(three: &[u8]) -> usize {
    let [a, b, c] = *three else { return 0 };
    let hash = (u32::from(a) << 10) ^ (u32::from(b) << 5) ^ u32::from(c);
    (hash & MASK) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_there_is_never_denied(
            patterns in prop::collection::vec(prop::collection::vec(any::<u8>(), 3..30), 1..20),
            which: prop::sample::Index, before: Vec<u8>, after: Vec<u8>) {
            let prefilter = Prefilter::new(patterns.iter().map(Vec::as_slice)).unwrap();
            let text = [before.as_slice(), which.get(patterns.as_slice()).as_slice(), &after].concat();
            prop_assert!(prefilter.may_match(&text));
        }
    }

    #[test]
    fn most_lines_are_let_through() {
        let prefilter = Prefilter::new([&b"s3cr3t-token"[..], b"another"].into_iter()).unwrap();
        assert!(!prefilter.may_match(b"cc -O2 -Wall -Iinclude -c src/module_1042.c"));
        assert!(!prefilter.may_match(b""));
        let two = [&b"ab"[..]].into_iter();
        assert!(Prefilter::new(two).is_none());
    }
}
