//! What git says, made fit for a log or an error.

use regex::Regex;
use std::sync::LazyLock;

/// Longest message in characters.
const MAX_MESSAGE: usize = 300;

/// Words that must not appear in anything that leaves this module.
#[derive(Debug, Clone, Default)]
pub(super) struct Scrubber {
    secrets: Vec<String>,
}

impl Scrubber {
    pub fn new(secrets: Vec<String>) -> Self {
        let secrets = secrets
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
        Self { secrets }
    }

    /// Without secrets, credentials in URLs and control characters.
    pub fn clean(&self, text: &str) -> String {
        static IN_URL: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"://[^/@\s]*@").ok());
        let mut text: String = text
            .chars()
            .filter(|character| !character.is_control() || *character == '\t')
            .collect();
        for secret in &self.secrets {
            text = text.replace(secret, "***");
        }
        match &*IN_URL {
            Some(credentials) => credentials.replace_all(&text, "://***@").into_owned(),
            None => text,
        }
    }

    /// The sentence that tells most: the first `fatal:`, else the last line that is not advice.
    pub fn message(&self, stderr: &str) -> String {
        let lines = || {
            stderr
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
        };
        let fatal = lines().find(|line| line.starts_with("fatal: ") && !is_general(line));
        let line = fatal
            .or_else(|| lines().find(|line| line.starts_with("error: ")))
            .or_else(|| lines().rfind(|line| !line.starts_with("hint: ") && !is_general(line)))
            .unwrap_or("git failed without a message");
        self.clean(line).chars().take(MAX_MESSAGE).collect()
    }
}

/// Said after each failure over SSH, so it tells nothing.
fn is_general(line: &str) -> bool {
    [
        "fatal: Could not read from remote repository",
        "Please make sure you have the correct access rights",
        "and the repository exists",
    ]
    .iter()
    .any(|general| line.starts_with(general))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_gets_out() {
        let scrubber = Scrubber::new(vec!["hunter2".into(), String::new()]);
        assert_eq!(
            scrubber.clean("at https://user:pw@h/a with hunter2\u{1b}[0m"),
            "at https://***@h/a with ***[0m"
        );
        assert_eq!(
            scrubber.clean("git@host:a https://h/a@b"),
            "git@host:a https://h/a@b"
        );
    }

    #[test]
    fn the_line_that_tells_most() {
        let scrubber = Scrubber::default();
        let ssh = "Host key verification failed.\r\nfatal: Could not read from remote repository.\n\n\
                   Please make sure you have the correct access rights\nand the repository exists.\n";
        assert_eq!(scrubber.message(ssh), "Host key verification failed.");
        assert_eq!(scrubber.message("error: a\nfatal: b\n"), "fatal: b");
        assert_eq!(scrubber.message(""), "git failed without a message");
    }
}
