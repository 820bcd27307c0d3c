//! Cutting a stream of bytes into JSON values: by lines, or one behind the other without any.

use serde::de::DeserializeOwned;

/// Most bytes of one value: an event carries a whole job or allocation, a log frame 64 KiB.
const MAX_VALUE: usize = 32 << 20;

/// What is wrong with a stream.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum FrameError {
    #[error("a value of more than 32 MiB")]
    TooLong,
    /// What stands there instead; Nomad appends errors in the middle of a stream as plain text.
    #[error("{0}")]
    NotJson(String),
}

/// Values one behind the other, with or without white space between them.
#[derive(Debug, Default)]
pub(super) struct Values {
    buffer: Vec<u8>,
    /// Bytes of the buffer that were given out.
    taken: usize,
}

impl Values {
    /// Takes bytes as they come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken.min(self.buffer.len()));
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole value; `None`: more bytes are needed.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<T>();
        match values.next() {
            None => Ok(None),
            Some(Ok(value)) => {
                self.taken += values.byte_offset();
                Ok(Some(value))
            }
            Some(Err(error)) if error.is_eof() && rest.len() > MAX_VALUE => {
                Err(FrameError::TooLong)
            }
            Some(Err(error)) if error.is_eof() => Ok(None),
            Some(Err(error)) => {
                let begin = rest.trim_ascii_start();
                // An error in words stands there as it is.
                let text = if begin.first().is_some_and(|byte| *byte != b'{') {
                    String::from_utf8_lossy(begin.get(..300).unwrap_or(begin)).into_owned()
                } else {
                    error.to_string()
                };
                Err(FrameError::NotJson(text))
            }
        }
    }

    /// Whether something is there that is no whole value.
    pub(super) fn is_torn(&self) -> bool {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        !rest.trim_ascii().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn all(values: &mut Values) -> Result<Vec<Value>, FrameError> {
        let mut found = Vec::new();
        while let Some(value) = values.next()? {
            found.push(value);
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn however_it_is_cut(texts in prop::collection::vec(".{0,40}", 0..20), cuts in prop::collection::vec(1usize..50, 1..40), newlines: bool) {
            let sent: Vec<Value> = texts.iter().map(|text| json!({"Data": text})).collect();
            let mut bytes = Vec::new();
            for value in &sent {
                bytes.extend(value.to_string().into_bytes());
                if newlines { bytes.push(b'\n'); }
            }
            let mut values = Values::default();
            let mut got = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                values.push(now);
                got.extend(all(&mut values).unwrap());
                rest = later;
            }
            prop_assert_eq!(got, sent);
            prop_assert!(!values.is_torn());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut values = Values::default();
            values.push(&bytes);
            let _ = all(&mut values);
        }
    }

    #[test]
    fn an_error_in_words_is_told() {
        let mut values = Values::default();
        values.push(b"{\"Offset\":1}failed to read: no such file");
        assert_eq!(values.next::<Value>().unwrap(), Some(json!({"Offset": 1})));
        let error = values.next::<Value>().unwrap_err();
        assert_eq!(
            error,
            FrameError::NotJson("failed to read: no such file".into())
        );
    }

    #[test]
    fn a_torn_value_is_known() {
        let mut values = Values::default();
        values.push(b"{\"Offset\":");
        assert_eq!(values.next::<Value>().unwrap(), None);
        assert!(values.is_torn());
    }
}
