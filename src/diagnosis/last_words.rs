//! The end of an output whose last line was cut: Buildah's own error stands behind what a command printed without a
//! newline, however long that is.

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

    /// Buildah's error, where the last line was cut before it.
    pub fn error(&self, last_line: Option<&str>, redactor: &Redactor) -> Option<String> {
        if !last_line?.ends_with(CUT) {
            return None;
        }
        // What stands before may be the rest of a secret.
        let redacted = redactor.apply(&self.bytes);
        let at = redacted
            .windows(ERROR.len())
            .position(|window| window == ERROR)?;
        let error = redacted.get(at..)?;
        Some(clean::line(&String::from_utf8_lossy(
            error.trim_ascii_end(),
        )))
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
        assert_eq!(words.error(Some("xxx"), &none), None);
        assert_eq!(words.error(None, &none), None);
    }
}
