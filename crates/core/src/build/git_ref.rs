//! What may be fetched from a repository: a branch, a tag, a full ref name or a commit. Pure.

use std::fmt;

use thiserror::Error;

/// Longest name in bytes.
const MAX_NAME: usize = 255;

/// A name that git may be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefName {
    text: String,
    commit: bool,
}

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RefFault {
    #[error("the ref is empty; leave it out for the default branch")]
    Empty,
    #[error("the ref is longer than {MAX_NAME} bytes")]
    TooLong,
    #[error(
        "the ref starts with `{0}`, so git would take it for something else; give the name of a branch or tag, or a full commit id"
    )]
    Start(char),
    #[error("the ref has a space or a control character")]
    Blank,
    #[error(
        "the ref has a `{0}`, which no name of a branch or tag can have; give the name itself, or a full commit id instead of an expression like HEAD~1"
    )]
    Character(char),
    #[error("the ref has a `{0}`, which no name of a branch or tag can have")]
    Sequence(&'static str),
    #[error(
        "the ref starts or ends with a slash or a dot, or has an empty part or one that starts with a dot"
    )]
    Part,
    #[error("the ref has a part that ends in `.lock`, which git reserves")]
    Lock,
}

impl RefName {
    /// Takes what `git check-ref-format` takes, and commit ids of 40 or 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, RefFault> {
        if text.is_empty() {
            return Err(RefFault::Empty);
        }
        if text.len() > MAX_NAME {
            return Err(RefFault::TooLong);
        }
        if let Some(first @ ('-' | '+')) = text.chars().next() {
            return Err(RefFault::Start(first));
        }
        if text.contains(|character: char| character.is_control() || character.is_whitespace()) {
            return Err(RefFault::Blank);
        }
        if let Some(bad) = text
            .chars()
            .find(|character| "~^:?*[\\".contains(*character))
        {
            return Err(RefFault::Character(bad));
        }
        if let Some(bad) = ["..", "@{"].into_iter().find(|bad| text.contains(bad)) {
            return Err(RefFault::Sequence(bad));
        }
        let bad_part = |part: &str| part.is_empty() || part.starts_with('.');
        if text.ends_with('.') || text == "@" || text.split('/').any(bad_part) {
            return Err(RefFault::Part);
        }
        if text.split('/').any(|part| part.ends_with(".lock")) {
            return Err(RefFault::Lock);
        }
        let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let commit = hex && matches!(text.len(), 40 | 64);
        let text = if commit {
            text.to_ascii_lowercase()
        } else {
            text.to_owned()
        };
        Ok(Self { text, commit })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a full commit id.
    pub fn is_commit(&self) -> bool {
        self.commit
    }

    /// Whether it looks like the first digits of a commit id, which cannot be fetched by them.
    pub fn looks_abbreviated(&self) -> bool {
        (7..40).contains(&self.text.len()) && self.text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_commits() {
        let commit = "0123456789ABCDEF0123456789abcdef01234567";
        for (text, is_commit) in [
            ("main", false),
            ("feature/x@y", false),
            ("v1.0", false),
            ("refs/pull/1/head", false),
            ("HEAD", false),
            ("größe", false),
            ("0123abc", false),
            (commit, true),
            (&commit.repeat(2)[..64], true),
            (&commit.repeat(2)[..63], false),
        ] {
            assert_eq!(RefName::parse(text).expect(text).is_commit(), is_commit);
        }
        assert!(RefName::parse("0123abc").unwrap().looks_abbreviated());
        assert!(!RefName::parse("main").unwrap().looks_abbreviated());
    }

    #[test]
    fn what_is_refused() {
        let long = "a".repeat(256);
        for (text, expected) in [
            ("", RefFault::Empty),
            (long.as_str(), RefFault::TooLong),
            ("--upload-pack=touch x", RefFault::Start('-')),
            ("+main", RefFault::Start('+')),
            ("a b", RefFault::Blank),
            ("a\nb", RefFault::Blank),
            ("a\u{7f}", RefFault::Blank),
            ("HEAD~1", RefFault::Character('~')),
            ("main:other", RefFault::Character(':')),
            ("refs/heads/*", RefFault::Character('*')),
            ("a\\b", RefFault::Character('\\')),
            ("a..b", RefFault::Sequence("..")),
            ("main@{1}", RefFault::Sequence("@{")),
            ("@", RefFault::Part),
            ("/a", RefFault::Part),
            ("a/", RefFault::Part),
            ("a//b", RefFault::Part),
            ("a/.b", RefFault::Part),
            ("a.", RefFault::Part),
            ("a.lock", RefFault::Lock),
            ("a.lock/b", RefFault::Lock),
        ] {
            assert_eq!(RefName::parse(text), Err(expected), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn git_takes_what_is_taken(text in "[a-c./@{}~^\\[\\]*:?\\\\ \\-+]{1,6}") {
            if RefName::parse(&text).is_ok() {
                let checked = std::process::Command::new("git")
                    .args(["check-ref-format", &format!("refs/heads/{text}")])
                    .status()
                    .unwrap();
                prop_assert!(checked.success(), "{text:?}");
            }
        }
    }
}
