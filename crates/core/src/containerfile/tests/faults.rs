use super::{Containerfile, FaultKind, fault, faults, parse};

#[track_caller]
fn check(text: &str, line: u32, kind: FaultKind, message: &str) {
    let (found_line, found_kind, found_message) = fault(text);
    assert_eq!((found_line, found_kind), (line, kind), "{found_message}");
    assert!(found_message.contains(message), "{found_message}");
}

#[test]
fn unknown_instructions() {
    let kind = FaultKind::UnknownInstruction;
    check("FROM a\n\nRUNN make\n", 3, kind, "did you mean RUN?");
    check("FROM a\nCOPPY a b\n", 2, kind, "did you mean COPY?");
    check(
        "FROM a\nENTRYPIONT a\n",
        2,
        kind,
        "did you mean ENTRYPOINT?",
    );
    check(
        "FROM a\nRUN x\n  && make\n",
        3,
        kind,
        "continuation character missing",
    );
    check(
        "FROM a\nsomething else\n",
        2,
        kind,
        "unknown instruction `something`",
    );
    check("FROM a\nENV A=1\n\\\n", 3, kind, "nothing to continue");
    let found = faults("FROM a\nRUNN make\n");
    assert_eq!(found[0].instruction.as_deref(), Some("RUNN"));
    assert_eq!(
        found[0].to_string(),
        "line 2: unknown instruction `RUNN`: did you mean RUN?"
    );
}

#[test]
fn missing_arguments() {
    let needing = [
        "ADD a",
        "COPY",
        "COPY --from=x a",
        "ARG",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "HEALTHCHECK CMD",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "RUN --network=none",
        "SHELL",
        "SHELL []",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "VOLUME []",
        "WORKDIR",
        "COPY [\"a\"]",
    ];
    for line in needing {
        let text = format!("FROM a\n{line}\nFROM b\nFROM 0\n");
        check(&text, 2, FaultKind::MissingArguments, "need");
    }
}

#[test]
fn wrong_arguments() {
    let wrong = [
        ("ENV a", "ENV NAME=VALUE"),
        ("LABEL a=b c", "no `=` in `c`"),
        ("ENV A=1 # comment", "no `=` in `#`"),
        ("CMD [\"a\", 1]", "must be strings"),
        ("HEALTHCHECK CMD [null]", "must be strings"),
        ("ONBUILD ENV x", "ENV NAME=VALUE"),
        ("ONBUILD ONBUILD RUN x", "ONBUILD cannot"),
        ("ONBUILD from x", "FROM cannot"),
        ("SHELL sh", "JSON array"),
        ("VOLUME [\" \"]", "empty string"),
        ("HEALTHCHECK NONE x", "no arguments"),
        ("HEALTHCHECK make", "CMD or NONE"),
        ("ENV A=\"x", "quote \" is not closed"),
        ("WORKDIR 'x", "quote ' is not closed"),
        ("COPY ${A b", "ARG"),
        ("FROM x y", "FROM IMAGE [AS NAME]"),
        ("FROM x on y", "FROM IMAGE [AS NAME]"),
        ("FROM ${X-y}", "always with the colon"),
    ];
    for (line, message) in wrong {
        let text = format!("FROM a\n{line}\n");
        if line == "COPY ${A b" {
            check(&text, 2, FaultKind::Syntax, "in `${A`");
        } else {
            check(&text, 2, FaultKind::Syntax, message);
        }
    }
}

#[test]
fn wrong_flags() {
    let wrong = [
        ("COPY --form=x a b", "did you mean --from?"),
        ("COPY --chown a /x", "--chown=VALUE"),
        ("COPY --from= a /x", "--from=VALUE"),
        ("COPY --link=maybe a /x", "either there or not"),
        ("ADD --from=x a b", "Buildah knows --chown"),
        (
            "RUN --security=insecure x",
            "Buildah knows --mount, --network",
        ),
        ("RUN --mount=type=bnd,target=/x y", "no mount of type `bnd`"),
        ("HEALTHCHECK --interval 5s CMD foo", "--interval=VALUE"),
        ("FROM --as=x y", "FROM has no flag"),
    ];
    for (line, message) in wrong {
        let text = format!("FROM a\n{line}\n");
        // `5s` is then taken for the kind of the check.
        let found = faults(&text);
        let found = found.iter().find(|fault| fault.kind == FaultKind::BadFlag);
        let found = found.unwrap_or_else(|| panic!("{line}"));
        assert!(found.message.contains(message), "{found}");
    }
}

#[test]
fn what_buildah_accepts_is_accepted() {
    parse(
        concat!(
            "ARG UNUSED\nFROM a AS b\n",
            "CMD\nENTRYPOINT\nCMD []\nCMD --version\nRUN []\n",
            "ONBUILD FOO x\nENV --x A=1\nEXPOSE $NOTHING\nVOLUME /a\n",
            "RUN --mount=type=$T,target=/x y\nCOPY $FLAG --$X a b\nADD --checksum=x --link a b\n",
            "RUN [\"a\"] && b\nRUN ['a', 1]\nRUN echo \"\nLABEL a b\nENV A \"it's\"\n",
            "HEALTHCHECK none\nSHELL [\"a\"]\nSTOPSIGNAL 9\nMAINTAINER 'x\nUSER  a  b\n",
            "COPY --parents --exclude=*.o --chmod=755 a b\nRUN <<EOF\nEOF\n",
            "# comment \\\nRUN x \\\n",
        )
        .replace("MAINTAINER 'x", "MAINTAINER x's")
        .as_str(),
    );
}

#[test]
fn files_without_stages() {
    check("", 1, FaultKind::Empty, "no instruction");
    check("\n# escape=`\n# x\n", 1, FaultKind::Empty, "no instruction");
    check("ARG X=1\n", 1, FaultKind::NoFrom, "FROM scratch");
    check(
        "RUN x
ENV A=1
",
        1,
        FaultKind::NoFrom,
        "FROM scratch",
    );
    let found = faults("ARG X\nENV A=1\nRUN x\nFROM a\n");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].line, found[0].kind), (2, FaultKind::BeforeFrom));
}

#[test]
fn directives() {
    let kind = FaultKind::BadDirective;
    check("# escape=x\nFROM a\n", 1, kind, "must be ` or \\");
    check("# Escape = \nFROM a\n", 1, kind, "must be");
    check("# escape=`\n# escape=`\nFROM a\n", 2, kind, "only one");
    assert_eq!(parse("#ESCAPE = ` rest\nFROM a\n").escape, '`');
    assert_eq!(parse("\n# escape=`\nFROM a\n").escape, '\\');
}

#[test]
fn unterminated_heredoc() {
    let text = "FROM a\nRUN <<EOF\nx\n EOF\nRUN y\n";
    check(text, 2, FaultKind::UnterminatedHeredoc, "no line `EOF`");
}

#[test]
fn all_faults_at_once_in_order() {
    let text = "# escape=x\nFROM a\nRUNN x\nENV A\nCOPY --form=x a b\nRUN <<E\n";
    let lines: Vec<_> = faults(text).iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [1, 3, 4, 5, 6]);
}

#[test]
fn faults_of_steps_count_only_where_they_run() {
    let text = "FROM a AS x\nRUNN x\nFROM b AS y\nCMD z\nFROM x AS z\nCMD z\n";
    assert_eq!(fault(text).0, 2);
    let file = Containerfile::parse_for(text, Some("y"), &[], &[]).unwrap();
    assert_eq!(file.check(Some("y"), &[]), []);
    assert_eq!(file.check(Some("x"), &[])[0].line, 2);
    assert_eq!(file.images(&[], Some("z")).unwrap_err()[0].line, 2);
    // A file that cannot be read cannot be read for any target.
    let text = format!("{text}ENV A\n");
    let found = Containerfile::parse_for(&text, Some("y"), &[], &[]).unwrap_err();
    let lines: Vec<_> = found.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [2, 7]);
}

#[test]
fn unknown_target_is_a_fault() {
    let found =
        Containerfile::parse_for("FROM a AS builder\n", Some("bilder"), &[], &[]).unwrap_err();
    assert_eq!(found[0].kind, FaultKind::UnknownTarget);
    assert!(
        found[0].message.contains("did you mean `builder`?"),
        "{}",
        found[0]
    );
}
