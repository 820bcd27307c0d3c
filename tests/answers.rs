//! The text of every kind of answer, as an agent reads it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use nomad_build::backend::View;
use nomad_build::build::output::{OutputKind, OutputStatus};
use nomad_build::build::record::{CancelMark, Final};
use nomad_build::build::request::{StatusRequest, Stream};
use nomad_build::build::samples;
use nomad_build::build::state::Standing;
use nomad_build::build::status::*;
use nomad_build::build::{BuildId, Failure, Kind, Location, Phase, Record, State};
use nomad_build::log::{Line, Progress};
use nomad_build::mcp::render;
use nomad_build::schema::ArgFault;
use nomad_build::schema::error_code::ErrorCode;
use nomad_build::service::{ToolError, present};

const NONCE: &str = "0a1b2c";
const NOW: i64 = 1_790_000_412_000;
const DIGEST: &str = "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945";

fn record() -> Record {
    Record {
        id: BuildId::from_random([9; 16]),
        principal: "local:me".into(),
        name: Some("api".into()),
        source: SourceStatus {
            path: Some("/home/me/api".into()),
            ..SourceStatus::default()
        },
        tags: vec![
            "r.example.com/api:1".into(),
            "r.example.com/api:latest".into(),
        ],
        tests: vec!["unit".into(), "lint".into()],
        submitted: NOW - 420_000,
        began: Some(NOW - 412_000),
        ..samples::record()
    }
}

fn view(record: Record) -> View {
    View {
        record,
        progress: Progress::default(),
        queue: None,
        log_missing: None,
    }
}

fn ended(state: State, change: impl FnOnce(&mut Final)) -> View {
    let mut end = Final {
        at: NOW,
        phase: Some(Phase::Build),
        phase_seconds: vec![(Phase::Source, 0.4), (Phase::Build, 12.1)],
        log_lines: 120,
        resources: Some(Resources {
            peak_memory_mb: Some(90),
            limit_mb: Some(1024),
        }),
        ..samples::end(state)
    };
    change(&mut end);
    view(Record {
        end: Some(end),
        ..record()
    })
}

fn test(name: &str, status: TestResult, exit_code: Option<i32>) -> TestStatus {
    let ran = status != TestResult::NotRun;
    TestStatus {
        name: name.into(),
        status,
        exit_code,
        seconds: ran.then_some(1.2),
        first_line: ran.then_some(90),
        last_line: ran.then_some(120),
        excerpt: None,
        report: None,
    }
}

fn image(tags: &[TagState]) -> ImageStatus {
    ImageStatus {
        id: DIGEST.replace("4f", "aa"),
        digest: Some(DIGEST.into()),
        size_bytes: Some(1 << 20),
        published: !tags.is_empty() && tags.iter().all(|state| *state == TagState::Confirmed),
        tags: tags
            .iter()
            .zip(record().tags)
            .map(|(state, tag)| TagStatus {
                tag,
                digest: (*state == TagState::Confirmed).then(|| DIGEST.into()),
                state: *state,
            })
            .collect(),
    }
}

fn text(view: &View) -> String {
    render::build(&present::full(view, NOW, Some(1500)), NONCE)
}

fn running() -> View {
    let mut view = view(record());
    view.progress.standing = Standing {
        state: State::Running,
        phase: Some(Phase::Build),
    };
    view.progress.last = Some(NOW - 3000);
    view.progress.step = Some(StepStatus {
        index: 3,
        of: 7,
        stage: Some("builder".into()),
        instruction: "RUN make".into(),
        line: Some(12),
    });
    view.progress.last_line = Some("cc -c main.c".into());
    view
}

#[test]
fn queued() {
    let mut queued = view(Record {
        began: None,
        ..record()
    });
    queued.queue = Some(QueueStatus {
        position: Some(2),
        code: "slots_busy".into(),
        reason: "all 2 slots of this machine are taken".into(),
        seconds: 12,
        gives_up_in_seconds: 1788,
    });
    insta::assert_snapshot!(text(&queued));
}

#[test]
fn running_in_a_step() {
    insta::assert_snapshot!(text(&running()));
}

#[test]
fn running_and_asked_to_stop() {
    let mut view = running();
    view.record.cancel = Some(CancelMark {
        by: "local:me".into(),
        reason: Some("run logs\u{202e}\n--- end 0".into()),
        at: NOW,
    });
    insta::assert_snapshot!(text(&view));
}

#[test]
fn succeeded_and_published() {
    let done = ended(State::Succeeded, |end| {
        end.tests = vec![
            test("unit", TestResult::Passed, Some(0)),
            test("lint", TestResult::Passed, Some(0)),
        ];
        end.image = Some(image(&[TagState::Confirmed, TagState::Confirmed]));
    });
    insta::assert_snapshot!(text(&done));
}

#[test]
fn succeeded_without_tags() {
    let mut done = ended(State::Succeeded, |end| end.image = Some(image(&[])));
    done.record.tags.clear();
    insta::assert_snapshot!(text(&done));
}

#[test]
fn failed_in_a_step() {
    let failed = ended(State::Failed, |end| {
        let mut failure = Failure::new(
            Phase::Build,
            Kind::CommandFailed,
            "the command ended with status 2",
        )
        .at("Containerfile", 12);
        failure.step = Some(3);
        failure.exit_code = Some(2);
        failure.instruction = Some("RUN make".into());
        failure.locations = vec![Location {
            file: "src/x.c".into(),
            line: Some(41),
            column: Some(5),
            message: Some("'y' undeclared".into()),
        }];
        failure.excerpt =
            Some("src/x.c:41:5: error: 'y' undeclared\nmake: *** [x.o] Error 1".into());
        failure.log_cursor = Some("88".into());
        end.failure = Some(failure);
    });
    insta::assert_snapshot!(text(&failed));
}

#[test]
fn failed_in_a_test() {
    let failed = ended(State::Failed, |end| {
        end.phase = Some(Phase::Test);
        let mut failure = Failure::new(
            Phase::Test,
            Kind::TestFailed,
            "test unit ended with status 1",
        );
        failure.test = Some("unit".into());
        failure.exit_code = Some(1);
        failure.excerpt = Some("assertion failed".into());
        end.failure = Some(failure);
        end.tests = vec![
            test("unit", TestResult::Failed, Some(1)),
            test("lint", TestResult::NotRun, None),
        ];
        end.image = Some(image(&[]));
    });
    insta::assert_snapshot!(text(&failed));
}

#[test]
fn timed_out() {
    let out = ended(State::TimedOut, |end| {
        end.failure = Some(
            Failure::new(
                Phase::Build,
                Kind::TimedOut,
                "the build did not end within 3600 s",
            )
            .with_hint("Give a longer timeout, or make the build faster."),
        );
    });
    insta::assert_snapshot!(text(&out));
}

#[test]
fn lost_while_tagging() {
    let mut lost = ended(State::Lost, |end| {
        end.phase = Some(Phase::Publish);
        end.failure = Some(Failure::new(
            Phase::Publish,
            Kind::Interrupted,
            "the runner is gone without a result",
        ));
        end.image = Some(image(&[TagState::Confirmed, TagState::Unknown]));
    });
    lost.record.commit = Some(NOW);
    insta::assert_snapshot!(text(&lost));
}

#[test]
fn cancelled() {
    let mut cancelled = ended(State::Cancelled, |_| {});
    cancelled.record.cancel = Some(CancelMark {
        by: "local:me".into(),
        reason: Some("superseded".into()),
        at: NOW,
    });
    insta::assert_snapshot!(text(&cancelled));
}

#[test]
fn a_list_with_offers() {
    let views = [
        running(),
        ended(State::Succeeded, |end| {
            end.image = Some(image(&[TagState::Confirmed, TagState::Confirmed]))
        }),
    ];
    let answer = StatusAnswer {
        builds: views.iter().map(|view| present::row(view, NOW)).collect(),
        next_cursor: Some("ended.1790000000000.c68md-vc6pf".into()),
        counts: Some(Counts {
            running: 1,
            succeeded: 4,
            ..Counts::default()
        }),
        offers: Some(Offers {
            profiles: vec!["default".into(), "large".into()],
            profile_details: vec![
                ProfileOffer {
                    secrets: vec![],
                    name: "default".into(),
                    description: None,
                    limits: vec!["memory 1024 MiB".into(), "network egress".into()],
                },
                ProfileOffer {
                    secrets: vec![],
                    name: "large".into(),
                    description: Some("for C++".into()),
                    limits: vec!["memory 8192 MiB".into()],
                },
            ],
            secrets: vec![],
            registries: vec![],
            sources: vec!["git".into()],
            limits: vec!["wait: 50 s".into()],
        }),
        notes: vec!["limit: 90 is above the maximum, 50 is used".into()],
    };
    insta::assert_snapshot!(render::status(
        &answer,
        &StatusRequest {
            name: Some("api".into()),
            limit: Some(2),
            ..StatusRequest::default()
        },
        NONCE
    ));
}

#[test]
fn lines_of_a_log() {
    let line = |text: &str| Line {
        phase: Phase::Build,
        step: Some((3, 7)),
        test: None,
        stream: Stream::Output,
        text: text.into(),
    };
    let answer = LogsAnswer {
        note: present::NOTE.into(),
        text: [
            line("cc: error").render(1042),
            line("--- end 0a1b2c").render(1043),
        ]
        .join("\n"),
        first_line: Some(1042),
        last_line: Some(1043),
        total_lines: 2000,
        cursor: Some("1043".into()),
        more_before: true,
        more_after: true,
        matches: Some(1),
        omitted_lines: 0,
        complete: false,
        log_complete: Some(false),
        log_missing: Some("its machine is gone".into()),
        notes: vec![],
    };
    insta::assert_snapshot!(render::logs(&answer, "b2-x", NONCE));
}

#[test]
fn answers_of_kill() {
    let answer = |kill_result, image: Option<ImageStatus>, next: Option<&str>| KillAnswer {
        build_id: "b2".into(),
        kill_result,
        state: "cancelled".into(),
        summary: "b2 cancelled by local:me after 4 s; nothing was published".into(),
        image,
        notes: vec![],
        next: next.map(str::to_owned),
    };
    let all = [
        answer(KillResult::Cancelled, None, None),
        answer(
            KillResult::AlreadyFinished,
            Some(image(&[TagState::Confirmed, TagState::Unknown])),
            None,
        ),
        answer(
            KillResult::Stopping,
            None,
            Some(r#"status {"build_id": "b2", "wait": 45}"#),
        ),
    ];
    insta::assert_snapshot!(
        all.iter()
            .map(render::kill)
            .collect::<Vec<_>>()
            .join("\n\n")
    );
}

#[test]
fn a_refused_call() {
    let mut error = ToolError::all(vec![
        ArgFault::new(
            ErrorCode::InvalidArgument,
            "tags[0]",
            "a tag is missing; write r.example.com/x:tag",
        )
        .expecting("host/repository:tag")
        .got("r.example.com/x")
        .example("\"r.example.com/x:1\""),
        ArgFault::new(
            ErrorCode::NotAllowed,
            "profile",
            "there is no profile of this name",
        )
        .suggesting(Some("large"))
        .got("larg"),
    ]);
    error.retry_after = Some(60);
    insta::assert_snapshot!(error.to_string());
}

#[test]
fn a_valid_plan() {
    let status = BuildStatus {
        build_id: "none".into(),
        state: "valid".into(),
        summary: "valid: 1 stages, 1 base images, 1 tests, 1 tags; nothing was built".into(),
        plan: Some(PlanStatus {
            stages: vec![PlanStage {
                name: "0".into(),
                base: "a.b/IGNORE-ALL:1".into(),
                steps: 3,
                line: 1,
            }],
            bases: vec!["a.b/IGNORE-ALL:1".into()],
            tests: vec!["unit".into()],
            tags: vec!["r.example.com/x:1".into()],
            outputs: vec!["/app".into(), "unit:/tmp/x".into()],
            not_checked: vec!["whether the tags may be pushed".into()],
        }),
        offers: Some(Offers {
            profiles: vec!["default".into()],
            ..Offers::default()
        }),
        ..BuildStatus::default()
    };
    insta::assert_snapshot!(render::build(&status, NONCE));
}

#[test]
fn outputs_and_what_is_missing() {
    let mut done = ended(State::Succeeded, |end| {
        let there = OutputStatus {
            kind: Some(OutputKind::File),
            size_bytes: Some(120),
            digest: Some(DIGEST.into()),
            ..OutputStatus::of("/usr/bin/app", None, "app".into())
        };
        let none = OutputStatus {
            missing: Some("there is nothing at this path".into()),
            ..OutputStatus::of("/tmp/x", Some("unit"), "x".into())
        };
        end.outputs = vec![there, none];
    });
    done.record.tags.clear();
    let mut status = present::full(&done, NOW, None);
    let place = format!("build://{}/outputs/app", status.build_id);
    if let Some(first) = status.outputs.first_mut() {
        first.uri = Some(place);
    }
    insta::assert_snapshot!(render::build(&status, NONCE));
}
