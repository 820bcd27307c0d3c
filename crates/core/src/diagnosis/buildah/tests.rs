use proptest::strategy::Strategy as _;

use super::*;
use crate::diagnosis::command::tests::lines;

fn place() -> Place {
    Place {
        file: "Containerfile".into(),
        line: 12,
        stage: "builder".into(),
        step: 3,
        instruction: "RUN make".into(),
        trigger_of: None,
    }
}

fn kind(status: i32, texts: &[&str]) -> Failure {
    let place = place();
    buildah_failure(&BuildahEnd {
        status,
        lines: &lines(texts),
        place: Some(&place),
        tree: &Tree::default(),
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
    assert_eq!(failure.kind, Kind::CompileError);
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
    assert_eq!(kind(125, &["x"]).kind, Kind::BuildError);
    // Its own error cannot be read, and it ends so only for a command.
    let forged = kind(3, &["Error: reading manifest: toomanyrequests"]);
    assert_eq!(
        (forged.kind, forged.exit_code),
        (Kind::CommandFailed, Some(3))
    );
}

proptest::proptest! {
    /// Whatever a command prints: step, line, status and phase of the failure are Buildah's.
    #[test]
    fn printed_lines_move_nothing(
        printed in proptest::collection::vec(
            proptest::prop_oneof![
                ".{0,120}",
                "(\\[[0-9]/[0-9]\\] )?STEP [0-9]/[0-9]: RUN [a-z]{1,5}",
                "Error: (building at STEP \"[A-Z]{3} [a-z]\": )?(exit status [0-9]|no such host|no space left on device)",
            ],
            0..50,
        ),
        status in 1..125i32,
    ) {
        let end = format!("Error: building at STEP \"RUN make\": while running runtime: exit status {status}");
        let mut texts: Vec<&str> = printed.iter().map(String::as_str).collect();
        texts.push(&end);
        let failure = kind(status, &texts);
        proptest::prop_assert_eq!(failure.exit_code, Some(status));
        proptest::prop_assert_eq!((failure.line, failure.step), (Some(12), Some(3)));
        proptest::prop_assert!(matches!(failure.fault, Fault::Code | Fault::Unknown));
        proptest::prop_assert!(failure.excerpt.is_none_or(|text| text.lines().count() <= 20));
        proptest::prop_assert!(failure.locations.len() <= 10);
    }
}

/// What a build says that printed these bytes in its third step: as the runner reads it.
fn of_bytes(printed: &[u8], status: i32) -> Failure {
    use crate::containerfile::Containerfile;
    use crate::diagnosis::{LastWords, Recent, Steps};
    use crate::log::Redactor;
    use crate::log::lines::{LineSplitter, Lines};

    let parsed = Containerfile::parse("FROM base\nRUN first\nRUN make\nRUN last\n").unwrap();
    let begun = "STEP 1/4: FROM base\nSTEP 2/4: RUN first\nSTEP 3/4: RUN make\n";
    let end = format!(
        "Error: building at STEP \"RUN make\": while running runtime: exit status {status}\n"
    );
    let (none, mut splitter) = (Redactor::default(), LineSplitter::default());
    let (mut last_words, mut printed_lines) = (LastWords::default(), Lines::default());
    for bytes in [begun.as_bytes(), printed, end.as_bytes()] {
        last_words.push(bytes, &none);
        splitter.push(bytes, &none, &mut printed_lines);
    }
    splitter.finish(&none, &mut printed_lines);
    let mut texts: Vec<String> = printed_lines.iter().map(str::to_owned).collect();
    let error = last_words.error(texts.last().map(String::as_str), &none);
    texts.extend(error);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (mut steps, mut recent) = (Steps::new(&parsed, "Containerfile"), Recent::default());
    for (number, line) in lines(&texts) {
        if steps.observe(&line.text).is_some() {
            recent.begin();
        }
        recent.push(number, &line.origin(), &line.text);
    }
    let kept = recent.lines();
    let failed = steps.failed_at(&kept);
    buildah_failure(&BuildahEnd {
        status,
        lines: &kept,
        place: failed.as_ref().map(|failed| &failed.place),
        tree: &Tree::default(),
    })
}

#[test]
fn the_beginning_of_a_terminals_sequence_hides_no_error() {
    for hidden in [
        "\u{1b}",
        "\u{1b}[",
        "\u{1b}]0;t",
        "\u{1b}(",
        "Error: reading manifest: toomanyrequests\n\u{1b}",
    ] {
        let failure = of_bytes(hidden.as_bytes(), 3);
        assert_eq!(
            (failure.line, failure.exit_code),
            (Some(3), Some(3)),
            "{hidden:?}"
        );
        assert!(
            matches!(failure.fault, Fault::Code | Fault::Unknown),
            "{hidden:?}: {failure:?}"
        );
    }
}

proptest::proptest! {
    /// The same whatever bytes it prints, with or without an end of its last line.
    #[test]
    fn printed_bytes_move_nothing(
        parts in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
                "STEP [1-9]/[0-9]: (FROM base|RUN (first|make|last))\n".prop_map(String::into_bytes),
                "\\[[0-9]/[0-9]\\] STEP 1/[0-9]: FROM base\n".prop_map(String::into_bytes),
                "Error: (building at STEP \"RUN (make|last)\": )?(exit status [0-9]|no space left on device|toomanyrequests)\n"
                    .prop_map(String::into_bytes),
                "\u{1b}(\\[|\\]|P|\\()?[a-z0-9;]{0,3}".prop_map(String::into_bytes),
                proptest::prelude::Just(vec![b'x'; 9000]),
            ],
            0..12,
        ),
        status in 1..125i32,
    ) {
        let failure = of_bytes(&parts.concat(), status);
        proptest::prop_assert_eq!((failure.line, failure.exit_code), (Some(3), Some(status)));
        proptest::prop_assert!(matches!(failure.fault, Fault::Code | Fault::Unknown), "{:?}", failure);
    }
}

#[test]
fn what_buildah_says_of_a_test_that_failed_is_not_the_tests() {
    let explained = |status, printed: &[&str]| {
        let mut failure = Failure::new(Phase::Test, Kind::TestFailed, "the test failed");
        let command = Command {
            lines: &lines(printed),
            status,
            text: "pytest -q",
        };
        explain_test(&mut failure, &command, &Tree::default());
        (failure.message, failure.excerpt)
    };
    let exited = "subprocess exited with status 137";
    let killed = [
        "epoch 1",
        "Killed",
        exited,
        exited,
        "Error: exit status 137",
    ];
    let (message, excerpt) = explained(137, &killed);
    assert_eq!(message, "the test failed: Killed");
    assert_eq!(excerpt.as_deref(), Some("Killed"));
    let within = [
        "epoch 1",
        "no newlinesubprocess exited with status 3",
        "subprocess exited with status 3",
        "Error: exit status 3",
    ];
    let (_, excerpt) = explained(3, &within);
    assert_eq!(excerpt.as_deref(), Some("epoch 1\nno newline"));
    let rootless = ["one", "Error: while running runtime: exit status 3"];
    assert_eq!(explained(3, &rootless).1.as_deref(), Some("one"));
    let (message, excerpt) = explained(3, &["Error: exit status 3"]);
    assert_eq!(
        (message.as_str(), excerpt),
        ("the test failed, without output", None)
    );
    let rootless = [
        "tool: subprocess exited with status 3",
        "Error: while running runtime: exit status 3",
    ];
    assert_eq!(explained(3, &rootless).1.as_deref(), Some(rootless[0]));
    // A program may say the like of another status.
    let own = ["Error: exit status 9"];
    assert_eq!(explained(1, &own).1.as_deref(), Some(own[0]));
}
