//! Builds that succeed, and what is said of them.

use nomad_build::backend::Backend;
use nomad_build::build::status::{TagState, TestResult};
use nomad_build::build::{Phase, State};

use crate::lab::{Bench, Lab};
use crate::order::Order;
use crate::registry::{Registry, app};

cases!(without_tags, with_tags);

async fn without_tags<L: Lab>() {
    let bench = Bench::<L>::plain();
    let order = Order::run(&["echo hello from the build"]).test("unit", "echo hello from the test");
    let id = bench.submit(order).await;
    let end = bench.ends_as(&id, State::Succeeded).await;
    assert_eq!((end.phase, &end.failure), (Some(Phase::Test), &None));
    let image = end.image.unwrap();
    assert!(image.id.starts_with("sha256:"), "{image:?}");
    assert!(!image.published && image.tags.is_empty(), "{image:?}");
    let phases: Vec<Phase> = end.phase_seconds.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(phases, [Phase::Source, Phase::Build, Phase::Test]);
    assert_eq!(end.tests.len(), 1);
    assert_eq!(end.tests[0].status, TestResult::Passed);

    let lines = bench.log(&id).await;
    assert_eq!(end.log_lines, lines.len() as u64);
    for (phase, text) in [
        (Phase::Build, "hello from the build"),
        (Phase::Test, "hello from the test"),
    ] {
        let found = lines
            .iter()
            .filter(|(_, line)| line.phase == phase && line.text == text);
        assert_eq!(found.count(), 1, "{text}: {lines:#?}");
    }
    let record = bench.server.look(&id).await.unwrap().record;
    let (began, at) = (record.began.unwrap(), record.end.unwrap().at);
    assert!(record.submitted <= began && began <= at);
    assert_eq!((record.commit, record.cancel), (None, None));
}

async fn with_tags<L: Lab>() {
    let registry = Registry::open();
    let bench = Bench::<L>::with_registries(&[registry.host.to_string()]);
    let tags = [app(registry.host, "1"), app(registry.host, "latest")];
    let order = Order::run(&["echo x > /x"]).test("unit", "test -f /x");
    let order = tags.iter().fold(order, |order, tag| order.tag(tag));
    let id = bench.submit(order).await;
    let end = bench.ends_as(&id, State::Succeeded).await;
    assert_eq!(end.phase, Some(Phase::Publish));
    let image = end.image.unwrap();
    assert!(image.published);
    for (index, name) in ["1", "latest"].into_iter().enumerate() {
        let found = registry.tagged(name).expect("the tag is not there");
        assert_eq!(image.tags[index].tag, tags[index]);
        assert_eq!(image.tags[index].state, TagState::Confirmed);
        assert_eq!(image.tags[index].digest.as_ref(), Some(&found.digest));
        assert_eq!(image.digest.as_ref(), Some(&found.digest));
        // What was tested is what is published.
        assert_eq!(image.id, found.config);
    }
    let record = bench.server.look(&id).await.unwrap().record;
    assert!(record.commit.is_some());
}
