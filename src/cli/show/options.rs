//! Arguments of the tools, said as the options of the command line.

/// What hints and refusals say, and what somebody types for it.
const SAID: &[(&str, &str)] = &[
    ("source.subdir", "--subdir"),
    ("source.ref", "--ref"),
    ("source.patch", "--patch"),
    ("source.git", "the URL"),
    ("source.path", "the directory"),
    ("as containerfile", "with --file"),
    ("as target", "with --target"),
    ("as stage of the test", "with --test-stage"),
    ("in build_args", "with --build-arg"),
    ("in outputs", "with --extract"),
    ("(use argv) or", "or"),
    (
        "(stage: test in an earlier",
        "(--test-stage: test in an earlier",
    ),
    (
        "Name the secret in secrets",
        "Name the secret with --secret",
    ),
    ("queue_timeout", "--queue-timeout"),
    ("build_args", "--build-arg"),
    ("build_contexts", "--build-context"),
];

/// One of our own sentences for who types commands.
pub fn as_options(text: &str) -> String {
    SAID.iter().fold(text.to_owned(), |text, (said, typed)| {
        replaced(&text, said, typed)
    })
}

/// What a tool refuses, for who types commands: which argument is wrong, and what would be right. What was given stays
/// as it was.
pub fn refusal(text: &str) -> String {
    let lines = text.lines().enumerate().map(|(number, line)| match line {
        _ if line.starts_with("expected: ") => as_options(line),
        _ if number == 0 => match line.split_once(": ") {
            Some((place, problem)) => format!("{}: {problem}", as_options(place)),
            None => line.to_owned(),
        },
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// With whole words replaced.
fn replaced(text: &str, said: &str, typed: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(said) {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
        let previous = (before.chars().next_back()).or_else(|| out.chars().next_back());
        let begins = previous.is_none_or(|c| !is_part(c) && c != '.');
        let ends = !after.starts_with(is_part);
        out.push_str(before);
        out.push_str(if begins && ends { typed } else { said });
        rest = after;
    }
    out + rest
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
        assert_eq!(
            as_options(
                "the image may lack a shell (use argv) or the program (stage: test in an earlier stage)."
            ),
            "the image may lack a shell or the program (--test-stage: test in an earlier stage)."
        );
        assert_eq!(
            as_options("Give it in build_args, or name a path in outputs."),
            "Give it with --build-arg, or name a path with --extract."
        );
        for hint in Kind::ALL.iter().map(|kind| as_options(kind.remedy())) {
            assert!(!hint.contains("source.s") && !hint.contains('_'), "{hint}");
        }
    }

    #[test]
    fn what_was_given_stays_as_it_was() {
        let refused = "error[invalid_argument] source.git: my/opensource.git is not allowed\n\
                       expected: source.files or source.path\ngot: source.git";
        assert_eq!(
            refusal(refused),
            "error[invalid_argument] the URL: my/opensource.git is not allowed\n\
             expected: source.files or the directory\ngot: source.git"
        );
        for text in [
            "src/build_args.py",
            "opensource.git",
            "has targets",
            "source.gitea",
        ] {
            assert_eq!(as_options(text), text);
        }
    }
}
