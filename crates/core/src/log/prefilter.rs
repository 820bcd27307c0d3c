//! Tells at a fraction of the cost of a search that there is nothing to be found: most lines have no secret, and no word
//! of a failure.
//!
//! Of the first bytes of each pattern every short part is remembered. A pattern has several of them, so one stands at
//! every so many places of a text, and no other place is looked at:
//!
//! ```text
//! text      …cc -O2 S3cr3t-t0ken…
//! looked at     ^───^    ^───^    every fifth place, four bytes each
//! pattern           └─S3cr3t-t─┘  parts: S3cr 3cr3 cr3t r3t- 3t-t
//! ```

/// Words of the table. For each part three bits of one word are set: a Bloom filter in blocks (Putze, Sanders and Singler,
/// "Cache-, Hash- and Space-Efficient Bloom Filters", 2007), so that one look tells of all.
const WORDS: usize = 1 << WORDS_BITS;
const WORDS_BITS: u32 = 11;
/// Places that are looked at first: they fit into the smallest cache.
const SLOTS: usize = 1 << SLOTS_BITS;
const SLOTS_BITS: u32 = 14;
/// No more of the beginnings of patterns is looked at.
const LONGEST_WINDOW: usize = 8;
/// Parts have four bytes where so many are looked at, else three.
const WIDE_WINDOW: usize = 6;

/// See the module.
#[derive(Debug, Clone)]
pub struct Prefilter {
    /// Whether a part may stand there, told without a variable shift.
    known: Box<[bool; SLOTS]>,
    table: Box<[u64; WORDS]>,
    /// Which bits of four bytes belong to a part.
    mask: u32,
    /// From one place that is looked at to the next.
    step: usize,
}

impl Prefilter {
    /// For these patterns, none of which is shorter than three bytes; `None` where one is.
    pub fn new<'a>(patterns: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Self> {
        Self::of(patterns, u8::MAX)
    }

    /// The same for both cases of ASCII's letters: their lower five bits are those of the letter's place.
    pub fn ignoring_case<'a>(patterns: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Self> {
        Self::of(patterns, 0x1f)
    }

    /// Of each byte these bits are looked at.
    fn of<'a>(patterns: impl Iterator<Item = &'a [u8]> + Clone, bits: u8) -> Option<Self> {
        let shortest = patterns.clone().map(<[u8]>::len).min()?;
        let window = shortest.min(LONGEST_WINDOW);
        let (part, mask) = match window >= WIDE_WINDOW {
            true => (4, u32::MAX),
            false => (3, 0x00ff_ffff),
        };
        let step = (window + 1).checked_sub(part).filter(|step| *step > 0)?;
        let mut filter = Self {
            known: Box::new([false; SLOTS]),
            table: Box::new([0; WORDS]),
            mask: mask & u32::from_le_bytes([bits; 4]),
            step,
        };
        for part in patterns.flat_map(|pattern| pattern.windows(part).take(step)) {
            let hash = hash(read(part) & filter.mask);
            let (word, bits) = place(hash);
            if let (Some(known), Some(word)) =
                (filter.known.get_mut(slot(hash)), filter.table.get_mut(word))
            {
                *known = true;
                *word |= bits;
            }
        }
        Some(filter)
    }

    /// Whether there may be a pattern in the bytes.
    pub fn may_match(&self, bytes: &[u8]) -> bool {
        // What is common are loops whose steps the compiler knows.
        let within = match self.step {
            3 => self.has_any::<3>(bytes),
            5 => self.has_any::<5>(bytes),
            step => (bytes.array_windows().step_by(step))
                .any(|four| self.has(u32::from_le_bytes(*four))),
        };
        // The last three bytes have no fourth.
        within || matches!(bytes, [.., a, b, c] if self.has(read(&[*a, *b, *c])))
    }

    fn has_any<const STEP: usize>(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while let Some(four) = rest.first_chunk() {
            if self.has(u32::from_le_bytes(*four)) {
                return true;
            }
            rest = rest.get(STEP..).unwrap_or_default();
        }
        false
    }

    fn has(&self, part: u32) -> bool {
        let hash = hash(part & self.mask);
        let is_known = self.known.get(slot(hash)).is_none_or(|known| *known);
        is_known && self.has_bits(hash)
    }

    #[cold]
    fn has_bits(&self, hash: u32) -> bool {
        let (word, bits) = place(hash);
        (self.table.get(word)).is_none_or(|word| word & bits == bits)
    }
}

/// Up to four bytes as a number.
fn read(part: &[u8]) -> u32 {
    part.iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// By multiplication with a number near the golden ratio's (Knuth, volume 3, 6.4).
fn hash(part: u32) -> u32 {
    part.wrapping_mul(0x9e37_79b1)
}

fn slot(hash: u32) -> usize {
    (hash >> (u32::BITS - SLOTS_BITS)) as usize
}

/// Which word tells of a part, by which bits.
fn place(hash: u32) -> (usize, u64) {
    let bit = |shift: u32| 1 << (hash >> shift & 63);
    let word = (hash >> (u32::BITS - WORDS_BITS)) as usize;
    (word, bit(15) | bit(9) | bit(3))
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
            let ignoring = Prefilter::ignoring_case(patterns.iter().map(Vec::as_slice)).unwrap();
            prop_assert!(ignoring.may_match(&text.to_ascii_uppercase()));
            prop_assert!(ignoring.may_match(&text.to_ascii_lowercase()));
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
