//! Rules as data: what Buildah says, and what it means.
//!
//! Texts of Buildah 1.28.2 and 1.43.2; the first rule that matches counts.

use std::sync::LazyLock;

use regex::Regex;

use crate::build::{Fault, Kind};

/// One thing Buildah can say.
pub struct Rule {
    pattern: &'static str,
    /// What it means.
    pub kind: Kind,
    /// Who can mend it, where it is not the kind's usual one.
    pub fault: Option<Fault>,
    /// What to do.
    pub hint: &'static str,
}

const fn rule(pattern: &'static str, kind: Kind, hint: &'static str) -> Rule {
    Rule {
        pattern,
        kind,
        fault: None,
        hint,
    }
}

/// What Buildah's own error can be.
const BUILDAH: &[Rule] = &[
    rule(
        "(?i)unknown instruction",
        Kind::ContainerfileInvalid,
        "Correct the instruction's name.",
    ),
    rule(
        "(?i)parsing main dockerfile|dockerfile parse error|must have (two|at least one|exactly)|requires (exactly|at least)",
        Kind::ContainerfileInvalid,
        "Correct the syntax of this instruction.",
    ),
    rule(
        "cannot find Containerfile or Dockerfile|specified (docker|Container)file .* does not exist",
        Kind::ContainerfileNotFound,
        "Give the path of the Containerfile as containerfile.",
    ),
    rule(
        r#"target "[^"]*" was not found"#,
        Kind::TargetNotFound,
        "Name a stage of the Containerfile as target.",
    ),
    rule(
        "filtered out using",
        Kind::CopySourceIgnored,
        "Take the file out of the ignore file, or copy something else.",
    ),
    rule(
        "possible escaping context directory",
        Kind::CopyOutsideContext,
        "Copy only from below the context.",
    ),
    rule(
        "copier: (stat|get): .*no such file|no items matching glob|copier: stat: .* no such file",
        Kind::CopySourceMissing,
        "Copy a file that is in the context.",
    ),
    rule(
        "secret required but no secret with id|no secret with id",
        Kind::SecretMissing,
        "Name the secret in secrets.",
    ),
    rule(
        "no space left on device|disk quota exceeded|read/write on closed pipe",
        Kind::DiskFull,
        "The operator must free disk space.",
    ),
    rule(
        "did not resolve to an alias and no unqualified-search|short-name .* did not resolve",
        Kind::ImageShortName,
        "Write the image with its registry, as in registry.example.com/name:tag.",
    ),
    rule(
        "x509:|certificate signed by unknown|tls: |http: server gave HTTP response to HTTPS client",
        Kind::RegistryTls,
        "The operator must trust the registry's certificate, or allow plain HTTP for it.",
    ),
    rule(
        "no such host|server misbehaving|name resolution",
        Kind::RegistryUnknownHost,
        "Correct the registry's name in the image reference, or ask the operator about name resolution.",
    ),
    rule(
        "connection refused|i/o timeout|connection reset|network is unreachable|no route to host|TLS handshake timeout|context deadline exceeded",
        Kind::RegistryUnreachable,
        "Try again later.",
    ),
    rule(
        "authentication required|unauthorized|access to the resource is denied|requested access .* denied|invalid username/password|denied:",
        Kind::RegistryUnauthorized,
        "The operator must give this server credentials for the registry.",
    ),
    rule(
        "manifest unknown|name unknown|not found: manifest|repository name not known|manifest .* not found|StatusCode: 404",
        Kind::ImageNotFound,
        "Name an image and tag that exist.",
    ),
    rule(
        "toomanyrequests|too many requests",
        Kind::RegistryUnreachable,
        "Try again later.",
    ),
    rule(
        "image not known",
        Kind::ImageNotFound,
        "Name the image literally, or by an ARG that the request sets.",
    ),
    rule(
        "StatusCode: 5[0-9][0-9]|status code 5[0-9][0-9]|received unexpected HTTP status: 5",
        Kind::RegistryError,
        "Try again later.",
    ),
    rule(
        "signal: killed|cannot allocate memory",
        Kind::OutOfMemory,
        "Use less memory, or a profile with more.",
    ),
];

/// What the output of a failing RUN can say.
const COMMAND: &[Rule] = &[
    Rule {
        pattern: "(?i)no space left on device|disk quota exceeded",
        kind: Kind::DiskFull,
        fault: None,
        hint: "The operator must free disk space, or the build must write less.",
    },
    rule(
        "E: Unable to locate package|E: Package '.*' has no installation candidate|ERROR: unable to select packages|No match for argument",
        Kind::PackageNotFound,
        "Correct the package's name, or refresh the package index in the same RUN.",
    ),
];

static BUILDAH_REGEXES: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| compile(BUILDAH));
static COMMAND_REGEXES: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| compile(COMMAND));

fn compile(rules: &[Rule]) -> Vec<Option<Regex>> {
    rules
        .iter()
        .map(|rule| Regex::new(rule.pattern).ok())
        .collect()
}

fn first(rules: &'static [Rule], regexes: &[Option<Regex>], text: &str) -> Option<&'static Rule> {
    rules
        .iter()
        .zip(regexes)
        .find(|(_, regex)| regex.as_ref().is_some_and(|regex| regex.is_match(text)))
        .map(|(rule, _)| rule)
}

/// The rule for what Buildah says of itself.
pub fn for_buildah(text: &str) -> Option<&'static Rule> {
    first(BUILDAH, &BUILDAH_REGEXES, text)
}

/// The rule for what a failing RUN printed.
pub fn for_command(text: &str) -> Option<&'static Rule> {
    first(COMMAND, &COMMAND_REGEXES, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        assert!(
            BUILDAH_REGEXES
                .iter()
                .chain(COMMAND_REGEXES.iter())
                .all(Option::is_some)
        );
    }
}
