use super::super::StepLine;
use super::parse;

#[test]
fn step_lines() {
    let parsed =
        |line| StepLine::parse(line).map(|step| (step.stage, step.step, step.steps, step.text));
    assert_eq!(
        parsed("STEP 3/7: RUN make"),
        Some((1, 3, Some(7), "RUN make"))
    );
    assert_eq!(
        parsed("[2/3] STEP 1/2: FROM x\r\n"),
        Some((2, 1, Some(2), "FROM x"))
    );
    assert_eq!(
        parsed("[linux/amd64] [1/2] STEP 3/3: RUN a: b"),
        Some((1, 3, Some(3), "RUN a: b"))
    );
    assert_eq!(parsed("STEP 8: ENV A=1"), Some((1, 8, None, "ENV A=1")));
    assert_eq!(parsed("STEP 3/3: "), Some((1, 3, Some(3), "")));
    for other in [
        "",
        "[2/3] COMMIT",
        "STEP x/2: y",
        " STEP 1/2: x",
        "[x] STEP 1/2: y",
        "STEP 1/2",
        "--> 123",
    ] {
        assert_eq!(parsed(other), None, "{other}");
    }
}

/// Output of Buildah 1.28.2 and 1.43.2 for one file, and the lines meant.
#[test]
fn printed_steps_of_several_stages() {
    let file = parse(concat!(
        "FROM scratch AS base\n\nCOPY a /\n",
        "FROM scratch AS unused\nCOPY b /\n",
        "FROM base\nENV X=1\nCOPY --from=base \\\n  /a /c\n",
    ));
    for (printed, line) in [
        ("[1/3] STEP 1/2: FROM scratch AS base", 1),
        ("[1/3] STEP 2/2: COPY a /", 3),
        (
            "[3/3] STEP 1/3: FROM 95657c1bbc0db3a0d479a1711046967b5633a2670356e1c29c54818e28a14d49",
            6,
        ),
        ("[3/3] STEP 2/3: ENV X=1", 7),
        ("[3/3] STEP 3/3: COPY --from=base   /a /c", 8),
    ] {
        let step = StepLine::parse(printed).unwrap();
        let (stage, found) = file.locate(step.stage, step.step, step.text).unwrap();
        assert_eq!(
            (stage.index + 1, found.line),
            (step.stage, line),
            "{printed}"
        );
    }
}

#[test]
fn heredocs_and_error_messages() {
    let file = parse(concat!(
        "FROM scratch\n",
        "COPY <<EOF <<E2 /d/  \n  first\nsecond\nEOF\nE2\n",
        "RUN [\"a\",  \"b\"]\n",
    ));
    let line = |number, text| file.locate(1, number, text).map(|(_, step)| step.line);
    assert_eq!(line(2, "COPY <<EOF <<E2 /d/   (first...) ()"), Some(2));
    assert_eq!(line(2, "COPY <<EOF <<E2 /d/"), Some(2));
    assert_eq!(line(2, "COPY <<EOF <<E2 /d/ (other)"), None);
    assert_eq!(line(3, "RUN a b"), Some(7));
}

#[test]
fn shifted_numbers() {
    let file = parse("FROM a\nRUN x\nRUN y\nRUN z\nRUN w\nRUN x\nFROM 0\nRUN only\n");
    let line = |stage, number, text| file.locate(stage, number, text).map(|(_, step)| step.line);
    assert_eq!(line(1, 2, "RUN x"), Some(2));
    assert_eq!(line(1, 6, "RUN x"), Some(6));
    // One trigger of the base image runs first.
    assert_eq!(line(1, 2, "RUN trigger"), None);
    assert_eq!(line(1, 3, "RUN x"), Some(2));
    assert_eq!(line(1, 4, "RUN y"), Some(3));
    assert_eq!(line(1, 7, "RUN x"), Some(6));
    // An option of the command line adds a step.
    assert_eq!(line(2, 3, "LABEL \"x\"=\"y\""), None);
    // Elsewhere only if there is no doubt.
    assert_eq!(line(9, 2, "RUN only"), Some(8));
    assert_eq!(line(2, 2, "RUN x"), None);
    assert_eq!(line(0, 1, "FROM a"), None);
    assert_eq!(line(9, 1, "FROM a"), None);
}
