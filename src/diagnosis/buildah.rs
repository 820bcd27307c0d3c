//! What Buildah's end means.

use std::sync::LazyLock;

use regex::Regex;

use crate::build::{Failure, Fault, Kind, Phase};
use crate::log::Line;

use super::excerpt::{excerpt, quote};
use super::locations::locations;
use super::rules;

/// Buildah's exit status for its own errors.
pub(super) const OWN_ERROR: i32 = 125;

/// 128 and SIGKILL, as a shell tells it.
const KILLED: i32 = 137;

/// `Error: building at STEP "…": while running runtime: exit status 2`, perhaps behind an error of
/// the clean-up
static STEP_ERROR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"^Error: (?:[a-z ]+: )?building at STEP "(.*)": (?:while running runtime: )?exit status (\d+)$"#)
        .ok()
});

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Path of the Containerfile relative to the root of the source.
    pub file: String,
    /// Its line.
    pub line: u32,
    /// Name or number of the stage.
    pub stage: String,
    /// Step within the stage.
    pub step: u32,
    /// The instruction as Buildah prints it.
    pub instruction: String,
}

/// Everything that is known when `buildah build` has failed.
#[derive(Debug, Clone)]
pub struct BuildahEnd<'a> {
    /// Its exit status.
    pub status: i32,
    /// The last lines of the phase.
    pub lines: &'a [(u64, Line)],
    /// The last step that began.
    pub place: Option<&'a Place>,
}

/// Explains a failed `buildah build`.
pub fn buildah_failure(end: &BuildahEnd<'_>) -> Failure {
    let error = last_error(end.lines);
    let ran = error.and_then(|(_, text)| run_status(text));
    let mut failure = match (ran, error) {
        (Some(status), _) => command_failure(status, end),
        (None, Some((_, text))) => own_failure(text),
        (None, None) if end.status == KILLED => Failure::new(
            Phase::Build,
            Kind::OutOfMemory,
            "Buildah was killed, most likely for want of memory",
        ),
        (None, None) => Failure::new(
            Phase::Build,
            Kind::BuildError,
            format!(
                "Buildah ended with status {} and no word of why",
                end.status
            ),
        ),
    };
    let killed = ran.is_none() && end.status == KILLED;
    if ran.is_some() || killed || (end.status == OWN_ERROR && concerns_a_step(failure.kind)) {
        point(&mut failure, end.place);
    }
    let own = lines_of_step(end);
    let shown = own
        .iter()
        .filter(|(n, _)| ran.is_none() || error.is_none_or(|(error, _)| *n < error));
    if let Some((text, cursor)) = excerpt(shown) {
        failure.excerpt = Some(text);
        failure.log_cursor = Some(cursor);
    }
    if ran.is_some() {
        failure.locations = locations(own.iter().map(|(_, line)| line.text.as_str()));
    }
    failure
}

/// Explains a failed `buildah pull` of `image`; `place` is the instruction that wants it.
pub fn pull_failure(image: &str, lines: &[(u64, Line)], place: Option<&Place>) -> Failure {
    let text = last_error(lines).map_or("Buildah ended without a word of why", |(_, text)| text);
    let mut failure = own_failure(text);
    failure.phase = Some(Phase::Source);
    failure.message = quote(&format!(
        "the image {image} cannot be fetched: {}",
        text.trim_start_matches("Error: ")
    ));
    point(&mut failure, place);
    if let Some((text, cursor)) = excerpt(lines.iter()) {
        failure.excerpt = Some(text);
        failure.log_cursor = Some(cursor);
    }
    failure
}

/// The lines behind the line with which the step began.
fn lines_of_step<'a>(end: &BuildahEnd<'a>) -> &'a [(u64, Line)] {
    let begun = end.place.and_then(|place| {
        end.lines.iter().rposition(|(_, line)| {
            line.text.contains("STEP ") && line.text.ends_with(&place.instruction)
        })
    });
    begun
        .and_then(|index| end.lines.get(index + 1..))
        .unwrap_or(end.lines)
}

fn last_error(lines: &[(u64, Line)]) -> Option<(u64, &str)> {
    lines
        .iter()
        .rev()
        .take(40)
        .find(|(_, line)| line.text.starts_with("Error: "))
        .map(|(n, line)| (*n, line.text.as_str()))
}

fn run_status(error: &str) -> Option<i32> {
    STEP_ERROR
        .as_ref()?
        .captures(error)?
        .get(2)?
        .as_str()
        .parse()
        .ok()
}

/// The instruction that Buildah names in its last error.
pub fn named_step(lines: &[(u64, Line)]) -> Option<&str> {
    let (_, text) = last_error(lines)?;
    let (_, rest) = text.split_once("building at STEP \"")?;
    rest.rsplit_once("\": ").map(|(step, _)| step).map(|step| {
        // The message behind the step may have quotes and colons of its own.
        step.split("\": ").next().unwrap_or(step)
    })
}

fn concerns_a_step(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::ContainerfileNotFound | Kind::TargetNotFound | Kind::OutOfMemory
    )
}

fn point(failure: &mut Failure, place: Option<&Place>) {
    if let Some(place) = place {
        failure.file = Some(place.file.clone());
        failure.line = Some(place.line);
        failure.stage = Some(place.stage.clone());
        failure.step = Some(place.step);
        failure.instruction = Some(quote(&place.instruction));
    }
}

fn own_failure(text: &str) -> Failure {
    let message = quote(text.trim_start_matches("Error: "));
    match rules::for_buildah(text) {
        Some(rule) => {
            let failure = Failure::new(Phase::Build, rule.kind, message).with_hint(rule.hint);
            match rule.fault {
                Some(fault) => failure.with_fault(fault),
                None => failure,
            }
        }
        None => Failure::new(Phase::Build, Kind::BuildError, message),
    }
}

fn command_failure(status: i32, end: &BuildahEnd<'_>) -> Failure {
    let printed: Vec<&str> = end
        .lines
        .iter()
        .rev()
        .take(60)
        .map(|(_, line)| line.text.as_str())
        .collect();
    let explained = printed.iter().find_map(|text| rules::for_command(text));
    let (kind, hint) = match (explained, status) {
        (Some(rule), _) => (rule.kind, Some(rule.hint)),
        (None, 126) => (
            Kind::CommandNotExecutable,
            Some("Make the file executable, or use one built for this machine."),
        ),
        (None, 127) => (
            Kind::CommandNotFound,
            Some("Install the command in an earlier step, or correct its name."),
        ),
        (None, 137) => (
            Kind::OutOfMemory,
            Some("Use less memory, or a profile with more."),
        ),
        (None, _) => (Kind::CommandFailed, None),
    };
    let mut failure = Failure::new(
        Phase::Build,
        kind,
        format!("the command ended with status {status}"),
    );
    // What a command prints can be made up: only its status is beyond doubt.
    if explained.is_some() && kind.fault() != Fault::Code {
        failure = failure.with_fault(Fault::Unknown);
    }
    failure.exit_code = Some(status);
    failure.hint = hint.map(str::to_owned);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::request::Stream;

    fn lines(texts: &[&str]) -> Vec<(u64, Line)> {
        texts
            .iter()
            .enumerate()
            .map(|(i, text)| {
                (
                    i as u64 + 1,
                    Line {
                        phase: Phase::Build,
                        step: None,
                        test: None,
                        stream: Stream::Output,
                        text: (*text).into(),
                    },
                )
            })
            .collect()
    }

    fn place() -> Place {
        Place {
            file: "Containerfile".into(),
            line: 12,
            stage: "builder".into(),
            step: 3,
            instruction: "RUN make".into(),
        }
    }

    fn kind(status: i32, texts: &[&str]) -> Failure {
        let place = place();
        buildah_failure(&BuildahEnd {
            status,
            lines: &lines(texts),
            place: Some(&place),
        })
    }

    #[test]
    fn the_table_of_failures() {
        let table: &[(i32, &str, Kind, Fault)] = &[
            (
                125,
                r#"Error: building at STEP "RUNN echo": Build error: Unknown instruction: "RUNN""#,
                Kind::ContainerfileInvalid,
                Fault::Code,
            ),
            (
                125,
                "Error: parsing main Dockerfile: ENV must have two arguments",
                Kind::ContainerfileInvalid,
                Fault::Code,
            ),
            (
                125,
                "Error: cannot find Containerfile or Dockerfile in context directory",
                Kind::ContainerfileNotFound,
                Fault::Request,
            ),
            (
                125,
                r#"Error: target "zz" was not found in the provided Dockerfile"#,
                Kind::TargetNotFound,
                Fault::Request,
            ),
            (
                125,
                r#"Error: building at STEP "COPY x /": checking on sources under "/c": copier: stat: "/x": no such file or directory"#,
                Kind::CopySourceMissing,
                Fault::Code,
            ),
            (
                125,
                r#"Error: building at STEP "COPY x /": no items matching glob "/c/x" copied (1 filtered out using /c/.containerignore): no such file or directory"#,
                Kind::CopySourceIgnored,
                Fault::Code,
            ),
            (
                125,
                r#"Error: building at STEP "COPY ../x /": possible escaping context directory error: "../x" is outside"#,
                Kind::CopyOutsideContext,
                Fault::Code,
            ),
            (
                125,
                "Error: creating build container: initializing source docker://r.example/x:1: reading manifest 1 in r.example/x: manifest unknown: manifest unknown",
                Kind::ImageNotFound,
                Fault::Code,
            ),
            (
                125,
                r#"Error: creating build container: short-name "debian" did not resolve to an alias and no unqualified-search registries are defined in "/etc/containers/registries.conf""#,
                Kind::ImageShortName,
                Fault::Code,
            ),
            (
                125,
                "Error: creating build container: pinging container registry r.example:1: Get \"https://r.example:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                Kind::RegistryUnreachable,
                Fault::Transient,
            ),
            (
                125,
                "Error: creating build container: pinging container registry no.example: Get \"https://no.example/v2/\": dial tcp: lookup no.example: no such host",
                Kind::RegistryUnknownHost,
                Fault::Unknown,
            ),
            (
                125,
                "Error: creating build container: reading manifest 1 in r.example/x: unauthorized: authentication required",
                Kind::RegistryUnauthorized,
                Fault::Operator,
            ),
            (
                125,
                "Error: creating build container: pinging container registry r.example: Get \"https://r.example/v2/\": x509: certificate signed by unknown authority",
                Kind::RegistryTls,
                Fault::Operator,
            ),
            (
                125,
                "Error: creating build container: Get \"https://r.example/v2/\": http: server gave HTTP response to HTTPS client",
                Kind::RegistryTls,
                Fault::Operator,
            ),
            (
                127,
                r#"Error: building at STEP "RUN x": while running runtime: exit status 127"#,
                Kind::CommandNotFound,
                Fault::Code,
            ),
            (
                126,
                r#"Error: building at STEP "RUN x": while running runtime: exit status 126"#,
                Kind::CommandNotExecutable,
                Fault::Code,
            ),
            (
                2,
                r#"Error: building at STEP "RUN make": while running runtime: exit status 2"#,
                Kind::CommandFailed,
                Fault::Code,
            ),
            (
                125,
                r#"Error: building at STEP "RUN exit 125": while running runtime: exit status 125"#,
                Kind::CommandFailed,
                Fault::Code,
            ),
            (
                137,
                r#"Error: building at STEP "RUN make": while running runtime: exit status 137"#,
                Kind::OutOfMemory,
                Fault::Unknown,
            ),
            (
                125,
                r#"Error: building at STEP "COPY x /": write /x: no space left on device"#,
                Kind::DiskFull,
                Fault::Operator,
            ),
            (
                125,
                "Error: committing container for step: io: read/write on closed pipe",
                Kind::DiskFull,
                Fault::Operator,
            ),
            (
                125,
                r#"Error: building at STEP "RUN --mount=type=secret,id=t,required=true cat /run/secrets/t": secret required but no secret with id t found"#,
                Kind::SecretMissing,
                Fault::Request,
            ),
            (
                125,
                "Error: something new",
                Kind::BuildError,
                Fault::Unknown,
            ),
        ];
        for (status, text, want, fault) in table {
            let failure = kind(*status, &["out", text]);
            assert_eq!((failure.kind, failure.fault), (*want, *fault), "{text}");
        }
        let package = kind(
            100,
            &[
                "E: Unable to locate package foo",
                r#"Error: building at STEP "RUN apt": while running runtime: exit status 100"#,
            ],
        );
        assert_eq!(
            (package.kind, package.line, package.exit_code),
            (Kind::PackageNotFound, Some(12), Some(100))
        );
        assert_eq!(
            package.excerpt.as_deref(),
            Some("E: Unable to locate package foo")
        );
        assert_eq!(package.log_cursor.as_deref(), Some("0"));
    }

    #[test]
    fn the_excerpt_begins_with_the_step_that_failed() {
        let failure = kind(
            2,
            &[
                "STEP 2/3: RUN seq 9",
                "noise",
                "STEP 3/3: RUN make",
                "a.c:1:2: error: x",
                r#"Error: layer not known: building at STEP "RUN make": while running runtime: exit status 2"#,
            ],
        );
        assert_eq!(failure.kind, Kind::CommandFailed);
        assert_eq!(failure.excerpt.as_deref(), Some("a.c:1:2: error: x"));
        assert_eq!(failure.locations.len(), 1);
    }

    #[test]
    fn printed_words_do_not_change_who_is_to_blame() {
        let forged = kind(
            1,
            &[
                "write: No space left on device",
                "Error: creating build container: connection refused",
                r#"Error: building at STEP "RUN make": while running runtime: exit status 1"#,
            ],
        );
        assert_eq!((forged.fault, forged.exit_code), (Fault::Unknown, Some(1)));
        assert_eq!(kind(137, &[]).kind, Kind::OutOfMemory);
        assert_eq!(kind(1, &["x"]).kind, Kind::BuildError);
    }
}
