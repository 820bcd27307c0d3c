//! The end of an output whose last line hides something: Buildah's own error stands behind what a command printed
//! without a newline, however long that is, and whatever of a terminal's sequences it has begun.

use crate::build::clean;
use crate::log::Redactor;
use crate::log::lines::LONGEST_LINE;

/// How Buildah's error of a step begins.
const ERROR: &[u8] = b"Error: building at STEP \"";
/// What a cut line ends with.
const CUT: &str = " bytes left out)";

/// The last bytes of an output.
#[derive(Debug, Default)]
pub struct LastWords {
    bytes: Vec<u8>,
}

impl LastWords {
    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8], redactor: &Redactor) {
        let most = LONGEST_LINE + redactor.longest();
        let new = bytes
            .get(bytes.len().saturating_sub(most)..)
            .unwrap_or(bytes);
        let old = (self.bytes.len() + new.len()).saturating_sub(most);
        self.bytes.drain(..old.min(self.bytes.len()));
        self.bytes.extend_from_slice(new);
    }

    /// Buildah's error, where the line of its own was cut before it, or is none without it. `last_line`: as it was
    /// told.
    pub fn error(&self, last_line: Option<&str>, redactor: &Redactor) -> Option<String> {
        // What stands before may be the rest of a secret.
        let redacted = redactor.apply(&self.bytes);
        let at = redacted
            .windows(ERROR.len())
            .rposition(|window| window == ERROR)?;
        let (before, error) = redacted.split_at_checked(at)?;
        let error = error.split(|byte| *byte == b'\n').next()?;
        let begun = before.rsplit(|byte| *byte == b'\n').next()?;
        let text = |bytes: &[u8]| clean::line(&String::from_utf8_lossy(bytes));
        let whole = text(&[begun, error].concat());
        let error = text(error.trim_ascii_end());
        let is_told = !last_line?.ends_with(CUT) && whole.ends_with(&error);
        (!is_told).then_some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_behind_a_long_line_is_found() {
        let none = Redactor::default();
        let mut words = LastWords::default();
        for _ in 0..100 {
            words.push(&[b'x'; 65536], &none);
        }
        let error = "Error: building at STEP \"RUN x\": exit status 1";
        words.push(format!("{error}\n").as_bytes(), &none);
        assert!(words.bytes.len() <= LONGEST_LINE);
        assert_eq!(
            words
                .error(Some("xxx … (9 bytes left out)"), &none)
                .as_deref(),
            Some(error)
        );
        assert_eq!(words.error(None, &none), None);
    }

    #[test]
    fn an_error_behind_the_beginning_of_a_sequence_is_found() {
        let none = Redactor::default();
        let error = "Error: building at STEP \"RUN x\": exit status 3";
        for hidden in [
            "\u{1b}",
            "\u{1b}[",
            "\u{1b}[3",
            "\u{1b}]0;t",
            "\u{1b}P",
            "a\n\u{1b}",
        ] {
            let forged = "Error: building at STEP \"RUN y\": exit status 9\n";
            let mut words = LastWords::default();
            words.push(
                format!("{forged}{hidden}{error}\nWARN x\n").as_bytes(),
                &none,
            );
            assert_eq!(
                words.error(Some("WARN x"), &none).as_deref(),
                Some(error),
                "{hidden:?}"
            );
        }
        for plain in ["", "no newline", "\u{1b}[31mred\u{1b}[0m", "a\r\nb\t"] {
            let mut words = LastWords::default();
            words.push(format!("{plain}{error}\n").as_bytes(), &none);
            assert_eq!(words.error(Some("the last line"), &none), None, "{plain:?}");
        }
    }
}
