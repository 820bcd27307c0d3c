//! Bytes from a process become lines: bounded, without progress bars and control characters.

use std::borrow::Cow;

use memchr::{memchr_iter, memchr2, memrchr};

use super::redact::Redactor;

/// Longest line that is kept, in bytes; what is beyond is counted and left out.
pub const LONGEST_LINE: usize = 4096;

/// Bytes of whole lines that are looked at together: where nothing is to be done with any of them, that is quicker
/// than to look at each.
const TOGETHER: usize = 1024;

/// Lines that came together, in one piece of memory.
#[derive(Debug, Default)]
pub struct Lines {
    /// Each with a newline behind it.
    text: String,
    /// Where each line ends in the text, before its newline.
    ends: Vec<usize>,
}

impl Lines {
    /// Each line, without its end.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let begins = std::iter::once(0).chain(self.ends.iter().map(|end| end + 1));
        (begins.zip(&self.ends)).map(|(begin, end)| self.text.get(begin..*end).unwrap_or_default())
    }

    /// Makes room for others, and keeps no more memory than so many bytes of text.
    pub fn clear(&mut self, keep: usize) {
        self.text.clear();
        self.text.shrink_to(keep);
        self.ends.clear();
        self.ends.shrink_to(keep / 16);
    }

    fn push(&mut self, line: &str) {
        self.text.push_str(line);
        self.ends.push(self.text.len());
        self.text.push('\n');
    }

    /// Takes lines, each with its newline.
    fn push_all(&mut self, lines: &str) {
        let begin = self.text.len();
        self.text.push_str(lines);
        let ends = memchr_iter(b'\n', lines.as_bytes()).map(|end| begin + end);
        self.ends.extend(ends);
    }
}

/// Splits a stream into lines. One a stream; memory stays bounded whatever comes.
#[derive(Debug, Default)]
pub struct LineSplitter {
    kept: Vec<u8>,
    dropped: usize,
    /// A carriage return was seen: what follows overwrites the line, unless a newline does.
    overwrite: bool,
}

impl LineSplitter {
    /// Takes bytes, and puts each whole line to the others.
    pub fn push(&mut self, bytes: &[u8], redactor: &Redactor, lines: &mut Lines) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(whole_lines(rest));
            rest = behind;
            if self.is_at_beginning()
                && let Some(text) = harmless(piece, redactor)
            {
                lines.push_all(text);
            } else {
                self.push_each(piece, redactor, lines);
            }
        }
    }

    fn push_each(&mut self, bytes: &[u8], redactor: &Redactor, lines: &mut Lines) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = memchr2(b'\n', b'\r', rest);
            let (body, behind) = rest.split_at(end.unwrap_or(rest.len()));
            let (end, behind) = match behind.split_first() {
                Some((end, behind)) => (Some(end), behind),
                None => (None, behind),
            };
            rest = behind;
            let is_whole = self.is_at_beginning() && body.len() <= LONGEST_LINE;
            if end == Some(&b'\n') && is_whole {
                lines.push(&redacted(body, 0, redactor));
                continue;
            }
            if !body.is_empty() {
                self.keep(body, redactor);
            }
            match end {
                Some(b'\n') => self.end(redactor, lines),
                Some(_) => self.overwrite = true,
                None => {}
            }
        }
    }

    /// Puts what has come since the last newline to the others, at the end of the stream.
    pub fn finish(&mut self, redactor: &Redactor, lines: &mut Lines) {
        if !self.kept.is_empty() {
            self.end(redactor, lines);
        }
    }

    fn is_at_beginning(&self) -> bool {
        self.kept.is_empty() && !self.overwrite
    }

    fn keep(&mut self, body: &[u8], redactor: &Redactor) {
        if std::mem::take(&mut self.overwrite) {
            self.kept.clear();
            self.dropped = 0;
        }
        // Room for a secret that lies across the cut.
        let room = (LONGEST_LINE + redactor.longest()).saturating_sub(self.kept.len());
        let taken = body.get(..room.min(body.len())).unwrap_or_default();
        self.kept.extend_from_slice(taken);
        self.dropped += body.len() - taken.len();
    }

    fn end(&mut self, redactor: &Redactor, lines: &mut Lines) {
        lines.push(&redacted(&self.kept, self.dropped, redactor));
        self.kept.clear();
        self.dropped = 0;
        self.overwrite = false;
    }
}

/// How many of the bytes, at most [`TOGETHER`], are looked at together: lines with their ends where one ends there.
fn whole_lines(bytes: &[u8]) -> usize {
    let window = bytes.get(..TOGETHER).unwrap_or(bytes);
    memrchr(b'\n', window).map_or(window.len(), |end| end + 1)
}

/// The text of whole lines of which none is to be changed.
fn harmless<'a>(lines: &'a [u8], redactor: &Redactor) -> Option<&'a str> {
    let are_whole = lines.last() == Some(&b'\n');
    let is_harmless = are_whole && is_plain(lines) && redactor.has_none(lines);
    let harmless = Some(lines).filter(|_| is_harmless)?;
    std::str::from_utf8(harmless).ok()
}

/// Whether there is nothing to clean in these lines.
fn is_plain(lines: &[u8]) -> bool {
    let plain = |so_far: bool, byte: &u8| so_far & matches!(byte, b' '..=b'~' | b'\n');
    lines.iter().fold(true, plain)
}

/// The text of a line of which `dropped` bytes were not kept.
fn redacted<'a>(line: &'a [u8], dropped: usize, redactor: &Redactor) -> Cow<'a, str> {
    let text = match is_plain(line) {
        true => match redactor.apply(line) {
            // Quicker than what replaces bytes that are no text: there are none.
            Cow::Borrowed(line) => std::str::from_utf8(line)
                .map_or_else(|_| String::from_utf8_lossy(line), Cow::Borrowed),
            Cow::Owned(line) => Cow::Owned(String::from_utf8_lossy(&line).into_owned()),
        },
        // Cleaned first: what is removed may stand within a secret.
        false => Cow::Owned(redactor.line(&String::from_utf8_lossy(line))),
    };
    let mut keep = LONGEST_LINE;
    if dropped > 0 {
        // What was not kept may be the rest of a secret, which nobody can know any more.
        keep = keep.min(text.len().saturating_sub(redactor.longest()));
    }
    let keep = text.floor_char_boundary(keep);
    let left_out = dropped + text.len() - keep;
    if left_out == 0 {
        return text;
    }
    let mut text = text.into_owned();
    text.truncate(keep);
    text.push_str(&format!(" … ({left_out} bytes left out)"));
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::clean;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]], redactor: &Redactor) -> Vec<String> {
        let (mut splitter, mut lines) = (LineSplitter::default(), Lines::default());
        for chunk in chunks {
            splitter.push(chunk, redactor, &mut lines);
        }
        splitter.finish(redactor, &mut lines);
        lines.iter().map(str::to_owned).collect()
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
        let (mut splitter, mut lines) = (LineSplitter::default(), Lines::default());
        for _ in 0..1600 {
            splitter.push(&[b'x'; 65536], &none, &mut lines);
            assert!(splitter.kept.capacity() < 65536);
            assert_eq!(lines.iter().count(), 0, "no line yet");
        }
        splitter.finish(&none, &mut lines);
        let text = lines.iter().next().unwrap();
        assert!(text.ends_with(&format!("({} bytes left out)", 1600 * 65536 - LONGEST_LINE)));
    }

    proptest! {
        #[test]
        fn lines_that_come_together_are_as_those_that_come_alone(
            words in prop::collection::vec(prop_oneof![
                8 => "[ -~]{0,60}\n",
                1 => Just("S3cr3t-S3cr3t".to_owned()),
                1 => Just("S3cr3t%2DS3cr3t\n".to_owned()),
                1 => r"(\PC{0,9}|\t|\r|\\|\x1b\[31m|\n)",
                1 => Just("x".repeat(LONGEST_LINE)),
            ], 0..120)) {
            let redactor = Redactor::new(["S3cr3t-S3cr3t"]);
            let text = words.concat();
            let (mut splitter, mut alone) = (LineSplitter::default(), Lines::default());
            splitter.push_each(text.as_bytes(), &redactor, &mut alone);
            splitter.finish(&redactor, &mut alone);
            let alone: Vec<String> = alone.iter().map(str::to_owned).collect();
            prop_assert_eq!(split(&[text.as_bytes()], &redactor), alone);
        }

        #[test]
        fn a_secret_split_over_writes_or_the_cut_is_masked(
            at in 0usize..30, fill in 0usize..5000, hidden in 0usize..3000, more in 0usize..9000) {
            let secret = "S3cr3t-S3cr3t-S3cr3t-S3cr3t";
            let redactor = Redactor::new([secret]);
            // Sequences that are removed bring what is behind them before the cut.
            let text = format!("{}{}{secret}{}", "\u{1b}[0m".repeat(hidden), "x".repeat(fill), "y".repeat(more));
            let at = (4 * hidden + fill + at).min(text.len());
            let lines = split(&[&text.as_bytes()[..at], &text.as_bytes()[at..]], &redactor);
            prop_assert!(!lines[0].contains("S3c"), "{}", lines[0]);
        }

        #[test]
        fn how_it_is_written_makes_no_difference(
            text in "([a-zé%\\\\\u{1b}\\[\r ]{0,20}\n?){0,8}", cuts in prop::collection::vec(0usize..100, 0..5)) {
            let redactor = Redactor::new(["aé%z", "abab"]);
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(split(&chunks, &redactor), split(&[bytes], &redactor));
        }

        #[test]
        fn arbitrary_bytes_never_panic(parts in prop::collection::vec((any::<Vec<u8>>(), 0usize..200), 0..6)) {
            let bytes: Vec<u8> = parts.into_iter().flat_map(|(part, times)| part.repeat(times)).collect();
            for line in split(&[&bytes], &Redactor::new(["aaaa"])) {
                prop_assert!(line.chars().all(clean::is_harmless));
                prop_assert!(line.len() <= LONGEST_LINE + 64);
            }
        }
    }
}
