//! A cancel at the border between two phases: whatever the build becomes, the registry agrees.

use nomad_build::backend::Backend;
use nomad_build::build::record::CancelOutcome;
use nomad_build::build::{Phase, State};

use crate::lab::{Bench, Lab, assert_cancelled_by};
use crate::order::Order;
use crate::registry::{Registry, app};

cases!(after_source, after_build, after_test, at_publish);

async fn after_source<L: Lab>() {
    at_the_end_of::<L>(Phase::Source).await;
}

async fn after_build<L: Lab>() {
    at_the_end_of::<L>(Phase::Build).await;
}

async fn after_test<L: Lab>() {
    at_the_end_of::<L>(Phase::Test).await;
}

async fn at_the_end_of<L: Lab>(phase: Phase) {
    let registry = Registry::open();
    let bench = Bench::<L>::with_registries(&[registry.host.to_string()]);
    for name in ["1", "2", "3"] {
        let order = Order::run(&["true"])
            .test("unit", "true")
            .tag(app(registry.host, name));
        let id = bench.submit(order).await;
        bench.until_phase_ended(&id, phase).await;
        let outcome = bench.cancel(&id).await;
        agrees(&bench, &registry, &id, name, outcome).await;
    }
}

/// Publish itself is quick here: the cancel falls before, on or behind its commit point.
async fn at_publish<L: Lab>() {
    let registry = Registry::open();
    let bench = Bench::<L>::with_registries(&[registry.host.to_string()]);
    for name in ["1", "2", "3", "4"] {
        let id = bench
            .submit(Order::quick().tag(app(registry.host, name)))
            .await;
        bench.until_phase(&id, Phase::Publish).await;
        let outcome = bench.cancel(&id).await;
        agrees(&bench, &registry, &id, name, outcome).await;
    }
}

async fn agrees<L: Lab>(
    bench: &Bench<L>,
    registry: &Registry,
    id: &nomad_build::build::BuildId,
    name: &str,
    outcome: CancelOutcome,
) {
    let end = bench.end(id).await;
    let view = bench.server.look(id).await.unwrap();
    let there = registry.tagged(name);
    match end.state {
        State::Cancelled => {
            assert_eq!(outcome, CancelOutcome::Marked);
            assert_cancelled_by(&view, "tester");
            assert_eq!(there, None, "a cancelled build was published");
            assert_eq!(view.record.commit, None);
        }
        State::Succeeded => {
            assert!(
                matches!(outcome, CancelOutcome::Committed | CancelOutcome::Ended),
                "it answered {outcome:?} and published"
            );
            let digest = end.image.unwrap().digest;
            assert_eq!(there.map(|tagged| tagged.digest), digest);
        }
        _ => panic!("{end:#?}\n{}", bench.lab.explain(id)),
    }
}
