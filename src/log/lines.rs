//! Bytes from a process become lines: bounded, without progress bars and control characters.

use crate::build::clean;

use super::redact::Redactor;

/// Longest line that is kept, in bytes; what is beyond is counted and left out.
pub const LONGEST_LINE: usize = 4096;

/// Splits a stream into lines. One a stream; memory stays bounded whatever comes.
#[derive(Debug, Default)]
pub struct LineSplitter {
    kept: Vec<u8>,
    dropped: usize,
    /// A carriage return was seen: what follows overwrites the line, unless a newline does.
    overwrite: bool,
}

impl LineSplitter {
    /// Takes bytes and hands each whole line to `emit`.
    pub fn push(&mut self, bytes: &[u8], redactor: &Redactor, mut emit: impl FnMut(String)) {
        for chunk in bytes.split_inclusive(|&b| b == b'\n' || b == b'\r') {
            let (body, end) = match chunk.split_last() {
                Some((&last @ (b'\n' | b'\r'), body)) => (body, Some(last)),
                _ => (chunk, None),
            };
            if !body.is_empty() {
                if self.overwrite {
                    self.kept.clear();
                    self.dropped = 0;
                    self.overwrite = false;
                }
                // Room for a secret that lies across the cut.
                let room = (LONGEST_LINE + redactor.longest()).saturating_sub(self.kept.len());
                let taken = body.get(..room.min(body.len())).unwrap_or_default();
                self.kept.extend_from_slice(taken);
                self.dropped += body.len() - taken.len();
            }
            match end {
                Some(b'\n') => emit(self.take(redactor)),
                Some(_) => self.overwrite = true,
                None => {}
            }
        }
    }

    /// Hands out what has come since the last newline, at the end of the stream.
    pub fn finish(&mut self, redactor: &Redactor, emit: impl FnOnce(String)) {
        if !self.kept.is_empty() {
            emit(self.take(redactor));
        }
    }

    fn take(&mut self, redactor: &Redactor) -> String {
        let redacted = redactor.apply(&self.kept);
        let cut = redacted.get(..LONGEST_LINE).unwrap_or(&redacted);
        let left_out = self.dropped + redacted.len() - cut.len();
        let mut text = clean::line(&String::from_utf8_lossy(cut));
        if left_out > 0 {
            text.push_str(&format!(" … ({left_out} bytes left out)"));
        }
        self.kept.clear();
        self.dropped = 0;
        self.overwrite = false;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]], redactor: &Redactor) -> Vec<String> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, redactor, |line| lines.push(line));
        }
        splitter.finish(redactor, |line| lines.push(line));
        lines
    }

    #[test]
    fn progress_bars_collapse_and_crlf_is_one_end() {
        let none = Redactor::default();
        assert_eq!(
            split(&[b"10%\r20%\r100%\nx\r\n\ny"], &none),
            ["100%", "x", "", "y"]
        );
    }

    #[test]
    fn a_hundred_megabytes_without_a_newline_stay_small() {
        let none = Redactor::default();
        let mut splitter = LineSplitter::default();
        for _ in 0..1600 {
            splitter.push(&[b'x'; 65536], &none, |_| panic!("no line yet"));
            assert!(splitter.kept.capacity() < 65536);
        }
        let mut text = String::new();
        splitter.finish(&none, |line| text = line);
        assert!(text.ends_with(&format!("({} bytes left out)", 1600 * 65536 - LONGEST_LINE)));
    }

    proptest! {
        #[test]
        fn a_secret_split_over_writes_or_the_cut_is_masked(at in 0usize..30, fill in 0usize..5000) {
            let secret = "S3cr3t-S3cr3t-S3cr3t-S3cr3t";
            let redactor = Redactor::new([secret]);
            let text = format!("{}{secret}", "x".repeat(fill));
            let at = (fill + at).min(text.len());
            let lines = split(&[&text.as_bytes()[..at], &text.as_bytes()[at..]], &redactor);
            prop_assert!(!lines[0].contains("S3cr3t"), "{}", lines[0]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            for line in split(&[&bytes], &Redactor::new(["aaaa"])) {
                prop_assert!(line.chars().all(clean::is_harmless));
            }
        }
    }
}
