use super::*;
use crate::build::Phase;
use crate::build::request::Stream;
use proptest::prelude::*;

pub(crate) fn lines(texts: &[&str]) -> Vec<(u64, Line)> {
    (1..)
        .zip(texts)
        .map(|(n, text)| {
            let line = Line {
                phase: Phase::Build,
                step: None,
                test: None,
                stream: Stream::Output,
                text: (*text).to_owned(),
            };
            (n, line)
        })
        .collect()
}

fn told(status: i32, text: &str, printed: &[&str]) -> (Kind, Fault, Option<usize>) {
    let reading = read(&Command {
        lines: &lines(printed),
        status,
        text,
    });
    (reading.kind, reading.fault, reading.at.map(|(_, at)| at))
}

#[test]
fn the_first_cause_of_the_last_to_speak_counts() {
    let make = [
        "curl: (6) Could not resolve host: no.invalid",
        "gcc -c a.c",
        "a.c:1:2: error: 'x' undeclared",
        "b.c:1:2: error: 'y' undeclared",
        "make: *** [Makefile:2: a.o] Error 1",
        "make: *** Waiting for unfinished jobs....",
    ];
    assert_eq!(
        told(2, "RUN make", &make),
        (Kind::CompileError, Fault::Code, Some(2))
    );
    let apt = [
        "  Temporary failure resolving 'deb.debian.org'",
        "E: Unable to locate package curl",
    ];
    assert_eq!(
        told(100, "RUN apt", &apt),
        (Kind::NameNotResolved, Fault::Unknown, Some(0))
    );
}

#[test]
fn the_environment_is_not_blamed_on_the_code() {
    for (printed, kind) in [
        (
            vec!["E       requests.exceptions.ConnectionError: [Errno 111] Connection refused"],
            Kind::TestFailed,
        ),
        (
            vec!["panic: dial tcp 127.0.0.1:1: connect: connection refused"],
            Kind::HostUnreachable,
        ),
        (vec!["write error: No space left on device"], Kind::DiskFull),
    ] {
        let (told, fault, _) = told(1, "RUN x", &printed);
        assert_eq!((told, fault), (kind, Fault::Unknown), "{printed:?}");
    }
    for (text, status, kind) in [
        ("RUN curl -sf http://h/x", 6, Kind::NameNotResolved),
        ("RUN wget -q http://h/x", 4, Kind::HostUnreachable),
        ("RUN ./curler", 6, Kind::CommandFailed),
    ] {
        assert_eq!(told(status, text, &[]).0, kind, "{text}");
    }
}

#[test]
fn the_status_decides_where_it_is_beyond_doubt() {
    let noise = ["a.c:1:2: error: x"];
    assert_eq!(
        told(127, "RUN x", &noise),
        (Kind::CommandNotFound, Fault::Code, None)
    );
    assert_eq!(told(137, "RUN x", &noise).0, Kind::OutOfMemory);
    assert_eq!(
        told(139, "RUN x", &[]),
        (Kind::CommandCrashed, Fault::Unknown, None)
    );
    assert_eq!(told(124, "RUN timeout 1 x", &[]).0, Kind::CommandTimedOut);
    assert_eq!(told(124, "RUN x", &[]).0, Kind::CommandFailed);
    let format = ["/bin/sh: 1: ./x: Exec format error"];
    assert_eq!(
        told(126, "RUN ./x", &format),
        (Kind::WrongArchitecture, Fault::Code, Some(0))
    );
}

proptest! {
    #[test]
    fn nothing_printed_makes_it_panic_or_slow(
        printed in proptest::collection::vec(".{0,200}", 0..60),
        status in 1..256i32,
    ) {
        let printed: Vec<&str> = printed.iter().map(String::as_str).collect();
        let begun = std::time::Instant::now();
        let (_, fault, at) = told(status, "RUN x", &printed);
        prop_assert!(matches!(fault, Fault::Code | Fault::Unknown));
        prop_assert!(at.is_none_or(|at| at < printed.len()));
        prop_assert!(begun.elapsed().as_secs() < 20);
    }
}
