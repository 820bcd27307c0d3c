//! Arguments of the tools, said as the options of the command line.

/// What hints and refusals say, and what somebody types for it.
const SAID: &[(&str, &str)] = &[
    ("source.subdir", "--subdir"),
    ("source.ref", "--ref"),
    ("source.git", "the URL"),
    ("source.path", "the directory"),
    ("as containerfile", "with --file"),
    (
        "Name the secret in secrets",
        "Name the secret with --secret",
    ),
    ("as target", "with --target"),
    ("source.patch", "--patch"),
    ("queue_timeout", "--queue-timeout"),
    ("build_args", "--build-arg"),
    ("build_contexts", "--build-context"),
];

/// The same sentence for who types commands.
pub fn as_options(text: &str) -> String {
    SAID.iter().fold(text.to_owned(), |text, (said, typed)| {
        text.replace(said, typed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Kind;

    #[test]
    fn a_hint_names_what_is_typed() {
        assert_eq!(
            as_options(
                "Give its path below the context as containerfile, or the directory it is in as source.subdir."
            ),
            "Give its path below the context with --file, or the directory it is in as --subdir."
        );
        for hint in Kind::ALL.iter().map(|kind| as_options(kind.remedy())) {
            assert!(!hint.contains("source.s") && !hint.contains('_'), "{hint}");
        }
    }
}
