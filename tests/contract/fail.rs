//! Builds that fail, in each phase, with the reason.

use nomad_build::build::status::TestResult;
use nomad_build::build::{Fault, Kind, Phase, State};

use crate::lab::{Bench, Lab};
use crate::order::Order;
use crate::registry::{Registry, app};
use crate::stall::nobody;

cases!(
    in_source_without_a_containerfile,
    in_source_without_a_base_image,
    in_build,
    in_test,
);

async fn in_source_without_a_containerfile<L: Lab>() {
    let bench = Bench::<L>::plain();
    let id = bench.submit(Order::without_containerfile()).await;
    let end = bench.ends_as(&id, State::Failed).await;
    let failure = end.failure.unwrap();
    assert_eq!(
        (failure.phase, failure.kind, failure.fault),
        (
            Some(Phase::Source),
            Kind::ContainerfileNotFound,
            Fault::Request
        )
    );
    assert_eq!((end.phase, end.image), (Some(Phase::Source), None));
}

async fn in_source_without_a_base_image<L: Lab>() {
    let host = nobody().await;
    let bench = Bench::<L>::with_registries(&[host.to_string()]);
    let order = Order::containerfile(format!("FROM {host}/base:1\nRUN true\n"));
    let id = bench.submit(order).await;
    let end = bench.ends_as(&id, State::Failed).await;
    let failure = end.failure.unwrap();
    assert_eq!(
        (failure.phase, failure.kind, failure.fault),
        (
            Some(Phase::Source),
            Kind::RegistryUnreachable,
            Fault::Transient
        ),
        "{failure:#?}"
    );
    assert!(failure.retryable && failure.message.contains(&host.to_string()));
    assert_eq!(
        (failure.file.as_deref(), failure.line),
        (Some("Containerfile"), Some(1))
    );
}

async fn in_build<L: Lab>() {
    let registry = Registry::open();
    let bench = Bench::<L>::with_registries(&[registry.host.to_string()]);
    let order = Order::run(&["echo before", "echo the reason; exit 7", "echo after"])
        .test("never", "true")
        .tag(app(registry.host, "1"));
    let id = bench.submit(order).await;
    let end = bench.ends_as(&id, State::Failed).await;
    let failure = end.failure.unwrap();
    assert_eq!(
        (failure.phase, failure.kind, failure.fault),
        (Some(Phase::Build), Kind::CommandFailed, Fault::Code)
    );
    assert_eq!((failure.exit_code, failure.line), (Some(7), Some(4)));
    assert!(failure.excerpt.unwrap().contains("the reason"));
    assert_eq!(end.phase, Some(Phase::Build));
    assert_eq!(end.tests[0].status, TestResult::NotRun);
    let lines = bench.log(&id).await;
    assert!(lines.iter().any(|(_, line)| line.text == "before"));
    assert!(!lines.iter().any(|(_, line)| line.text == "after"));
    assert!(registry.is_untagged());
}

async fn in_test<L: Lab>() {
    let registry = Registry::open();
    let bench = Bench::<L>::with_registries(&[registry.host.to_string()]);
    let order = Order::quick()
        .test("first", "echo the reason; exit 3")
        .test("second", "echo fine")
        .test_within("third", "sleep 1000", 1)
        .tag(app(registry.host, "1"));
    let id = bench.submit(order).await;
    let end = bench.ends_as(&id, State::Failed).await;
    let failure = end.failure.unwrap();
    assert_eq!(
        (failure.phase, failure.kind, failure.fault),
        (Some(Phase::Test), Kind::TestFailed, Fault::Code)
    );
    assert_eq!(
        (failure.test.as_deref(), failure.exit_code),
        (Some("first"), Some(3))
    );
    let results: Vec<_> = end
        .tests
        .iter()
        .map(|test| (test.name.as_str(), test.status))
        .collect();
    assert_eq!(
        results,
        [
            ("first", TestResult::Failed),
            ("second", TestResult::Passed),
            ("third", TestResult::TimedOut)
        ]
    );
    let image = end.image.expect("the image of failed tests is known");
    assert!(!image.published && image.tags.is_empty(), "{image:?}");
    assert_eq!(end.phase, Some(Phase::Test));
    assert!(registry.is_untagged());
}
