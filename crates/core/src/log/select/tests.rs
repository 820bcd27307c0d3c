//! What is left out unread must not change any answer: the same queries over the same lines, one by one.

use proptest::prelude::*;

use super::super::reader::tests::{lines, write_log};
use super::super::record::{Event, Line};
use super::super::writer::RecordWriter;
use super::*;

fn query(start: Start) -> Query {
    Query {
        context: 2,
        ..Query::new(start, 5, 16_000)
    }
}

/// The numbers of all lines that are shown.
fn numbers(selection: &Selection) -> Vec<u64> {
    selection
        .rows
        .iter()
        .flat_map(|row| row.n..=row.last())
        .collect()
}

fn run(query: &Query) -> (Vec<u64>, Selection) {
    let file = write_log(&[3; 50], 7);
    let log = LogReader::open(file.path()).unwrap().unwrap();
    let selection = query.run(&log).unwrap();
    (numbers(&selection), selection)
}

#[test]
fn pages_meet_in_both_directions() {
    assert_eq!(run(&query(Start::After(0))).0, [1, 2, 3, 4, 5]);
    assert_eq!(run(&query(Start::After(5))).0, [6, 7, 8, 9, 10]);
    assert_eq!(run(&query(Start::Before(None))).0, [46, 47, 48, 49, 50]);
    assert_eq!(run(&query(Start::Before(Some(46)))).0, [41, 42, 43, 44, 45]);
    let (numbers, selection) = run(&query(Start::After(47)));
    assert_eq!((numbers, selection.more), (vec![48, 49, 50], false));
    assert_eq!(run(&query(Start::Before(Some(3)))).0, [1, 2]);
}

#[test]
fn there_is_no_gap_in_a_whole_log_wherever_one_begins() {
    for start in [
        Start::After(0),
        Start::After(47),
        Start::After(1000),
        Start::Before(None),
        Start::Before(Some(46)),
        // As around a failure in the last lines.
        Start::Before(Some(60)),
    ] {
        let (_, selection) = run(&query(start));
        assert_eq!(selection.gaps(start).next(), None, "{start:?}");
    }
}

#[test]
fn grep_shows_what_surrounds_and_counts() {
    let grep = Pattern::new("^2[05] ", false).unwrap();
    for start in [Start::After(0), Start::Before(None)] {
        let mut wanted = query(start);
        wanted.grep = Some(grep.clone());
        wanted.lines = 50;
        let (numbers, selection) = run(&wanted);
        assert_eq!(
            numbers,
            [19, 20, 21, 22, 23, 24, 25, 26, 27, 28],
            "{start:?}"
        );
        assert_eq!((selection.matches, selection.more), (2, false));
    }
}

#[test]
fn one_line_is_always_shown() {
    let mut small = query(Start::Before(None));
    small.max_bytes = 1;
    assert_eq!(run(&small).0, [50]);
    let mut step = query(Start::After(0));
    step.step = Some(2);
    assert_eq!(run(&step).0, [2, 5, 8, 11, 14]);
}

#[derive(Debug, Clone)]
struct Part {
    phase: Phase,
    step: Option<(u32, u32)>,
    test: Option<String>,
    runner: bool,
    texts: Vec<(String, usize)>,
}

const ODD: &[&str] = &[
    "error: 'x' undeclared",
    "ERROR: \"y\" is odd",
    r"C:\dir\new\table",
    "",
    "aß√ fatal ſtraße K",
    "output",
    r#""text":"error","stream":"runner""#,
    "end error",
    "\u{1}control\ttab",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z ]{0,60}",
        3 => prop::sample::select(ODD).prop_map(str::to_owned),
        1 => "(?s).{0,20}",
        1 => "[a-z]{1500}",
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let origin = prop_oneof![
        (0u32..3).prop_map(|step| (Phase::Build, Some((step, 3)), None)),
        Just((Phase::Source, None, None)),
        "[ab]".prop_map(|test| (Phase::Test, None, Some(test))),
    ];
    let texts = prop::collection::vec((text(), 1usize..5), 1..40);
    let runner = prop::bool::weighted(0.2);
    (origin, runner, texts).prop_map(|((phase, step, test), runner, texts)| Part {
        phase,
        step,
        test,
        runner,
        texts,
    })
}

fn write(parts: &[Part], limit: u64) -> (tempfile::NamedTempFile, u64) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = RecordWriter::new(file.reopen().unwrap(), 0, limit);
    let mut last = None;
    for part in parts {
        if last.replace(part.phase) != Some(part.phase) {
            writer
                .event(0, Event::PhaseStarted { phase: part.phase })
                .unwrap();
        }
        for (text, times) in &part.texts {
            let stream = if part.runner {
                Stream::Runner
            } else {
                Stream::Output
            };
            let (phase, step, test) = (part.phase, part.step, part.test.clone());
            let line = Line {
                phase,
                step,
                test,
                stream,
                text: text.clone(),
            };
            for _ in 0..*times {
                writer.line(0, &line).unwrap();
            }
        }
        if part.texts.len() % 3 == 0 {
            writer
                .event(
                    0,
                    Event::PhaseEnded {
                        phase: part.phase,
                        seconds: 0.0,
                    },
                )
                .unwrap();
        }
    }
    writer.event(0, Event::Committed).unwrap();
    let last = writer.last();
    (file, last)
}

fn a_query(last: u64) -> impl Strategy<Value = Query> {
    let start = prop_oneof![
        (0..last + 2).prop_map(Start::After),
        (0..last + 2).prop_map(|n| Start::Before(Some(n))),
        Just(Start::Before(None)),
    ];
    let grep = prop_oneof![
        2 => Just(None),
        5 => (prop::sample::select(vec![
            "error", "^error", "error$", "fatal|undeclared", "\"y\"", r"\\dir", "straße", "k", "x{200}", "[0-9]",
            r"\berror\b", "^$", "a.*z", "text", "runner", r"\tTAB", "(?i)new|odd", ".",
        ]), any::<bool>()).prop_map(|(pattern, ignore)| Some(Pattern::new(pattern, ignore).unwrap())),
        2 => text().prop_map(|text| Pattern::new(&regex::escape(&text), false).ok()),
    ];
    let phase = prop::option::weighted(0.2, prop::sample::select(vec![Phase::Build, Phase::Test]));
    let step = prop::option::weighted(0.2, 0u32..3);
    let test = prop::option::weighted(0.2, "[ab]");
    let stream = prop::option::weighted(
        0.2,
        prop::sample::select(vec![Stream::Output, Stream::Runner]),
    );
    let size = (1usize..40, 200usize..4000, 0usize..4, any::<bool>());
    (start, grep, phase, step, test, stream, size).prop_map(
        |(start, grep, phase, step, test, stream, (lines, max_bytes, context, lean))| Query {
            start,
            lines,
            max_bytes,
            phase,
            step,
            test,
            stream,
            grep,
            context,
            lean,
            timestamps: lines % 3 == 0,
        },
    )
}

/// The same query, line by line.
fn slow(query: &Query, log: &LogReader) -> Selection {
    let query = Query {
        grep: query.grep.as_ref().map(Pattern::without_literals),
        ..query.clone()
    };
    let mut all: Vec<(u64, Line)> = lines(log.forward(0)).collect();
    let is_back = matches!(query.start, Start::Before(_));
    match query.start {
        Start::After(after) => all.retain(|(n, _)| *n > after),
        Start::Before(Some(before)) => all.retain(|(n, _)| *n < before.max(1)),
        Start::Before(None) => {}
    }
    if is_back {
        all.reverse();
    }
    let mut pick = Pick::new(&query, is_back);
    let _ = all.into_iter().all(|(n, line)| pick.take(n, 0, line));
    let mut out = pick.out;
    if is_back {
        out.rows.reverse();
    }
    out.total = log.last_number();
    out
}

fn logs_and_queries() -> impl Strategy<Value = (Vec<Part>, u64, Vec<Query>)> {
    let limit = prop_oneof![3 => Just(u64::MAX), 1 => 2_000u64..60_000];
    (prop::collection::vec(part(), 1..30), limit).prop_flat_map(|(parts, limit)| {
        let texts = parts.iter().flat_map(|part| &part.texts);
        let last = texts.map(|(_, times)| *times as u64).sum();
        let queries = prop::collection::vec(a_query(last), 12);
        (Just(parts), Just(limit), queries)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn what_is_left_out_unread_changes_no_answer((parts, limit, queries) in logs_and_queries()) {
        let (file, _) = write(&parts, limit);
        let log = LogReader::open(file.path()).unwrap().unwrap();
        for query in queries {
            let fast = query.run(&log).unwrap();
            prop_assert_eq!(&fast, &slow(&query, &log), "{:?}", query);
            let text: Vec<String> = fast.rows.iter().flat_map(|row| query.render(row)).collect();
            let bytes: usize = text.iter().map(|line| line.len() + 1).sum();
            prop_assert!(text.len() <= query.lines, "{} lines of {}", text.len(), query.lines);
            prop_assert!(fast.shown() == 1 || bytes <= query.max_bytes, "{bytes} bytes of {}", query.max_bytes);
        }
    }

    #[test]
    fn pages_are_the_whole((parts, limit, queries) in logs_and_queries()) {
        let (file, _) = write(&parts, limit);
        let log = LogReader::open(file.path()).unwrap().unwrap();
        for mut query in queries.into_iter().take(3) {
            // What surrounds a match is not shown once more on the next page.
            query.context = 0;
            query.start = Start::After(0);
            let wanted = |line: &Line| {
                query.concerns(line) && query.grep.as_ref().is_none_or(|grep| grep.is_match(&line.text))
            };
            let all = lines(log.forward(0)).filter(|(_, line)| wanted(line));
            let all: Vec<u64> = all.map(|(n, _)| n).collect();
            let mut seen = Vec::new();
            loop {
                let page = query.run(&log).unwrap();
                seen.extend(numbers(&page));
                if !page.more {
                    break;
                }
                query.start = Start::After(page.reached.unwrap());
            }
            prop_assert_eq!(seen, all);
        }
    }
}

#[test]
fn a_flood_of_the_same_is_one_line_of_text() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = RecordWriter::new(file.reopen().unwrap(), 0, u64::MAX);
    let line = Line {
        phase: Phase::Build,
        step: None,
        test: None,
        stream: Stream::Output,
        text: "y".into(),
    };
    for _ in 0..50_000 {
        writer.line(0, &line).unwrap();
    }
    writer.flush().unwrap();
    let log = LogReader::open(file.path()).unwrap().unwrap();
    for start in [Start::After(0), Start::Before(None)] {
        let mut query = query(start);
        query.lean = true;
        let selection = query.run(&log).unwrap();
        assert_eq!(selection.rows.len(), 1);
        assert!(selection.more, "and yet no answer looks at everything");
        assert_eq!(selection.shown(), MOST_FOLDED + 2);
        let last = match start {
            Start::After(_) => selection.shown(),
            Start::Before(_) => 50_001 - selection.shown(),
        };
        assert_eq!(selection.reached, Some(last));
    }
}
