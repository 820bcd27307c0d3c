//! Phase test: each test in a fresh container of the image, under an init as PID 1.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::build::Location;
use crate::build::Phase;
use crate::build::failure::{Failure, Fault, Kind};
use crate::build::plan::PlanTest;
use crate::build::status::{ReportStatus, TestResult, TestStatus};
use crate::diagnosis::{Command, MOST_LOCATIONS, explain_test, report, tail};
use crate::log::Event;

use super::build::Images;
use super::outputs::{self, Outputs};
use super::phases::{Job, Stop};
use super::process::{Ended, Output};
use super::sandbox::{Reach, Sandbox, Secrets, Store};
use super::seen;
use super::source::Sources;

/// Where a test finds its secrets, as the commands of RUN do.
const SECRETS: &str = "/run/secrets";
/// Where the init lies in the container.
const INIT: &str = "/.nomad-build-init";
/// How the init says that it could not start the program (catatonit.c); its status is 1 then. A test
/// that prints this itself has failed as well.
const INIT_ERROR: &str = "failed to exec pid1";
/// How Buildah says that the container's init, which nobody in it can kill, or the runtime was killed
/// (run_linux.go). A test that prints this itself has failed as well, for a reason that is not known.
const KILLED: [&str; 2] = [
    "container exited on killed",
    "while running runtime: signal: killed",
];

/// Runs the tests in order; all of them, unless the plan says otherwise.
///
/// # Errors
/// The first test that did not pass, or why the build stops.
pub async fn test(
    job: &Job<'_>,
    sandbox: &Sandbox<'_>,
    sources: &Sources,
    images: &Images,
    outputs: &Outputs,
) -> Result<(), Stop> {
    let mut first: Option<Failure> = None;
    let mut failed = 0;
    let around = Around {
        job,
        sandbox,
        sources,
        outputs,
    };
    for (index, test) in job.plan.tests.iter().enumerate() {
        if job.plan.fail_fast && first.is_some() {
            job.reporter.event(Event::TestEnded {
                result: TestStatus::not_run(&test.name),
            });
            continue;
        }
        let image = test
            .stage
            .as_ref()
            .and_then(|stage| images.stages.iter().find(|(name, _)| name == stage))
            .map_or(&images.id, |(_, id)| id);
        let (result, failure) = around.one(test, index, image).await?;
        job.reporter.event(Event::TestEnded { result });
        if let Some(failure) = failure {
            failed += 1;
            first.get_or_insert(failure);
        }
    }
    match first {
        None => Ok(()),
        Some(mut failure) => {
            if failed > 1 {
                failure.message = format!(
                    "{}; {failed} of {} tests did not pass",
                    failure.message,
                    job.plan.tests.len()
                );
            }
            Err(Stop::failed(failure))
        }
    }
}

/// What every test has around it.
#[derive(Clone, Copy)]
struct Around<'a> {
    job: &'a Job<'a>,
    sandbox: &'a Sandbox<'a>,
    sources: &'a Sources,
    outputs: &'a Outputs,
}

impl Around<'_> {
    async fn one(
        &self,
        test: &PlanTest,
        index: usize,
        image: &str,
    ) -> Result<(TestStatus, Option<Failure>), Stop> {
        let Self { job, sandbox, .. } = *self;
        job.reporter.event(Event::TestStarted {
            name: test.name.clone(),
        });
        job.reporter.say(
            Phase::Test,
            format!("test {} begins, at most {} s", test.name, test.timeout),
        );
        let (before, counted) = (job.reporter.last(), job.cgroup.counters());
        let begun = Instant::now();
        let bounds = job.bounds.within(Duration::from_secs(test.timeout.into()));
        let started = sandbox
            .start(
                commands(sandbox, test, index, image),
                Reach {
                    network: true,
                    secrets: Secrets::OfTest(&test.secrets),
                    ..Reach::default()
                },
            )
            .map_err(Stop::internal)?
            .carried(sandbox.is_carried());
        let output = Output {
            reporter: job.reporter,
            phase: Phase::Test,
            test: Some(&test.name),
        };
        let ended = started.run(output, &bounds, |_| None).await;
        let seconds = (begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let last = job.reporter.last();
        let (status, exit_code) = match ended {
            Ended::Exited(0) => (TestResult::Passed, Some(0)),
            Ended::Exited(_) if job.killed_by_a_stranger(sandbox, counted, Some(&test.name)) => {
                return Err(Stop::Interrupted);
            }
            Ended::Exited(_) if !sandbox.was_reached() => return Err(job.not_entered()),
            Ended::Exited(code) => (TestResult::Failed, Some(code)),
            Ended::Cancelled => return Err(Stop::Interrupted),
            Ended::OutOfTime if Instant::now() >= job.bounds.deadline => {
                return Err(job.out_of_time(Phase::Test));
            }
            Ended::OutOfTime => (TestResult::TimedOut, None),
        };
        let mut own = job.reporter.kept();
        own.retain(|(n, line)| *n > before && line.test.as_deref() == Some(&test.name));
        let said = tail(&own);
        let says = |sign: &&str| said.as_ref().is_some_and(|(text, _)| text.contains(*sign));
        let (unstarted, killed) = (says(&INIT_ERROR), KILLED.iter().any(says));
        // The source is looked through once, and only where something points into it.
        let tree = LazyLock::new(|| seen::by_test(job, self.sources, test.stage.as_deref()));
        let mut failure = failure(test, status, exit_code, unstarted, killed).map(|mut failure| {
            let command = Command {
                lines: &own,
                status: exit_code.unwrap_or(-1),
                text: test.argv.last().map_or("", String::as_str),
            };
            explain_test(&mut failure, &command, &tree);
            job.explained(failure, counted, Some(&test.name))
        });
        let left = outputs::of_test(job, sandbox, self.outputs, test, &container(index)).await?;
        let report = left.map(|left| match left {
            Ok(text) => report(&text, &tree, &|text| job.reporter.redactor().text(text)),
            Err(problem) => ReportStatus {
                problem: Some(problem),
                ..ReportStatus::default()
            },
        });
        if let (Some(failure), Some(report)) = (&mut failure, &report) {
            name_cases(failure, report);
        }
        let result = TestStatus {
            name: test.name.clone(),
            status,
            exit_code,
            seconds: Some(seconds),
            first_line: (last > before).then_some(before + 1),
            last_line: (last > before).then_some(last),
            excerpt: failure.as_ref().and_then(|failure| failure.excerpt.clone()),
            report,
        };
        job.reporter.say(
            Phase::Test,
            match (status, exit_code) {
                (TestResult::Passed, _) => format!("test {} passed in {seconds:.1} s", test.name),
                (TestResult::TimedOut, _) => format!(
                    "test {} did not end within {} s and was ended",
                    test.name, test.timeout
                ),
                (_, code) => format!(
                    "test {} failed with status {}",
                    test.name,
                    code.unwrap_or(-1)
                ),
            },
        );
        Ok((result, failure))
    }
}

/// What the report of a failed test says comes first: it knows its cases.
fn name_cases(failure: &mut Failure, report: &ReportStatus) {
    if report.failed == 0 {
        return;
    }
    failure.message = format!(
        "{}; {} of {} cases failed",
        failure.message, report.failed, report.cases
    );
    let cases = report.failures.iter().filter_map(|case| {
        Some(Location {
            file: case.file.clone()?,
            line: case.line,
            column: None,
            message: case.message.clone().or_else(|| Some(case.name.clone())),
        })
    });
    let mut locations: Vec<Location> = Vec::new();
    for place in cases.chain(std::mem::take(&mut failure.locations)) {
        let same = |other: &Location| other.file == place.file && other.line == place.line;
        if !locations.iter().any(same) && locations.len() < MOST_LOCATIONS {
            locations.push(place);
        }
    }
    failure.locations = locations;
}

/// Name of the container of a test.
fn container(index: usize) -> String {
    format!("test-{index}")
}

fn failure(
    test: &PlanTest,
    status: TestResult,
    exit_code: Option<i32>,
    unstarted: bool,
    killed: bool,
) -> Option<Failure> {
    let mut failure = match status {
        TestResult::Passed | TestResult::NotRun => return None,
        TestResult::TimedOut => Failure::new(
            Phase::Test,
            Kind::TestTimedOut,
            format!("test {} did not end within {} s", test.name, test.timeout),
        )
        .with_hint("Make the test faster, or give it a longer timeout."),
        TestResult::Failed => match exit_code {
            // Buildah's own error: its container, its storage, or its runtime.
            Some(125) if !unstarted => Failure::new(
                Phase::Test,
                Kind::TestNotStarted,
                format!("test {} could not be started (status 125)", test.name),
            )
            .with_fault(Fault::Unknown),
            code if unstarted || matches!(code, Some(125..=127)) => Failure::new(
                Phase::Test,
                Kind::TestNotStarted,
                format!("test {} could not be started, or one of its commands was not found (status {})", test.name, exit_code.unwrap_or_default()),
            )
            .with_hint("Look at its output: the image may lack a shell (use argv) or the program (stage: test in an earlier stage)."),
            code if killed || code == Some(137) => Failure::new(
                Phase::Test,
                Kind::TestFailed,
                format!("test {} was killed (status {})", test.name, code.unwrap_or(-1)),
            )
            .with_fault(Fault::Unknown),
            code => Failure::new(
                Phase::Test,
                Kind::TestFailed,
                format!("test {} ended with status {}", test.name, code.unwrap_or(-1)),
            ),
        },
    };
    failure.test = Some(test.name.clone());
    failure.exit_code = exit_code;
    Some(failure)
}

/// A fresh container, then the test in it: the image's WORKDIR, USER and ENV, not its ENTRYPOINT.
fn commands(sandbox: &Sandbox<'_>, test: &PlanTest, index: usize, image: &str) -> Vec<Vec<String>> {
    let name = container(index);
    let mut from = sandbox.buildah(Store::Own);
    from.extend(["from", "--quiet", "--pull-never", "--name", &name, image].map(String::from));
    from.insert(from.len() - 1, sandbox.file_limit());
    let mut run = sandbox.buildah(Store::Own);
    run.push("run".into());
    run.extend(sandbox.isolation());
    run.push(format!(
        "--volume={}:{INIT}:ro",
        sandbox.host.init.display()
    ));
    for secret in &test.secrets {
        let path = sandbox.work.secrets_inside().join(secret);
        run.push(format!("--volume={}:{SECRETS}/{secret}:ro", path.display()));
    }
    for (key, value) in &test.env {
        run.extend(["--env".to_owned(), format!("{key}={value}")]);
    }
    run.extend([name, "--".into(), INIT.into(), "--".into()]);
    run.extend(test.argv.iter().cloned());
    vec![from, run]
}
