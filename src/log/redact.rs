//! Secrets removed from everything before it is written.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// What stands where a secret was.
const MASK: &[u8] = b"[secret]";
/// Shorter texts are not taken for secrets: they would mask ordinary words.
const SHORTEST: usize = 4;

/// Finds the secrets the runner knows, also base64- and URL-encoded and line by line.
#[derive(Clone, Default)]
pub struct Redactor {
    finder: Option<aho_corasick::AhoCorasick>,
    longest: usize,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor")
            .field("longest", &self.longest)
            .finish()
    }
}

impl Redactor {
    /// A redactor for these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut patterns: Vec<Vec<u8>> = Vec::new();
        for secret in secrets {
            let secret = secret.trim();
            for text in std::iter::once(secret).chain(secret.lines()) {
                if text.len() < SHORTEST {
                    continue;
                }
                patterns.push(text.as_bytes().to_vec());
                patterns.extend(encodings(text));
            }
        }
        patterns.sort_unstable();
        patterns.dedup();
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        let finder = (!patterns.is_empty())
            .then(|| {
                aho_corasick::AhoCorasick::builder()
                    .match_kind(aho_corasick::MatchKind::LeftmostLongest)
                    .build(&patterns)
                    .ok()
            })
            .flatten();
        Self { finder, longest }
    }

    /// Length of the longest pattern, in bytes: how much a reader must hold back at a cut.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The bytes with every secret masked.
    pub fn apply<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.finder {
            Some(finder) if finder.is_match(bytes) => {
                let mut out = Vec::with_capacity(bytes.len());
                finder.replace_all_with_bytes(bytes, &mut out, |_, _, out| {
                    out.extend_from_slice(MASK);
                    true
                });
                Cow::Owned(out)
            }
            _ => Cow::Borrowed(bytes),
        }
    }

    /// The same for text.
    pub fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.apply(text.as_bytes())).into_owned()
    }
}

/// The secret as it looks encoded: base64 at each of the three alignments, and URL-encoded.
fn encodings(text: &str) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        all.push(engine.encode(text).into_bytes());
    }
    for shift in 0..3usize {
        // Inside a longer text: drop the symbols that also hold bits of the neighbours.
        let mut padded = vec![0u8; shift];
        padded.extend_from_slice(text.as_bytes());
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&padded).into_bytes();
            let skip = (shift * 8).div_ceil(6);
            let cut = usize::from(padded.len() % 3 != 0);
            if let Some(middle) = encoded.get(skip..encoded.len().saturating_sub(cut))
                && middle.len() >= 8
            {
                all.push(middle.to_vec());
            }
        }
    }
    let url: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    if url != text {
        all.push(url.replace('+', "%20").into_bytes());
        all.push(url.into_bytes());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_leaks_plain_base64_or_url(secret in "[!-~]{8,40}", before in "[a-z ]{0,7}", after in "[a-z ]{0,7}") {
            let redactor = Redactor::new([secret.as_str()]);
            let mixed = format!("{before}{secret}{after}");
            let leaks = [
                mixed.clone(),
                STANDARD.encode(&secret),
                URL_SAFE.encode(&secret),
                url::form_urlencoded::byte_serialize(mixed.as_bytes()).collect(),
            ];
            for leak in leaks {
                let out = redactor.text(&leak);
                prop_assert!(!out.contains(&secret), "{out}");
                prop_assert!(out.contains("[secret]"), "{leak} -> {out}");
            }
            // Within a longer base64 text at most the edges may remain.
            let inside = redactor.text(&STANDARD.encode(&mixed));
            prop_assert!(inside.contains("[secret]"), "{inside}");
        }
    }

    #[test]
    fn each_line_of_a_long_secret_is_one() {
        let redactor = Redactor::new(["-----BEGIN-----\nabcdefgh\n"]);
        assert_eq!(redactor.text("x abcdefgh y"), "x [secret] y");
        assert_eq!(redactor.text("nothing"), "nothing");
        assert!(!format!("{redactor:?}").contains("abcdefgh"));
    }
}
