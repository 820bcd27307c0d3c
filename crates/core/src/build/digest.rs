//! A content digest, `sha256:` and 64 lower-case hex digits; no other algorithm.

use std::fmt;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A sha256 content digest. A value is always well-formed, so its hex part may stand in a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// The text isn't `sha256:` and 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest; it is written sha256: and 64 lower-case hex digits")]
pub struct BadDigest;

const PREFIX: &str = "sha256:";

impl Digest {
    /// Reads `sha256:<64 lower-case hex digits>`.
    pub fn parse(text: &str) -> Result<Self, BadDigest> {
        let hex = text.strip_prefix(PREFIX).ok_or(BadDigest)?;
        let well_formed =
            hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        well_formed.then(|| Self(text.to_owned())).ok_or(BadDigest)
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_hash(Sha256::new_with_prefix(bytes))
    }

    /// The digest of all that `hash` was fed.
    pub fn of_hash(hash: Sha256) -> Self {
        Self(format!("{PREFIX}{}", hex::encode(hash.finalize())))
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix(PREFIX).unwrap_or_default()
    }
}

/// Hashes and counts what passes on its way to `out`.
#[derive(Debug)]
pub struct Hashing<W> {
    out: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Hashing<W> {
    /// Nothing has passed yet.
    pub fn new(out: W) -> Self {
        Self {
            out,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// Digest and number of the bytes that have passed.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::of_hash(self.hash), self.bytes)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buffer)?;
        let (done, _) = buffer.split_at_checked(written).unwrap_or((buffer, &[]));
        self.hash.update(done);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;

    fn try_from(text: String) -> Result<Self, BadDigest> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}
