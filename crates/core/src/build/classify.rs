//! Telling a path from a Containerfile pasted in its place.

/// What a value given as the path of a Containerfile is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathOrText {
    /// It can be a path.
    Path,
    /// It is the text of a Containerfile.
    Text,
}

/// Tells a path from the text of a Containerfile: text has several lines or starts with `FROM `.
#[must_use]
pub fn classify_path_or_text(value: &str) -> PathOrText {
    let value = value.trim();
    let from = value
        .split_once(char::is_whitespace)
        .is_some_and(|(word, _)| word.eq_ignore_ascii_case("FROM"));
    if from || value.contains('\n') {
        PathOrText::Text
    } else {
        PathOrText::Path
    }
}
