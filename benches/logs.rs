//! What a log of a gigabyte costs, beside `rg` and `cat` on the same text in the same run: `make bench`.
//!
//! - its end, a cursor, a phase, a step and a test (goal: 10 ms each, whatever its length)
//! - `grep` over all of it, beside ripgrep on its plain text (goal: 1.5 times)
//! - the runner's pipeline, from the pipe of a command to the log, beside `cat` through a pipe (goal: the
//!   lesser of 300 MB/s and half of `cat`)
//! - resident memory of this process, which is then no more than a runner is (goal: 40 MB)
//!
//! Needs `rg`, and 3 GB in TMPDIR. `NOMAD_BUILD_BENCH_MB` makes it smaller.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

mod row;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nomad_build::build::{Phase, request::Stream};
use nomad_build::log::{Event, Line, LogReader, Pattern, Query, RecordWriter, Redactor, Start};
use nomad_build::runner::process::{Bounds, Output, run};
use nomad_build::runner::{LogSoFar, Reporter};

use row::{Goal, row};

const STEPS: u32 = 40;
const MB: f64 = 1e6;

struct Log {
    records: PathBuf,
    plain: PathBuf,
    lines: u64,
}

/// Lines as compilers print them; now and then an error.
fn text(n: u64) -> String {
    match n % 400_009 {
        1000 => format!(
            "src/module_{n}.c:{}:5: error: 'y{n}' undeclared (first use in this function)",
            n % 997
        ),
        _ => format!(
            "[{:3}%] cc -O2 -Wall -Iinclude -c src/module_{n}.c -o build/obj/module_{n}.o",
            n % 100
        ),
    }
}

/// A log of so many bytes of records: a phase build with steps, then a few tests.
fn make(dir: &Path, name: &str, bytes: u64) -> Log {
    let (records, plain) = (
        dir.join(format!("{name}.ndjson")),
        dir.join(format!("{name}.txt")),
    );
    let mut writer = RecordWriter::new(File::create(&records).unwrap(), 0, u64::MAX);
    let mut text_out = BufWriter::new(File::create(&plain).unwrap());
    let mut line = Line {
        phase: Phase::Build,
        step: None,
        test: None,
        stream: Stream::Output,
        text: String::new(),
    };
    let lines = bytes / 190;
    writer
        .event(
            0,
            Event::PhaseStarted {
                phase: Phase::Build,
            },
        )
        .unwrap();
    for n in 0..lines {
        let at = n * 100 / lines;
        match at {
            0..90 => {
                line.step = Some((
                    u32::try_from(n * u64::from(STEPS) / (lines * 9 / 10 + 1)).unwrap() + 1,
                    STEPS,
                ))
            }
            _ => {
                (line.phase, line.step) = (Phase::Test, None);
                line.test = Some(format!("unit-{at}"));
            }
        }
        line.text = text(n);
        writer
            .line(1_732_634_000_000 + i64::try_from(n / 100).unwrap(), &line)
            .unwrap();
        writeln!(text_out, "{}", line.text).unwrap();
    }
    writer.flush().unwrap();
    text_out.flush().unwrap();
    Log {
        records,
        plain,
        lines,
    }
}

fn size(path: &Path) -> f64 {
    std::fs::metadata(path).unwrap().len() as f64 / MB
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn timed(rounds: u32, mut work: impl FnMut()) -> Duration {
    let times = (0..rounds).map(|_| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    });
    median(times.collect())
}

fn reading(long: &Log, short: &Log) {
    let of = |change: &dyn Fn(&mut Query, u64)| {
        [long, short].map(|log| {
            let mut query = Query::new(Start::Before(None), 200, 16_000);
            query.lean = true;
            change(&mut query, log.lines);
            timed(31, || {
                let log = LogReader::open(&log.records).unwrap().unwrap();
                let selection = query.run(&log).unwrap();
                assert!(selection.rows.len() > 50 && !selection.out_of_time);
            })
        })
    };
    let length = size(&long.records);
    for (what, [long, short]) in [
        ("the end", of(&|_, _| {})),
        (
            "a cursor",
            of(&|query, lines| query.start = Start::After(lines / 3)),
        ),
        (
            "phase build, from the end",
            of(&|query, _| query.phase = Some(Phase::Build)),
        ),
        (
            "step 7, from the start",
            of(&|query, _| {
                query.start = Start::After(0);
                query.step = Some(7);
            }),
        ),
        ("step 7, from the end", of(&|query, _| query.step = Some(7))),
        (
            "test unit-93, from the start",
            of(&|query, _| {
                query.start = Start::After(0);
                query.test = Some("unit-93".into());
            }),
        ),
    ] {
        row(
            &format!("of a log of {length:.0} MB, {what}"),
            format!("{long:.1?}, of a short log {short:.1?}"),
            "10 ms",
            long.as_secs_f64() / 0.01,
            Goal::AtMost(1.0),
        );
    }
}

fn grep(log: &Log) {
    for (pattern, ignore_case) in [
        ("undeclared", false),
        (r"error: '\w+' undeclared", false),
        ("fatal error|cannot find|undefined reference", false),
        ("Undeclared", true),
        (r"module_\d*77777\.o$", false),
        ("no such text", false),
    ] {
        let rg = |args: &[&str]| {
            let mut command = Command::new("rg");
            command.args(["--no-config", "--color=never"]).args(args);
            if ignore_case {
                command.arg("-i");
            }
            let out = command.arg("-e").arg(pattern).arg(&log.plain).output();
            String::from_utf8(
                out.expect("rg is installed: apt-get install ripgrep")
                    .stdout,
            )
            .unwrap()
        };
        let found = rg(&["--count"]).trim().parse::<u64>().unwrap_or(0);
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..5 {
            times[0].push(timed(1, || drop(rg(&["--line-number"]))));
            for (start, times) in [Start::After(0), Start::Before(None)]
                .into_iter()
                .zip(&mut times[1..])
            {
                let mut query = Query::new(start, 100_000, usize::MAX);
                query.grep = Some(Pattern::new(pattern, ignore_case).unwrap());
                times.push(timed(1, || {
                    let log = LogReader::open(&log.records).unwrap().unwrap();
                    let selection = query.run(&log).unwrap();
                    assert!(
                        selection.out_of_time || selection.matches == found,
                        "{pattern}"
                    );
                }));
            }
        }
        let [rg, forward, backward] = times.map(median);
        let ratio = |time: Duration| time.as_secs_f64() / rg.as_secs_f64();
        // A bar would end the cell of the table.
        let shown = pattern.replace('|', " or ");
        for (direction, time) in [("", forward), (", from the end", backward)] {
            row(
                &format!(
                    "grep `{shown}`{}{direction}, {found} found",
                    if ignore_case { " ignoring case" } else { "" }
                ),
                format!("{time:.0?}"),
                format!("rg, {rg:.0?}"),
                ratio(time),
                Goal::AtMost(1.5),
            );
        }
    }
}

fn secrets() -> Vec<String> {
    (0..20)
        .map(|n| {
            format!(
                "{}t0ken-{n:02}/Zx+{:x}",
                "k".repeat(n % 7),
                0xdead_beef_u64 * (n as u64 + 3)
            )
        })
        .collect()
}

fn pipeline(log: &Log, dir: &Path) {
    let megabytes = size(&log.plain);
    let secrets = secrets();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let ours = |secrets: &[String], limit: u64| {
        let out = dir.join("out.ndjson");
        let redactor = Redactor::new(secrets.iter().map(String::as_str));
        let reporter = Reporter::new(
            File::create(&out).unwrap(),
            LogSoFar::default(),
            limit,
            redactor,
        );
        let bounds = Bounds {
            cancel: tokio_util::sync::CancellationToken::new(),
            deadline: tokio::time::Instant::now() + Duration::from_secs(600),
        };
        let output = Output {
            reporter: &reporter,
            phase: Phase::Build,
            test: None,
        };
        let mut command = tokio::process::Command::new("cat");
        let ended = runtime
            .block_on(async { run(command.arg(&log.plain), output, &bounds, |_| None).await });
        assert!(ended.unwrap().is_success());
        assert_eq!(reporter.last(), log.lines);
        std::fs::remove_file(out).unwrap();
    };
    let cat = || {
        let mut from = Command::new("cat")
            .arg(&log.plain)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let into = File::create(dir.join("out.txt")).unwrap();
        let to = Command::new("cat")
            .stdin(from.stdout.take().unwrap())
            .stdout(into)
            .status();
        assert!(to.unwrap().success() && from.wait().unwrap().success());
    };
    let mut times = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..5 {
        times[0].push(timed(1, cat));
        times[1].push(timed(1, || ours(&secrets, u64::MAX)));
        times[2].push(timed(1, || ours(&[], u64::MAX)));
        times[3].push(timed(1, || ours(&secrets, 256 << 20)));
    }
    let [cat, ours, bare, limited] = times.map(|times| megabytes / median(times).as_secs_f64());
    let wanted = (cat / 2.0).min(300.0);
    for (what, speed) in [
        ("20 secrets", ours),
        ("no secrets", bare),
        ("20 secrets, beyond the limit of 256 MB", limited),
    ] {
        row(
            &format!("the runner's pipeline, {what}"),
            format!("{speed:.0} MB/s"),
            format!("{wanted:.0} MB/s (cat {cat:.0} MB/s)"),
            speed / wanted,
            Goal::AtLeast(1.0),
        );
    }
}

fn redaction() {
    let secrets = secrets();
    let redactor = Redactor::new(secrets.iter().map(String::as_str));
    let lines: Vec<String> = (0..200_000).map(text).collect();
    let bytes: usize = lines.iter().map(String::len).sum();
    let time = timed(5, || {
        for line in &lines {
            assert!(matches!(
                redactor.apply(line.as_bytes()),
                std::borrow::Cow::Borrowed(_)
            ));
        }
    });
    println!(
        "redaction alone, 20 secrets: {:.0} MB/s",
        bytes as f64 / MB / time.as_secs_f64()
    );
}

/// In KiB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn main() {
    let megabytes =
        std::env::var("NOMAD_BUILD_BENCH_MB").map_or(1000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let long = make(dir.path(), "long", megabytes * 1_000_000);
    let short = make(dir.path(), "short", 1_000_000);
    println!(
        "a log of {:.0} MB, {} lines, {:.0} MB of text; a short one of {:.1} MB",
        size(&long.records),
        long.lines,
        size(&long.plain),
        size(&short.records)
    );
    redaction();
    pipeline(&long, dir.path());
    let memory = peak_memory() * 1.024 / 1000.0;
    row(
        "memory of the pipeline",
        format!("{memory:.0} MB"),
        "40 MB",
        memory / 40.0,
        Goal::AtMost(1.0),
    );
    reading(&long, &short);
    grep(&long);
}
